//! Servers are frozen, killed and restarted, and workers killed, all under load: nothing is lost or stored twice, and
//! an outage causes no dead letters.

use std::time::Duration;

use bson::{Bson, doc};

use crate::harness::{
    DEADLINE, DedicatedServer, SHORT_TIMEOUTS, ServerKind, TestEnv, TestMessage, chaos, eventually, scaled,
};

/// Waits until all events are stored and acknowledged, then runs the oracle.
async fn assert_all_become_stored(env: &TestEnv, count: i32, row: &str) {
    eventually("everything is stored", DEADLINE, async || env.count().await >= count as u64).await;
    eventually("everything is acknowledged", DEADLINE, async || env.depth(&env.queue()).await == 0).await;
    env.assert_all_stored(row, count, &[]).await;
}

#[tokio::test]
async fn the_broker_is_killed_and_restarted() {
    let (mut broker, store) =
        (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let mut env = TestEnv::on(&broker, &store).await;
    env.publish_all((0..20_000).map(TestMessage::numbered)).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    eventually("events are being stored", DEADLINE, async || env.count().await > 500).await;
    broker.kill();
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("broker")).await;
    broker.restart();
    env.reconnect().await;
    assert_all_become_stored(&env, 20_000, "2 broker SIGKILL and restart under load").await;
    worker.wait_until_ready().await;
    broker.ctl(&["close_all_connections", "test"]);
    eventually("a new session is opened", DEADLINE, async || {
        worker.metrics()["ticketlog_sessions_opened_total"] >= 3.0
    })
    .await;
    env.reconnect().await;
    env.publish_all((20_000..20_500).map(TestMessage::numbered)).await;
    assert_all_become_stored(&env, 20_500, "1 broker closes the connections").await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn the_store_is_frozen_killed_and_restarted() {
    let (broker, mut store) =
        (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    env.publish_all((0..2000).map(TestMessage::numbered)).await;
    store.freeze(true);
    env.publish_all((2000..6000).map(TestMessage::numbered)).await;
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("store:")).await;
    assert_eq!(worker.get("/livez").0, 200);
    store.freeze(false);
    assert_all_become_stored(&env, 6000, "13 store frozen under load").await;
    env.publish_all((6000..10_000).map(TestMessage::numbered)).await;
    store.kill();
    env.publish_all((10_000..12_000).map(TestMessage::numbered)).await;
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("store:")).await;
    store.restart();
    assert_all_become_stored(&env, 12_000, "2 store SIGKILL and restart under load").await;
    worker.wait_until_ready().await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_worker_notices_that_the_store_is_gone() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    store.freeze(true);
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("store:")).await;
    store.freeze(false);
    worker.wait_until_ready().await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_long_outage_requeues_everything_and_resumes() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut settings = SHORT_TIMEOUTS.to_vec();
    // With small messages only, the prefetch is large from the start.
    settings.extend([("RETRY__REQUEUE_AFTER", "3s"), ("EVENT__MAX_BYTES", "10KiB")]);
    let mut worker = env.worker_with(&settings).await;
    worker.wait_until_ready().await;
    store.freeze(true);
    env.publish_all((0..1000).map(TestMessage::numbered)).await;
    eventually("everything is requeued", DEADLINE, async || worker.metrics()["ticketlog_requeues_total"] >= 1.0).await;
    eventually("everything is in the queue", DEADLINE, async || env.depth(&env.queue()).await == 1000).await;
    assert!(worker.metrics()["ticketlog_messages_in_flight"] == 0.0 && worker.get("/readyz").0 == 503);
    store.freeze(false);
    assert_all_become_stored(&env, 1000, "12 store down for longer than requeue_after").await;
    assert_eq!(worker.settled("returned"), 1000);
    worker.wait_until_ready().await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_during_an_outage_requeues_in_time() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.extend([("SHUTDOWN__TIMEOUT", "5s"), ("EVENT__MAX_BYTES", "10KiB")]);
    let mut worker = env.worker_with(&settings).await;
    worker.wait_until_ready().await;
    store.freeze(true);
    env.publish_all((0..200).map(TestMessage::numbered)).await;
    eventually("all are in flight", DEADLINE, async || worker.metrics()["ticketlog_messages_in_flight"] == 200.0).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    env.wait_for_depth(&env.queue(), 200).await;
    store.freeze(false);
    let mut next = env.worker_with(&SHORT_TIMEOUTS).await;
    assert_all_become_stored(&env, 200, "21 SIGTERM during an outage").await;
    next.stop().await;
}

#[tokio::test]
async fn workers_are_killed_at_random_under_load() {
    let env = TestEnv::new().await;
    let (count, kills) = if chaos() { (200_000, 200) } else { (12_000, 12) };
    env.publish_all((0..count).map(TestMessage::numbered)).await;
    for _ in 0..kills {
        let before = env.count().await;
        let mut worker = env.worker().await;
        eventually("events are being stored", DEADLINE, async || {
            let now = env.count().await;
            now > before || now == count as u64
        })
        .await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..40))).await;
        worker.kill();
    }
    let mut worker = env.worker().await;
    assert_all_become_stored(&env, count, "22 worker SIGKILLed at random under load").await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn the_worker_starts_before_its_servers_and_reports_what_it_waits_for() {
    let env = TestEnv::new().await;
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("STORE__URI", "mongodb://user:s3cret-store@127.0.0.1:9/"));
    let mut worker = env.worker_with(&settings).await;
    eventually("the problem is reported", DEADLINE, async || {
        worker.get("/readyz").1.contains("store: no MongoDB primary")
    })
    .await;
    assert_eq!((worker.get("/livez").0, worker.get("/readyz").0), (200, 503));
    assert!(!worker.log().contains("s3cret-store"));
    assert_eq!(worker.stop().await.code(), Some(0));
    let host = env.broker_uri.rsplit('@').next().unwrap();
    let uri = format!("amqp://nobody:s3cret-broker@{host}");
    let mut worker = env.worker_with(&[("BROKER__URI", uri.as_str())]).await;
    eventually("the problem is reported", DEADLINE, async || {
        worker.get("/readyz").1.contains("rejects the user name or the password")
    })
    .await;
    assert!(!worker.log().contains("s3cret-broker"));
    assert_eq!(worker.stop().await.code(), Some(0));
    env.clean().await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again_and_different_arguments_are_reported() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    worker.wait_until_ready().await;
    env.channel.queue_delete(env.queue().into(), Default::default()).await.unwrap();
    eventually("a new session", DEADLINE, async || worker.metrics()["ticketlog_sessions_opened_total"] >= 2.0).await;
    worker.wait_until_ready().await;
    env.publish_all((0..10).map(TestMessage::numbered)).await;
    worker.wait_until_settled(10).await;
    worker.stop().await;
    let mut worker = env.worker_with(&[("BROKER__QUEUE_TYPE", "classic")]).await;
    eventually("expected and actual arguments are reported", DEADLINE, async || {
        let body = worker.get("/readyz").1;
        body.contains("x-queue-type")
            && body.contains("classic")
            && body.contains("quorum")
            && body.contains("broker.declare = false")
    })
    .await;
    worker.stop().await;
    env.clean().await;
}

/// Reads succeed and inserts fail, as with a full disk. Each delivery counts towards the limit of the queue, up to RabbitMQ
/// 4.2, so nothing is consumed until inserts succeed.
#[tokio::test]
async fn an_outage_of_inserts_does_not_use_up_the_delivery_limit() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    broker.ctl(&["set_policy", "limit", ".*[.]q$", "{\"delivery-limit\": 5}", "--apply-to", "queues"]);
    let env = TestEnv::on(&broker, &store).await;
    let inserts_fail = async |mode: &str| {
        let data = doc! { "failCommands": ["insert"], "appName": "ticketlog", "errorCode": 14031 };
        let fail_point = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        env.collection.client().database("admin").run_command(fail_point).await.unwrap();
    };
    inserts_fail("alwaysOn").await;
    env.publish_all((0..200).map(TestMessage::numbered)).await;
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("RETRY__REQUEUE_AFTER", "3s"));
    let worker = env.worker_with(&settings).await;
    let requeues = || worker.metrics()["ticketlog_requeues_total"];
    eventually("everything is requeued", DEADLINE, async || requeues() >= 1.0).await;
    tokio::time::sleep(scaled(10, 60)).await;
    assert_eq!((requeues(), env.count().await), (1.0, 0));
    assert!(worker.get("/readyz").1.contains("requeued"));
    inserts_fail("off").await;
    assert_all_become_stored(&env, 200, "16 inserts fail, reads succeed, delivery limit 5").await;
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 0);
}

/// Errors that MongoDB's fail points can cause. None concerns a single document, so none causes a dead letter.
#[tokio::test]
async fn failed_commands_are_retried() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    let faults = [
        doc! { "closeConnection": true },
        doc! { "errorCode": 91, "errorLabels": ["RetryableWriteError"] },
        doc! { "errorCode": 13 },
        doc! { "errorCode": 14031 },
        doc! { "errorCode": 424242 },
        doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
        doc! { "blockConnection": true, "blockTimeMS": 3000 },
    ];
    let admin = env.collection.client().database("admin");
    let mut published = 0;
    for (fault, times) in faults.into_iter().zip([5, 5, 5, 5, 12, 5, 1]) {
        let mut data = doc! { "failCommands": ["insert"], "appName": "ticketlog" };
        data.extend(fault.clone());
        let fail_point = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        admin.run_command(fail_point).await.unwrap();
        env.publish_all((published..published + 300).map(TestMessage::numbered)).await;
        published += 300;
        worker.wait_until_settled(published as u64).await;
        env.assert_exactly(published).await;
        println!("{fault} passed");
    }
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (published as u64, 0));
    assert!(worker.metrics()["ticketlog_store_retries_total{kind=\"write_concern\"}"] >= 1.0);
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_slow_store_is_written_to_until_it_recovers() {
    let store = DedicatedServer::start(ServerKind::Mongodb);
    let env = TestEnv::with_dedicated_store(&store).await;
    let settings = [
        ("STORE__WRITE_TIMEOUT", "2s"),
        ("BATCH__MAX_EVENTS", "20"),
        ("WRITE__CONCURRENCY", "4"),
        ("EVENT__MAX_BYTES", "10KiB"),
    ];
    let slow_inserts = async |mode: Bson| {
        let data =
            doc! { "failCommands": ["insert"], "appName": "ticketlog", "blockConnection": true, "blockTimeMS": 300 };
        let fail_point = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        env.collection.client().database("admin").run_command(fail_point).await.unwrap();
    };
    slow_inserts("alwaysOn".into()).await;
    env.publish_all((0..5000).map(TestMessage::numbered)).await;
    let mut worker = env.worker_with(&settings).await;
    let writes = async || worker.metrics()["ticketlog_store_writes_in_flight"] == 4.0;
    eventually("all writers are busy", DEADLINE, writes).await;
    eventually("events are stored all the same", DEADLINE, async || env.count().await >= 200).await;
    worker.wait_until_ready().await;
    slow_inserts("off".into()).await;
    worker.wait_until_settled(5000).await;
    env.assert_exactly(5000).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}
