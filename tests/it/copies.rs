//! Copies of a dead letter: one bad message is one dead letter for `ticketlog dead`, however often the worker had to write
//! it.

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use crate::harness::{ACK, Action, DEADLINE, Frame, Proxy, TestEnv, TestMessage, eventually};

const CUTS: u32 = 6;

/// Copies of the dead letter of this message: the connection is cut before each of the first acks.
async fn write_copies(env: &TestEnv, sent: &TestMessage) -> u32 {
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
async fn one_bad_message_is_one_dead_letter_however_often_its_acks_are_lost() {
    let env = TestEnv::new().await;
    let with_id = TestMessage::body("{'with':1}").with(|properties| properties.with_message_id("m".into()));
    for sent in [with_id, TestMessage::body("{'without':1}")] {
        let messages = write_copies(&env, &sent).await;
        assert!(messages > 1, "no copy was written");
        let listed = env.dead_command_succeeds(&["list", "--json"]).await;
        let copies = format!("{} more are copies of these", messages - 1);
        assert!(listed.json().len() == 1 && listed.err.contains(&copies), "{listed:?}");
        let stats = &env.dead_command_succeeds(&["stats", "--json"]).await.json()[0];
        assert_eq!((&stats["count"], &stats["copies"]), (&1.into(), &(messages - 1).into()));
        env.dead_command_succeeds(&["park"]).await;
        assert_eq!((env.depth(&env.parked_queue()).await, env.depth(&env.dead_letter_queue()).await), (1, 0));
        env.dead_command_succeeds(&["purge", "--parked", "--yes", "--no-backup"]).await;
    }
    env.clean().await;
}

#[tokio::test]
async fn copies_are_replayed_as_one() {
    let env = TestEnv::new().await;
    let messages = write_copies(&env, &TestMessage::body("{'n':0}")).await;
    let id = env.dead_command_succeeds(&["list", "--json"]).await.json()[0]["id"].as_str().unwrap().to_owned();
    let mut worker = env.worker().await;
    let replay = ["replay", "--yes", "--json", "--id", &id, "--edit", "gsub(\"'\"; \"\\\"\")", "--no-backup"];
    let replayed = env.dead_command_succeeds(&replay).await;
    let left = format!("{} more were copies of these", messages - 1);
    assert!(replayed.json()[0]["replayed"] == 1 && replayed.err.contains(&left), "{replayed:?}");
    worker.wait_until_settled(1).await;
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (1, 0));
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn equal_messages_without_an_identity_are_dead_letters_of_their_own() {
    let env = TestEnv::new().await;
    let mut strict = env.worker_with(&[("EVENT__MAX_DEPTH", "1")]).await;
    for _ in 0..3 {
        env.publish(&TestMessage::body("{\"a\":{}}")).await;
    }
    strict.wait_until_settled(3).await;
    strict.stop().await;
    let listed = env.dead_command_succeeds(&["list", "--json"]).await.json();
    assert!(listed.len() == 3 && listed.iter().all(|letter| letter["id"] == listed[0]["id"]), "{listed:?}");
    let mut worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    worker.wait_until_settled(3).await;
    assert_eq!(env.count().await, 3);
    worker.stop().await;
    env.clean().await;
}

/// The second may be a copy of the first until the third, which has the same count, shows that there are several messages.
#[tokio::test]
async fn what_may_be_a_copy_stays_while_the_queue_is_not_read_to_its_end() {
    let env = TestEnv::new().await;
    let letter = |count: i64| {
        let mut headers = env.headers("same", "rejected_by_store", 1).inner().clone();
        headers.insert("dl-delivery-count".into(), AMQPValue::LongLongInt(count));
        (b"{\"a\":1}".to_vec(), BasicProperties::default().with_headers(headers.into()))
    };
    for (arguments, moved) in [(&["park", "--limit", "1"][..], 1), (&["park", "--limit", "2"], 2), (&["park"], 3)] {
        env.publish_dead_letters([0, 1, 0].map(letter)).await;
        env.dead_command_succeeds(arguments).await;
        let left = (env.depth(&env.dead_letter_queue()).await, env.depth(&env.parked_queue()).await);
        assert_eq!(left, (3 - moved, moved), "{arguments:?}");
        for queue in [env.dead_letter_queue(), env.parked_queue()] {
            env.channel.queue_purge(queue.into(), Default::default()).await.unwrap();
        }
    }
    env.clean().await;
}

/// Anybody who may publish can write a `dl-id`: a message is a copy only if all of it is the same.
#[tokio::test]
async fn a_forged_id_takes_no_other_dead_letter_with_it() {
    let env = TestEnv::new().await;
    let letter = |message_id: &str, body: &str| {
        let properties = BasicProperties::default().with_message_id(message_id.into());
        (body.as_bytes().to_vec(), properties.with_headers(env.headers("same", "rejected_by_store", 1)))
    };
    let letters = [letter("m", "{\"a\":1}"), letter("m", "{\"a\":2}"), letter("other", "{\"a\":1}")];
    env.publish_dead_letters(letters).await;
    let purged = env.dead_command_succeeds(&["purge", "--limit", "1", "--yes", "--no-backup"]).await;
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 2, "{purged:?}");
    let mut worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes", "--id", "same"]).await;
    worker.wait_until_settled(2).await;
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (2, 0));
    worker.stop().await;
    env.clean().await;
}
