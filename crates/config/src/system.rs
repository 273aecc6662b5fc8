//! What is asked of the operating system: the host name, the wall clock, whether a terminal shows colours.

use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

use crate::format::rfc3339;

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

/// As [`parse_time`], of a time that is past.
///
/// # Errors
/// As well if it is in the future by more than clocks differ, with the time of now: people forget that a time without an offset is UTC.
pub fn parse_past(text: &str, now: i64) -> Result<i64, String> {
    match parse_time(text, now)? {
        time if time > now + 300_000 => {
            Err(format!("{} is in the future; it is {} now", rfc3339(Some(time)), rfc3339(Some(now))))
        }
        time => Ok(time),
    }
}

/// Milliseconds since 1970 of a time as RFC 3339 writes it, or of a duration before `now`, such as `2h`. The time of the day or its
/// seconds may be left out, or the date: then it is that of `now`. A time without an offset is UTC.
///
/// # Errors
/// What was expected; also if it is before 1970.
pub fn parse_time(text: &str, now: i64) -> Result<i64, String> {
    read_time(text, now).ok_or_else(|| {
        "expected a time such as 2026-11-22, 2026-11-22T03:00 (UTC), 2026-11-22T03:00+01:00 or 03:00, or a duration ago such as \
         90min, 2h or 3days"
            .to_owned()
    })
}

fn read_time(text: &str, now: i64) -> Option<i64> {
    let text = text.trim();
    let is_time_of_day = text.split_once(':').is_some_and(|(hour, _)| matches!(hour.len(), 1 | 2));
    let today = || Some(format!("{}T{text:0>5}", rfc3339(Some(now)).get(..10)?));
    let with_date = if is_time_of_day { today()? } else { text.to_owned() };
    let text = with_date.as_str();
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
            assert_eq!(read_time(text, 0), three, "{text}");
        }
        assert_eq!(read_time("2026-11-22T03:00:00.25+00:00", 0), three.map(|time| time + 250));
        assert_eq!(read_time("2026-11-22", 0), three.map(|time| time - 3 * 3_600_000));
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
            assert_eq!(read_time(text, 9_000_000_000), None, "{text}");
        }
        let noon = three.map_or(0, |time| time + 9 * 3_600_000);
        for text in ["03:00", "3:00", "03:00:00", "03:00Z", "04:00+01:00"] {
            assert_eq!(read_time(text, noon), three, "{text}");
        }
        assert_eq!(read_time("13:60", noon), None);
        assert_eq!(parse_past("03:00", noon), Ok(noon - 9 * 3_600_000));
        insta::assert_snapshot!(parse_past("13:00", noon).unwrap_err(), @"2026-11-22T13:00:00.000Z is in the future; it is 2026-11-22T12:00:00.000Z now");
        assert_eq!(read_time("2h 30min", 9_000_000), Some(0));
        assert_eq!(read_time("2h 30min", 8_999_999), None);
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
