//! The HTTP endpoints of the worker: `/metrics`, `/livez`, `/readyz`, `/status`, `/contract.json`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bson::oid::ObjectId;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;
use strum::VariantArray as _;
use tokio::net::TcpListener;

use ticketlog_http::server as http_server;

use super::health::Health;
use super::metrics::{FlowMetrics, RouteScope};
use super::status::RecentActivity;
use super::{logging, metrics};
use ticketlog_status::Component;
use ticketlog_status::{RouteStatus, UP, WorkerStatus};

/// Longest duration of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often histograms are compacted when nobody scrapes: until then they keep every sample.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The id of this process: who asks twice can tell whether the same worker has answered.
static PROCESS: LazyLock<String> = LazyLock::new(|| ObjectId::new().to_hex());

const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoints show.
pub struct HttpState {
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// When the process started.
    pub started: SystemTime,
    /// What publishers need to know, as JSON.
    pub contract: String,
    /// The routes that run here, at least one.
    pub routes: Vec<RouteState>,
}

/// What the endpoints show of a route.
#[derive(Clone)]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// The queue that is consumed.
    pub queue: String,
    /// The collection that is written to, as `database.collection`.
    pub collection: String,
    /// The problems of the components.
    pub health: Arc<Health>,
    /// The latest dead letters and replays.
    pub recent: Arc<RecentActivity>,
    /// What it counts.
    pub metrics: Arc<FlowMetrics>,
    /// Where its series are counted.
    pub scope: RouteScope,
}

/// The problems of all routes; lines of one of several begin with its name.
pub fn problem_lines(routes: &[RouteState]) -> Vec<String> {
    lines_of(routes, Health::problem_lines)
}

fn lines_of(routes: &[RouteState], lines: impl Fn(&Health) -> Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    for route in routes {
        let prefix = if routes.len() > 1 { format!("route {}: ", route.name) } else { String::new() };
        all.extend(lines(&route.health).into_iter().map(|line| format!("{prefix}{line}")));
    }
    all
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
            state.routes.iter().for_each(|route| route.scope.enter(|| metrics::set_health(&route.health)));
            reply(StatusCode::OK, PROMETHEUS_TYPE, state.metrics.render())
        }
        "/livez" => reply(StatusCode::OK, TEXT_TYPE, "alive\n".to_owned()),
        "/readyz" => readiness(&state.routes),
        "/status" => reply(StatusCode::OK, "application/json", status(&state)),
        "/contract.json" => reply(StatusCode::OK, "application/json", state.contract.clone()),
        _ => {
            let text = "try /metrics, /livez, /readyz, /status or /contract.json\n";
            reply(StatusCode::NOT_FOUND, TEXT_TYPE, text.to_owned())
        }
    })
}

fn readiness(routes: &[RouteState]) -> Response<Full<Bytes>> {
    let problems = problem_lines(routes);
    let (code, mut lines) = match problems.is_empty() {
        true => (StatusCode::OK, vec!["ready".to_owned()]),
        false => (StatusCode::SERVICE_UNAVAILABLE, problems),
    };
    lines.extend(lines_of(routes, Health::warnings).into_iter().map(|warning| format!("warning: {warning}")));
    reply(code, TEXT_TYPE, lines.join("\n") + "\n")
}

fn status(state: &HttpState) -> String {
    let mut routes = state.routes.iter().map(route_status);
    let status = WorkerStatus {
        process: PROCESS.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: state.started.elapsed().unwrap_or_default().as_secs(),
        first: routes.next().unwrap_or_default(),
        others: routes.collect(),
    };
    serde_json::to_string_pretty(&status).unwrap_or_default() + "\n"
}

fn route_status(route: &RouteState) -> RouteStatus {
    let problems = route.health.problems();
    let state = |component: &Component| {
        let state = problems.get(component).map_or(UP, String::as_str);
        (component.as_str().to_owned(), state.to_owned())
    };
    RouteStatus {
        route: route.name.clone(),
        ready: problems.is_empty(),
        components: Component::VARIANTS.iter().map(state).collect(),
        warnings: route.health.warnings(),
        queue: route.queue.clone(),
        collection: route.collection.clone(),
        numbers: Some(route.metrics.numbers()),
        replays: route.recent.replays(),
        last_dead_letters: route.recent.dead_letters(),
        suspect_events: route.metrics.suspect_events(),
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
