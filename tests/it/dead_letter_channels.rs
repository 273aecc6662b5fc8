//! Runs over a queue that need several channels, or whose channels RabbitMQ closes or does not allow.

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use crate::harness::{CommandOutput, DedicatedServer, HIGH_LIMIT, ServerKind, TestEnv, TestMessage};

impl TestEnv {
    async fn publish_numbered_dead_letters(&self, count: i32, reason: impl Fn(i32) -> &'static str) {
        let dead_letter = |n: i32| {
            let headers = self.headers(&format!("id-{n}"), reason(n), n);
            (TestMessage::numbered(n).body, BasicProperties::default().with_headers(headers))
        };
        self.publish_dead_letters((0..count).map(dead_letter)).await;
    }

    /// The numbers of the messages in a queue, which it empties.
    async fn take_numbers(&self, queue: &str, count: i32) -> Vec<i32> {
        let number = |id: &AMQPValue| match id {
            AMQPValue::LongString(id) => id.to_string().trim_start_matches("id-").parse().unwrap(),
            other => panic!("{other:?}"),
        };
        let messages = self.take_all_messages(queue).await;
        let numbers: Vec<i32> = messages
            .iter()
            .map(|message| number(&message.properties.headers().as_ref().unwrap().inner()["dl-id"]))
            .collect();
        assert!(numbers.len() <= count as usize, "{queue} has {} messages", numbers.len());
        numbers
    }
}

#[tokio::test]
async fn a_run_with_more_consumers_than_a_channel_keeps_in_order_keeps_the_order() {
    let env = TestEnv::new().await;
    env.replace_dead_letter_queue("quorum", &[HIGH_LIMIT]).await;
    env.publish_numbered_dead_letters(2500, |n| if n % 2000 == 7 { "too_deep" } else { "rejected_by_store" }).await;
    // At this rate a consumer receives 24 messages.
    env.dead_command_succeeds(&["park", "--reason", "too_deep", "--rate", "0.4"]).await;
    assert_eq!(env.take_numbers(&env.parked_queue(), 2).await, [7, 2007]);
    let others: Vec<i32> = (0..2500).filter(|n| n % 2000 != 7).collect();
    assert_eq!(env.take_numbers(&env.dead_letter_queue(), 2498).await, others);
    env.clean().await;
}

#[tokio::test]
async fn a_run_that_rabbitmq_times_out_loses_nothing_and_moves_at_most_a_batch_twice() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, _| {
        std::fs::write(directory.join("extra.terms"), "{rabbit, [{channel_tick_interval, 500}]}").unwrap();
        std::fs::write(directory.join("extra.conf"), "consumer_timeout = 2000\n").unwrap();
    });
    let env = TestEnv::with_dedicated_broker(&broker).await;
    for (queue_type, arguments) in [("classic", &[][..]), ("quorum", &[HIGH_LIMIT])] {
        env.replace_dead_letter_queue(queue_type, arguments).await;
        env.publish_numbered_dead_letters(1500, |n| if n % 3 == 0 { "too_deep" } else { "rejected_by_store" }).await;
        let output = env.dead_command(&["park", "--reason", "too_deep", "--rate", "50"]).await;
        let mut parked = env.take_numbers(&env.parked_queue(), 1500).await;
        let mut left = env.take_numbers(&env.dead_letter_queue(), 1500).await;
        // From 4.3 on, a consumer that was cancelled has no timeout in a quorum queue.
        let is_timed_out = output.code != Some(0);
        assert!(is_timed_out || parked.len() == 500, "{queue_type}: {}", output.err);
        assert!(!is_timed_out || output.err.contains("consumer timeout"), "{queue_type}: {}", output.err);
        parked.append(&mut left);
        parked.sort_unstable();
        // A batch that RabbitMQ confirms while it closes the channel is in both queues, as the command says.
        let (all, batch) = (parked.len(), 50 / 5);
        parked.dedup();
        assert_eq!(parked, (0..1500).collect::<Vec<_>>(), "{queue_type}: none is lost");
        assert!(all <= 1500 + batch, "{queue_type}: {} are in both queues", all - 1500);
    }
    env.clean().await;
}

#[tokio::test]
async fn a_run_of_a_login_with_few_channels_says_so_and_changes_nothing() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let env = TestEnv::with_dedicated_broker(&broker).await;
    env.replace_dead_letter_queue("quorum", &[HIGH_LIMIT]).await;
    env.publish_numbered_dead_letters(5000, |n| if n == 4000 { "too_deep" } else { "rejected_by_store" }).await;
    broker.add_user("few", "secret", Some([".*"; 3]));
    broker.ctl(&["set_user_limits", "few", "{\"max-channels\": 4}"]);
    let mut command = env.build_dead_command(&["park", "--reason", "too_deep"]);
    command.env("TICKETLOG_BROKER__URI", env.broker_uri.replace("guest:guest", "few:secret"));
    let output = CommandOutput::from(command.output().unwrap());
    assert!(output.code == Some(69) && output.err.contains("max-channels"), "{}", output.err);
    assert_eq!(env.take_numbers(&env.dead_letter_queue(), 5000).await.len(), 5000);
    env.clean().await;
}

#[tokio::test]
async fn a_run_keeps_the_order_where_a_connection_may_have_a_hundred_channels() {
    let broker = DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, _| {
        std::fs::write(directory.join("extra.conf"), "channel_max = 100\n").unwrap();
    });
    let env = TestEnv::with_dedicated_broker(&broker).await;
    env.replace_dead_letter_queue("quorum", &[HIGH_LIMIT]).await;
    env.publish_numbered_dead_letters(5000, |n| if n == 4000 { "too_deep" } else { "rejected_by_store" }).await;
    env.dead_command_succeeds(&["park", "--reason", "too_deep"]).await;
    let others: Vec<i32> = (0..5000).filter(|n| *n != 4000).collect();
    assert_eq!(env.take_numbers(&env.dead_letter_queue(), 4999).await, others);
    env.clean().await;
}
