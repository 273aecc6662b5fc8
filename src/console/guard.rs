//! Owns what every request must pass before a page sees it: the host (DNS rebinding), the login, and for forms their origin and
//! token (CSRF); and the headers of every response. Must not know pages.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use url::Url;

use crate::desk;

use super::Console;
use super::access::{LoginError, Operator, Role};
use super::pages::Problem;
use super::query::Fields;

/// Nothing but the console's own style and script, and no page around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Paths that need no login.
const PUBLIC: [&str; 3] = ["/login", "/static/console.css", "/static/console.js"];
/// Most bytes of a form beside a body, which may become three times as long in a form.
const FORM_BYTES: usize = 64 << 10;

/// Sets the headers that every response has.
pub(super) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Admits a request, with its [`Operator`] and, for a form, its [`Fields`] as extensions.
pub(super) async fn admit(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == "/livez" {
        return next.run(request).await;
    }
    if let Err(problem) = check_origin(&console, &request) {
        return problem.into_response();
    }
    let is_form = request.method() == Method::POST;
    let is_public = PUBLIC.contains(&request.uri().path());
    let operator = match operator(&console, request.headers()) {
        Ok(operator) => operator,
        Err(refusal) if !is_public => return refuse(&request, &refusal),
        Err(_) => None,
    };
    if operator.is_none() && !is_public {
        return refuse(&request, &LoginError::WrongToken);
    }
    if is_form {
        let limit = match is_public {
            true => FORM_BYTES,
            false => console.settings.event.max_bytes.bytes().saturating_mul(3).saturating_add(FORM_BYTES),
        };
        let csrf = operator.as_ref().and_then(|operator| operator.csrf.as_deref());
        request = match with_form(request, limit, csrf).await {
            Ok(request) => request,
            Err(problem) => return problem.into_response(),
        };
    }
    if let Some(operator) = operator {
        request.extensions_mut().insert(Arc::new(operator));
    }
    next.run(request).await
}

/// Whether the request is for this host and, as far as browsers say, from its own pages.
fn check_origin(console: &Console, request: &Request) -> Result<(), Problem> {
    if !is_own_host(console, request.headers()) {
        let text = "This console does not answer to that host name (--host NAME allows one).";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, text));
    }
    if !is_own_fetch(request.headers(), request.uri().path()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Another site asks for this."));
    }
    if request.method() == Method::POST && !is_own_origin(request.headers()) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "This form comes from another site."));
    }
    Ok(())
}

/// The request with the fields of its form, which must contain the token of the session.
async fn with_form(request: Request, limit: usize, csrf: Option<&str>) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, limit).await else {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large."));
    };
    let fields = Fields::parse(&bytes);
    if csrf.is_some() && fields.get("csrf") != csrf {
        let text = "This form is not of this session: it was opened before a login or a restart. Go back, load the page again, \
                    and repeat.";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let mut request = Request::from_parts(parts, Body::empty());
    request.extensions_mut().insert(Arc::new(fields));
    Ok(request)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The host without the port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_own_host(console: &Console, headers: &HeaderMap) -> bool {
    let Some(host) = text(headers, &HOST).map(|host| host_name(host).to_ascii_lowercase()) else { return false };
    let loopback = ["localhost", "127.0.0.1", "[::1]"];
    loopback.contains(&host.as_str()) || console.options.hosts.iter().any(|own| own.eq_ignore_ascii_case(&host))
}

/// Other sites may link to pages, which browsers open as documents; they may not load anything of the console into theirs, and
/// not start an export.
fn is_own_fetch(headers: &HeaderMap, path: &str) -> bool {
    let text = |name: &'static str| text(headers, &HeaderName::from_static(name));
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => true,
        Some(_) => text("sec-fetch-dest") == Some("document") && path != "/export",
    }
}

/// Browsers say where a form comes from. Programs that say nothing have a token.
fn is_own_origin(headers: &HeaderMap) -> bool {
    let fetch_site = text(headers, &HeaderName::from_static("sec-fetch-site"));
    if fetch_site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let authority = |url: Url| match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => Some(format!("{host}:{port}")),
        (host, None) => host.map(str::to_owned),
        _ => None,
    };
    let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok()).and_then(authority);
    origin.is_some() && origin.as_deref() == text(headers, &HOST)
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

/// Who sends the request; none if nobody has logged in.
fn operator(console: &Console, headers: &HeaderMap) -> Result<Option<Operator>, LoginError> {
    let now = Instant::now();
    let with_roles = |name: String| {
        let mut roles = console.options.allow.clone();
        roles.insert(Role::Look);
        Operator { name, roles, csrf: Some(console.csrf.clone()), has_session: false }
    };
    if let Some(logins) = &console.logins {
        // A program with a token is not a browser: no other site can send its token.
        let bearer = text(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        return match bearer {
            Some(token) => logins.check(token, now).map(Some),
            None => Ok(session(console, headers).and_then(|session| logins.operator(session, now))),
        };
    }
    match &console.options.user_header {
        Some(header) => {
            let name = HeaderName::try_from(header.as_str()).ok();
            let user = name.and_then(|name| text(headers, &name)).filter(|user| !user.trim().is_empty());
            Ok(user.map(|user| with_roles(user.chars().take(100).collect())))
        }
        None => Ok(Some(with_roles(desk::operator()))),
    }
}

fn refuse(request: &Request, refusal: &LoginError) -> Response {
    let wants_page = text(request.headers(), &HeaderName::from_static("accept"))
        .is_some_and(|accepted| accepted.contains("text/html"));
    match refusal {
        LoginError::TooManyFailures => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many failed logins; wait a minute.").into_response()
        }
        LoginError::WrongToken if wants_page && request.method() == Method::GET => {
            Redirect::to("/login").into_response()
        }
        LoginError::WrongToken => Problem::new(StatusCode::UNAUTHORIZED, "Log in first.").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(headers: &[(&'static str, &'static str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        is_own_origin(&headers.collect())
    }

    #[test]
    fn only_forms_of_this_site_are_admitted() {
        let host = ("host", "127.0.0.1:9465");
        assert!(origin(&[host]) && origin(&[host, ("origin", "http://127.0.0.1:9465")]));
        assert!(origin(&[("host", "desk.example"), ("origin", "https://desk.example")]));
        for other in ["http://127.0.0.1:9466", "http://evil.example", "null", "http://127.0.0.1", "file://"] {
            assert!(!origin(&[host, ("origin", other)]), "{other}");
        }
        assert!(!origin(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(origin(&[host, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9465")]));
    }

    #[test]
    fn other_sites_may_link_but_not_load() {
        let fetch = |dest: &'static str, path: &str| {
            let site = (HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("cross-site"));
            let dest = (HeaderName::from_static("sec-fetch-dest"), HeaderValue::from_static(dest));
            is_own_fetch(&[site, dest].into_iter().collect(), path)
        };
        assert!(fetch("document", "/letters") && is_own_fetch(&HeaderMap::new(), "/export"));
        assert!(!fetch("image", "/letter") && !fetch("iframe", "/letters") && !fetch("document", "/export"));
    }

    #[test]
    fn the_port_is_not_part_of_the_host() {
        let hosts = ["a", "a:1", "[::1]:9465", "[::1]"].map(host_name);
        assert_eq!(hosts, ["a", "a", "[::1]", "[::1]"]);
    }
}
