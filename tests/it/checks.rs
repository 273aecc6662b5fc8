//! `ticketlog check` against broken set-ups of each kind, the least privileges of deploy/, and what systemd is told.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use bson::{Document, doc};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::Value;

use crate::harness::{Bed, Kind, Private, SOON, Said, Sent, eventually, guard};

/// What `check --json` found.
struct Checked {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Checked {
    fn of(bed: &Bed, settings: &[(&str, &str)]) -> Self {
        let mut command = bed.command();
        command.envs(settings.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
        let said = Said::from(command.args(["check", "--json"]).output().unwrap());
        assert_eq!(said.err, "");
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(answer["ok"], Value::Bool(said.code == Some(0)), "{said:?}");
        Checked { code: said.code, findings: answer["findings"].as_array().unwrap().clone() }
    }

    /// Whether there is a line of this level about this, saying that.
    fn says(&self, level: &str, about: &str, text: &str) -> bool {
        self.findings.iter().any(|finding| {
            let said = finding["said"].as_str().unwrap().contains(text);
            assert_eq!(finding["fix"].is_string(), finding["level"] != "ok", "{finding}");
            said && finding["level"] == level && finding["about"] == about
        })
    }

    fn assert(&self, level: &str, about: &str, text: &str) {
        assert!(self.says(level, about, text), "{level} {about} {text:?} is not among {:#?}", self.findings);
    }
}

#[tokio::test]
async fn a_good_setup_has_nothing_to_mend_and_is_left_as_it_was() {
    let bed = Bed::new().await;
    bed.publish_all((0..3).map(Sent::numbered)).await;
    for _ in 0..2 {
        let checked = Checked::of(&bed, &[]);
        assert_eq!(checked.code, Some(0), "{:#?}", checked.findings);
        checked.assert("ok", "broker.queue", "as configured");
        checked.assert("ok", "broker.queue", "may read queue");
        checked.assert("ok", "dead_letter.exchange", "may write");
        checked.assert("ok", "store.ensure_indexes", "user_id_1_timestamp_-1 is there");
        checked.assert("warn", "broker.routing_keys", "bindings cannot be seen");
        checked.assert("warn", "store.uri", "one visible member");
    }
    assert_eq!((bed.depth(&bed.queue()).await, bed.depth(&bed.dead_queue()).await), (3, 0));
    let first = bed.channel.basic_get(bed.queue().into(), Default::default()).await.unwrap().unwrap();
    assert!(!first.delivery.redelivered, "nothing was looked at");
    bed.clean().await;
}

#[tokio::test]
async fn every_broken_part_is_found_with_its_fix() {
    let bed = Bed::new().await;
    for (settings, code, (level, about, text)) in [
        (vec![("BROKER__URI", "amqp://guest:guest@127.0.0.1:1/%2f")], 69, ("fail", "broker.uri", "cannot be reached")),
        (
            vec![("BROKER__URI", &bed.broker_uri.replace("guest:guest", "guest:no"))],
            69,
            ("fail", "broker.uri", "refuses the user"),
        ),
        (vec![("BROKER__URI", &bed.broker_uri.replace("%2f", "nowhere"))], 69, ("fail", "broker.uri", "virtual host")),
        (vec![("BROKER__URI", "http://x")], 78, ("fail", "configuration", "broker.uri")),
        (vec![("BROKER__PREFETCH", "1")], 78, ("fail", "configuration", "2000")),
        (vec![("BROKER__QUEUE_TYPE", "classic")], 69, ("fail", "broker.queue", "x-queue-type")),
        (vec![("BROKER__QUEUE", "no.such"), ("BROKER__DECLARE", "false")], 69, ("fail", "broker.queue", "missing")),
        (vec![("BROKER__QUEUE", "no.such")], 0, ("warn", "broker.queue", "not there yet")),
        (
            vec![("BROKER__EXCHANGE", &format!("{}.dlx", bed.name)), ("DEAD_LETTER__EXCHANGE", &bed.name)],
            69,
            ("fail", "broker.exchange", "type"),
        ),
        (
            vec![("STORE__URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300")],
            69,
            ("fail", "store.uri", "no MongoDB primary"),
        ),
        (vec![("STORE__RETENTION", "30days")], 0, ("warn", "store.ensure_indexes", "ingested_at_1 is not there")),
    ] {
        let checked = Checked::of(&bed, &settings);
        checked.assert(level, about, text);
        assert_eq!(checked.code, Some(code), "{settings:?} {:#?}", checked.findings);
    }
    bed.clean().await;
}

#[tokio::test]
async fn what_was_changed_behind_the_workers_back_is_found() {
    let bed = Bed::new().await;
    let limited: FieldTable =
        [("x-queue-type".into(), text("quorum")), ("x-delivery-limit".into(), lapin::types::AMQPValue::LongInt(3))]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into();
    bed.channel.queue_delete(bed.dead_queue().into(), Default::default()).await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    bed.channel.queue_declare(bed.dead_queue().into(), options, limited).await.unwrap();
    let indexes = [
        doc! { "name": "ingested_at_1", "key": { "ingested_at": 1 }, "expireAfterSeconds": 60 },
        doc! { "name": "one_each", "key": { "uuid": 1, "x": 1 }, "unique": true },
    ];
    let database = bed.client.database(&bed.name);
    database.run_command(doc! { "createIndexes": "log", "indexes": indexes.to_vec() }).await.unwrap();
    let checked = Checked::of(&bed, &[("STORE__RETENTION", "30days")]);
    checked.assert("fail", "dead_letter.queue", "x-delivery-limit");
    checked.assert("fail", "dead_letter.queue", "destroys what is looked at");
    checked.assert("fail", "store.retention", "deletes after 1m, the configuration says after 30days");
    checked.assert("warn", "store.collection", "one_each is unique");
    bed.clean().await;
}

fn text(text: &str) -> lapin::types::AMQPValue {
    lapin::types::AMQPValue::LongString(text.into())
}

#[tokio::test]
async fn a_missing_binding_is_found_by_the_management_api() {
    let broker = Private::prepared(Kind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].\n").unwrap();
        std::fs::write(directory.join("extra.conf"), format!("management.tcp.port = {}\n", port + 3)).unwrap();
    });
    let bed = Bed::with_broker(&broker).await;
    let check = |declare: &str, wanted: (&str, &str)| {
        let mut command = bed.command();
        let management = format!("http://127.0.0.1:{}", broker.port() + 3);
        command.env("TICKETLOG_BROKER__DECLARE", declare).args(["check", "--management", &management]);
        let said = Said::from(command.output().unwrap());
        let found = said.out.lines().any(|line| line.starts_with(wanted.0) && line.contains(wanted.1));
        assert!(found, "{wanted:?} is not among\n{}", said.out);
    };
    let (queue, exchange, dlx) = (bed.queue(), bed.name.clone(), format!("{}.dlx", bed.name));
    let (key, dead, none): (&str, _, _) = ("ticket.#", bed.dead_queue(), FieldTable::default());
    check("true", ("ok", &format!("{queue} is bound to {exchange} with {key}")));
    check("true", ("ok", &format!("{dead} is bound to {dlx} with {dead}")));
    check("true", ("ok", "can be looked through (delivery limit 2000000000)"));
    let bed_channel = &bed.channel;
    bed_channel.queue_unbind(dead.as_str().into(), dlx.into(), dead.as_str().into(), none.clone()).await.unwrap();
    check("false", ("fail", &format!("{dead} is not bound")));
    let unbind = bed_channel.queue_unbind(queue.as_str().into(), exchange.into(), key.into(), none.clone());
    unbind.await.unwrap();
    check("true", ("warn", &format!("{queue} is not bound")));
    check("false", ("fail", &format!("{queue} is not bound")));
    // Spread over several queues by another exchange, as docs/operations.md says.
    let options = lapin::options::QueueBindOptions::default();
    bed_channel.queue_bind(queue.as_str().into(), "amq.topic".into(), "1".into(), options, none).await.unwrap();
    check("false", ("warn", "but to amq.topic with 1"));
}

#[tokio::test]
async fn a_view_is_no_collection() {
    let bed = Bed::new().await;
    let database = bed.client.database(&bed.name);
    database.run_command(doc! { "create": "seen", "viewOn": "log", "pipeline": [] }).await.unwrap();
    let checked = Checked::of(&bed, &[("STORE__COLLECTION", "seen")]);
    checked.assert("fail", "store.collection", "is a view");
    bed.clean().await;
}

/// A broker with the definitions of deploy/rabbitmq, and a password for each of its users.
fn guarded_broker() -> Private {
    let broker = Private::start(Kind::Rabbitmq);
    let path = format!("{}/deploy/rabbitmq/definitions.json", env!("CARGO_MANIFEST_DIR"));
    broker.ctl(&["import_definitions", &path]);
    let change = r#"[rabbit_auth_backend_internal:change_password(list_to_binary(User), list_to_binary(User ++ "-secret"), <<"test">>)
        || User <- ["ticketlog", "ticketlog-desk", "tickets-publisher"]]."#;
    broker.ctl(&["eval", change]);
    broker
}

#[tokio::test]
async fn worker_desk_and_publisher_need_no_more_than_their_least_privileges() {
    let broker = guarded_broker();
    let database = "guarded";
    let (store, client) = guard::store().await;
    guard::roles(&client, database, "log").await;
    let worker_store = guard::as_user(&store, "ticketlogWorker", database);
    let login = |user: &str| broker.uri().replace("guest:guest", &format!("{user}:{user}-secret"));
    let with = |user: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let directory = [("STORE__DATABASE", database), ("STORE__COLLECTION", "log"), ("BROKER__DECLARE", "false")];
        for (key, value) in directory.into_iter().chain([
            ("BROKER__URI", login(user).as_str()),
            ("STORE__URI", &worker_store),
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("DEAD_LETTER__OPERATORS", "ticketlog-desk"),
        ]) {
            command.env(format!("TICKETLOG_{key}"), value);
        }
        command.env_remove("RUST_MIN_STACK").args(arguments);
        command
    };
    let said = |user: &str, arguments: &[&str]| Said::from(with(user, arguments).output().unwrap());
    let worker = crate::harness::Worker::start(with("ticketlog", &[])).await;
    worker.ready().await;
    let published = said("tickets-publisher", &["publish", "--generate", "500", "--malformed", "4", "--seed", "5"]);
    assert_eq!(published.code, Some(0), "{published:?}");
    eventually("everything has an outcome", SOON, async || {
        worker.settled("stored") + worker.settled("dead_lettered") == 500
    })
    .await;
    let collection = client.database(database).collection::<Document>("log");
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), worker.settled("stored"));
    eventually("indexes", SOON, async || collection.list_index_names().await.unwrap().len() == 5).await;
    let stats = said("ticketlog-desk", &["dead", "stats", "--json"]);
    assert_eq!(stats.code, Some(0), "{stats:?}");
    let dead = worker.settled("dead_lettered");
    let replay = said(
        "ticketlog-desk",
        &["dead", "replay", "--yes", "--limit", "3", "--follow", "--status", &format!("http://{}", worker.address())],
    );
    assert_eq!(replay.code, Some(65), "{replay:?}");
    eventually("the replayed ones are dead again", SOON, async || worker.settled("dead_lettered") == dead + 3).await;
    eventually("the queues are watched", SOON, async || {
        worker.metrics()["ticketlog_queue_messages{queue=\"dead_letter\"}"] == dead as f64
    })
    .await;
    let checked = said("ticketlog", &["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    // What each may not do.
    assert_eq!(said("ticketlog", &["publish", "--generate", "1"]).code, Some(77));
    assert_eq!(said("ticketlog", &["dead", "stats"]).code, Some(77));
    assert_eq!(said("tickets-publisher", &["dead", "stats"]).code, Some(77));
    let refused = said("tickets-publisher", &["check"]);
    assert_eq!(refused.code, Some(69), "{refused:?}");
    assert!(refused.out.contains("fail  broker.queue") && refused.out.contains("may not read"), "{}", refused.out);
}

#[tokio::test]
async fn systemd_is_told_of_readiness_of_troubles_and_that_the_loop_turns() {
    let bed = Bed::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = bed.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let mut worker = crate::harness::Worker::start(command).await;
    let next = |wanted: &str| {
        for _ in 0..200 {
            let mut bytes = [0; 4096];
            let length = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
        panic!("{wanted} was not told");
    };
    next("READY=1");
    assert!(next("STATUS=consuming").contains("WATCHDOG=1"));
    worker.signal("TERM");
    next("STOPPING=1");
    assert!(worker.ended().await.success());
    bed.clean().await;
}
