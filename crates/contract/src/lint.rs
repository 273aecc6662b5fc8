//! Owns what is found in an event that is stored: a pure function of what decoding has already parsed. It changes nothing.

use super::envelope::is_envelope;
use super::fields::FieldStates;
use super::lookalike::Names;
use super::{FindingKind, Findings, Identity, Message, Rules, js_number};

/// 2001-01-01 and 2100-01-01 in milliseconds since 1970: between them a number is read as milliseconds. Seconds of these years, microseconds,
/// nanoseconds and .NET ticks are all outside.
pub(super) const EARLIEST: f64 = 978_307_200_000.0;
pub(super) const LATEST: f64 = 4_102_444_800_000.0;

/// 10000-01-01, likewise.
const YEAR_10000: f64 = 253_402_300_800_000.0;

const DAY: f64 = 86_400_000.0;

/// `Number.MAX_SAFE_INTEGER`.
pub(super) const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// What programs write for a value that they do not have.
pub(super) const PLACEHOLDERS: [&str; 8] =
    ["undefined", "null", "NULL", "None", "nil", "NaN", "[object Object]", "<nil>"];

/// Whether this can be the time of an event, in milliseconds since 1970: from 2001 to a day ahead of now. Other times are mistakes of units, and
/// say nothing about latency or clocks.
pub fn is_plausible_time(millis: f64, now_millis: f64) -> bool {
    (EARLIEST..=now_millis + DAY).contains(&millis)
}

/// What only a clock can tell: the event, or the property in seconds, is more than a day ahead.
pub fn findings_of_clock(time: Option<f64>, property: Option<u64>, now_millis: f64) -> Findings {
    let is_ahead = |millis: f64| millis > now_millis + DAY && millis <= LATEST;
    let property = property.map(|seconds| seconds as f64 * 1000.0);
    Findings::default().with(FindingKind::TimestampAhead, [time, property].into_iter().flatten().any(is_ahead))
}

/// What is found in an event, without a clock. `document` is the one before fields are hidden.
pub(super) fn findings(
    rules: &Rules,
    names: &Names,
    message: &Message,
    fields: &FieldStates,
    identity: Identity,
    document: &[u8],
) -> Findings {
    let is_wrong = |millis: f64| !(EARLIEST..=LATEST).contains(&millis);
    let (present, of_values) = fields.present_and_findings();
    let has_no_payload = names.payload != 0 && present & names.payload == 0;
    let has_no_time = names.has_time && fields.time.is_none() && message.timestamp.is_none();
    of_values
        .with(FindingKind::TimestampUnit, fields.time.is_some_and(is_wrong))
        .with(FindingKind::NoTime, has_no_time)
        .with(
            FindingKind::PropertyTimestampUnit,
            message.timestamp.is_some_and(|seconds| is_wrong(seconds as f64 * 1000.0)),
        )
        .with(FindingKind::NoIdentity, identity == Identity::None)
        .with(FindingKind::NoAppId, message.app_id == Some(""))
        .with(FindingKind::FieldName, has_misspelt_name(names, &fields.unknown_keys, names.all & !present))
        .with(FindingKind::Envelope, has_no_payload && is_envelope(rules, names, document, present != 0))
}

/// Whether a key looks like one of these fields, which are absent.
fn has_misspelt_name(names: &Names, unknown_keys: &[u8], absent: u64) -> bool {
    absent != 0 && unknown_keys.split(|byte| *byte == 0).any(|key| names.resembled(key) & absent != 0)
}

/// What is found in the number of a configured field other than the time.
pub(super) fn of_number(number: f64) -> Findings {
    Findings::default().with(FindingKind::UnsafeInteger, number.abs() > MAX_SAFE_INTEGER)
}

/// What is found in a text that was cast to a number.
pub(super) fn of_number_text(text: &str) -> Findings {
    let plain = text.trim_matches(js_number::is_white_space);
    let is_notation = plain.bytes().any(|byte| byte.is_ascii_alphabetic())
        || matches!(plain.trim_start_matches('-').as_bytes(), [b'0', b'0'..=b'9', ..]);
    Findings::default().with(FindingKind::BlankNumber, plain.is_empty()).with(FindingKind::NumberNotation, is_notation)
}

/// What is found in the text of a configured field that is a text.
pub(super) fn of_text(text: &str) -> Findings {
    let is_placeholder =
        text.len() <= 15 && !text.is_empty() && (PLACEHOLDERS.contains(&text) || text.trim().is_empty());
    Findings::default().with(FindingKind::PlaceholderText, is_placeholder)
}

/// What a number would be in the unit that it probably has; for people, in `validate`.
pub(super) fn time_in_words(number: f64) -> String {
    let date = |millis: f64| {
        let date = bson::DateTime::from_millis(millis as i64).try_to_rfc3339_string().ok();
        let date = date.filter(|_| millis.abs() < YEAR_10000).map(|date| date.chars().take(10).collect());
        date.unwrap_or("a year with more than four digits".to_owned())
    };
    let ticks = |number: f64| (number - 621_355_968_000_000_000.0) / 10_000.0;
    let units = [
        ("seconds", number * 1000.0),
        ("microseconds", number / 1000.0),
        ("nanoseconds", number / 1_000_000.0),
        (".NET ticks", ticks(number)),
    ];
    let unit = units.iter().find(|(_, millis)| (EARLIEST..=LATEST).contains(millis));
    let guess = unit.map(|(unit, _)| format!(" ({unit} instead of milliseconds?)")).unwrap_or_default();
    format!("{} is {}{guess}", js_number::to_text(number), date(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_plausible_from_2001_to_a_day_ahead() {
        let now = 1_796_011_941_000.0;
        for (time, is_plausible) in [
            (now, true),
            (EARLIEST, true),
            (now + DAY, true),
            (now + DAY + 1.0, false),
            (EARLIEST - 1.0, false),
            (now / 1000.0, false),
            (now * 1000.0, false),
            (f64::NAN, false),
        ] {
            assert_eq!(is_plausible_time(time, now), is_plausible, "{time}");
        }
        let ahead = Findings::from(FindingKind::TimestampAhead);
        assert_eq!(findings_of_clock(Some(now + 2.0 * DAY), None, now), ahead);
        assert_eq!(findings_of_clock(Some(now), Some(1_796_011_941 + 90_000), now), ahead);
        assert!(findings_of_clock(Some(now * 1000.0), Some(1_796_011_941_000), now).is_empty(), "they are wrong units");
    }

    #[test]
    fn a_time_is_shown_with_the_unit_that_it_probably_has() {
        for (number, words) in [
            (1_796_011_941.0, "1796011941 is 1970-01-21 (seconds instead of milliseconds?)"),
            (
                1_796_011_941_123_456.0,
                "1796011941123456 is a year with more than four digits (microseconds instead of milliseconds?)",
            ),
            (
                639_314_000_000_000_000.0,
                "639314000000000000 is a year with more than four digits (.NET ticks instead of milliseconds?)",
            ),
            (2026.0, "2026 is 1970-01-01"),
        ] {
            assert_eq!(time_in_words(number), words);
        }
    }
}
