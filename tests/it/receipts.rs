//! Receipts of dead letters (`dead_letter.receipts`): what a publisher is told, and that the flow does not depend on them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{DEADLINE, DedicatedServer, SHORT_TIMEOUTS, ServerKind, TestEnv, TestMessage, Worker, eventually};

const DECLARE: (&str, &str) = ("BROKER__DECLARE", "false");

fn exchange(env: &TestEnv) -> String {
    format!("{}.receipts", env.name)
}

fn command(env: &TestEnv) -> Command {
    let mut command = env.command();
    command.env("TICKETLOG_DEAD_LETTER__RECEIPTS", exchange(env));
    command
}

async fn worker(env: &TestEnv, settings: &[(&str, &str)]) -> Worker {
    let mut command = command(env);
    command.envs(settings.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
    let worker = Worker::start(command).await;
    worker.wait_until_ready().await;
    worker
}

/// What `ticketlog setup` declares for receipts.
async fn declare_exchange(env: &TestEnv) {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let name = exchange(env);
    env.channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default()).await.unwrap();
}

/// A queue as a team has it, with `x-max-length` and other arguments.
async fn bind(env: &TestEnv, key: &str, arguments: &[(&str, AMQPValue)]) -> String {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = env.channel.queue_declare("".into(), options, table).await.unwrap().name().to_string();
    let source = exchange(env);
    let binding = env.channel.queue_bind(
        queue.as_str().into(),
        source.into(),
        key.into(),
        Default::default(),
        FieldTable::default(),
    );
    binding.await.unwrap();
    queue
}

/// Takes this many receipts; their routing keys and bodies.
async fn take(env: &TestEnv, queue: &str, count: usize) -> Vec<(String, Value)> {
    let mut receipts = Vec::new();
    eventually(&format!("{count} receipts"), DEADLINE, async || {
        while let Some(got) =
            env.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap().map(|got| got.delivery)
        {
            assert_eq!(*got.properties.delivery_mode(), Some(1), "transient");
            assert_eq!(got.properties.content_type().as_ref().unwrap().as_str(), "application/json");
            assert!(got.properties.headers().is_none());
            let body: Value = serde_json::from_slice(&got.data).unwrap();
            assert_eq!(got.properties.message_id().as_ref().unwrap().as_str(), body["dl_id"]);
            receipts.push((got.routing_key.to_string(), body));
        }
        receipts.len() >= count
    })
    .await;
    assert_eq!(receipts.len(), count);
    receipts
}

fn counted(worker: &Worker, outcome: &str) -> u64 {
    worker.metrics()[&format!("ticketlog_receipts_total{{outcome=\"{outcome}\"}}")] as u64
}

fn message(body: &str, id: &str, app_id: &str) -> TestMessage {
    TestMessage::body(body).with(|properties| properties.with_message_id(id.into()).with_app_id(app_id.into()))
}

#[tokio::test]
async fn each_dead_letter_has_a_receipt_without_any_of_its_values() {
    let env = TestEnv::new().await;
    declare_exchange(&env).await;
    let (all, some) = (bind(&env, "rejected.shop.#", &[]).await, bind(&env, "rejected.*.invalid_json", &[]).await);
    let worker = worker(&env, &[]).await;
    env.publish(&message("{\"_id\":\"0123456789abcdef01234567\",\"n\":1}", "m-stored", "shop")).await;
    worker.wait_until_settled(1).await;
    let encoded = message("{\"a\":\"TOP-SECRET\"}", "m-encoded", "shop");
    let traced = FieldTable::from(BTreeMap::from([(
        "traceparent".into(),
        AMQPValue::LongString("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    )]));
    for sent in [
        message("{\"a\":\"TOP-SECRET\" nonsense", "m-json", "shop"),
        message("{\"user_id\":[\"TOP-SECRET\"]}", "m-field", "shop")
            .with(|properties| properties.with_headers(traced.clone())),
        message("[\"TOP-SECRET\"]", "m-array", "shop"),
        encoded.with(|properties| properties.with_content_encoding("br".into())),
        message("{\"_id\":\"0123456789abcdef01234567\",\"a\":\"TOP-SECRET\"}", "m-other", "shop"),
    ] {
        env.publish(&sent).await;
    }
    let receipts = take(&env, &all, 5).await;
    let dead: BTreeMap<String, String> = env
        .take_dead_letters(5)
        .await
        .iter()
        .map(|dead| (dead.properties.message_id().as_ref().unwrap().to_string(), dead.headers["dl-id"].clone()))
        .collect();
    let mut keys = Vec::new();
    for (key, receipt) in &receipts {
        keys.push(key.as_str());
        let id = receipt["message_id"].as_str().unwrap();
        assert_eq!(receipt["dl_id"], dead[id].as_str());
        assert_eq!(key, &format!("rejected.shop.{}", receipt["reason"].as_str().unwrap()));
        assert_eq!(
            (receipt["publisher"].as_str(), receipt["routing_key"].as_str()),
            (Some("shop"), Some("ticket.test"))
        );
        assert_eq!(receipt["exchange"], env.name.as_str());
        assert!(receipt["time"].as_i64().unwrap() > 1_700_000_000_000 && receipt["detail"].as_str().unwrap().len() > 5);
        assert!(!receipt.to_string().contains("SECRET"), "{receipt}");
        let is_field = id == "m-field";
        assert_eq!(receipt["field"], if is_field { json!("user_id") } else { Value::Null });
        let trace_id = json!("0af7651916cd43dd8448eb211c80319c");
        assert_eq!(receipt["trace_id"], if is_field { trace_id } else { Value::Null });
    }
    keys.sort_unstable();
    let reasons = ["identity_conflict", "invalid_field", "invalid_json", "not_an_object", "unsupported_encoding"];
    assert_eq!(keys, reasons.map(|reason| format!("rejected.shop.{reason}")));
    assert_eq!(take(&env, &some, 1).await[0].1["message_id"], "m-json");
    eventually("all are counted", DEADLINE, async || counted(&worker, "sent") == 5).await;
    assert_eq!(counted(&worker, "dropped"), 0);
    assert!(!worker.log().contains("SECRET"));
    let line = worker.log().lines().find(|line| line.contains("m-field")).map(str::to_owned).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["publisher"], &line["routing_key"]), (&json!("shop"), &json!("ticket.test")));
    env.clean().await;
}

#[tokio::test]
async fn names_of_publishers_cannot_leave_their_word() {
    let env = TestEnv::new().await;
    declare_exchange(&env).await;
    let queue = bind(&env, "rejected.*.invalid_json", &[]).await;
    let worker = worker(&env, &[]).await;
    let long = "é".repeat(127);
    let cases = [
        ("shop.eu", "rejected.shop_eu.invalid_json".to_owned()),
        ("*.#", "rejected.___.invalid_json".to_owned()),
        ("a b\n\u{202e}", "rejected.a_b__.invalid_json".to_owned()),
        (&long, format!("rejected.{}.invalid_json", "é".repeat(116))),
        ("", "rejected.unknown.invalid_json".to_owned()),
    ];
    for (name, expected) in &cases {
        env.publish(&message("nonsense", "m", name)).await;
        let (key, body) = take(&env, &queue, 1).await.remove(0);
        assert_eq!(&key, expected);
        assert!(body["publisher"].is_null() == name.is_empty(), "{body}");
    }
    env.publish(&TestMessage::body("nonsense")).await;
    assert_eq!(take(&env, &queue, 1).await[0].0, "rejected.unknown.invalid_json");
    assert_eq!(worker.settled("dead_lettered"), 6);
    env.clean().await;
}

#[tokio::test]
async fn without_the_exchange_dead_letters_are_settled_and_receipts_are_dropped() {
    let env = TestEnv::new().await;
    let worker = worker(&env, &[DECLARE]).await;
    env.publish_all((0..40).map(|n| message("nonsense", &format!("m-{n}"), "shop"))).await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    worker.wait_until_settled(540).await;
    assert_eq!((worker.settled("dead_lettered"), worker.settled("stored")), (40, 500));
    eventually("they are counted", DEADLINE, async || counted(&worker, "dropped") == 40).await;
    assert_eq!(worker.get("/readyz").0, 200);
    assert_eq!(worker.log().matches("receipts are dropped").count(), 1, "{}", worker.log());
    assert!(worker.log().contains("no exchange") && worker.log().contains("ticketlog setup"), "{}", worker.log());
    assert_eq!(worker.metrics()["ticketlog_sessions_opened_total"], 1.0);
    assert_eq!(counted(&worker, "sent"), 0);
    // It is made meanwhile, and is deleted again.
    declare_exchange(&env).await;
    let queue = bind(&env, "#", &[]).await;
    env.publish(&message("nonsense", "m-40", "shop")).await;
    assert_eq!(take(&env, &queue, 1).await[0].1["message_id"], "m-40");
    eventually("that is said", DEADLINE, async || worker.log().contains("receipts are published again")).await;
    env.channel.exchange_delete(exchange(&env).into(), Default::default()).await.unwrap();
    env.publish(&message("nonsense", "m-41", "shop")).await;
    eventually("it is dropped", DEADLINE, async || counted(&worker, "dropped") == 41).await;
    worker.wait_until_settled(542).await;
    assert_eq!(worker.log().matches("receipts are dropped").count(), 2, "{}", worker.log());
    assert_eq!(worker.metrics()["ticketlog_sessions_opened_total"], 1.0);
    env.assert_exactly(500).await;
    env.clean().await;
}

#[tokio::test]
async fn a_full_queue_of_a_team_is_not_our_concern() {
    let env = TestEnv::new().await;
    let setup = command(&env).arg("setup").output().unwrap();
    assert!(setup.status.success(), "{setup:?}");
    let limits =
        [("x-max-length", AMQPValue::LongLongInt(1)), ("x-overflow", AMQPValue::LongString("reject-publish".into()))];
    let queue = bind(&env, "rejected.shop.*", &limits).await;
    let worker = worker(&env, &[]).await;
    env.publish_all((0..100).map(|n| message("nonsense", &format!("m-{n}"), "shop"))).await;
    worker.wait_until_settled(100).await;
    eventually("all are sent", DEADLINE, async || counted(&worker, "sent") == 100).await;
    take(&env, &queue, 1).await;
    env.clean().await;
}

#[tokio::test]
async fn an_alarm_and_a_missing_permission_delay_no_more_than_without_receipts() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let mut env = TestEnv::with_dedicated_broker(&broker).await;
    declare_exchange(&env).await;
    let with_receipts = worker(&env, &SHORT_TIMEOUTS).await;
    let nonsense = |from: i32| (from..from + 5).map(|n| message("nonsense", &format!("bad-{n}"), "shop"));
    env.publish_all(nonsense(0)).await;
    eventually("receipts are sent", DEADLINE, async || counted(&with_receipts, "sent") == 5).await;
    env.publish_all((0..1000).map(TestMessage::numbered).chain(nonsense(5))).await;
    with_receipts.wait_until_settled(1010).await;
    drop(with_receipts);
    env.publish_all((1000..2000).map(TestMessage::numbered).chain(nonsense(10))).await;
    broker.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let blocked = worker(&env, &SHORT_TIMEOUTS).await;
    eventually("events are stored", DEADLINE, async || env.count().await == 2000).await;
    assert_eq!(counted(&blocked, "sent"), 0);
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    eventually("dead letters and receipts go out", DEADLINE, async || counted(&blocked, "sent") == 5).await;
    assert_eq!(blocked.settled("dead_lettered"), 5);
    drop(blocked);
    env.reconnect().await;
    env.assert_exactly(2000).await;
    // May write dead letters, and no receipts.
    let write = format!("^{}\\.(dlx|dead|parked)$", env.name);
    broker.add_user("least", "secret", Some(["^$", &write, &format!("^{}\\.q$", env.name)]));
    let uri = env.broker_uri.replace("guest:guest", "least:secret");
    let forbidden = worker(&env, &[("BROKER__URI", &uri), DECLARE]).await;
    env.publish_all(nonsense(15)).await;
    forbidden.wait_until_settled(5).await;
    eventually("they are dropped", DEADLINE, async || counted(&forbidden, "dropped") == 5).await;
    assert!(forbidden.log().contains("ACCESS_REFUSED"), "{}", forbidden.log());
    assert_eq!(forbidden.metrics()["ticketlog_sessions_opened_total"], 1.0);
}

/// A proxy that, once told so, forwards nothing more of connections for receipts. Its port.
async fn stalling_receipts(target: u16, is_stalled: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_stalled = Arc::clone(&is_stalled);
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
                let (mut chunk, mut is_for_receipts) = (vec![0; 64 * 1024], false);
                while let Ok(count @ 1..) = from.read(&mut chunk).await {
                    is_for_receipts |= chunk[..count].windows(18).any(|text| text == b"ticketlog receipts");
                    while is_for_receipts && is_stalled.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    if to.write_all(&chunk[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn receipts_that_cannot_be_sent_hold_nothing() {
    let env = TestEnv::new().await;
    declare_exchange(&env).await;
    let queue = bind(&env, "#", &[]).await;
    let mut uri = url::Url::parse(&env.broker_uri).unwrap();
    let is_stalled = Arc::new(AtomicBool::new(false));
    let port = stalling_receipts(uri.port().unwrap(), Arc::clone(&is_stalled)).await;
    uri.set_port(Some(port)).unwrap();
    let worker = worker(&env, &[&SHORT_TIMEOUTS[..], &[("BROKER__URI", uri.as_str())]].concat()).await;
    env.publish(&message("nonsense", "first", "shop")).await;
    take(&env, &queue, 1).await;
    is_stalled.store(true, Ordering::Relaxed);
    env.publish_all((0..1000).map(|n| message("nonsense", &format!("m-{n}"), "shop"))).await;
    env.publish_all((0..1000).map(TestMessage::numbered)).await;
    worker.wait_until_settled(2001).await;
    assert_eq!(counted(&worker, "sent"), 1, "dead letters do not wait for receipts");
    assert!(counted(&worker, "dropped") >= 1000 - 256 - 16, "{}", counted(&worker, "dropped"));
    assert_eq!(worker.get("/readyz").0, 200);
    is_stalled.store(false, Ordering::Relaxed);
    eventually("each is counted", DEADLINE, async || counted(&worker, "sent") + counted(&worker, "dropped") == 1001)
        .await;
    env.publish(&message("nonsense", "last", "shop")).await;
    eventually("receipts come again", DEADLINE, async || {
        let got = env.channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap();
        got.is_some_and(|got| String::from_utf8_lossy(&got.delivery.data).contains("\"last\""))
    })
    .await;
    env.assert_exactly(1000).await;
    env.clean().await;
}

#[tokio::test]
async fn every_route_sends_receipts() {
    let env = TestEnv::new().await;
    let queue_of_route = format!("{}.refresh", env.name);
    let with_route = || {
        let mut command = command(&env);
        let route =
            format!("{{ queue = {queue_of_route:?}, routing_keys = [\"refresh.#\"], collection = \"refresh\" }}");
        command.env("TICKETLOG_ROUTE__REFRESH", route);
        command
    };
    assert!(with_route().arg("setup").output().unwrap().status.success());
    let queue = bind(&env, "rejected.shop.*", &[]).await;
    let worker = Worker::start(with_route()).await;
    worker.wait_until_ready().await;
    for key in ["ticket.test", "refresh.test"] {
        let TestMessage { body, properties } = message("nonsense", key, "shop");
        let exchange = env.name.as_str().into();
        let publish = env.channel.basic_publish(exchange, key.into(), Default::default(), &body, properties);
        assert!(publish.await.unwrap().await.unwrap().is_ack());
    }
    let receipts = take(&env, &queue, 2).await;
    let mut keys: Vec<_> = receipts.iter().map(|(_, body)| body["routing_key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["refresh.test", "ticket.test"]);
    let series = |queue: &str| format!("ticketlog_receipts_total{{queue=\"{queue}\",outcome=\"sent\"}} 1");
    eventually("each route counts its own", DEADLINE, async || {
        let (_, text) = worker.get("/metrics");
        [env.queue(), queue_of_route.clone()].iter().all(|queue| text.contains(&series(queue)))
    })
    .await;
    for suffix in ["", ".dead", ".parked"] {
        let _ = env.channel.queue_delete(format!("{queue_of_route}{suffix}").into(), Default::default()).await;
    }
    env.clean().await;
}

#[tokio::test]
async fn check_says_whether_receipts_can_be_sent() {
    let env = TestEnv::new().await;
    let findings = |settings: &[(&str, &str)]| {
        let mut command = command(&env);
        command.envs(settings.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
        let output = command.args(["check", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = report["findings"].as_array().unwrap().clone();
        let ours = all.iter().filter(|finding| finding["subject"] == "dead_letter.receipts");
        ours.map(|finding| format!("{}: {}", finding["level"], finding["message"])).collect::<Vec<_>>().join("\n")
    };
    assert!(findings(&[]).contains("does not exist yet"), "{}", findings(&[]));
    assert!(findings(&[DECLARE]).contains("does not exist, and"), "{}", findings(&[DECLARE]));
    assert!(command(&env).arg("setup").output().unwrap().status.success());
    let fine = findings(&[]);
    assert!(fine.contains("is as configured") && fine.contains("may write to exchange"), "{fine}");
    assert_eq!(findings(&[("DEAD_LETTER__RECEIPTS", "")]), "");
    env.clean().await;
}
