//! What is asked of the operating system: the host name, the wall clock, whether a terminal shows colours.

use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

/// The host name; text that is not UTF-8 is replaced.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Time since 1970-01-01T00:00:00Z.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn now_millis() -> i64 {
    i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)
}

/// Whether colours may be written to a stream, given whether it is a terminal: not with `NO_COLOR` (no-color.org) or on a
/// terminal without them (`TERM=dumb`).
pub fn has_colours(is_terminal: bool) -> bool {
    is_terminal && allow_colours(std::env::var_os("NO_COLOR"), std::env::var_os("TERM"))
}

fn allow_colours(no_color: Option<OsString>, term: Option<OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.as_deref() != Some(OsStr::new("dumb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_dumb_terminals_turn_colours_off() {
        let allow = |no_color: Option<&str>, term: Option<&str>| {
            allow_colours(no_color.map(OsString::from), term.map(OsString::from))
        };
        assert!(allow(None, None) && allow(Some(""), Some("xterm")));
        assert!(!allow(Some("1"), Some("xterm")) && !allow(None, Some("dumb")));
    }
}
