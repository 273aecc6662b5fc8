//! Owns the operator's side of a test: dead letters made by hand, the desk's commands, and a client that looks at queues
//! by taking everything out.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};

use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::Bed;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// The JSON objects that it printed.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A message as a plain client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl Bed {
    pub fn parked_queue(&self) -> String {
        format!("{}.parked", self.name)
    }

    /// `ticketlog dead …`, on a thread beside the test's own work. Nobody sees its policies, and we say so.
    pub fn desk_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("dead").args(arguments).stdin(Stdio::null()).env("TICKETLOG_LOG__FILTER", "error");
        command
    }

    pub async fn desk(&self, arguments: &[&str]) -> Said {
        let mut command = self.desk_command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    }

    /// The same, expected to succeed.
    pub async fn desk_does(&self, arguments: &[&str]) -> Said {
        let said = self.desk(arguments).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said
    }

    pub fn desk_started(&self, arguments: &[&str]) -> Child {
        let mut command = self.desk_command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// An empty dead-letter queue of this kind, with further arguments.
    pub async fn dead_queue_of(&self, kind: &str, further: &[(&str, AMQPValue)]) {
        self.channel.queue_delete(self.dead_queue().into(), QueueDeleteOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        for (name, value) in further {
            arguments.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(self.dead_queue().into(), options, arguments).await.unwrap();
        let (queue, exchange) = (self.dead_queue(), format!("{}.dlx", self.name));
        let key = queue.as_str();
        let binding =
            self.channel.queue_bind(key.into(), exchange.into(), key.into(), Default::default(), FieldTable::default());
        binding.await.unwrap();
    }

    /// Puts messages into the dead-letter queue as the worker would.
    pub async fn bury(&self, letters: impl IntoIterator<Item = (Vec<u8>, BasicProperties)>) {
        let mut confirms = Vec::new();
        let queue = self.dead_queue();
        for (body, properties) in letters {
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

    /// Good events that died of something that is mended by now, numbered; every third has no identity of its own.
    pub async fn bury_good(&self, count: i32) {
        let letter = |n: i32| {
            let sent = super::Sent::numbered(n);
            let properties = if n % 3 == 0 { BasicProperties::default() } else { sent.properties };
            (sent.body, properties.with_headers(self.headers(&format!("id-{n}"), "rejected_by_store", n)))
        };
        self.bury((0..count).map(letter)).await;
    }

    /// The worker's headers.
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

    /// Takes everything out of a queue, in its order, without what the broker adds.
    pub async fn take_all(&self, queue: &str) -> Vec<Seen> {
        let expected = self.depth(queue).await as usize;
        // A channel of its own: what comes beyond that goes back with its end.
        let channel = self.connection.create_channel().await.unwrap();
        let consumer =
            channel.basic_consume(queue.into(), "all".into(), BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = consumer.await.unwrap();
        let mut taken = Vec::with_capacity(expected);
        while taken.len() < expected {
            let delivery = consumer.next().await.unwrap().unwrap();
            // One ack for many: what comes behind the last of them is not ours.
            if taken.len() + 1 == expected || taken.len() % 200 == 199 {
                delivery.acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
            }
            let mut headers = delivery.properties.headers().clone().unwrap_or_default().inner().clone();
            headers.remove("x-delivery-count");
            taken.push(Seen { body: delivery.data, properties: delivery.properties.with_headers(headers.into()) });
        }
        channel.close(200, "".into()).await.unwrap();
        taken
    }

    /// How many messages a queue has, those in somebody's hands included once nobody is connected any more.
    pub async fn settled_depth(&self, queue: &str, expected: u32) {
        super::eventually(&format!("{queue} holds {expected}"), super::SOON, async || {
            self.depth(queue).await == expected
        })
        .await;
    }
}

/// SIGKILL, and wait for the end.
pub fn kill(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
