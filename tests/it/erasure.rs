//! `ticketlog erase`: everything of one user goes, and nothing of others; by a login with the least rights.

use lapin::BasicProperties;

use crate::harness::{TestEnv, TestMessage, access_control, server_uri};

/// Events of two users, and letters of both; one letter is not JSON.
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
        let output = env.command().args(["erase", "--user"]).args(arguments).output().unwrap();
        let text = [output.stdout.clone(), output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, out, all) = erase(&["42", "--dry-run"]);
    assert_eq!((code, out.as_str()), (0, "found: 2 documents, 2 dead letters and 1 parked\n"), "{all}");
    assert!(all.contains("1 dead letter cannot be searched"), "{all}");
    let (code, _, text) = erase(&["42"]);
    assert!(code == 64 && text.contains("pass --yes"), "{text}");
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (4, 4), "nothing is erased yet");
    let arguments = ["42", "--yes", "--json", "--audit-file", audit.to_str().unwrap()];
    let (code, out, all) = erase(&arguments);
    let counts: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, counts), (0, serde_json::json!({ "documents": 2, "dead_letters": 2, "parked": 1 })), "{all}");
    let left = (env.count().await, env.depth(&env.dead_letter_queue()).await, env.depth(&env.parked_queue()).await);
    assert_eq!(left, (2, 2, 0));
    let lines = std::fs::read_to_string(&audit).unwrap();
    assert!(lines.contains("\"action\":\"erase\"") && lines.contains("\"documents\":2"), "{lines}");
    for line in lines.lines() {
        let mut said: serde_json::Value = serde_json::from_str(line).unwrap();
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
    let refused = run("ticketlogReader", &["erase", "--user", "42", "--yes"]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    let erased = run("ticketlogEraser", &["erase", "--user", "42", "--yes"]);
    assert!(erased.status.success(), "{erased:?}");
    admin_collection.insert_one(bson::doc! { "user_id": 43 }).await.unwrap();
    let followed = run("ticketlogReader", &["tail", "--since", "1min", "--where", "user_id=43", "--limit", "1"]);
    assert!(followed.status.success() && String::from_utf8_lossy(&followed.stdout).contains("43"), "{followed:?}");
    let refused = run("ticketlogWorker", &["tail", "--limit", "1"]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    env.clean().await;
}
