//! The dead-letter desk under faults: killed midway, two at once, queues that would not survive a look, servers that are
//! not there.

use std::time::Duration;

use lapin::types::AMQPValue;

use crate::harness::{ACK, Act, Bed, DELIVER, Kind, Private, Proxy, SOON, What, eventually, kill};

/// Numbers of the events in a dead-letter queue, in its order.
async fn numbers(bed: &Bed) -> Vec<i64> {
    let all = bed.take_all(&bed.dead_queue()).await;
    let number = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap()["n"].as_i64().unwrap();
    all.iter().map(|message| number(&message.body)).collect()
}

#[tokio::test]
async fn a_desk_killed_while_it_looks_leaves_everything() {
    let bed = Bed::new().await;
    for kind in ["quorum", "classic"] {
        bed.dead_queue_of(kind, &[]).await;
        bed.bury_good(3000).await;
        for round in 0..4 {
            let looking = bed.desk_started(&["list"]);
            eventually("it holds some", SOON, async || bed.depth(&bed.dead_queue()).await < 3000).await;
            tokio::time::sleep(Duration::from_millis(round * 11)).await;
            kill(looking);
            bed.settled_depth(&bed.dead_queue(), 3000).await;
        }
        let mut found = numbers(&bed).await;
        if kind == "quorum" {
            // What was put back before changes places when the next look is killed: see docs/dead-letters.md.
            found.sort_unstable();
        }
        assert!(found.into_iter().eq(0..3000), "{kind}");
    }
    bed.clean().await;
}

#[tokio::test]
async fn a_replay_killed_again_and_again_loses_nothing_and_stores_nothing_twice() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    bed.bury_good(3000).await;
    let mut killed = 0;
    for round in 1..=7u64 {
        let mut replaying = bed.desk_started(&["replay", "--yes", "--rate", "1500"]);
        eventually("some have arrived", SOON, async || {
            bed.count().await >= round * 350 || replaying.try_wait().unwrap().is_some()
        })
        .await;
        killed += u64::from(replaying.try_wait().unwrap().is_none());
        kill(replaying);
    }
    let mut last = 0;
    eventually("all are stored", SOON, async || {
        last += bed.desk_does(&["replay", "--yes", "--json"]).await.json()[0]["replayed"].as_u64().unwrap();
        bed.count().await >= 3000 && bed.depth(&bed.dead_queue()).await == 0
    })
    .await;
    println!("killed {killed} times; the last replays took {last}");
    assert!(killed >= 3 && last > 0 && last < 3000);
    bed.settled_depth(&bed.queue(), 0).await;
    bed.assert_exactly(3000).await;
    drop(worker);
    bed.clean().await;
}

#[tokio::test]
async fn a_still_bad_message_without_identity_is_one_event_however_often_it_dies() {
    let bed = Bed::new().await;
    let strict = [("BATCH__LINGER", "1ms"), ("EVENT__MAX_DEPTH", "1")];
    let mut worker = bed.worker_with(&strict).await;
    let letter = (b"{\"a\":{}}".to_vec(), lapin::BasicProperties::default());
    bed.bury([(letter.0, letter.1.with_headers(bed.headers("id-first", "too_deep", 1)))]).await;
    // As if a replay had been killed between confirm and ack: one copy is dead again, and the letter is still there.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("letter");
    bed.desk_does(&["export", file.to_str().unwrap()]).await;
    bed.desk_does(&["replay", "--yes"]).await;
    worker.has_settled(1).await;
    bed.desk_does(&["import", file.to_str().unwrap()]).await;
    bed.settled_depth(&bed.dead_queue(), 2).await;
    worker.stop().await;
    let mut mended = bed.worker().await;
    bed.desk_does(&["replay", "--yes"]).await;
    mended.has_settled(2).await;
    assert_eq!((bed.count().await, mended.settled("duplicate")), (1, 1));
    mended.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn a_purge_killed_midway_has_everything_in_the_file_or_in_the_queue() {
    let bed = Bed::new().await;
    bed.bury_good(6000).await;
    let directory = tempfile::tempdir().unwrap();
    let mut killed = 0;
    for round in 0..3 {
        let file = directory.path().join(format!("{round}.ndjson"));
        let lines = || std::fs::read_to_string(&file).map_or(0, |text| text.lines().count());
        let mut purging = bed.desk_started(&["purge", "--yes", "--backup", file.to_str().unwrap()]);
        // The first in its first window, the others when some windows must have left the queue.
        eventually("it writes", SOON, async || lines() > round * 1500).await;
        killed += usize::from(purging.try_wait().unwrap().is_none());
        kill(purging);
    }
    assert!(killed > 0);
    // What the broker gives back after a kill is countable when the next desk has the lock.
    bed.desk_does(&["stats"]).await;
    let mut all = numbers(&bed).await;
    println!("{} of 6000 still in the queue", all.len());
    assert!(all.len() < 6000);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        // A kill may cut the last line; its message is in the queue.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let body: serde_json::Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
            all.push(body["n"].as_i64().unwrap());
        }
    }
    all.sort_unstable();
    all.dedup();
    assert!(all.into_iter().eq(0..6000));
    bed.clean().await;
}

#[tokio::test]
async fn a_replay_whose_connections_are_lost_loses_nothing() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    bed.bury_good(3000).await;
    for (what, act) in [
        (What::Received(ACK.0, ACK.1), Act::CutBefore),
        (What::Sent(ACK.0, ACK.1), Act::CutBefore),
        (What::Sent(ACK.0, ACK.1), Act::CutWithin),
        (What::Received(DELIVER.0, DELIVER.1), Act::CutWithin),
    ] {
        let proxy = Proxy::before(&bed.broker_uri);
        proxy.at(what, act, 40, 1);
        let uri = format!("broker.uri={}", proxy.through(&bed.broker_uri));
        let said = bed.desk(&["replay", "--yes", "--json", "--rate", "2000", "--set", &uri]).await;
        assert_eq!((said.code, proxy.hits()), (Some(69), 1), "{said:?}");
        assert!(said.json()[0]["replayed"].as_u64().unwrap() < 3000);
    }
    // What a lost connection held comes back when the broker gets to it.
    eventually("all are stored", SOON, async || {
        bed.desk_does(&["replay", "--yes"]).await;
        bed.count().await >= 3000 && bed.depth(&bed.dead_queue()).await == 0
    })
    .await;
    bed.settled_depth(&bed.queue(), 0).await;
    bed.assert_exactly(3000).await;
    drop(worker);
    bed.clean().await;
}

#[tokio::test]
async fn two_desks_at_once_replay_each_message_once() {
    let bed = Bed::new().await;
    bed.bury_good(1000).await;
    let first = bed.desk(&["replay", "--yes", "--json", "--rate", "300"]);
    let second = async {
        eventually("the first is at work", SOON, async || bed.depth(&bed.queue()).await > 0).await;
        let impatient = bed.desk(&["stats", "--wait", "1ms"]).await;
        (impatient, bed.desk(&["stats", "--json"]).await, bed.desk(&["replay", "--yes", "--json"]).await)
    };
    let (first, (impatient, stats, second)) = tokio::join!(first, second);
    assert_eq!((&first.json()[0]["replayed"], &second.json()[0]["replayed"]), (&1000.into(), &0.into()));
    assert_eq!((&stats.json()[0]["count"], impatient.code), (&0.into(), Some(75)), "{impatient:?}");
    assert!(stats.err.contains("another desk is at work"), "{stats:?}");
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
    let limit = |limit: i64| ("x-delivery-limit", AMQPValue::LongLongInt(limit));
    let length = ("x-max-length", AMQPValue::LongLongInt(100_000));
    for (arguments, refused) in [
        (vec![limit(3), length.clone()], true),
        (vec![limit(150)], true),
        (vec![limit(50_000)], false),
        (vec![length.clone()], false),
    ] {
        bed.dead_queue_of("quorum", &arguments).await;
        bed.bury_good(50).await;
        for _ in 0..6 {
            let said = bed.desk(&["stats"]).await;
            assert_eq!(said.code == Some(69), refused, "{arguments:?}: {said:?}");
            assert!(!refused || said.err.contains("delivery limit is"), "{said:?}");
        }
        bed.settled_depth(&bed.dead_queue(), 50).await;
    }
    bed.clean().await;
}

#[tokio::test]
async fn a_message_near_the_end_of_its_lives_stops_the_desk() {
    let bed = Bed::new().await;
    bed.dead_queue_of("quorum", &[("x-delivery-limit", AMQPValue::LongLongInt(1000))]).await;
    bed.bury_good(1).await;
    for _ in 0..501 {
        let get = bed.channel.basic_get(bed.dead_queue().into(), Default::default()).await.unwrap().unwrap();
        get.delivery.acker.nack(lapin::options::BasicNackOptions { multiple: false, requeue: true }).await.unwrap();
    }
    let mut worn = false;
    for _ in 0..3 {
        let said = bed.desk(&["list"]).await;
        worn |= said.code == Some(69) && said.err.contains("given out");
    }
    assert!(worn);
    bed.settled_depth(&bed.dead_queue(), 1).await;
    bed.desk_does(&["park", "--trust-queue"]).await;
    bed.desk_does(&["unpark"]).await;
    assert_eq!(bed.desk_does(&["list"]).await.out.lines().count(), 1);
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
    assert!(blind.code == Some(69) && blind.err.contains("gives no answer"), "{blind:?}");
    bed.settled_depth(&bed.dead_queue(), 10).await;
}
