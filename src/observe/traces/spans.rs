//! Owns which spans there are and what they say, by OpenTelemetry's semantic conventions for messaging and databases. Only traces that
//! the publisher records are recorded here.

use std::borrow::Cow;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::Span;

use super::super::metrics::DeliveryOutcome;
use super::export::tracer;
use ticketlog_contract::dead_letter::ReplayMark;
use ticketlog_rabbitmq::{Delivery, TraceContext};

const OUTCOME: &str = "ticketlog.outcome";
const DOCUMENT_ID: &str = "ticketlog.document_id";
const DEAD_LETTER_ID: &str = "ticketlog.dead_letter_id";
const REPLAY_ID: &str = "ticketlog.replay_id";

/// The processing of one message, from its delivery to its outcome: a child of the span in which it was published.
#[derive(Debug)]
pub struct MessageSpan {
    span: Span,
    /// The step under way: decoding, or publishing a dead letter.
    step: Option<Span>,
    published_in: SpanContext,
    outcome: DeliveryOutcome,
}

impl MessageSpan {
    /// Begins with decoding. `None` if traces are not exported, or this one is not recorded.
    pub fn start(delivery: &Delivery, queue: &str, replay: Option<&ReplayMark>) -> Option<MessageSpan> {
        let (published_in, parent) = parent(delivery)?;
        let mut attributes = message_attributes(delivery, "process");
        // The form that the conventions ask for with RabbitMQ.
        let destination = [delivery.exchange(), delivery.routing_key(), queue].map(str::to_owned);
        let destination: Vec<String> = destination.into_iter().filter(|part| !part.is_empty()).collect();
        attributes.push(KeyValue::new("messaging.destination.name", destination.join(":")));
        attributes.push(KeyValue::new("messaging.rabbitmq.message.delivery_tag", integer(delivery.tag)));
        if let Some(replay) = replay {
            attributes.push(KeyValue::new(REPLAY_ID, replay.id.clone()));
        }
        let span = start(format!("process {queue}"), SpanKind::Consumer, attributes, &parent)?;
        let step = start("decode", SpanKind::Internal, Vec::new(), &within(&span));
        Some(MessageSpan { span, step, published_in, outcome: DeliveryOutcome::Returned })
    }

    /// It was decoded, and is written next.
    pub fn decoded(&mut self, document_id: [u8; 12]) {
        self.step = None;
        let id = bson::oid::ObjectId::from_bytes(document_id).to_hex();
        self.span.set_attribute(KeyValue::new(DOCUMENT_ID, id));
    }

    /// It is rejected, and its dead letter is published next.
    pub fn rejected(&mut self, cause: &str, dead_letter_id: &str, exchange: &str) {
        if let Some(step) = &mut self.step {
            step.set_status(Status::error(cause.to_owned()));
        }
        self.span.set_attribute(KeyValue::new("error.type", cause.to_owned()));
        self.span.set_attribute(KeyValue::new(DEAD_LETTER_ID, dead_letter_id.to_owned()));
        self.span.set_status(Status::error(cause.to_owned()));
        let attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", exchange.to_owned()),
            KeyValue::new(DEAD_LETTER_ID, dead_letter_id.to_owned()),
        ];
        self.step = start(format!("publish {exchange}"), SpanKind::Producer, attributes, &within(&self.span));
    }

    /// It has its outcome.
    pub fn settled(mut self, outcome: DeliveryOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for MessageSpan {
    fn drop(&mut self) {
        self.step = None;
        let outcome: &'static str = self.outcome.into();
        self.span.set_attribute(KeyValue::new(OUTCOME, outcome));
    }
}

/// The writing of one batch, until each of its events has an outcome: the root of a trace of its own, which links to its messages, and
/// they to it.
pub struct BatchSpan(Span);

impl BatchSpan {
    /// A batch of this many events for this namespace. `messages` are those of its messages that have a span; `None` if there is none.
    pub fn start<'a>(
        messages: impl Iterator<Item = &'a mut MessageSpan>,
        events: usize,
        (database, collection): (&str, &str),
    ) -> Option<BatchSpan> {
        let mut messages: Vec<&mut MessageSpan> = messages.collect();
        if messages.is_empty() {
            return None;
        }
        let links = messages.iter().map(|message| Link::with_context(message.published_in.clone())).collect();
        let attributes = vec![
            KeyValue::new("db.system.name", "mongodb"),
            KeyValue::new("db.operation.name", "insert"),
            KeyValue::new("db.namespace", database.to_owned()),
            KeyValue::new("db.collection.name", collection.to_owned()),
            KeyValue::new("db.operation.batch.size", integer(events)),
        ];
        let builder = SpanBuilder::from_name(format!("insert {collection}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .with_links(links);
        let span = tracer()?.build_with_context(builder, &Context::new());
        for message in &mut messages {
            message.span.add_link(span.span_context().clone(), Vec::new());
        }
        Some(BatchSpan(span))
    }

    /// Every event has its outcome.
    pub fn end(mut self) {
        self.0.end();
    }
}

/// A dead letter that is published again, until RabbitMQ has confirmed it: in the trace of the message.
#[derive(Debug)]
pub struct ReplaySpan {
    span: Span,
    is_confirmed: bool,
}

impl ReplaySpan {
    /// `None` if traces are not exported, or this one is not recorded.
    pub fn start(delivery: &Delivery, dead_letter_id: &str, replay_id: &str, exchange: &str) -> Option<ReplaySpan> {
        let (_, parent) = parent(delivery)?;
        let mut attributes = message_attributes(delivery, "publish");
        attributes.push(KeyValue::new("messaging.destination.name", exchange.to_owned()));
        attributes.push(KeyValue::new(DEAD_LETTER_ID, dead_letter_id.to_owned()));
        attributes.push(KeyValue::new(REPLAY_ID, replay_id.to_owned()));
        let span = start(format!("replay {exchange}"), SpanKind::Producer, attributes, &parent)?;
        Some(ReplaySpan { span, is_confirmed: false })
    }

    /// RabbitMQ has confirmed it.
    pub fn confirmed(&mut self) {
        self.is_confirmed = true;
    }
}

impl Drop for ReplaySpan {
    fn drop(&mut self) {
        if !self.is_confirmed {
            self.span.set_status(Status::error("not confirmed"));
        }
    }
}

fn message_attributes(delivery: &Delivery, operation: &'static str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", if operation == "publish" { "send" } else { operation }),
        KeyValue::new("messaging.message.body.size", integer(delivery.body.len())),
    ];
    if let Some(id) = delivery.message_id() {
        attributes.push(KeyValue::new("messaging.message.id", id.to_owned()));
    }
    attributes
}

/// The span in which a message was published, and a context to start its children in.
fn parent(delivery: &Delivery) -> Option<(SpanContext, Context)> {
    tracer()?;
    let TraceContext { trace_id, span_id, is_sampled, state } = delivery.trace_context()?;
    let state: TraceState = state.and_then(|state| state.parse().ok()).unwrap_or_default();
    let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
    let context = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, state);
    (is_sampled && context.is_valid()).then(|| (context.clone(), Context::new().with_remote_span_context(context)))
}

fn within(span: &Span) -> Context {
    Context::new().with_remote_span_context(span.span_context().clone())
}

fn start(
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    parent: &Context,
) -> Option<Span> {
    let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
    Some(tracer()?.build_with_context(builder, parent))
}

fn integer<T: TryInto<i64>>(number: T) -> Value {
    Value::I64(number.try_into().unwrap_or(i64::MAX))
}
