//! Owns who sends a request: by a session, by a token, by the word of a proxy, or whoever runs the console.

use std::time::Instant;

use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};

use crate as desk;
use ticketlog_contract::dead_letter::escape;

use super::access::{LoginError, Operator, Role};
use super::pages::Problem;
use super::site::text;
use super::state::Console;

/// The header with which a proxy proves that a request comes from it.
const PROXY_SECRET: HeaderName = HeaderName::from_static("x-ticketlog-proxy-secret");
/// Longest name of a person, in characters.
const MAX_NAME: usize = 100;

/// Why a request has no operator.
pub(super) enum Refusal {
    Login(LoginError),
    /// The proxy does not do its part.
    Proxy(Problem),
}

/// With `--proxy-secret`, whether the request comes from the proxy.
pub(super) fn check_proxy(console: &Console, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(secret) = &console.proxy_secret else { return Ok(()) };
    if text(headers, &PROXY_SECRET).is_some_and(|sent| secret.is(sent)) {
        return Ok(());
    }
    let problem = format!(
        "This request does not come from the proxy: it has no {PROXY_SECRET} with the content of the file of --proxy-secret."
    );
    Err(Problem::new(StatusCode::FORBIDDEN, problem))
}

/// Who sends the request; `None` if nobody has logged in.
pub(super) fn identify(console: &Console, headers: &HeaderMap) -> Result<Option<Operator>, Refusal> {
    let now = Instant::now();
    let with_roles = |name: String| {
        let mut roles = console.options.allow.clone();
        roles.insert(Role::View);
        Operator { name, roles, publisher: None, csrf: Some(console.csrf.clone()), has_session: false }
    };
    if let Some(logins) = &console.logins {
        // A program with a token is not a browser: no other site can send its token.
        return match bearer(headers) {
            Some(token) => logins.check(token, now).map(Some).map_err(Refusal::Login),
            None => Ok(session(console, headers).and_then(|session| logins.operator(session, now))),
        };
    }
    match &console.options.user_header {
        Some(header) => user_name(headers, header).map(|name| Some(with_roles(name))).map_err(Refusal::Proxy),
        None => Ok(Some(with_roles(desk::operator()))),
    }
}

/// The name of the cookie: consoles on one host share cookies, whatever their ports are.
pub(super) fn cookie_name(console: &Console) -> String {
    format!("ticketlog_console_{}", console.options.listen.port())
}

/// The session that the cookie names.
pub(super) fn session<'a>(console: &Console, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(console);
    let cookies = text(headers, &COOKIE)?.split(';').filter_map(|cookie| cookie.trim().split_once('='));
    cookies.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The token of a program. The name of the scheme has no case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, &AUTHORIZATION)?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whom the proxy names, in UTF-8 or else in Latin-1. What would reorder or hide text is escaped, because the name is shown to
/// others.
fn user_name(headers: &HeaderMap, header: &HeaderName) -> Result<String, Problem> {
    let mut values = headers.get_all(header).iter();
    let (value, further) = (values.next(), values.next());
    let unauthorized = |text: String| Problem::new(StatusCode::UNAUTHORIZED, text);
    if further.is_some() {
        let text = "two of them came; the proxy must remove the header from what people send";
        return Err(Problem::bad_request(format!("The header {header} names one person, and {text}.")));
    }
    let bytes = value.map(|value| value.as_bytes().trim_ascii()).unwrap_or_default();
    let name = match std::str::from_utf8(bytes) {
        Ok(name) => name.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    if name.trim().is_empty() {
        return Err(unauthorized(format!("The proxy does not say who you are: it sent no {header}.")));
    }
    Ok(escape(name.trim()).chars().take(MAX_NAME).collect())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_persons_name_may_have_any_characters_and_is_sent_once() {
        let header = HeaderName::from_static("x-user");
        let name = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&header, HeaderValue::from_bytes(value).unwrap());
            }
            user_name(&headers, &header).ok()
        };
        assert_eq!(name(&["Zoë Müller".as_bytes()]).as_deref(), Some("Zoë Müller"));
        assert_eq!(name(&[b"Zo\xeb M\xfcller"]).as_deref(), Some("Zoë Müller"));
        assert_eq!(name(&[" \u{202e}anna\u{9b}".as_bytes()]).as_deref(), Some("\\u202eanna\\u009b"));
        assert_eq!(name(&["日本".repeat(80).as_bytes()]).unwrap().chars().count(), MAX_NAME);
        for none in [vec![], vec![""], vec!["  "], vec!["anna", "otto"], vec!["anna", ""], vec!["\u{3000}"]] {
            let values: Vec<&[u8]> = none.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(name(&values), None, "{none:?}");
        }
    }

    #[test]
    fn the_scheme_of_a_token_has_no_case() {
        let token = |value: &'static str| {
            let headers: HeaderMap = [(AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect();
            bearer(&headers).map(str::to_owned)
        };
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(token(value).as_deref(), Some("abc"), "{value}");
        }
        assert_eq!([token("Basic abc"), token("abc"), token("Bearer")], [None, None, None]);
    }
}
