//! How ages, times and counts are written, and times read.

use std::time::{Duration, SystemTime};

use crate::system::now_millis;

/// 9999-12-31T24:00Z in milliseconds: RFC 3339 has no later year.
const END_OF_RFC3339: i64 = 253_402_300_800_000;

/// `3m`, `2h`, `5d`: short enough for a column.
pub fn age(millis: Option<i64>) -> String {
    let Some(millis) = millis else { return "-".to_owned() };
    let seconds = now_millis().saturating_sub(millis).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time as RFC 3339; `-` if there is none.
pub fn rfc3339(millis: Option<i64>) -> String {
    let valid = millis.filter(|millis| *millis < END_OF_RFC3339).and_then(|millis| u64::try_from(millis).ok());
    let time = valid.and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
    time.map_or_else(|| "-".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// A duration in one unit: `4 ms`, `1.2 s`, `3 min`, `2.5 h`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds * 1000.0),
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// `1 document`, `2 documents`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `1 dead letter`, `2 dead letters`.
pub fn dead_letters(count: u64) -> String {
    counted(count, "dead letter")
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
    fn durations_have_one_unit() {
        assert_eq!([0.0042, 1.24, 150.0, 9000.0].map(seconds), ["4 ms", "1.2 s", "2 min", "2.5 h"]);
    }
}
