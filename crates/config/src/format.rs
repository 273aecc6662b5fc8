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

/// `1 document`, `2 documents`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `1 dead letter`, `2 dead letters`.
pub fn dead_letters(count: u64) -> String {
    counted(count, "dead letter")
}
