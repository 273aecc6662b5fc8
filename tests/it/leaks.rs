//! Nothing private leaves the process: its output at every log level, its metrics and its dead-letter headers must not
//! contain the secrets and payload markers of these tests.

use std::process::Command;

use bson::doc;

use crate::harness::{TestEnv, TestMessage};

const CANARY: &str = "canary-4711";

/// Also: in the text format, every event is one line that begins with its time.
#[tokio::test]
async fn no_log_level_shows_secrets_of_the_servers() {
    let env = TestEnv::new().await;
    let host = |uri: &str| uri.rsplit('@').next().unwrap().trim_start_matches("mongodb://").to_owned();
    let broker = format!("amqp://nobody:{CANARY}@{}", host(&env.broker_uri));
    let store = format!("mongodb://nobody:{CANARY}@{}", host(&env.store_uri));
    for (broker, store) in [(env.broker_uri.as_str(), store.as_str()), (&broker, &env.store_uri)] {
        let settings =
            [("LOG__FILTER", "trace"), ("LOG__FORMAT", "text"), ("BROKER__URI", broker), ("STORE__URI", store)];
        let mut worker = env.worker_with(&settings).await;
        crate::harness::eventually("the rejected login is reported", crate::harness::DEADLINE, async || {
            worker.get("/readyz").1.contains("rejects the user name or the password")
        })
        .await;
        let shown = [worker.get("/metrics").1, worker.get("/status").1, worker.get("/readyz").1].join("\n");
        worker.stop().await;
        assert!(!shown.contains(CANARY) && !worker.log().contains(CANARY), "{shown}\n{}", worker.log());
        assert!(
            worker.log().lines().all(|line| line.starts_with("20") && line.contains("ticketlog")),
            "{}",
            worker.log()
        );
    }
    env.clean().await;
}

#[tokio::test]
async fn the_log_has_no_payload_no_secret_and_one_line_per_event() {
    let env = TestEnv::new().await;
    let database = env.collection.client().database(&env.name);
    database.run_command(doc! {"collMod": "log", "validator": {"refused": {"$exists": false}}}).await.unwrap();
    let unique = mongodb::options::IndexOptions::builder().unique(true).sparse(true).build();
    env.collection
        .create_index(mongodb::IndexModel::builder().keys(doc! {"only": 1}).options(unique).build())
        .await
        .unwrap();
    let mut worker = env.worker_with(&[("LOG__FILTER", "trace")]).await;
    let body = |text: String| {
        TestMessage::body(text)
            // The message id names the message in the log line of its rejection.
            .with(|properties| properties.with_message_id("order-4711".into()).with_reply_to(CANARY.into()))
    };
    let valid = body(format!("{{\"a\":\"{CANARY}\\n\\u001b[31m\\u2028\"}}"));
    let rejected = [
        format!("{{\"{CANARY}\\u0000\":1}}"),
        format!("{{\"user_id\":\"{CANARY}\\r\\n\"}}"),
        format!("{{\"a\":\"{CANARY}\" \"{CANARY}\""),
        CANARY.to_owned(),
        format!("[\"{CANARY}\"]"),
        format!("{{\"_id\":\"{CANARY}\"}}"),
        format!("{{\"refused\":\"{CANARY}\"}}"),
        format!("{{\"only\":\"{CANARY}\",\"b\":2}}"),
        format!("{{\"_id\":\"65f000000000000000000001\",\"a\":\"{CANARY}-2\"}}"),
    ];
    env.publish(&valid).await;
    env.publish(&body(format!("{{\"only\":\"{CANARY}\"}}"))).await;
    env.publish(&body(format!("{{\"_id\":\"65f000000000000000000001\",\"a\":\"{CANARY}\"}}"))).await;
    worker.wait_until_settled(3).await;
    env.publish_all(rejected.iter().cloned().map(body)).await;
    worker.wait_until_settled(3 + rejected.len() as u64).await;
    assert_eq!(worker.settled("dead_lettered"), rejected.len() as u64);
    let shown = [worker.get("/metrics").1, worker.get("/status").1, worker.get("/readyz").1].join("\n");
    assert!(!shown.contains(CANARY), "{shown}");
    for dead in env.take_dead_letters(rejected.len()).await {
        assert!(dead.headers.values().all(|value| !value.contains(CANARY)), "{:?}", dead.headers);
    }
    worker.stop().await;
    let log = worker.log();
    assert!(!log.contains(CANARY) && log.contains("\"message_id\":\"order-4711\""), "{log}");
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(event["target"].as_str().unwrap().starts_with("ticketlog"), "{line}");
    }
    env.clean().await;
}

#[test]
fn the_configuration_is_printed_without_secrets() {
    let output = Command::new(env!("CARGO_BIN_EXE_ticketlog"))
        .arg("config")
        .env("TICKETLOG_BROKER__URI", "amqps://u:s3cret@h/v")
        .env("TICKETLOG_STORE__URI", "mongodb://u:s3cret@h/?tls=true&tlsCertificateKeyFilePassword=s3cret")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(printed.contains("amqps://u:***@h/v") && !printed.contains("s3cret"), "{printed}");
}
