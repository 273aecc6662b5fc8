//! Owns one session: connection, channel, consumer and every delivery on it that is not acknowledged. They live and die
//! together; after any error the session is over and the broker gives its deliveries out again.
//! Must not know what becomes of a delivery, only that it is settled.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

use crate::config::Settings;

use super::settlement::{Acks, Settlement};
use super::window::Window;
use super::{BrokerError, Delivery, topology};

/// Most deliveries handed over at once: a task is not woken for each, and none starves the others.
const CHUNK: usize = 512;
/// Most bytes of bodies handed over at once, but for the message that exceeds it.
const CHUNK_BYTES: usize = 2 << 20;
/// How long an unsettled delivery may hold up settled ones behind it before those are acknowledged one by one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most single acks at a time.
const SCATTERED: usize = 256;

/// Why a session ended.
pub type End = BrokerError;

type AckFuture = Pin<Box<dyn Future<Output = Result<bool, ()>> + Send>>;

/// A running consumer and its unsettled deliveries.
pub struct Session {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    queue: ShortString,
    call_timeout: Duration,
    settlement: Settlement<Acker>,
    /// Acks being written. More are asked for only when these are done, so that none overtakes another.
    acks: FuturesUnordered<AckFuture>,
    /// When the settled prefix last moved, or was last empty.
    moved: Instant,
    window: Window,
    /// Deliveries of a consumer that was replaced, not handed over yet.
    left_over: Vec<Delivery>,
    /// Whether the consumer was cancelled for good.
    stopped: bool,
    /// Whether settled deliveries are acknowledged without patience.
    flushing: bool,
}

impl Session {
    /// Connects, makes sure of the topology and subscribes. `few` is a low prefetch to begin with.
    ///
    /// # Errors
    /// As for connecting, declaring and subscribing; the connection is closed again.
    pub async fn open(settings: &Settings, few: Option<u16>) -> Result<Self, BrokerError> {
        let broker = &settings.broker;
        let connection = super::connect(broker, "consumer").await?;
        let largest = settings.event.max_bytes.bytes();
        let window = Window::new(broker.prefetch, broker.prefetch_bytes.bytes(), largest, few);
        let limit = broker.call_timeout.0;
        let opened = async {
            topology::ensure(&connection, broker, &settings.dead_letter).await?;
            let channel = super::call(limit, "opening a channel", connection.create_channel()).await?;
            let consumer = subscribe(&channel, broker.queue.as_str().into(), window.prefetch(), limit).await?;
            Ok((channel, consumer))
        };
        match opened.await {
            Ok((channel, consumer)) => Ok(Session {
                connection,
                channel,
                consumer,
                queue: broker.queue.as_str().into(),
                call_timeout: limit,
                settlement: Settlement::default(),
                acks: FuturesUnordered::new(),
                moved: Instant::now(),
                window,
                left_over: Vec::new(),
                stopped: false,
                flushing: false,
            }),
            Err(error) => {
                super::close(&connection, limit).await;
                Err(error)
            }
        }
    }

    /// Waits for deliveries and puts those that are there into `chunk`. Drives the acks meanwhile. Cancel safe: what was
    /// received is in `chunk`.
    ///
    /// # Errors
    /// The session is over.
    pub async fn next(&mut self, chunk: &mut Vec<Delivery>) -> Result<(), End> {
        chunk.append(&mut self.left_over);
        poll_fn(|cx| {
            if let Err(end) = self.poll_acks(cx).and_then(|()| self.poll_deliveries(cx, chunk)) {
                return Poll::Ready(Err(end));
            }
            if chunk.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await
    }

    fn poll_deliveries(&mut self, cx: &mut Context, chunk: &mut Vec<Delivery>) -> Result<(), End> {
        let mut bytes = 0;
        while !self.stopped && chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            if self.window.overflows() {
                return Err(BrokerError::Memory);
            }
            match Pin::new(&mut self.consumer).poll_next(cx) {
                Poll::Ready(Some(Ok(delivery))) => {
                    bytes += delivery.data.len();
                    chunk.push(self.take_in(delivery)?);
                }
                Poll::Ready(Some(Err(error))) => return Err(BrokerError::of_request(&error)),
                Poll::Ready(None) => return Err(BrokerError::Cancelled),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn take_in(&mut self, delivery: lapin::message::Delivery) -> Result<Delivery, End> {
        let (delivery, acker) = Delivery::new(delivery);
        self.window.received(delivery.body.len());
        if self.settlement.receive(delivery.tag, acker) { Ok(delivery) } else { Err(BrokerError::OutOfLine) }
    }

    fn poll_acks(&mut self, cx: &mut Context) -> Result<(), End> {
        loop {
            match Pin::new(&mut self.acks).poll_next(cx) {
                Poll::Ready(Some(Ok(true))) => {}
                Poll::Ready(Some(_)) => return Err(BrokerError::Ack),
                Poll::Ready(None) if self.start_acks() => {}
                Poll::Ready(None) | Poll::Pending => return Ok(()),
            }
        }
    }

    /// Notes that the last delivery handed over holds `bytes` more, for its document.
    pub fn grew(&mut self, bytes: usize) {
        self.window.grew(bytes);
    }

    /// Notes that `bytes` of a delivery that stays unsettled were let go.
    pub fn released(&mut self, bytes: usize) {
        self.window.released(bytes);
    }

    /// Notes that a delivery has its outcome, and that its `bytes` are let go. The ack follows when its turn comes.
    pub fn settle(&mut self, tag: u64, bytes: usize) {
        self.settlement.settle(tag);
        self.window.settled();
        self.window.released(bytes);
    }

    /// Starts the next acks if none are on their way; true if it did.
    fn start_acks(&mut self) -> bool {
        let limit = self.call_timeout;
        let acks = self.settlement.take_prefix().or_else(|| {
            (self.flushing || self.moved.elapsed() >= PATIENCE)
                .then(|| self.settlement.take_scattered(SCATTERED))
                .flatten()
        });
        match acks {
            Some(Acks::UpTo(acker, _)) => {
                self.moved = Instant::now();
                self.acks.push(Box::pin(ack(acker, true, limit)));
                true
            }
            Some(Acks::Each(ackers)) => {
                self.acks.extend(ackers.into_iter().map(|acker| -> AckFuture { Box::pin(ack(acker, false, limit)) }));
                true
            }
            None => false,
        }
    }

    /// Tags remembered: behind a delivery that stays unsettled for long, they add up.
    pub fn span(&self) -> usize {
        self.settlement.span()
    }

    /// Bytes in hand, of bodies and documents.
    pub fn held_bytes(&self) -> usize {
        self.window.held()
    }

    /// Deliveries not acknowledged yet.
    pub fn unacked(&self) -> usize {
        self.settlement.unacked()
    }

    /// The oldest tag that is not acknowledged, or the next to come.
    pub fn oldest(&self) -> u64 {
        self.settlement.first()
    }

    /// The prefetch in force.
    pub fn prefetch(&self) -> u16 {
        self.window.prefetch()
    }

    /// Changes the prefetch where the sizes seen call for it. That takes a new consumer on the same channel; deliveries
    /// of the old one stay ours.
    ///
    /// # Errors
    /// The session is over.
    pub async fn adapt(&mut self) -> Result<(), End> {
        let Some(prefetch) = self.window.wanted() else { return Ok(()) };
        self.unsubscribe().await?;
        self.consumer = subscribe(&self.channel, self.queue.clone(), prefetch, self.call_timeout).await?;
        self.window.changed(prefetch);
        Ok(())
    }

    /// Cancels the consumer and takes in what was on its way.
    async fn unsubscribe(&mut self) -> Result<(), End> {
        let cancel = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        super::call(self.call_timeout, "cancelling the consumer", cancel).await?;
        let limit = self.call_timeout;
        let drained = timeout(limit, async {
            while let Some(delivery) = poll_fn(|cx| Pin::new(&mut self.consumer).poll_next(cx)).await {
                let delivery = delivery.map_err(|error| BrokerError::of_request(&error))?;
                let delivery = self.take_in(delivery)?;
                self.left_over.push(delivery);
            }
            Ok(())
        });
        drained.await.unwrap_or(Err(BrokerError::Timeout("the end of the consumer")))
    }

    /// Stops the broker from sending more; what it has sent is still ours to settle or give back.
    ///
    /// # Errors
    /// The session is over.
    pub async fn stop(&mut self, chunk: &mut Vec<Delivery>) -> Result<(), End> {
        self.unsubscribe().await?;
        self.stopped = true;
        chunk.append(&mut self.left_over);
        Ok(())
    }

    /// Waits until every settled delivery is acknowledged, one by one where need be.
    ///
    /// # Errors
    /// The session is over.
    pub async fn flush(&mut self) -> Result<(), End> {
        self.flushing = true;
        poll_fn(|cx| match self.poll_acks(cx) {
            Err(end) => Poll::Ready(Err(end)),
            Ok(()) if self.acks.is_empty() => Poll::Ready(Ok(())),
            Ok(()) => Poll::Pending,
        })
        .await
    }

    /// Ends a stopped session in good order: settled deliveries are acknowledged, the others given back with one
    /// `nack`, awaited. `reject` or closing without it would count towards the queue's delivery limit on RabbitMQ 4.3.
    ///
    /// # Errors
    /// The session is over anyway; what was not written, the broker gives out again.
    pub async fn give_back(mut self) -> Result<(), End> {
        self.flush().await?;
        if let Some(acker) = self.settlement.take_rest() {
            let nack = acker.nack(BasicNackOptions { multiple: true, requeue: true });
            match timeout(self.call_timeout, nack).await {
                Ok(Ok(true)) => {}
                _ => return Err(BrokerError::Ack),
            }
        }
        super::close(&self.connection, self.call_timeout).await;
        Ok(())
    }

    /// Drops a session that is over. What is left of its connection is closed, so that the broker sees it gone.
    pub async fn abandon(self) {
        super::close(&self.connection, Duration::from_secs(1).min(self.call_timeout)).await;
    }
}

async fn ack(acker: Acker, multiple: bool, limit: Duration) -> Result<bool, ()> {
    timeout(limit, acker.ack(BasicAckOptions { multiple })).await.map_err(|_| ())?.map_err(|_| ())
}

async fn subscribe(
    channel: &Channel,
    queue: ShortString,
    prefetch: u16,
    limit: Duration,
) -> Result<Consumer, BrokerError> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
    super::call(limit, "setting the prefetch", qos).await?;
    let request = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default());
    match timeout(limit, request).await {
        Ok(Ok(consumer)) => Ok(consumer),
        Ok(Err(error)) => Err(BrokerError::of_topology(&error)),
        Err(_) => Err(BrokerError::Timeout("subscribing")),
    }
}
