//! Owns what every integration test uses: real servers, queues and a database of its own, a running worker, and the
//! oracle that finds lost and duplicated events.

pub mod access_control;
mod clock;
mod cluster;
mod console;
mod dead_letters;
mod env;
mod oracle;
mod proxy;
mod replica_set;
mod servers;
mod slow_link;
mod worker;
mod world;

use std::time::{Duration, Instant};

pub use clock::shift_clock;
pub use cluster::{Cluster, Load, LoadPublisher};
pub use console::{Answer, Console, send};
pub use dead_letters::{CommandOutput, HIGH_LIMIT, QueuedMessage, kill};
pub use env::{TestEnv, TestMessage, program, server_uri, under};
pub use proxy::{ACK, Action, DELIVER, Frame, PUBLISH, Proxy, first_of};
pub use replica_set::ReplicaSet;
pub use servers::{DedicatedServer, Remote, ServerKind, signal};
pub use worker::Worker;
pub use world::World;

/// Polls until the condition is true. Panics with `what` after `limit`.
pub async fn eventually<F: AsyncFnMut() -> bool>(what: &str, limit: Duration, mut condition: F) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Settings with short timeouts, so that the worker soon notices a server that does not answer.
pub const SHORT_TIMEOUTS: [(&str, &str); 3] =
    [("STORE__WRITE_TIMEOUT", "2s"), ("BROKER__HEARTBEAT", "1s"), ("BROKER__CALL_TIMEOUT", "3s")];

/// Whether this is `make chaos`, where faults have their full length.
pub fn chaos() -> bool {
    std::env::var_os("TICKETLOG_CHAOS_TABLE").is_some()
}

/// `quick` seconds in `make test`, `full` seconds in `make chaos`.
pub fn scaled(quick: u64, full: u64) -> Duration {
    Duration::from_secs(if chaos() { full } else { quick })
}

/// The usual limit of [`eventually`]. Generous, because machines are shared; a test that passes does not wait for it.
pub const DEADLINE: Duration = Duration::from_secs(60);
