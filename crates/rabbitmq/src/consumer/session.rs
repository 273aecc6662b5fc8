//! Owns one session: connection, channel, consumer, and every delivery that is not acknowledged. They end together: after any error the
//! session is over, and the broker delivers again what was not acknowledged.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::future::{try_join, try_join_all};
use futures_util::stream::FuturesUnordered;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use ticketlog_config::RouteSettings;

use super::super::connection::{Connection, call, call_topology, close, flush_single_acks};
use super::super::error::BrokerError;
use super::super::message::Delivery;
use super::prefetch::Prefetch;
use super::prepared::PreparedSession;
use super::settlement::{Acks, Settlement};
use super::unfinished::UnfinishedMessage;

/// Most deliveries handed over at a time: many, so that the task is not woken for each; bounded, so that nothing else
/// starves.
const CHUNK_MESSAGES: usize = 512;
/// Most bytes of messages handed over at a time; the last message may exceed it.
const CHUNK_BYTES: usize = 2 << 20;
/// How long an unsettled delivery blocks the acks of settled ones behind it, before those are acknowledged singly.
const SINGLE_ACKS_AFTER: Duration = Duration::from_secs(1);
/// Most single acks at a time.
const MAX_SINGLE_ACKS: usize = 256;

type AckFuture = Pin<Box<dyn Future<Output = Result<bool, ()>> + Send>>;

/// A running consumer and its unsettled deliveries.
pub struct Session {
    connection: Connection,
    channel: Channel,
    /// One for each queue.
    consumers: Vec<Consumer>,
    queues: Vec<String>,
    /// Deliveries that have arrived and are not handed over yet, in the order of their tags.
    arrived: VecDeque<lapin::message::Delivery>,
    call_timeout: Duration,
    settlement: Settlement<Acker>,
    /// Acks being written. The next ones start when these are done, so that none overtakes another.
    acks: FuturesUnordered<AckFuture>,
    /// When the last cumulative ack started.
    last_multiple_ack: Instant,
    /// When the last single acks started.
    last_single_ack: Option<Instant>,
    prefetch: Prefetch,
    /// Deliveries of a cancelled consumer that are not handed over yet.
    undelivered: Vec<Delivery>,
    /// Whether the queue may be a stream: then the session ends if the first message has the header of one.
    may_be_stream: bool,
    /// Set once the consumer is cancelled for good.
    stopped: bool,
    /// Set when settled deliveries are to be acknowledged without delay, singly if necessary.
    flushing: bool,
}

/// How a session differs from the settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionOptions {
    /// Replaces the computed prefetch.
    pub initial_prefetch: Option<u16>,
    /// Whether the queue is known to be no stream, so that a message with the header of one is an ordinary message.
    pub is_no_stream: bool,
}

impl Session {
    /// Starts a consumer for each queue.
    ///
    /// # Errors
    /// As for consuming; the connection is closed then.
    pub async fn start(
        prepared: PreparedSession,
        settings: &RouteSettings,
        options: SessionOptions,
    ) -> Result<Self, BrokerError> {
        let PreparedSession { connection, channel } = prepared;
        let (broker, queues) = (&settings.broker, settings.queues());
        let (limit, max_message_bytes) = (broker.call_timeout.0, settings.event.max_bytes.bytes());
        let prefetch =
            Prefetch::new(broker.prefetch, broker.prefetch_bytes.bytes(), max_message_bytes, options.initial_prefetch);
        match consume(&channel, &queues, prefetch.current(), limit).await {
            Ok(consumers) => Ok(Session {
                connection,
                channel,
                consumers,
                queues,
                arrived: VecDeque::new(),
                call_timeout: limit,
                settlement: Settlement::default(),
                acks: FuturesUnordered::new(),
                last_multiple_ack: Instant::now(),
                last_single_ack: None,
                prefetch,
                undelivered: Vec::new(),
                may_be_stream: !options.is_no_stream,
                stopped: false,
                flushing: false,
            }),
            Err(error) => {
                close(&connection, limit).await;
                Err(error)
            }
        }
    }

    /// Waits for deliveries and moves those that are there into `chunk`. Sends acks meanwhile. Cancel safe: what was
    /// received is in `chunk`.
    ///
    /// # Errors
    /// The session is over.
    pub async fn next(&mut self, chunk: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        chunk.append(&mut self.undelivered);
        poll_fn(|cx| {
            if let Err(error) = self.poll_acks(cx).and_then(|()| self.poll_deliveries(cx, chunk)) {
                return Poll::Ready(Err(error));
            }
            if chunk.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await
    }

    fn poll_deliveries(&mut self, cx: &mut Context, chunk: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let mut bytes = 0;
        while !self.stopped && chunk.len() < CHUNK_MESSAGES && bytes < CHUNK_BYTES {
            if self.prefetch.overflows() {
                return Err(BrokerError::MemoryBudget);
            }
            if !self.has_next() {
                self.poll_consumers(cx)?;
            }
            // While the later consumers were polled, deliveries may have arrived at the earlier ones.
            if !self.has_next() && !self.arrived.is_empty() {
                self.poll_consumers(cx)?;
            }
            let Some(delivery) = self.arrived.pop_front() else { break };
            let delivery = self.receive(delivery)?;
            bytes += delivery.bytes();
            chunk.push(delivery);
        }
        Ok(())
    }

    /// Whether the next delivery in the order of the tags has arrived.
    fn has_next(&self) -> bool {
        self.arrived.front().is_some_and(|delivery| delivery.delivery_tag == self.settlement.next_tag())
    }

    /// Takes what has arrived: of one consumer one delivery, of several all of them, because only together they are in the order of
    /// the tags.
    fn poll_consumers(&mut self, cx: &mut Context) -> Result<(), BrokerError> {
        let is_alone = self.consumers.len() == 1;
        for consumer in &mut self.consumers {
            loop {
                match Pin::new(&mut *consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => self.arrived.push_back(delivery),
                    Poll::Ready(Some(Err(error))) => return Err(BrokerError::from_request(&error)),
                    Poll::Ready(None) => return Err(BrokerError::ConsumerCancelled),
                    Poll::Pending => break,
                }
                if is_alone {
                    return Ok(());
                }
            }
        }
        self.arrived.make_contiguous().sort_unstable_by_key(|delivery| delivery.delivery_tag);
        Ok(())
    }

    fn receive(&mut self, delivery: lapin::message::Delivery) -> Result<Delivery, BrokerError> {
        let (delivery, acker) = Delivery::new(delivery, self.channel.id(), &self.connection.incoming);
        if self.may_be_stream && delivery.tag == 1 && delivery.is_from_stream() {
            return Err(BrokerError::Stream);
        }
        self.prefetch.received(delivery.bytes());
        if self.settlement.receive(delivery.tag, acker) { Ok(delivery) } else { Err(BrokerError::DeliveryTagGap) }
    }

    fn poll_acks(&mut self, cx: &mut Context) -> Result<(), BrokerError> {
        loop {
            match Pin::new(&mut self.acks).poll_next(cx) {
                Poll::Ready(Some(Ok(true))) => {}
                Poll::Ready(Some(_)) => return Err(BrokerError::AckFailed),
                Poll::Ready(None) if self.start_acks() => {}
                Poll::Ready(None) | Poll::Pending => return Ok(()),
            }
        }
    }

    /// The last delivery handed over also holds a document of `bytes`.
    pub fn document_added(&mut self, bytes: usize) {
        self.prefetch.document_added(bytes);
    }

    /// A delivery that is not settled yet now holds `to` bytes instead of `from`.
    pub fn resized(&mut self, from: usize, to: usize) {
        self.prefetch.resized(from, to);
    }

    /// The message that RabbitMQ was delivering when the session ended.
    pub fn unfinished(&self) -> Option<UnfinishedMessage> {
        let last = self.connection.incoming.last().filter(|last| last.channel == self.channel.id())?;
        UnfinishedMessage::new(self.queues.first()?, last, self.settlement.next_tag() - 1)
    }

    /// Settles a delivery: it has its outcome, and its `bytes` are freed. The ack follows in order.
    pub fn settle(&mut self, tag: u64, bytes: usize) {
        self.settlement.settle(tag);
        self.prefetch.settled();
        self.prefetch.freed(bytes);
    }

    /// Starts the next acks; false if there are none. Only to be called while no ack is being written.
    fn start_acks(&mut self) -> bool {
        let limit = self.call_timeout;
        let singly = self.flushing || self.last_multiple_ack.elapsed() >= SINGLE_ACKS_AFTER;
        let multiple = self.settlement.take_prefix();
        let acks = multiple.or_else(|| singly.then(|| self.settlement.take_single(MAX_SINGLE_ACKS)).flatten());
        match acks {
            Some(Acks::Multiple(acker, _)) => {
                self.last_multiple_ack = Instant::now();
                self.acks.push(Box::pin(ack(acker, true, limit)));
                true
            }
            Some(Acks::Single(ackers)) => {
                self.last_single_ack = Some(Instant::now());
                self.acks.extend(ackers.into_iter().map(|acker| -> AckFuture { Box::pin(ack(acker, false, limit)) }));
                true
            }
            None => false,
        }
    }

    /// Number of delivery tags in memory: behind a delivery that stays unsettled, they add up.
    pub fn tracked_tags(&self) -> usize {
        self.settlement.tracked()
    }

    /// Bytes of messages and documents in flight.
    pub fn bytes_in_flight(&self) -> usize {
        self.prefetch.bytes_in_flight()
    }

    /// Number of deliveries that are not acknowledged.
    pub fn unacked(&self) -> usize {
        self.settlement.unacked()
    }

    /// The oldest tag that is not acknowledged, or the next one.
    pub fn oldest_unacked(&self) -> u64 {
        self.settlement.oldest_unacked()
    }

    pub fn prefetch(&self) -> u16 {
        self.prefetch.current()
    }

    /// How many unacknowledged messages of one queue RabbitMQ delivers: shards share the prefetch.
    pub fn prefetch_of_a_queue(&self) -> u16 {
        share(self.prefetch.current(), self.queues.len())
    }

    /// Changes the prefetch if the message sizes call for it. The new prefetch takes a new consumer on the same channel;
    /// the session keeps the deliveries of the old one.
    ///
    /// # Errors
    /// The session is over.
    pub async fn adjust_prefetch(&mut self) -> Result<(), BrokerError> {
        let Some(prefetch) = self.prefetch.target() else { return Ok(()) };
        self.cancel_consumers().await?;
        self.consumers = consume(&self.channel, &self.queues, prefetch, self.call_timeout).await?;
        self.prefetch.changed(prefetch);
        Ok(())
    }

    /// Cancels the consumers and receives what the broker had sent already.
    async fn cancel_consumers(&mut self) -> Result<(), BrokerError> {
        let limit = self.call_timeout;
        let cancel = |consumer: &Consumer| {
            let request = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            call(limit, "cancelling the consumer", request)
        };
        try_join_all(self.consumers.iter().map(cancel)).await?;
        let drained = timeout(limit, async {
            for consumer in &mut self.consumers {
                while let Some(delivery) = poll_fn(|cx| Pin::new(&mut *consumer).poll_next(cx)).await {
                    self.arrived.push_back(delivery.map_err(|error| BrokerError::from_request(&error))?);
                }
            }
            Ok(())
        });
        drained.await.unwrap_or(Err(BrokerError::Timeout("draining the cancelled consumer".into())))?;
        self.arrived.make_contiguous().sort_unstable_by_key(|delivery| delivery.delivery_tag);
        while let Some(delivery) = self.arrived.pop_front() {
            let delivery = self.receive(delivery)?;
            self.undelivered.push(delivery);
        }
        Ok(())
    }

    /// Stops consuming for good. What the broker had sent already is moved into `chunk`, to be settled or requeued.
    ///
    /// # Errors
    /// The session is over.
    pub async fn stop(&mut self, chunk: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        self.cancel_consumers().await?;
        self.stopped = true;
        chunk.append(&mut self.undelivered);
        Ok(())
    }

    /// Waits until every settled delivery is acknowledged.
    async fn flush_acks(&mut self) -> Result<(), BrokerError> {
        self.flushing = true;
        poll_fn(|cx| match self.poll_acks(cx) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) if self.acks.is_empty() => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
        })
        .await
    }

    /// Ends a stopped session gracefully: settled deliveries are acknowledged, the others are requeued with one `nack`, which
    /// is awaited. On RabbitMQ 4.3 `reject` would count towards the queue's delivery limit.
    ///
    /// # Errors
    /// The session is over all the same; the broker requeues what was not acknowledged.
    pub async fn requeue_unsettled(mut self) -> Result<(), BrokerError> {
        self.flush_acks().await?;
        flush_single_acks(self.last_single_ack).await;
        if let Some(acker) = self.settlement.take_unsettled() {
            let nack = acker.nack(BasicNackOptions { multiple: true, requeue: true });
            match timeout(self.call_timeout, nack).await {
                Ok(Ok(true)) => {}
                _ => return Err(BrokerError::AckFailed),
            }
        }
        close(&self.connection, self.call_timeout).await;
        Ok(())
    }

    /// Closes what is left of the connection of a session that is over, for at most a second.
    pub async fn abandon(self) {
        close(&self.connection, Duration::from_secs(1).min(self.call_timeout)).await;
    }
}

async fn ack(acker: Acker, multiple: bool, limit: Duration) -> Result<bool, ()> {
    timeout(limit, acker.ack(BasicAckOptions { multiple })).await.map_err(|_| ())?.map_err(|_| ())
}

fn share(prefetch: u16, queues: usize) -> u16 {
    prefetch.div_ceil(u16::try_from(queues).unwrap_or(1).max(1))
}

/// Starts a consumer for each queue. They share the prefetch, because a quorum queue knows none of a whole channel (RabbitMQ's page on
/// quorum queues, "Global QoS").
async fn consume(
    channel: &Channel,
    queues: &[String],
    prefetch: u16,
    limit: Duration,
) -> Result<Vec<Consumer>, BrokerError> {
    let qos = channel.basic_qos(share(prefetch, queues.len()), BasicQosOptions { global: false });
    let qos = call(limit, "setting the prefetch", qos);
    let consume = |queue: &String| {
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let request = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments);
        call_topology(limit, "starting the consumer", request)
    };
    // All requests are sent at once, this one first: RabbitMQ handles those of a channel in their order.
    let ((), consumers) = try_join(qos, try_join_all(queues.iter().map(consume))).await?;
    Ok(consumers)
}
