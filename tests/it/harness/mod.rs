//! Owns what every integration test stands on: real servers, names of its own on them, a running worker, and the
//! oracle that says whether anything was lost or doubled.

mod bed;
mod desk;
mod servers;
mod worker;

use std::time::{Duration, Instant};

pub use bed::{Bed, Sent};
pub use desk::{Said, Seen, kill};
pub use servers::{Kind, Private};
pub use worker::Worker;

/// Waits for a condition with a deadline; polls, never guesses a time.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, limit: Duration, mut condition: F) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Generous: machines are shared. A test that passes does not wait for it.
pub const SOON: Duration = Duration::from_secs(60);
