//! The channels of a browser, which together keep the order of the queue: they are closed one after the other, and none has had more
//! consumers than RabbitMQ requeues in order.

use std::time::Duration;

use lapin::{Acker, Channel};

use super::super::connection::{Connection, call};
use super::super::error::BrokerError;

/// A quorum queue requeues the messages of a closed channel in the order of its consumers for at most this many (RabbitMQ 3.10 to 4.2
/// walk over an Erlang map, which is sorted as long as it has 32 keys).
const MAX_CONSUMERS: u32 = 32;
/// How many messages a channel of a run holds at least before there is another, and how many channels there are for that at most.
const MIN_HELD: u32 = 1000;
const MAX_CHANNELS: u32 = 16;
/// Channels of the connection that are for something else: the lock, and looking up the queue.
const OTHERS: usize = 3;

/// Removes a message from its queue when passed to [`super::mark::MarkedBrowser::acknowledge`]. When it is dropped, the message stays.
pub struct AckHandle {
    pub(super) acker: Acker,
    /// The number of its channel.
    pub(super) channel: usize,
}

impl AckHandle {
    /// Whether the message can be removed; else RabbitMQ has taken it back.
    pub fn is_usable(&self) -> bool {
        self.acker.usable()
    }
}

/// The channel of the consumer, and those of earlier consumers that hold messages.
pub(super) struct Channels {
    current: Channel,
    /// Messages that it holds, and consumers that it has had.
    held: u32,
    consumers: u32,
    earlier: Vec<(Channel, u32)>,
}

impl Channels {
    pub fn new(current: Channel) -> Self {
        Channels { current, held: 0, consumers: 0, earlier: Vec::new() }
    }

    /// That of the consumer.
    pub fn current(&self) -> &Channel {
        &self.current
    }

    /// A message of the current channel is held; returns the number of the channel.
    pub fn hold(&mut self) -> usize {
        self.held += 1;
        self.earlier.len()
    }

    /// A message of this channel is acknowledged.
    pub fn release(&mut self, channel: usize) {
        let held = self.earlier.get_mut(channel).map_or(&mut self.held, |(_, held)| held);
        *held = held.saturating_sub(1);
    }

    /// Gets ready for a further consumer. `run_of` is the number of messages of a run, which removes some while others stay held: RabbitMQ
    /// looks for an acknowledged message from the first one on that its channel holds (`collect_acks` of `rabbit_channel`), so removing
    /// 12,500 of 40,000 took 20 s on one channel. False if the order cannot be kept because the connection may have no more channels.
    ///
    /// # Errors
    /// The connection is lost, or the user may have no more channels.
    pub async fn add_consumer(
        &mut self,
        connection: &Connection,
        limit: Duration,
        run_of: Option<u32>,
    ) -> Result<bool, BrokerError> {
        // Of a consumer that holds nothing any more, there is nothing to requeue.
        if self.held == 0 {
            self.consumers = 0;
        }
        let is_slow = run_of.is_some_and(|messages| self.held >= MIN_HELD.max(messages / MAX_CHANNELS));
        let has_room = self.earlier.len() + 1 + OTHERS < usize::from(connection.configuration().channel_max());
        if (is_slow || self.consumers >= MAX_CONSUMERS) && has_room {
            let channel = call(limit, "opening a channel", connection.create_channel()).await?;
            let earlier = std::mem::replace(&mut self.current, channel);
            self.earlier.push((earlier, std::mem::take(&mut self.held)));
            self.consumers = 0;
        }
        self.consumers += 1;
        Ok(self.consumers <= MAX_CONSUMERS)
    }

    /// Whether none was closed. RabbitMQ closes one after its consumer timeout for instance, and requeues what it held.
    pub fn are_open(&self) -> bool {
        let all = self.earlier.iter().map(|(channel, _)| channel).chain([&self.current]);
        all.into_iter().all(|channel| channel.status().connected())
    }

    /// Takes them out, in the order in which they must be closed because what is requeued first is first, each with the number of
    /// messages that it holds; `undelivered` are held by the last.
    pub fn take(&mut self, undelivered: usize) -> Vec<(Channel, u32)> {
        let held = std::mem::take(&mut self.held) + u32::try_from(undelivered).unwrap_or(0);
        let mut all = std::mem::take(&mut self.earlier);
        all.push((self.current.clone(), held));
        all
    }
}
