//! Servers frozen, killed and started again, and workers killed, all under load: nothing lost, nothing stored twice,
//! and no outage becomes a dead letter.

use std::time::Duration;

use bson::{Bson, doc};

use crate::harness::{Bed, Kind, Private, SHORT, SOON, Sent, chaos, eventually};

async fn all_there(bed: &Bed, count: i32, row: &str) {
    eventually("everything is stored", SOON, async || bed.count().await >= count as u64).await;
    eventually("and acknowledged", SOON, async || bed.depth(&bed.queue()).await == 0).await;
    bed.safe(row, count, &[]).await;
}

#[tokio::test]
async fn the_broker_is_killed_and_started_again() {
    let (mut broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let mut bed = Bed::on(&broker, &store).await;
    bed.publish_all((0..20_000).map(Sent::numbered)).await;
    let mut worker = bed.worker_with(&SHORT).await;
    eventually("it is at work", SOON, async || bed.count().await > 500).await;
    broker.kill();
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("broker")).await;
    broker.restart();
    bed.reconnect().await;
    all_there(&bed, 20_000, "2 broker SIGKILL and restart under load").await;
    worker.ready().await;
    broker.ctl(&["close_all_connections", "test"]);
    eventually("a new session is opened", SOON, async || worker.metrics()["ticketlog_sessions_opened_total"] >= 3.0)
        .await;
    bed.reconnect().await;
    bed.publish_all((20_000..20_500).map(Sent::numbered)).await;
    all_there(&bed, 20_500, "1 broker closes the connections").await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn the_store_is_frozen_killed_and_started_again() {
    let (broker, mut store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    bed.publish_all((0..2000).map(Sent::numbered)).await;
    store.freeze(true);
    bed.publish_all((2000..6000).map(Sent::numbered)).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("store:")).await;
    assert_eq!(worker.get("/livez").0, 200);
    store.freeze(false);
    all_there(&bed, 6000, "13 store frozen under load").await;
    bed.publish_all((6000..10_000).map(Sent::numbered)).await;
    store.kill();
    bed.publish_all((10_000..12_000).map(Sent::numbered)).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("store:")).await;
    store.restart();
    all_there(&bed, 12_000, "2 store SIGKILL and restart under load").await;
    worker.ready().await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_worker_notices_that_the_store_is_gone() {
    let (broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    store.freeze(true);
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("store:")).await;
    store.freeze(false);
    worker.ready().await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_long_outage_gives_everything_back_and_resumes() {
    let (broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut settings = SHORT.to_vec();
    // Small messages only: so the prefetch is large from the start.
    settings.extend([("RETRY__RELEASE_AFTER", "3s"), ("EVENT__MAX_BYTES", "10KiB")]);
    let mut worker = bed.worker_with(&settings).await;
    worker.ready().await;
    store.freeze(true);
    bed.publish_all((0..1000).map(Sent::numbered)).await;
    eventually("everything is given back", SOON, async || worker.metrics()["ticketlog_releases_total"] >= 1.0).await;
    eventually("to the queue", SOON, async || bed.depth(&bed.queue()).await == 1000).await;
    assert!(worker.metrics()["ticketlog_messages_in_flight"] == 0.0 && worker.get("/readyz").0 == 503);
    store.freeze(false);
    all_there(&bed, 1000, "12 store down for longer than release_after").await;
    assert_eq!(worker.settled("returned"), 1000);
    worker.ready().await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_during_an_outage_ends_in_time_and_gives_back() {
    let (broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut settings = SHORT.to_vec();
    settings.extend([("SHUTDOWN__TIMEOUT", "5s"), ("EVENT__MAX_BYTES", "10KiB")]);
    let mut worker = bed.worker_with(&settings).await;
    worker.ready().await;
    store.freeze(true);
    bed.publish_all((0..200).map(Sent::numbered)).await;
    eventually("it holds them", SOON, async || worker.metrics()["ticketlog_messages_in_flight"] == 200.0).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    assert_eq!(bed.depth(&bed.queue()).await, 200);
    store.freeze(false);
    let mut next = bed.worker_with(&SHORT).await;
    all_there(&bed, 200, "21 SIGTERM during an outage").await;
    next.stop().await;
}

#[tokio::test]
async fn workers_are_killed_at_random_under_load() {
    let bed = Bed::new().await;
    let (count, kills) = if chaos() { (200_000, 200) } else { (12_000, 12) };
    bed.publish_all((0..count).map(Sent::numbered)).await;
    for _ in 0..kills {
        let before = bed.count().await;
        let mut worker = bed.worker().await;
        eventually("it is at work", SOON, async || {
            let now = bed.count().await;
            now > before || now == count as u64
        })
        .await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..40))).await;
        worker.kill();
    }
    let mut worker = bed.worker().await;
    all_there(&bed, count, "22 worker SIGKILLed at random under load").await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn starts_before_its_servers_and_says_what_it_waits_for() {
    let bed = Bed::new().await;
    let mut settings = SHORT.to_vec();
    settings.push(("STORE__URI", "mongodb://user:s3cret-store@127.0.0.1:9/"));
    let mut worker = bed.worker_with(&settings).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("store: no MongoDB primary")).await;
    assert_eq!((worker.get("/livez").0, worker.get("/readyz").0), (200, 503));
    assert!(!worker.log().contains("s3cret-store"));
    assert_eq!(worker.stop().await.code(), Some(0));
    let host = bed.broker_uri.rsplit('@').next().unwrap();
    let uri = format!("amqp://nobody:s3cret-broker@{host}");
    let mut worker = bed.worker_with(&[("BROKER__URI", uri.as_str())]).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("refuses the user or the password")).await;
    assert!(!worker.log().contains("s3cret-broker"));
    assert_eq!(worker.stop().await.code(), Some(0));
    bed.clean().await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again_and_a_differing_one_is_named() {
    let bed = Bed::new().await;
    let mut worker = bed.worker().await;
    worker.ready().await;
    bed.channel.queue_delete(bed.queue().into(), Default::default()).await.unwrap();
    eventually("a new session", SOON, async || worker.metrics()["ticketlog_sessions_opened_total"] >= 2.0).await;
    worker.ready().await;
    bed.publish_all((0..10).map(Sent::numbered)).await;
    worker.has_settled(10).await;
    worker.stop().await;
    let mut worker = bed.worker_with(&[("BROKER__QUEUE_TYPE", "classic")]).await;
    eventually("expected and actual are named", SOON, async || {
        let said = worker.get("/readyz").1;
        said.contains("x-queue-type")
            && said.contains("classic")
            && said.contains("quorum")
            && said.contains("broker.declare = false")
    })
    .await;
    worker.stop().await;
    bed.clean().await;
}

/// What a real server can be made to answer: none of it is about a document, so none of it becomes a dead letter.
#[tokio::test]
async fn failures_of_commands_are_retried_until_they_pass() {
    let (broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    let faults = [
        doc! { "closeConnection": true },
        doc! { "errorCode": 91, "errorLabels": ["RetryableWriteError"] },
        doc! { "errorCode": 13 },
        doc! { "errorCode": 14031 },
        doc! { "errorCode": 424242 },
        doc! { "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
        doc! { "blockConnection": true, "blockTimeMS": 3000 },
    ];
    let admin = bed.collection.client().database("admin");
    let mut published = 0;
    for (fault, times) in faults.into_iter().zip([5, 5, 5, 5, 12, 5, 1]) {
        let mut data = doc! { "failCommands": ["insert"], "appName": "ticketlog" };
        data.extend(fault.clone());
        let fail = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        admin.run_command(fail).await.unwrap();
        bed.publish_all((published..published + 300).map(Sent::numbered)).await;
        published += 300;
        worker.has_settled(published as u64).await;
        bed.assert_exactly(published).await;
        println!("{fault} passed");
    }
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (published as u64, 0));
    assert!(worker.metrics()["ticketlog_store_retries_total{kind=\"write_concern\"}"] >= 1.0);
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_slow_store_gets_less_at_a_time_and_more_when_it_recovers() {
    let store = Private::start(Kind::Mongodb);
    let bed = Bed::with_store(&store).await;
    // A tenth of the timeout is slow.
    let settings = [("STORE__WRITE_TIMEOUT", "2s"), ("BATCH__MAX_EVENTS", "20"), ("EVENT__MAX_BYTES", "10KiB")];
    let fail = async |mode: Bson| {
        let data =
            doc! { "failCommands": ["insert"], "appName": "ticketlog", "blockConnection": true, "blockTimeMS": 300 };
        let fail = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        bed.collection.client().database("admin").run_command(fail).await.unwrap();
    };
    fail("alwaysOn".into()).await;
    bed.publish_all((0..5000).map(Sent::numbered)).await;
    let mut worker = bed.worker_with(&settings).await;
    let given = || {
        let metrics = worker.metrics();
        (metrics["ticketlog_store_write_concurrency"], metrics["ticketlog_batch_events_limit"])
    };
    eventually("it gives less", SOON, async || given().0 == 1.0 && given().1 <= 10.0).await;
    fail("off".into()).await;
    eventually("and everything again", SOON, async || given().0 >= 2.0 && given().1 == 20.0).await;
    worker.has_settled(5000).await;
    bed.assert_exactly(5000).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}
