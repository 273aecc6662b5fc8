//! Owns the HTTP endpoints: `/metrics`, `/livez`, `/readyz`, `/status`. Must not know the flow: it reads health, metrics and status.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use strum::VariantArray as _;
use tokio::net::TcpListener;

use crate::http_server;

use super::health::{Component, Health};
use super::status::RecentActivity;
use super::{logging, metrics};

/// Longest duration of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often histograms are compacted when nobody scrapes: until then they keep every sample.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoints show.
pub struct HttpState {
    /// The problems of the components.
    pub health: Arc<Health>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// The latest dead letters and replays.
    pub recent: Arc<RecentActivity>,
    /// When the process started.
    pub started: SystemTime,
    /// The queue that is consumed.
    pub queue: String,
    /// The collection that is written to, as `database.collection`.
    pub collection: String,
}

/// Binds the address.
///
/// # Errors
/// The address is in use, or not an address of this machine.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves requests for ever.
pub async fn serve(listener: TcpListener, state: Arc<HttpState>) {
    let metrics = state.metrics.clone();
    tokio::spawn(async move {
        let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            upkeep.tick().await;
            metrics.run_upkeep();
        }
    });
    let service = service_fn(move |request| handle(request, Arc::clone(&state)));
    http_server::serve(listener, CONNECTION_TIMEOUT, service).await;
}

async fn handle(request: Request<Incoming>, state: Arc<HttpState>) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            metrics_process::Collector::default().collect();
            metrics::set_log_lines_lost(logging::lines_lost());
            metrics::set_health(&state.health);
            reply(StatusCode::OK, PROMETHEUS_TYPE, state.metrics.render())
        }
        "/livez" => reply(StatusCode::OK, TEXT_TYPE, "alive\n".to_owned()),
        "/readyz" => readiness(&state.health),
        "/status" => reply(StatusCode::OK, "application/json", status(&state)),
        _ => reply(StatusCode::NOT_FOUND, TEXT_TYPE, "try /metrics, /livez, /readyz or /status\n".to_owned()),
    })
}

fn readiness(health: &Health) -> Response<Full<Bytes>> {
    let problems = health.problem_lines();
    let (code, mut lines) = match problems.is_empty() {
        true => (StatusCode::OK, vec!["ready".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, problems),
    };
    lines.extend(health.warnings().into_iter().map(|warning| format!("warning: {warning}")));
    reply(code, TEXT_TYPE, lines.join("\n") + "\n")
}

fn status(state: &HttpState) -> String {
    let problems = state.health.problems();
    let components: serde_json::Map<_, _> = Component::VARIANTS
        .iter()
        .map(|component| (component.as_str().to_owned(), json!(problems.get(component).map_or("ok", String::as_str))))
        .collect();
    let uptime = state.started.elapsed().unwrap_or_default().as_secs();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": uptime, "ready": problems.is_empty(),
        "components": components, "warnings": state.health.warnings(), "queue": state.queue, "collection": state.collection,
        "replays": state.recent.replays(), "last_dead_letters": state.recent.dead_letters(),
    });
    format!("{body:#}\n")
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
