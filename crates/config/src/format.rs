//! How ages, times and counts are written.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        assert_eq!([0.0042, 1.24, 150.0, 9000.0].map(seconds), ["4 ms", "1.2 s", "2 min", "2.5 h"]);
    }
}
