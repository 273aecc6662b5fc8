//! `ticketlog find`: the story of one event, wherever it is; an answer where it is nowhere, and where not all could be searched.

use std::process::{Command, Stdio};

use bson::{Document, doc};
use serde_json::{Value, json};

use crate::harness::{CommandOutput, DEADLINE, TestEnv, TestMessage, access_control, eventually};
use crate::terminal::in_terminal;

/// A time that an event may have.
const TIME: i64 = 1_795_316_400_000;

async fn run(mut command: Command, arguments: &[&str]) -> CommandOutput {
    command.arg("find").args(arguments).stdin(Stdio::null()).env("TICKETLOG_LOG__FILTER", "error");
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}

async fn find(env: &TestEnv, arguments: &[&str]) -> CommandOutput {
    run(env.operator_command(), arguments).await
}

/// The answer as JSON, with the exit code.
async fn answer(env: &TestEnv, arguments: &[&str]) -> (i32, Value) {
    let output = find(env, &[arguments, &["--json"]].concat()).await;
    let json = output.json();
    assert_eq!(json.len(), 1, "{output:?}");
    (output.code.unwrap(), json[0].clone())
}

fn whats(answer: &Value) -> Vec<&str> {
    answer["story"].as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect()
}

fn event(uuid: &str, rest: &str) -> TestMessage {
    let body = format!("{{\"uuid\":\"{uuid}\",\"user_id\":7,{rest}}}");
    TestMessage::body(body).with(|properties| properties.with_message_id(format!("m-{uuid}").into()))
}

#[tokio::test]
async fn the_story_goes_from_the_dead_letter_to_the_document() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    let traced = event("u-1", "\"timestamp\":\"yesterday\"");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = lapin::types::AMQPValue::LongString(format!("00-{trace}-00f067aa0ba902b7-01").into());
    let headers = std::collections::BTreeMap::from([("traceparent".into(), header)]);
    env.publish(&traced.with(|properties| properties.with_headers(headers.into()))).await;
    env.publish(&event("u-2", &format!("\"timestamp\":{TIME}"))).await;
    env.publish(&event("u-3", "\"timestamp\":[]")).await;
    worker.wait_until_settled(3).await;
    let ids = async || -> Vec<Value> {
        env.dead_command_succeeds(&["list", "--json"]).await.json().iter().map(|line| line["id"].clone()).collect()
    };
    let before = ids().await;
    let (code, found) = answer(&env, &["--uuid", "u-1"]).await;
    let dead = &found["story"][0];
    assert_eq!((code, whats(&found)), (0, vec!["dead_lettered"]), "{found}");
    assert_eq!((&dead["reason"], &dead["field"]), (&json!("invalid_field"), &json!("timestamp")));
    assert_eq!((&dead["trace_id"], &dead["message_id"]), (&json!(trace), &json!("m-u-1")));
    let (code, stored) = answer(&env, &["--uuid", "u-2", "--user", "7"]).await;
    assert_eq!((code, whats(&stored), &stored["story"][0]["event_time"]), (0, vec!["stored"], &json!(TIME)));
    assert_eq!(stored["story"][0]["document"], Value::Null, "a body only where it is asked for");
    assert_eq!(ids().await, before, "the queue is as it was");
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.ndjson");
    let file = audit.to_str().unwrap();
    let change = async |arguments: &[&str]| {
        env.dead_command_succeeds(&[arguments, &["--message-id", "m-u-1", "--audit-file", file]].concat()).await;
    };
    change(&["park"]).await;
    let (code, parked) = answer(&env, &["--message-id", "m-u-1", "--audit", file]).await;
    assert_eq!((code, whats(&parked)), (0, vec!["dead_lettered", "parked"]), "{parked}");
    assert_eq!(parked["story"][0]["parked"], true);
    change(&["unpark"]).await;
    let edit = format!(".timestamp = {TIME}");
    change(&["replay", "--yes", "--no-backup", "--edit", &edit]).await;
    worker.wait_until_settled(4).await;
    let (code, edited) = answer(&env, &["--uuid", "u-1", "--audit", file]).await;
    assert_eq!((code, whats(&edited)), (0, vec!["parked", "unparked", "edited", "stored"]), "{edited}");
    let (by, stored) = (&edited["story"][2], &edited["story"][3]);
    assert!(by["who"].as_str().unwrap().contains("uid ") && by["_id"] == stored["_id"], "{edited}");
    let purge = ["purge", "--yes", "--no-backup", "--message-id", "m-u-3", "--audit-file", file];
    let id = ids().await[0].as_str().unwrap().to_owned();
    env.dead_command_succeeds(&purge).await;
    let (code, deleted) = answer(&env, &["--id", &id, "--audit", file]).await;
    assert_eq!((code, whats(&deleted)), (0, vec!["purged"]), "{deleted}");
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn not_found_says_what_that_means() {
    let env = TestEnv::new().await;
    let unreadable = [("id-1", "{\"uuid\":\"cut-off-1\",\"user_id\""), ("id-2", "user_id=7")];
    let dead_letters = unreadable.map(|(id, body)| {
        let headers = env.headers(id, "invalid_json", 1);
        (body.as_bytes().to_vec(), lapin::BasicProperties::default().with_headers(headers))
    });
    env.publish_dead_letters(dead_letters).await;
    let none = find(&env, &["--uuid", "nothing"]).await;
    assert_eq!(none.code, Some(1), "{none:?}");
    let first = "not found: it is not stored, and whether it is dead-lettered is not known; no message waits";
    assert!(none.out.starts_with(first) && none.out.contains("2 dead letters may be it"), "{none:?}");
    assert!(none.out.contains("\nnext: look at the dead letters that may be it") && !none.out.contains("confirmed"));
    env.publish_all((0..3).map(TestMessage::numbered)).await;
    let waiting = find(&env, &["--uuid", "nothing"]).await;
    assert!(waiting.code == Some(1) && waiting.out.contains("; 3 messages wait for the workers"), "{waiting:?}");
    let (code, by_text) = answer(&env, &["--uuid", "cut-off-1"]).await;
    assert_eq!((code, &by_text["story"][0]["by_text"], &by_text["waiting"]), (0, &json!(true), &json!(3)));
    let (code, user) = answer(&env, &["--user", "7", "--since", "2h"]).await;
    assert_eq!((code, &user["undecided"]["dead_letters"]), (1, &json!(0)), "both are older: {user}");
    let left_out = find(&env, &["--uuid", "cut-off-1", "--no-dead-letters"]).await;
    assert!(left_out.code == Some(1) && left_out.out.starts_with("not found: it is not stored, and"), "{left_out:?}");
    assert!(left_out.out.contains("dead-lettered is not known; 3 messages wait"), "{left_out:?}");
    let by_message = find(&env, &["--message-id", "m-1"]).await;
    assert!(by_message.code == Some(1) && by_message.out.contains("documents do not have the message_id"));
    for wrong in [&["--scan"][..], &[], &["--id", "12"], &["--uuid", ""], &["--uuid", "x", "--limit", "0"]] {
        assert_eq!(find(&env, wrong).await.code, Some(64), "{wrong:?}");
    }
    let missing = find(&env, &["--uuid", "x", "--audit", "/no/such/file"]).await;
    assert!(missing.code == Some(66) && missing.err.contains("/no/such/file cannot be read"), "{missing:?}");
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 2);
    env.clean().await;
}

#[tokio::test]
async fn not_found_where_all_was_searched_and_what_workers_hold_is_not_known() {
    let env = TestEnv::new().await;
    let uuid = "6fe2b0de-4f7c-4a10-a64b-3bd5cbf6ef0a";
    env.collection.insert_one(doc! { "uuid": uuid, "timestamp": TIME }).await.unwrap();
    let none = find(&env, &["--uuid", "nothing"]).await;
    let first = "not found: neither stored nor dead-lettered; no message waits for the workers, but how many they hold";
    assert!(none.code == Some(1) && none.out.starts_with(first), "{none:?}");
    assert!(none.out.contains("\nnext: run this again when the workers have settled"), "{none:?}");
    assert_eq!(answer(&env, &["--uuid", &uuid.to_uppercase()]).await.0, 0, "a UUID in upper case");
    env.collection.drop().await.unwrap();
    let missing = find(&env, &["--uuid", uuid]).await;
    assert!(missing.out.contains("not searched: collection log: it does not exist"), "{missing:?}");
    assert!(missing.code == Some(1) && missing.out.contains("whether it is stored is not known"), "{missing:?}");
    assert_eq!(find(&env, &["--uuid", uuid, "--scan"]).await.out, missing.out);
    env.clean().await;
}

#[tokio::test]
async fn an_id_that_was_rounded_is_found_as_probable() {
    let env = TestEnv::new().await;
    let (id, double) = ("1234567890123456789", 1_234_567_890_123_456_768.0);
    env.collection.insert_one(doc! { "uuid": "u-1", "user_id": double, "timestamp": TIME }).await.unwrap();
    env.collection.insert_one(doc! { "uuid": "u-2", "user_id": double as i64, "timestamp": TIME }).await.unwrap();
    let (code, probable) = answer(&env, &["--user", id]).await;
    let found: Vec<_> = probable["story"].as_array().unwrap().iter().map(|entry| &entry["rounded"]).collect();
    assert_eq!((code, found), (0, vec![&json!(true)]), "another integer is another user: {probable}");
    env.collection.insert_one(doc! { "uuid": "u-3", "user_id": double as i64 + 21, "timestamp": TIME }).await.unwrap();
    let text = find(&env, &["--user", id]).await;
    assert_eq!((text.out.matches("stored in log").count(), text.out.matches("    probably: ").count()), (2, 1));
    assert_eq!(answer(&env, &["--user", "1234567890123456768"]).await.1["story"].as_array().unwrap().len(), 2);
    env.clean().await;
}

#[tokio::test]
async fn exactly_this_event_is_stored_or_not() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    let sent = event("u-1", &format!("\"timestamp\":{TIME}"));
    env.publish(&sent).await;
    worker.wait_until_settled(1).await;
    worker.stop().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, body: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, body).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let body = path("body", &sent.body);
    let (code, exact) = answer(&env, &["--message-id", "m-u-1", "--with-body", &body]).await;
    let id = env.documents().await[0].get_object_id("_id").unwrap().to_hex();
    assert_eq!((code, &exact["exactly"][0]["stored"], &exact["exactly"][0]["_id"]), (0, &json!(true), &json!(id)));
    let (code, other) = answer(&env, &["--message-id", "m-u-2", "--with-body", &body]).await;
    assert_eq!((code, &other["exactly"][0]["stored"]), (1, &json!(false)), "{other}");
    let since = ["--message-id", "m-u-1", "--with-body", &body, "--since", "2h", "--user", "9"];
    let (code, older) = answer(&env, &since).await;
    assert_eq!((code, &older["exactly"][0]["stored"]), (0, &json!(true)), "whatever else is asked: {older}");
    let (code, unnamed) = answer(&env, &["--with-body", &body]).await;
    assert_eq!((code, &unnamed["exactly"][0]["stored"], whats(&unnamed)), (0, &Value::Null, vec!["stored"]));
    assert!(unnamed["exactly"][0]["text"].as_str().unwrap().contains("add --message-id"), "{unnamed}");
    let audit = path("audit", b"");
    let line = |state: &str, more: Value| {
        let mut line =
            json!({ "operation": "0e".repeat(12), "state": state, "action": "replay", "queue": "q", "who": "anna" });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    let dead_letter = "0a".repeat(12);
    let named = json!({ "ids": { "edited": [dead_letter] }, "documents": { dead_letter.clone(): id } });
    std::fs::write(&audit, line("begun", json!({})) + &line("progress", named)).unwrap();
    env.collection.delete_many(doc! {}).await.unwrap();
    let waiting = ["--message-id", "m-u-1", "--with-body", &body, "--audit", &audit];
    let (code, waiting) = answer(&env, &waiting).await;
    assert_eq!((code, whats(&waiting)), (0, vec!["edited"]), "the replay is not stored yet: {waiting}");
    let mut worker = env.worker().await;
    env.publish(&sent).await;
    worker.wait_until_settled(1).await;
    worker.stop().await;
    env.collection.update_one(doc! {}, doc! { "$set": { "user_id": 8 } }).await.unwrap();
    let conflict = find(&env, &["--message-id", "m-u-1", "--with-body", &body]).await;
    assert!(conflict.code == Some(0) && conflict.out.contains("under which another event is stored"), "{conflict:?}");
    let bad = path("bad", b"{\"timestamp\":\"x\"}");
    let bad = find(&env, &["--message-id", "m", "--with-body", &bad]).await;
    assert!(bad.code == Some(1) && bad.out.contains("a worker does not store it in log: invalid_field timestamp:"));
    env.clean().await;
}

#[tokio::test]
async fn what_was_erased_is_counted_and_not_named() {
    let env = TestEnv::new().await;
    env.collection.insert_one(doc! { "uuid": "u-1", "user_id": 7 }).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.ndjson");
    let erase = ["erase", "--user", "7", "--yes", "--audit-file", audit.to_str().unwrap()];
    assert!(env.operator_command().args(erase).output().unwrap().status.success());
    let erased = find(&env, &["--uuid", "u-1", "--audit", audit.to_str().unwrap()]).await;
    assert_eq!(erased.code, Some(1), "{erased:?}");
    assert!(erased.out.contains("1 erasure in the audit files deleted 1 event: they do not say whose"), "{erased:?}");
    env.clean().await;
}

#[tokio::test]
async fn without_an_index_it_asks_for_a_scan() {
    let env = TestEnv::new().await;
    env.collection.insert_one(doc! { "uuid": "u-1", "user_id": 7, "timestamp": TIME }).await.unwrap();
    for (index, by) in [("uuid_1", ["--uuid", "u-1"]), ("user_id_1_timestamp_-1", ["--user", "7"])] {
        assert_eq!(answer(&env, &by).await.0, 0);
        env.collection.drop_index(index).await.unwrap();
        let refused = find(&env, &by).await;
        assert!(refused.code == Some(64) && refused.out.contains("no index begins with u"), "{refused:?}");
        assert!(refused.out.contains("`ticketlog setup` creates it; --scan reads them"), "{refused:?}");
        assert_eq!(answer(&env, &[&by[..], &["--scan"]].concat()).await.0, 0);
    }
    let id = env.documents().await[0].get_object_id("_id").unwrap().to_hex();
    assert_eq!(answer(&env, &["--id", &id]).await.0, 0, "_id always has one");
    env.clean().await;
}

#[tokio::test]
async fn a_server_that_is_down_is_one_clear_answer() {
    let env = TestEnv::new().await;
    env.collection.insert_one(doc! { "uuid": "u-1", "timestamp": TIME }).await.unwrap();
    let with = async |settings: &[(&str, &str)], uuid: &str| {
        let mut command = env.operator_command();
        command.envs(settings.iter().map(|(name, value)| (format!("TICKETLOG_{name}"), value)));
        run(command, &["--uuid", uuid]).await
    };
    let broker = [("BROKER__URI", "amqp://127.0.0.1:1"), ("OPERATOR__BROKER_URI", "amqp://127.0.0.1:1")];
    let store = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500";
    let store = [("STORE__URI", store), ("OPERATOR__STORE_URI", store)];
    let found = with(&broker, "u-1").await;
    assert!(
        found.code == Some(0) && found.out.contains("stored in log") && found.out.contains("RabbitMQ"),
        "{found:?}"
    );
    for (settings, place) in [(&broker[..], "RabbitMQ"), (&store, "MongoDB"), (&[broker, store].concat(), "RabbitMQ")] {
        let unknown = with(settings, "u-2").await;
        assert!(unknown.code == Some(69) && unknown.out.contains(&format!("not searched: {place}: ")), "{unknown:?}");
        assert!(!unknown.out.contains("neither stored nor dead-lettered"), "{unknown:?}");
        assert_eq!(unknown.out.matches("not searched: ").count(), settings.len() / 2, "{unknown:?}");
        assert!(unknown.out.contains("\nnext: search what was not searched"), "{unknown:?}");
    }
    env.clean().await;
}

#[tokio::test]
async fn hidden_fields_stay_hidden() {
    let env = TestEnv::new().await;
    let hidden = [
        ("TICKETLOG_EVENT__DROP", "card"),
        ("TICKETLOG_EVENT__MASK", "uuid"),
        ("TICKETLOG_EVENT__MASK_KEY", "0123456789abcdef"),
    ];
    let settings = hidden.map(|(name, value)| (name.trim_start_matches("TICKETLOG_"), value));
    let mut worker = env.worker_with(&settings).await;
    env.publish(&event("u-1", "\"card\":\"4111\",\"kept\":1")).await;
    env.publish(&event("u-1", "\"card\":\"4111\",\"kept\":1,\"timestamp\":\"x\"")).await;
    env.publish(&TestMessage::body("{\"uuid\":\"u-1\",\"card\":\"4111\"")).await;
    worker.wait_until_settled(3).await;
    worker.stop().await;
    for form in [&["--body"][..], &["--body", "--json"]] {
        let mut command = env.operator_command();
        command.envs(hidden);
        let found = run(command, &[&["--uuid", "u-1"], form].concat()).await;
        assert!(found.code == Some(0) && !found.out.contains("4111"), "{found:?}");
        assert!(found.out.contains("kept") && found.out.contains("card (not stored)"), "{found:?}");
        assert_eq!((found.out.matches("hmac-sha256:").count(), found.out.matches("not shown, ").count()), (2, 1));
    }
    let older = doc! { "uuid": "u-9", "card": "4111", "kept": 1, "timestamp": TIME };
    env.collection.insert_one(older).await.unwrap();
    let mut command = env.operator_command();
    command.envs(hidden);
    let found = run(command, &["--uuid", "u-9", "--body"]).await;
    assert!(found.code == Some(0) && !found.out.contains("4111") && found.out.contains("kept"), "{found:?}");
    assert!(found.out.contains("card (stored all the same, not shown), uuid (stored in clear"), "{found:?}");
    env.clean().await;
}

#[tokio::test]
async fn all_routes_are_searched() {
    let env = TestEnv::new().await;
    let queue = format!("{}.refresh", env.name);
    let route = format!("{{ queue = {queue:?}, routing_keys = [\"refresh.#\"], collection = \"refresh\" }}");
    let command = || {
        let mut command = env.operator_command();
        command.env("TICKETLOG_ROUTE__REFRESH", &route);
        command
    };
    let mut setup = env.command();
    assert!(setup.env("TICKETLOG_ROUTE__REFRESH", &route).arg("setup").output().unwrap().status.success());
    let refresh = env.client.database(&env.name).collection::<Document>("refresh");
    refresh.insert_one(doc! { "uuid": "u-1", "timestamp": TIME }).await.unwrap();
    env.collection.insert_one(doc! { "uuid": "u-1", "timestamp": TIME - 1 }).await.unwrap();
    let found = run(command(), &["--uuid", "u-1", "--json"]).await;
    let stored: Vec<_> = found.json()[0]["story"].as_array().unwrap().iter().map(|e| e["collection"].clone()).collect();
    assert_eq!((found.code, stored), (Some(0), vec![json!("log"), json!("refresh")]), "{found:?}");
    let one = run(command(), &["--uuid", "u-1", "--json", "--route", "refresh"]).await;
    assert_eq!(whats(&one.json()[0]).len(), 1, "{one:?}");
    for suffix in ["", ".dead", ".parked"] {
        let _ = env.channel.queue_delete(format!("{queue}{suffix}").into(), Default::default()).await;
    }
    env.clean().await;
}

/// In a terminal, with the logins of deploy/.
#[tokio::test]
async fn the_logins_with_the_least_rights_are_enough() {
    let (broker, management) = access_control::broker_with_management();
    let (store, admin) = access_control::store().await;
    access_control::roles(&admin, "cache", "bytemark_tickets_log").await;
    let collection = admin.database("cache").collection::<Document>("bytemark_tickets_log");
    let index = mongodb::IndexModel::builder().keys(doc! { "uuid": 1 }).build();
    collection.create_index(index).await.unwrap();
    collection.insert_one(doc! { "uuid": "u-1", "timestamp": TIME }).await.unwrap();
    let command = |user: &str, role: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let broker = broker.uri().replace("guest:guest", &format!("{user}:{user}-secret"));
        command.env_remove("RUST_MIN_STACK").env("TICKETLOG_OPERATOR__BROKER_URI", broker);
        command.env("TICKETLOG_OPERATOR__STORE_URI", access_control::as_user(&store, role, "cache"));
        command
    };
    for role in ["ticketlogReader", "ticketlogEraser"] {
        let mut command = command("ticketlog-desk", role);
        let (code, found) = in_terminal(command.args(["find", "--uuid", "u-1"]), "").await;
        assert!(code == 0 && found.contains("stored in bytemark_tickets_log\n    _id "), "{found}");
        assert!(!found.contains("not searched") && found.lines().all(|line| line.chars().count() <= 80), "{found}");
    }
    let publishing = broker.uri().replace("guest:guest", "tickets-publisher:tickets-publisher-secret");
    let mut publish = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
    publish.env_remove("RUST_MIN_STACK").env("TICKETLOG_BROKER__URI", publishing);
    assert!(publish.args(["publish", "--generate", "2"]).output().unwrap().status.success());
    // As a worker whose store is slow does. RabbitMQ 4.2.6 and newer show this login the queue by the management API alone, and no version
    // what is held; some seconds later.
    let holder = lapin::Connection::connect(&broker.uri(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = holder.create_channel().await.unwrap();
    for _ in 0..2 {
        let held = channel.basic_get("bytemark.tickets.log".into(), Default::default()).await.unwrap();
        assert!(held.is_some());
    }
    eventually("it says how many wait", DEADLINE, async || {
        let arguments = ["--uuid", "u-1", "--management", &management];
        run(command("ticketlog-desk", "ticketlogReader"), &arguments)
            .await
            .out
            .contains("2 messages wait for the workers and nobody can search these")
    })
    .await;
    let refused = run(command("ticketlog-desk", "ticketlogSetup"), &["--uuid", "u-1"]).await;
    assert!(refused.code == Some(77) && refused.out.contains("operator.store_uri is not authorized"), "{refused:?}");
    let refused = run(command("tickets-publisher", "ticketlogReader"), &["--uuid", "u-2"]).await;
    assert!(
        refused.code == Some(77) && refused.out.contains("lists the permissions that each login needs"),
        "{refused:?}"
    );
}
