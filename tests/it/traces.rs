//! Traces: from the publisher's span to the document, to a dead letter and to its replay, as a collector receives them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::harness::{DEADLINE, TestEnv, TestMessage, eventually};

/// A collector that keeps what it receives, or does not answer.
#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    address: String,
    is_stuck: bool,
    /// Rejects this many spans of each request, in an answer that says that all is well.
    rejects: i64,
}

impl Collector {
    async fn start(is_stuck: bool) -> Self {
        Collector { is_stuck, ..Collector::default() }.listen().await
    }

    async fn listen(self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let collector = Collector { address, ..self };
        let router = Router::new().route("/v1/traces", post(receive)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        collector
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans with names that start so, in this trace.
    fn named(&self, name: &str, trace_id: u128) -> Vec<Span> {
        let is_wanted = |span: &Span| span.name.starts_with(name) && span.trace_id == trace_id.to_be_bytes();
        self.spans().into_iter().filter(is_wanted).collect()
    }

    fn services(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let resources =
            requests.iter().flat_map(|request| &request.resource_spans).filter_map(|spans| spans.resource.as_ref());
        resources.map(|resource| text(&resource.attributes, "service.name")).collect()
    }
}

async fn receive(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    if collector.is_stuck {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    collector.requests.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
    let partial = ExportTracePartialSuccess { rejected_spans: collector.rejects, ..Default::default() };
    let answer = ExportTraceServiceResponse { partial_success: (collector.rejects != 0).then_some(partial) };
    (StatusCode::OK, answer.encode_to_vec())
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().filter(|attribute| attribute.key == key).collect::<Vec<_>>();
    assert!(found.len() <= 1, "{key} is there twice");
    match found.first().and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        other => format!("{other:?}"),
    }
}

const PUBLISHER_SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

fn trace_id(n: i32) -> u128 {
    0x4bf9_2f35_77b3_4da6_0000_0000_0000_0000 + 1 + n as u128
}

/// A message of the trace `trace_id(n)`.
fn traced(message: TestMessage, n: i32, is_sampled: bool) -> TestMessage {
    let traceparent = format!("00-{:032x}-{PUBLISHER_SPAN:016x}-0{}", trace_id(n), u8::from(is_sampled));
    let mut headers = FieldTable::default();
    // As some clients send it.
    let (name, value) = match n % 4 {
        0 => ("Traceparent", AMQPValue::ByteArray(traceparent.into_bytes().into())),
        _ => ("traceparent", AMQPValue::LongString(traceparent.into())),
    };
    headers.insert(name.into(), value);
    message.with(|properties| properties.with_headers(headers))
}

#[tokio::test]
async fn a_message_is_followed_from_its_publisher_to_its_document_its_dead_letter_and_its_replay() {
    let (env, collector) = (TestEnv::new().await, Collector::start(false).await);
    let mut worker = env.worker_with(&[("TELEMETRY__OTLP", &collector.address)]).await;
    worker.wait_until_ready().await;
    for n in 0..20 {
        env.publish(&traced(TestMessage::numbered(n), n, n % 2 == 0)).await;
    }
    env.publish(&TestMessage::numbered(20)).await;
    env.publish(&traced(TestMessage::body(r#"{"user_id": "abc"}"#), 100, true)).await;
    worker.wait_until_settled(22).await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    worker.wait_until_settled(23).await;
    assert_eq!(worker.stop().await.code(), Some(0));
    // Without the setting, nothing of the replay above was exported; this one is.
    let mut replay = env.build_dead_command(&["replay", "--yes"]);
    replay.env("TICKETLOG_TELEMETRY__OTLP", &collector.address);
    assert!(tokio::task::spawn_blocking(move || replay.status()).await.unwrap().unwrap().success());

    let documents = env.documents().await;
    for n in 0..20 {
        let process = collector.named("process", trace_id(n));
        if n % 2 == 1 {
            assert!(process.is_empty(), "its publisher does not record it");
            continue;
        }
        let [process] = process.try_into().unwrap();
        let document = documents.iter().find(|document| document.get_i32("n").ok() == Some(n)).unwrap();
        let id = document.get_object_id("_id").unwrap().to_hex();
        assert_eq!(
            (process.parent_span_id.as_slice(), process.kind),
            (&PUBLISHER_SPAN.to_be_bytes()[..], SpanKind::Consumer as i32)
        );
        assert_eq!(text(&process.attributes, "ticketlog.document_id"), id);
        assert_eq!(text(&process.attributes, "ticketlog.outcome"), "stored");
        assert_eq!(text(&process.attributes, "messaging.system"), "rabbitmq");
        let [decode] = collector.named("decode", trace_id(n)).try_into().unwrap();
        assert_eq!(decode.parent_span_id, process.span_id);
        // The batch that it was written in links to the publisher's span, and it to the batch.
        let [link] = process.links.try_into().unwrap();
        let batch = collector.spans().into_iter().find(|span| span.span_id == link.span_id).unwrap();
        assert!(
            batch.name.starts_with("insert ")
                && batch.kind == SpanKind::Client as i32
                && batch.parent_span_id.is_empty()
        );
        assert!(
            batch
                .links
                .iter()
                .any(|link| link.trace_id == trace_id(n).to_be_bytes() && link.span_id == PUBLISHER_SPAN.to_be_bytes())
        );
        assert_eq!(text(&batch.attributes, "db.namespace"), env.name);
    }
    let rejected = collector.named("process", trace_id(100));
    assert_eq!(rejected.len(), 2, "once, and once more after the first replay");
    for process in &rejected {
        assert_eq!(text(&process.attributes, "ticketlog.outcome"), "dead_lettered");
        assert_eq!(text(&process.attributes, "error.type"), "invalid_field user_id");
        assert_eq!(process.status.as_ref().unwrap().code, 2);
    }
    assert_eq!(collector.named("publish", trace_id(100)).len(), 2);
    let [replay] = collector.named("replay", trace_id(100)).try_into().unwrap();
    assert_eq!(replay.parent_span_id, PUBLISHER_SPAN.to_be_bytes());
    let dead_letter_ids: Vec<String> =
        rejected.iter().map(|span| text(&span.attributes, "ticketlog.dead_letter_id")).collect();
    assert!(dead_letter_ids.contains(&text(&replay.attributes, "ticketlog.dead_letter_id")));
    assert!(collector.services().iter().all(|service| service == "ticketlog"));
    env.clean().await;
}

#[tokio::test]
async fn a_collector_that_does_not_answer_slows_nothing_and_what_is_lost_is_counted() {
    const EVENTS: i32 = 6_000;
    let (env, collector) = (TestEnv::new().await, Collector::start(true).await);
    let mut worker = env.worker_with(&[("TELEMETRY__OTLP", &collector.address)]).await;
    worker.wait_until_ready().await;
    env.publish_all((0..EVENTS).map(|n| traced(TestMessage::numbered(n), n, true))).await;
    worker.wait_until_settled(EVENTS as u64).await;
    let lost = |outcome: &str| worker.metrics()[&format!("ticketlog_spans_total{{outcome=\"{outcome}\"}}")];
    // Of more than 12,000 spans, 8,192 fit into the queue.
    assert!(lost("dropped") > 1_000.0);
    eventually("a request has failed", DEADLINE, async || lost("failed") > 0.0).await;
    assert_eq!(lost("exported"), 0.0);
    assert!(worker.log().contains("traces cannot be exported"));
    assert_eq!(worker.stop().await.code(), Some(0));
    env.assert_exactly(EVENTS).await;
    env.clean().await;
}

#[tokio::test]
async fn spans_that_a_collector_rejects_count_as_failed_and_nothing_is_exported_where_the_sdk_is_disabled() {
    let env = TestEnv::new().await;
    let spans = |worker: &crate::harness::Worker, outcome: &str| {
        worker.metrics()[&format!("ticketlog_spans_total{{outcome=\"{outcome}\"}}")]
    };
    for (rejects, failed) in [(2, 2.0), (1_000_000, 3.0), (-5, 0.0)] {
        let collector = Collector { rejects, ..Collector::default() }.listen().await;
        let mut worker = env.worker_with(&[("TELEMETRY__OTLP", &collector.address)]).await;
        worker.wait_until_ready().await;
        // Three spans: of the message, of its decoding, of its batch.
        env.publish(&traced(TestMessage::numbered(1), 1, true)).await;
        worker.wait_until_settled(1).await;
        eventually("all have an outcome", DEADLINE, async || {
            spans(&worker, "exported") + spans(&worker, "failed") + spans(&worker, "dropped") == 3.0
        })
        .await;
        assert_eq!(spans(&worker, "failed"), failed, "{rejects}");
        assert_eq!(worker.log().contains("rejects traces"), failed > 0.0);
        assert_eq!(worker.stop().await.code(), Some(0));
    }
    let collector = Collector::start(false).await;
    let mut command = env.command();
    command.env("OTEL_SDK_DISABLED", "TRUE").env("TICKETLOG_TELEMETRY__OTLP", &collector.address);
    let mut worker = crate::harness::Worker::start(command).await;
    worker.wait_until_ready().await;
    env.publish(&traced(TestMessage::numbered(2), 2, true)).await;
    worker.wait_until_settled(1).await;
    assert!(worker.log().contains("OTEL_SDK_DISABLED"));
    assert_eq!(worker.stop().await.code(), Some(0));
    assert!(collector.spans().is_empty());
    env.clean().await;
}
