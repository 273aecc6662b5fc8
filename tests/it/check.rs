//! `ticketlog check` with broken setups of every kind, and the notifications to systemd.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use bson::doc;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use crate::harness::{CommandOutput, DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, eventually};

/// What `check --json` found.
struct CheckReport {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl CheckReport {
    fn run(env: &TestEnv, settings: &[(&str, &str)]) -> Self {
        let mut command = env.command();
        command.envs(settings.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
        let output = CommandOutput::from(command.args(["check", "--json"]).output().unwrap());
        assert_eq!(output.err, "");
        let answer: Value = serde_json::from_str(&output.out).unwrap();
        assert_eq!(answer["ok"], Value::Bool(output.code == Some(0)), "{output:?}");
        CheckReport { code: output.code, findings: answer["findings"].as_array().unwrap().clone() }
    }

    /// Whether there is a finding of this level and subject with this text.
    fn has(&self, level: &str, subject: &str, text: &str) -> bool {
        self.findings.iter().any(|finding| {
            let has_text = finding["message"].as_str().unwrap().contains(text);
            assert_eq!(finding["fix"].is_string(), finding["level"] != "ok", "{finding}");
            has_text && finding["level"] == level && finding["subject"] == subject
        })
    }

    fn assert(&self, level: &str, subject: &str, text: &str) {
        assert!(self.has(level, subject, text), "{level} {subject} {text:?} is not among {:#?}", self.findings);
    }
}

#[tokio::test]
async fn a_correct_setup_passes_and_is_not_changed() {
    let env = TestEnv::new().await;
    env.publish_all((0..3).map(TestMessage::numbered)).await;
    for _ in 0..2 {
        let report = CheckReport::run(&env, &[]);
        assert_eq!(report.code, Some(0), "{:#?}", report.findings);
        report.assert("ok", "broker.queue", "as configured");
        report.assert("ok", "broker.queue", "may read queue");
        report.assert("ok", "dead_letter.exchange", "may write");
        report.assert("ok", "store.ensure_indexes", "user_id_1_timestamp_-1 exists");
        report.assert("warn", "broker.routing_keys", "bindings are unknown");
        report.assert("warn", "store.uri", "one visible member");
    }
    assert_eq!((env.depth(&env.queue()).await, env.depth(&env.dead_letter_queue()).await), (3, 0));
    let first = env.channel.basic_get(env.queue().into(), Default::default()).await.unwrap().unwrap();
    assert!(!first.delivery.redelivered, "`ticketlog check` consumed nothing");
    env.clean().await;
}

#[tokio::test]
async fn every_problem_is_found_with_its_fix() {
    let env = TestEnv::new().await;
    for (settings, code, (level, subject, text)) in [
        (
            vec![("BROKER__URI", "amqp://guest:guest@127.0.0.1:1/%2f")],
            69,
            ("fail", "broker.uri", "cannot be reached at 127.0.0.1:1"),
        ),
        (
            vec![("BROKER__URI", &env.broker_uri.replace("guest:guest", "guest:no"))],
            69,
            ("fail", "broker.uri", "rejects the user"),
        ),
        (vec![("BROKER__URI", &env.broker_uri.replace("%2f", "nowhere"))], 69, ("fail", "broker.uri", "virtual host")),
        (vec![("BROKER__URI", "http://x")], 78, ("fail", "configuration", "broker.uri")),
        (vec![("BROKER__PREFETCH", "1")], 78, ("fail", "configuration", "4000")),
        (vec![("BROKER__QUEUE_TYPE", "classic")], 69, ("fail", "broker.queue", "x-queue-type")),
        (
            vec![("BROKER__QUEUE", "no.such"), ("BROKER__DECLARE", "false")],
            69,
            ("fail", "broker.queue", "does not exist, and"),
        ),
        (vec![("BROKER__QUEUE", "no.such")], 0, ("warn", "broker.queue", "does not exist yet")),
        (
            vec![("BROKER__EXCHANGE", &format!("{}.dlx", env.name)), ("DEAD_LETTER__EXCHANGE", &env.name)],
            69,
            ("fail", "broker.exchange", "type"),
        ),
        (
            vec![("STORE__URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300")],
            69,
            ("fail", "store.uri", "no MongoDB primary can be reached, at 127.0.0.1:1"),
        ),
        (vec![("STORE__RETENTION", "30days")], 0, ("warn", "store.ensure_indexes", "ingested_at_1 does not exist yet")),
    ] {
        let report = CheckReport::run(&env, &settings);
        report.assert(level, subject, text);
        assert_eq!(report.code, Some(code), "{settings:?} {:#?}", report.findings);
    }
    env.clean().await;
}

#[tokio::test]
async fn changes_behind_the_workers_back_are_found() {
    let env = TestEnv::new().await;
    let limited: FieldTable =
        [("x-queue-type".into(), text("quorum")), ("x-delivery-limit".into(), lapin::types::AMQPValue::LongInt(3))]
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into();
    env.channel.queue_delete(env.dead_letter_queue().into(), Default::default()).await.unwrap();
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    env.channel.queue_declare(env.dead_letter_queue().into(), options, limited).await.unwrap();
    let indexes = [
        doc! { "name": "ingested_at_1", "key": { "ingested_at": 1 }, "expireAfterSeconds": 60 },
        doc! { "name": "one_each", "key": { "uuid": 1, "x": 1 }, "unique": true },
    ];
    let database = env.client.database(&env.name);
    database.run_command(doc! { "createIndexes": "log", "indexes": indexes.to_vec() }).await.unwrap();
    let report = CheckReport::run(&env, &[("STORE__RETENTION", "30days")]);
    report.assert("fail", "dead_letter.queue", "x-delivery-limit");
    report.assert("fail", "dead_letter.queue", "cannot be browsed safely");
    report.assert("fail", "store.retention", "deletes documents after 1m, but should delete documents after 30days");
    report.assert("warn", "store.collection", "one_each is unique");
    env.clean().await;
}

fn text(text: &str) -> lapin::types::AMQPValue {
    lapin::types::AMQPValue::LongString(text.into())
}

/// Neither kind of collection can keep what the worker promises: it must not consume.
#[tokio::test]
async fn unfit_collections_are_refused_and_validators_are_reported() {
    let env = TestEnv::new().await;
    let database = env.client.database(&env.name);
    let kinds = [
        (doc! { "create": "log", "capped": true, "size": 4096 }, "is a capped collection"),
        (doc! { "create": "log", "timeseries": { "timeField": "timestamp" } }, "is a time-series collection"),
        (doc! { "create": "log", "viewOn": "other", "pipeline": [] }, "is a view"),
    ];
    for (create, text) in kinds {
        database.collection::<bson::Document>("log").drop().await.unwrap();
        database.run_command(create).await.unwrap();
        CheckReport::run(&env, &[]).assert("fail", "store.collection", text);
        let mut worker = env.worker().await;
        eventually("the worker refuses it", DEADLINE, async || worker.get("/readyz").1.contains(text)).await;
        env.publish(&TestMessage::numbered(1)).await;
        assert_eq!(worker.stop().await.code(), Some(0));
        env.wait_for_depth(&env.queue(), 1).await;
        env.channel.queue_purge(env.queue().into(), Default::default()).await.unwrap();
    }
    database.collection::<bson::Document>("log").drop().await.unwrap();
    database.run_command(doc! { "create": "log", "validator": { "n": { "$gte": 0 } } }).await.unwrap();
    CheckReport::run(&env, &[]).assert("warn", "store.collection", "has a validator");
    database.collection::<bson::Document>("log").drop().await.unwrap();
    let clustered = doc! { "key": { "_id": 1 }, "unique": true };
    database.run_command(doc! { "create": "log", "clusteredIndex": clustered }).await.unwrap();
    let expiring = doc! { "name": "timestamp_-1", "key": { "timestamp": -1 }, "expireAfterSeconds": 60 };
    database.run_command(doc! { "createIndexes": "log", "indexes": [expiring] }).await.unwrap();
    let text = "deletes documents after 1m, where timestamp is a date, but should delete nothing";
    CheckReport::run(&env, &[]).assert("fail", "store.retention", text);
    let output = env.command().arg("check").output().unwrap();
    assert!(!String::from_utf8(output.stdout).unwrap().contains("is unique"), "the index of a clustered collection");
    env.clean().await;
}

#[tokio::test]
async fn a_missing_binding_is_found_by_the_management_api() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].\n").unwrap();
        std::fs::write(directory.join("extra.conf"), format!("management.tcp.port = {}\n", port + 3)).unwrap();
    });
    let env = TestEnv::with_dedicated_broker(&broker).await;
    let management = format!("http://127.0.0.1:{}", broker.port() + 3);
    let report = |settings: &[(&str, &str)]| {
        let mut command = env.command();
        command.env("TICKETLOG_BROKER__MANAGEMENT", &management).arg("check");
        command.envs(settings.iter().map(|(key, value)| (format!("TICKETLOG_BROKER__{key}"), value)));
        CommandOutput::from(command.output().unwrap()).out
    };
    let has = |report: &str, wanted: (&str, &str)| {
        report.lines().any(|line| line.starts_with(wanted.0) && line.contains(wanted.1))
    };
    let check = |declare: &str, wanted: (&str, &str)| {
        let report = report(&[("DECLARE", declare)]);
        assert!(has(&report, wanted), "{wanted:?} is not among\n{report}");
    };
    let (queue, exchange, dlx) = (env.queue(), env.name.clone(), format!("{}.dlx", env.name));
    let (key, dead, none): (&str, _, _) = ("ticket.#", env.dead_letter_queue(), FieldTable::default());
    check("true", ("ok", &format!("queue {queue} is bound to exchange {exchange} with {key}")));
    check("true", ("ok", &format!("queue {dead} is bound to exchange {dlx} with {dead}")));
    check("true", ("ok", "can be browsed safely (delivery limit 2000000000)"));
    let channel = &env.channel;
    channel.queue_unbind(dead.as_str().into(), dlx.into(), dead.as_str().into(), none.clone()).await.unwrap();
    check("false", ("fail", &format!("{dead} is not bound")));
    let unbind = channel.queue_unbind(queue.as_str().into(), exchange.into(), key.into(), none.clone());
    unbind.await.unwrap();
    check("true", ("warn", &format!("{queue} is not bound")));
    check("false", ("fail", &format!("{queue} is not bound")));
    // Bound to another exchange, which spreads the load over several queues, as in docs/operate/scaling.md.
    let options = lapin::options::QueueBindOptions::default();
    channel.queue_bind(queue.as_str().into(), "amq.topic".into(), "1".into(), options, none).await.unwrap();
    check("false", ("warn", "but to exchange amq.topic with 1"));
    // Why the management API does not answer.
    broker.add_user("plain", "secret", Some([".*"; 3]));
    let plain = env.broker_uri.replace("guest:guest", "plain:secret");
    let amqp = format!("http://127.0.0.1:{}", broker.port());
    for (setting, wanted) in [
        (("URI", plain.as_str()), "does not answer user plain, who has no tag for it"),
        (("MANAGEMENT", "http://127.0.0.1:9"), "does not answer at http://127.0.0.1:9/: the connection is refused"),
        (("MANAGEMENT", amqp.as_str()), "the answer is not a response over HTTP"),
    ] {
        let report = report(&[setting]);
        assert!(
            has(&report, ("warn", wanted)) && report.contains("TicketlogDeadLettersRemovable"),
            "{wanted}: {report}"
        );
    }
    // A dead-letter queue that is full.
    let policy = r#"{"max-length": 1, "overflow": "reject-publish"}"#;
    broker.ctl(&["set_policy", "full", ".*dead$", policy, "--apply-to", "queues"]);
    let published = channel.basic_publish("".into(), dead.as_str().into(), Default::default(), b"", Default::default());
    published.await.unwrap();
    let full = ("fail", "is full, with 1 of at most 1 messages");
    eventually("it is full", DEADLINE, async || has(&report(&[]), full)).await;
}

#[tokio::test]
async fn a_stream_is_not_consumed_and_the_readiness_of_a_worker_is_checked() {
    let env = TestEnv::new().await;
    env.channel.queue_delete(env.queue().into(), Default::default()).await.unwrap();
    let stream = std::collections::BTreeMap::from([("x-queue-type".into(), AMQPValue::LongString("stream".into()))]);
    let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    env.channel.queue_declare(env.queue().into(), options, stream.into()).await.unwrap();
    let bound = env.channel.queue_bind(
        env.queue().into(),
        env.name.as_str().into(),
        "ticket.#".into(),
        Default::default(),
        Default::default(),
    );
    bound.await.unwrap();
    let worker = env.worker_with(&[("BROKER__DECLARE", "false")]).await;
    let check = |level: &str, text: &str| {
        let address = format!("http://{}", worker.address());
        let output = env.command().args(["check", "--status", &address]).output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert!(report.lines().any(|line| line.starts_with(level) && line.contains(text)), "{text}: {report}");
    };
    worker.wait_until_ready().await;
    check("ok", "is ready");
    env.publish_all((0..10).map(crate::harness::TestMessage::numbered)).await;
    // A stream delivers what comes after the consumer has started.
    eventually("it is refused", DEADLINE, async || {
        env.publish(&crate::harness::TestMessage::numbered(10)).await;
        worker.get("/readyz").1.contains("is a stream")
    })
    .await;
    check("fail", "is not ready: broker:");
    assert_eq!(env.count().await, 0);
    env.clean().await;
}

#[tokio::test]
async fn a_publisher_cannot_make_a_queue_look_like_a_stream() {
    let env = TestEnv::new().await;
    for (n, declare) in [(0, "true"), (1, "false")] {
        let forged = std::collections::BTreeMap::from([("x-stream-offset".into(), AMQPValue::LongLongInt(7))]);
        let sent = crate::harness::TestMessage::numbered(n);
        env.publish(&sent.with(|properties| properties.with_headers(forged.into()))).await;
        let mut worker = env.worker_with(&[("BROKER__DECLARE", declare)]).await;
        eventually("it is stored", DEADLINE, async || env.count().await == n as u64 + 1).await;
        worker.wait_until_ready().await;
        assert!(worker.log().contains("x-stream-offset although the queue is not a stream"), "{}", worker.log());
        worker.stop().await;
    }
    env.assert_exactly(2).await;
    env.clean().await;
}

#[tokio::test]
async fn a_view_is_rejected() {
    let env = TestEnv::new().await;
    let database = env.client.database(&env.name);
    database.run_command(doc! { "create": "seen", "viewOn": "log", "pipeline": [] }).await.unwrap();
    let report = CheckReport::run(&env, &[("STORE__COLLECTION", "seen")]);
    report.assert("fail", "store.collection", "is a view");
    env.clean().await;
}

#[tokio::test]
async fn systemd_gets_readiness_status_and_watchdog() {
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = env.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let mut worker = crate::harness::Worker::start(command).await;
    let wait_for = |wanted: &str| {
        for _ in 0..200 {
            let mut bytes = [0; 4096];
            let length = socket.recv(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
        panic!("systemd was not sent {wanted}");
    };
    wait_for("READY=1");
    assert!(wait_for("STATUS=consuming").contains("WATCHDOG=1"));
    worker.signal("TERM");
    wait_for("STOPPING=1");
    assert!(worker.wait_for_exit().await.success());
    env.clean().await;
}
