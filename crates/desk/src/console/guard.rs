//! Owns what every request must pass before a page sees it: the host (DNS rebinding), the proxy, the login, and for forms their
//! origin and token (CSRF); and the headers of every response.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use ticketlog_http::server::KeptConnection;

use super::access::{LoginError, Operator};
use super::operator::{self, Refusal};
use super::pages::Problem;
use super::query::Fields;
use super::site::text;
use super::state::Console;

/// Nothing but the console's own style and script, and no page around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Paths for whoever watches the process: without login, by any name.
const PROBES: [&str; 2] = ["/livez", "/readyz"];
/// Paths that need no login.
const PUBLIC: [&str; 3] = ["/login", "/static/console.css", "/static/console.js"];
/// Paths for whoever may see one publisher only; besides these, jobs. What is not here is refused.
const OF_ONE_PUBLISHER: [&str; 14] = [
    "/dead-letters",
    "/dead-letters/list",
    "/dead-letter",
    "/act",
    "/export",
    "/read",
    "/find",
    "/validate",
    "/forecast",
    "/replay",
    "/park",
    "/unpark",
    "/purge",
    "/logout",
];
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

/// Admits a request, with its operator and, for a form, its fields as extensions.
pub(super) async fn admit(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    if let Err(problem) = check_origin(&console, &request) {
        return problem.into_response();
    }
    let is_form = request.method() == Method::POST;
    let is_public = PUBLIC.contains(&request.uri().path());
    let operator = match operator::identify(&console, request.headers()) {
        Ok(operator) => operator,
        Err(refusal) if !is_public => return refuse(&request, refusal),
        Err(_) => None,
    };
    if operator.is_none() && !is_public {
        return refuse(&request, Refusal::Login(LoginError::WrongToken));
    }
    if let Some(refusal) = operator.as_ref().and_then(|operator| outside_limit(operator, request.uri().path())) {
        return refusal;
    }
    if let (Some(_), Some(connection)) = (&operator, request.extensions().get::<KeptConnection>()) {
        connection.keep();
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

/// The answer to somebody who may see one publisher only and asks for a page about all.
fn outside_limit(operator: &Operator, path: &str) -> Option<Response> {
    let publisher = operator.publisher.as_ref()?;
    if OF_ONE_PUBLISHER.contains(&path) || PUBLIC.contains(&path) || path.starts_with("/jobs/") {
        return None;
    }
    if path == "/" {
        return Some(Redirect::to("/dead-letters").into_response());
    }
    let text =
        format!("{} sees only the dead letters of {publisher}, and this page is about others, too.", operator.name);
    Some(Problem::new(StatusCode::FORBIDDEN, text).into_response())
}

/// Whether the request is for this host, through the proxy and, as far as browsers say, from its own pages. Other sites may link to
/// pages; they may not load anything of the console into theirs, nor start an export.
fn check_origin(console: &Console, request: &Request) -> Result<(), Problem> {
    let (site, headers) = (console.options.site(), request.headers());
    if !site.is_host(headers) {
        let text = "This console does not answer to that host name. --host NAME allows one; a proxy must pass on the Host that \
                    people open.";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, text));
    }
    operator::check_proxy(console, headers)?;
    if request.method() == Method::POST && !site.is_own_form(headers) {
        let text = "This form comes from another site, or the name and port that people open are not those of --host.";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let is_other = request.method() != Method::POST && site.is_caused_by_another(headers);
    if is_other && (!site.is_link(headers) || request.uri().path() == "/export") {
        return Err(Problem::new(StatusCode::FORBIDDEN, "Request from another site refused."));
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

fn refuse(request: &Request, refusal: Refusal) -> Response {
    let wants_page = text(request.headers(), &HeaderName::from_static("accept"))
        .is_some_and(|accepted| accepted.contains("text/html"));
    match refusal {
        Refusal::Proxy(problem) => problem.into_response(),
        Refusal::Login(LoginError::TooManyFailures) => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many failed logins; wait a minute.").into_response()
        }
        Refusal::Login(LoginError::WrongToken) if wants_page && request.method() == Method::GET => {
            Redirect::to("/login").into_response()
        }
        Refusal::Login(LoginError::WrongToken) => {
            Problem::new(StatusCode::UNAUTHORIZED, "Log in first.").into_response()
        }
    }
}
