//! Browsing a queue without changing it: messages are held unacknowledged, and either acknowledged (once they are safe
//! elsewhere) or requeued by RabbitMQ when the channel closes, however it closes.
//!
//! A run that removes messages ends at what was in the queue when it began, which [`QueueBrowser::mark`] fixes without a clock:
//! each message is delivered once and requeued. RabbitMQ then delivers it with `redelivered` set, and what arrives later
//! without.
//!
//! The order survives on RabbitMQ 3.10 (measured; classic queues keep it by themselves) because of two rules. A quorum queue
//! requeues the messages of a closed channel consumer by consumer, in the order of consumer tags, for at most 32 consumers,
//! so [`Channels`] opens another channel then; what one `nack` returns it requeues in any order. And requeued messages are delivered first, and go behind the other
//! requeued ones when they are requeued again; so a browse that ends early first takes every message that was ever requeued.
//! A run, which acknowledges meanwhile, keeps two more: all of a consumer is received and the consumer cancelled before a message of it
//! is handed over, and its channels are closed one after the other.

mod channels;
mod error;
pub(super) mod lock;
pub(super) mod mark;
mod open;
mod requeue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::Consumer;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use ticketlog_config::BrokerSettings;

use super::admin::ManagementError;
use super::admin::queue_depth::queue_counts;
use super::connection::{Connection, call, call_topology, close, connect};
use super::error::BrokerError;
use super::message::Delivery;
use super::report::Report;

use channels::Channels;
use open::{Held, IDLE_WAIT, prepare, stable_depth};

pub use channels::AckHandle;
pub use error::{BrowseError, BrowseOptions};

/// Messages requested first, while their sizes are unknown. Each further request is eight times larger, up to the maximum
/// (in long queues more), as long as that many messages of the largest recent size fit into `MAX_STEP_BYTES`.
const FIRST_STEP: u32 = 8;
const MAX_STEP: u32 = 512;
const MAX_STEP_BYTES: usize = 16 << 20;
/// The number of requests for a long queue of small messages.
const STEPS: u32 = 20;
/// Estimated memory of a message beside its body, headers and texts, in bytes.
const MESSAGE_OVERHEAD: usize = 2048;
const MAX_IDLE_WAITS: u32 = 50;
/// Whoever waits for more messages than this to be read on, when a browse ends early, is told why.
const MANY: u32 = 10_000;

/// The largest request for a queue of this many messages.
fn max_step(messages: u32) -> u32 {
    MAX_STEP.max(messages / STEPS).min(u32::from(u16::MAX))
}

/// A message that is held. When it is dropped, it stays held until the browser closes, and is requeued then.
pub struct BrowsedMessage {
    pub delivery: Delivery,
    /// Its position in the queue, from 1.
    pub position: u32,
    /// Removes it, if it is of a run.
    pub ack: AckHandle,
}

/// One pass through a queue, from its head.
pub struct QueueBrowser {
    connection: Connection,
    channels: Channels,
    queue: String,
    call_timeout: Duration,
    /// Ready messages at the start; later ones are not browsed.
    ready_at_start: u32,
    /// How many of them to browse.
    count: u32,
    taken: u32,
    /// Whether the last message had been requeued before.
    last_was_requeued: bool,
    /// The consumer, and how many messages it may still deliver.
    consumer: Option<(Consumer, u32)>,
    consumers_started: u32,
    step: u32,
    max_step: u32,
    /// Bytes of the largest recent message, halved at every step.
    largest_recent: usize,
    /// KiB of each message, in the order of the queue. A run, which holds all of a consumer's, knows them from the reading before.
    sizes: Vec<u16>,
    delivery_limit: Option<i64>,
    /// Messages that arrived and are not taken: while their consumer was being cancelled, or all of a consumer's.
    undelivered: VecDeque<lapin::message::Delivery>,
    /// Whether a message may be removed while others stay held.
    removes: bool,
    last_ack: Option<Instant>,
    idle_waits: u32,
    /// Whether a message had a priority: then later messages can have overtaken earlier ones.
    any_priority: bool,
    /// Why policies are unknown, if they are.
    pub policies_unknown: Option<ManagementError>,
    /// Set if something else reads the queue, or holds messages of it.
    pub has_other_readers: bool,
    report: Arc<dyn Report>,
    /// Whether the report counts what is read; a run counts what it does.
    counts_read: bool,
}

impl QueueBrowser {
    /// Opens a queue for its first `max` messages, waiting for another browser of it, which `report` is told; it counts what is read.
    ///
    /// # Errors
    /// The broker, or the queue cannot be browsed safely.
    pub async fn open(
        broker: &BrokerSettings,
        queue: &str,
        options: &BrowseOptions,
        max: u32,
        report: &Arc<dyn Report>,
    ) -> Result<QueueBrowser, BrowseError> {
        let connection = connect(broker, "dead letters").await?;
        match prepare(&connection, broker, queue, options, &**report).await {
            Ok((channel, (count, has_other_readers), browsable)) => Ok(QueueBrowser {
                connection,
                channels: Channels::new(channel),
                queue: queue.to_owned(),
                call_timeout: broker.call_timeout.0,
                ready_at_start: count,
                count: count.min(max),
                taken: 0,
                last_was_requeued: false,
                consumer: None,
                consumers_started: 0,
                step: FIRST_STEP,
                max_step: max_step(count),
                largest_recent: MESSAGE_OVERHEAD,
                sizes: Vec::new(),
                delivery_limit: browsable.limit,
                undelivered: VecDeque::new(),
                removes: false,
                last_ack: None,
                idle_waits: 0,
                any_priority: false,
                policies_unknown: browsable.policies_unknown,
                has_other_readers,
                report: Arc::clone(report),
                counts_read: true,
            }),
            Err(error) => {
                close(&connection, broker.call_timeout.0).await;
                Err(error)
            }
        }
    }

    /// Number of messages to browse.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Browses further messages: those that are in the queue now. False if there are none.
    async fn extend(&mut self) -> Result<bool, BrowseError> {
        self.cancel_consumer().await?;
        let (ready, _) = stable_depth(&self.connection, &self.queue, self.call_timeout, Held::ByThisToo).await?;
        let received = u32::try_from(self.undelivered.len()).unwrap_or(0);
        self.count = self.taken + received + ready;
        self.ready_at_start = self.ready_at_start.max(self.count);
        Ok(self.count > self.taken)
    }

    /// The next message, in the order of the queue; none after the last.
    ///
    /// # Errors
    /// The connection is lost, the queue is gone, or a message is near its delivery limit.
    pub async fn next(&mut self) -> Result<Option<BrowsedMessage>, BrowseError> {
        let Some(message) = self.take().await? else { return Ok(None) };
        let count = message.delivery.delivery_count();
        match self.delivery_limit {
            Some(limit) if count >= limit / 2 => {
                // No further message is taken, not even to keep the order.
                self.ready_at_start = 0;
                Err(BrowseError::NearDeliveryLimit { queue: self.queue.clone(), count, limit })
            }
            _ => Ok(Some(message)),
        }
    }

    async fn take(&mut self) -> Result<Option<BrowsedMessage>, BrowseError> {
        while self.taken < self.count {
            let is_takeable = self.consumer.is_none() || !self.removes;
            if is_takeable && let Some(delivery) = self.undelivered.pop_front() {
                return Ok(Some(self.hold(delivery)));
            }
            let Some((consumer, remaining)) = &mut self.consumer else {
                self.start_consumer().await?;
                continue;
            };
            if *remaining == 0 {
                self.cancel_consumer().await?;
                continue;
            }
            match timeout(IDLE_WAIT, consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    *remaining -= 1;
                    self.idle_waits = 0;
                    // All of a consumer first: an ack would make RabbitMQ deliver more to it, and what is on its way when it is
                    // cancelled goes behind all others (seen on 4.3.6).
                    if !self.removes {
                        return Ok(Some(self.hold(delivery)));
                    }
                    self.undelivered.push_back(delivery);
                }
                Ok(Some(Err(error))) => return Err(self.consumer_error(&error)),
                Ok(None) => return Err(BrokerError::ConsumerCancelled.into()),
                Err(_) if self.is_exhausted().await? => return Ok(None),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// # Errors
    /// A channel was closed, so messages that were held are in the queue again.
    fn check_channels(&self) -> Result<(), BrowseError> {
        match (self.channels.are_open(), self.connection.status().connected()) {
            (true, _) => Ok(()),
            (false, true) => Err(BrowseError::ConsumerTimeout { queue: self.queue.clone() }),
            (false, false) => Err(BrokerError::ConnectionLost.into()),
        }
    }

    fn consumer_error(&self, error: &lapin::Error) -> BrowseError {
        match BrokerError::from_request(error) {
            BrokerError::Closed(406) => BrowseError::ConsumerTimeout { queue: self.queue.clone() },
            other => other.into(),
        }
    }

    /// Whether the queue is empty although fewer messages came than it had: other consumers have taken the rest.
    async fn is_exhausted(&mut self) -> Result<bool, BrowseError> {
        let counts = queue_counts(&self.connection, &self.queue, self.call_timeout).await?;
        // An answer that does not count this browser's own consumer is not valid: the leader of the queue did not reply in time.
        if counts.ready == 0 && counts.consumers > 0 {
            // Messages on their way arrive before the reply to this.
            self.cancel_consumer().await?;
            return Ok(self.undelivered.is_empty());
        }
        self.idle_waits += 1;
        if self.idle_waits >= MAX_IDLE_WAITS {
            return Err(BrokerError::Timeout("waiting for the next message".into()).into());
        }
        Ok(false)
    }

    fn hold(&mut self, delivery: lapin::message::Delivery) -> BrowsedMessage {
        self.taken += 1;
        let channel = self.channels.hold();
        let (delivery, acker) = Delivery::new(delivery, self.channels.current().id(), &self.connection.incoming);
        let bytes = delivery.bytes() + MESSAGE_OVERHEAD;
        self.largest_recent = self.largest_recent.max(bytes);
        if self.counts_read {
            self.sizes.push(u16::try_from(bytes.div_ceil(1024)).unwrap_or(u16::MAX));
        }
        self.last_was_requeued = delivery.delivery_count() > 0;
        self.any_priority |= delivery.has_priority();
        if self.counts_read {
            self.report.set_done(self.taken.into());
        }
        BrowsedMessage { delivery, position: self.taken, ack: AckHandle { acker, channel } }
    }

    async fn start_consumer(&mut self) -> Result<(), BrowseError> {
        let by_size = self.that_fit().unwrap_or(MAX_STEP_BYTES / self.largest_recent);
        let by_size = u32::try_from(by_size.max(1)).unwrap_or(MAX_STEP);
        let step = self.step.min(by_size).min(self.count - self.taken);
        self.step = (self.step * 8).min(self.max_step);
        self.largest_recent = (self.largest_recent / 2).max(MESSAGE_OVERHEAD);
        self.consumers_started += 1;
        let limit = self.call_timeout;
        self.check_channels()?;
        let run_of = self.removes.then_some(self.ready_at_start);
        if !self.channels.add_consumer(&self.connection, limit, run_of).await? {
            self.report.note(
                "the order of the queue may change: RabbitMQ allows the connection too few channels (channel_max)",
            );
        }
        let prefetch = u16::try_from(step).unwrap_or(u16::MAX);
        let channel = self.channels.current();
        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
        call(limit, "setting the prefetch", qos).await?;
        // Consumer tags sort in the order in which the consumers were started.
        let tag = format!("desk-{:06}", self.consumers_started);
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(self.queue.as_str().into(), tag.into(), options, FieldTable::default());
        self.consumer = Some((call_topology(limit, "starting the consumer", consume).await?, step));
        Ok(())
    }

    /// How many of the next messages take no more memory than a step may, if that is known from the reading before.
    fn that_fit(&self) -> Option<usize> {
        let is_same_order = self.removes && !self.any_priority;
        let next = self.sizes.get(self.taken as usize..).filter(|next| is_same_order && !next.is_empty())?;
        let mut room = MAX_STEP_BYTES;
        let fits = |kib: &&u16| {
            let left = room.checked_sub(usize::from(**kib) * 1024);
            room = left.unwrap_or(0);
            left.is_some()
        };
        Some(next.iter().take_while(fits).count())
    }

    /// Cancels the consumer; its messages stay held. Messages that it received meanwhile come next.
    async fn cancel_consumer(&mut self) -> Result<(), BrowseError> {
        let Some((mut consumer, _)) = self.consumer.take() else { return Ok(()) };
        let limit = self.call_timeout;
        self.check_channels()?;
        let cancel = self.channels.current().basic_cancel(consumer.tag(), BasicCancelOptions::default());
        call(limit, "cancelling the consumer", cancel).await?;
        loop {
            match timeout(limit, consumer.next()).await {
                // What a closed channel held may be among these again.
                Ok(None) => return self.check_channels(),
                Ok(Some(Ok(delivery))) => self.undelivered.push_back(delivery),
                Ok(Some(Err(error))) => return Err(self.consumer_error(&error)),
                Err(_) => return Err(BrokerError::Timeout("draining the cancelled consumer".into()).into()),
            }
        }
    }
}
