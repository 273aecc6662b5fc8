//! The main job: events in, documents out; bad ones to the dead-letter queue; everything counted; stops in good order.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, doc};
use lapin::types::AMQPValue;

use crate::harness::{Bed, SOON, Sent, eventually};

#[tokio::test]
async fn events_become_documents_and_the_books_balance() {
    let bed = Bed::new().await;
    bed.publish_all((0..3000).map(Sent::numbered)).await;
    let mut worker = bed.worker().await;
    worker.has_settled(3000).await;
    assert_eq!(worker.settled("stored"), 3000);
    bed.assert_exactly(3000).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    assert_eq!(bed.depth(&bed.queue()).await, 0);
    bed.clean().await;
}

#[tokio::test]
async fn redelivered_and_repeated_events_are_stored_once() {
    let bed = Bed::new().await;
    let mut worker = bed.worker().await;
    bed.publish_all((0..500).chain(0..500).map(Sent::numbered)).await;
    worker.has_settled(1000).await;
    bed.publish_all((0..500).map(Sent::numbered)).await;
    worker.has_settled(1500).await;
    assert_eq!((worker.settled("stored"), worker.settled("duplicate")), (500, 1000));
    bed.assert_exactly(500).await;
    worker.stop().await;
    bed.clean().await;
}

#[tokio::test]
async fn the_same_identity_with_another_body_loses_nothing() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    let with_id = |body: &str| Sent::body(body).with(|properties| properties.with_message_id("same".into()));
    bed.publish(&with_id("{\"a\":1}")).await;
    bed.publish(&with_id("{\"a\":2}")).await;
    bed.publish(&Sent::body("{\"uuid\":\"u\",\"a\":3}")).await;
    bed.publish(&Sent::body("{\"uuid\":\"u\",\"a\":4}")).await;
    bed.publish(&Sent::body("{\"_id\":\"65f000000000000000000001\",\"a\":5}")).await;
    worker.has_settled(5).await;
    bed.publish(&Sent::body("{\"_id\":\"65f000000000000000000001\",\"a\":6}")).await;
    bed.publish(&Sent::body("{\"_id\":\"65f000000000000000000001\",\"a\":5}")).await;
    worker.has_settled(7).await;
    assert_eq!((worker.settled("stored"), worker.settled("duplicate")), (5, 1));
    let dead = bed.dead(1).await;
    assert_eq!((dead[0].reason(), dead[0].headers["dl-stage"].as_str()), ("identity_conflict", "store"));
    assert_eq!(bed.count().await, 5);
    bed.clean().await;
}

#[tokio::test]
async fn a_dead_letter_is_the_original_with_what_was_wrong() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    let forged = BTreeMap::from([
        ("dl-reason".into(), AMQPValue::LongString("forged".into())),
        ("dl-replays".into(), AMQPValue::LongLongInt(99)),
        ("dl-replay-id".into(), AMQPValue::LongString("forged".into())),
        ("x-own".into(), AMQPValue::Boolean(true)),
        ("x-death".into(), AMQPValue::LongString("forged".into())),
    ]);
    let sent = Sent::body("{\"user_id\":\"abc\"}").with(|properties| {
        let properties =
            properties.with_headers(forged.into()).with_expiration("3600000".into()).with_user_id("guest".into());
        let properties = properties.with_reply_to("r".into()).with_correlation_id("c".into()).with_priority(255);
        properties.with_delivery_mode(1).with_message_id("m".into()).with_content_type("text/xml".into())
    });
    let sent = if bed.broker_uri.contains("guest:guest") {
        sent
    } else {
        sent.with(|properties| properties.with_user_id("ticketlog".into()))
    };
    bed.publish(&sent).await;
    worker.has_settled(1).await;
    let dead = bed.dead(1).await.pop().unwrap();
    assert_eq!(dead.body, sent.body);
    let said = |name: &str| dead.headers.get(name).map(String::as_str).unwrap_or_default().to_owned();
    assert_eq!(
        (said("dl-version"), said("dl-reason"), said("dl-field")),
        ("1".into(), "invalid_field".into(), "user_id".into())
    );
    assert_eq!(
        (said("dl-exchange"), said("dl-routing-key"), said("dl-queue")),
        (bed.name.clone(), "ticket.test".into(), bed.queue())
    );
    assert_eq!(
        (said("dl-replays"), said("dl-stage"), said("dl-user-id").is_empty()),
        ("0".into(), "decode".into(), false)
    );
    assert_eq!(said("dl-fingerprint").len(), 16);
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
    bed.clean().await;
}

#[tokio::test]
async fn one_bad_message_takes_no_other_with_it() {
    let bed = Bed::new().await;
    let bad = |n: i32| Sent::body(format!("{{\"n\":{n},\"user_id\":[]}}"));
    bed.publish_all((0..500).map(|n| if n == 250 { bad(n) } else { Sent::numbered(n) })).await;
    bed.publish_all((500..1000).map(|n| if n == 750 { Sent::numbered(n) } else { bad(n) })).await;
    bed.publish_all((1000..1500).map(|n| if n % 2 == 0 { Sent::numbered(n) } else { bad(n) })).await;
    let worker = bed.worker().await;
    worker.has_settled(1500).await;
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (499 + 1 + 250, 1 + 499 + 250));
    assert_eq!(bed.count().await, 750);
    let dead = bed.dead(750).await;
    assert!(dead.iter().all(|dead| dead.reason() == "invalid_field"));
    bed.clean().await;
}

#[tokio::test]
async fn what_the_store_refuses_is_dead_lettered_alone() {
    let bed = Bed::new().await;
    let database = bed.collection.client().database(&bed.name);
    database.run_command(doc! {"collMod": "log", "validator": {"n": {"$ne": 7}}}).await.unwrap();
    let unique = mongodb::IndexModel::builder().keys(doc! {"only": 1});
    let options = mongodb::options::IndexOptions::builder().unique(true).sparse(true).build();
    bed.collection.create_index(unique.options(options).build()).await.unwrap();
    bed.publish_all((0..500).map(Sent::numbered)).await;
    bed.publish_all(["{\"only\":1,\"n\":-1}", "{\"only\":1,\"n\":-2}"].map(Sent::body)).await;
    let worker = bed.worker().await;
    worker.has_settled(502).await;
    assert_eq!(worker.settled("stored"), 500);
    let mut reasons: Vec<String> = bed.dead(2).await.iter().map(|dead| dead.reason().to_owned()).collect();
    reasons.sort();
    assert_eq!(reasons, ["duplicate_key", "rejected_by_store"]);
    bed.clean().await;
}

#[tokio::test]
async fn the_breaker_holds_when_the_store_refuses_everything_and_lets_go_when_it_is_mended() {
    let bed = Bed::new().await;
    let database = bed.collection.client().database(&bed.name);
    database.run_command(doc! {"collMod": "log", "validator": {"never": true}}).await.unwrap();
    bed.publish_all((0..500).map(Sent::numbered)).await;
    // One large batch, so that the verdict falls on all of them at once.
    let worker = bed
        .worker_with(&[("BATCH__LINGER", "1s"), ("BROKER__PREFETCH_BYTES", "1GiB"), ("EVENT__MAX_BYTES", "10KiB")])
        .await;
    eventually("the breaker opens", SOON, async || worker.get("/readyz").1.contains("breaker")).await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    assert_eq!(worker.metrics()["ticketlog_breaker_open"], 1.0);
    database.run_command(doc! {"collMod": "log", "validator": {}}).await.unwrap();
    worker.has_settled(500).await;
    assert_eq!(worker.settled("stored"), 500);
    worker.ready().await;
    bed.assert_exactly(500).await;
    bed.clean().await;
}

#[tokio::test]
async fn dead_letters_wait_for_their_exchange_while_storing_goes_on() {
    let bed = Bed::new().await;
    let worker = bed.worker_with(&[("BROKER__DECLARE", "false")]).await;
    worker.ready().await;
    let dlx = format!("{}.dlx", bed.name);
    bed.channel
        .queue_unbind(bed.dead_queue().into(), dlx.as_str().into(), bed.dead_queue().into(), Default::default())
        .await
        .unwrap();
    bed.publish(&Sent::body("{\"user_id\":\"bad\"}")).await;
    eventually("it says so", SOON, async || worker.get("/readyz").1.contains("dead_letter_unavailable")).await;
    bed.publish_all((0..300).map(Sent::numbered)).await;
    eventually("the good ones are stored", SOON, async || worker.settled("stored") == 300).await;
    eventually("and acknowledged past the held one", SOON, async || {
        worker.metrics()["ticketlog_deliveries_unacked"] == 1.0
    })
    .await;
    assert_eq!(worker.settled("dead_lettered"), 0);
    let (queue, key) = (bed.dead_queue(), bed.dead_queue());
    bed.channel.queue_bind(queue.into(), dlx.into(), key.into(), Default::default(), Default::default()).await.unwrap();
    worker.has_settled(301).await;
    worker.ready().await;
    assert_eq!(bed.dead(1).await[0].reason(), "invalid_field");
    bed.clean().await;
}

#[tokio::test]
async fn nothing_waits_for_company_that_the_prefetch_keeps_away() {
    let bed = Bed::new().await;
    // The prefetch begins at two, because messages may be large.
    bed.publish_all((0..2).map(Sent::numbered)).await;
    let mut worker = bed.worker_with(&[("BATCH__LINGER", "1min")]).await;
    eventually("both are stored", SOON / 3, async || bed.count().await == 2).await;
    worker.stop().await;
    bed.assert_exactly(2).await;
    bed.clean().await;
}

#[tokio::test]
async fn stops_in_good_order_with_a_half_full_batch() {
    let bed = Bed::new().await;
    let mut worker = bed.worker_with(&[("BATCH__LINGER", "30s"), ("EVENT__MAX_BYTES", "10KiB")]).await;
    worker.ready().await;
    bed.publish_all((0..40).map(Sent::numbered)).await;
    eventually("they wait for company", SOON, async || worker.metrics()["ticketlog_batch_events_waiting"] > 0.0).await;
    let status = worker.stop().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(bed.count().await + u64::from(bed.depth(&bed.queue()).await), 40);
    assert_eq!(bed.count().await, 40, "flushed, not just given back");
    bed.assert_exactly(40).await;
    bed.clean().await;
}

#[tokio::test]
async fn a_stop_behind_a_held_dead_letter_gives_back_only_that() {
    let bed = Bed::new().await;
    let mut worker = bed.worker_with(&[("BROKER__DECLARE", "false"), ("EVENT__MAX_BYTES", "10KiB")]).await;
    worker.ready().await;
    let (queue, dlx) = (bed.dead_queue(), format!("{}.dlx", bed.name));
    bed.channel
        .queue_unbind(queue.as_str().into(), dlx.into(), queue.as_str().into(), Default::default())
        .await
        .unwrap();
    let bad = || Sent::body("{\"user_id\":\"bad\"}");
    let all = (0..100).map(|n| if n % 25 == 10 { bad() } else { Sent::body("{}") });
    bed.publish_all(all).await;
    eventually("the good ones are stored", SOON, async || worker.settled("stored") == 96).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    assert!(worker.log().contains("\"returned\":4"));
    // The broker counts them when it gets to it.
    bed.settled_depth(&bed.queue(), 4).await;
    assert_eq!(bed.count().await, 96, "those without identity are not stored again either");
    bed.clean().await;
}

#[tokio::test]
async fn the_readers_find_their_indexes_and_types() {
    let bed = Bed::new().await;
    let worker = bed.worker_with(&[("STORE__RETENTION", "90days")]).await;
    bed.publish(&Sent::body(
        "{\"user_id\":\"12\",\"timestamp\":1763800000000,\"uuid\":5,\"status\":true,\"more\":{\"a\":[1]}}",
    ))
    .await;
    worker.has_settled(1).await;
    let document = bed.documents().await.pop().unwrap();
    assert_eq!(document.get("user_id"), Some(&Bson::Int32(12)));
    assert_eq!(document.get("timestamp"), Some(&Bson::Int64(1_763_800_000_000)));
    assert_eq!((document.get_str("uuid").unwrap(), document.get_str("status").unwrap()), ("5", "true"));
    assert_eq!(document.get_document("more").unwrap(), &doc! {"a": [1]});
    assert!(document.get_datetime("ingested_at").is_ok() && document.get_object_id("_id").is_ok());
    let mut names = Vec::new();
    eventually("the indexes are there", Duration::from_secs(20), async || {
        names = bed.collection.list_index_names().await.unwrap();
        names.len() == 6
    })
    .await;
    let database = bed.collection.client().database(&bed.name);
    let explained = database.run_command(
        doc! {"explain": {"find": "log", "filter": {"user_id": 12}, "sort": {"timestamp": -1}, "limit": 50}},
    );
    let plan = format!("{:?}", explained.await.unwrap());
    assert!(plan.contains("IXSCAN") && !plan.contains("COLLSCAN") && !plan.contains("\"SORT\""), "{plan}");
    bed.clean().await;
}
