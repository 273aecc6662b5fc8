//! The export of spans: a bounded queue, and a task that sends them to a collector. The flow never waits for it: a span that finds
//! the queue full is dropped and counted.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::{Url, form_urlencoded};

use super::super::logging::LogThrottle;
use super::super::metrics::{self, SpanOutcome};
use ticketlog_config::TelemetrySettings;
use ticketlog_http::client::HttpClient;

/// Most ended spans that wait for their export.
const QUEUE: usize = 8_192;
/// Most spans in one request.
const REQUEST_SPANS: usize = 512;
/// How long a request that is not full waits for further spans.
const LINGER: Duration = Duration::from_millis(500);
/// Timeout of a request, attempts included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take when the process ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Most links of a batch: as many as it can have events.
const MAX_LINKS: u32 = 10_000;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();
static THROTTLE: LogThrottle = LogThrottle::new(Duration::from_secs(60));

/// What makes spans; none while they are not exported.
pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// The export of the process. Dropped, it goes on.
pub struct SpanExport {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Starts the export, if `telemetry.otlp` is set. To be called once, within a tokio runtime.
///
/// # Errors
/// TLS cannot be used.
pub fn install(settings: &TelemetrySettings) -> anyhow::Result<Option<SpanExport>> {
    let Some(endpoint) = settings.traces_url() else { return Ok(None) };
    // OpenTelemetry's specification: only "true", in any case, means true.
    if std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        info!("OTEL_SDK_DISABLED is true: traces are not exported");
        return Ok(None);
    }
    let http =
        HttpClient::new(endpoint.scheme() == "https", None).ok_or_else(|| anyhow::anyhow!("TLS cannot be used"))?;
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by the builder.
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=");
    let resource = if is_named { resource } else { resource.with_service_name("ticketlog") }.build();
    let variable = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"].map(std::env::var);
    let variable = variable.into_iter().find_map(Result::ok).unwrap_or_default();
    let exporter = Exporter { http, url: endpoint.clone(), headers: headers(&variable), resource: (&resource).into() };
    let (sender, receiver) = channel(QUEUE);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(SpanQueue(sender))
        .with_max_links_per_span(MAX_LINKS)
        .with_resource(resource)
        .build();
    if TRACER.set(provider.tracer("ticketlog")).is_err() {
        return Ok(None);
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(export(exporter, receiver, stop.clone()));
    info!(endpoint = endpoint.as_str(), "exporting traces");
    Ok(Some(SpanExport { task, stop }))
}

impl SpanExport {
    /// Exports what has ended, for two seconds at most.
    pub async fn finish(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.task).await;
    }
}

/// Sends spans to the collector.
struct Exporter {
    http: HttpClient,
    url: Url,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
}

impl Exporter {
    /// How many spans the collector rejects, although it answers that all is well (OTLP, "Partial Success"); or why it has none.
    async fn export(&self, spans: Vec<SpanData>) -> Result<usize, String> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.as_str().parse().map_err(|_| "the address cannot be used".to_owned())?;
        *request.headers_mut() = self.headers.clone();
        match self.http.send(request, TIMEOUT).await {
            Ok((200..300, answer)) => {
                let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
                let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
                Ok(usize::try_from(rejected).unwrap_or(0))
            }
            Ok((status, _)) => Err(format!("the collector answers with status {status}")),
            Err(reason) => Err(format!("the collector does not answer: {reason}")),
        }
    }
}

/// The headers of a request, with those of OpenTelemetry's environment variables: `name=value`, percent-encoded, with commas.
fn headers(variable: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("ticketlog/", env!("CARGO_PKG_VERSION"))));
    // As a form, in which other characters separate and + is a space.
    let form = variable.replace('&', "%26").replace('+', "%2B").replace(',', "&");
    for (name, value) in form_urlencoded::parse(form.as_bytes()) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.trim()), HeaderValue::try_from(value.trim())) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Ended spans on their way to the task.
#[derive(Debug)]
struct SpanQueue(Sender<SpanData>);

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            metrics::spans(SpanOutcome::Dropped, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Exports spans until `stop`, and then what is left. Spans that a collector does not take are lost and counted.
async fn export(exporter: Exporter, mut queue: Receiver<SpanData>, stop: CancellationToken) {
    loop {
        let mut spans = Vec::new();
        tokio::select! {
            biased;
            received = queue.recv_many(&mut spans, REQUEST_SPANS) => if received == 0 { return },
            () = stop.cancelled(), if !queue.is_closed() => queue.close(),
        }
        if spans.is_empty() {
            continue;
        }
        if spans.len() < REQUEST_SPANS {
            let _ = tokio::time::timeout(LINGER, stop.cancelled()).await;
            while spans.len() < REQUEST_SPANS
                && let Ok(span) = queue.try_recv()
            {
                spans.push(span);
            }
        }
        let count = spans.len();
        count_exported(exporter.export(spans).await, count);
    }
}

/// Counts the spans of a request, and logs now and then that some were lost.
fn count_exported(exported: Result<usize, String>, count: usize) {
    match exported {
        Ok(rejected) => {
            let rejected = rejected.min(count);
            metrics::spans(SpanOutcome::Exported, count - rejected);
            metrics::spans(SpanOutcome::Failed, rejected);
            if rejected > 0 && THROTTLE.permit(Instant::now()).is_some() {
                warn!(spans = rejected, "the collector at telemetry.otlp rejects traces; its log says why");
            }
        }
        Err(error) => {
            metrics::spans(SpanOutcome::Failed, count);
            if THROTTLE.permit(Instant::now()).is_some() {
                warn!(
                    spans = count,
                    "traces cannot be exported to telemetry.otlp, events are stored nevertheless: {error}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_from_the_environment_variable() {
        let headers = headers("authorization = Bearer%20a+b%2C&=, x-empty=, not a name=1,, X-Team=log");
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(text("authorization"), Some("Bearer a+b,&="));
        assert_eq!((text("x-empty"), text("x-team")), (Some(""), Some("log")));
        assert_eq!((headers.len(), text("content-type")), (5, Some("application/x-protobuf")));
    }
}
