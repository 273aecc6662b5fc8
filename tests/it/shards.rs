//! Several queues behind a consistent-hash exchange (`broker.shards`): one queue becomes four under load, equal messages in different
//! queues, and a broker without the plugin.

use std::time::Duration;

use lapin::options::BasicPublishOptions;

use crate::harness::{DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, Worker, eventually, server_uri};

async fn broker_with_plugin() -> (DedicatedServer, TestEnv) {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
        let plugins = "[rabbitmq_consistent_hash_exchange, rabbitmq_management].";
        std::fs::write(directory.join("enabled_plugins"), plugins).unwrap();
        std::fs::write(directory.join("extra.conf"), format!("management.tcp.port = {}\n", port + 3)).unwrap();
    });
    let env = TestEnv::at(broker.uri(), server_uri("TICKETLOG_STORE__URI")).await;
    (broker, env)
}

async fn worker(env: &TestEnv, shards: &str) -> Worker {
    let worker = env.worker_with(&[("BROKER__SHARDS", shards)]).await;
    worker.wait_until_ready().await;
    worker
}

/// A message with a `message_id`, or without any identity.
fn message(n: i32) -> TestMessage {
    let numbered = TestMessage::numbered(n);
    if n % 2 == 0 { numbered } else { TestMessage::body(numbered.body) }
}

#[tokio::test]
async fn one_queue_becomes_four_under_load_and_each_message_is_stored_once() {
    const EVENTS: i32 = 6_000;
    let (broker, env) = broker_with_plugin().await;
    let mut first = worker(&env, "1").await;
    let publish = async {
        for start in (0..EVENTS).step_by(50) {
            env.publish_all((start..start + 50).map(message)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let grow = async {
        eventually("some are stored", DEADLINE, async || env.count().await > 500).await;
        let mut second = worker(&env, "2").await;
        assert_eq!(first.stop().await.code(), Some(0));
        let before = env.count().await;
        eventually("more are stored", DEADLINE, async || env.count().await > before + 500).await;
        let third = worker(&env, "4").await;
        assert_eq!(second.stop().await.code(), Some(0));
        third
    };
    let (mut four, ()) = tokio::join!(grow, publish);
    eventually("all are stored", DEADLINE, async || env.count().await >= EVENTS as u64).await;
    env.assert_exactly(EVENTS).await;
    assert_eq!(
        four.metrics()["ticketlog_sessions_opened_total"],
        1.0,
        "deliveries of several queues are in the order of their tags"
    );
    let check = |shards: &str| {
        let management = format!("http://127.0.0.1:{}", broker.port() + 3);
        let mut command = env.command();
        command.env("TICKETLOG_BROKER__SHARDS", shards).args(["check", "--management", &management]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text = check("4");
    assert!(text.contains(&format!("queue {}.4 is as configured", env.queue())), "{text}");
    assert!(text.contains(&format!("exchange {}.shards is as configured", env.queue())), "{text}");
    let bound = format!("{}.shards is bound to exchange {} with", env.queue(), env.name);
    assert!(text.contains(&bound), "{text}");
    assert!(!text.contains("does not have the exchange type"), "{text}");
    let text = check("2");
    assert!(text.contains(&format!("queue {}.4 gets a share", env.queue())), "{text}");

    // They are spread, and seen as one queue.
    assert_eq!(four.stop().await.code(), Some(0));
    env.publish_all((EVENTS..EVENTS + 400).map(TestMessage::numbered)).await;
    let queues = [env.queue()].into_iter().chain((2..=4).map(|shard| format!("{}.{shard}", env.queue())));
    let mut depths = Vec::new();
    for queue in queues {
        depths.push(env.depth(&queue).await);
    }
    assert!(depths.iter().sum::<u32>() == 400 && depths.iter().all(|depth| *depth > 20), "{depths:?}");
    four = worker(&env, "4").await;
    eventually("the backlog is stored", DEADLINE, async || env.count().await == EVENTS as u64 + 400).await;
    eventually("the metrics show one queue", DEADLINE, async || {
        let metrics = four.metrics();
        metrics["ticketlog_queue_messages{role=\"work\"}"] == 0.0
            && metrics["ticketlog_queue_consumers{role=\"work\"}"] == 1.0
    })
    .await;
    env.clean().await;
}

#[tokio::test]
async fn equal_messages_in_different_shards_are_stored_once() {
    let (_broker, env) = broker_with_plugin().await;
    let workers = [worker(&env, "3").await, worker(&env, "3").await];
    for n in 0..60 {
        let message = TestMessage::numbered(n);
        for queue in [env.queue(), format!("{}.2", env.queue()), format!("{}.3", env.queue())] {
            let (options, properties) = (BasicPublishOptions::default(), message.properties.clone());
            let publish = env.channel.basic_publish("".into(), queue.into(), options, &message.body, properties);
            publish.await.unwrap().await.unwrap();
        }
    }
    let settled = |outcome: &str| workers.iter().map(|worker| worker.settled(outcome)).sum::<u64>();
    eventually("all are settled", DEADLINE, async || settled("stored") + settled("duplicate") == 180).await;
    assert_eq!((settled("stored"), settled("duplicate")), (60, 120));
    env.assert_exactly(60).await;
    env.clean().await;
}

#[tokio::test]
async fn a_broker_without_the_plugin_is_named() {
    let env = TestEnv::new().await;
    let setup = env.command().env("TICKETLOG_BROKER__SHARDS", "2").arg("setup").output().unwrap();
    let text = String::from_utf8(setup.stderr).unwrap();
    assert!(
        !setup.status.success() && text.contains("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"),
        "{text}"
    );
    let check = env.command().env("TICKETLOG_BROKER__SHARDS", "2").arg("check").output().unwrap();
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(
        check.status.code() == Some(69) && text.contains("does not have the exchange type x-consistent-hash"),
        "{text}"
    );
    assert!(text.contains("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"), "{text}");
    assert!(text.contains("dead_letter.queue"), "the checks after it are made: {text}");
    env.clean().await;
}

/// Works off a queue that no worker consumes any more, and deletes it.
async fn work_off(env: &TestEnv, queue: &str) {
    let settings = [("BROKER__QUEUE", queue), ("BROKER__SHARDS", "1"), ("BROKER__DECLARE", "false")];
    let mut worker = env.worker_with(&settings).await;
    worker.wait_until_ready().await;
    eventually("the queue is empty", DEADLINE, async || {
        env.depth(queue).await == 0 && worker.metrics()["ticketlog_messages_in_flight"] == 0.0
    })
    .await;
    assert_eq!(worker.stop().await.code(), Some(0));
    env.channel.queue_delete(queue.into(), Default::default()).await.unwrap();
}

/// As docs/operate/scaling.md says under "To shrink".
#[tokio::test]
async fn four_queues_become_two_and_then_one_under_load() {
    const EVENTS: i32 = 4_000;
    let (_broker, env) = broker_with_plugin().await;
    let (queue, shards) = (env.queue(), format!("{}.shards", env.queue()));
    let unbind = async |queue: &str| {
        let unbound = env.channel.queue_unbind(queue.into(), shards.as_str().into(), "1".into(), Default::default());
        unbound.await.unwrap();
    };
    let publish = async {
        for start in (0..EVENTS).step_by(50) {
            env.publish_all((start..start + 50).map(message)).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    };
    let shrink = async {
        let mut four = worker(&env, "4").await;
        eventually("some are stored", DEADLINE, async || env.count().await > 300).await;
        let mut two = worker(&env, "2").await;
        assert_eq!(four.stop().await.code(), Some(0));
        for left in [format!("{queue}.3"), format!("{queue}.4")] {
            unbind(&left).await;
            work_off(&env, &left).await;
        }
        unbind(&format!("{queue}.2")).await;
        assert_eq!(two.stop().await.code(), Some(0));
        let one = worker(&env, "1").await;
        work_off(&env, &format!("{queue}.2")).await;
        let (from, key) = (env.name.as_str().into(), "ticket.#".into());
        env.channel
            .exchange_unbind(shards.as_str().into(), from, key, Default::default(), Default::default())
            .await
            .unwrap();
        one
    };
    let (mut one, ()) = tokio::join!(shrink, publish);
    eventually("all are stored", DEADLINE, async || env.count().await >= EVENTS as u64).await;
    env.assert_exactly(EVENTS).await;
    assert_eq!(one.stop().await.code(), Some(0));
    env.clean().await;
}
