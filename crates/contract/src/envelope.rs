//! Owns which documents are not an event but something around it: the envelopes of well-known libraries, and batches.

use bson::RawDocument;
use bson::raw::RawBsonRef;

use super::Rules;
use super::lookalike::Names;

/// How deep the fields of an event are searched for.
const MAX_DEPTH: usize = 3;

/// Keys that stand together in an envelope, from the documentation of each.
const SIGNATURES: [&[&str]; 20] = [
    &["specversion", "type"],           // CloudEvents
    &["op", "ts_ms"],                   // Debezium
    &["before", "after"],               // Debezium, without its metadata
    &["schema", "payload"],             // Kafka Connect
    &["messageType", "message"],        // MassTransit
    &["pattern", "data"],               // NestJS
    &["job", "data"],                   // Laravel
    &["TopicArn", "Message"],           // Amazon SNS
    &["detail-type", "detail"],         // Amazon EventBridge
    &["Records"],                       // Amazon S3, SQS
    &["message", "subscription"],       // Google Pub/Sub
    &["jsonrpc", "method"],             // JSON-RPC
    &["class", "jid"],                  // Sidekiq
    &["job_class", "arguments"],        // Active Job
    &["task", "args"],                  // Celery
    &["task", "kwargs"],                // Celery
    &["args", "kwargs"],                // Nameko
    &["operationType", "fullDocument"], // a change stream of MongoDB
    &["headers", "payload"],            // Spring
    &["eventType", "dataVersion"],      // Azure Event Grid
];

/// Whether the configured fields are somewhere inside the document. The caller knows that none of `Names::payload` is at its root;
/// `has_others` says whether another configured field is.
pub(super) fn is_envelope(rules: &Rules, names: &Names, document: &[u8], has_others: bool) -> bool {
    let Ok(document) = RawDocument::from_bytes(document) else { return false };
    let mut seen = 0u64;
    let mut members = 0;
    let mut last_is_array = false;
    for element in document.iter_elements().flatten().skip(1) {
        let key = element.key().as_str();
        members += 1;
        for (at, signature) in SIGNATURES.iter().enumerate() {
            for (bit, name) in signature.iter().enumerate() {
                if *name == key {
                    seen |= 1 << (2 * at + bit);
                }
            }
        }
        let Ok(value) = element.value() else { continue };
        last_is_array = matches!(value, RawBsonRef::Array(_));
        let wanted = if has_others { 2 } else { 1 };
        if fields_inside(rules, names, value, MAX_DEPTH) >= wanted {
            return true;
        }
    }
    let is_seen =
        |(at, signature): (usize, &&[&str])| (0..signature.len()).all(|bit| seen & (1 << (2 * at + bit)) != 0);
    members == 1 && last_is_array || SIGNATURES.iter().enumerate().any(is_seen)
}

/// How many configured fields, however they are spelt, an object inside has at most.
fn fields_inside(rules: &Rules, names: &Names, value: RawBsonRef, depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    match value {
        RawBsonRef::Document(document) => {
            let (mut own, mut inner) = (0, 0);
            for element in document.iter_elements().flatten() {
                let key = element.key().as_str();
                let is_field =
                    rules.fields.iter().any(|field| field.name == key) || names.resembled(key.as_bytes()) != 0;
                own += usize::from(is_field);
                if let Ok(value) = element.value() {
                    inner = inner.max(fields_inside(rules, names, value, depth - 1));
                }
            }
            own.max(inner)
        }
        RawBsonRef::Array(array) => {
            let first = array.into_iter().next().and_then(Result::ok);
            first.map_or(0, |first| fields_inside(rules, names, first, depth - 1))
        }
        RawBsonRef::String(text) if text.trim_start().starts_with(['{', '[']) => {
            rules.fields.iter().filter(|field| text.contains(&format!("\"{}\"", field.name))).count()
        }
        _ => 0,
    }
}
