//! The main job: events become documents, rejected messages go to the dead-letter queue, everything is counted, and the
//! worker stops cleanly.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, doc};
use lapin::types::AMQPValue;

use crate::harness::{DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, eventually};

#[tokio::test]
async fn events_become_documents_and_the_ledger_balances() {
    let env = TestEnv::new().await;
    env.publish_all((0..3000).map(TestMessage::numbered)).await;
    let mut worker = env.worker().await;
    worker.wait_until_settled(3000).await;
    assert_eq!(worker.settled("stored"), 3000);
    env.assert_exactly(3000).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    assert_eq!(env.depth(&env.queue()).await, 0);
    env.clean().await;
}

#[tokio::test]
async fn redelivered_and_repeated_events_are_stored_once() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    env.publish_all((0..500).chain(0..500).map(TestMessage::numbered)).await;
    worker.wait_until_settled(1000).await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    worker.wait_until_settled(1500).await;
    assert_eq!((worker.settled("stored"), worker.settled("duplicate")), (500, 1000));
    env.assert_exactly(500).await;
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn different_bodies_with_the_same_identity_are_all_stored() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let with_id = |body: &str| TestMessage::body(body).with(|properties| properties.with_message_id("same".into()));
    env.publish(&with_id("{\"a\":1}")).await;
    env.publish(&with_id("{\"a\":2}")).await;
    env.publish(&TestMessage::body("{\"uuid\":\"u\",\"a\":3}")).await;
    env.publish(&TestMessage::body("{\"uuid\":\"u\",\"a\":4}")).await;
    env.publish(&TestMessage::body("{\"_id\":\"65f000000000000000000001\",\"a\":5}")).await;
    worker.wait_until_settled(5).await;
    env.publish(&TestMessage::body("{\"_id\":\"65f000000000000000000001\",\"a\":6}")).await;
    env.publish(&TestMessage::body("{\"_id\":\"65f000000000000000000001\",\"a\":5}")).await;
    worker.wait_until_settled(7).await;
    assert_eq!((worker.settled("stored"), worker.settled("duplicate")), (5, 1));
    let dead = env.take_dead_letters(1).await;
    assert_eq!((dead[0].reason(), dead[0].headers["dl-stage"].as_str()), ("identity_conflict", "store"));
    assert_eq!(env.count().await, 5);
    env.clean().await;
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn a_dead_letter_is_the_original_message_with_the_reason() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let forged = BTreeMap::from([
        ("dl-reason".into(), AMQPValue::LongString("forged".into())),
        ("dl-replays".into(), AMQPValue::LongLongInt(99)),
        ("dl-replay-id".into(), AMQPValue::LongString("forged".into())),
        ("x-own".into(), AMQPValue::Boolean(true)),
        ("x-death".into(), AMQPValue::LongString("forged".into())),
        ("dl-trace-id".into(), AMQPValue::LongString("forged".into())),
        ("traceparent".into(), AMQPValue::LongString(format!("00-{TRACE}-00f067aa0ba902b7-01").into())),
    ]);
    let sent = TestMessage::body("{\"user_id\":\"abc\"}").with(|properties| {
        let properties =
            properties.with_headers(forged.into()).with_expiration("3600000".into()).with_user_id("guest".into());
        let properties = properties.with_reply_to("r".into()).with_correlation_id("c".into()).with_priority(255);
        properties.with_delivery_mode(1).with_message_id("m".into()).with_content_type("text/xml".into())
    });
    let sent = if env.broker_uri.contains("guest:guest") {
        sent
    } else {
        sent.with(|properties| properties.with_user_id("ticketlog".into()))
    };
    env.publish(&sent).await;
    worker.wait_until_settled(1).await;
    let dead = env.take_dead_letters(1).await.pop().unwrap();
    assert_eq!(dead.body, sent.body);
    let header = |name: &str| dead.headers.get(name).map(String::as_str).unwrap_or_default().to_owned();
    assert_eq!(
        (header("dl-version"), header("dl-reason"), header("dl-field")),
        ("1".into(), "invalid_field".into(), "user_id".into())
    );
    assert_eq!(
        (header("dl-exchange"), header("dl-routing-key"), header("dl-queue")),
        (env.name.clone(), "ticket.test".into(), env.queue())
    );
    assert_eq!(
        (header("dl-replays"), header("dl-stage"), header("dl-user-id").is_empty()),
        ("0".into(), "decode".into(), false)
    );
    assert_eq!((header("dl-fingerprint").len(), header("dl-trace-id").as_str()), (16, TRACE));
    assert!(worker.log().contains(&format!("\"trace_id\":\"{TRACE}\"")), "{}", worker.log());
    assert!(worker.log().contains("a message is rejected for a new cause"), "{}", worker.log());
    assert_eq!(worker.metrics()["ticketlog_dead_letter_causes_total"], 1.0);
    let kept = &dead.properties;
    assert_eq!((kept.expiration(), kept.user_id(), kept.delivery_mode()), (&None, &None, &Some(2)));
    assert_eq!(kept.reply_to(), sent.properties.reply_to());
    assert_eq!(
        (kept.correlation_id(), kept.priority()),
        (sent.properties.correlation_id(), sent.properties.priority())
    );
    assert_eq!(
        (kept.message_id(), kept.content_type()),
        (sent.properties.message_id(), sent.properties.content_type())
    );
    assert!(!dead.headers.contains_key("x-death") && !dead.headers.contains_key("dl-replay-id"));
    assert_eq!(kept.headers().as_ref().unwrap().inner().get("x-own"), Some(&AMQPValue::Boolean(true)));
    env.clean().await;
}

#[tokio::test]
async fn a_rejected_message_does_not_affect_others() {
    let env = TestEnv::new().await;
    let invalid = |n: i32| TestMessage::body(format!("{{\"n\":{n},\"user_id\":[]}}"));
    env.publish_all((0..500).map(|n| if n == 250 { invalid(n) } else { TestMessage::numbered(n) })).await;
    env.publish_all((500..1000).map(|n| if n == 750 { TestMessage::numbered(n) } else { invalid(n) })).await;
    env.publish_all((1000..1500).map(|n| if n % 2 == 0 { TestMessage::numbered(n) } else { invalid(n) })).await;
    let worker = env.worker().await;
    worker.wait_until_settled(1500).await;
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (499 + 1 + 250, 1 + 499 + 250));
    assert_eq!(env.count().await, 750);
    let dead = env.take_dead_letters(750).await;
    assert!(dead.iter().all(|dead| dead.reason() == "invalid_field"));
    env.clean().await;
}

#[tokio::test]
async fn a_document_that_the_store_rejects_is_dead_lettered_alone() {
    let env = TestEnv::new().await;
    let database = env.collection.client().database(&env.name);
    database.run_command(doc! {"collMod": "log", "validator": {"n": {"$ne": 7}}}).await.unwrap();
    let unique = mongodb::IndexModel::builder().keys(doc! {"only": 1});
    let options = mongodb::options::IndexOptions::builder().unique(true).sparse(true).build();
    env.collection.create_index(unique.options(options).build()).await.unwrap();
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    env.publish_all(["{\"only\":1,\"n\":-1}", "{\"only\":1,\"n\":-2}"].map(TestMessage::body)).await;
    let worker = env.worker().await;
    worker.wait_until_settled(502).await;
    assert_eq!(worker.settled("stored"), 500);
    let mut reasons: Vec<String> = env.take_dead_letters(2).await.iter().map(|dead| dead.reason().to_owned()).collect();
    reasons.sort();
    assert_eq!(reasons, ["duplicate_key", "rejected_by_store"]);
    env.clean().await;
}

#[tokio::test]
async fn the_breaker_opens_while_the_store_rejects_everything() {
    let env = TestEnv::new().await;
    let database = env.collection.client().database(&env.name);
    database.run_command(doc! {"collMod": "log", "validator": {"never": true}}).await.unwrap();
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    // One large batch after the first, so that nearly all events are rejected at once.
    let worker = env
        .worker_with(&[("BATCH__LINGER", "1s"), ("BROKER__PREFETCH_BYTES", "1GiB"), ("EVENT__MAX_BYTES", "10KiB")])
        .await;
    eventually("the breaker opens", DEADLINE, async || worker.get("/readyz").1.contains("breaker")).await;
    // While a batch is written, a change of the validator would reject one half of it.
    eventually("the others are held", DEADLINE, async || {
        worker.metrics()["ticketlog_dead_letters_waiting"] + worker.settled("dead_lettered") as f64 == 500.0
    })
    .await;
    assert_eq!(worker.metrics()["ticketlog_breaker_open"], 1.0);
    database.run_command(doc! {"collMod": "log", "validator": {}}).await.unwrap();
    worker.wait_until_settled(500).await;
    let dead = worker.settled("dead_lettered");
    assert!(dead <= 180, "{dead} dead letters of the first batch, before there is a window to judge");
    assert_eq!(worker.settled("stored"), 500 - dead);
    worker.wait_until_ready().await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    eventually("all are stored", DEADLINE, async || env.count().await == 500).await;
    env.assert_exactly(500).await;
    env.clean().await;
}

#[tokio::test]
async fn a_validator_switched_on_under_load_costs_few_dead_letters() {
    let env = TestEnv::new().await;
    let database = env.collection.client().database(&env.name);
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    let worker = env.worker_with(&[("BATCH__MAX_EVENTS", "20"), ("BATCH__LINGER", "1ms")]).await;
    worker.wait_until_settled(500).await;
    database.run_command(doc! {"collMod": "log", "validator": {"never": true}}).await.unwrap();
    for n in 500..1500 {
        env.publish(&TestMessage::numbered(n)).await;
    }
    eventually("the breaker opens", DEADLINE, async || worker.metrics()["ticketlog_breaker_open"] == 1.0).await;
    eventually("everything is received", DEADLINE, async || env.depth(&env.queue()).await == 0).await;
    let dead = worker.settled("dead_lettered");
    assert!((1..=180).contains(&dead), "{dead} dead letters, at any rate of events");
    database.run_command(doc! {"collMod": "log", "validator": {}}).await.unwrap();
    worker.wait_until_settled(1500).await;
    assert_eq!(worker.settled("stored"), 1500 - dead);
    env.clean().await;
}

#[tokio::test]
async fn messages_that_the_decoder_rejects_never_stop_the_others() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    env.publish_all((0..1500).map(|n| TestMessage::body(format!("{{\"user_id\":\"no number {n}\"}}")))).await;
    env.publish_all((0..100).map(TestMessage::numbered)).await;
    worker.wait_until_settled(1600).await;
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (100, 1500));
    assert_eq!(worker.metrics()["ticketlog_breaker_open"], 0.0);
    env.clean().await;
}

#[tokio::test]
async fn dead_letters_wait_for_their_exchange_while_events_are_stored() {
    let env = TestEnv::new().await;
    let worker = env.worker_with(&[("BROKER__DECLARE", "false")]).await;
    worker.wait_until_ready().await;
    let dlx = format!("{}.dlx", env.name);
    env.channel
        .queue_unbind(
            env.dead_letter_queue().into(),
            dlx.as_str().into(),
            env.dead_letter_queue().into(),
            Default::default(),
        )
        .await
        .unwrap();
    env.publish(&TestMessage::body("{\"user_id\":\"bad\"}")).await;
    eventually("the problem is reported", DEADLINE, async || {
        worker.get("/readyz").1.contains("dead_letter_unavailable")
    })
    .await;
    env.publish_all((0..300).map(TestMessage::numbered)).await;
    eventually("the valid events are stored", DEADLINE, async || worker.settled("stored") == 300).await;
    eventually("they are acknowledged, but the rejected message is not", DEADLINE, async || {
        worker.metrics()["ticketlog_deliveries_unacked"] == 1.0
    })
    .await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    let (queue, key) = (env.dead_letter_queue(), env.dead_letter_queue());
    env.channel.queue_bind(queue.into(), dlx.into(), key.into(), Default::default(), Default::default()).await.unwrap();
    worker.wait_until_settled(301).await;
    worker.wait_until_ready().await;
    assert_eq!(env.take_dead_letters(1).await[0].reason(), "invalid_field");
    env.clean().await;
}

#[tokio::test]
async fn a_batch_does_not_linger_while_the_prefetch_is_exhausted() {
    let env = TestEnv::new().await;
    // The prefetch begins at two, because any message may be large.
    env.publish_all((0..2).map(TestMessage::numbered)).await;
    let mut worker = env.worker_with(&[("BATCH__LINGER", "1min")]).await;
    eventually("both are stored", DEADLINE / 3, async || env.count().await == 2).await;
    let metrics = worker.metrics();
    let flushes = |cause| metrics[format!("ticketlog_batch_flushes_total{{cause=\"{cause}\"}}").as_str()];
    assert!(flushes("idle") >= 1.0, "the first batch");
    assert_eq!(flushes("linger"), 0.0);
    worker.stop().await;
    env.assert_exactly(2).await;
    env.clean().await;
}

#[tokio::test]
async fn an_index_that_cannot_be_built_does_not_keep_the_others_from_being_built() {
    let env = TestEnv::new().await;
    env.collection.drop().await.unwrap();
    env.collection.insert_one(doc! { "user_id": [1, 2], "timestamp": [3, 4] }).await.unwrap();
    let worker = env.worker().await;
    let built = async || env.collection.list_index_names().await.unwrap();
    eventually("the others are built", DEADLINE, async || built().await.len() == 4).await;
    assert!(!built().await.contains(&"user_id_1_timestamp_-1".to_owned()));
    let reported = async || worker.log().contains("documents hold arrays in two of its fields");
    eventually("the failure is reported", DEADLINE, reported).await;
    let setup = env.command().arg("setup").output().unwrap();
    assert_eq!(setup.status.code(), Some(69), "{}", String::from_utf8_lossy(&setup.stderr));
    env.clean().await;
}

#[tokio::test]
async fn a_stop_writes_a_partial_batch() {
    let store = DedicatedServer::start(ServerKind::Mongodb);
    let env = TestEnv::with_dedicated_store(&store).await;
    let mut worker = env.worker_with(&[("BATCH__LINGER", "30s"), ("EVENT__MAX_BYTES", "10KiB")]).await;
    worker.wait_until_ready().await;
    // The first write does not end while the store stands still, and the other events wait for it.
    store.freeze(true);
    env.publish(&TestMessage::numbered(0)).await;
    eventually("a write is under way", DEADLINE, async || worker.metrics()["ticketlog_store_writes_in_flight"] > 0.0)
        .await;
    env.publish_all((1..40).map(TestMessage::numbered)).await;
    eventually("they wait for the batch to fill", DEADLINE, async || {
        worker.metrics()["ticketlog_batch_events_waiting"] == 39.0
    })
    .await;
    worker.signal("TERM");
    store.freeze(false);
    let status = worker.wait_for_exit().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(env.count().await + u64::from(env.depth(&env.queue()).await), 40);
    assert_eq!(env.count().await, 40, "flushed, not requeued");
    env.assert_exactly(40).await;
    env.clean().await;
}

#[tokio::test]
async fn a_stop_requeues_only_an_unconfirmed_dead_letter() {
    let env = TestEnv::new().await;
    let mut worker = env.worker_with(&[("BROKER__DECLARE", "false"), ("EVENT__MAX_BYTES", "10KiB")]).await;
    worker.wait_until_ready().await;
    let (queue, dlx) = (env.dead_letter_queue(), format!("{}.dlx", env.name));
    env.channel
        .queue_unbind(queue.as_str().into(), dlx.into(), queue.as_str().into(), Default::default())
        .await
        .unwrap();
    let invalid = || TestMessage::body("{\"user_id\":\"bad\"}");
    let all = (0..100).map(|n| if n % 25 == 10 { invalid() } else { TestMessage::body("{}") });
    env.publish_all(all).await;
    eventually("the valid events are stored", DEADLINE, async || worker.settled("stored") == 96).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    assert!(worker.log().contains("\"returned\":4"));
    // The broker may take a moment to requeue them.
    env.wait_for_depth(&env.queue(), 4).await;
    assert_eq!(env.count().await, 96, "events without an identity are not stored again either");
    env.clean().await;
}

#[tokio::test]
async fn documents_have_the_readers_indexes_and_types() {
    let env = TestEnv::new().await;
    let worker = env.worker_with(&[("STORE__RETENTION", "90days")]).await;
    env.publish(&TestMessage::body(
        "{\"user_id\":\"12\",\"timestamp\":1763800000000,\"uuid\":5,\"status\":true,\"more\":{\"a\":[1]}}",
    ))
    .await;
    worker.wait_until_settled(1).await;
    let document = env.documents().await.pop().unwrap();
    assert_eq!(document.get("user_id"), Some(&Bson::Int32(12)));
    assert_eq!(document.get("timestamp"), Some(&Bson::Int64(1_763_800_000_000)));
    assert_eq!((document.get_str("uuid").unwrap(), document.get_str("status").unwrap()), ("5", "true"));
    assert_eq!(document.get_document("more").unwrap(), &doc! {"a": [1]});
    assert!(document.get_datetime("ingested_at").is_ok() && document.get_object_id("_id").is_ok());
    let mut names = Vec::new();
    eventually("the indexes exist", Duration::from_secs(20), async || {
        names = env.collection.list_index_names().await.unwrap();
        names.len() == 6
    })
    .await;
    let database = env.collection.client().database(&env.name);
    let explained = database.run_command(
        doc! {"explain": {"find": "log", "filter": {"user_id": 12}, "sort": {"timestamp": -1}, "limit": 50}},
    );
    let plan = format!("{:?}", explained.await.unwrap());
    assert!(plan.contains("IXSCAN") && !plan.contains("COLLSCAN") && !plan.contains("\"SORT\""), "{plan}");
    env.clean().await;
}

#[tokio::test]
async fn hidden_fields_are_not_stored_and_equal_messages_are_still_stored_once() {
    let key = "a key that nobody sees";
    let env = TestEnv::new().await;
    let settings =
        [("EVENT__DROP", "[\"payment.pan\"]"), ("EVENT__MASK", "email,payment.card"), ("EVENT__MASK_KEY", key)];
    let worker = env.worker_with(&settings).await;
    let body = r#"{"user_id":1,"email":"a@b","payment":{"pan":"4111","card":"4111","kept":true},"payment.pan":"4111"}"#;
    let sent = TestMessage::body(body).with(|properties| properties.with_message_id("m".into()));
    env.publish_all([sent.clone(), sent.clone(), TestMessage::body(body.replace(":1,", ":\"x\","))]).await;
    worker.wait_until_settled(3).await;
    assert_eq!((worker.settled("stored"), worker.settled("duplicate")), (1, 1));
    let document = env.documents().await.pop().unwrap();
    let payment = document.get_document("payment").unwrap();
    assert!(document.get_str("email").unwrap().starts_with("hmac-sha256:"));
    assert!(payment.get_str("card").unwrap().starts_with("hmac-sha256:"));
    assert!(payment.get_bool("kept").unwrap() && !format!("{document:?}").contains("4111"));
    let dead = env.take_dead_letters(1).await.pop().unwrap();
    assert!(String::from_utf8(dead.body).unwrap().contains("a@b"), "a dead letter is the original message");
    let mut config = env.command();
    let shown = config.env("TICKETLOG_EVENT__MASK_KEY", key).arg("config").output().unwrap();
    assert!(shown.status.success() && !String::from_utf8(shown.stdout).unwrap().contains(key));
    env.clean().await;
}
