//! Owns publishing many messages for an operator: in batches, with a rate and a result for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::report::Report;
use ticketlog_config::BrokerSettings;

use super::error::BrokerError;
use super::message::Outgoing;
use super::publisher::{PublishResult, Publisher};
use super::rate::Rate;

/// Most messages, and bytes of them, that are published together before their confirms are awaited.
const MAX_BATCH_MESSAGES: usize = 500;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// With a rate limit: the number of batches a second, which determines their size.
const BATCHES_PER_SECOND: f64 = 5.0;

/// The results so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct PublishCounts {
    /// Messages with a result.
    pub published: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Returned: no queue is bound for them.
    pub returned: u64,
    /// Refused, by a full queue for instance.
    pub refused: u64,
}

impl PublishCounts {
    /// Messages that RabbitMQ has confirmed.
    pub fn confirmed(&self) -> u64 {
        self.published - self.returned - self.refused
    }
}

/// A publisher with the batch that it collects. Each message comes with an item `T`, which is returned with its result.
pub struct BatchPublisher<T> {
    broker: BrokerSettings,
    publisher: Publisher,
    batch: Vec<(Outgoing, T)>,
    batch_bytes: usize,
    rate: Option<Rate>,
    /// Whether publishing continues after a message that RabbitMQ refuses by closing the channel.
    tolerant: bool,
    started: Instant,
    /// With a rate limit: when the next batch is due. Time that was not used is not made up for.
    next_batch: Instant,
    report: Arc<dyn Report>,
    pub counts: PublishCounts,
}

impl<T> BatchPublisher<T> {
    /// Will publish at most `rate` messages a second.
    pub fn new(broker: &BrokerSettings, publisher: Publisher, rate: Option<Rate>, report: Arc<dyn Report>) -> Self {
        BatchPublisher {
            broker: broker.clone(),
            publisher,
            batch: Vec::with_capacity(MAX_BATCH_MESSAGES),
            batch_bytes: 0,
            rate,
            tolerant: false,
            started: Instant::now(),
            next_batch: Instant::now(),
            report,
            counts: PublishCounts::default(),
        }
    }

    /// Continues after a message that RabbitMQ refuses by closing the channel; it counts as refused.
    pub fn tolerant(self) -> Self {
        BatchPublisher { tolerant: true, ..self }
    }

    /// Adds a message, and publishes the batch once it is full; returns the results that are known now.
    pub async fn push(&mut self, message: Outgoing, item: T) -> Result<Vec<(T, PublishResult)>, BrokerError> {
        self.batch_bytes += message.bytes();
        self.batch.push((message, item));
        let max = self.rate.map_or(MAX_BATCH_MESSAGES, |rate| {
            (rate.per_second() / BATCHES_PER_SECOND).clamp(1.0, MAX_BATCH_MESSAGES as f64) as usize
        });
        if self.batch.len() >= max || self.batch_bytes >= MAX_BATCH_BYTES { self.flush().await } else { Ok(Vec::new()) }
    }

    /// Publishes the batch; returns the results.
    pub async fn flush(&mut self) -> Result<Vec<(T, PublishResult)>, BrokerError> {
        if self.batch.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(rate) = self.rate {
            tokio::time::sleep_until(self.next_batch.into()).await;
            self.next_batch = Instant::now() + rate.duration_of(self.batch.len());
        }
        let mut batch = std::mem::take(&mut self.batch);
        let body_bytes = batch.iter().map(|(message, _)| message.body.len() as u64).sum::<u64>();
        let mut messages: Vec<_> = batch.iter_mut().map(|(message, _)| message).collect();
        let results = match self.publisher.publish(&mut messages, || note_blocked(&*self.report)).await {
            Ok(results) => results,
            Err(BrokerError::Refused(_) | BrokerError::Closed(_)) if self.tolerant => {
                self.publish_singly(messages).await?
            }
            Err(error) => return Err(error),
        };
        for result in &results {
            match result {
                PublishResult::Confirmed => {}
                PublishResult::Returned => self.counts.returned += 1,
                PublishResult::Nacked => self.counts.refused += 1,
            }
        }
        self.counts.published += results.len() as u64;
        self.counts.bytes += body_bytes;
        self.batch_bytes = 0;
        self.report.set_done(self.counts.published);
        Ok(batch.into_iter().zip(results).map(|((_, item), result)| (item, result)).collect())
    }

    /// Publishes each message on its own, after one of them made RabbitMQ close the channel (a missing permission, its size).
    async fn publish_singly(&mut self, messages: Vec<&mut Outgoing>) -> Result<Vec<PublishResult>, BrokerError> {
        let mut results = Vec::with_capacity(messages.len());
        self.reopen().await?;
        for message in messages {
            match self.publisher.publish(&mut [message], || note_blocked(&*self.report)).await {
                Ok(result) => results.extend(result),
                Err(error @ (BrokerError::Refused(_) | BrokerError::Closed(_))) => {
                    self.report.note(&format!("RabbitMQ refuses a message: {error}"));
                    results.push(PublishResult::Nacked);
                    self.reopen().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    async fn reopen(&mut self) -> Result<(), BrokerError> {
        self.publisher = Publisher::open_without_topology(&self.broker, "publish").await?;
        Ok(())
    }

    pub async fn exchange_exists(&self, name: &str) -> Result<bool, BrokerError> {
        self.publisher.exchange_exists(name).await
    }

    /// Closes the publisher; call [`BatchPublisher::flush`] first. Returns the counts and the duration.
    pub async fn close(self) -> (PublishCounts, Duration) {
        self.publisher.close().await;
        (self.counts, self.started.elapsed())
    }
}

fn note_blocked(report: &dyn Report) {
    report.note("RabbitMQ blocks publishers (a memory or disk alarm); waiting");
}
