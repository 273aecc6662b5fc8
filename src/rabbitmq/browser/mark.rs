//! Fixing which messages a run removes: those that were in the queue when it began, whatever arrives meanwhile.

use std::time::{Duration, Instant};

use super::super::connection::call;
use super::error::BrowseError;
use super::open::{Held, stable_depth};
use super::{FIRST_STEP, Marked, QueueBrowser};

/// How often to read on while marking, if later messages can overtake: each time fewer have arrived.
const MAX_MARK_ROUNDS: u32 = 10;
/// How long to wait until all of a long queue is requeued. Less is there if something else has taken messages.
const MAX_REQUEUE_WAIT: Duration = Duration::from_secs(10);

impl QueueBrowser {
    /// Fixes which messages belong to the run: those that were in the queue when this begins, or the first of them if the
    /// browser is limited. Call it after [`QueueBrowser::next`] has returned the last. Returns their number.
    ///
    /// # Errors
    /// The connection is lost, or the queue is gone.
    pub async fn mark(&mut self) -> Result<u32, BrowseError> {
        let limited = self.count < self.ready_at_start;
        for _ in 0..MAX_MARK_ROUNDS {
            if limited || !self.any_priority || !self.extend().await? {
                break;
            }
            while self.take_checked().await?.is_some() {}
        }
        let count = self.taken;
        self.requeue().await?;
        let limit = self.call_timeout;
        self.channel = call(limit, "opening a channel", self.connection.create_channel()).await?;
        let deadline = Instant::now() + MAX_REQUEUE_WAIT;
        loop {
            (self.ready_at_start, _) = stable_depth(&self.connection, &self.queue, limit, Held::ByOthers).await?;
            if self.ready_at_start >= count || Instant::now() >= deadline {
                break;
            }
        }
        (self.count, self.taken, self.held, self.step) = (self.ready_at_start, 0, 0, FIRST_STEP);
        (self.consumers_started, self.last_was_requeued) = (0, false);
        self.undelivered.clear();
        self.marked = Some(Marked { remaining: count, any_since_extended: true, later: 0 });
        Ok(count)
    }

    /// Number of messages of the run that were not delivered again, and of those that arrived later.
    pub fn unmet(&self) -> (u32, u32) {
        self.marked.as_ref().map_or((0, 0), |marked| (marked.remaining, marked.later))
    }
}
