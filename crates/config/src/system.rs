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

/// Milliseconds since 1970 of a time as RFC 3339 writes it, or of a duration before `now`, such as `2h`. Seconds may be left out, and a
/// time without an offset is UTC. `None` if it is neither, or before 1970.
pub fn parse_time(text: &str, now: i64) -> Option<i64> {
    let text = text.trim();
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        // It reads times that have an offset too, and leaves the offset out.
        let local = text.parse::<jiff::civil::DateTime>().ok()?;
        local.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp())
    });
    let ago = || now.checked_sub(i64::try_from(humantime::parse_duration(text).ok()?.as_millis()).ok()?);
    time.map(jiff::Timestamp::as_millisecond).or_else(ago).filter(|millis| *millis >= 0)
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
    fn times_have_an_offset_or_are_utc() {
        let three = Some(1_795_316_400_000);
        for text in [
            "2026-11-22T03:00:00Z",
            " 2026-11-22T03:00:00 ",
            "2026-11-22 03:00",
            "2026-11-22T03:00",
            "2026-11-22t03:00:00.000z",
            "2026-11-22T03:00Z",
            "2026-11-22T04:00:00+01:00",
            "2026-11-22T04:00+01:00",
            "2026-11-21T22:00:00-0500",
            "2026-11-22T08:30:00+05:30",
        ] {
            assert_eq!(parse_time(text, 0), three, "{text}");
        }
        assert_eq!(parse_time("2026-11-22T03:00:00.25+00:00", 0), three.map(|time| time + 250));
        assert_eq!(parse_time("2026-11-22", 0), three.map(|time| time - 3 * 3_600_000));
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-22T03:00:00+99:00",
            "1969-12-31T00:00:00Z",
            "5",
            "-2h",
            "9999999999days",
        ] {
            assert_eq!(parse_time(text, 9_000_000_000), None, "{text}");
        }
        assert_eq!(parse_time("2h 30min", 9_000_000), Some(0));
        assert_eq!(parse_time("2h 30min", 8_999_999), None);
    }

    #[test]
    fn no_color_and_dumb_terminals_turn_colours_off() {
        let allow = |no_color: Option<&str>, term: Option<&str>| {
            allow_colours(no_color.map(OsString::from), term.map(OsString::from))
        };
        assert!(allow(None, None) && allow(Some(""), Some("xterm")));
        assert!(!allow(Some("1"), Some("xterm")) && !allow(None, Some("dumb")));
    }
}
