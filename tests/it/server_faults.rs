//! Faults of whole servers and of the worker itself: faults 3, 7, 9, 10, 15 and 24 to 27 in docs/develop/reliability.md.
//! Servers are frozen for seconds in `make test`, and longer in `make chaos`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use bson::doc;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::harness::{
    DEADLINE, DedicatedServer, Proxy, SHORT_TIMEOUTS, ServerKind, TestEnv, TestMessage, eventually, scaled,
};

/// Waits until all events are stored and acknowledged.
async fn wait_until_stored(env: &TestEnv, count: i32) {
    eventually("everything is stored", DEADLINE, async || env.count().await >= count as u64).await;
    env.wait_for_depth(&env.queue(), 0).await;
}

#[tokio::test]
async fn fault_03_the_broker_is_frozen() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let mut env = TestEnv::with_dedicated_broker(&broker).await;
    env.publish_all((0..5000).map(TestMessage::numbered)).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    eventually("events are being stored", DEADLINE, async || env.count().await > 100).await;
    broker.freeze(true);
    let frozen = Instant::now();
    eventually("the problem is reported", Duration::from_secs(20), async || {
        worker.get("/readyz").1.contains("broker:")
    })
    .await;
    println!("reported after {:?}", frozen.elapsed());
    tokio::time::sleep(scaled(4, 60)).await;
    assert_eq!(worker.get("/livez").0, 200);
    broker.freeze(false);
    env.reconnect().await;
    wait_until_stored(&env, 5000).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("3 broker frozen", 5000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn fault_07_the_consumer_timeout_closes_the_channel() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, _| {
        std::fs::write(directory.join("extra.terms"), "{rabbit, [{channel_tick_interval, 1000}]}").unwrap();
        std::fs::write(directory.join("extra.conf"), "consumer_timeout = 2000\n").unwrap();
    });
    let store = DedicatedServer::start(ServerKind::Mongodb);
    let env = TestEnv::on(&broker, &store).await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    let mut worker = env.worker_with(&[("STORE__WRITE_TIMEOUT", "2s"), ("BROKER__CALL_TIMEOUT", "3s")]).await;
    eventually("events are being stored", DEADLINE, async || env.count().await > 10).await;
    store.freeze(true);
    env.publish_all((500..600).map(TestMessage::numbered)).await;
    // Up to 4.2 RabbitMQ closes the channel, from 4.3 on it cancels the consumer.
    let ends =
        ["closed", "consumer_cancelled"].map(|cause| format!("ticketlog_session_ends_total{{cause=\"{cause}\"}}"));
    let mut published = 600;
    eventually("the session is ended", DEADLINE, async || {
        // From 4.3 on a quorum queue that nothing happens to may never look: if it looks within the millisecond in which the first
        // timeout passes, it sets no timer for the next one until the next command (rabbit_fifo.erl, handle_aux).
        if published < 1000 {
            env.publish(&TestMessage::numbered(published)).await;
            published += 1;
        }
        let metrics = worker.metrics();
        ends.iter().any(|name| metrics[name.as_str()] >= 1.0)
    })
    .await;
    store.freeze(false);
    env.publish_all((published..1000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 1000).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("7 channel closed by the consumer timeout", 1000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn fault_09_an_alarm_blocks_publishers_but_not_storing() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let mut env = TestEnv::with_dedicated_broker(&broker).await;
    env.publish_all((0..3000).map(TestMessage::numbered)).await;
    for n in 0..5 {
        env.publish(&TestMessage::body(format!("nonsense {n}"))).await;
    }
    for (row, raise, clear) in [
        ("9 memory alarm", ["set_vm_memory_high_watermark", "0.00001"], ["set_vm_memory_high_watermark", "0.4"]),
        ("9 disk alarm", ["set_disk_free_limit", "100000000000000"], ["set_disk_free_limit", "50000000"]),
    ] {
        broker.ctl(&raise);
        let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
        eventually("events are still stored", DEADLINE, async || env.count().await == 3000).await;
        let reported = async || worker.get("/readyz").1.contains("dead_letter_unavailable");
        eventually("dead letters wait, and the problem is reported", DEADLINE, reported).await;
        assert_eq!(worker.settled("dead_lettered"), 0);
        assert!(worker.metrics()["ticketlog_dead_letters_waiting"] >= 1.0);
        broker.ctl(&clear);
        worker.wait_until_settled(if row.contains("memory") { 3005 } else { 5 }).await;
        env.reconnect().await;
        assert_eq!(env.take_all_messages(&env.dead_letter_queue()).await.len(), 5);
        env.assert_all_stored(row, 3000, &[&worker]).await;
        worker.stop().await;
        for n in 0..5 {
            env.publish(&TestMessage::body(format!("nonsense {n}"))).await;
        }
    }
}

#[tokio::test]
async fn fault_10_the_dead_letter_queue_is_full() {
    let env = TestEnv::new().await;
    env.channel.queue_delete(env.dead_letter_queue().into(), QueueDeleteOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(2));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let queue = env.dead_letter_queue();
    env.channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let (dlx, key) = (format!("{}.dlx", env.name), queue.as_str());
    env.channel
        .queue_bind(key.into(), dlx.into(), key.into(), Default::default(), FieldTable::default())
        .await
        .unwrap();
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("BROKER__DECLARE", "false"));
    let mut worker = env.worker_with(&settings).await;
    for n in 0..20 {
        env.publish(&TestMessage::body(format!("nonsense {n}"))).await;
    }
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    eventually("the problem is reported", DEADLINE, async || worker.get("/readyz").1.contains("is it full?")).await;
    eventually("events are still stored", DEADLINE, async || env.count().await == 500).await;
    let mut dead = 0;
    eventually("the rest is dead-lettered as there is room", DEADLINE, async || {
        dead += env.take_all_messages(&env.dead_letter_queue()).await.len();
        worker.settled("dead_lettered") == 20
    })
    .await;
    dead += env.take_all_messages(&env.dead_letter_queue()).await.len();
    assert!(dead >= 20, "{dead}");
    worker.wait_until_ready().await;
    env.assert_all_stored("10 dead-letter queue full, reject-publish", 500, &[&worker]).await;
    worker.stop().await;
    env.channel.queue_purge(env.queue().into(), QueuePurgeOptions::default()).await.unwrap();
    env.clean().await;
}

#[tokio::test]
async fn fault_15_the_primary_steps_down_and_another_is_killed_under_load() {
    let store = DedicatedServer::start(ServerKind::Replica);
    let env = TestEnv::with_dedicated_store(&store).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    worker.wait_until_ready().await;
    env.publish_all((0..4000).map(TestMessage::numbered)).await;
    eventually("events are being stored", DEADLINE, async || env.count().await > 100).await;
    let admin = env.client.database("admin");
    // The command may close the connection instead of answering.
    let _ = admin.run_command(doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3 }).await;
    env.publish_all((4000..8000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 8000).await;
    let hello = admin.run_command(doc! { "hello": 1 }).await.unwrap();
    let primary = hello.get_str("primary").unwrap().rsplit(':').next().unwrap().parse().unwrap();
    env.publish_all((8000..12_000).map(TestMessage::numbered)).await;
    store.kill_member(primary);
    let killed = Instant::now();
    env.publish_all((12_000..16_000).map(TestMessage::numbered)).await;
    wait_until_stored(&env, 16_000).await;
    println!("everything was stored {:?} after the primary was killed", killed.elapsed());
    worker.wait_until_ready().await;
    env.assert_all_stored("15 step-down and SIGKILL of the primary", 16_000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    env.clean().await;
}

#[tokio::test]
async fn fault_24_the_worker_is_frozen() {
    let env = TestEnv::new().await;
    env.publish_all((0..20_000).map(TestMessage::numbered)).await;
    let mut worker = env.worker_with(&SHORT_TIMEOUTS).await;
    eventually("events are being stored", DEADLINE, async || env.count().await > 100).await;
    worker.signal("STOP");
    tokio::time::sleep(scaled(6, 90)).await;
    worker.signal("CONT");
    wait_until_stored(&env, 20_000).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("24 worker frozen", 20_000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    env.clean().await;
}

#[tokio::test]
async fn fault_25_few_file_descriptors() {
    let env = TestEnv::new().await;
    env.publish_all((0..2000).map(TestMessage::numbered)).await;
    let mut worker = env.worker_under("ulimit -n 24", &SHORT_TIMEOUTS).await;
    // More connections than there are descriptors.
    let held: Vec<_> = (0..40).filter_map(|_| std::net::TcpStream::connect(worker.address()).ok()).collect();
    wait_until_stored(&env, 2000).await;
    drop(held);
    eventually("the HTTP server answers again", DEADLINE, async || {
        worker.try_get("/readyz").is_some_and(|(code, _)| code == 200)
    })
    .await;
    env.assert_all_stored("25 few file descriptors", 2000, &[&worker]).await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_25_no_file_descriptor_left_when_the_connections_are_lost() {
    let env = TestEnv::new().await;
    let (broker, store) = (Proxy::in_front_of(&env.broker_uri), Proxy::in_front_of(&env.store_uri));
    let (broker_uri, store_uri) = (broker.proxied_uri(&env.broker_uri), store.proxied_uri(&env.store_uri));
    let settings = [("BROKER__URI", broker_uri.as_str()), ("STORE__URI", &store_uri)];
    let mut worker = env.worker_under("ulimit -n 40", &[&SHORT_TIMEOUTS[..], &settings].concat()).await;
    worker.wait_until_ready().await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", worker.id())).map_or(0, Iterator::count);
    for round in 0..3 {
        let held: Vec<_> = (0..60).filter_map(|_| std::net::TcpStream::connect(worker.address()).ok()).collect();
        eventually("no descriptor is left", DEADLINE, async || descriptors() >= 40).await;
        broker.cut();
        store.cut();
        env.publish_all((0..50).map(TestMessage::numbered)).await;
        let attempts = || worker.log().matches("no session").count();
        eventually("it notices", DEADLINE, async || attempts() > round).await;
        drop(held);
        eventually("it is ready again", DEADLINE, async || {
            worker.try_get("/readyz").is_some_and(|(code, _)| code == 200)
        })
        .await;
    }
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_25_large_messages_within_the_budget() {
    let env = TestEnv::new().await;
    let pad = "x".repeat(12 << 20);
    for n in 0..24 {
        let body = format!("{{\"n\":{n},\"pad\":\"{pad}\"}}");
        env.publish(
            &TestMessage::body(body).with(|properties| properties.with_message_id(format!("large-{n}").into())),
        )
        .await;
    }
    let mut worker = env.worker_with(&[("EVENT__MAX_BYTES", "16MiB")]).await;
    eventually("all are stored", DEADLINE, async || env.count().await == 24).await;
    worker.wait_until_settled(24).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    let kib: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    println!("24 messages of 12 MiB, peak resident memory {kib} KiB");
    assert!(kib < 400 * 1024, "{kib} KiB");
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn fault_26_four_workers_on_one_queue_killed_in_turn() {
    let env = TestEnv::new().await;
    let count = 12_000;
    env.publish_all((0..count).map(TestMessage::numbered)).await;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(env.worker().await);
    }
    for round in 0..8usize {
        tokio::time::sleep(Duration::from_millis(60)).await;
        workers[round % 4].kill();
        workers[round % 4] = env.worker().await;
    }
    wait_until_stored(&env, count).await;
    let all: Vec<_> = workers.iter().collect();
    env.assert_all_stored("26 four workers killed in turn", count, &all).await;
    drop(workers);
    env.clean().await;
}

#[tokio::test]
async fn fault_27_the_log_is_not_read() {
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // A FIFO that is full and never read. It is open for reading too, so that writing to it never fails.
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap();
    const O_NONBLOCK: i32 = 0o4000;
    let mut full = open(O_NONBLOCK);
    while full.write(&[b'x'; 512]).is_ok() {}
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = env.command();
    command.env("TICKETLOG_HTTP__LISTEN", &address).arg("run").stdout(open(0)).stderr(open(0));
    let mut child = command.spawn().unwrap();
    env.publish_all((0..1000).map(TestMessage::numbered)).await;
    for n in 0..20 {
        env.publish(&TestMessage::body(format!("nonsense {n}"))).await;
    }
    eventually("events are stored", DEADLINE, async || env.count().await == 1000).await;
    env.wait_for_depth(&env.dead_letter_queue(), 20).await;
    crate::harness::signal("TERM", child.id());
    let mut ended = None;
    eventually("the worker ends", DEADLINE, async || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert_eq!(ended.unwrap().code(), Some(0));
    env.take_all_messages(&env.dead_letter_queue()).await;
    env.assert_all_stored("27 nobody reads the log", 1000, &[]).await;
    env.clean().await;
}
