//! Owns the expressions that mend bodies: jq's language, by jaq. Pure. Must not know where a body comes from, nor how long an
//! expression may take.

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader, lex, parse, span};
use jaq_core::{Compiler, Ctx, Filter, Vars, compile, unwrap_valr};
use jaq_json::{Val, read, write};
use serde::de::IgnoredAny;

/// Most characters of an error.
const MAX_ERROR: usize = 200;
/// U+FEFF in UTF-8, which the decoder accepts before JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A compiled expression.
pub(super) struct Expression(Filter<JustLut<Val>>);

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
        filter.map(Expression).map_err(|errors| compile_error(text, errors))
    }

    /// The new body. The input is the JSON of the body or, where the body is not JSON, its text as a string (as
    /// Latin-1 if it is not UTF-8); a string that is
    /// made of such a text is the new body as it is, so that `sub("NaN"; "null")` works as well as `fromjson`.
    ///
    /// # Errors
    /// The expression fails, or does not have exactly one result.
    pub fn apply(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
        let input = match std::str::from_utf8(body) {
            Ok(_) if is_json => {
                read::parse_single(body).map_err(|error| format!("the body cannot be read: {error}"))?
            }
            Ok(text) => Val::from(text.to_owned()),
            Err(_) => Val::from(body.iter().map(|byte| char::from(*byte)).collect::<String>()),
        };
        let context = Ctx::<JustLut<Val>>::new(&self.0.lut, Vars::new([]));
        let mut results = self.0.id.run((context, input)).map(unwrap_valr);
        let result = results.next().ok_or("the expression has no result")?;
        let result = result.map_err(|error| shortened(&format!("the expression fails: {error}")))?;
        if results.next().is_some() {
            return Err("the expression has more than one result".to_owned());
        }
        if let (Val::TStr(text), false) = (&result, is_json) {
            return Ok(text.to_vec());
        }
        let mut new = Vec::new();
        write::write(&mut new, &write::Pp::default(), 0, &result).map_err(|error| error.to_string())?;
        Ok(new)
    }
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
        let mended = apply(".user_id |= tonumber", body).unwrap();
        assert_eq!(mended, "{\"user_id\":7,\"z\":1.50,\"a\":12345678901234567890123,\"t\":\"😀\"}");
        assert_eq!(apply("del(.a)", b"\xef\xbb\xbf{\"a\":1,\"b\":2}").unwrap(), r#"{"b":2}"#);
        assert_eq!(apply(".", br#""text""#).unwrap(), r#""text""#);
    }

    #[test]
    fn a_body_that_is_not_json_is_mended_as_text() {
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
