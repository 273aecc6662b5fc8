//! Faults of whole servers and of the worker itself: rows 3, 7, 9, 10, 15, 24, 25 and 26 of the table in
//! docs/reliability.md. Frozen for seconds here; for as long as the table says in `make chaos`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use bson::doc;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::harness::{Bed, Kind, Private, SHORT, SOON, Sent, eventually, scaled};

async fn drained(bed: &Bed, count: i32) {
    eventually("everything is stored", SOON, async || bed.count().await >= count as u64).await;
    bed.settled_depth(&bed.queue(), 0).await;
}

#[tokio::test]
async fn row_03_the_broker_is_frozen() {
    let broker = Private::start(Kind::Rabbitmq);
    let mut bed = Bed::with_broker(&broker).await;
    bed.publish_all((0..5000).map(Sent::numbered)).await;
    let mut worker = bed.worker_with(&SHORT).await;
    eventually("it is at work", SOON, async || bed.count().await > 100).await;
    broker.freeze(true);
    let frozen = Instant::now();
    eventually("it says so", Duration::from_secs(20), async || worker.get("/readyz").1.contains("broker:")).await;
    println!("noticed after {:?}", frozen.elapsed());
    tokio::time::sleep(scaled(4, 60)).await;
    assert_eq!(worker.get("/livez").0, 200);
    broker.freeze(false);
    bed.reconnect().await;
    drained(&bed, 5000).await;
    worker.ready().await;
    bed.safe("3 broker frozen", 5000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn row_07_the_broker_closes_the_channel_for_its_consumer_timeout() {
    let broker = Private::prepared(Kind::Rabbitmq, |directory, _| {
        std::fs::write(directory.join("extra.terms"), "{rabbit, [{channel_tick_interval, 1000}]}").unwrap();
        std::fs::write(directory.join("extra.conf"), "consumer_timeout = 2000\n").unwrap();
    });
    let store = Private::start(Kind::Mongodb);
    let bed = Bed::on(&broker, &store).await;
    bed.publish_all((0..500).map(Sent::numbered)).await;
    let mut worker = bed.worker_with(&SHORT).await;
    eventually("it is at work", SOON, async || bed.count().await > 10).await;
    store.freeze(true);
    bed.publish_all((500..1000).map(Sent::numbered)).await;
    let closed = "ticketlog_session_ends_total{cause=\"closed\"}";
    eventually("the channel is closed", SOON, async || worker.metrics()[closed] >= 1.0).await;
    store.freeze(false);
    drained(&bed, 1000).await;
    worker.ready().await;
    bed.safe("7 channel closed by the consumer timeout", 1000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
}

#[tokio::test]
async fn row_09_an_alarm_blocks_publishers_and_storing_goes_on() {
    let broker = Private::start(Kind::Rabbitmq);
    let mut bed = Bed::with_broker(&broker).await;
    bed.publish_all((0..3000).map(Sent::numbered)).await;
    for n in 0..5 {
        bed.publish(&Sent::body(format!("nonsense {n}"))).await;
    }
    for (row, alarm, calm) in [
        ("9 memory alarm", ["set_vm_memory_high_watermark", "0.00001"], ["set_vm_memory_high_watermark", "0.4"]),
        ("9 disk alarm", ["set_disk_free_limit", "100000000000000"], ["set_disk_free_limit", "50000000"]),
    ] {
        broker.ctl(&alarm);
        let mut worker = bed.worker_with(&SHORT).await;
        eventually("events are stored all the same", SOON, async || bed.count().await == 3000).await;
        let said = async || worker.get("/readyz").1.contains("dead_letter_unavailable");
        eventually("dead letters wait, and it says so", SOON, said).await;
        assert_eq!(worker.settled("dead_lettered"), 0);
        assert!(worker.metrics()["ticketlog_dead_letters_waiting"] >= 1.0);
        broker.ctl(&calm);
        worker.has_settled(if row.contains("memory") { 3005 } else { 5 }).await;
        bed.reconnect().await;
        assert_eq!(bed.take_all(&bed.dead_queue()).await.len(), 5);
        bed.safe(row, 3000, &[&worker]).await;
        worker.stop().await;
        for n in 0..5 {
            bed.publish(&Sent::body(format!("nonsense {n}"))).await;
        }
    }
}

#[tokio::test]
async fn row_10_a_full_dead_letter_queue_that_rejects() {
    let bed = Bed::new().await;
    bed.channel.queue_delete(bed.dead_queue().into(), QueueDeleteOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(2));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let queue = bed.dead_queue();
    bed.channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let (dlx, key) = (format!("{}.dlx", bed.name), queue.as_str());
    bed.channel
        .queue_bind(key.into(), dlx.into(), key.into(), Default::default(), FieldTable::default())
        .await
        .unwrap();
    let mut settings = SHORT.to_vec();
    settings.push(("BROKER__DECLARE", "false"));
    let mut worker = bed.worker_with(&settings).await;
    for n in 0..20 {
        bed.publish(&Sent::body(format!("nonsense {n}"))).await;
    }
    bed.publish_all((0..500).map(Sent::numbered)).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("is it full?")).await;
    eventually("events are stored all the same", SOON, async || bed.count().await == 500).await;
    let mut dead = 0;
    eventually("the rest follows as room is made", SOON, async || {
        dead += bed.take_all(&bed.dead_queue()).await.len();
        worker.settled("dead_lettered") == 20
    })
    .await;
    dead += bed.take_all(&bed.dead_queue()).await.len();
    assert!(dead >= 20, "{dead}");
    worker.ready().await;
    bed.safe("10 dead-letter queue full, reject-publish", 500, &[&worker]).await;
    worker.stop().await;
    bed.channel.queue_purge(bed.queue().into(), QueuePurgeOptions::default()).await.unwrap();
    bed.clean().await;
}

#[tokio::test]
async fn row_15_the_primary_steps_down_and_another_is_killed_under_load() {
    let store = Private::start(Kind::Replica);
    let bed = Bed::with_store(&store).await;
    let mut worker = bed.worker_with(&SHORT).await;
    worker.ready().await;
    bed.publish_all((0..4000).map(Sent::numbered)).await;
    eventually("it is at work", SOON, async || bed.count().await > 100).await;
    let admin = bed.client.database("admin");
    // The connection may be closed with the answer.
    let _ = admin.run_command(doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3 }).await;
    bed.publish_all((4000..8000).map(Sent::numbered)).await;
    drained(&bed, 8000).await;
    let hello = admin.run_command(doc! { "hello": 1 }).await.unwrap();
    let primary = hello.get_str("primary").unwrap().rsplit(':').next().unwrap().parse().unwrap();
    bed.publish_all((8000..12_000).map(Sent::numbered)).await;
    store.kill_member(primary);
    let killed = Instant::now();
    bed.publish_all((12_000..16_000).map(Sent::numbered)).await;
    drained(&bed, 16_000).await;
    println!("everything was stored {:?} after the primary was killed", killed.elapsed());
    worker.ready().await;
    bed.safe("15 step-down and SIGKILL of the primary", 16_000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    bed.clean().await;
}

#[tokio::test]
async fn row_24_the_worker_is_frozen() {
    let bed = Bed::new().await;
    bed.publish_all((0..20_000).map(Sent::numbered)).await;
    let mut worker = bed.worker_with(&SHORT).await;
    eventually("it is at work", SOON, async || bed.count().await > 100).await;
    worker.signal("STOP");
    tokio::time::sleep(scaled(6, 90)).await;
    worker.signal("CONT");
    drained(&bed, 20_000).await;
    worker.ready().await;
    bed.safe("24 worker frozen", 20_000, &[&worker]).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    bed.clean().await;
}

#[tokio::test]
async fn row_25_few_file_descriptors() {
    let bed = Bed::new().await;
    bed.publish_all((0..2000).map(Sent::numbered)).await;
    let mut worker = bed.worker_under("ulimit -n 24", &SHORT).await;
    // More connections than there are descriptors.
    let held: Vec<_> = (0..40).filter_map(|_| std::net::TcpStream::connect(worker.address()).ok()).collect();
    drained(&bed, 2000).await;
    drop(held);
    eventually("it answers again", SOON, async || worker.try_get("/readyz").is_some_and(|(code, _)| code == 200)).await;
    bed.safe("25 few file descriptors", 2000, &[&worker]).await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn row_25_large_messages_within_the_budget() {
    let bed = Bed::new().await;
    let pad = "x".repeat(12 << 20);
    for n in 0..24 {
        let body = format!("{{\"n\":{n},\"pad\":\"{pad}\"}}");
        bed.publish(&Sent::body(body).with(|properties| properties.with_message_id(format!("large-{n}").into()))).await;
    }
    let mut worker = bed.worker_with(&[("EVENT__MAX_BYTES", "16MiB")]).await;
    eventually("they are stored", SOON, async || bed.count().await == 24).await;
    worker.has_settled(24).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    let kib: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    println!("24 messages of 12 MiB, peak resident memory {kib} KiB");
    assert!(kib < 400 * 1024, "{kib} KiB");
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn row_26_four_workers_on_one_queue_killed_in_turn() {
    let bed = Bed::new().await;
    let count = 12_000;
    bed.publish_all((0..count).map(Sent::numbered)).await;
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(bed.worker().await);
    }
    for round in 0..8usize {
        tokio::time::sleep(Duration::from_millis(60)).await;
        workers[round % 4].kill();
        workers[round % 4] = bed.worker().await;
    }
    drained(&bed, count).await;
    let all: Vec<_> = workers.iter().collect();
    bed.safe("26 four workers killed in turn", count, &all).await;
    drop(workers);
    bed.clean().await;
}

#[tokio::test]
async fn row_27_nobody_reads_the_log() {
    let bed = Bed::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Opened for reading and writing, so that it never breaks; filled, and never read.
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap();
    const O_NONBLOCK: i32 = 0o4000;
    let mut full = open(O_NONBLOCK);
    while full.write(&[b'x'; 512]).is_ok() {}
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = bed.command();
    command.env("TICKETLOG_HTTP__LISTEN", &address).arg("run").stdout(open(0)).stderr(open(0));
    let mut child = command.spawn().unwrap();
    bed.publish_all((0..1000).map(Sent::numbered)).await;
    for n in 0..20 {
        bed.publish(&Sent::body(format!("nonsense {n}"))).await;
    }
    eventually("events are stored", SOON, async || bed.count().await == 1000).await;
    bed.settled_depth(&bed.dead_queue(), 20).await;
    crate::harness::signal("TERM", child.id());
    let mut ended = None;
    eventually("it ends", SOON, async || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert_eq!(ended.unwrap().code(), Some(0));
    bed.take_all(&bed.dead_queue()).await;
    bed.safe("27 nobody reads the log", 1000, &[]).await;
    bed.clean().await;
}
