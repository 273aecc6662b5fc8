//! `ticketlog erase`: everything of one user goes, and nothing of others; by a login with the least rights.

use std::io::Write as _;

use bson::Bson;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::harness::{TestEnv, TestMessage, access_control, server_uri};

/// Events of two users, and dead letters of both; one of them is not JSON.
async fn with_two_users(env: &TestEnv) {
    let mut worker = env.worker_with(&[("EVENT__MAX_DEPTH", "2")]).await;
    let event = |user: &str, rest: &str| TestMessage::body(format!("{{\"user_id\":{user}{rest}}}"));
    for sent in [event("42", ""), event("\"42\"", ",\"n\":1"), event("420", ""), event("4", "")] {
        env.publish(&sent).await;
    }
    let too_deep = ",\"a\":{\"b\":{\"c\":1}}";
    for sent in
        [event("42", too_deep), event("\"42\"", too_deep), event("43", too_deep), TestMessage::body("user_id=42")]
    {
        env.publish(&sent).await;
    }
    worker.wait_until_settled(8).await;
    worker.stop().await;
    let headers = env.headers("parked", "too_deep", 1);
    let body = b"{\"user_id\":42,\"parked\":true}".to_vec();
    env.publish_dead_letters([(body, BasicProperties::default().with_headers(headers))]).await;
    env.dead_command_succeeds(&["park", "--id", "parked"]).await;
}

#[tokio::test]
async fn everything_of_one_user_is_erased_and_nothing_of_others() {
    let env = TestEnv::new().await;
    with_two_users(&env).await;
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.ndjson");
    let erase = |arguments: &[&str]| {
        let output = env.operator_command().args(["erase", "--user"]).args(arguments).output().unwrap();
        let text = [output.stdout.clone(), output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, out, all) = erase(&["42", "--dry-run"]);
    assert_eq!((code, out.as_str()), (0, "found: 2 documents, 2 dead letters and 1 parked\n"), "{all}");
    assert!(all.contains("1 dead letter may be anybody's") && all.contains("  invalid_json  in "), "{all}");
    let (code, _, text) = erase(&["42"]);
    assert!(code == 64 && text.contains("pass --yes"), "{text}");
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (4, 4), "nothing is erased yet");
    let arguments = ["42", "--yes", "--json", "--audit-file", audit.to_str().unwrap()];
    let (code, out, all) = erase(&arguments);
    let mut counts: Value = serde_json::from_str(&out).unwrap();
    let rest = counts.as_object_mut().unwrap().remove("left").unwrap();
    assert_eq!((code, counts), (0, json!({ "documents": 2, "dead_letters": 2, "parked": 1 })), "{all}");
    assert_eq!((&rest["documents"], &rest["dead_letters"], &rest["waiting"]), (&json!(0), &json!(0), &json!(0)));
    let undecided = &rest["undecided"];
    let (count, named) = (&undecided["dead_letters"], undecided["first"].as_array().unwrap());
    assert_eq!((count, named.len(), &named[0]["reason"]), (&json!(1), 1, &json!("invalid_json")), "{rest}");
    let left = (env.count().await, env.depth(&env.dead_letter_queue()).await, env.depth(&env.parked_queue()).await);
    assert_eq!(left, (2, 2, 0));
    let lines = std::fs::read_to_string(&audit).unwrap();
    assert!(lines.contains("\"action\":\"erase\"") && lines.contains("\"documents\":2"), "{lines}");
    for line in lines.lines() {
        let mut said: Value = serde_json::from_str(line).unwrap();
        // These have random digits.
        for key in ["time", "operation", "host"] {
            said.as_object_mut().unwrap().remove(key);
        }
        assert!(!said.to_string().contains("42"), "nobody reads who was erased: {line}");
    }
    assert_eq!(erase(&["42", "--dry-run"]).1, "found: 0 documents, 0 dead letters and 0 parked\n");
    env.clean().await;
}

#[tokio::test]
async fn ids_that_a_double_cannot_hold_are_compared_exactly() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    let ids = [
        "1234567890123456789",
        "1234567890123456768",
        "\"1234567890123456789\"",
        "18446744073709551615",
        "18446744073709551614",
        "-9223372036854775808",
        "42.0",
        "\" 42\"",
    ];
    env.publish_all(ids.map(|id| TestMessage::body(format!("{{\"user_id\":{id}}}")))).await;
    worker.wait_until_settled(ids.len() as u64).await;
    worker.stop().await;
    // What others than the worker store: a text, and an array of ids.
    for other in [bson::doc! { "user_id": "18446744073709551615" }, bson::doc! { "user_id": [42, 43] }] {
        env.collection.insert_one(other).await.unwrap();
    }
    let erase = |user: &str| {
        let output = env.operator_command().args(["erase", "--yes", "--json", "--user", user]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
        (counts["documents"].as_u64().unwrap(), counts["left"]["undecided"]["documents"].as_u64().unwrap())
    };
    assert_eq!(erase("1234567890123456789"), (1, 1), "one is exactly this, one was rounded");
    assert_eq!(erase("18446744073709551615"), (2, 0));
    assert_eq!(erase("-9223372036854775808"), (1, 0));
    assert_eq!(erase("42"), (2, 1), "the array may be of somebody else");
    let mut left: Vec<Bson> = env.documents().await.iter().map(|found| found.get("user_id").unwrap().clone()).collect();
    left.sort_by_key(ToString::to_string);
    let decimal = "18446744073709551614".parse().map(Bson::Decimal128).unwrap();
    let rounded = Bson::Double(1_234_567_890_123_456_768.0);
    let array = Bson::from(vec![Bson::from(42), Bson::from(43)]);
    let mut expected = [Bson::Int64(1_234_567_890_123_456_768), rounded, decimal, array];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(left, expected);
    env.clean().await;
}

#[tokio::test]
async fn texts_are_compared_byte_by_byte_whatever_the_collation() {
    let env = TestEnv::new().await;
    let collation = mongodb::options::Collation::builder()
        .locale("en".to_owned())
        .strength(mongodb::options::CollationStrength::Primary)
        .build();
    env.client.database(&env.name).create_collection("folded").collation(collation).await.unwrap();
    let folded = env.client.database(&env.name).collection("folded");
    folded.insert_many(["anna", "Anna", "ANNA"].map(|user| bson::doc! { "user_id": user })).await.unwrap();
    let mut command = env.command();
    command.env("TICKETLOG_STORE__COLLECTION", "folded").args(["erase", "--user", "Anna", "--yes"]);
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("erased: 1 document,"), "{output:?}");
    assert_eq!(folded.count_documents(bson::doc! {}).await.unwrap(), 2);
    env.clean().await;
}

#[tokio::test]
async fn a_dead_letter_is_erased_if_the_worker_would_store_it_under_the_user() {
    let env = TestEnv::new().await;
    let of = |user: &str| format!("{{\"user_id\":{user},\"e\":\"\\ud83d\"}}").into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&of("42")).unwrap();
    let plain = ["42.0", "4.2e1", "\" 42\"", "{\"_id\":42}", "420", "\"\"", "null"].map(|user| (of(user), ""));
    let others = [(gzip.finish().unwrap(), "gzip"), (b"[{\"user_id\":42}]".to_vec(), ""), (of("42"), "br")];
    let text = [(b"\"{\\\"user_id\\\":42}\"".to_vec(), ""), (of("[42]"), "")];
    let dead_letters = plain.into_iter().chain(others).chain(text).enumerate().map(|(n, (body, encoding))| {
        let headers = env.headers(&format!("id-{n}"), "rejected_by_store", 1);
        (body, BasicProperties::default().with_headers(headers).with_content_encoding(encoding.into()))
    });
    env.publish_dead_letters(dead_letters).await;
    let output = env.operator_command().args(["erase", "--user", "42", "--yes"]).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{err}");
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("erased: 0 documents, 5 dead letters and 0 parked"), "{err}");
    assert_eq!(lines.next(), Some("left: 4 dead letters may be the user's (named above)"));
    for named in
        ["id-8  not_an_object", "id-9  unsupported_encoding", "id-10  not_an_object", "id-11  invalid_field user_id"]
    {
        assert!(err.contains(named), "{named}: {err}");
    }
    let mut worker = env.worker().await;
    env.dead_command(&["replay", "--yes"]).await;
    worker.wait_until_settled(7).await;
    let users: Vec<Option<Bson>> = env.documents().await.iter().map(|found| found.get("user_id").cloned()).collect();
    assert!(users.len() == 3 && users.iter().flatten().all(|user| *user == Bson::Null || *user == Bson::Int32(420)));
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn the_roles_may_erase_and_follow_and_no_more() {
    let (store, admin) = access_control::store().await;
    let env = TestEnv::at(server_uri("TICKETLOG_BROKER__URI"), access_control::as_user(&store, "admin", "admin")).await;
    access_control::roles(&admin, &env.name, "log").await;
    let admin_collection = admin.database(&env.name).collection("log");
    admin_collection.insert_one(bson::doc! { "user_id": 42 }).await.unwrap();
    let run = |user: &str, arguments: &[&str]| {
        let mut command = env.command();
        command.env("TICKETLOG_STORE__URI", access_control::as_user(&store, user, &env.name)).args(arguments);
        command.output().unwrap()
    };
    assert!(env.command().arg("setup").output().unwrap().status.success());
    let headers = env.headers("id-1", "too_deep", 1);
    env.publish_dead_letters([(b"{\"user_id\":42}".to_vec(), BasicProperties::default().with_headers(headers))]).await;
    let refused = run("ticketlogReader", &["erase", "--user", "42", "--yes"]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    let out = String::from_utf8_lossy(&refused.stdout);
    assert_eq!(out, "erased: 0 documents, 1 dead letter and 0 parked\n", "what was erased before it failed");
    let erased = run("ticketlogEraser", &["erase", "--user", "42", "--yes"]);
    assert!(erased.status.success(), "{erased:?}");
    admin_collection.insert_one(bson::doc! { "user_id": 43 }).await.unwrap();
    let followed = run("ticketlogReader", &["tail", "--since", "10min", "--where", "user_id=43", "--limit", "1"]);
    assert!(followed.status.success() && String::from_utf8_lossy(&followed.stdout).contains("43"), "{followed:?}");
    let refused = run("ticketlogWorker", &["tail", "--limit", "1"]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    env.clean().await;
}
