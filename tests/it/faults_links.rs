//! Faults of the two links, at chosen frames: rows 4, 8, 10, 11, 14 and 20 of the table in docs/reliability.md.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{ACK, Act, Bed, DELIVER, PUBLISH, Proxy, SHORT, SOON, Sent, What, Worker, eventually};

const COUNT: i32 = 3000;

/// A worker that reaches the broker only by way of a proxy, with events waiting for it.
async fn behind_broker_proxy(bed: &Bed, prepare: impl FnOnce(&Proxy)) -> (Proxy, Worker) {
    bed.publish_all((0..COUNT).map(Sent::numbered)).await;
    let proxy = Proxy::before(&bed.broker_uri);
    prepare(&proxy);
    let uri = proxy.through(&bed.broker_uri);
    let mut settings = SHORT.to_vec();
    settings.push(("BROKER__URI", &uri));
    let worker = bed.worker_with(&settings).await;
    (proxy, worker)
}

async fn behind_store_proxy(bed: &Bed, prepare: impl FnOnce(&Proxy)) -> (Proxy, Worker) {
    bed.publish_all((0..COUNT).map(Sent::numbered)).await;
    let proxy = Proxy::before(&bed.store_uri);
    prepare(&proxy);
    let uri = proxy.through(&bed.store_uri);
    let mut settings = SHORT.to_vec();
    settings.push(("STORE__URI", &uri));
    let worker = bed.worker_with(&settings).await;
    (proxy, worker)
}

async fn drained(bed: &Bed) {
    eventually("everything is stored", SOON, async || bed.count().await >= COUNT as u64).await;
    bed.settled_depth(&bed.queue(), 0).await;
}

#[tokio::test]
async fn row_08_the_connection_is_lost_around_an_ack() {
    let bed = Bed::new().await;
    let mut count = 0;
    for act in [Act::CutBefore, Act::CutAfter, Act::CutWithin] {
        let (proxy, mut worker) =
            behind_broker_proxy(&bed, |proxy| proxy.at(What::Sent(ACK.0, ACK.1), act, 1, 3)).await;
        drained(&bed).await;
        eventually("it was cut", SOON, async || proxy.hits() == 3 || worker.get("/readyz").0 == 200).await;
        assert!(proxy.hits() > 0);
        count += worker.settled("duplicate");
        worker.stop().await;
    }
    println!("{count} duplicates were recognised");
    bed.safe("8 connection lost before, in and after an ack", COUNT, &[]).await;
    bed.clean().await;
}

#[tokio::test]
async fn row_04_a_reset_in_the_middle_of_a_frame() {
    let bed = Bed::new().await;
    let (proxy, mut worker) =
        behind_broker_proxy(&bed, |proxy| proxy.at(What::Received(DELIVER.0, DELIVER.1), Act::CutWithin, 700, 3)).await;
    drained(&bed).await;
    assert!(proxy.hits() > 0 && worker.get("/livez").0 == 200);
    worker.ready().await;
    bed.safe("4 reset in the middle of a frame", COUNT, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    bed.clean().await;
}

#[tokio::test]
async fn row_04_a_half_open_connection_is_noticed() {
    let bed = Bed::new().await;
    let (proxy, mut worker) =
        behind_broker_proxy(&bed, |proxy| proxy.at(What::Received(DELIVER.0, DELIVER.1), Act::Silence, 500, 1)).await;
    eventually("it is silent", SOON, async || proxy.hits() == 1).await;
    eventually("it says so", Duration::from_secs(15), async || worker.get("/readyz").1.contains("broker:")).await;
    // New connections are accepted and say nothing, either.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((worker.get("/livez").0, worker.get("/readyz").0), (200, 503));
    proxy.silence(false);
    proxy.cut();
    drained(&bed).await;
    worker.ready().await;
    bed.safe("4 half-open connection to the broker", COUNT, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    bed.clean().await;
}

#[tokio::test]
async fn row_04_a_link_that_delivers_in_crumbs() {
    let bed = Bed::new().await;
    let (_proxy, mut worker) = behind_broker_proxy(&bed, |proxy| proxy.slow(Duration::ZERO, 7)).await;
    drained(&bed).await;
    assert_eq!(worker.metrics()["ticketlog_sessions_opened_total"], 1.0);
    bed.safe("4 bytes arrive in sevens", COUNT, &[&worker]).await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn row_14_applied_but_the_reply_is_lost() {
    let bed = Bed::new().await;
    for act in [Act::CutBefore, Act::CutWithin, Act::CutAfter] {
        let (proxy, mut worker) = behind_store_proxy(&bed, |proxy| proxy.at(What::Reply("insert"), act, 1, 3)).await;
        drained(&bed).await;
        assert!(proxy.hits() > 0 && worker.settled("dead_lettered") == 0);
        worker.stop().await;
    }
    bed.safe("14 applied but the reply lost", COUNT, &[]).await;
    bed.clean().await;
}

#[tokio::test]
async fn row_13_the_store_falls_silent_in_the_middle_of_a_reply() {
    let bed = Bed::new().await;
    let (proxy, mut worker) =
        behind_store_proxy(&bed, |proxy| proxy.at(What::Reply("insert"), Act::Silence, 1, 1)).await;
    eventually("the reply is lost", SOON, async || proxy.hits() == 1).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("store:")).await;
    proxy.silence(false);
    drained(&bed).await;
    worker.ready().await;
    bed.safe("13 store silent after applying", COUNT, &[&worker]).await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn row_20_a_slow_store_slows_the_intake_and_nothing_else() {
    let bed = Bed::new().await;
    bed.publish_all((0..COUNT).map(Sent::numbered)).await;
    let proxy = Proxy::before(&bed.store_uri);
    let uri = proxy.through(&bed.store_uri);
    let mut settings = SHORT.to_vec();
    settings.extend([("STORE__URI", uri.as_str()), ("BATCH__MAX_EVENTS", "100"), ("BROKER__PREFETCH", "400")]);
    settings.push(("STORE__WRITE_TIMEOUT", "10s"));
    proxy.slow(Duration::from_millis(300), 0);
    let mut worker = bed.worker_with(&settings).await;
    let mut most = 0.0f64;
    for _ in 0..60 {
        let metrics = worker.metrics();
        most = most.max(metrics["ticketlog_messages_in_flight"]);
        // For a moment, while the prefetch is being changed, twice as many.
        assert!(metrics["ticketlog_messages_in_flight"] <= 2.0 * 300.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        most >= 100.0
            && worker.metrics()["ticketlog_messages_received_total{redelivered=\"false\"}"] < f64::from(COUNT)
    );
    proxy.behave();
    drained(&bed).await;
    assert_eq!(worker.metrics()["ticketlog_sessions_opened_total"], 1.0, "heartbeats went on; {most} were in flight");
    bed.safe("20 slow store", COUNT, &[&worker]).await;
    worker.stop().await;
    bed.clean().await;
}

fn bad(n: i32) -> Sent {
    Sent::body(format!("nonsense {n}")).with(|properties| properties.with_message_id(format!("bad-{n}").into()))
}

/// Each of the bad messages is a dead letter, at least once; how many are there.
async fn all_dead(bed: &Bed, count: i32) -> usize {
    let dead = bed.take_all(&bed.dead_queue()).await;
    let ids: BTreeSet<String> =
        dead.iter().filter_map(|dead| Some(dead.properties.message_id().as_ref()?.to_string())).collect();
    assert_eq!(ids, (0..count).map(|n| format!("bad-{n}")).collect());
    assert!(dead.iter().all(|dead| dead.body.starts_with(b"nonsense ")));
    dead.len()
}

#[tokio::test]
async fn row_10_the_confirm_of_a_dead_letter_never_comes() {
    let bed = Bed::new().await;
    let (proxy, mut worker) = behind_broker_proxy(&bed, |_| {}).await;
    drained(&bed).await;
    proxy.at(What::Received(ACK.0, ACK.1), Act::Swallow, 0, 2);
    bed.publish_all((0..10).map(bad)).await;
    eventually("the originals wait", SOON, async || worker.metrics()["ticketlog_dead_letters_waiting"] > 0.0).await;
    worker.has_settled(COUNT as u64 + 10).await;
    bed.settled_depth(&bed.queue(), 0).await;
    let dead = all_dead(&bed, 10).await;
    println!("10 bad messages, {dead} dead letters, {} confirms swallowed", proxy.hits());
    bed.safe("10 confirm of a dead letter lost", COUNT, &[&worker]).await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn row_10_the_connection_is_cut_at_the_publish_of_a_dead_letter() {
    let bed = Bed::new().await;
    let (proxy, mut worker) = behind_broker_proxy(&bed, |_| {}).await;
    drained(&bed).await;
    proxy.at(What::Sent(PUBLISH.0, PUBLISH.1), Act::CutAfter, 3, 2);
    bed.publish_all((0..10).map(bad)).await;
    bed.settled_depth(&bed.queue(), 0).await;
    eventually("all are settled", SOON, async || worker.metrics()["ticketlog_messages_in_flight"] == 0.0).await;
    all_dead(&bed, 10).await;
    bed.safe("10 connection cut at a dead letter", COUNT, &[&worker]).await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn row_11_killed_between_the_confirm_of_a_dead_letter_and_the_ack() {
    let bed = Bed::new().await;
    let (proxy, mut worker) = behind_broker_proxy(&bed, |_| {}).await;
    drained(&bed).await;
    proxy.at(What::Sent(ACK.0, ACK.1), Act::Silence, 0, 1);
    bed.publish(&bad(0)).await;
    eventually("the ack is under way", SOON, async || proxy.hits() == 1).await;
    worker.kill();
    drop(proxy);
    let mut next = bed.worker().await;
    bed.settled_depth(&bed.queue(), 0).await;
    next.has_settled(1).await;
    let dead = all_dead(&bed, 1).await;
    assert_eq!(dead, 2, "one more dead letter of the same message");
    bed.safe("11 killed between confirm and ack", COUNT, &[&next]).await;
    next.stop().await;
    bed.clean().await;
}
