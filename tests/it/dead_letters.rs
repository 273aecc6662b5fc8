//! `ticketlog dead` as operators use it, with real servers: browse, select, edit, replay, park, export, import and
//! purge; and what the worker does with replayed messages.

use std::os::unix::fs::PermissionsExt as _;

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::harness::{CommandOutput, DEADLINE, HIGH_LIMIT, QueuedMessage, TestEnv, TestMessage, eventually, under};

fn bodies(messages: &[QueuedMessage]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

#[tokio::test]
async fn browsing_changes_nothing_not_even_the_order() {
    let env = TestEnv::new().await;
    for (queue_type, arguments) in [("quorum", &[HIGH_LIMIT][..]), ("classic", &[])] {
        env.replace_dead_letter_queue(queue_type, arguments).await;
        env.publish_good_dead_letters(700).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.ndjson");
        env.dead_command_succeeds(&["stats"]).await;
        let listed = env.dead_command_succeeds(&["list"]).await;
        assert_eq!(listed.out.lines().count(), 700);
        env.dead_command_succeeds(&["list", "--limit", "7"]).await;
        assert_eq!(env.dead_command_succeeds(&["list", "--where", "n=77", "--json"]).await.json()[0]["position"], 78);
        env.dead_command_succeeds(&["show", "id-300"]).await;
        env.dead_command_succeeds(&["export", file.to_str().unwrap(), "--limit", "100"]).await;
        env.dead_command_succeeds(&["replay", "--dry-run", "--limit", "33"]).await;
        assert_eq!(env.dead_command_succeeds(&["list"]).await.out, listed.out, "{queue_type}: the order");
        let messages = env.take_all_messages(&env.dead_letter_queue()).await;
        let expected: Vec<Vec<u8>> = (0..700).map(|n| TestMessage::numbered(n).body).collect();
        assert!(messages.iter().map(|message| &message.body).eq(&expected), "{queue_type}");
        assert_eq!(messages[1].properties.message_id().as_ref().unwrap().as_str(), "m-1");
        let headers = messages[3].properties.headers().as_ref().unwrap().inner().clone();
        let own: std::collections::BTreeMap<_, _> =
            headers.into_iter().filter(|(name, _)| !name.as_str().starts_with("x-")).collect();
        assert_eq!(FieldTable::from(own), env.headers("id-3", "rejected_by_store", 3));
    }
    env.clean().await;
}

#[tokio::test]
async fn a_replay_sends_the_selected_dead_letters_and_reports_their_outcomes() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    env.publish_good_dead_letters(2000).await;
    let rejected = TestMessage::body("{\"user_id\":[1]}").with(|properties| properties.with_message_id("bad".into()));
    env.publish_dead_letters([(
        rejected.body,
        rejected.properties.with_headers(env.headers("id-bad", "invalid_field", 1)),
    )])
    .await;
    let address = format!("http://{}", worker.address());
    let audit = tempfile::NamedTempFile::new().unwrap();
    let file = audit.path().to_str().unwrap();
    let follow = ["--yes", "--follow", "--status", &address, "--json", "--audit-file", file];
    let select = |more: &[&'static str]| -> Vec<String> {
        ["replay"].iter().chain(&follow).chain(more).map(|text| (*text).to_owned()).collect()
    };
    let run = async |more: &[&'static str]| {
        let arguments = select(more);
        env.dead_command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let output = run(&["--where", "n=7", "--where", "user_id=7"]).await;
    assert_eq!((output.code, output.json()[0]["outcome"]["stored"].as_u64()), (Some(0), Some(1)), "{output:?}");
    let output = run(&["--message-id", "m-10", "--message-id", "m-11", "--message-id", "m-1999"]).await;
    assert_eq!((output.code, output.json()[0]["replayed"].as_u64()), (Some(0), Some(3)), "{output:?}");
    env.wait_for_depth(&env.dead_letter_queue(), 1997).await;
    // One event that is stored already, and one that is still rejected.
    let stored = TestMessage::numbered(10);
    env.publish_dead_letters([(
        stored.body,
        stored.properties.with_headers(env.headers("id-again", "invalid_field", 1)),
    )])
    .await;
    let output = run(&["--reason", "invalid_field"]).await;
    let outcome = &output.json()[0]["outcome"];
    assert_eq!((output.code, outcome["duplicate"].as_u64()), (Some(65), Some(1)), "{output:?}");
    assert_eq!(outcome["dead_lettered_again"], serde_json::json!({ "invalid_field user_id": 1 }));
    let dead = env.dead_command_succeeds(&["list", "--json", "--replayed-at-least", "1"]).await.json();
    let replay = output.json()[0]["replay_id"].clone();
    assert_eq!((dead.len(), &dead[0]["replays"], &dead[0]["replay_id"]), (1, &serde_json::json!(1), &replay));
    assert_eq!(
        (&dead[0]["exchange"], &dead[0]["routing_key"]),
        (&serde_json::json!(env.name), &serde_json::json!("ticket.test"))
    );
    // Replays everything else, and the rejected message twice more. After that, replay parks it.
    run(&["--reason", "rejected_by_store"]).await;
    env.assert_exactly(2000).await;
    for _ in 0..2 {
        run(&["--reason", "invalid_field"]).await;
    }
    let output = run(&[]).await;
    assert_eq!(
        (output.code, output.json()[0]["parked"].as_u64(), output.json()[0]["replayed"].as_u64()),
        (Some(0), Some(1), Some(0))
    );
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 0);
    let parked = env.dead_command_succeeds(&["list", "--parked", "--json"]).await.json();
    assert_eq!((parked.len(), parked[0]["replays"].as_u64(), parked[0]["id"] != "id-bad"), (1, Some(3), true));
    env.dead_command_succeeds(&["unpark"]).await;
    assert_eq!(env.dead_command_succeeds(&["list", "--json"]).await.json()[0]["replays"], 0);
    env.dead_command_succeeds(&["park", "--reason", "invalid_field"]).await;
    assert_eq!((env.depth(&env.parked_queue()).await, env.depth(&env.dead_letter_queue()).await), (1, 0));
    let lines = std::fs::read_to_string(audit.path()).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (named, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["state"] == "progress");
    for end in lines.iter().filter(|line| line["state"] == "done") {
        let of_operation = named.iter().filter(|line| line["operation"] == end["operation"]);
        let ids = of_operation.flat_map(|line| line["ids"].as_object().unwrap().values());
        let count = ["replayed", "parked"].map(|key| end["outcome"][key].as_u64().unwrap_or(0)).iter().sum::<u64>();
        assert_eq!(ids.map(|ids| ids.as_array().unwrap().len() as u64).sum::<u64>(), count, "{end}");
    }
    assert_eq!(lines.len(), 14, "a start and an end of each command");
    assert_eq!((&lines[1]["outcome"]["replayed"], &lines[1]["filter"]["where"][1]), (&1.into(), &"user_id".into()));
    env.clean().await;
}

#[tokio::test]
async fn forged_replay_headers_are_ignored() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let mut forged = env.headers("forged", "invalid_json", 1).inner().clone();
    forged.insert("dl-replays".into(), AMQPValue::LongLongInt(9));
    forged.insert("dl-replay-id".into(), AMQPValue::LongString("r".into()));
    let headers = |properties: BasicProperties| properties.with_headers(forged.clone().into());
    // Two equal events without an identity are two events, even if their `dl-id` headers are equal.
    env.publish(&TestMessage::body("{\"a\":1}").with(headers)).await;
    env.publish(&TestMessage::body("{\"a\":1}").with(headers)).await;
    env.publish(&TestMessage::body("nonsense").with(headers)).await;
    worker.wait_until_settled(3).await;
    assert_eq!(env.count().await, 2);
    let dead = env.dead_command_succeeds(&["list", "--json"]).await.json();
    assert_eq!((&dead[0]["replays"], &dead[0]["replay_id"]), (&0.into(), &serde_json::Value::Null));
    env.clean().await;
}

#[tokio::test]
async fn messages_dead_lettered_by_rabbitmq_are_shown_and_replayed() {
    let env = TestEnv::new().await;
    env.publish(&TestMessage::numbered(0)).await;
    let got = env.channel.basic_get(env.queue().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    got.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    env.wait_for_depth(&env.dead_letter_queue(), 1).await;
    let listed = env.dead_command_succeeds(&["list", "--json", "--reason", "rejected_by_client"]).await.json();
    assert_eq!(listed[0]["detail"], "dead-lettered by RabbitMQ: rejected");
    env.dead_command_succeeds(&["park"]).await;
    env.dead_command_succeeds(&["unpark", "--reason", "rejected_by_client", "--routing-key", "ticket.#"]).await;
    let _worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    eventually("it is stored", DEADLINE, async || env.count().await == 1).await;
    env.assert_exactly(1).await;
    env.clean().await;
}

#[tokio::test]
async fn edited_bodies_are_replayed_and_undeliverable_dead_letters_stay() {
    let env = TestEnv::new().await;
    let single_quoted = |n: i32| {
        let headers = env.headers(&format!("id-{n}"), "invalid_json", n);
        let body = format!("{{'n':{n},'user_id':{},'text':'operation {n}','status':'success'}}", n % 97);
        (body.into_bytes(), BasicProperties::default().with_message_id(format!("m-{n}").into()).with_headers(headers))
    };
    env.publish_dead_letters((0..20).map(single_quoted)).await;
    let mut no_exchange = env.headers("id-no-exchange", "too_deep", 1).inner().clone();
    no_exchange.insert("dl-exchange".into(), AMQPValue::LongString("no.such.exchange".into()));
    let mut unbound = env.headers("id-unbound", "too_deep", 1).inner().clone();
    unbound.insert("dl-routing-key".into(), AMQPValue::LongString("nobody.listens".into()));
    for headers in [no_exchange, unbound] {
        env.publish_dead_letters([(b"{}".to_vec(), BasicProperties::default().with_headers(headers.into()))]).await;
    }
    let _worker = env.worker().await;
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("originals").to_str().unwrap().to_owned();
    let edit = [
        "--edit",
        "gsub(\"'\"; \"\\\"\") | fromjson | if .n == 13 then error(\"unlucky\") else . end",
        "--backup",
        &backup,
        "--reason",
        "invalid_json",
    ];
    let bad_edit = ["replay", "--yes", "--edit", "{user_id: \"abc\"}", "--backup", &backup, "--reason", "invalid_json"];
    let refused = env.dead_command(&bad_edit).await;
    assert_eq!((refused.code, env.depth(&env.dead_letter_queue()).await), (Some(65), 22), "{refused:?}");
    let text = "id-0 stays in the queue: the edited body is rejected: invalid_field user_id";
    assert!(refused.err.contains(text) && !std::fs::exists(&backup).unwrap(), "{refused:?}");
    let dry = env.dead_command_succeeds(&[&["replay", "--dry-run", "--json"][..], &edit].concat()).await.json();
    assert_eq!((&dry[0]["accepted"], dry[0]["edit_failed"].as_object().unwrap().len()), (&19.into(), 1));
    let output = env.dead_command(&[&["replay", "--yes", "--json"][..], &edit].concat()).await;
    assert_eq!((output.code, output.json()[0]["replayed"].as_u64()), (Some(65), Some(19)), "{output:?}");
    eventually("they are stored", DEADLINE, async || env.count().await == 19).await;
    let originals = std::fs::read_to_string(&backup).unwrap();
    assert!(originals.lines().count() == 19 && originals.contains("{'n':12,"), "{originals}");
    let skipped = env.dead_command(&["replay", "--yes", "--skip-rejected", "--reason", "invalid_json", "--json"]).await;
    assert_eq!((skipped.code, &skipped.json()[0]["skipped"]["invalid_json"]), (Some(0), &1.into()));
    let output = env.dead_command(&["replay", "--yes", "--reason", "too_deep"]).await;
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.err.contains("no.such.exchange") && output.err.contains("nobody.listens"), "{output:?}");
    env.wait_for_depth(&env.dead_letter_queue(), 3).await;
    env.dead_command_succeeds(&["replay", "--yes", "--reason", "too_deep", "--to-queue", &env.queue()]).await;
    eventually("all are stored", DEADLINE, async || env.count().await == 21).await;
    env.clean().await;
}

/// A plain body with a wrong `content_encoding`: the edit changes nothing, but the message is sent without the property.
#[tokio::test]
async fn an_edit_removes_a_wrong_content_encoding_and_publish_declares_nothing() {
    let env = TestEnv::new().await;
    let properties = BasicProperties::default().with_content_encoding("br".into()).with_message_id("m".into());
    let headers = env.headers("id-br", "unsupported_encoding", 1);
    env.publish_dead_letters([(b"{\"n\":1}".to_vec(), properties.with_headers(headers))]).await;
    let _worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes", "--edit", ".", "--no-backup"]).await;
    eventually("it is stored", DEADLINE, async || env.count().await == 1).await;
    let missing = format!("broker.exchange={}.missing", env.name);
    let output = env.command().args(["publish", "--generate", "1", "--set", &missing]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not exist; correct broker.exchange"), "{output:?}");
    env.clean().await;
}

#[tokio::test]
async fn export_and_import_keep_everything_and_import_is_all_or_nothing() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(40).await;
    let odd = BasicProperties::default().with_priority(9).with_reply_to("r".into());
    env.publish_dead_letters([(vec![0xff, 0, 0x1b], odd.with_headers(env.headers("id-odd", "invalid_utf8", 1)))]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    env.dead_command_succeeds(&["export", &path("a")]).await;
    assert_eq!(std::fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(env.dead_command(&["export", &path("a")]).await.code, Some(73));
    let purged = env.dead_command_succeeds(&["purge", "--yes", "--backup", &path("b")]).await;
    assert!(purged.out.starts_with("41 dead letters purged"), "{purged:?}");
    let archive = std::fs::read_to_string(path("a")).unwrap();
    assert_eq!(std::fs::read_to_string(path("b")).unwrap(), archive);
    std::fs::write(path("broken"), archive.replacen("\"queue\"", "\"cue\"", 3)).unwrap();
    let broken = env.dead_command(&["import", &path("broken")]).await;
    assert_eq!((broken.code, env.depth(&env.dead_letter_queue()).await), (Some(65), 0));
    assert!(broken.err.contains("broken:1: unknown field `cue`") && broken.err.contains("3 of 41 lines"), "{broken:?}");
    let refused = ["import", &path("b"), "--queue", "no.such.queue", "--json", "--audit-file", &path("audit")];
    let refused = env.dead_command(&refused).await;
    assert_eq!((refused.code, &refused.json()[0]["refused"]), (Some(69), &41.into()), "{refused:?}");
    let why =
        "41 lines were refused; check that queue no.such.queue exists, is bound to exchange \"\", and is not full";
    assert!(refused.err.contains(why) && !refused.err.contains("--to-queue"), "{refused:?}");
    assert!(std::fs::read_to_string(path("audit")).unwrap().contains("\"refused\":41"));
    env.dead_command_succeeds(&["import", &path("b")]).await;
    let mut messages = env.take_all_messages(&env.dead_letter_queue()).await;
    // Quorum queues of 4.x deliver priorities above 4 first.
    let odd = messages.iter().position(|message| *message.properties.priority() == Some(9)).unwrap();
    assert_eq!((messages.len(), messages.remove(odd).body), (41, vec![0xff, 0, 0x1b]));
    assert_eq!(
        bodies(&messages),
        (0..40).map(|n| String::from_utf8(TestMessage::numbered(n).body).unwrap()).collect::<Vec<_>>()
    );
    assert_eq!(env.dead_command(&["import", "/no/such/file"]).await.code, Some(66));
    env.clean().await;
}

#[tokio::test]
async fn bodies_are_found_and_edited_as_the_worker_reads_them() {
    let env = TestEnv::new().await;
    let body = r#"{"user_id":42.0,"a":"\ud83d","z":-0,"n":12345678901234567890,"d":{"$oid":"zz"},"t":"x"}"#;
    let properties = BasicProperties::default().with_headers(env.headers("id-0", "rejected_by_store", 1));
    env.publish_dead_letters([(body.as_bytes().to_vec(), properties)]).await;
    for (condition, expected) in [
        ("user_id=42", 1),
        ("user_id=4.2e1", 1),
        ("user_id=43", 0),
        ("n=12345678901234567890", 1),
        ("n=12345678901234567891", 0),
        ("a=\u{fffd}", 1),
        ("d={\"$oid\":\"zz\"}", 1),
        ("d.$oid=zz", 1),
    ] {
        let listed = env.dead_command_succeeds(&["list", "--json", "--where", condition]).await;
        assert_eq!(listed.json().len(), expected, "{condition}");
    }
    let mut worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--where", "user_id=42", "--edit", ".t = \"y\"", "--no-backup", "--yes"])
        .await;
    worker.wait_until_settled(1).await;
    let stored = env.documents().await.remove(0);
    let text = |name: &str| stored.get_str(name).unwrap();
    assert_eq!((text("a"), text("t"), stored.get_f64("user_id").unwrap()), ("\u{fffd}", "y", 42.0));
    assert!(stored.get_f64("z").unwrap().is_sign_negative());
    assert_eq!(stored.get("n").unwrap().to_string(), "12345678901234567890");
    assert_eq!(stored.get_document("d").unwrap().get_str("$oid").unwrap(), "zz");
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn hostile_bodies_are_escaped() {
    let env = TestEnv::new().await;
    let escapes = "{\"a\":\"\x1b]0;owned\x07\x1b[2J\u{202e}\u{9b}31m\",\n\"user_id\": {}}";
    let properties = || BasicProperties::default().with_message_id("m\x1b[2J".into());
    let mut hostile = env.headers("id-e", "invalid_field", 1).inner().clone();
    hostile.insert("dl-field".into(), AMQPValue::LongString("user_id".into()));
    for name in ["dl-fingerprint", "dl-routing-key", "dl-worker", "x\u{1b}[2J"] {
        hostile.insert(name.into(), AMQPValue::LongString("\u{1b}[2J\u{9b}31m".into()));
    }
    hostile.insert("dl-time".into(), AMQPValue::LongLongInt(i64::MIN));
    env.publish_dead_letters([(escapes.as_bytes().to_vec(), properties().with_headers(hostile.into()))]).await;
    let bodies = [vec![0x1b; 3000], "x\u{1b}".repeat(4 << 20).into_bytes(), Vec::new()];
    for (n, body) in bodies.into_iter().enumerate() {
        env.publish_dead_letters([(
            body,
            properties().with_headers(env.headers(&format!("id-{n}"), "invalid_utf8", 1)),
        )])
        .await;
    }
    let is_harmless = |output: &str| !output.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["show", "id-e", "--json"],
        &["show", "id-0", "--body", "hex"],
        &["show", "id-1"],
    ] {
        let output = env.dead_command_succeeds(arguments).await;
        assert!(is_harmless(&output.out) && output.out.len() < 40_000, "{arguments:?}: {}", output.out.len());
    }
    let shown = env.dead_command_succeeds(&["show", "id-e"]).await.out;
    let lines: Vec<&str> = shown.lines().collect();
    let caret = lines.iter().position(|line| line.trim() == "^").unwrap();
    assert_eq!(lines[caret - 1].find("{}"), lines[caret].find('^'), "{shown}");
    assert_eq!(env.dead_command_succeeds(&["show", "id-e", "--raw"]).await.out, escapes);
    assert_eq!(env.dead_command(&["show", "no-such-id"]).await.code, Some(66));
    env.clean().await;
}

#[tokio::test]
async fn list_and_stats_name_publishers_and_routing_keys() {
    let env = TestEnv::new().await;
    let dead_letter = |(n, app_id): (i32, Option<&str>)| {
        let headers = env.headers(&format!("id-{n}"), "not_an_object", n);
        let properties = BasicProperties::default().with_message_id(format!("m-{n}").into()).with_headers(headers);
        (b"[]".to_vec(), app_id.map_or(properties.clone(), |name| properties.with_app_id(name.into())))
    };
    env.publish_dead_letters([(1, Some("shop")), (2, None), (3, Some("shop"))].map(dead_letter)).await;
    let listed = env.dead_command_succeeds(&["list", "--json"]).await.json();
    let named: Vec<_> = listed.iter().map(|line| (line["publisher"].as_str(), line["message_id"].as_str())).collect();
    assert_eq!(named, [(Some("shop"), Some("m-1")), (None, Some("m-2")), (Some("shop"), Some("m-3"))]);
    let lines = env.dead_command_succeeds(&["list"]).await.out;
    let last: Vec<_> = lines.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    assert_eq!(last, ["shop", "-", "shop"]);
    let stats = env.dead_command_succeeds(&["stats", "--json"]).await.json().remove(0);
    assert_eq!(stats["by_publisher"], serde_json::json!({ "shop": 2, "unknown": 1 }));
    assert_eq!(stats["by_routing_key"], serde_json::json!({ "ticket.test": 3 }));
    let text = env.dead_command_succeeds(&["stats"]).await.out;
    assert!(text.contains("       2  shop\n       1  unknown\n") && text.contains("       3  ticket.test\n"), "{text}");
    env.clean().await;
}

#[tokio::test]
async fn an_audit_file_without_room_stops_nothing_and_this_is_said() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(600).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let file = path.to_str().unwrap();
    let park = env.build_dead_command(&["park", "--reason", "rejected_by_store", "--audit-file", file]);
    // One or two KiB, depending on the shell: enough for the beginning, and for a part of the first line with ids.
    let mut park = under("trap '' XFSZ; ulimit -f 2", &park);
    let parked: CommandOutput = tokio::task::spawn_blocking(move || park.output().unwrap().into()).await.unwrap();
    assert!(parked.code == Some(0) && parked.err.contains("does not name all dead letters"), "{parked:?}");
    env.wait_for_depth(&env.parked_queue(), 600).await;
    env.dead_command_succeeds(&["unpark", "--audit-file", file]).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Option<serde_json::Value>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().filter(|line| line.is_none()).count() <= 1, "only the line without room is cut off: {text}");
    let named = |line: &serde_json::Value| line["ids"]["unparked"].as_array().map_or(0, Vec::len);
    assert_eq!(lines.iter().flatten().map(named).sum::<usize>(), 600);
    assert_eq!(lines.last().unwrap().as_ref().unwrap()["state"], "done");
    env.clean().await;
}
