//! The end of browsing: everything that is held goes back to its place in the queue.

use super::super::admin::queue_depth::queue_counts;
use super::super::connection::{call, close, flush_single_acks};
use super::super::error::BrokerError;
use super::error::BrowseError;
use super::open::IDLE_WAIT;
use super::{MANY, MAX_IDLE_WAITS, QueueBrowser, max_step};

impl QueueBrowser {
    /// Requeues everything that is not acknowledged, each message in its place, and closes the connection.
    ///
    /// # Errors
    /// The connection is lost; the broker has requeued everything then.
    pub async fn close(mut self) -> Result<(), BrowseError> {
        let requeued = self.requeue().await;
        close(&self.connection, self.call_timeout).await;
        requeued
    }

    /// Requeues everything that is not acknowledged, each message in its place, and closes the channels, whatever fails before.
    pub(super) async fn requeue(&mut self) -> Result<(), BrowseError> {
        let read = self.read_requeued().await;
        if read.is_err() {
            // It would receive what the earlier channels requeue.
            let _ = self.cancel_consumer().await;
        }
        flush_single_acks(self.last_ack).await;
        let closed = self.close_channels().await;
        read?;
        Ok(closed?)
    }

    /// Reads all that was ever requeued, if the next message may be one of these.
    async fn read_requeued(&mut self) -> Result<(), BrowseError> {
        self.count = self.ready_at_start;
        // Nothing is removed any more, and no rate holds it back.
        self.removes = false;
        self.max_step = max_step(self.count);
        let left = self.count.saturating_sub(self.taken);
        if self.last_was_requeued && left > MANY {
            if self.counts_read {
                self.report.set_total(self.count.into());
            }
            self.report.note(&format!("reading {left} more first: otherwise the order of the queue would change"));
        }
        while self.last_was_requeued && self.take().await?.is_some() {}
        self.cancel_consumer().await
    }

    async fn close_channels(&mut self) -> Result<(), BrokerError> {
        let mut expected = self.depth().await.ok();
        let mut ended = Ok(());
        for (channel, held) in self.channels.take(self.undelivered.len()) {
            // RabbitMQ has closed it, and requeued what it held.
            if !channel.status().connected() {
                expected = None;
                continue;
            }
            let closed = call(self.call_timeout, "closing a channel", channel.close(200, "closing".into())).await;
            if closed.is_err() {
                (expected, ended) = (None, ended.and(closed));
            }
            if let Some(depth) = expected.map(|depth| depth + held) {
                expected = self.wait_for_depth(depth).await.unwrap_or(false).then_some(depth);
            }
        }
        ended
    }

    /// Waits until messages are requeued, which the next browser would not count. False if they are not counted for long: other
    /// consumers may take them at once.
    async fn wait_for_depth(&self, expected: u32) -> Result<bool, BrokerError> {
        for _ in 0..MAX_IDLE_WAITS {
            if self.depth().await? >= expected {
                return Ok(true);
            }
            tokio::time::sleep(IDLE_WAIT / 10).await;
        }
        Ok(false)
    }

    async fn depth(&self) -> Result<u32, BrokerError> {
        Ok(queue_counts(&self.connection, &self.queue, self.call_timeout).await?.ready)
    }
}
