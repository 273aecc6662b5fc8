//! Owns two conversions of ECMAScript: text to number as `Number(text)` reads it, and number to text as `String(n)` writes it. Rules:
//! ECMA-262, StringToNumber and Number::toString.

/// `Number(text)`; None stands for NaN. An empty text, and one of white space only, are 0.
pub fn parse(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_white_space);
    if text.is_empty() {
        return Some(0.0);
    }
    let bytes = text.as_bytes();
    if let [b'0', radix, digits @ ..] = bytes {
        match radix {
            b'x' | b'X' => return parse_radix_digits(digits, 4),
            b'o' | b'O' => return parse_radix_digits(digits, 3),
            b'b' | b'B' => return parse_radix_digits(digits, 1),
            _ => {}
        }
    }
    let (sign, unsigned) = match bytes {
        [b'+', rest @ ..] => (1.0, rest),
        [b'-', rest @ ..] => (-1.0, rest),
        rest => (1.0, rest),
    };
    if unsigned == b"Infinity" {
        return Some(sign * f64::INFINITY);
    }
    is_decimal(unsigned).then(|| text.parse().ok()).flatten()
}

/// `String(number)`, for instance `1e+21`.
pub fn to_text(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

/// WhiteSpace and LineTerminator of ECMA-262, which differ from Unicode's White_Space in U+FEFF and U+0085.
pub fn is_white_space(c: char) -> bool {
    matches!(c, '\u{9}'..='\u{d}' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{2028}' | '\u{2029}'
        | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{feff}')
}

/// StrUnsignedDecimalLiteral without Infinity: digits with an optional point, at least one digit, an optional exponent.
fn is_decimal(bytes: &[u8]) -> bool {
    let (mantissa, exponent) = match bytes.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..)),
        None => (bytes, None),
    };
    let mut points = 0;
    let mut digits = 0;
    for byte in mantissa {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' => points += 1,
            _ => return false,
        }
    }
    let exponent_is_valid = exponent.is_none_or(|exponent| {
        let unsigned = match exponent {
            [b'+' | b'-', rest @ ..] => rest,
            rest => rest,
        };
        !unsigned.is_empty() && unsigned.iter().all(u8::is_ascii_digit)
    });
    digits > 0 && points <= 1 && exponent_is_valid
}

/// Parses digits of `bits` bits each. The result is rounded once, to nearest, ties to even: about the first 64 significant
/// bits are kept, and a non-zero digit behind them sets the lowest ("sticky") bit, which is far below the rounding position.
fn parse_radix_digits(digits: &[u8], bits: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    let mut kept: u64 = 0;
    let mut dropped_bits: i32 = 0;
    let mut sticky = false;
    for byte in digits {
        let digit = char::from(*byte).to_digit(1 << bits)?;
        if kept >> (64 - bits) == 0 {
            kept = (kept << bits) | u64::from(digit);
        } else {
            dropped_bits = dropped_bits.saturating_add(bits as i32);
            sticky |= digit != 0;
        }
    }
    let rounded = (kept | u64::from(sticky)) as f64;
    // No f64 reaches 2^1024.
    Some(if dropped_bits > 1100 { f64::INFINITY } else { rounded * 2f64.powi(dropped_bits) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_as_javascript_does() {
        let table: &[(&str, f64)] = &[
            ("12345", 12345.0),
            (" 12 ", 12.0),
            ("\u{feff}\u{2028}7\u{a0}\n", 7.0),
            ("0x1f", 31.0),
            ("0X1F", 31.0),
            ("0b101", 5.0),
            ("0o17", 15.0),
            ("1e3", 1000.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("+5", 5.0),
            ("-5.e-1", -0.5),
            ("0010", 10.0),
            ("", 0.0),
            ("  ", 0.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
            ("9007199254740993", 9007199254740992.0),
            ("0x20000000000001", 9007199254740992.0),
            ("0x20000000000003", 9007199254740996.0),
            ("0xfffffffffffffbff", 18446744073709549568.0),
            ("0xfffffffffffffbff1", 2.951479051793528e20),
        ];
        for (text, number) in table {
            assert_eq!(parse(text), Some(*number), "{text:?}");
        }
        assert!(parse("-0").is_some_and(|zero| zero == 0.0 && zero.is_sign_negative()));
    }

    #[test]
    fn rejects_what_javascript_reads_as_nan() {
        for text in [
            "abc",
            "1_000",
            "0x",
            "0xg",
            "-0x1f",
            "+0x1",
            "1e",
            "1e+",
            ".",
            "e5",
            "1.2.3",
            "inf",
            "infinity",
            "nan",
            "NaN",
            "1 2",
            "12px",
            "2024-01-01",
            "\u{85}1",
            "--1",
            "0b2",
            "1e5.5",
            "１",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn writes_numbers_as_javascript_does() {
        for (number, text) in [
            (5.0, "5"),
            (1e21, "1e+21"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e-7, "1e-7"),
            (0.000001, "0.000001"),
            (-0.0, "0"),
            (1.5, "1.5"),
        ] {
            assert_eq!(to_text(number), text);
        }
    }
}
