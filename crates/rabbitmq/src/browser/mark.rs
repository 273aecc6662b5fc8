//! Removing messages from a queue: those that were in it when the run began, whatever arrives meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::BasicAckOptions;
use tokio::time::timeout;

use super::super::connection::call;
use super::super::error::BrokerError;
use super::super::rate::Rate;
use super::channels::Channels;
use super::error::BrowseError;
use super::open::{Held, stable_depth};
use super::{AckHandle, BrowsedMessage, FIRST_STEP, QueueBrowser};

/// How often to read on while marking, if later messages can overtake: each time fewer have arrived.
const MAX_MARK_ROUNDS: u32 = 10;
/// How long to wait until all of a long queue is requeued. Less is there if something else has taken messages.
const MAX_REQUEUE_WAIT: Duration = Duration::from_secs(10);

/// A pass through the messages of a run.
pub struct MarkedBrowser {
    browser: QueueBrowser,
    /// How many of them were not delivered again yet.
    pub remaining: u32,
    /// Whether one of them was among the messages since the browser was extended.
    any_since_extended: bool,
    /// How many others, which arrived later, were delivered.
    pub later: u32,
}

impl QueueBrowser {
    /// Fixes which messages belong to the run: those that were in the queue when this begins, or the first of them if the
    /// browser has a maximum. Call it after [`QueueBrowser::next`] has returned the last. No more are held than are processed in a
    /// minute at this rate: RabbitMQ takes back what is held too long.
    ///
    /// # Errors
    /// The connection is lost, or the queue is gone.
    pub async fn mark(mut self, rate: Option<Rate>) -> Result<MarkedBrowser, BrowseError> {
        match self.requeue_all().await {
            Ok(remaining) => {
                if let Some(rate) = rate {
                    self.max_step = ((rate.per_second() * 60.0) as u32).clamp(1, self.max_step);
                    self.step = self.step.min(self.max_step);
                }
                (self.counts_read, self.removes) = (false, true);
                Ok(MarkedBrowser { browser: self, remaining, any_since_extended: true, later: 0 })
            }
            Err(error) => {
                let _ = self.close().await;
                Err(error)
            }
        }
    }

    /// Requeues what was read, so that it is delivered once more. Returns how many that are.
    async fn requeue_all(&mut self) -> Result<u32, BrowseError> {
        let has_maximum = self.count < self.ready_at_start;
        for _ in 0..MAX_MARK_ROUNDS {
            if has_maximum || !self.any_priority || !self.extend().await? {
                break;
            }
            while self.next().await?.is_some() {}
        }
        let count = self.taken;
        self.requeue().await?;
        let limit = self.call_timeout;
        let channel = call(limit, "opening a channel", self.connection.create_channel()).await?;
        self.channels = Channels::new(channel);
        let deadline = Instant::now() + MAX_REQUEUE_WAIT;
        loop {
            (self.ready_at_start, _) = stable_depth(&self.connection, &self.queue, limit, Held::ByOthers).await?;
            if self.ready_at_start >= count || Instant::now() >= deadline {
                break;
            }
        }
        (self.count, self.taken, self.step) = (self.ready_at_start, 0, FIRST_STEP);
        (self.consumers_started, self.last_was_requeued) = (0, false);
        self.undelivered.clear();
        Ok(count)
    }
}

impl MarkedBrowser {
    /// The next message of the run, in the order of the queue; none after the last.
    ///
    /// # Errors
    /// The connection is lost, the queue is gone, or a message is near its delivery limit.
    pub async fn next(&mut self) -> Result<Option<BrowsedMessage>, BrowseError> {
        while self.remaining > 0 {
            let Some(message) = self.browser.next().await? else {
                if std::mem::take(&mut self.any_since_extended) && self.browser.extend().await? {
                    continue;
                }
                return Ok(None);
            };
            if message.delivery.redelivered {
                self.remaining -= 1;
                self.any_since_extended = true;
                return Ok(Some(message));
            }
            self.later += 1;
        }
        Ok(None)
    }

    /// Whether what it has handed over can be removed. Ask before what cannot be undone.
    ///
    /// # Errors
    /// RabbitMQ has closed a channel, so that messages are in the queue again.
    pub fn check(&self) -> Result<(), BrowseError> {
        self.browser.check_channels()
    }

    /// Removes messages from the queue; `removed` is called with the place of each whose ack was sent.
    ///
    /// # Errors
    /// The connection is lost, or a channel was closed; the broker requeues what it received no ack for.
    pub async fn acknowledge(
        &mut self,
        acks: Vec<AckHandle>,
        mut removed: impl FnMut(usize),
    ) -> Result<(), BrowseError> {
        let limit = self.browser.call_timeout;
        let sent = acks.into_iter().map(|AckHandle { acker, channel }| async move {
            let is_sent = timeout(limit, acker.ack(BasicAckOptions { multiple: false })).await;
            matches!(is_sent, Ok(Ok(true))).then_some(channel)
        });
        // All of them, whatever becomes of the first.
        let sent = join_all(sent).await;
        self.browser.last_ack = Some(Instant::now());
        for (at, channel) in sent.iter().enumerate() {
            if let Some(channel) = channel {
                self.browser.channels.release(*channel);
                removed(at);
            }
        }
        if sent.iter().all(Option::is_some) {
            return Ok(());
        }
        self.check()?;
        Err(BrokerError::AckFailed.into())
    }

    /// Requeues everything that is not acknowledged, each message in its place, and closes the connection.
    ///
    /// # Errors
    /// The connection is lost; the broker has requeued everything then.
    pub async fn close(self) -> Result<(), BrowseError> {
        self.browser.close().await
    }
}
