//! Owns publishing many messages for an operator: in batches, with a rate and a result for each.
//!
//! A message that RabbitMQ refuses by closing the channel (its exchange, its size) takes the confirms of those before it along:
//! whether these were routed is not known then, and sending them again may double them. So a tolerant publisher sends such a
//! message alone: one to an exchange, or of a size, that RabbitMQ has not accepted before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::report::{POLL, Report, wait_until};

use super::error::{BrokerError, RefusalKind};
use super::message::Outgoing;
use super::publisher::{PublishResult, Publisher, Unfinished};
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

/// What RabbitMQ has accepted, routed or not: to which exchanges, and up to which size of a body.
#[derive(Default)]
struct Accepted {
    exchanges: HashSet<String>,
    bytes: Option<usize>,
}

impl Accepted {
    fn covers(&self, message: &Outgoing) -> bool {
        self.bytes.is_some_and(|bytes| message.body.len() <= bytes) && self.exchanges.contains(message.exchange())
    }

    fn add(&mut self, message: &Outgoing) {
        self.bytes = self.bytes.max(Some(message.body.len()));
        if !self.exchanges.contains(message.exchange()) {
            self.exchanges.insert(message.exchange().to_owned());
        }
    }
}

/// What became of the messages that a batch had.
pub type Results<T> = Vec<(T, PublishResult)>;

/// A publisher with the batch that it collects. Each message comes with an item `T`, which is returned with its result.
pub struct BatchPublisher<T> {
    publisher: Publisher,
    batch: Vec<(Outgoing, T)>,
    batch_bytes: usize,
    rate: Option<Rate>,
    /// Whether publishing continues after a message that RabbitMQ refuses by closing the channel; and what it accepts.
    tolerant: Option<Accepted>,
    /// Which errors it tolerates then.
    is_refusal: fn(&BrokerError) -> bool,
    /// Whether an item may still be published.
    may_publish: fn(&T) -> bool,
    started: Instant,
    /// With a rate limit: when the next batch is due. Time that was not used is not made up for.
    next_batch: Instant,
    report: Arc<dyn Report>,
    pub counts: PublishCounts,
}

impl<T> BatchPublisher<T> {
    /// Will publish at most `rate` messages a second.
    pub fn new(publisher: Publisher, rate: Option<Rate>, report: Arc<dyn Report>) -> Self {
        BatchPublisher {
            publisher,
            batch: Vec::with_capacity(MAX_BATCH_MESSAGES),
            batch_bytes: 0,
            rate,
            tolerant: None,
            is_refusal,
            may_publish: |_| true,
            started: Instant::now(),
            next_batch: Instant::now(),
            report,
            counts: PublishCounts::default(),
        }
    }

    /// Continues after a message that RabbitMQ refuses by closing the channel; it counts as refused.
    pub fn tolerant(self) -> Self {
        BatchPublisher { tolerant: Some(Accepted::default()), ..self }
    }

    /// The same, but only if the message itself is the reason: all others go to the same exchange, with the same permission.
    pub fn tolerant_of_messages(self) -> Self {
        BatchPublisher { is_refusal: is_refusal_of_message, ..self.tolerant() }
    }

    /// Asks each item of a batch whose turn has come. If one may not be published, none of them is.
    pub fn only_if(self, may_publish: fn(&T) -> bool) -> Self {
        BatchPublisher { may_publish, ..self }
    }

    /// Adds a message, and publishes the batch once it is full. The results that are known then are added to `results`.
    ///
    /// # Errors
    /// What has no result may have been routed or not.
    pub async fn push(&mut self, message: Outgoing, item: T, results: &mut Results<T>) -> Result<(), BrokerError> {
        let is_alone = self.tolerant.as_ref().is_some_and(|accepted| !accepted.covers(&message));
        if is_alone {
            self.flush(results).await?;
        }
        self.batch_bytes += message.bytes();
        self.batch.push((message, item));
        let max = self.rate.map_or(MAX_BATCH_MESSAGES, |rate| {
            (rate.per_second() / BATCHES_PER_SECOND).clamp(1.0, MAX_BATCH_MESSAGES as f64) as usize
        });
        let is_full = self.batch.len() >= max || self.batch_bytes >= MAX_BATCH_BYTES;
        if is_alone || is_full { self.flush(results).await } else { Ok(()) }
    }

    /// Publishes the batch; adds its results to `results`. A batch that waits for its turn when the operator stops, or of which an
    /// item may not be published any more, is not published, and has none.
    ///
    /// # Errors
    /// What has no result may have been routed or not.
    pub async fn flush(&mut self, results: &mut Results<T>) -> Result<(), BrokerError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let is_due = self.rate.is_none() || wait_until(self.next_batch, &*self.report).await;
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !is_due || !batch.iter().all(|(_, item)| (self.may_publish)(item)) {
            return Ok(());
        }
        if let Some(rate) = self.rate {
            self.next_batch = Instant::now() + rate.duration_of(batch.len());
        }
        match self.publish_and_count(batch, results).await {
            Ok(()) => Ok(()),
            Err((error, _)) if !(self.is_refusal)(&error) || self.tolerant.is_none() => Err(error),
            Err((error, unknown)) if unknown.len() <= 1 => self.refuse(unknown, &error, results).await,
            Err((_, unknown)) => self.publish_singly(unknown, results).await,
        }
    }

    /// # Errors
    /// With the messages of which nothing is known.
    async fn publish_and_count(
        &mut self,
        mut batch: Vec<(Outgoing, T)>,
        results: &mut Results<T>,
    ) -> Result<(), (BrokerError, Vec<(Outgoing, T)>)> {
        let mut messages: Vec<_> = batch.iter_mut().map(|(message, _)| message).collect();
        match self.publisher.publish(&mut messages, POLL, || note_blocked(&*self.report)).await {
            Ok(known) => {
                self.add(batch, known.into_iter().map(Some).collect(), results);
                Ok(())
            }
            Err(Unfinished { error, results: known }) => Err((error, self.add(batch, known, results))),
        }
    }

    /// Counts what is known of a batch, and adds it to `results`. Returns the messages without a result.
    fn add(
        &mut self,
        batch: Vec<(Outgoing, T)>,
        known: Vec<Option<PublishResult>>,
        results: &mut Results<T>,
    ) -> Vec<(Outgoing, T)> {
        let mut unknown = Vec::new();
        for ((message, item), result) in batch.into_iter().zip(known) {
            let Some(result) = result else {
                unknown.push((message, item));
                continue;
            };
            if let (Some(accepted), PublishResult::Confirmed | PublishResult::Returned) = (&mut self.tolerant, result) {
                accepted.add(&message);
            }
            match result {
                PublishResult::Confirmed => {}
                PublishResult::Returned => self.counts.returned += 1,
                PublishResult::Nacked => self.counts.refused += 1,
            }
            self.counts.published += 1;
            self.counts.bytes += message.body.len() as u64;
            results.push((item, result));
        }
        self.report.set_done(self.counts.published);
        unknown
    }

    /// Publishes what has no result, each message on its own, after RabbitMQ has closed the channel for one of them.
    async fn publish_singly(
        &mut self,
        messages: Vec<(Outgoing, T)>,
        results: &mut Results<T>,
    ) -> Result<(), BrokerError> {
        self.report.note(&format!(
            "RabbitMQ closed the channel before it confirmed {} messages; they are sent again, and may be there twice",
            messages.len()
        ));
        self.publisher.reopen().await?;
        for message in messages {
            if !(self.may_publish)(&message.1) {
                break;
            }
            match self.publish_and_count(vec![message], results).await {
                Ok(()) => {}
                Err((error, unknown)) if (self.is_refusal)(&error) => self.refuse(unknown, &error, results).await?,
                Err((error, _)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts the message as refused for which RabbitMQ has closed the channel.
    async fn refuse(
        &mut self,
        message: Vec<(Outgoing, T)>,
        error: &BrokerError,
        results: &mut Results<T>,
    ) -> Result<(), BrokerError> {
        if !message.is_empty() {
            self.report.note(&format!("RabbitMQ refuses a message: {error}"));
        }
        let known = vec![Some(PublishResult::Nacked); message.len()];
        self.add(message, known, results);
        self.publisher.reopen().await
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

/// Whether RabbitMQ has closed the channel because of a message; 311: its content is too large. Other codes, such as 320 of
/// an operator who closes connections, say nothing about a message.
fn is_refusal(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Refused(_) | BrokerError::Closed(311))
}

/// Whether it is refused for what it is, such as its size.
fn is_refusal_of_message(error: &BrokerError) -> bool {
    is_refusal(error) && matches!(error.refusal(), None | Some(RefusalKind::PreconditionFailed))
}

/// Returns whether to wait on.
fn note_blocked(report: &dyn Report) -> bool {
    report.note("RabbitMQ blocks publishers (a memory or disk alarm); waiting");
    !report.is_stopped()
}
