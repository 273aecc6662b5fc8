//! Owns the comparison of a value that a person types with one that a message or a document has: exact, as the type that is found.

use bson::Bson;
use serde_json::{Number, Value};

/// `Number.MAX_SAFE_INTEGER`: from here on several integers become the same double.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// A value as it was typed.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    text: String,
    /// The same read as JSON; `None` if it is not JSON.
    json: Option<Value>,
}

impl Wanted {
    /// A value of a search: a text is compared literally, any other value as the JSON that was typed. An ObjectId is compared with its
    /// hexadecimal digits.
    pub fn new(text: &str) -> Wanted {
        // Numbers are compared by their digits, so that those above 2^53 stay exact.
        let json = serde_json::from_str(text).ok().filter(|json: &Value| !json.is_number() || text.trim() == text);
        Wanted { text: text.to_owned(), json }
    }

    /// The id of a user: a text, and also a number if it is written in plain digits, such as `42`. Not `12e5`, which may be a text.
    pub fn id(text: &str) -> Wanted {
        Wanted { text: text.to_owned(), json: Wanted::new(text).json.filter(|json| json.is_number() && is_plain(text)) }
    }

    /// As it was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its digits, if it is an integer in plain digits.
    pub fn integer(&self) -> Option<&str> {
        let is_number = self.json.as_ref().is_some_and(Value::is_number);
        Some(self.text.as_str()).filter(|text| is_number && is_plain(text))
    }

    pub fn matches(&self, found: &Bson) -> bool {
        match (found, &self.json) {
            (Bson::String(found), _) => *found == self.text,
            (Bson::ObjectId(found), _) => found.to_hex().eq_ignore_ascii_case(&self.text),
            (found, Some(Value::Number(_))) => is_number(&self.text, found),
            (found, Some(json)) => is_equal(json, found),
            (_, None) => false,
        }
    }

    /// The double that this integer and others become, if it is none itself: JavaScript rounds integers above 2^53.
    pub fn rounded(&self) -> Option<f64> {
        let double: f64 = self.integer()?.parse().ok()?;
        (double.abs() > MAX_SAFE_INTEGER && !is_number(&self.text, &Bson::Double(double))).then_some(double)
    }
}

/// Whether a number of JSON has neither fraction nor exponent. `-0` is a double (JSON numbers are JavaScript's).
fn is_plain(number: &str) -> bool {
    number != "-0" && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// JSON and BSON are the same value: numbers of any types by their values, objects in any order.
fn is_equal(wanted: &Value, found: &Bson) -> bool {
    match (wanted, found) {
        (Value::Null, Bson::Null) => true,
        (Value::Bool(wanted), Bson::Boolean(found)) => wanted == found,
        (Value::String(wanted), Bson::String(found)) => wanted == found,
        (Value::Number(wanted), found) => is_number(&Number::to_string(wanted), found),
        (Value::Array(wanted), Bson::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| is_equal(wanted, found))
        }
        (Value::Object(wanted), Bson::Document(found)) => {
            let is_found =
                |(key, wanted): (&String, &Value)| found.get(key).is_some_and(|found| is_equal(wanted, found));
            wanted.len() == found.len() && wanted.iter().all(is_found)
        }
        _ => false,
    }
}

/// Whether a number of JSON is this number. Integers are compared exactly; what has a fraction or an exponent stands for a double, too:
/// `0.1` is the double that JSON's `0.1` becomes.
fn is_number(wanted: &str, found: &Bson) -> bool {
    match found {
        Bson::Int32(found) => same_digits(wanted, &found.to_string()),
        Bson::Int64(found) => same_digits(wanted, &found.to_string()),
        Bson::Decimal128(found) => same_digits(wanted, &found.to_string()),
        Bson::Double(found) if is_plain(wanted) => found.fract() == 0.0 && same_digits(wanted, &format!("{found:.0}")),
        Bson::Double(found) => wanted.parse().is_ok_and(|wanted: f64| wanted == *found),
        _ => false,
    }
}

fn same_digits(left: &str, right: &str) -> bool {
    Decimal::parse(left).is_some_and(|left| Decimal::parse(right) == Some(left))
}

/// A decimal number; equal numbers are equal here, however they were written.
#[derive(Debug, PartialEq)]
struct Decimal {
    is_negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: String,
    /// The power of ten behind the last digit.
    exponent: i64,
}

impl Decimal {
    /// `None` if it is not a number, such as `NaN`.
    fn parse(text: &str) -> Option<Decimal> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let exponent: i64 = exponent.parse().ok()?;
        let digits = all.trim_end_matches('0');
        let zeros = i64::try_from(all.len() - digits.len()).ok()?;
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
        let digits = digits.trim_start_matches('0').to_owned();
        let is_zero = digits.is_empty();
        let is_negative = text.starts_with('-') && !is_zero;
        Some(Decimal { is_negative, digits, exponent: if is_zero { 0 } else { exponent } })
    }
}

#[cfg(test)]
mod tests {
    use bson::{Decimal128, doc};
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse::<Decimal128>().unwrap())
    }

    #[test]
    fn numbers_of_any_type_are_compared_exactly_and_texts_literally() {
        let large = "1234567890123456789";
        for (wanted, found, is_equal) in [
            ("42", Bson::Int32(42), true),
            ("42", Bson::Int64(42), true),
            ("42", Bson::Double(42.0), true),
            ("42", decimal("42"), true),
            ("42", decimal("4.2E+1"), true),
            ("42", Bson::Double(42.5), false),
            ("42", Bson::from("42"), true),
            ("42", Bson::from(" 42"), false),
            ("42", Bson::from("42.0"), false),
            ("42.0", Bson::Int32(42), true),
            ("4.2e1", Bson::Int64(42), true),
            ("042", Bson::Int32(42), false),
            (" 42", Bson::Int32(42), false),
            ("-0", Bson::Double(0.0), true),
            ("0", Bson::Double(-0.0), true),
            ("0.1", Bson::Double(0.1), true),
            ("1e23", Bson::Double(1e23), true),
            ("nan", Bson::Double(f64::NAN), false),
            (large, Bson::Int64(1_234_567_890_123_456_789), true),
            (large, Bson::Int64(1_234_567_890_123_456_768), false),
            (large, Bson::Double(1_234_567_890_123_456_768.0), false),
            ("1234567890123456768", Bson::Double(1_234_567_890_123_456_768.0), true),
            ("18446744073709551615", decimal("18446744073709551615"), true),
            ("18446744073709551615", decimal("18446744073709551614"), false),
            ("18446744073709551615", Bson::Double(18_446_744_073_709_551_616.0), false),
            ("-9223372036854775808", Bson::Int64(i64::MIN), true),
            ("true", Bson::Boolean(true), true),
            ("true", Bson::from("true"), true),
            ("null", Bson::Null, true),
            ("[1,\"x\"]", Bson::from(vec![Bson::Double(1.0), Bson::from("x")]), true),
            ("{\"a\":1,\"b\":2}", Bson::from(doc! { "b": 2, "a": 1 }), true),
            ("{\"a\":1}", Bson::from(doc! { "b": 2, "a": 1 }), false),
            ("anna", Bson::from("Anna"), false),
            ("507F1F77bcf86cd799439011", Bson::ObjectId("507f1f77bcf86cd799439011".parse().unwrap()), true),
        ] {
            assert_eq!(Wanted::new(wanted).matches(&found), is_equal, "{wanted} {found:?}");
        }
    }

    #[test]
    fn an_id_is_a_number_only_in_plain_digits() {
        let is_42 = |text: &str| Wanted::id(text).matches(&Bson::Int32(42));
        assert!(is_42("42") && !is_42("42.0") && !is_42("4.2e1") && !is_42("{\"_id\":42}"));
        assert!(Wanted::id("12e5").matches(&Bson::from("12e5")) && !Wanted::id("true").matches(&Bson::Boolean(true)));
        assert_eq!(Wanted::id("-5").integer(), Some("-5"));
        assert_eq!(Wanted::id("42").rounded(), None);
        assert_eq!(Wanted::id("1234567890123456768").rounded(), None);
        assert_eq!(Wanted::id("1234567890123456789").rounded(), Some(1_234_567_890_123_456_768.0));
        assert_eq!(Wanted::id("18446744073709551615").rounded(), Some(18_446_744_073_709_551_616.0));
    }

    proptest! {
        #[test]
        fn an_integer_is_equal_only_to_itself(number: i64, other: i64, double: f64) {
            let wanted = Wanted::id(&number.to_string());
            prop_assert!(wanted.matches(&Bson::Int64(number)));
            prop_assert_eq!(wanted.matches(&Bson::Int64(other)), number == other);
            prop_assert_eq!(wanted.matches(&Bson::Double(number as f64)), number as f64 as i128 == i128::from(number));
            let text = serde_json::to_string(&double).unwrap();
            prop_assert_eq!(Wanted::new(&text).matches(&Bson::Double(double)), double.is_finite());
        }
    }
}
