//! Owns what every integration test stands on: real servers, names of its own on them, a running worker, and the
//! oracle that says whether anything was lost or doubled.

mod bed;
mod desk;
pub mod guard;
mod oracle;
mod proxy;
mod servers;
mod worker;

use std::time::{Duration, Instant};

pub use bed::{Bed, Sent, given};
pub use desk::{Said, Seen, kill};
pub use proxy::{ACK, Act, DELIVER, PUBLISH, Proxy, What};
pub use servers::{Kind, Private, signal};
pub use worker::Worker;

/// Waits for a condition with a deadline; polls, never guesses a time.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, limit: Duration, mut condition: F) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Short limits, so that silence is noticed soon.
pub const SHORT: [(&str, &str); 3] =
    [("STORE__WRITE_TIMEOUT", "2s"), ("BROKER__HEARTBEAT", "1s"), ("BROKER__CALL_TIMEOUT", "3s")];

/// Whether this is `make chaos`: everything takes as long as the table of faults says.
pub fn chaos() -> bool {
    std::env::var_os("TICKETLOG_CHAOS_TABLE").is_some()
}

/// So many seconds in `make test`, and so many in `make chaos`.
pub fn scaled(quick: u64, full: u64) -> Duration {
    Duration::from_secs(if chaos() { full } else { quick })
}

/// Generous: machines are shared. A test that passes does not wait for it.
pub const SOON: Duration = Duration::from_secs(60);
