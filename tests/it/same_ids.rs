//! Dead letters with the same `dl-id`: they are shown as such, and each is replayed, parked and deleted by itself.

use lapin::BasicProperties;

use crate::harness::{ACK, Action, DEADLINE, Frame, Proxy, TestEnv, TestMessage, eventually};

const CUTS: u32 = 3;

/// Has the worker write several dead letters of this message: the connection is cut before each of the first acks.
async fn reject_several_times(env: &TestEnv, sent: &TestMessage) -> u32 {
    let proxy = Proxy::in_front_of(&env.broker_uri);
    proxy.at(Frame::FromClient(ACK.0, ACK.1), Action::CutBefore, 0, CUTS);
    let uri = proxy.proxied_uri(&env.broker_uri);
    let mut worker = env.worker_with(&[("BROKER__URI", &uri), ("BATCH__LINGER", "1ms")]).await;
    env.publish(sent).await;
    eventually("all cuts have happened", DEADLINE, async || proxy.times_triggered() == CUTS).await;
    eventually("the message is settled", DEADLINE, async || {
        env.depth(&env.queue()).await == 0 && worker.settled("dead_lettered") > 0
    })
    .await;
    worker.stop().await;
    env.depth(&env.dead_letter_queue()).await
}

#[tokio::test]
async fn a_message_with_an_identity_has_one_id_however_often_it_is_dead_lettered() {
    let env = TestEnv::new().await;
    let sent = TestMessage::body("{'n':0}").with(|properties| properties.with_message_id("m".into()));
    let count = reject_several_times(&env, &sent).await;
    assert!(count > 1);
    let listed = env.dead_command_succeeds(&["list", "--json"]).await.json();
    let same: Vec<_> = listed.iter().map(|dead_letter| dead_letter["same_id_as"].as_u64()).collect();
    assert_eq!(same, (0..count).map(|n| (n > 0).then_some(1)).collect::<Vec<_>>(), "{listed:?}");
    let text = env.dead_command_succeeds(&["list"]).await.out;
    assert_eq!(text.matches("same id as @1: ").count(), count as usize - 1, "{text}");
    let stats = &env.dead_command_succeeds(&["stats", "--json"]).await.json()[0];
    assert_eq!((&stats["count"], &stats["same_id"]), (&count.into(), &(count - 1).into()));
    // One of them alone.
    env.dead_command_succeeds(&["park", "--limit", "1"]).await;
    assert_eq!((env.depth(&env.parked_queue()).await, env.depth(&env.dead_letter_queue()).await), (1, count - 1));
    let mut worker = env.worker().await;
    let edit = ["--edit", "gsub(\"'\"; \"\\\"\")", "--no-backup"];
    let replay: Vec<&str> = ["replay", "--yes", "--json"].into_iter().chain(edit).collect();
    let replayed = env.dead_command_succeeds(&replay).await;
    assert_eq!(replayed.json()[0]["replayed"], count - 1, "{replayed:?}");
    worker.wait_until_settled(u64::from(count - 1)).await;
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (1, 0));
    worker.stop().await;
    env.clean().await;
}

/// Equal messages without an identity are different events; storing one of them twice after a crash is allowed, losing one
/// is not.
#[tokio::test]
async fn messages_without_an_identity_stay_as_many_as_they_are() {
    let env = TestEnv::new().await;
    let sent = TestMessage::body("{\"a\":{}}");
    let strict = [("EVENT__MAX_DEPTH", "1")];
    let mut worker = env.worker_with(&strict).await;
    for _ in 0..3 {
        env.publish(&sent).await;
    }
    worker.wait_until_settled(3).await;
    // The replay becomes dead letters again, whose ids still tell them apart.
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    worker.wait_until_settled(6).await;
    worker.stop().await;
    let ids = |listed: Vec<serde_json::Value>| {
        listed.iter().map(|dead_letter| dead_letter["id"].to_string()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(ids(env.dead_command_succeeds(&["list", "--json"]).await.json()), 3);
    env.dead_command_succeeds(&["park"]).await;
    env.dead_command_succeeds(&["unpark"]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.ndjson");
    let file = file.to_str().unwrap();
    env.dead_command_succeeds(&["export", file]).await;
    env.dead_command_succeeds(&["purge", "--yes", "--no-backup"]).await;
    env.dead_command_succeeds(&["import", file]).await;
    let mut worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    worker.wait_until_settled(3).await;
    assert_eq!((env.count().await, worker.settled("stored")), (3, 3));
    worker.stop().await;
    env.clean().await;
}

/// Anybody who may publish can write a `dl-id`.
#[tokio::test]
async fn a_forged_id_takes_no_other_dead_letter_with_it() {
    let env = TestEnv::new().await;
    let dead_letter = |message_id: &str, body: &str| {
        let properties = BasicProperties::default().with_message_id(message_id.into());
        (body.as_bytes().to_vec(), properties.with_headers(env.headers("same", "rejected_by_store", 1)))
    };
    let dead_letters =
        [dead_letter("m", "{\"a\":1}"), dead_letter("m", "{\"a\":2}"), dead_letter("other", "{\"a\":1}")];
    env.publish_dead_letters(dead_letters).await;
    let purged = env.dead_command_succeeds(&["purge", "--limit", "1", "--yes", "--no-backup"]).await;
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 2, "{purged:?}");
    let mut worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes", "--id", "same"]).await;
    worker.wait_until_settled(2).await;
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (2, 0));
    worker.stop().await;
    env.clean().await;
}
