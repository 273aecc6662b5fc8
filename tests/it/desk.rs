//! The dead-letter desk as operators use it, against a real broker: looking, selecting, mending, replaying, and the way
//! back through the worker.

use std::os::unix::fs::PermissionsExt as _;

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use lapin::types::AMQPValue;

use crate::harness::{Bed, SOON, Sent, eventually};

fn bodies(seen: &[crate::harness::Seen]) -> Vec<String> {
    seen.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

#[tokio::test]
async fn looking_changes_nothing_not_even_the_order() {
    let bed = Bed::new().await;
    for kind in ["quorum", "classic"] {
        bed.dead_queue_of(kind, &[]).await;
        bed.bury_good(700).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.ndjson");
        bed.desk_does(&["stats"]).await;
        let listed = bed.desk_does(&["list"]).await;
        assert_eq!(listed.out.lines().count(), 700);
        bed.desk_does(&["list", "--limit", "7"]).await;
        assert_eq!(bed.desk_does(&["list", "--where", "n=77", "--json"]).await.json()[0]["position"], 78);
        bed.desk_does(&["show", "id-300"]).await;
        bed.desk_does(&["export", file.to_str().unwrap(), "--limit", "100"]).await;
        bed.desk_does(&["replay", "--dry-run", "--limit", "33"]).await;
        assert_eq!(bed.desk_does(&["list"]).await.out, listed.out, "{kind}: the order");
        let seen = bed.take_all(&bed.dead_queue()).await;
        let expected: Vec<Vec<u8>> = (0..700).map(|n| Sent::numbered(n).body).collect();
        assert!(seen.iter().map(|message| &message.body).eq(&expected), "{kind}");
        assert_eq!(seen[1].properties.message_id().as_ref().unwrap().as_str(), "m-1");
        assert_eq!(seen[3].properties.headers().clone().unwrap(), bed.headers("id-3", "rejected_by_store", 3));
    }
    bed.clean().await;
}

#[tokio::test]
async fn a_replay_takes_what_it_is_asked_for_and_tells_what_became_of_it() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    bed.bury_good(2000).await;
    let bad = Sent::body("{\"user_id\":[1]}").with(|properties| properties.with_message_id("bad".into()));
    bed.bury([(bad.body, bad.properties.with_headers(bed.headers("id-bad", "invalid_field", 1)))]).await;
    let address = format!("http://{}", worker.address());
    let audit = tempfile::NamedTempFile::new().unwrap();
    let file = audit.path().to_str().unwrap();
    let follow = ["--yes", "--follow", "--status", &address, "--json", "--audit-file", file];
    let select = |more: &[&'static str]| -> Vec<String> {
        ["replay"].iter().chain(&follow).chain(more).map(|text| (*text).to_owned()).collect()
    };
    let run = async |more: &[&'static str]| {
        let arguments = select(more);
        bed.desk(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let said = run(&["--where", "n=7", "--where", "user_id=7"]).await;
    assert_eq!((said.code, said.json()[0]["outcome"]["stored"].as_u64()), (Some(0), Some(1)), "{said:?}");
    let said = run(&["--message-id", "m-10", "--message-id", "m-11", "--message-id", "m-1999"]).await;
    assert_eq!((said.code, said.json()[0]["replayed"].as_u64()), (Some(0), Some(3)), "{said:?}");
    bed.settled_depth(&bed.dead_queue(), 1997).await;
    // A message that is stored already, and one that is still bad.
    let again = Sent::numbered(10);
    bed.bury([(again.body, again.properties.with_headers(bed.headers("id-again", "invalid_field", 1)))]).await;
    let said = run(&["--reason", "invalid_field"]).await;
    let outcome = &said.json()[0]["outcome"];
    assert_eq!((said.code, outcome["duplicate"].as_u64()), (Some(65), Some(1)), "{said:?}");
    assert_eq!(outcome["dead_again"], serde_json::json!({ "invalid_field user_id": 1 }));
    let dead = bed.desk_does(&["list", "--json", "--replayed-at-least", "1"]).await.json();
    let replay = said.json()[0]["replay_id"].clone();
    assert_eq!((dead.len(), &dead[0]["replays"], &dead[0]["replay_id"]), (1, &serde_json::json!(1), &replay));
    assert_eq!(
        (&dead[0]["exchange"], &dead[0]["routing_key"]),
        (&serde_json::json!(bed.name), &serde_json::json!("ticket.test"))
    );
    // Everything else, and twice more the bad one: then it has had its chances.
    run(&["--reason", "rejected_by_store"]).await;
    bed.assert_exactly(2000).await;
    for _ in 0..2 {
        run(&["--reason", "invalid_field"]).await;
    }
    let said = run(&[]).await;
    assert_eq!(
        (said.code, said.json()[0]["parked"].as_u64(), said.json()[0]["replayed"].as_u64()),
        (Some(0), Some(1), Some(0))
    );
    assert_eq!(bed.depth(&bed.dead_queue()).await, 0);
    let parked = bed.desk_does(&["list", "--parked", "--json"]).await.json();
    assert_eq!((parked.len(), parked[0]["replays"].as_u64(), parked[0]["id"] != "id-bad"), (1, Some(3), true));
    bed.desk_does(&["unpark"]).await;
    assert_eq!(bed.desk_does(&["list", "--json"]).await.json()[0]["replays"], 0);
    bed.desk_does(&["park", "--reason", "invalid_field"]).await;
    assert_eq!((bed.depth(&bed.parked_queue()).await, bed.depth(&bed.dead_queue()).await), (1, 0));
    let lines = std::fs::read_to_string(audit.path()).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 14, "each begun and done");
    assert_eq!((&lines[1]["outcome"]["replayed"], &lines[1]["filter"]["where"][1]), (&1.into(), &"user_id".into()));
    bed.clean().await;
}

#[tokio::test]
async fn nobody_else_can_make_a_message_look_replayed() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    let mut forged = bed.headers("forged", "invalid_json", 1).inner().clone();
    forged.insert("dl-replays".into(), AMQPValue::LongLongInt(9));
    forged.insert("dl-replay-id".into(), AMQPValue::LongString("r".into()));
    let headers = |properties: BasicProperties| properties.with_headers(forged.clone().into());
    // Two equal events without an identity are two events, whatever `dl-id` they claim.
    bed.publish(&Sent::body("{\"a\":1}").with(headers)).await;
    bed.publish(&Sent::body("{\"a\":1}").with(headers)).await;
    bed.publish(&Sent::body("nonsense").with(headers)).await;
    worker.has_settled(3).await;
    assert_eq!(bed.count().await, 2);
    let dead = bed.desk_does(&["list", "--json"]).await.json();
    assert_eq!((&dead[0]["replays"], &dead[0]["replay_id"]), (&0.into(), &serde_json::Value::Null));
    bed.clean().await;
}

#[tokio::test]
async fn what_the_broker_dead_lettered_by_itself_is_understood_and_replayed() {
    let bed = Bed::new().await;
    bed.publish(&Sent::numbered(0)).await;
    let got = bed.channel.basic_get(bed.queue().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    got.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    bed.settled_depth(&bed.dead_queue(), 1).await;
    let listed = bed.desk_does(&["list", "--json", "--reason", "delivery_limit"]).await.json();
    assert_eq!(listed[0]["detail"], "dead-lettered by the broker: rejected");
    bed.desk_does(&["park"]).await;
    bed.desk_does(&["unpark", "--reason", "delivery_limit", "--routing-key", "ticket.#"]).await;
    let _worker = bed.worker().await;
    bed.desk_does(&["replay", "--yes"]).await;
    eventually("it is stored", SOON, async || bed.count().await == 1).await;
    bed.assert_exactly(1).await;
    bed.clean().await;
}

#[tokio::test]
async fn bodies_are_mended_on_the_way_and_what_cannot_go_stays() {
    let bed = Bed::new().await;
    let mended = |n: i32| {
        let headers = bed.headers(&format!("id-{n}"), "invalid_json", n);
        let body = format!("{{'n':{n},'user_id':{},'text':'operation {n}','status':'success'}}", n % 97);
        (body.into_bytes(), BasicProperties::default().with_message_id(format!("m-{n}").into()).with_headers(headers))
    };
    bed.bury((0..20).map(mended)).await;
    let mut lost = bed.headers("id-lost", "too_deep", 1).inner().clone();
    lost.insert("dl-exchange".into(), AMQPValue::LongString("no.such.exchange".into()));
    let mut unbound = bed.headers("id-unbound", "too_deep", 1).inner().clone();
    unbound.insert("dl-routing-key".into(), AMQPValue::LongString("nobody.listens".into()));
    for headers in [lost, unbound] {
        bed.bury([(b"{}".to_vec(), BasicProperties::default().with_headers(headers.into()))]).await;
    }
    let _worker = bed.worker().await;
    let edit = ["--edit", "grep -v '.n.:13,' | tr \"'\" '\"'", "--reason", "invalid_json"];
    let dry = bed.desk_does(&[&["replay", "--dry-run", "--json"][..], &edit].concat()).await.json();
    assert_eq!((&dry[0]["accepted"], dry[0]["edit_failed"].as_object().unwrap().len()), (&19.into(), 1));
    let said = bed.desk(&[&["replay", "--yes", "--json"][..], &edit].concat()).await;
    assert_eq!((said.code, said.json()[0]["replayed"].as_u64()), (Some(65), Some(19)), "{said:?}");
    eventually("they are stored", SOON, async || bed.count().await == 19).await;
    let skipped = bed.desk(&["replay", "--yes", "--skip-bad", "--reason", "invalid_json", "--json"]).await;
    assert_eq!((skipped.code, &skipped.json()[0]["skipped"]["invalid_json"]), (Some(0), &1.into()));
    let said = bed.desk(&["replay", "--yes", "--reason", "too_deep"]).await;
    assert_eq!(said.code, Some(69), "{said:?}");
    assert!(said.err.contains("no.such.exchange") && said.err.contains("nobody.listens"), "{said:?}");
    bed.settled_depth(&bed.dead_queue(), 3).await;
    bed.desk_does(&["replay", "--yes", "--reason", "too_deep", "--to-queue", &bed.queue()]).await;
    eventually("they are stored as well", SOON, async || bed.count().await == 21).await;
    bed.clean().await;
}

#[tokio::test]
async fn archives_hold_everything_and_come_back_whole_or_not_at_all() {
    let bed = Bed::new().await;
    bed.bury_good(40).await;
    let odd = BasicProperties::default().with_priority(9).with_reply_to("r".into());
    bed.bury([(vec![0xff, 0, 0x1b], odd.with_headers(bed.headers("id-odd", "invalid_utf8", 1)))]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    bed.desk_does(&["export", &path("a")]).await;
    assert_eq!(std::fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bed.desk(&["export", &path("a")]).await.code, Some(73));
    let purged = bed.desk_does(&["purge", "--yes", "--backup", &path("b")]).await;
    assert!(purged.out.starts_with("41 dead letters purged"), "{purged:?}");
    let archive = std::fs::read_to_string(path("a")).unwrap();
    assert_eq!(std::fs::read_to_string(path("b")).unwrap(), archive);
    std::fs::write(path("broken"), archive.replacen("\"queue\"", "\"cue\"", 3)).unwrap();
    let broken = bed.desk(&["import", &path("broken")]).await;
    assert_eq!((broken.code, bed.depth(&bed.dead_queue()).await), (Some(65), 0));
    assert!(broken.err.contains("broken:1: unknown field `cue`") && broken.err.contains("3 of 41 lines"), "{broken:?}");
    bed.desk_does(&["import", &path("b")]).await;
    let seen = bed.take_all(&bed.dead_queue()).await;
    assert_eq!((seen.len(), &seen[40].body[..], seen[40].properties.priority()), (41, &[0xff, 0, 0x1b][..], &Some(9)));
    assert_eq!(
        bodies(&seen[..40]),
        (0..40).map(|n| String::from_utf8(Sent::numbered(n).body).unwrap()).collect::<Vec<_>>()
    );
    assert_eq!(bed.desk(&["import", "/no/such/file"]).await.code, Some(66));
    bed.clean().await;
}

#[tokio::test]
async fn hostile_bodies_are_shown_without_harm() {
    let bed = Bed::new().await;
    let escapes = "{\"a\":\"\x1b]0;owned\x07\x1b[2J\u{202e}\u{9b}31m\",\n\"user_id\": {}}";
    let properties = || BasicProperties::default().with_message_id("m\x1b[2J".into());
    let mut faulty = bed.headers("id-e", "invalid_field", 1).inner().clone();
    faulty.insert("dl-field".into(), AMQPValue::LongString("user_id".into()));
    for name in ["dl-fingerprint", "dl-routing-key", "dl-worker", "x\u{1b}[2J"] {
        faulty.insert(name.into(), AMQPValue::LongString("\u{1b}[2J\u{9b}31m".into()));
    }
    faulty.insert("dl-time".into(), AMQPValue::LongLongInt(i64::MIN));
    bed.bury([(escapes.as_bytes().to_vec(), properties().with_headers(faulty.into()))]).await;
    let bodies = [vec![0x1b; 3000], "x\u{1b}".repeat(4 << 20).into_bytes(), Vec::new()];
    for (n, body) in bodies.into_iter().enumerate() {
        bed.bury([(body, properties().with_headers(bed.headers(&format!("id-{n}"), "invalid_utf8", 1)))]).await;
    }
    let harmless = |said: &str| !said.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["show", "id-e", "--json"],
        &["show", "id-0", "--body", "hex"],
        &["show", "id-1"],
    ] {
        let said = bed.desk_does(arguments).await;
        assert!(harmless(&said.out) && said.out.len() < 40_000, "{arguments:?}: {}", said.out.len());
    }
    let shown = bed.desk_does(&["show", "id-e"]).await.out;
    let lines: Vec<&str> = shown.lines().collect();
    let mark = lines.iter().position(|line| line.trim() == "^").unwrap();
    assert_eq!(lines[mark - 1].find("{}"), lines[mark].find('^'), "{shown}");
    assert_eq!(bed.desk_does(&["show", "id-e", "--raw"]).await.out, escapes);
    assert_eq!(bed.desk(&["show", "no-such-id"]).await.code, Some(66));
    bed.clean().await;
}
