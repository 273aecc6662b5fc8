//! Owns the HTTP listener: `/metrics`, `/livez`, `/readyz`, `/status`. Bounded in connections and in patience.
//! Must not know the flow; it reads `Health` and the metrics.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::health::Health;
use crate::recent::Recent;

/// Most connections at a time; for each further one the oldest is closed, so that idle ones keep nobody out.
const CONNECTIONS: usize = 64;
/// Between connections while there are so many: they must not take the flow's time.
const PACE: Duration = Duration::from_millis(2);
/// How long a client may take for the header of a request, and an idle connection stays.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often histograms are drained when nobody scrapes: until then they keep every sample.
const UPKEEP: Duration = Duration::from_secs(1);

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the listener shows.
pub struct Exposed {
    /// The state of the parts.
    pub health: Arc<Health>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// The latest dead letters and replays.
    pub recent: Arc<Recent>,
    /// When the process started.
    pub started: SystemTime,
    /// The queue and the collection served.
    pub serving: (String, String),
}

/// Binds the address.
///
/// # Errors
/// The address is in use, or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, exposed: Arc<Exposed>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = upkeep.tick() => exposed.metrics.run_upkeep(),
            stream = accept(&listener) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS && let Some(oldest) = open.pop_front() {
                    oldest.abort();
                    tokio::time::sleep(PACE).await;
                }
                open.push_back(tokio::spawn(converse(stream, Arc::clone(&exposed))).abort_handle());
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of file descriptors, most likely: they come back; the flow goes on meanwhile.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn converse(stream: TcpStream, exposed: Arc<Exposed>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&exposed)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 * 1024);
    let _ = timeout(CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
}

async fn answer(request: Request<Incoming>, exposed: Arc<Exposed>) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()));
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            metrics_process::Collector::default().collect();
            crate::metrics::log_lost(crate::telemetry::lost());
            reply(StatusCode::OK, PROMETHEUS, exposed.metrics.render())
        }
        "/livez" => reply(StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" => ready(&exposed.health),
        "/status" => reply(StatusCode::OK, "application/json", status(&exposed)),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "try /metrics, /livez, /readyz or /status\n".to_owned()),
    })
}

fn ready(health: &Health) -> Response<Full<Bytes>> {
    let troubles = health.troubles();
    if troubles.is_empty() {
        return reply(StatusCode::OK, TEXT, "ready\n".to_owned());
    }
    let lines: String = troubles.iter().map(|(part, trouble)| format!("{}: {trouble}\n", part.as_str())).collect();
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines)
}

fn status(exposed: &Exposed) -> String {
    let troubles = exposed.health.troubles();
    let parts: serde_json::Map<_, _> = crate::health::Part::ALL
        .iter()
        .map(|part| (part.as_str().to_owned(), json!(troubles.get(part).map_or("ok", String::as_str))))
        .collect();
    let uptime = exposed.started.elapsed().unwrap_or_default().as_secs();
    let (queue, collection) = &exposed.serving;
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": uptime, "ready": troubles.is_empty(), "parts": parts,
        "queue": queue, "collection": collection, "replays": exposed.recent.replays(),
        "last_dead_letters": exposed.recent.letters(),
    });
    format!("{body:#}\n")
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
