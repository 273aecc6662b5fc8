//! Owns the lock on a queue: one browser at a time, because a second one would see only what the first does not hold.

use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use super::super::connection::{Connection, call, call_topology};
use super::super::error::RefusalKind;
use super::error::{BrowseError, BrowseOptions};

/// Shortest and longest time between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// Takes the lock, waiting at most `options.wait`; `on_wait` is called when the wait begins. The lock is an exclusive queue:
/// RabbitMQ deletes it with the connection that declared it, however that ends.
///
/// # Errors
/// `Locked` after the wait; or the broker.
pub(super) async fn acquire(
    connection: &Connection,
    queue: &str,
    limit: Duration,
    options: &BrowseOptions,
    on_wait: impl FnOnce(),
) -> Result<(), BrowseError> {
    let deadline = Instant::now() + options.wait;
    let mut pause = RETRY_FIRST;
    let mut on_wait = Some(on_wait);
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
        if let Some(on_wait) = on_wait.take() {
            on_wait();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}
