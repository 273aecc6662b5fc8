//! Owns what is asked of the operating system: the host name and the wall clock. Must not know what they are used for.

use std::time::{Duration, SystemTime};

/// The host name; text that is not UTF-8 is replaced.
pub fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Time since 1970-01-01T00:00:00Z.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn now_millis() -> i64 {
    i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)
}
