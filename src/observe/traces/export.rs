//! Owns the export of spans: a bounded queue, and a task that sends them to a collector. The flow never waits for it: a span that
//! finds the queue full is dropped and counted. Must not know what a span says.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use prost::Message as _;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::logging::LogThrottle;
use super::super::metrics::{self, SpanOutcome};
use crate::config::TelemetrySettings;
use crate::http_client;

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
/// An environment variable of OpenTelemetry's is not usable.
pub fn install(settings: &TelemetrySettings) -> anyhow::Result<Option<SpanExport>> {
    let Some(endpoint) = settings.traces_url() else { return Ok(None) };
    // OpenTelemetry's specification: only "true", in any case, means true.
    if std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        info!("OTEL_SDK_DISABLED is true: traces are not exported");
        return Ok(None);
    }
    let connector = http_client::connector(endpoint.scheme() == "https", None)
        .ok_or_else(|| anyhow::anyhow!("TLS cannot be used"))?;
    let rejected = Arc::new(AtomicU64::new(0));
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(CollectorClient {
            http: HyperClient::new(connector, TIMEOUT, None),
            rejected: Arc::clone(&rejected),
        })
        .with_endpoint(endpoint.as_str())
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(TIMEOUT)
        .build()?;
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by the builder.
    let attributes = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=");
    let resource = if is_named { resource } else { resource.with_service_name("ticketlog") }.build();
    exporter.set_resource(&resource);
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
    let task = tokio::spawn(export(exporter, rejected, receiver, stop.clone()));
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

/// Sends spans, and notes how many of them the collector rejects in an answer that says that all is well (OTLP, "Partial Success").
#[derive(Debug)]
struct CollectorClient<C> {
    http: C,
    rejected: Arc<AtomicU64>,
}

impl<C: HttpClient> HttpClient for CollectorClient<C> {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let response = self.http.send_bytes(request).await?;
            if response.status().is_success() {
                let answer = ExportTraceServiceResponse::decode(response.body().clone()).unwrap_or_default();
                let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
                self.rejected.store(u64::try_from(rejected).unwrap_or(0), Ordering::Relaxed);
            }
            Ok(response)
        })
    }
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
async fn export(
    exporter: SpanExporter,
    rejected: Arc<AtomicU64>,
    mut queue: Receiver<SpanData>,
    stop: CancellationToken,
) {
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
        count_exported(exporter.export(spans).await, count, rejected.swap(0, Ordering::Relaxed));
    }
}

/// Counts the spans of a request, and logs now and then that some were lost.
fn count_exported(exported: OTelSdkResult, count: usize, rejected: u64) {
    match exported {
        Ok(()) => {
            let rejected = usize::try_from(rejected).unwrap_or(count).min(count);
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
