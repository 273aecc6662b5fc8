//! The dead-letter desk under faults: killed midway, two at once, queues that would not survive a look, servers that are
//! not there.

use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::harness::{Bed, Kind, Private, SOON, Sent, eventually, kill};

/// A delay that is different in every round and covers a command from its start to its end.
fn moment(round: u64) -> Duration {
    Duration::from_millis(30 + round * 37 % 260)
}

#[tokio::test]
async fn a_desk_killed_while_it_looks_leaves_everything() {
    let bed = Bed::new().await;
    bed.bury_good(3000).await;
    for round in 0..6 {
        let looking = bed.desk_started(&["list"]);
        tokio::time::sleep(moment(round)).await;
        kill(looking);
    }
    bed.settled_depth(&bed.dead_queue(), 3000).await;
    let mut seen: Vec<_> = bed.take_all(&bed.dead_queue()).await.into_iter().map(|message| message.body).collect();
    let mut expected: Vec<Vec<u8>> = (0..3000).map(|n| Sent::numbered(n).body).collect();
    seen.sort();
    expected.sort();
    assert!(seen == expected);
    bed.clean().await;
}

#[tokio::test]
async fn a_replay_killed_again_and_again_loses_nothing_and_stores_nothing_twice() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    bed.bury_good(3000).await;
    for round in 0..8 {
        let replaying = bed.desk_started(&["replay", "--yes", "--rate", "12000"]);
        tokio::time::sleep(moment(round)).await;
        kill(replaying);
    }
    let last = bed.desk_does(&["replay", "--yes", "--json"]).await;
    println!("the last of nine replays took {}", last.json()[0]["replayed"]);
    eventually("all are stored", SOON, async || bed.count().await == 3000).await;
    bed.settled_depth(&bed.dead_queue(), 0).await;
    bed.settled_depth(&bed.queue(), 0).await;
    bed.assert_exactly(3000).await;
    drop(worker);
    bed.clean().await;
}

#[tokio::test]
async fn a_purge_killed_midway_has_everything_in_the_file_or_in_the_queue() {
    let bed = Bed::new().await;
    bed.bury_good(3000).await;
    let directory = tempfile::tempdir().unwrap();
    for round in 0..5u64 {
        let file = directory.path().join(format!("{round}.ndjson"));
        let purging = bed.desk_started(&["purge", "--yes", "--backup", file.to_str().unwrap()]);
        tokio::time::sleep(moment(round + 1)).await;
        kill(purging);
    }
    // What the broker gives back after a kill is countable when the next desk has the lock.
    bed.desk_does(&["stats"]).await;
    let mut bodies: Vec<Vec<u8>> =
        bed.take_all(&bed.dead_queue()).await.into_iter().map(|message| message.body).collect();
    println!("{} of 3000 still in the queue", bodies.len());
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        // A kill may cut the last line; its message is in the queue.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            bodies.push(line["body"].as_str().unwrap().as_bytes().to_vec());
        }
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 3000);
    bed.clean().await;
}

#[tokio::test]
async fn two_desks_at_once_replay_each_message_once() {
    let bed = Bed::new().await;
    bed.bury_good(1000).await;
    let first = bed.desk(&["replay", "--yes", "--json", "--rate", "2000"]);
    let second = bed.desk(&["replay", "--yes", "--json"]);
    let third = bed.desk(&["stats", "--json"]);
    let (first, second, third) = tokio::join!(first, second, third);
    let replayed = |said: &crate::harness::Said| said.json()[0]["replayed"].as_u64().unwrap();
    assert_eq!(replayed(&first) + replayed(&second), 1000, "{first:?} {second:?}");
    assert_eq!(third.code, Some(0));
    assert_eq!(bed.depth(&bed.queue()).await, 1000);
    let worker = bed.worker().await;
    worker.has_settled(1000).await;
    assert_eq!(worker.settled("stored"), 1000);
    bed.assert_exactly(1000).await;
    bed.clean().await;
}

#[tokio::test]
async fn what_dies_again_during_its_replay_is_not_taken_twice() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    let letter = |n: i32| {
        let properties = lapin::BasicProperties::default().with_message_id(format!("m-{n}").into());
        (
            format!("nonsense {n}").into_bytes(),
            properties.with_headers(bed.headers(&format!("id-{n}"), "invalid_json", n)),
        )
    };
    bed.bury((0..600).map(letter)).await;
    let said = bed.desk_does(&["replay", "--yes", "--json", "--rate", "800"]).await;
    assert_eq!(said.json()[0]["replayed"], 600);
    worker.has_settled(600).await;
    let dead = bed.desk_does(&["list", "--json"]).await.json();
    assert_eq!((dead.len(), dead.iter().all(|dead| dead["replays"] == 1)), (600, true));
    bed.clean().await;
}

#[tokio::test]
async fn a_queue_that_would_not_survive_a_look_is_left_alone() {
    let bed = Bed::new().await;
    for (limit, refused) in [(Some(3), true), (Some(500), false), (None, false)] {
        bed.channel.queue_delete(bed.dead_queue().into(), QueueDeleteOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(100_000));
        if let Some(limit) = limit {
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
        }
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        bed.channel.queue_declare(bed.dead_queue().into(), options, arguments).await.unwrap();
        bed.bury_good(50).await;
        for _ in 0..6 {
            let said = bed.desk(&["stats"]).await;
            assert_eq!(said.code == Some(69), refused, "{limit:?}: {said:?}");
            assert!(!refused || said.err.contains("delivery limit is 3"), "{said:?}");
        }
        bed.settled_depth(&bed.dead_queue(), 50).await;
    }
    bed.clean().await;
}

#[tokio::test]
async fn a_message_near_the_end_of_its_lives_stops_the_desk() {
    let bed = Bed::new().await;
    bed.channel.queue_delete(bed.dead_queue().into(), QueueDeleteOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(100));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    bed.channel.queue_declare(bed.dead_queue().into(), options, arguments).await.unwrap();
    bed.bury_good(3).await;
    for _ in 0..50 {
        let get = bed.channel.basic_get(bed.dead_queue().into(), Default::default()).await.unwrap().unwrap();
        get.delivery.acker.nack(lapin::options::BasicNackOptions { multiple: false, requeue: true }).await.unwrap();
    }
    eventually("a message is worn", SOON, async || {
        let said = bed.desk(&["list"]).await;
        assert!(said.code == Some(0) || said.err.contains("given out"), "{said:?}");
        said.code == Some(69)
    })
    .await;
    bed.settled_depth(&bed.dead_queue(), 3).await;
    bed.clean().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_in_one_line() {
    let bed = Bed::new().await;
    let wrong = bed.broker_uri.replacen("guest:guest", "guest:secret-password", 1);
    for (arguments, code, expected) in [
        (&["list", "--queue", "no.such.queue"][..], 69, "no queue 'no.such.queue'"),
        (&["list", "--set", "broker.uri=amqp://127.0.0.1:9"], 69, "cannot be reached"),
        (&["stats", "--set", &format!("broker.uri={wrong}")], 77, "refuses the user or the password"),
        (&["list", "--reason", "nonsense"], 64, "the reasons are empty_body, "),
        (&["list", "--since", "yesterday"], 64, "2h"),
        (&["replay"], 64, "--yes"),
        (&["replay", "--yes", "--queue", &bed.parked_queue()], 64, "unpark"),
        (&["purge"], 64, "--yes"),
        (&["park", "--audit-file", "/no/such/folder/file"], 73, "/no/such/folder/file"),
    ] {
        bed.bury_good(1).await;
        let said = bed.desk(arguments).await;
        assert_eq!(said.code, Some(code), "{arguments:?}: {said:?}");
        assert!(said.err.contains(expected) && !said.err.contains("secret-password"), "{arguments:?}: {said:?}");
    }
    bed.settled_depth(&bed.dead_queue(), 9).await;
    bed.clean().await;
}

#[tokio::test]
async fn a_policy_with_a_delivery_limit_is_found_where_the_management_api_answers() {
    let broker = Private::prepared(Kind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].").unwrap();
        let listener = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {}\n", port + 3);
        std::fs::write(directory.join("extra.conf"), listener).unwrap();
    });
    let bed = Bed::with_broker(&broker).await;
    bed.bury_good(10).await;
    let management = format!("http://127.0.0.1:{}", broker.port() + 3);
    let asking = ["stats", "--management", &management];
    let said = bed.desk_does(&asking).await;
    assert_eq!(said.err, "", "nothing is left in the dark");
    broker.ctl(&["set_policy", "limit", ".*dead$", "{\"delivery-limit\": 5}", "--apply-to", "queues"]);
    for _ in 0..8 {
        let said = bed.desk(&asking).await;
        assert!(said.code == Some(69) && said.err.contains("delivery limit is 5"), "{said:?}");
    }
    let blind = bed.desk(&["stats", "--management", "http://127.0.0.1:9"]).await;
    assert!(blind.code == Some(0) && blind.err.contains("a policy may set"), "{blind:?}");
    bed.settled_depth(&bed.dead_queue(), 10).await;
}
