//! `ticketlog dead` under faults: killed midway, connections cut, two at once, queues whose delivery limit is too low
//! to browse them, missing servers and queues.

use std::time::Duration;

use lapin::types::AMQPValue;

use crate::harness::{
    ACK, Action, DEADLINE, DELIVER, DedicatedServer, Frame, HIGH_LIMIT, Proxy, ServerKind, TestEnv, TestMessage,
    Worker, eventually, first_of, kill,
};

/// Empties the dead-letter queue. Returns the numbers of its events, in its order.
async fn take_numbers(env: &TestEnv) -> Vec<i64> {
    let all = env.take_all_messages(&env.dead_letter_queue()).await;
    let number = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap()["n"].as_i64().unwrap();
    all.iter().map(|message| number(&message.body)).collect()
}

#[tokio::test]
async fn a_browser_killed_midway_loses_nothing() {
    let env = TestEnv::new().await;
    for (queue_type, arguments) in [("quorum", &[HIGH_LIMIT][..]), ("classic", &[])] {
        env.replace_dead_letter_queue(queue_type, arguments).await;
        env.publish_good_dead_letters(3000).await;
        for round in 0..4 {
            let browser = env.start_dead_command(&["list"]);
            eventually("it has taken some messages", DEADLINE, async || {
                env.depth(&env.dead_letter_queue()).await < 3000
            })
            .await;
            tokio::time::sleep(Duration::from_millis(round * 11)).await;
            kill(browser);
            env.wait_for_depth(&env.dead_letter_queue(), 3000).await;
        }
        let mut found = take_numbers(&env).await;
        if queue_type == "quorum" {
            // A killed browser can change the order of messages that were requeued before: see docs/operate/dead-letters.md.
            found.sort_unstable();
        }
        assert!(found.into_iter().eq(0..3000), "{queue_type}");
    }
    env.clean().await;
}

#[tokio::test]
async fn a_replay_killed_repeatedly_loses_nothing_and_stores_nothing_twice() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    env.publish_good_dead_letters(3000).await;
    let mut killed = 0;
    for round in 1..=7u64 {
        let mut replay = env.start_dead_command(&["replay", "--yes", "--rate", "1500"]);
        eventually("some events are stored", DEADLINE, async || {
            env.count().await >= round * 350 || replay.try_wait().unwrap().is_some()
        })
        .await;
        killed += u64::from(replay.try_wait().unwrap().is_none());
        kill(replay);
    }
    let mut replayed_at_last = 0;
    eventually("all are stored", DEADLINE, async || {
        replayed_at_last +=
            env.dead_command_succeeds(&["replay", "--yes", "--json"]).await.json()[0]["replayed"].as_u64().unwrap();
        env.count().await >= 3000 && env.depth(&env.dead_letter_queue()).await == 0
    })
    .await;
    println!("killed {killed} times; the last replays published {replayed_at_last}");
    assert!(killed >= 3 && replayed_at_last > 0 && replayed_at_last < 3000);
    env.wait_for_depth(&env.queue(), 0).await;
    env.assert_exactly(3000).await;
    drop(worker);
    env.clean().await;
}

#[tokio::test]
async fn a_message_without_identity_is_stored_once_however_often_it_is_dead_lettered() {
    let env = TestEnv::new().await;
    let strict = [("BATCH__LINGER", "1ms"), ("EVENT__MAX_DEPTH", "1")];
    let mut worker = env.worker_with(&strict).await;
    let dead_letter = (b"{\"a\":{}}".to_vec(), lapin::BasicProperties::default());
    env.publish_dead_letters([(dead_letter.0, dead_letter.1.with_headers(env.headers("id-first", "too_deep", 1)))])
        .await;
    // As if a replay had been killed between confirm and ack: the copy is dead-lettered again, and the original is
    // still in the dead-letter queue.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dead-letter");
    env.dead_command_succeeds(&["export", file.to_str().unwrap()]).await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    worker.wait_until_settled(1).await;
    env.dead_command_succeeds(&["import", file.to_str().unwrap()]).await;
    env.wait_for_depth(&env.dead_letter_queue(), 2).await;
    worker.stop().await;
    let mut lenient = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    lenient.wait_until_settled(2).await;
    assert_eq!((env.count().await, lenient.settled("duplicate")), (1, 1));
    lenient.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn a_purge_killed_midway_leaves_everything_in_the_file_or_in_the_queue() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(6000).await;
    let directory = tempfile::tempdir().unwrap();
    let mut killed = 0;
    for round in 0..3 {
        let file = directory.path().join(format!("{round}.ndjson"));
        let lines = || std::fs::read_to_string(&file).map_or(0, |text| text.lines().count());
        let mut purge = env.start_dead_command(&["purge", "--yes", "--backup", file.to_str().unwrap()]);
        // The first is killed soon after it begins to write, the others when they must have deleted messages.
        eventually("it writes the backup", DEADLINE, async || lines() > round * 1500).await;
        killed += usize::from(purge.try_wait().unwrap().is_none());
        kill(purge);
    }
    assert!(killed > 0);
    // `stats` waits for the lock of `ticketlog dead`; then the broker has requeued what the killed one had taken.
    env.dead_command_succeeds(&["stats"]).await;
    let mut all = take_numbers(&env).await;
    println!("{} of 6000 still in the queue", all.len());
    assert!(all.len() < 6000);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        // The kill may have cut the last line; its message is still in the queue.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let body: serde_json::Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
            all.push(body["n"].as_i64().unwrap());
        }
    }
    all.sort_unstable();
    all.dedup();
    assert!(all.into_iter().eq(0..6000));
    env.clean().await;
}

#[tokio::test]
async fn a_replay_whose_connections_are_cut_loses_nothing() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    env.publish_good_dead_letters(3000).await;
    for (frame, action) in [
        (Frame::FromBroker(ACK.0, ACK.1), Action::CutBefore),
        (Frame::FromClient(ACK.0, ACK.1), Action::CutBefore),
        (Frame::FromClient(ACK.0, ACK.1), Action::CutWithin),
        (Frame::FromBroker(DELIVER.0, DELIVER.1), Action::CutWithin),
    ] {
        let proxy = Proxy::in_front_of(&env.broker_uri);
        proxy.at(frame, action, 40, 1);
        let uri = format!("broker.uri={}", proxy.proxied_uri(&env.broker_uri));
        let output = env.dead_command(&["replay", "--yes", "--json", "--rate", "2000", "--set", &uri]).await;
        assert_eq!((output.code, proxy.times_triggered()), (Some(69), 1), "{output:?}");
        // Nothing is printed if it was cut before the first was sent.
        let replayed = output.json().first().map_or(0, |summary| summary["replayed"].as_u64().unwrap());
        assert!(replayed < 3000);
    }
    // The broker requeues what the lost connection had taken, after some time.
    eventually("all are stored", DEADLINE, async || {
        env.dead_command_succeeds(&["replay", "--yes"]).await;
        env.count().await >= 3000 && env.depth(&env.dead_letter_queue()).await == 0
    })
    .await;
    env.wait_for_depth(&env.queue(), 0).await;
    env.assert_exactly(3000).await;
    drop(worker);
    env.clean().await;
}

#[tokio::test]
async fn two_replays_at_once_replay_each_message_once() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(1000).await;
    let first = env.dead_command(&["replay", "--yes", "--json", "--rate", "300"]);
    let second = async {
        eventually("the first replay publishes", DEADLINE, async || env.depth(&env.queue()).await > 0).await;
        let no_wait = env.dead_command(&["stats", "--wait", "1ms"]).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let export = env.dead_command(&["export", file.path().to_str().unwrap(), "--wait", "1ms"]).await;
        assert_eq!(export.code, Some(73), "before it waits: {export:?}");
        (no_wait, env.dead_command(&["stats", "--json"]).await, env.dead_command(&["replay", "--yes", "--json"]).await)
    };
    let (first, (no_wait, stats, second)) = tokio::join!(first, second);
    assert_eq!((&first.json()[0]["replayed"], &second.json()[0]["replayed"]), (&1000.into(), &0.into()));
    assert_eq!((&stats.json()[0]["count"], no_wait.code), (&0.into(), Some(75)), "{no_wait:?}");
    assert!(stats.err.contains("another `ticketlog dead` uses"), "{stats:?}");
    assert_eq!(env.depth(&env.queue()).await, 1000);
    let worker = env.worker().await;
    worker.wait_until_settled(1000).await;
    assert_eq!(worker.settled("stored"), 1000);
    env.assert_exactly(1000).await;
    env.clean().await;
}

#[tokio::test]
async fn a_dead_letter_that_comes_back_during_a_replay_is_not_replayed_twice() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let dead_letter = |n: i32| {
        let properties = lapin::BasicProperties::default().with_message_id(format!("m-{n}").into());
        (
            format!("nonsense {n}").into_bytes(),
            properties.with_headers(env.headers(&format!("id-{n}"), "invalid_json", n)),
        )
    };
    env.publish_dead_letters((0..600).map(dead_letter)).await;
    let output = env.dead_command_succeeds(&["replay", "--yes", "--json", "--rate", "800"]).await;
    assert_eq!(output.json()[0]["replayed"], 600);
    worker.wait_until_settled(600).await;
    let dead = env.dead_command_succeeds(&["list", "--json"]).await.json();
    let replays: Vec<_> = dead.iter().map(|dead| dead["replays"].as_u64().unwrap()).collect();
    assert_eq!(replays, [1; 600]);
    env.clean().await;
}

/// A replay ends when it has read everything dead-lettered before it began, not after a fixed count, because more arrive meanwhile, at any
/// place of the queue.
#[tokio::test]
async fn a_replay_reads_every_dead_letter_that_was_there_when_it_began() {
    let env = TestEnv::new().await;
    let dead_letter = |name: &str, n: i32, time: AMQPValue, priority: u8| {
        let mut headers = env.headers(&format!("{name}-{n}"), "rejected_by_store", n).inner().clone();
        headers.insert("dl-time".into(), time);
        let properties = lapin::BasicProperties::default().with_message_id(format!("{name}-{n}").into());
        (TestMessage::numbered(n).body, properties.with_priority(priority).with_headers(headers.into()))
    };
    let now = || std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis();
    // The clock of the worker that wrote the last of these was ahead.
    let time = |n| AMQPValue::LongLongInt(if n < 299 { 1 } else { 4_000_000_000_000 });
    env.publish_dead_letters((0..300).map(|n| dead_letter("old", n, time(n), 0))).await;
    let mut replay = env.build_dead_command(&["replay", "--yes", "--json", "--rate", "200"]);
    let replay = replay.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it has begun", DEADLINE, async || env.depth(&env.queue()).await > 0).await;
    // These overtake the others on RabbitMQ 4.
    let later = AMQPValue::LongLongInt(now() as i64);
    env.publish_dead_letters((0..100).map(|n| dead_letter("later", n, later.clone(), 9))).await;
    let output = replay.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("\"replayed\":300"), "{text}");
    env.wait_for_depth(&env.dead_letter_queue(), 100).await;
    assert_eq!(env.depth(&env.queue()).await, 300);
    env.clean().await;
}

#[tokio::test]
async fn a_queue_with_a_low_delivery_limit_is_not_browsed() {
    let env = TestEnv::new().await;
    let limit = |limit: i64| ("x-delivery-limit", AMQPValue::LongLongInt(limit));
    let length = ("x-max-length", AMQPValue::LongLongInt(100_000));
    for (arguments, rejected) in [
        (vec![limit(3), length.clone()], true),
        (vec![limit(150)], true),
        (vec![limit(50_000)], false),
        // The default: 20 from 4.0 on, none before.
        (vec![length.clone()], env.broker_version().await >= (4, 0)),
    ] {
        env.replace_dead_letter_queue("quorum", &arguments).await;
        env.publish_good_dead_letters(50).await;
        for _ in 0..6 {
            let output = env.dead_command(&["stats"]).await;
            assert_eq!(output.code == Some(69), rejected, "{arguments:?}: {output:?}");
            assert!(!rejected || output.err.contains("delivery limit is"), "{output:?}");
        }
        env.wait_for_depth(&env.dead_letter_queue(), 50).await;
    }
    env.clean().await;
}

#[tokio::test]
async fn browsing_stops_at_a_message_near_its_delivery_limit() {
    let env = TestEnv::new().await;
    env.replace_dead_letter_queue("quorum", &[("x-delivery-limit", AMQPValue::LongLongInt(1000))]).await;
    env.publish_good_dead_letters(1).await;
    for _ in 0..501 {
        let get = env.channel.basic_get(env.dead_letter_queue().into(), Default::default()).await.unwrap().unwrap();
        // From 4.3 on, `nack` does not count.
        get.delivery.acker.reject(lapin::options::BasicRejectOptions { requeue: true }).await.unwrap();
    }
    let mut stopped = false;
    for _ in 0..3 {
        let output = env.dead_command(&["list"]).await;
        stopped |= output.code == Some(69) && output.err.contains("a message was delivered");
    }
    assert!(stopped);
    env.wait_for_depth(&env.dead_letter_queue(), 1).await;
    env.dead_command_succeeds(&["park", "--trust-queue"]).await;
    env.dead_command_succeeds(&["unpark"]).await;
    assert_eq!(env.dead_command_succeeds(&["list"]).await.out.lines().count(), 1);
    env.clean().await;
}

#[tokio::test]
async fn missing_things_are_reported_on_one_line() {
    let env = TestEnv::new().await;
    let wrong = first_of(&env.broker_uri).replacen("guest:guest", "guest:secret-password", 1);
    for (arguments, code, expected) in [
        (&["list", "--queue", "no.such.queue"][..], 69, "there is no queue no.such.queue"),
        (&["list", "--set", "broker.uri=amqp://127.0.0.1:9"], 69, "cannot be reached"),
        (&["stats", "--set", &format!("broker.uri={wrong}")], 77, "rejects the user name or the password"),
        (&["list", "--reason", "nonsense"], 64, "[possible values: invalid_property, "),
        (&["list", "--since", "yesterday"], 64, "2h"),
        (&["replay"], 64, "--yes"),
        (&["replay", "--yes", "--queue", &env.parked_queue()], 64, "unpark"),
        (&["purge"], 64, "--yes"),
        (&["park", "--audit-file", "/no/such/folder/file"], 73, "/no/such/folder/file"),
    ] {
        env.publish_good_dead_letters(1).await;
        let output = env.dead_command(arguments).await;
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.err.contains(expected) && !output.err.contains("secret-password"), "{arguments:?}: {output:?}");
    }
    env.wait_for_depth(&env.dead_letter_queue(), 9).await;
    env.clean().await;
}

#[tokio::test]
async fn a_policy_with_a_delivery_limit_is_found_by_the_management_api() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].").unwrap();
        let listener = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n", port + 3);
        std::fs::write(directory.join("extra.conf"), listener).unwrap();
    });
    let env = TestEnv::with_dedicated_broker(&broker).await;
    env.publish_good_dead_letters(10).await;
    let management = format!("http://127.0.0.1:{}", broker.port() + 3);
    let stats = ["stats", "--management", &management];
    let output = env.dead_command_succeeds(&stats).await;
    assert_eq!(output.err, "", "no warning that policies are unknown");
    broker.ctl(&["set_policy", "limit", ".*dead$", "{\"delivery-limit\": 5}", "--apply-to", "queues"]);
    for _ in 0..8 {
        let output = env.dead_command(&stats).await;
        assert!(output.code == Some(69) && output.err.contains("delivery limit is 5"), "{output:?}");
    }
    let unreachable = env.dead_command(&["stats", "--management", "http://127.0.0.1:9"]).await;
    assert!(
        unreachable.code == Some(69)
            && unreachable.err.contains("does not answer at http://127.0.0.1:9/: the connection is refused")
            && !unreachable.err.contains("--trust-queue"),
        "{unreachable:?}"
    );
    env.wait_for_depth(&env.dead_letter_queue(), 10).await;
}

#[tokio::test]
async fn a_policy_that_deletes_dead_letters_is_reported() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].").unwrap();
        let listener = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n", port + 3);
        std::fs::write(directory.join("extra.conf"), listener).unwrap();
    });
    let env = TestEnv::with_dedicated_broker(&broker).await;
    let management = format!("http://127.0.0.1:{}", broker.port() + 3);
    let removes = |worker: &Worker| worker.metrics()["ticketlog_queue_removes_messages{role=\"dead_letter\"}"];
    let start = async || env.worker_with(&[("BROKER__MANAGEMENT", &management)]).await;
    let mut worker = start().await;
    eventually("no policy removes dead letters", DEADLINE, async || removes(&worker) == 0.0).await;
    worker.wait_until_ready().await;
    assert_eq!(worker.get("/readyz"), (200, "ready\n".to_owned()));
    worker.stop().await;
    broker.ctl(&[
        "set_policy",
        "ttl",
        ".*dead$",
        "{\"message-ttl\": 600000, \"max-length\": 9}",
        "--apply-to",
        "queues",
    ]);
    let worker = start().await;
    eventually("the policy is found", DEADLINE, async || removes(&worker) == 1.0).await;
    worker.wait_until_ready().await;
    let (code, text) = worker.get("/readyz");
    let keys = "max-length = 9, message-ttl = 600000";
    assert!(code == 200 && text.contains("warning: a policy can delete") && text.contains(keys), "{text}");
    let check = env.command().args(["check", "--set", &format!("broker.management={management}")]).output().unwrap();
    let report = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.code() == Some(69) && report.contains(keys), "{report}");
}
