//! `ticketlog shadow`: other settings beside a running worker, which notices nothing.

use std::process::Stdio;

use lapin::options::BasicPublishOptions;

use crate::harness::{DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, eventually};

#[tokio::test]
async fn a_shadow_copies_only_what_others_are_bound_with() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
        std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_management].\n").unwrap();
        std::fs::write(directory.join("extra.conf"), format!("management.tcp.port = {}\n", port + 3)).unwrap();
    });
    let env = TestEnv::with_dedicated_broker(&broker).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let start = |keys: &str, management: &str| {
        let mut shadow = env.command();
        shadow.env("TICKETLOG_BROKER__ROUTING_KEYS", keys);
        shadow.args(["shadow", "--for", "60s", "--limit", "1", "--json", "--management", management]);
        shadow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap()).spawn().unwrap()
    };
    let log_text = || std::fs::read_to_string(log.path()).unwrap();
    let management = format!("http://127.0.0.1:{}", broker.port() + 3);
    let shadow = start("ticket.*,new.#", &management);
    eventually("it reads copies", DEADLINE, async || log_text().contains("reading copies")).await;
    assert!(log_text().contains("nobody else is bound with it: new.#"), "{}", log_text());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let exchange = env.name.as_str().into();
    let publish = env.channel.basic_publish(exchange, "new.a".into(), options, b"{}", Default::default());
    let returned = publish.await.unwrap().await.unwrap().take_message();
    assert!(returned.is_some(), "nobody would store it, so its publisher hears of it");
    env.publish(&TestMessage::body("{}")).await;
    let output = tokio::task::spawn_blocking(|| shadow.wait_with_output()).await.unwrap().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["events"], 1, "{report}");
    for (keys, management, text) in
        [("new.#", management.as_str(), "nothing to copy"), ("ticket.#", "http://127.0.0.1:9", "--trust-bindings")]
    {
        let refused = start(keys, management).wait_with_output().unwrap();
        assert!(refused.status.code() == Some(69) && log_text().contains(text), "{}", log_text());
    }
}

#[tokio::test]
async fn a_shadow_reports_what_other_settings_would_do_and_changes_nothing() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    worker.wait_until_ready().await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("new.toml");
    let fields = "[event]\nmax_depth = 2\n[event.fields]\nuser_id = { type = \"string\" }\n";
    std::fs::write(&config, fields).unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut shadow = env.command();
    shadow
        .args(["shadow", "--trust-bindings", "--for", "60s", "--limit", "31", "--compare", "--json", "--config"])
        .arg(&config);
    shadow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
    let shadow = shadow.spawn().unwrap();
    let log_text = || std::fs::read_to_string(log.path()).unwrap();
    eventually("it reads copies", DEADLINE, async || log_text().contains("reading copies")).await;
    let with_id = |body: String, id: i32| {
        TestMessage::body(body).with(|properties| properties.with_message_id(format!("m-{id}").into()))
    };
    for n in 0..10 {
        env.publish(&with_id(format!("{{\"n\":{n}}}"), n)).await;
        env.publish(&with_id(format!("{{\"n\":{n},\"user_id\":7}}"), 100 + n)).await;
        env.publish(&with_id(format!("{{\"n\":{n},\"a\":{{\"b\":{{}}}}}}"), 200 + n)).await;
    }
    env.publish(&TestMessage::body("{\"without\":\"an identity\"}")).await;
    worker.wait_until_settled(31).await;
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (31, 0));
    let output = tokio::task::spawn_blocking(|| shadow.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", log_text());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["events"], &report["would_be_stored"]), (&31.into(), &21.into()), "{report}");
    assert_eq!(report["would_be_refused"][0]["count"], 10, "{report}");
    assert_eq!(report["would_be_refused"][0]["cause"], "too_deep", "{report}");
    let compared = &report["compared"];
    assert_eq!((&compared["equal"], &compared["different"]), (&10.into(), &10.into()), "{report}");
    assert_eq!((&compared["fields"]["user_id"], &compared["not_compared"]), (&10.into(), &1.into()), "{report}");
    assert_eq!(env.count().await, 31);
    let name = log_text().split(" from ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert!(name.starts_with(&format!("{}.shadow-", env.queue())), "{name}");
    let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
    let gone = env.channel.queue_declare(name.as_str().into(), options, Default::default()).await;
    assert!(gone.is_err(), "its queue is deleted");
    worker.stop().await;
    env.clean().await;
}
