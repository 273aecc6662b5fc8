//! Which dead letters a run over a queue moves: those that were in the queue when it began, each once, whatever the clocks say,
//! whoever is logged in, and whatever arrives or is requeued meanwhile.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use crate::harness::{
    CommandOutput, DEADLINE, DedicatedServer, HIGH_LIMIT, ServerKind, TestEnv, TestMessage, Worker, eventually,
    shift_clock,
};

/// An event that the worker rejects: `user_id` expects a number.
fn rejected(n: usize, has_message_id: bool) -> TestMessage {
    let message = TestMessage::body(format!("{{\"n\":{n},\"user_id\":[{n}]}}"));
    if has_message_id {
        message.with(|properties| properties.with_message_id(format!("m-{n}").into()))
    } else {
        message
    }
}

/// A command as another user of the broker.
fn as_user(mut command: Command, env: &TestEnv, user: &str) -> Command {
    command.env("TICKETLOG_BROKER__URI", env.broker_uri.replace("guest:guest", &format!("{user}:secret")));
    command
}

async fn run(mut command: Command) -> CommandOutput {
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}

/// Every body must be in the queue once, and nothing else. Empties the queue.
async fn assert_bodies(env: &TestEnv, queue: &str, count: usize, context: &str) {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for message in env.take_all_messages(queue).await {
        *found.entry(String::from_utf8(message.body).unwrap()).or_default() += 1;
    }
    let expected: Vec<String> = (0..count).map(|n| String::from_utf8(rejected(n, false).body).unwrap()).collect();
    let lost: Vec<_> = expected.iter().filter(|body| !found.contains_key(*body)).collect();
    let more: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!(
        (found.len(), lost.len(), more.len()),
        (count, 0, 0),
        "{context}: lost {lost:?}, several times {more:?}"
    );
}

const COUNT: usize = 150;

/// The cause still holds, so that each message that is replayed becomes a dead letter again while the replay runs.
#[tokio::test]
async fn a_replay_loses_nothing_whatever_the_clocks_say_and_whoever_is_logged_in() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let env = TestEnv::with_dedicated_broker(&broker).await;
    for user in ["worker", "operator"] {
        broker.add_user(user, "secret", Some([".*"; 3]));
    }
    for (seconds, operators) in [(-60, "operator"), (-2, ""), (2, ""), (60, "operator")] {
        let mut command = as_user(env.command(), &env, "worker");
        command.env("TICKETLOG_DEAD_LETTER__OPERATORS", operators).env("TICKETLOG_DEAD_LETTER__MAX_REPLAYS", "100");
        shift_clock(&mut command, seconds);
        let mut worker = Worker::start(command).await;
        let mut settled = 0;
        for (has_message_id, rate) in [(true, None), (false, Some("600"))] {
            let context = format!("{seconds} s, operators {operators:?}, message_id {has_message_id}, rate {rate:?}");
            env.publish_all((0..COUNT).map(|n| rejected(n, has_message_id))).await;
            settled += COUNT as u64;
            worker.wait_until_settled(settled).await;
            for _ in 0..2 {
                let rate = rate.iter().flat_map(|rate| ["--rate", rate]);
                let arguments: Vec<&str> = ["replay", "--yes", "--json"].into_iter().chain(rate).collect();
                let output = run(as_user(env.build_dead_command(&arguments), &env, "operator")).await;
                assert_eq!(output.code, Some(0), "{context}: {output:?}");
                assert_eq!(output.json()[0]["replayed"], COUNT, "{context}: {output:?}");
                settled += COUNT as u64;
                worker.wait_until_settled(settled).await;
            }
            assert_bodies(&env, &env.dead_letter_queue(), COUNT, &context).await;
            assert_eq!((env.depth(&env.queue()).await, env.depth(&env.parked_queue()).await), (0, 0), "{context}");
        }
        worker.stop().await;
    }
    assert_eq!(env.count().await, 0);
    env.clean().await;
}

/// What arrives while a run is under way stays, though it overtakes what is left (priorities, on RabbitMQ 4) and says that
/// it is older.
#[tokio::test]
async fn what_arrives_during_a_run_stays() {
    let env = TestEnv::new().await;
    let dead_letter = |name: &str, n: i32, priority: u8| {
        let properties = BasicProperties::default().with_priority(priority);
        (TestMessage::numbered(n).body, properties.with_headers(env.headers(&format!("{name}-{n}"), "too_deep", n)))
    };
    for (queue_type, arguments) in
        [("quorum", vec![HIGH_LIMIT]), ("classic", vec![("x-max-priority", AMQPValue::LongLongInt(9))])]
    {
        env.replace_dead_letter_queue(queue_type, &arguments).await;
        for command in ["replay", "park"] {
            env.publish_dead_letters((0..300).map(|n| dead_letter("early", n, (n % 8) as u8))).await;
            let arguments: &[&str] =
                if command == "replay" { &["replay", "--yes", "--rate", "150"] } else { &["park", "--rate", "150"] };
            let mut run = env.build_dead_command(arguments);
            let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let target = if command == "replay" { env.queue() } else { env.parked_queue() };
            eventually("it has begun", DEADLINE, async || env.depth(&target).await > 0).await;
            env.publish_dead_letters((0..100).map(|n| dead_letter("late", n, 9))).await;
            let output: CommandOutput = run.wait_with_output().unwrap().into();
            assert_eq!(output.code, Some(0), "{queue_type} {command}: {output:?}");
            env.wait_for_depth(&env.dead_letter_queue(), 100).await;
            assert_eq!(env.depth(&target).await, 300, "{queue_type} {command}");
            let left = env.dead_command_succeeds(&["list", "--json"]).await.json();
            assert!(
                left.iter().all(|dead_letter| dead_letter["id"].as_str().unwrap().starts_with("late-")),
                "{left:?}"
            );
            for queue in [env.dead_letter_queue(), target] {
                env.channel.queue_purge(queue.into(), Default::default()).await.unwrap();
            }
        }
    }
    env.clean().await;
}

#[tokio::test]
async fn what_another_reader_still_holds_is_not_missed() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(300).await;
    let channel = env.connection.create_channel().await.unwrap();
    channel.basic_qos(100, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let tag = "earlier".into();
    let consumer = channel.basic_consume(env.dead_letter_queue().into(), tag, options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    for _ in 0..100 {
        consumer.next().await.unwrap().unwrap();
    }
    channel.basic_cancel("earlier".into(), Default::default()).await.unwrap();
    let replay = env.dead_command_succeeds(&["replay", "--yes", "--json"]);
    let release = async {
        // The lock of `ticketlog dead` is an exclusive queue, which another connection may not look up.
        let is_locked = async || {
            let channel = env.connection.create_channel().await.unwrap();
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let name = format!("{}.desk", env.dead_letter_queue());
            let refused = channel.queue_declare(name.into(), options, FieldTable::default()).await;
            refused.is_err_and(|error| error.to_string().contains("RESOURCE"))
        };
        eventually("the replay has begun", DEADLINE, is_locked).await;
        channel.close(200, "".into()).await.unwrap();
    };
    let (output, ()) = tokio::join!(replay, release);
    assert_eq!(output.json()[0]["replayed"], 300, "{output:?}");
    assert_eq!((env.depth(&env.queue()).await, env.depth(&env.dead_letter_queue()).await), (300, 0));
    env.clean().await;
}

#[tokio::test]
async fn dead_letters_that_another_client_takes_during_a_run_are_an_error() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(300).await;
    let mut replay = env.build_dead_command(&["replay", "--yes", "--json", "--rate", "20"]);
    let replay = replay.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it has begun", DEADLINE, async || env.depth(&env.queue()).await > 0).await;
    // It takes what the replay does not hold yet.
    let channel = env.connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let (queue, tag) = (env.dead_letter_queue(), "other");
    let consumer = channel.basic_consume(queue.as_str().into(), tag.into(), options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    env.wait_for_depth(&queue, 0).await;
    channel.basic_cancel(tag.into(), Default::default()).await.unwrap();
    let mut taken = 0;
    while consumer.next().await.is_some() {
        taken += 1;
    }
    let output: CommandOutput =
        tokio::task::spawn_blocking(|| replay.wait_with_output().unwrap().into()).await.unwrap();
    assert_eq!(output.code, Some(75), "{output:?}");
    assert!(output.err.contains(&format!("{taken} of the dead letters")), "{taken}: {output:?}");
    assert_eq!(output.json()[0]["replayed"], 300 - taken);
    env.clean().await;
}

/// Version 0.2.0 gave equal messages without an identity one `dl-id`, and each of their dead letters a `dl-copy-id`.
#[tokio::test]
async fn dead_letters_of_the_previous_release_stay_as_many_events_as_they_are() {
    let env = TestEnv::new().await;
    let dead_letter = |unique: &str| {
        let mut headers = env.headers("same", "too_deep", 1).inner().clone();
        headers.insert("dl-copy-id".into(), AMQPValue::LongString(unique.into()));
        (b"{\"a\":1}".to_vec(), BasicProperties::default().with_headers(headers.into()))
    };
    env.publish_dead_letters(["one", "two", "two"].map(dead_letter)).await;
    let mut worker = env.worker().await;
    let output = env.dead_command_succeeds(&["replay", "--yes", "--json"]).await;
    assert_eq!(output.json()[0]["replayed"], 3);
    worker.wait_until_settled(3).await;
    assert_eq!((env.count().await, worker.settled("duplicate")), (2, 1));
    worker.stop().await;
    env.clean().await;
}

/// RabbitMQ closes the channel for each message to an internal exchange, and forgets the confirms that it still owes.
#[tokio::test]
async fn nothing_is_sent_twice_because_the_channel_is_closed_for_another() {
    let env = TestEnv::new().await;
    let internal = format!("{}.internal", env.name);
    let options = ExchangeDeclareOptions { internal: true, ..Default::default() };
    let declare = env.channel.exchange_declare(
        internal.as_str().into(),
        lapin::ExchangeKind::Fanout,
        options,
        Default::default(),
    );
    declare.await.unwrap();
    let dead_letter = |n: i32| {
        let mut headers = env.headers(&format!("id-{n}"), "too_deep", n).inner().clone();
        if n % 100 == 50 {
            headers.insert("dl-exchange".into(), AMQPValue::LongString(internal.as_str().into()));
        }
        // The later, the larger.
        let body = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(usize::try_from(n / 40).unwrap()));
        (body.into_bytes(), BasicProperties::default().with_headers(headers.into()))
    };
    env.publish_dead_letters((0..400).map(dead_letter)).await;
    let replayed = env.dead_command(&["replay", "--yes", "--json"]).await;
    assert_eq!((replayed.code, &replayed.json()[0]["replayed"]), (Some(69), &396.into()), "{replayed:?}");
    assert!(replayed.err.contains("cannot publish to internal exchange"), "{replayed:?}");
    env.wait_for_depth(&env.dead_letter_queue(), 4).await;
    env.wait_for_depth(&env.queue(), 396).await;
    env.channel.exchange_delete(internal.into(), ExchangeDeleteOptions::default()).await.unwrap();
    env.clean().await;
}

#[tokio::test]
async fn a_run_that_removes_some_keeps_the_others_in_order_and_each_with_its_headers() {
    let env = TestEnv::new().await;
    for (queue_type, arguments) in [("quorum", &[HIGH_LIMIT][..]), ("classic", &[])] {
        env.replace_dead_letter_queue(queue_type, arguments).await;
        // More than a channel of the run holds.
        let dead_letter = |n: i32| {
            let reason = if n % 3 == 0 { "too_deep" } else { "rejected_by_store" };
            let properties = BasicProperties::default().with_headers(env.headers(&format!("id-{n}"), reason, n));
            (TestMessage::numbered(n).body, properties)
        };
        env.publish_dead_letters((0..4000).map(dead_letter)).await;
        env.dead_command_succeeds(&["park", "--reason", "too_deep"]).await;
        for (queue, is_parked) in [(env.dead_letter_queue(), false), (env.parked_queue(), true)] {
            let messages = env.take_all_messages(&queue).await;
            let numbers: Vec<i32> = (0..4000).filter(|n| (n % 3 == 0) == is_parked).collect();
            assert_eq!(messages.len(), numbers.len(), "{queue_type}");
            for (message, n) in messages.iter().zip(numbers) {
                assert_eq!(message.body, TestMessage::numbered(n).body, "{queue_type}: the order");
                let headers = message.properties.headers().as_ref().unwrap().inner();
                assert_eq!(headers["dl-id"], AMQPValue::LongString(format!("id-{n}").into()), "{queue_type}");
            }
        }
    }
    env.clean().await;
}
