//! How a long operation tells a person what it does, and learns that it should stop.

use std::time::{Duration, Instant};

/// How often an operation that waits sees whether it should stop.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// Where an operation reports to.
pub trait Report: Send + Sync {
    /// A sentence that the operator should read.
    fn note(&self, text: &str);
    /// The number of messages to process, once it is known.
    fn set_total(&self, total: u64);
    /// The number of messages processed so far.
    fn set_done(&self, done: u64);
    /// Whether the operation should end early, gracefully.
    fn is_stopped(&self) -> bool;
}

/// Waits until a time, or until the operation should stop; returns whether it should not.
pub(super) async fn wait_until(deadline: Instant, report: &dyn Report) -> bool {
    while !report.is_stopped() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        tokio::time::sleep(left.min(POLL)).await;
    }
    false
}
