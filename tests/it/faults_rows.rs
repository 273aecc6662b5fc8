//! The rows of the table of faults that need neither a proxy nor a frozen server: servers that come late or go for long,
//! queues that are deleted, documents that the store refuses, rights that are withdrawn.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::IndexModel;

use crate::harness::{Bed, Kind, Private, SHORT, SOON, Sent, Worker, eventually, given, guard, scaled};

/// Everything is stored, and nothing waits.
async fn drained(bed: &Bed, count: i32) {
    eventually("everything is stored", SOON, async || bed.count().await >= count as u64).await;
    eventually("and acknowledged", SOON, async || bed.depth(&bed.queue()).await == 0).await;
}

/// One of the events is a dead letter for this reason, all others are stored; noted as a row.
async fn all_but_one(bed: &Bed, row: &str, worker: &Worker, count: i32) {
    worker.has_settled(count as u64).await;
    let verdict = bed.judge(count, &[worker]).await;
    verdict.note(row);
    assert_eq!((verdict.stored, verdict.dead_lettered), (count as usize - 1, 1), "{verdict}");
    verdict.assert_safe();
}

#[tokio::test]
async fn row_05_the_worker_is_there_before_its_servers() {
    let (mut broker, mut store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let mut bed = Bed::on(&broker, &store).await;
    // In good order: RabbitMQ 3.10.8 may forget a quorum queue that is only seconds old when it is killed.
    broker.shut_down();
    store.kill();
    let mut worker = bed.worker_with(&SHORT).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("store: no MongoDB primary")).await;
    assert_eq!((worker.get("/livez").0, worker.get("/readyz").0), (200, 503));
    store.restart();
    eventually("and of the other", SOON, async || worker.get("/readyz").1.contains("broker: the broker cannot be"))
        .await;
    broker.restart();
    worker.ready().await;
    bed.reconnect().await;
    bed.publish_all((0..1000).map(Sent::numbered)).await;
    drained(&bed, 1000).await;
    bed.safe("5 broker and store absent at the start", 1000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn row_06_the_queue_is_deleted_while_it_is_consumed() {
    let bed = Bed::new().await;
    let worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    bed.publish_all((0..1000).map(Sent::numbered)).await;
    drained(&bed, 1000).await;
    bed.channel.queue_delete(bed.queue().into(), Default::default()).await.unwrap();
    eventually("a new session", SOON, async || worker.metrics()["ticketlog_sessions_opened_total"] >= 2.0).await;
    worker.ready().await;
    bed.publish_all((1000..2000).map(Sent::numbered)).await;
    drained(&bed, 2000).await;
    bed.safe("6 queue deleted while consuming", 2000, &[&worker]).await;
    bed.clean().await;
}

#[tokio::test]
async fn row_12_the_store_is_stopped_for_long_and_memory_stays_flat() {
    let (broker, mut store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    bed.publish_all((0..5000).map(Sent::numbered)).await;
    drained(&bed, 5000).await;
    store.kill();
    bed.publish_all((5000..40_000).map(Sent::numbered)).await;
    let full = async || {
        let metrics = worker.metrics();
        metrics["ticketlog_deliveries_unacked"] == metrics["ticketlog_prefetch"]
    };
    eventually("it holds what it may", SOON, full).await;
    let resident = || worker.metrics()["process_resident_memory_bytes"];
    let before = resident();
    tokio::time::sleep(scaled(5, 300)).await;
    let grown = resident() - before;
    println!("resident {before} before, {grown} more after");
    assert!(grown < 4e6, "{grown} bytes more");
    store.restart();
    drained(&bed, 40_000).await;
    bed.safe("12 store stopped", 40_000, &[&worker]).await;
    assert_eq!(worker.settled("returned"), 0, "it held them");
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn row_16_write_concern_errors_alone_and_with_write_errors() {
    let (broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    let fail = doc! { "configureFailPoint": "failCommand", "mode": { "times": 6 }, "data": {
        "failCommands": ["insert"], "appName": "ticketlog",
        "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" },
    } };
    for (from, to) in [(0, 1000), (500, 2000)] {
        // The second time half of them are there already: a write error beside the write-concern error.
        bed.client.database("admin").run_command(fail.clone()).await.unwrap();
        bed.publish_all((from..to).map(Sent::numbered)).await;
        drained(&bed, to).await;
    }
    assert!(worker.metrics()["ticketlog_store_retries_total{kind=\"write_concern\"}"] >= 2.0);
    bed.safe("16 write-concern errors, with write errors too", 2000, &[&worker]).await;
}

#[tokio::test]
async fn row_17_the_validator_refuses_one_of_500_and_then_all() {
    let bed = Bed::new().await;
    let database = bed.client.database(&bed.name);
    let validator = |rule: Document| doc! { "collMod": "log", "validator": rule };
    database.run_command(validator(doc! { "n": { "$ne": 7 } })).await.unwrap();
    bed.publish_all((0..500).map(Sent::numbered)).await;
    let worker = bed.worker().await;
    all_but_one(&bed, "17 validator refuses one of 500", &worker, 500).await;
    bed.clean().await;
    let bed = Bed::new().await;
    let database = bed.client.database(&bed.name);
    database.run_command(validator(doc! { "never": true })).await.unwrap();
    bed.publish_all((0..500).map(Sent::numbered)).await;
    // One large batch, so that the verdict falls on all of them at once.
    let one_batch = [("BATCH__LINGER", "1s"), ("BROKER__PREFETCH_BYTES", "1GiB"), ("EVENT__MAX_BYTES", "10KiB")];
    let worker = bed.worker_with(&one_batch).await;
    eventually("the breaker opens", SOON, async || worker.get("/readyz").1.contains("breaker")).await;
    database.run_command(validator(doc! {})).await.unwrap();
    drained(&bed, 500).await;
    bed.safe("17 validator refuses all, until mended", 500, &[&worker]).await;
    bed.clean().await;
}

#[tokio::test]
async fn row_18_one_document_fails_with_a_code_that_nobody_knows() {
    let bed = Bed::new().await;
    // What a geographical index cannot read has a code of its own (16755), which is on no list of ours.
    let index = IndexModel::builder().keys(doc! { "place": "2dsphere" }).build();
    bed.collection.create_index(index).await.unwrap();
    let body = "{\"n\":250,\"place\":{\"type\":\"Point\",\"coordinates\":\"nowhere\"}}";
    let nowhere = Sent { body: body.into(), ..Sent::numbered(250) };
    bed.publish_all((0..500).map(|n| if n == 250 { nowhere.clone() } else { Sent::numbered(n) })).await;
    let worker = bed.worker_with(&SHORT).await;
    all_but_one(&bed, "18 unknown code on one document", &worker, 500).await;
    assert!(worker.get("/status").1.contains("alone 5 times with code 16755"), "{}", worker.get("/status").1);
    bed.clean().await;
}

/// Alone in their queue, nobody is at fault for sure; and they must not hold up those that come later, though they fill
/// the first windows.
#[tokio::test]
async fn row_18_documents_in_doubt_hold_up_no_other() {
    let bed = Bed::new().await;
    let index = IndexModel::builder().keys(doc! { "place": "2dsphere" }).build();
    bed.collection.create_index(index).await.unwrap();
    let mut settings = SHORT.to_vec();
    settings.push(("RETRY__RELEASE_AFTER", "3s"));
    let worker = bed.worker_with(&settings).await;
    let doubtful = |n: i32| Sent { body: format!("{{\"n\":{n},\"place\":\"nowhere\"}}").into(), ..Sent::numbered(n) };
    bed.publish_all((0..3).map(doubtful)).await;
    eventually("they are given back", SOON, async || worker.metrics()["ticketlog_releases_total"] >= 1.0).await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    assert!(worker.log().contains("a document that MongoDB refuses for a reason that is not known"));
    bed.publish_all((3..300).map(Sent::numbered)).await;
    eventually("the others are stored", SOON, async || bed.count().await == 297).await;
    eventually("and they are dead letters", SOON, async || worker.settled("dead_lettered") == 3).await;
    let verdict = bed.judge(300, &[&worker]).await;
    verdict.note("18 unknown code on the only three messages, others later");
    verdict.assert_safe();
    bed.clean().await;
}

#[tokio::test]
async fn row_19_rights_are_withdrawn_while_it_runs() {
    let (store, client) = guard::store().await;
    let bed = Bed::at(given("TICKETLOG_BROKER__URI"), guard::as_user(&store, "admin", "admin")).await;
    guard::roles(&client, &bed.name, "log").await;
    let login = guard::as_user(&store, "ticketlogWorker", &bed.name);
    let mut settings = SHORT.to_vec();
    settings.push(("STORE__URI", login.as_str()));
    let worker = bed.worker_with(&settings).await;
    worker.ready().await;
    bed.publish_all((0..500).map(Sent::numbered)).await;
    drained(&bed, 500).await;
    let change = |how: &str| doc! { how: "ticketlogWorker", "roles": ["ticketlogWorker"] };
    let database = client.database(&bed.name);
    database.run_command(change("revokeRolesFromUser")).await.unwrap();
    bed.publish_all((500..1000).map(Sent::numbered)).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("(code 13)")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((bed.count().await, worker.settled("dead_lettered")), (500, 0));
    database.run_command(change("grantRolesToUser")).await.unwrap();
    drained(&bed, 1000).await;
    bed.safe("19 rights withdrawn and granted again", 1000, &[&worker]).await;
    bed.clean().await;
}
