//! `ticketlog check --end-to-end`: what it finds, what it leaves behind, and that it is not traffic.

mod left_over;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use lapin::options::QueueDeleteOptions;
use lapin::types::{AMQPValue, FieldTable};

use crate::harness::{
    CommandOutput, DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, Worker, access_control, eventually,
};
use crate::terminal::in_terminal;

/// The check of an operator, with further flags.
fn check(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.operator_command();
    command.args(["check", "--end-to-end"]).args(arguments).stdin(Stdio::null()).env("TICKETLOG_LOG__FILTER", "error");
    command
}

async fn run(mut command: Command) -> CommandOutput {
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Asserts how it ended, and that one of its lines begins so.
fn assert_ended(output: &CommandOutput, code: i32, line: &str) {
    assert_eq!((output.code, output.err.as_str()), (Some(code), ""), "{output:?}");
    assert!(output.out.lines().any(|found| found.starts_with(line)), "{line:?} is not in\n{}", output.out);
}

impl TestEnv {
    /// Asserts that neither the queues nor the collection have anything.
    async fn assert_empty(&self) {
        assert_eq!(self.documents().await, Vec::<Document>::new());
        for queue in [self.queue(), self.dead_letter_queue(), self.parked_queue()] {
            self.wait_for_depth(&queue, 0).await;
        }
    }
}

/// What must not change, of all routes: all metrics but those of the ledger, of durations, of queues and of the process.
fn of_traffic(worker: &Worker) -> BTreeSet<String> {
    let names = [
        "_to_stored_",
        "last_stored",
        "against=\"events\"",
        "dead_letter_causes",
        "suspect",
        "receipts",
        "breaker",
        "replayed",
    ];
    let text = worker.get("/metrics").1;
    let samples = text.lines().filter(|line| !line.starts_with('#') && names.iter().any(|of| line.contains(of)));
    samples.map(str::to_owned).collect()
}

#[tokio::test]
async fn events_of_two_routes_go_all_the_way_and_are_no_traffic() {
    let env = TestEnv::new().await;
    let refresh_queue = format!("{}.refresh", env.name);
    let fields = "{ n = { type = \"number\", required = true }, uuid = { type = \"string\" } }";
    let route = format!(
        "{{ queue = {refresh_queue:?}, routing_keys = [\"refresh.*.#\"], collection = \"refresh\", fields = {fields} }}"
    );
    let with_route = |mut command: Command| {
        command
            .env("TICKETLOG_ROUTE__REFRESH", &route)
            .env("TICKETLOG_DEAD_LETTER__RECEIPTS", format!("{}.receipts", env.name));
        command
    };
    let mut setup = with_route(env.command());
    assert!(setup.arg("setup").output().unwrap().status.success());
    let worker = Worker::start(with_route(env.command())).await;
    worker.wait_until_ready().await;
    let before = of_traffic(&worker);
    let counts = before.iter().filter(|line| line.starts_with("ticketlog_event_to_stored_seconds_count"));
    assert_eq!(counts.count(), 2, "{before:#?}");
    let output = run(with_route(check(&env, &["--dead-letter"]))).await;
    for (route, key) in [("main", "ticket.check"), ("refresh", "refresh.check.check")] {
        let publish = format!(
            "ok    publish      route {route}: RabbitMQ has confirmed it: exchange {}, routing key {key} (",
            env.name
        );
        assert_ended(&output, 0, &publish);
        assert_ended(&output, 0, &format!("ok    store        route {route}: a worker has stored it in {}.", env.name));
        assert_ended(
            &output,
            0,
            &format!("ok    read         route {route}: the readers' index uuid_1 finds it, and its "),
        );
        assert_ended(&output, 0, &format!("ok    dead letter  route {route}: it is in queue "));
        assert_ended(&output, 0, &format!("ok    delete       route {route}: its dead letter is deleted ("));
    }
    assert_ended(&output, 0, "14 ok, 0 warnings, 0 failures");
    let after = of_traffic(&worker);
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    let text = worker.get("/metrics").1;
    let settled = |outcome: &str| {
        let of = |line: &&str| line.starts_with("ticketlog_messages_settled_total") && line.contains(outcome);
        text.lines().filter(of).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum::<f64>()
    };
    assert_eq!((settled("\"stored\""), settled("\"dead_lettered\"")), (2.0, 2.0), "the ledger has them");
    assert!(!worker.log().contains("for a new cause"), "{}", worker.log());
    env.assert_empty().await;
    let refresh = env.client.database(&env.name).collection::<Document>("refresh");
    assert_eq!(refresh.count_documents(doc! {}).await.unwrap(), 0);
    for suffix in ["", ".dead", ".parked"] {
        let queue = format!("{refresh_queue}{suffix}");
        env.wait_for_depth(&queue, 0).await;
        env.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    env.clean().await;
}

/// A publisher cannot take its events out of the metrics: the mark counts only from an operators' login.
#[tokio::test]
async fn the_mark_of_a_publisher_hides_nothing() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let headers: BTreeMap<_, _> = [("ticketlog-check".into(), AMQPValue::LongString("end-to-end".into()))].into();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let message = TestMessage::numbered(0).with(|it| it.with_headers(headers.into()).with_timestamp(now));
    env.publish(&message).await;
    worker.wait_until_settled(1).await;
    assert_eq!(worker.metrics()["ticketlog_publish_to_stored_seconds_count"], 1.0);
    env.clean().await;
}

#[tokio::test]
async fn each_side_that_fails_has_its_code_and_its_answer() {
    let env = TestEnv::new().await;
    let with = |settings: &[(&str, &str)], arguments: &[&str]| {
        let mut command = check(&env, arguments);
        command.envs(settings.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
        run(command)
    };
    let broker = with(&[("BROKER__URI", "amqp://guest:guest@127.0.0.1:1/%2f")], &[]).await;
    assert_ended(&broker, 69, "fail  publish  RabbitMQ cannot be reached at 127.0.0.1:1");
    let no_ca = with(&[("OPERATOR__STORE_URI", "mongodb://127.0.0.1/?tls=true&tlsCAFile=/nowhere")], &[]).await;
    assert_ended(&no_ca, 78, "fail  operator.store_uri  ");
    let store = with(&[("STORE__URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300")], &[]).await;
    assert_ended(&store, 74, "fail  store  no MongoDB primary can be reached");
    assert_eq!(env.depth(&env.queue()).await, 0, "nothing is published while the store does not answer");
    let began = Instant::now();
    let no_worker = with(&[], &["--timeout", "1s"]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let text = format!(
        "fail  store    no worker has stored it after 1s: no worker consumes queue {}, in which 1 message",
        env.queue()
    );
    assert_ended(&no_worker, 75, &text);
    assert!(no_worker.out.contains("`ticketlog resume` them. The next check deletes"), "{no_worker:?}");
    let worker = env.worker_with(&[("STORE__ENSURE_INDEXES", "false")]).await;
    worker.wait_until_settled(1).await;
    let next = with(&[], &[]).await;
    assert_ended(
        &next,
        0,
        "ok    left over  deleted 1 document and 0 dead letters of earlier checks that were interrupted",
    );
    env.assert_empty().await;
    let hidden = [("EVENT__DROP", "status"), ("EVENT__MASK_KEY", "0123456789abcdef")];
    let otherwise = with(&hidden, &["--timeout", "1s"]).await;
    assert_ended(&otherwise, 65, "fail  read     it is stored under another _id than these settings say: left alone");
    let next = with(&[], &[]).await;
    assert_ended(&next, 0, "ok    left over  deleted 1 document and 0 dead letters of earlier checks");
    env.assert_empty().await;
    env.collection.drop_index("uuid_1").await.unwrap();
    let unindexed = with(&[], &["--timeout", "300ms"]).await;
    assert_ended(&unindexed, 65, "fail  read     the readers' index uuid_1 does not exist");
    env.assert_empty().await;
    let database = env.client.database(&env.name);
    let validator = doc! { "collMod": "log", "validator": { "status": "failed" } };
    database.run_command(validator).await.unwrap();
    let rejected = with(&[], &["--timeout", "1s"]).await;
    assert_ended(&rejected, 74, "fail  store    it became a dead letter: rejected_by_store: ");
    env.assert_empty().await;
    let unbind = env.channel.queue_unbind(
        env.queue().into(),
        env.name.as_str().into(),
        "ticket.#".into(),
        FieldTable::default(),
    );
    unbind.await.unwrap();
    let unbound = with(&[], &["--json"]).await;
    assert_eq!((unbound.code, unbound.err.as_str()), (Some(69), ""), "{unbound:?}");
    let report = &unbound.json()[0];
    let (finding, ok) = (&report["findings"][0], &report["ok"]);
    assert_eq!(
        (ok, &finding["subject"], &finding["level"]),
        (&false.into(), &"publish".into(), &"fail".into()),
        "{report}"
    );
    assert!(finding["message"].as_str().unwrap().starts_with("no queue is bound to exchange "), "{report}");
    env.assert_empty().await;
    env.clean().await;
}

#[tokio::test]
async fn a_server_that_goes_down_meanwhile_is_named() {
    let (mut broker, mut store) =
        (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    // MaxTimeMSExpired, once: what is searched first is what earlier checks left.
    let data = doc! { "failCommands": ["find"], "appName": "ticketlog", "errorCode": 50 };
    let slow = doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data };
    env.client.database("admin").run_command(slow).await.unwrap();
    let output = run(check(&env, &["--timeout", "300ms"])).await;
    assert_ended(&output, 75, "warn  left over  what interrupted checks left was not searched: ");
    let during = async |kill: &mut dyn FnMut()| {
        let waiting = env.depth(&env.queue()).await;
        let mut command = check(&env, &["--timeout", "8s"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        env.wait_for_depth(&env.queue(), waiting + 1).await;
        kill();
        CommandOutput::from(tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap())
    };
    let output = during(&mut || store.kill()).await;
    assert_ended(&output, 74, "fail  store    ");
    assert!(output.out.contains("MongoDB"), "{output:?}");
    store.restart();
    let output = during(&mut || broker.kill()).await;
    // The message may be in the queue before its confirm is at the check: then it is the publishers' side that is named.
    assert!(output.code == Some(69) && output.out.contains("fail  ") && output.out.contains("RabbitMQ"), "{output:?}");
}

/// Several pods that start at the same time do not take each other's events for left over.
#[tokio::test]
async fn checks_of_one_route_take_turns() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let checks: Vec<_> = (0..3).map(|_| tokio::spawn(run(check(&env, &["--dead-letter"])))).collect();
    for output in checks {
        let output = output.await.unwrap();
        assert_ended(&output, 0, "7 ok, 0 warnings, 0 failures");
    }
    env.assert_empty().await;
    let mut holder = env.operator_command();
    drop(worker);
    let mut first = start({
        holder.args(["check", "--end-to-end"]);
        holder
    });
    env.wait_for_depth(&env.queue(), 1).await;
    let second = run(check(&env, &["--timeout", "300ms"])).await;
    assert_ended(&second, 75, "fail  publish  another `check --end-to-end` of this route is running");
    first.kill().unwrap();
    first.wait().unwrap();
    env.clean().await;
}

#[tokio::test]
async fn a_terminal_of_80_columns_shows_all_of_it() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let (code, text) = in_terminal(&check(&env, &["--dead-letter"]), "").await;
    assert!(code == 0 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("7 ok, 0 warnings, 0 failures"), "{text}");
    let output = run(check(&env, &["--dead-letter", "--json"])).await;
    let report = &output.json()[0];
    let findings = report["findings"].as_array().unwrap();
    let subjects: Vec<&str> = findings.iter().map(|finding| finding["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["publish", "store", "read", "delete", "publish", "dead letter", "delete"]);
    assert!(findings.iter().all(|finding| finding["milliseconds"].is_u64()), "{report}");
    let usage = run(check(&env, &["--operator"])).await;
    assert_eq!(usage.code, Some(64), "{usage:?}");
    env.clean().await;
}

#[tokio::test]
async fn the_shipped_operators_login_is_enough() {
    let broker = access_control::broker_with_topology();
    let (store, client) = access_control::store().await;
    access_control::roles(&client, "cache", "bytemark_tickets_log").await;
    let broker_of = |user: &str| broker.uri().replace("guest:guest", &format!("{user}:{user}-secret"));
    let store_of = |role: &str| access_control::as_user(&store, role, "cache");
    let command = |operator: Option<(&str, &str)>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let mut settings = vec![
            ("BROKER__URI", broker_of("ticketlog")),
            ("STORE__URI", store_of("ticketlogWorker")),
            ("BROKER__DECLARE", "false".to_owned()),
            ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            ("DEAD_LETTER__OPERATORS", "ticketlog-desk".to_owned()),
        ];
        if let Some((user, role)) = operator {
            settings.extend([("OPERATOR__BROKER_URI", broker_of(user)), ("OPERATOR__STORE_URI", store_of(role))]);
            settings.push(("LOG__FILTER", "error".to_owned()));
        }
        command.envs(settings.into_iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
        command.env_remove("RUST_MIN_STACK");
        command
    };
    let end_to_end = |operator| {
        let mut command = command(operator);
        command.args(["check", "--end-to-end", "--dead-letter", "--timeout", "10s"]);
        run(command)
    };
    let no_worker = run({
        let mut command = command(Some(("ticketlog-desk", "ticketlogEraser")));
        command.args(["check", "--end-to-end", "--timeout", "1s"]);
        command
    })
    .await;
    let text = "fail  store    no worker has stored it after 1s: no worker consumes queue bytemark.tickets.log, in which 1 message";
    assert_ended(&no_worker, 75, text);
    let worker = Worker::start(command(None)).await;
    worker.wait_until_settled(1).await;
    let desk = end_to_end(Some(("ticketlog-desk", "ticketlogEraser"))).await;
    assert_ended(&desk, 0, "8 ok, 0 warnings, 0 failures");
    assert_eq!(worker.metrics()["ticketlog_event_to_stored_seconds_count"], 0.0);
    let mut untrusted = command(Some(("ticketlog-desk", "ticketlogEraser")));
    untrusted.args(["check", "--end-to-end"]).env("TICKETLOG_DEAD_LETTER__OPERATORS", "");
    assert_ended(
        &run(untrusted).await,
        0,
        "warn  publish  the workers do not trust user ticketlog-desk, so the event counts",
    );
    let publisher = end_to_end(Some(("tickets-publisher", "ticketlogEraser"))).await;
    assert_ended(&publisher, 69, "fail  publish  ACCESS_REFUSED");
    assert!(publisher.out.contains("deploy/rabbitmq/README.md"), "{publisher:?}");
    let reader = end_to_end(Some(("ticketlog-desk", "ticketlogReader"))).await;
    assert_ended(&reader, 74, "fail  delete   the user of operator.store_uri is not authorized (code 13)");
    let next = end_to_end(Some(("ticketlog-desk", "ticketlogEraser"))).await;
    assert_ended(&next, 0, "ok    left over    deleted 1 document and 0 dead letters of earlier checks");
    eventually("the queues are empty", DEADLINE, async || {
        let queues = worker.metrics();
        queues["ticketlog_queue_messages{role=\"dead_letter\"}"] == 0.0
    })
    .await;
    assert_eq!(
        client.database("cache").collection::<Document>("bytemark_tickets_log").count_documents(doc! {}).await.unwrap(),
        0
    );
}
