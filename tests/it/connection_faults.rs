//! Faults of the connections to the two servers, at chosen frames: faults 4, 8, 10, 11, 13, 14 and 20 in
//! docs/develop/reliability.md.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{
    ACK, Action, DEADLINE, DELIVER, Frame, PUBLISH, Proxy, SHORT_TIMEOUTS, TestEnv, TestMessage, Worker, eventually,
};

const COUNT: i32 = 3000;

/// Publishes events, and starts a worker that reaches the broker through a proxy.
async fn behind_broker_proxy(env: &TestEnv, prepare: impl FnOnce(&Proxy)) -> (Proxy, Worker) {
    env.publish_all((0..COUNT).map(TestMessage::numbered)).await;
    let proxy = Proxy::in_front_of(&env.broker_uri);
    prepare(&proxy);
    let uri = proxy.proxied_uri(&env.broker_uri);
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("BROKER__URI", &uri));
    let worker = env.worker_with(&settings).await;
    (proxy, worker)
}

/// The same with a proxy in front of MongoDB.
async fn behind_store_proxy(env: &TestEnv, prepare: impl FnOnce(&Proxy)) -> (Proxy, Worker) {
    env.publish_all((0..COUNT).map(TestMessage::numbered)).await;
    let proxy = Proxy::in_front_of(&env.store_uri);
    prepare(&proxy);
    let uri = proxy.proxied_uri(&env.store_uri);
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("STORE__URI", &uri));
    let worker = env.worker_with(&settings).await;
    (proxy, worker)
}

async fn wait_until_stored(env: &TestEnv) {
    eventually("everything is stored", DEADLINE, async || env.count().await >= COUNT as u64).await;
    env.wait_for_depth(&env.queue(), 0).await;
}

#[tokio::test]
async fn fault_08_the_connection_is_lost_around_an_ack() {
    let env = TestEnv::new().await;
    let mut duplicates = 0;
    for action in [Action::CutBefore, Action::CutAfter, Action::CutWithin] {
        let (proxy, mut worker) =
            behind_broker_proxy(&env, |proxy| proxy.at(Frame::FromClient(ACK.0, ACK.1), action, 1, 3)).await;
        wait_until_stored(&env).await;
        // One ack may be for all messages.
        eventually("the connection was cut, and the worker is ready or cut again", DEADLINE, async || {
            let cuts = proxy.times_triggered();
            cuts == 3 || (cuts > 0 && worker.get("/readyz").0 == 200)
        })
        .await;
        duplicates += worker.settled("duplicate");
        worker.stop().await;
    }
    println!("{duplicates} duplicates were recognised");
    env.assert_all_stored("8 connection lost before, in and after an ack", COUNT, &[]).await;
    env.clean().await;
}

#[tokio::test]
async fn fault_04_a_reset_in_the_middle_of_a_frame() {
    let env = TestEnv::new().await;
    let (proxy, mut worker) =
        behind_broker_proxy(&env, |proxy| proxy.at(Frame::FromBroker(DELIVER.0, DELIVER.1), Action::CutWithin, 700, 3))
            .await;
    wait_until_stored(&env).await;
    assert!(proxy.times_triggered() > 0 && worker.get("/livez").0 == 200);
    worker.wait_until_ready().await;
    env.assert_all_stored("4 reset in the middle of a frame", COUNT, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    env.clean().await;
}

#[tokio::test]
async fn fault_04_a_half_open_connection_is_noticed() {
    let env = TestEnv::new().await;
    let (proxy, mut worker) =
        behind_broker_proxy(&env, |proxy| proxy.at(Frame::FromBroker(DELIVER.0, DELIVER.1), Action::Silence, 500, 1))
            .await;
    eventually("the connection is silent", DEADLINE, async || proxy.times_triggered() == 1).await;
    eventually("the problem is reported", Duration::from_secs(15), async || {
        worker.get("/readyz").1.contains("broker:")
    })
    .await;
    // The proxy accepts new connections, but forwards nothing on them.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((worker.get("/livez").0, worker.get("/readyz").0), (200, 503));
    proxy.silence(false);
    proxy.cut();
    wait_until_stored(&env).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("4 half-open connection to the broker", COUNT, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    env.clean().await;
}

#[tokio::test]
async fn fault_04_a_connection_that_delivers_small_pieces() {
    let env = TestEnv::new().await;
    let (_proxy, mut worker) = behind_broker_proxy(&env, |proxy| proxy.slow(Duration::ZERO, 7)).await;
    wait_until_stored(&env).await;
    assert_eq!(worker.metrics()["ticketlog_sessions_opened_total"], 1.0);
    env.assert_all_stored("4 bytes arrive seven at a time", COUNT, &[&worker]).await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_14_the_reply_to_an_applied_write_is_lost() {
    let env = TestEnv::new().await;
    for action in [Action::CutBefore, Action::CutWithin, Action::CutAfter] {
        let (proxy, mut worker) =
            behind_store_proxy(&env, |proxy| proxy.at(Frame::Reply("insert"), action, 1, 3)).await;
        wait_until_stored(&env).await;
        assert!(proxy.times_triggered() > 0 && worker.settled("dead_lettered") == 0);
        worker.stop().await;
    }
    env.assert_all_stored("14 write applied but reply lost", COUNT, &[]).await;
    env.clean().await;
}

#[tokio::test]
async fn fault_13_the_store_hangs_in_the_middle_of_a_reply() {
    let env = TestEnv::new().await;
    let (proxy, mut worker) =
        behind_store_proxy(&env, |proxy| proxy.at(Frame::Reply("insert"), Action::Silence, 1, 1)).await;
    eventually("the reply is lost", DEADLINE, async || proxy.times_triggered() == 1).await;
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("store:")).await;
    proxy.silence(false);
    wait_until_stored(&env).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("13 store silent after applying a write", COUNT, &[&worker]).await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_20_a_slow_store_causes_back_pressure() {
    let env = TestEnv::new().await;
    env.publish_all((0..COUNT).map(TestMessage::numbered)).await;
    let proxy = Proxy::in_front_of(&env.store_uri);
    let uri = proxy.proxied_uri(&env.store_uri);
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.extend([("STORE__URI", uri.as_str()), ("BATCH__MAX_EVENTS", "100"), ("BROKER__PREFETCH", "400")]);
    settings.extend([("STORE__WRITE_TIMEOUT", "10s"), ("WRITE__CONCURRENCY", "3")]);
    proxy.slow(Duration::from_secs(1), 0);
    let mut worker = env.worker_with(&settings).await;
    let (mut most_in_flight, mut samples) = (0.0f64, 0);
    eventually("there are events in flight, for a while", DEADLINE, async || {
        let in_flight = worker.metrics()["ticketlog_messages_in_flight"];
        // While the prefetch is being changed, there can be twice as many for a moment.
        assert!(in_flight <= 2.0 * 300.0, "{in_flight}");
        most_in_flight = most_in_flight.max(in_flight);
        samples += 1;
        samples >= 60 && most_in_flight >= 100.0
    })
    .await;
    let received = worker.metrics()["ticketlog_messages_received_total{redelivered=\"false\"}"];
    assert!(received < f64::from(COUNT), "{received} were taken");
    proxy.reset();
    wait_until_stored(&env).await;
    assert_eq!(
        worker.metrics()["ticketlog_sessions_opened_total"],
        1.0,
        "heartbeats went on; up to {most_in_flight} in flight"
    );
    env.assert_all_stored("20 slow store", COUNT, &[&worker]).await;
    worker.stop().await;
    env.clean().await;
}

fn malformed(n: i32) -> TestMessage {
    TestMessage::body(format!("nonsense {n}")).with(|properties| properties.with_message_id(format!("bad-{n}").into()))
}

/// Asserts that each of the malformed messages is in the dead-letter queue at least once. Returns the number of dead
/// letters.
async fn count_dead_letters(env: &TestEnv, count: i32) -> usize {
    let dead = env.take_all_messages(&env.dead_letter_queue()).await;
    let ids: BTreeSet<String> =
        dead.iter().filter_map(|dead| Some(dead.properties.message_id().as_ref()?.to_string())).collect();
    assert_eq!(ids, (0..count).map(|n| format!("bad-{n}")).collect());
    assert!(dead.iter().all(|dead| dead.body.starts_with(b"nonsense ")));
    dead.len()
}

#[tokio::test]
async fn fault_10_the_confirm_of_a_dead_letter_never_comes() {
    let env = TestEnv::new().await;
    let (proxy, mut worker) = behind_broker_proxy(&env, |_| {}).await;
    wait_until_stored(&env).await;
    // All of them: a later one may confirm many messages.
    proxy.at(Frame::FromBroker(ACK.0, ACK.1), Action::Swallow, 0, u32::MAX);
    env.publish_all((0..10).map(malformed)).await;
    eventually("dead letters wait for their confirms", DEADLINE, async || {
        worker.metrics()["ticketlog_dead_letters_waiting"] > 0.0
    })
    .await;
    proxy.reset();
    worker.wait_until_settled(COUNT as u64 + 10).await;
    env.wait_for_depth(&env.queue(), 0).await;
    let dead = count_dead_letters(&env, 10).await;
    println!("10 malformed messages, {dead} dead letters, {} confirms swallowed", proxy.times_triggered());
    env.assert_all_stored("10 confirm of a dead letter lost", COUNT, &[&worker]).await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_10_the_connection_is_cut_at_the_publish_of_a_dead_letter() {
    let env = TestEnv::new().await;
    let (proxy, mut worker) = behind_broker_proxy(&env, |_| {}).await;
    wait_until_stored(&env).await;
    proxy.at(Frame::FromClient(PUBLISH.0, PUBLISH.1), Action::CutAfter, 3, 2);
    env.publish_all((0..10).map(malformed)).await;
    env.wait_for_depth(&env.queue(), 0).await;
    eventually("all are settled", DEADLINE, async || worker.metrics()["ticketlog_messages_in_flight"] == 0.0).await;
    count_dead_letters(&env, 10).await;
    env.assert_all_stored("10 connection cut at a dead letter", COUNT, &[&worker]).await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_11_a_kill_between_the_confirm_of_a_dead_letter_and_the_ack() {
    let env = TestEnv::new().await;
    let (proxy, mut worker) = behind_broker_proxy(&env, |_| {}).await;
    wait_until_stored(&env).await;
    proxy.at(Frame::FromClient(ACK.0, ACK.1), Action::Silence, 0, 1);
    env.publish(&malformed(0)).await;
    eventually("the worker sends the ack", DEADLINE, async || proxy.times_triggered() == 1).await;
    worker.kill();
    drop(proxy);
    let mut next = env.worker().await;
    env.wait_for_depth(&env.queue(), 0).await;
    next.wait_until_settled(1).await;
    let dead = count_dead_letters(&env, 1).await;
    assert_eq!(dead, 2, "the message is dead-lettered again");
    env.assert_all_stored("11 killed between confirm and ack", COUNT, &[&next]).await;
    next.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn a_stop_is_heard_while_a_server_takes_the_connection_and_says_nothing() {
    let env = TestEnv::new().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    for (name, uri) in [
        ("BROKER__URI", format!("amqp://guest:guest@{address}/%2f")),
        ("STORE__URI", format!("mongodb://{address}/?directConnection=true")),
    ] {
        let settings = [(name, uri.as_str()), ("BROKER__CONNECT_TIMEOUT", "1h"), ("BROKER__CALL_TIMEOUT", "1h")];
        let mut worker = env.worker_with(&settings).await;
        let _held = silent.accept().await.unwrap();
        assert_eq!(worker.stop().await.code(), Some(0), "{name}: {}", worker.log());
    }
    env.clean().await;
}
