//! Owns the lock on a queue: one browser at a time, because a second one would see only what the first does not hold.

use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::super::connection::{Connection, call, call_topology};
use super::super::error::RefusalKind;
use super::super::report::{Report, wait_until};
use super::error::{BrowseError, BrowseOptions};

/// Shortest and longest time between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// Takes the lock, waiting at most `options.wait`, which `report` is told when the wait begins. The lock is an exclusive queue:
/// RabbitMQ deletes it with the connection that declared it, however that ends.
///
/// # Errors
/// `Locked` after the wait, `Stopped` if the operator stops it; or the broker.
pub(super) async fn acquire(
    connection: &Connection,
    queue: &str,
    limit: Duration,
    options: &BrowseOptions,
    report: &dyn Report,
) -> Result<(), BrowseError> {
    let deadline = Instant::now() + options.wait;
    let mut pause = RETRY_FIRST;
    let mut is_noted = false;
    let name = format!("{}.desk", queue.get(..queue.floor_char_boundary(250)).unwrap_or_default());
    loop {
        let channel = call(limit, "opening a channel", connection.create_channel()).await?;
        let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
        let declare = channel.queue_declare(name.as_str().into(), exclusive, FieldTable::default());
        match call_topology(limit, "locking the queue", declare).await {
            Ok(_) => return Ok(()),
            Err(error) => match error.refusal() {
                Some(RefusalKind::ResourceLocked) => {}
                // With --trust-queue the operator takes care that nobody else browses it.
                Some(RefusalKind::AccessRefused) if options.trust_queue => return Ok(()),
                _ => return Err(error.into()),
            },
        }
        if Instant::now() >= deadline {
            return Err(BrowseError::Locked { queue: queue.to_owned() });
        }
        if !std::mem::replace(&mut is_noted, true) {
            report.note(&format!("another `ticketlog dead` uses queue {queue}; waiting until it is done"));
        }
        if !wait_until(Instant::now() + pause, report).await {
            return Err(BrowseError::Stopped);
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}
