//! Owns the lock on a queue: one browser at a time, because a second one would see only what the first does not hold.

use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::super::connection::{Connection, call, call_topology};
use super::super::error::{BrokerError, RefusalKind};
use super::super::report::{Report, wait_until};
use super::error::{BrowseError, BrowseOptions};

/// Shortest and longest time between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// The name of a lock that belongs to a queue, within AMQP's 255 bytes.
pub(crate) fn lock_name(queue: &str, suffix: &str) -> String {
    let room = 255 - suffix.len().min(255);
    format!("{}{suffix}", queue.get(..queue.floor_char_boundary(room)).unwrap_or_default())
}

/// Takes a lock of this name; false if another connection holds it. It ends with the connection.
///
/// # Errors
/// The broker does not answer, or the user may not.
pub(crate) async fn try_lock(connection: &Connection, name: &str, limit: Duration) -> Result<bool, BrokerError> {
    let channel = call(limit, "opening a channel", connection.create_channel()).await?;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let declare = channel.queue_declare(name.into(), exclusive, FieldTable::default());
    match call_topology(limit, "taking a lock", declare).await {
        Ok(_) => Ok(true),
        Err(error) if error.refusal() == Some(RefusalKind::ResourceLocked) => Ok(false),
        Err(error) => Err(error),
    }
}

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
    let name = lock_name(queue, ".desk");
    loop {
        match try_lock(connection, &name, limit).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // With --trust-queue the operator takes care that nobody else browses it.
            Err(error) if error.refusal() == Some(RefusalKind::AccessRefused) && options.trust_queue => return Ok(()),
            Err(error) => return Err(error.into()),
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
