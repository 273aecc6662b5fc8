//! Owns looking through a queue without changing it: every message is held unacknowledged, and either acknowledged (when
//! it is safe elsewhere) or left to the broker, which puts it back in its place when the channel closes, whatever closes
//! it. Must not know what is done with a message.
//!
//! What keeps the order on RabbitMQ 3.10 (measured; classic queues keep it by themselves): a quorum queue puts back what a
//! closed channel held consumer by consumer, by the order of their tags as long as there are at most 32. (What one `nack`
//! returns, it puts back in any order.) What was put back before goes out first and, put back again, lines up behind the
//! rest of that; so a look that ends early takes in hand everything that was ever put back.

mod access;

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Connection, Consumer};
use tokio::time::timeout;

use crate::config;

use super::lives::Verdict;
use super::{BrokerError, Delivery, call};

use access::{lock, ready, settled, verdict};

pub use access::{DeskError, Trust};

/// Messages asked for at first, while their sizes are unknown; then eight times as many, up to these (in a long queue
/// more), as long as they would not take more memory than that if they were like the largest of late.
const FIRST: u32 = 8;
const MOST: u32 = 512;
/// In how many steps a queue is gone through, at least about; more than 32 could cost it its order.
const STEPS: u32 = 20;
const MOST_BYTES: usize = 16 << 20;
/// About what a message takes beside its body.
const OVERHEAD: usize = 2048;
/// How long a queue that says that it has messages may take to give out the next.
const PAUSES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// A message in hand. Dropping it leaves it to the end of the desk's connection.
pub struct Held {
    /// The message.
    pub delivery: Delivery,
    /// Its place, from 1.
    pub position: u32,
    acker: Acker,
}

/// The right to take a message off its queue. Dropped, the message stays.
pub struct Ticket(Acker);

impl Held {
    /// Parts it from its ticket.
    pub fn split(self) -> (Delivery, Ticket) {
        (self.delivery, Ticket(self.acker))
    }
}

/// One queue, looked through from its head once.
pub struct Desk {
    connection: Connection,
    channel: Channel,
    queue: String,
    call_timeout: Duration,
    /// Ready messages when we began: later ones are not looked at.
    ready: u32,
    /// How many of them are.
    count: u32,
    taken: u32,
    /// Whether the last one had been returned before.
    returned: bool,
    /// The consumer, and how many it may still give us.
    consumer: Option<(Consumer, u32)>,
    consumers: u32,
    step: u32,
    /// The most that is asked for at a time.
    pace: u32,
    /// The largest body of late, and about what a message takes beside it: halved with every step.
    largest: usize,
    limit: Option<i64>,
    /// Messages that came while their consumer was being cancelled.
    left_over: VecDeque<lapin::message::Delivery>,
    /// Messages in our hands.
    held: u32,
    /// Pauses in which nothing came.
    idle: u32,
    /// Something that a person should know.
    pub caution: Option<&'static str>,
}

impl Desk {
    /// Opens a queue, waiting for other desks at the same one; `waiting` is called when that begins.
    ///
    /// # Errors
    /// The broker; or the queue would not survive being looked at.
    pub async fn open(
        broker: &config::Broker,
        queue: &str,
        trust: &Trust,
        waiting: impl FnOnce(),
    ) -> Result<Desk, DeskError> {
        let connection = super::connect(broker, "desk").await?;
        match Desk::prepare(&connection, broker, queue, trust, waiting).await {
            Ok((channel, count, limit, caution)) => Ok(Desk {
                connection,
                channel,
                queue: queue.to_owned(),
                call_timeout: broker.call_timeout.0,
                ready: count,
                count,
                taken: 0,
                returned: false,
                consumer: None,
                consumers: 0,
                step: FIRST,
                pace: MOST.max(count / STEPS).min(u32::from(u16::MAX)),
                largest: OVERHEAD,
                limit,
                left_over: VecDeque::new(),
                held: 0,
                idle: 0,
                caution,
            }),
            Err(error) => {
                super::close(&connection, broker.call_timeout.0).await;
                Err(error)
            }
        }
    }

    async fn prepare(
        connection: &Connection,
        broker: &config::Broker,
        queue: &str,
        trust: &Trust,
        waiting: impl FnOnce(),
    ) -> Result<(Channel, u32, Option<i64>, Option<&'static str>), DeskError> {
        let limit = broker.call_timeout.0;
        // Whether it exists at all, before anything could declare it.
        ready(connection, queue, limit).await?;
        let (most, caution) = match verdict(connection, broker, queue, trust).await? {
            _ if trust.blindly => (None, None),
            Verdict::Safe(most) => (most, None),
            Verdict::Likely(most, caution) => (most, Some(caution)),
            Verdict::Deadly(why) => return Err(DeskError::Deadly { queue: queue.to_owned(), why }),
            Verdict::Unanswered => {
                let why = "the management API that --management names gives no answer".to_owned();
                return Err(DeskError::Deadly { queue: queue.to_owned(), why });
            }
            Verdict::Forbidden => return Err(DeskError::Forbidden { queue: queue.to_owned() }),
        };
        lock(connection, queue, limit, trust, waiting).await?;
        let count = settled(connection, queue, limit).await?;
        let channel = call(limit, "opening a channel", connection.create_channel()).await?;
        Ok((channel, count, most, caution))
    }

    /// Messages that were ready when the desk was opened.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes no more in hand than goes in a minute: what waits too long in our hands, the broker takes back.
    pub fn paced(&mut self, per_second: f64) {
        self.pace = ((per_second * 60.0) as u32).clamp(1, self.pace);
        self.step = self.step.min(self.pace);
    }

    /// Looks at no more than the first `most`.
    pub fn at_most(&mut self, most: u32) {
        self.count = self.count.min(most);
    }

    /// The next message, in the order of the queue; none behind the last.
    ///
    /// # Errors
    /// The connection is lost, the queue too; or the messages have been looked at too often.
    pub async fn next(&mut self) -> Result<Option<Held>, DeskError> {
        let Some(held) = self.take().await? else { return Ok(None) };
        let count = held.delivery.delivery_count();
        match self.limit {
            Some(limit) if count >= limit / 2 => {
                // Not even for the order's sake is another one taken.
                self.ready = 0;
                Err(DeskError::Worn { queue: self.queue.clone(), count, limit })
            }
            _ => Ok(Some(held)),
        }
    }

    async fn take(&mut self) -> Result<Option<Held>, DeskError> {
        while self.taken < self.count {
            if let Some(delivery) = self.left_over.pop_front() {
                return Ok(Some(self.hold(delivery)));
            }
            let Some((consumer, left)) = &mut self.consumer else {
                self.subscribe().await?;
                continue;
            };
            if *left == 0 {
                self.unsubscribe().await?;
                continue;
            }
            match timeout(PAUSE, consumer.next()).await {
                Ok(Some(Ok(delivery))) => {
                    *left -= 1;
                    self.idle = 0;
                    return Ok(Some(self.hold(delivery)));
                }
                Ok(Some(Err(error))) => return Err(self.ended(BrokerError::of_request(&error))),
                Ok(None) => return Err(BrokerError::Cancelled.into()),
                Err(_) if self.is_through().await? => return Ok(None),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    fn ended(&self, error: BrokerError) -> DeskError {
        match error {
            BrokerError::Closed(406) => DeskError::Overdue { queue: self.queue.clone() },
            other => other.into(),
        }
    }

    /// Whether there is nothing more for us, though fewer came than there were: others have taken them.
    async fn is_through(&mut self) -> Result<bool, DeskError> {
        if ready(&self.connection, &self.queue, self.call_timeout).await? == 0 {
            // What is on its way to us comes before the answer to this.
            self.unsubscribe().await?;
            return Ok(self.left_over.is_empty());
        }
        self.idle += 1;
        if self.idle >= PAUSES { Err(BrokerError::Timeout("the next message").into()) } else { Ok(false) }
    }

    fn hold(&mut self, delivery: lapin::message::Delivery) -> Held {
        self.taken += 1;
        self.held += 1;
        let (delivery, acker) = Delivery::new(delivery);
        self.largest = self.largest.max(delivery.body.len() + OVERHEAD);
        self.returned = delivery.delivery_count() > 0;
        Held { delivery, position: self.taken, acker }
    }

    async fn subscribe(&mut self) -> Result<(), DeskError> {
        let by_size = u32::try_from(MOST_BYTES / self.largest).unwrap_or(MOST);
        let step = self.step.min(by_size.max(1)).min(self.count - self.taken);
        self.step = (self.step * 8).min(self.pace);
        self.largest = (self.largest / 2).max(OVERHEAD);
        self.consumers += 1;
        let limit = self.call_timeout;
        let prefetch = u16::try_from(step).unwrap_or(u16::MAX);
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions { global: false });
        call(limit, "setting the prefetch", qos).await?;
        let tag = format!("desk-{:06}", self.consumers);
        let options = BasicConsumeOptions::default();
        let consume =
            self.channel.basic_consume(self.queue.as_str().into(), tag.into(), options, FieldTable::default());
        match timeout(limit, consume).await {
            Ok(Ok(consumer)) => self.consumer = Some((consumer, step)),
            Ok(Err(error)) => return Err(super::topology::explain(BrokerError::of_topology(&error)).into()),
            Err(_) => return Err(BrokerError::Timeout("subscribing").into()),
        }
        Ok(())
    }

    /// Its messages stay ours. In the place of those that were settled, others may have come: they are next.
    async fn unsubscribe(&mut self) -> Result<(), DeskError> {
        let Some((mut consumer, _)) = self.consumer.take() else { return Ok(()) };
        let cancel = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        call(self.call_timeout, "cancelling the consumer", cancel).await?;
        let limit = self.call_timeout;
        loop {
            match timeout(limit, consumer.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(delivery))) => self.left_over.push_back(delivery),
                Ok(Some(Err(error))) => return Err(self.ended(BrokerError::of_request(&error))),
                Err(_) => return Err(BrokerError::Timeout("the end of the consumer").into()),
            }
        }
    }

    /// Takes messages off the queue for good: they are safe elsewhere.
    ///
    /// # Errors
    /// The connection is lost; the broker gives out again what it did not hear of.
    pub async fn settle(&mut self, tickets: Vec<Ticket>) -> Result<(), DeskError> {
        let limit = self.call_timeout;
        let acks = tickets.into_iter().map(|ticket| async move {
            match timeout(limit, ticket.0.ack(BasicAckOptions { multiple: false })).await {
                Ok(Ok(true)) => Ok(()),
                _ => Err(BrokerError::Ack),
            }
        });
        let settled = try_join_all(acks).await?.len();
        self.held -= u32::try_from(settled).unwrap_or(self.held);
        Ok(())
    }

    /// Gives everything that is not settled back to its place and closes the connection.
    ///
    /// # Errors
    /// The connection is lost; the broker has given back everything by itself.
    pub async fn release(mut self) -> Result<(), DeskError> {
        self.count = self.ready;
        while self.returned && self.take().await?.is_some() {}
        self.unsubscribe().await?;
        let limit = self.call_timeout;
        let held = self.held + u32::try_from(self.left_over.len()).unwrap_or(0);
        let expected = ready(&self.connection, &self.queue, limit).await? + held;
        call(limit, "closing a channel", self.channel.close(200, "bye".into())).await?;
        // Until they are back, the next desk would not count them. Others may take them at once.
        for _ in 0..PAUSES {
            if ready(&self.connection, &self.queue, limit).await? >= expected {
                break;
            }
            tokio::time::sleep(PAUSE / 10).await;
        }
        super::close(&self.connection, limit).await;
        Ok(())
    }
}
