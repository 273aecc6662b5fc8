//! What checks leave behind, and what they do not touch.

use std::collections::BTreeMap;

use bson::doc;
use lapin::options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::{assert_ended, check, run, start};
use crate::harness::{TestEnv, TestMessage};

/// What a killed check left is known by its mark, and what others published is not taken for it.
#[tokio::test]
async fn the_next_check_removes_what_a_killed_one_left_and_nothing_else() {
    let env = TestEnv::new().await;
    let mut killed = start(check(&env, &[]));
    env.wait_for_depth(&env.queue(), 1).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The lock of the desk keeps another check from reading its dead letter.
    let mut killed = start(check(&env, &["--dead-letter"]));
    env.wait_for_depth(&env.queue(), 2).await;
    let lock = format!("{}.desk", env.dead_letter_queue());
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    env.channel.queue_declare(lock.as_str().into(), exclusive, FieldTable::default()).await.unwrap();
    let worker = env.worker().await;
    env.wait_for_depth(&env.dead_letter_queue(), 1).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    env.channel.queue_delete(lock.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let left = env.documents().await.remove(0);
    // The same words in an event of a publisher, and in a dead letter.
    let words: String =
        serde_json::to_string(&left.iter().filter(|(name, _)| *name != "_id").collect::<BTreeMap<_, _>>()).unwrap();
    env.publish(&TestMessage::body(words).with(|it| it.with_app_id("ticketlog-check".into()))).await;
    let id = format!("ticketlog-check-{}", left.get_str("ticketlog-check").unwrap());
    let with_id = |body: &str| {
        TestMessage::body(body).with(|it| it.with_message_id(id.as_str().into()).with_app_id("ticketlog-check".into()))
    };
    env.publish(&with_id("not json")).await;
    worker.wait_until_settled(5).await;
    let mut next = check(&env, &[]);
    next.env("TICKETLOG_LOG__FILTER", "info");
    let mut next = run(next).await;
    let log = std::mem::take(&mut next.err);
    assert!(log.contains("dead letters: purge begun") && log.contains("dead letters: purge done"), "{log}");
    assert_ended(&next, 0, "ok    left over  deleted 1 document and 1 dead letter of earlier checks");
    assert_ended(&next, 0, "warn  left over  1 document with the field ticketlog-check, not as a check");
    let stored = env.documents().await;
    assert_eq!(stored.len(), 1, "{stored:#?}");
    assert_ne!(stored[0].get_object_id("_id").unwrap(), left.get_object_id("_id").unwrap());
    let dead = env.take_dead_letters(1).await;
    assert_eq!(dead[0].body, b"not json");
    env.clean().await;
}

/// 32-bit ids that overflowed become 2147483647: such documents are neither read nor in the way.
#[tokio::test]
async fn many_documents_of_a_usual_user_hide_nothing() {
    let env = TestEnv::new().await;
    let mut killed = start(check(&env, &[]));
    env.wait_for_depth(&env.queue(), 1).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let worker = env.worker().await;
    worker.wait_until_settled(1).await;
    let foreign = doc! { "user_id": i32::MAX, "timestamp": i64::MAX, "ticketlog-check": 1 };
    env.collection.insert_many(vec![foreign; 1001]).await.unwrap();
    let next = run(check(&env, &[])).await;
    assert_ended(&next, 0, "ok    left over  deleted 1 document and 0 dead letters of earlier checks");
    assert_ended(&next, 0, "5 ok, 0 warnings, 0 failures");
    assert_eq!(env.documents().await.len(), 1001);
    env.clean().await;
}

/// Otherwise each check would leave one more dead letter.
#[tokio::test]
async fn nothing_is_published_whose_dead_letter_could_not_be_deleted() {
    let env = TestEnv::new().await;
    let absent = run(check(&env, &["--audit-file", "/nowhere/audit", "--timeout", "1s"])).await;
    assert_ended(&absent, 65, "fail  dead letter  /nowhere/audit cannot be written: ");
    env.replace_dead_letter_queue("quorum", &[("x-delivery-limit", AMQPValue::LongLongInt(20))]).await;
    let unsafe_queue = run(check(&env, &["--dead-letter", "--timeout", "1s"])).await;
    assert_ended(&unsafe_queue, 65, &format!("fail  dead letter  queue {} cannot be browsed", env.dead_letter_queue()));
    env.assert_empty().await;
    env.clean().await;
}

/// Reading it takes long, and keeps operators from it.
#[tokio::test]
async fn a_long_dead_letter_queue_is_read_only_with_dead_letter() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(1001).await;
    env.wait_for_depth(&env.dead_letter_queue(), 1001).await;
    let no_worker = run(check(&env, &["--timeout", "300ms"])).await;
    assert_ended(&no_worker, 75, "fail  store    no worker has stored it after 300ms: no worker consumes queue ");
    env.wait_for_depth(&env.dead_letter_queue(), 1001).await;
    let options = BasicGetOptions { no_ack: true };
    let first = env.channel.basic_get(env.dead_letter_queue().into(), options).await.unwrap().unwrap();
    assert!(!first.delivery.redelivered, "it was read");
    env.clean().await;
}
