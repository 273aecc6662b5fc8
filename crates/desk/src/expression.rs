//! Owns the expressions that edit bodies: jq's language, by jaq. Pure.

use std::borrow::Cow;

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader, lex, parse, span};
use jaq_core::{Compiler, Ctx, Filter, Vars, compile, unwrap_valr};
use jaq_json::{Val, read, write};
use serde::de::IgnoredAny;

use ticketlog_contract::hide_lone_surrogates;

/// Most characters of an error.
const MAX_ERROR: usize = 200;
/// U+FEFF in UTF-8, which the decoder accepts before JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A compiled expression.
pub(super) struct Expression {
    filter: Filter<JustLut<Val>>,
    text: String,
}

impl Expression {
    /// Compiles a text such as `.user_id |= tonumber`.
    ///
    /// # Errors
    /// Where it is wrong, and what was expected there.
    pub fn compile(text: &str) -> Result<Expression, String> {
        let arena = Arena::default();
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let program = File { code: text, path: () };
        let modules = Loader::new(defs).load(&arena, program).map_err(|errors| load_error(text, errors))?;
        let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let filter = Compiler::default().with_funs(funs).compile(modules);
        let filter = filter.map_err(|errors| compile_error(text, errors))?;
        Ok(Expression { filter, text: text.to_owned() })
    }

    /// The new body. The input is the JSON of the body or, where the body is not JSON, its text as a string (as
    /// Latin-1 if it is not UTF-8); a string that is
    /// made of such a text is the new body as it is, so that `sub("NaN"; "null")` works as well as `fromjson`.
    ///
    /// # Errors
    /// The expression fails, or does not have exactly one result.
    pub fn apply(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        match std::str::from_utf8(body) {
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => self.apply_to_json(text),
            Ok(text) => self.apply_to_text(text.to_owned()),
            Err(_) => self.apply_to_text(body.iter().map(|byte| char::from(*byte)).collect()),
        }
    }

    /// What the expression leaves alone stays what the decoder makes of it: also what jaq cannot hold.
    fn apply_to_json(&self, text: &str) -> Result<Vec<u8>, String> {
        let text = with_negative_zeros(text);
        let hidden = hide_lone_surrogates(&text, &self.text);
        let input = hidden.as_ref().map_or(&*text, |hidden| &hidden.text);
        let input =
            read::parse_single(input.as_bytes()).map_err(|error| format!("the body cannot be read: {error}"))?;
        let new = as_json(&self.run(input)?)?;
        match (hidden, std::str::from_utf8(&new)) {
            (Some(hidden), Ok(text)) => Ok(hidden.restore(text).into_bytes()),
            _ => Ok(new),
        }
    }

    fn apply_to_text(&self, text: String) -> Result<Vec<u8>, String> {
        match self.run(Val::from(text))? {
            Val::TStr(text) => Ok(text.to_vec()),
            result => as_json(&result),
        }
    }

    fn run(&self, input: Val) -> Result<Val, String> {
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        let mut results = self.filter.id.run((context, input)).map(unwrap_valr);
        let result = results.next().ok_or("the expression has no result")?;
        let result = result.map_err(|error| shortened(&format!("the expression fails: {error}")))?;
        if results.next().is_some() {
            return Err("the expression has more than one result".to_owned());
        }
        Ok(result)
    }
}

fn as_json(value: &Val) -> Result<Vec<u8>, String> {
    let mut json = Vec::new();
    write::write(&mut json, &write::Pp::default(), 0, value).map_err(|error| error.to_string())?;
    Ok(json)
}

/// The same JSON, with `-0` written as `-0.0`: jaq takes the former for the integer 0.
fn with_negative_zeros(json: &str) -> Cow<'_, str> {
    let (mut out, mut copied, mut in_string, mut escaped) = (String::new(), 0, false, false);
    let bytes = json.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = *byte == b'\\' && !escaped;
        } else if *byte == b'"' {
            in_string = true;
        } else if *byte == b'0' && at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'-') {
            // The zero of an exponent, as in `1e-0`, is not a negative zero.
            let is_exponent =
                at.checked_sub(2).and_then(|before| bytes.get(before)).is_some_and(u8::is_ascii_alphabetic);
            let goes_on = bytes.get(at + 1).is_some_and(|next| matches!(next, b'.' | b'e' | b'E'));
            if !is_exponent && !goes_on {
                out.push_str(json.get(copied..=at).unwrap_or_default());
                out.push_str(".0");
                copied = at + 1;
            }
        }
    }
    if copied == 0 { Cow::Borrowed(json) } else { Cow::Owned(out + json.get(copied..).unwrap_or_default()) }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_ERROR).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Where a part of the text begins, as a character from 1.
fn position(text: &str, part: &str) -> usize {
    let start = span(text, part).start.min(text.len());
    text.get(..start).map_or(0, |before| before.chars().count()) + 1
}

fn load_error(text: &str, errors: load::Errors<&str, ()>) -> String {
    let fault = |part: &str, expected: &str| {
        let found = part.chars().next().map_or("its end".to_owned(), |_| format!("{:?}", shortened(part)));
        let expected = if expected.is_empty() { String::new() } else { format!("; expected {expected}") };
        format!("the expression is wrong at character {}, {found}{expected}", position(text, part))
    };
    let first = errors.into_iter().next().map(|(_, error)| error);
    let described = match first {
        Some(load::Error::Lex(errors)) => errors.into_iter().next().map(|(expected, part)| {
            let expected: &lex::Expect<&str> = &expected;
            fault(part, expected.as_str())
        }),
        Some(load::Error::Parse(errors)) => errors.into_iter().next().map(|(expected, part)| {
            let expected: &parse::Expect<&str> = &expected;
            fault(part, expected.as_str())
        }),
        Some(load::Error::Io(_)) => Some("the expression cannot import modules".to_owned()),
        None => None,
    };
    described.unwrap_or_else(|| "the expression is wrong".to_owned())
}

fn compile_error(text: &str, errors: compile::Errors<&str, ()>) -> String {
    let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
    first.map_or_else(
        || "the expression is wrong".to_owned(),
        |(name, undefined)| {
            format!(
                "the expression uses an unknown {} {name:?} at character {}",
                undefined.as_str(),
                position(text, name)
            )
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(expression: &str, body: &[u8]) -> Result<String, String> {
        let body = Expression::compile(expression)?.apply(body)?;
        Ok(String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_body_is_changed_and_the_rest_stays_as_it_was() {
        let body = br#"{"user_id":"7","z":1.50,"a":12345678901234567890123,"t":"\ud83d\ude00"}"#;
        let edited = apply(".user_id |= tonumber", body).unwrap();
        assert_eq!(edited, "{\"user_id\":7,\"z\":1.50,\"a\":12345678901234567890123,\"t\":\"😀\"}");
        let date = br#"{"timestamp":"2026-11-22T10:00:00.5Z"}"#;
        assert_eq!(apply(".timestamp |= fromdate * 1000", date).unwrap(), r#"{"timestamp":1795341600500.0}"#);
        assert_eq!(apply("del(.a)", b"\xef\xbb\xbf{\"a\":1,\"b\":2}").unwrap(), r#"{"b":2}"#);
        assert_eq!(apply(".", br#""text""#).unwrap(), r#""text""#);
    }

    #[test]
    fn what_jaq_cannot_hold_survives_an_edit_of_another_field() {
        let edit = ".user_id |= tonumber";
        for rest in [
            r#""a":-0.0"#,
            r#""a":[-0.0,-0.5,-0.0e1,1e-0,1E-05,"-0"]"#,
            r#""a":"\ud83d","b\udfff":"\ud83d\ud83d""#,
            r#""a":18446744073709551615,"b":-9223372036854775809,"c":1e400,"d":0.10"#,
            r#""a":{"$oid":"zz"},"":null"#,
        ] {
            let edited = apply(edit, format!("{{\"user_id\":\"7\",{rest}}}").as_bytes()).unwrap();
            assert_eq!(edited, format!("{{\"user_id\":7,{rest}}}"));
        }
        assert_eq!(apply(edit, br#"{"user_id":"7","a":[-0,-0]}"#).unwrap(), r#"{"user_id":7,"a":[-0.0,-0.0]}"#);
        assert_eq!(apply(".b = .a", br#"{"a":"x\ud83d"}"#).unwrap(), r#"{"a":"x\ud83d","b":"x\ud83d"}"#);
    }

    #[test]
    fn a_body_that_is_not_json_is_edited_as_text() {
        assert_eq!(apply(r#"sub("NaN"; "null")"#, br#"{"a":NaN}"#).unwrap(), r#"{"a":null}"#);
        assert_eq!(apply(r#"sub("'";"\"";"g") | fromjson | .b = 1"#, br"{'a':1}").unwrap(), r#"{"a":1,"b":1}"#);
        assert_eq!(apply("fromjson", b"{\"a\":\"M\xfcller\"}").unwrap(), "{\"a\":\"Müller\"}");
    }

    #[test]
    fn a_wrong_expression_says_where() {
        insta::assert_snapshot!(
            [".a |= ", "(.a", ".a + § 1", "tonum", "import \"x\" as x; .", "1 then"]
                .map(|text| apply(text, b"{}").unwrap_err())
                .join("\n"),
            @r#"
        the expression is wrong at character 7, its end; expected term
        the expression is wrong at character 4, its end; expected closing parenthesis
        the expression is wrong at character 6, "§ 1"; expected token
        the expression uses an unknown filter "tonum" at character 1
        the expression cannot import modules
        the expression is wrong at character 3, "then"; expected nothing
        "#
        );
    }

    #[test]
    fn there_must_be_exactly_one_result() {
        assert_eq!(apply("empty", b"{}").unwrap_err(), "the expression has no result");
        assert_eq!(apply(".,.", b"{}").unwrap_err(), "the expression has more than one result");
        assert!(apply(".a |= tonumber", br#"{"a":"x"}"#).unwrap_err().starts_with("the expression fails: "));
    }
}
