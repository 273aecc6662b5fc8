//! Faults that need neither a proxy nor a frozen server: servers that start late or are down for long, a deleted queue,
//! documents that MongoDB rejects, revoked privileges. See the table in docs/develop/reliability.md.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::IndexModel;

use crate::harness::{
    DEADLINE, DedicatedServer, SHORT_TIMEOUTS, ServerKind, TestEnv, TestMessage, Worker, access_control, eventually,
    scaled, server_uri,
};

/// Waits until all events are stored and acknowledged.
async fn wait_until_stored(env: &TestEnv, count: i32) {
    eventually("everything is stored", DEADLINE, async || env.count().await >= count as u64).await;
    eventually("everything is acknowledged", DEADLINE, async || env.depth(&env.queue()).await == 0).await;
}

/// Asserts that one event is a dead letter and all others are stored; records the report under `row`.
async fn assert_all_but_one_stored(env: &TestEnv, row: &str, worker: &Worker, count: i32) {
    worker.wait_until_settled(count as u64).await;
    let report = env.oracle_report(count, &[worker]).await;
    report.record(row);
    assert_eq!((report.stored, report.dead_lettered), (count as usize - 1, 1), "{report}");
    report.assert_safe();
}

#[tokio::test]
async fn fault_05_the_worker_starts_before_its_servers() {
    let (mut broker, mut store) =
        (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let mut env = TestEnv::on(&broker, &store).await;
    // Shut down, not killed: RabbitMQ 3.10.8 may lose a quorum queue that is only seconds old.
    broker.shut_down();
    store.kill();
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    eventually("the problem is reported", DEADLINE, async || {
        worker.get("/readyz").1.contains("store: no MongoDB primary")
    })
    .await;
    assert_eq!((worker.get("/livez").0, worker.get("/readyz").0), (200, 503));
    store.restart();
    eventually("RabbitMQ is reported", DEADLINE, async || {
        worker.get("/readyz").1.contains("broker: RabbitMQ cannot be")
    })
    .await;
    broker.restart();
    worker.wait_until_ready().await;
    env.reconnect().await;
    env.publish_all((0..1000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 1000).await;
    env.assert_all_stored("5 broker and store absent at the start", 1000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn fault_06_the_queue_is_deleted_while_it_is_consumed() {
    let env = TestEnv::new().await;
    let worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    env.publish_all((0..1000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 1000).await;
    env.channel.queue_delete(env.queue().into(), Default::default()).await.unwrap();
    eventually("a new session", DEADLINE, async || worker.metrics()["ticketlog_sessions_opened_total"] >= 2.0).await;
    worker.wait_until_ready().await;
    env.publish_all((1000..2000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 2000).await;
    env.assert_all_stored("6 queue deleted while consuming", 2000, &[&worker]).await;
    env.clean().await;
}

#[tokio::test]
async fn fault_12_memory_is_constant_while_the_store_is_stopped() {
    let (broker, mut store) =
        (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    env.publish_all((0..5000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 5000).await;
    store.kill();
    env.publish_all((5000..40_000).map(TestMessage::numbered)).await;
    let prefetch_exhausted = async || {
        let metrics = worker.metrics();
        metrics["ticketlog_deliveries_unacked"] == metrics["ticketlog_prefetch"]
    };
    eventually("the prefetch is exhausted", DEADLINE, prefetch_exhausted).await;
    let resident = || worker.metrics()["process_resident_memory_bytes"];
    let before = resident();
    tokio::time::sleep(scaled(5, 300)).await;
    let grown = resident() - before;
    println!("{before} bytes resident before the outage, {grown} more after it");
    assert!(grown < 4e6, "resident memory grew by {grown} bytes");
    store.restart();
    wait_until_stored(&env, 40_000).await;
    env.assert_all_stored("12 store stopped", 40_000, &[&worker]).await;
    assert_eq!(worker.settled("returned"), 0, "nothing was requeued");
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn fault_16_write_concern_errors_alone_and_with_write_errors() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    let fail_point = doc! { "configureFailPoint": "failCommand", "mode": { "times": 6 }, "data": {
        "failCommands": ["insert"], "appName": "ticketlog",
        "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" },
    } };
    for (from, to) in [(0, 1000), (500, 2000)] {
        // The second batch of events overlaps the first: duplicate-key errors together with the write-concern error.
        env.client.database("admin").run_command(fail_point.clone()).await.unwrap();
        env.publish_all((from..to).map(TestMessage::numbered)).await;
        wait_until_stored(&env, to).await;
    }
    assert!(worker.metrics()["ticketlog_store_retries_total{kind=\"write_concern\"}"] >= 2.0);
    env.assert_all_stored("16 write-concern errors, with write errors too", 2000, &[&worker]).await;
}

#[tokio::test]
async fn fault_17_the_validator_rejects_one_of_500_and_then_all() {
    let env = TestEnv::new().await;
    let database = env.client.database(&env.name);
    let validator = |rule: Document| doc! { "collMod": "log", "validator": rule };
    database.run_command(validator(doc! { "n": { "$ne": 7 } })).await.unwrap();
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    let worker = env.worker().await;
    assert_all_but_one_stored(&env, "17 validator rejects one of 500", &worker, 500).await;
    env.clean().await;
    let env = TestEnv::new().await;
    let database = env.client.database(&env.name);
    database.run_command(validator(doc! { "never": true })).await.unwrap();
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    // One large batch after the first, so that nearly all events are rejected at once.
    let one_batch = [("BATCH__LINGER", "1s"), ("BROKER__PREFETCH_BYTES", "1GiB"), ("EVENT__MAX_BYTES", "10KiB")];
    let worker = env.worker_with(&one_batch).await;
    eventually("the breaker opens", DEADLINE, async || worker.get("/readyz").1.contains("breaker")).await;
    eventually("the others are held", DEADLINE, async || {
        worker.metrics()["ticketlog_dead_letters_waiting"] + worker.settled("dead_lettered") as f64 == 500.0
    })
    .await;
    database.run_command(validator(doc! {})).await.unwrap();
    worker.wait_until_ready().await;
    // Those of the first batch were dead-lettered before there was a window to judge.
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    wait_until_stored(&env, 500).await;
    env.assert_all_stored("17 validator rejects all, until changed", 500, &[&worker]).await;
    env.clean().await;
}

#[tokio::test]
async fn fault_18_one_document_fails_with_an_unknown_code() {
    let env = TestEnv::new().await;
    // A geographical index rejects what it cannot read with a code of its own (16755), which the worker does not know.
    let index = IndexModel::builder().keys(doc! { "place": "2dsphere" }).build();
    env.collection.create_index(index).await.unwrap();
    let body = "{\"n\":250,\"place\":{\"type\":\"Point\",\"coordinates\":\"nowhere\"}}";
    let unreadable = TestMessage { body: body.into(), ..TestMessage::numbered(250) };
    env.publish_all((0..500).map(|n| if n == 250 { unreadable.clone() } else { TestMessage::numbered(n) })).await;
    let worker = env.worker_with(&SHORT_TIMEOUTS).await;
    assert_all_but_one_stored(&env, "18 unknown code on one document", &worker, 500).await;
    assert!(worker.get("/status").1.contains("alone again and again with code 16755"), "{}", worker.get("/status").1);
    env.clean().await;
}

/// While no other documents arrive, the worker cannot know whether these are at fault, so it requeues them. They must
/// not block later messages, although they fill the prefetch of the first sessions.
#[tokio::test]
async fn fault_18_documents_with_an_unknown_code_do_not_block_others() {
    let env = TestEnv::new().await;
    let index = IndexModel::builder().keys(doc! { "place": "2dsphere" }).build();
    env.collection.create_index(index).await.unwrap();
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("RETRY__REQUEUE_AFTER", "3s"));
    let worker = env.worker_with(&settings).await;
    let unknown_code = |n: i32| TestMessage {
        body: format!("{{\"n\":{n},\"place\":\"nowhere\"}}").into(),
        ..TestMessage::numbered(n)
    };
    env.publish_all((0..3).map(unknown_code)).await;
    // MongoDB answers, so the store is well: TicketlogStoreUnavailable must not page for a document.
    let problem = "document: MongoDB rejects one with code 16755, which ticketlog does not know";
    eventually("it is not ready", DEADLINE, async || worker.get("/readyz").1.starts_with(problem)).await;
    assert_eq!(worker.metrics()["ticketlog_component_up{component=\"store\"}"], 1.0);
    eventually("they are requeued", DEADLINE, async || worker.metrics()["ticketlog_requeues_total"] >= 1.0).await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    env.publish_all((3..300).map(TestMessage::numbered)).await;
    eventually("the others are stored", DEADLINE, async || env.count().await == 297).await;
    eventually("they are dead letters", DEADLINE, async || worker.settled("dead_lettered") == 3).await;
    worker.wait_until_ready().await;
    let report = env.oracle_report(300, &[&worker]).await;
    report.record("18 unknown code on the only three messages, others later");
    report.assert_safe();
    env.clean().await;
}

#[tokio::test]
async fn fault_19_privileges_are_revoked() {
    let (store, client) = access_control::store().await;
    let env = TestEnv::at(server_uri("TICKETLOG_BROKER__URI"), access_control::as_user(&store, "admin", "admin")).await;
    access_control::roles(&client, &env.name, "log").await;
    let login = access_control::as_user(&store, "ticketlogWorker", &env.name);
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("STORE__URI", login.as_str()));
    let worker = env.worker_with(&settings).await;
    worker.wait_until_ready().await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 500).await;
    let change = |command: &str| doc! { command: "ticketlogWorker", "roles": ["ticketlogWorker"] };
    let database = client.database(&env.name);
    database.run_command(change("revokeRolesFromUser")).await.unwrap();
    env.publish_all((500..1000).map(TestMessage::numbered)).await;
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("(code 13)")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((env.count().await, worker.settled("dead_lettered")), (500, 0));
    database.run_command(change("grantRolesToUser")).await.unwrap();
    wait_until_stored(&env, 1000).await;
    env.assert_all_stored("19 privileges revoked and granted again", 1000, &[&worker]).await;
    env.clean().await;
}
