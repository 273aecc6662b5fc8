//! Owns the operator's side of a test: dead letters that the test publishes itself, `ticketlog dead` commands, and a
//! client that reads a queue by emptying it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};

use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::TestEnv;

/// The argument of a quorum queue that may be browsed: from 4.0 on, the default is 20.
pub const HIGH_LIMIT: (&str, AMQPValue) = ("x-delivery-limit", AMQPValue::LongLongInt(50_000));

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        CommandOutput {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl CommandOutput {
    /// The JSON objects that it printed, one a line.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A message as a plain client receives it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedMessage {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl TestEnv {
    pub fn parked_queue(&self) -> String {
        format!("{}.parked", self.name)
    }

    /// `ticketlog dead …`. It logs errors only, because without the management API it warns of unknown policies.
    pub fn build_dead_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.operator_command();
        command.arg("dead").args(arguments).stdin(Stdio::null()).env("TICKETLOG_LOG__FILTER", "error");
        command
    }

    /// Runs `ticketlog dead …` on a thread of its own.
    pub async fn dead_command(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = self.build_dead_command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    }

    /// The same, expected to succeed.
    pub async fn dead_command_succeeds(&self, arguments: &[&str]) -> CommandOutput {
        let output = self.dead_command(arguments).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output
    }

    pub fn start_dead_command(&self, arguments: &[&str]) -> Child {
        let mut command = self.build_dead_command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Replaces the dead-letter queue by an empty one of this type, with further arguments.
    pub async fn replace_dead_letter_queue(&self, queue_type: &str, further: &[(&str, AMQPValue)]) {
        self.channel.queue_delete(self.dead_letter_queue().into(), QueueDeleteOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
        for (name, value) in further {
            arguments.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(self.dead_letter_queue().into(), options, arguments).await.unwrap();
        let (queue, exchange) = (self.dead_letter_queue(), format!("{}.dlx", self.name));
        let key = queue.as_str();
        let binding =
            self.channel.queue_bind(key.into(), exchange.into(), key.into(), Default::default(), FieldTable::default());
        binding.await.unwrap();
    }

    /// Puts messages into the dead-letter queue as the worker would.
    pub async fn publish_dead_letters(&self, dead_letters: impl IntoIterator<Item = (Vec<u8>, BasicProperties)>) {
        let mut confirms = Vec::new();
        let queue = self.dead_letter_queue();
        for (body, properties) in dead_letters {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let properties = properties.with_delivery_mode(2);
            confirms.push(
                self.channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await.unwrap(),
            );
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }

    /// Publishes dead letters whose events are valid, numbered from 0. Every third has no identity of its own.
    pub async fn publish_good_dead_letters(&self, count: i32) {
        let dead_letter = |n: i32| {
            let sent = super::TestMessage::numbered(n);
            let properties = if n % 3 == 0 { BasicProperties::default() } else { sent.properties };
            (sent.body, properties.with_headers(self.headers(&format!("id-{n}"), "rejected_by_store", n)))
        };
        self.publish_dead_letters((0..count).map(dead_letter)).await;
    }

    /// The headers that the worker adds to a dead letter.
    pub fn headers(&self, id: &str, reason: &str, time: i32) -> FieldTable {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let headers: BTreeMap<ShortString, AMQPValue> = [
            ("dl-version", AMQPValue::LongLongInt(1)),
            ("dl-id", text(id)),
            ("dl-reason", text(reason)),
            ("dl-detail", text("of a test")),
            ("dl-time", AMQPValue::LongLongInt(i64::from(time))),
            ("dl-exchange", text(&self.name)),
            ("dl-routing-key", text("ticket.test")),
            ("dl-fingerprint", text("0000000000000001")),
            ("dl-replays", AMQPValue::LongLongInt(0)),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        headers.into()
    }

    /// Takes all messages out of a queue, in their order, without the headers that the broker adds.
    pub async fn take_all_messages(&self, queue: &str) -> Vec<QueuedMessage> {
        let expected = self.depth(queue).await as usize;
        // On a channel of its own: when it closes, the broker requeues any further deliveries.
        let channel = self.connection.create_channel().await.unwrap();
        let consumer =
            channel.basic_consume(queue.into(), "all".into(), BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = consumer.await.unwrap();
        let mut taken = Vec::with_capacity(expected);
        while taken.len() < expected {
            let delivery = consumer.next().await.unwrap().unwrap();
            // One ack for many messages, but none for deliveries after the last expected one.
            if taken.len() + 1 == expected || taken.len() % 200 == 199 {
                delivery.acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
            }
            let mut headers = delivery.properties.headers().clone().unwrap_or_default().inner().clone();
            headers.remove("x-delivery-count");
            taken.push(QueuedMessage {
                body: delivery.data,
                properties: delivery.properties.with_headers(headers.into()),
            });
        }
        channel.close(200, "".into()).await.unwrap();
        taken
    }

    /// Waits until this many messages are ready in a queue. Unacknowledged ones do not count.
    pub async fn wait_for_depth(&self, queue: &str, expected: u32) {
        super::eventually(&format!("{queue} has {expected} messages"), super::DEADLINE, async || {
            self.depth(queue).await == expected
        })
        .await;
    }
}

/// Sends SIGKILL, and waits for the end.
pub fn kill(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
