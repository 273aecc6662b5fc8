//! The circuit breaker: events that MongoDB rejects never stop those that it accepts, neither when they are replayed nor while
//! they are held, and it closes once nothing speaks for it any more.

use std::collections::BTreeMap;

use bson::doc;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use crate::harness::{DEADLINE, TestEnv, TestMessage, Worker, eventually};

/// Fewer messages fill it than a test publishes.
const SMALL_PREFETCH: [(&str, &str); 2] = [("BROKER__PREFETCH", "200"), ("BATCH__MAX_EVENTS", "20")];

/// An environment whose collection rejects `bad` messages as `duplicate_key`.
async fn with_unique_index() -> TestEnv {
    let env = TestEnv::new().await;
    let options = IndexOptions::builder().unique(true).sparse(true).build();
    env.collection.create_index(IndexModel::builder().keys(doc! {"only": 1}).options(options).build()).await.unwrap();
    env.collection.insert_one(doc! {"only": 1}).await.unwrap();
    env
}

fn bad(n: i32) -> TestMessage {
    let message = TestMessage::body(format!("{{\"only\":1,\"bad\":{n}}}"));
    message.with(|properties| properties.with_message_id(format!("bad-{n}").into()))
}

/// As a replay by a login that is not in `dead_letter.operators` sends it: marked, but not with a user that is trusted.
fn replayed_by_a_stranger(env: &TestEnv, n: i32) -> TestMessage {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let headers: BTreeMap<ShortString, AMQPValue> = [
        ("dl-replay-id", text("r1")),
        ("dl-replays", AMQPValue::LongLongInt(1)),
        ("dl-first-id", text(&format!("first-{n}"))),
        ("dl-exchange", text(&env.name)),
        ("dl-routing-key", text("ticket.test")),
    ]
    .map(|(name, value)| (name.into(), value))
    .into();
    bad(n).with(|properties| properties.with_headers(FieldTable::from(headers)))
}

fn is_open(worker: &Worker) -> bool {
    worker.metrics()["ticketlog_breaker_open"] == 1.0
}

#[tokio::test]
async fn a_replay_whose_cause_still_holds_stops_no_other_event() {
    const BAD: i32 = 600;
    let env = with_unique_index().await;
    let worker = env.worker_with(&SMALL_PREFETCH).await;
    // Enough are good that it stays closed.
    env.publish_all((0..BAD).flat_map(|n| [bad(n), TestMessage::numbered(n)])).await;
    worker.wait_until_settled(2 * BAD as u64).await;
    env.wait_for_depth(&env.dead_letter_queue(), BAD as u32).await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    env.publish_all((BAD..BAD + 300).map(TestMessage::numbered)).await;
    worker.wait_until_settled(3 * BAD as u64 + 300).await;
    assert_eq!((env.count().await, worker.settled("dead_lettered")), (BAD as u64 + 301, 2 * BAD as u64));
    env.wait_for_depth(&env.dead_letter_queue(), BAD as u32).await;
    // The same without a login that the worker trusts.
    env.publish_all((0..BAD).map(|n| replayed_by_a_stranger(&env, n))).await;
    env.publish_all((BAD + 300..BAD + 600).map(TestMessage::numbered)).await;
    worker.wait_until_settled(4 * BAD as u64 + 600).await;
    assert_eq!((env.count().await, worker.settled("dead_lettered")), (BAD as u64 + 601, 3 * BAD as u64));
    assert!(!is_open(&worker));
    worker.wait_until_ready().await;
    env.clean().await;
}

#[tokio::test]
async fn replayed_messages_become_dead_letters_again_while_the_breaker_is_open() {
    let env = with_unique_index().await;
    let worker = env.worker().await;
    env.publish_all((0..150).map(bad)).await;
    eventually("the breaker opens", DEADLINE, async || is_open(&worker)).await;
    let before = worker.settled("dead_lettered");
    env.publish_all((1_000..1_300).map(|n| replayed_by_a_stranger(&env, n))).await;
    eventually("they are dead letters", DEADLINE, async || worker.settled("dead_lettered") >= before + 300).await;
    assert!(is_open(&worker));
    env.clean().await;
}

#[tokio::test]
async fn held_events_do_not_keep_good_ones_waiting() {
    let env = with_unique_index().await;
    let worker = env.worker_with(&SMALL_PREFETCH).await;
    env.publish_all((0..400).map(bad)).await;
    eventually("the breaker opens", DEADLINE, async || is_open(&worker)).await;
    env.publish_all((0..200).map(TestMessage::numbered)).await;
    eventually("the good ones are stored", DEADLINE, async || env.count().await == 201).await;
    worker.wait_until_settled(600).await;
    worker.wait_until_ready().await;
    assert_eq!((worker.settled("stored"), worker.settled("dead_lettered")), (200, 400));
    assert_eq!(worker.settled("returned"), 0);
    env.clean().await;
}

#[tokio::test]
async fn it_closes_when_a_probe_passes_and_nothing_is_held() {
    let env = TestEnv::new().await;
    let database = env.client.database(&env.name);
    let validator = |rule| doc! {"collMod": "log", "validator": rule};
    database.run_command(validator(doc! {"never": true})).await.unwrap();
    let worker = env.worker_with(&[("BATCH__MAX_EVENTS", "10")]).await;
    env.publish_all((0..103).map(TestMessage::numbered)).await;
    eventually("the breaker opens", DEADLINE, async || is_open(&worker)).await;
    let partial = || worker.metrics()["ticketlog_store_write_duration_seconds_count{outcome=\"partial\"}"];
    let before = partial();
    eventually("the few that are held are tried again and again", DEADLINE, async || partial() >= before + 20.0).await;
    database.run_command(validator(doc! {})).await.unwrap();
    // No further event comes.
    eventually("the breaker closes", DEADLINE, async || !is_open(&worker)).await;
    worker.wait_until_settled(103).await;
    let dead = worker.settled("dead_lettered");
    assert!((90..103).contains(&dead), "{dead} dead letters");
    worker.wait_until_ready().await;
    env.clean().await;
}

#[tokio::test]
async fn what_is_held_for_too_long_becomes_dead_letters_and_is_no_outage() {
    let env = with_unique_index().await;
    let times = [("RETRY__REQUEUE_AFTER", "8s"), ("STORE__WRITE_TIMEOUT", "2s"), ("RETRY__MAX", "100ms")];
    let worker = env.worker_with(&times).await;
    env.publish_all((0..150).map(bad)).await;
    eventually("the breaker opens", DEADLINE, async || is_open(&worker)).await;
    worker.wait_until_settled(150).await;
    assert_eq!((worker.settled("dead_lettered"), worker.settled("returned")), (150, 0));
    assert!(!worker.log().contains("outage") && !worker.get("/readyz").1.contains("broker:"), "{}", worker.log());
    // No further event comes, and nothing is held.
    eventually("the breaker leaves it to the next event", DEADLINE, async || !is_open(&worker)).await;
    worker.wait_until_ready().await;
    env.publish(&bad(1_000)).await;
    eventually("the breaker is open again", DEADLINE, async || is_open(&worker)).await;
    assert_eq!(worker.settled("dead_lettered"), 150, "the event is held");
    // The next event that MongoDB accepts closes it.
    env.publish(&TestMessage::numbered(0)).await;
    eventually("the breaker closes", DEADLINE, async || !is_open(&worker)).await;
    worker.wait_until_settled(152).await;
    worker.wait_until_ready().await;
    env.clean().await;
}
