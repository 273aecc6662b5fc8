//! The bounds of single settings and the contradictions between several.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;

use super::faults::{Faults, SettingFault};
use super::route::RouteSettings;
use super::servers::{NO_HTTP_ADDRESS, broker_uri_fault, management_fault, otlp_fault, store_uri_fault};
use super::settings::Settings;
use super::units::{HumanDuration, Size};
use super::validate_routes::{INVALID_NAME, check_routes, is_amqp_name};
use ticketlog_contract::MAX_DOCUMENT_BYTES;

/// Most bytes of documents in one command: MongoDB accepts commands of 16 MiB and 16 KiB. A larger single document is a
/// command of its own.
const MAX_COMMAND: Size = Size(15 << 20);
const SHARDS: std::ops::RangeInclusive<u16> = 1..=64;
/// Least bytes of `event.mask_key`.
const MIN_MASK_KEY: usize = 16;
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Every fault of the settings of the process and of its routes.
pub(super) fn validate(settings: &Settings, routes: &[RouteSettings]) -> Vec<SettingFault> {
    let mut faults = Faults::default();
    check_routes(routes, &mut faults);
    for check in
        [check_names, check_hidden_fields, check_servers, check_bounds, check_sizes, check_times, check_outage_times]
    {
        check(settings, &mut faults);
    }
    faults.0
}

fn check_names(s: &Settings, faults: &mut Faults) {
    for (key, name) in [("broker.exchange", &s.broker.exchange), ("dead_letter.exchange", &s.dead_letter.exchange)] {
        faults.require(is_amqp_name(name), key, INVALID_NAME);
    }
    let receipts = &s.dead_letter.receipts;
    let key = "dead_letter.receipts";
    faults.require(receipts.is_empty() || is_amqp_name(receipts), key, INVALID_NAME);
    let is_free = ![&s.broker.exchange, &s.dead_letter.exchange].contains(&receipts);
    let text = "is also broker.exchange or dead_letter.exchange; use another exchange";
    faults.require_with(&["broker.exchange", "dead_letter.exchange"], is_free, key, text);
    let exchanges_differ = s.broker.exchange != s.dead_letter.exchange;
    let text = "is also broker.exchange; use another exchange";
    faults.require_with(&["broker.exchange"], exchanges_differ, "dead_letter.exchange", text);
    faults.require(is_database_name(&s.store.database), "store.database", "is not a valid name of a MongoDB database");
}

fn check_hidden_fields(s: &Settings, faults: &mut Faults) {
    let (drop, mask) = (&s.event.drop, &s.event.mask);
    for (key, paths) in [("event.drop", drop), ("event.mask", mask)] {
        let fault = paths.iter().find_map(|path| Some(format!("has {path:?}, which {}", path_fault(path)?)));
        faults.require(fault.is_none(), key, fault.unwrap_or_default());
    }
    let text = "has user_id, by which `ticketlog erase` and the readers find documents";
    for (key, paths) in [("event.drop", drop), ("event.mask", mask)] {
        faults.require(!paths.iter().any(|path| path == "user_id"), key, text);
    }
    let key = s.event.mask_key.expose_secret();
    let text = format!(
        "must have at least {MIN_MASK_KEY} bytes if event.drop or event.mask names fields: masks, and the _id, which depends on the \
         whole message, could be guessed without it"
    );
    let hides = !drop.is_empty() || !mask.is_empty();
    let long_enough = !hides || key.len() >= MIN_MASK_KEY;
    faults.require_with(&["event.drop", "event.mask"], long_enough, "event.mask_key", text);
}

/// Why a text is not the path of a field that can be hidden. What other tools would take for a pattern would hide nothing here.
fn path_fault(path: &str) -> Option<&'static str> {
    let parts = || path.split('.');
    if parts().any(|part| part.is_empty() || part.contains('\0')) {
        Some("is empty, or has an empty part or a NUL")
    } else if parts().next() == Some("_id") {
        Some("is the document's own key: it is always stored")
    } else if path.contains(['*', '[', ']']) || path.starts_with('/') || parts().any(|part| part == "$") {
        Some(
            "is a pattern; write the names of the keys with dots, such as items.card, which also means each object in an array",
        )
    } else if parts().any(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
        Some("has a number; the elements of an array have none here: items.card means each of them")
    } else if path.contains(['"', '\\']) || path.starts_with('\'') || parts().any(|part| part.trim() != part) {
        Some(
            "has a quote, a backslash or white space around a name; write the names of the keys with dots, such as items.card",
        )
    } else {
        None
    }
}

/// MongoDB manual, "Naming Restrictions".
fn is_database_name(name: &str) -> bool {
    (1..64).contains(&name.len()) && !name.contains(['/', '\\', '.', ' ', '"', '$', '\0'])
}

fn check_servers(s: &Settings, faults: &mut Faults) {
    let (broker, store) = (s.broker.uri.expose_secret(), s.store.uri.expose_secret());
    let management = match s.broker.management_url() {
        None if s.broker.management.is_empty() => None,
        None => Some(NO_HTTP_ADDRESS.to_owned()),
        Some(url) => management_fault(&url, s.broker.allow_plaintext),
    };
    let otlp = (!s.telemetry.otlp.is_empty()).then(|| otlp_fault(&s.telemetry.otlp)).flatten().map(str::to_owned);
    let of_operator = |uri: &SecretString, fault: fn(&str, bool) -> Option<String>, allow_plaintext| {
        Some(uri.expose_secret()).filter(|uri| !uri.is_empty()).and_then(|uri| fault(uri, allow_plaintext))
    };
    let operator_broker = of_operator(&s.operator.broker_uri, broker_uri_fault, s.broker.allow_plaintext);
    let operator_store = of_operator(&s.operator.store_uri, store_uri_fault, s.store.allow_plaintext);
    let all = [
        ("telemetry.otlp", otlp),
        ("operator.broker_uri", operator_broker),
        ("operator.store_uri", operator_store),
        ("broker.uri", broker_uri_fault(broker, s.broker.allow_plaintext)),
        ("broker.management", management),
        ("store.uri", store_uri_fault(store, s.store.allow_plaintext)),
    ];
    for (key, fault) in all {
        faults.require(fault.is_none(), key, fault.unwrap_or_default());
    }
    let both_or_none = s.broker.tls_certificate.is_empty() == s.broker.tls_key.is_empty();
    let text = "must be set together with broker.tls_certificate";
    faults.require_with(&["broker.tls_certificate"], both_or_none, "broker.tls_key", text);
}

fn check_bounds(s: &Settings, faults: &mut Faults) {
    faults.require(SHARDS.contains(&s.broker.shards), "broker.shards", "must be 1 to 64");
    faults.require(s.broker.prefetch > 0, "broker.prefetch", "must be 1 to 65535");
    faults.require((1..=10_000).contains(&s.batch.max_events), "batch.max_events", "must be 1 to 10000");
    faults.require((1..=64).contains(&s.write.concurrency), "write.concurrency", "must be 1 to 64");
    faults.require((1..=100).contains(&s.event.max_depth), "event.max_depth", "must be 1 to 100");
    faults.require((1..=100).contains(&s.retry.document_attempts), "retry.document_attempts", "must be 1 to 100");
    let ratio = s.dead_letter.max_ratio;
    faults.require(ratio > 0.0 && ratio <= 1.0, "dead_letter.max_ratio", "must be above 0 and at most 1");
    faults.require(
        (20..=10_000).contains(&s.dead_letter.breaker_window),
        "dead_letter.breaker_window",
        "must be 20 to 10000",
    );
    let text = "is not a valid filter; write for instance \"info\", or \"warn,ticketlog::worker=info\"";
    faults.require(EnvFilter::builder().parse(&s.log.filter).is_ok(), "log.filter", text);
}

fn check_sizes(s: &Settings, faults: &mut Faults) {
    let within = |size: Size, max: Size| size.0 > 0 && size <= max;
    let max_document = Size(MAX_DOCUMENT_BYTES as u64);
    faults.require(within(s.event.max_bytes, max_document), "event.max_bytes", "must be 1 byte to 16MiB");
    let text = "must be 1 byte to 15MiB, so that a batch fits into one command";
    faults.require(within(s.batch.max_bytes, MAX_COMMAND), "batch.max_bytes", text);
    // Each shard's consumer gets at least one message at a time.
    let shards = if SHARDS.contains(&s.broker.shards) { u64::from(s.broker.shards) } else { 1 };
    let least = Size(s.event.max_bytes.0.saturating_mul(shards));
    let times = if shards > 1 { " * broker.shards" } else { "" };
    let text = format!("is less than event.max_bytes{times} = {least}; raise it");
    let contradicts = &["event.max_bytes", "broker.shards"];
    faults.require_with(contradicts, s.broker.prefetch_bytes >= least, "broker.prefetch_bytes", text);
    let needed = s.batch.max_events.saturating_mul(s.write.concurrency.saturating_add(1));
    let text = format!(
        "{} is less than the writers need: batch.max_events * (write.concurrency + 1) = {needed}; raise it, or lower \
         batch.max_events or write.concurrency",
        s.broker.prefetch
    );
    let contradicts = &["batch.max_events", "write.concurrency"];
    faults.require_with(contradicts, usize::from(s.broker.prefetch) >= needed, "broker.prefetch", text);
}

fn check_times(s: &Settings, faults: &mut Faults) {
    let within = |duration: HumanDuration, min_millis: u64, max: Duration| {
        (Duration::from_millis(min_millis)..=max).contains(&duration.0)
    };
    faults.require(within(s.broker.heartbeat, 1000, MINUTE * 10), "broker.heartbeat", "must be 1s to 10min");
    faults.require(within(s.broker.connect_timeout, 100, HOUR), "broker.connect_timeout", "must be 100ms to 1h");
    faults.require(within(s.broker.call_timeout, 100, HOUR), "broker.call_timeout", "must be 100ms to 1h");
    faults.require(within(s.store.write_timeout, 100, HOUR), "store.write_timeout", "must be 100ms to 1h");
    faults.require(s.batch.linger.0 <= MINUTE, "batch.linger", "must be at most 1min");
    faults.require(within(s.retry.initial, 1, HOUR), "retry.initial", "must be 1ms to 1h");
    faults.require_with(&["retry.initial"], s.retry.max >= s.retry.initial, "retry.max", "is less than retry.initial");
    faults.require(s.retry.max.0 <= HOUR, "retry.max", "must be at most 1h");
    let retention = s.store.retention.0;
    let valid = retention.is_none_or(|retention| retention >= Duration::from_secs(1));
    faults.require(valid, "store.retention", "must be at least 1s");
}

fn check_outage_times(s: &Settings, faults: &mut Faults) {
    let least = (2.0 * f64::from(s.broker.prefetch) / s.retry.requeue_after.0.as_secs_f64().max(1.0)).ceil() as u32;
    let text = format!(
        "must be 0 or at least 2 * broker.prefetch / retry.requeue_after = {least}, so that what is in flight is written in time; raise it, \
         or lower broker.prefetch"
    );
    let valid = s.write.max_rate == 0 || s.write.max_rate >= least;
    faults.require_with(&["broker.prefetch", "retry.requeue_after"], valid, "write.max_rate", text);
    let write = s.store.write_timeout;
    let text = format!("must be longer than store.write_timeout = {write:?}, and at most 25min");
    let valid = s.retry.requeue_after > write && s.retry.requeue_after.0 <= MINUTE * 25;
    faults.require_with(&["store.write_timeout"], valid, "retry.requeue_after", text);
    let text = format!(
        "must be a quarter longer than store.write_timeout = {write:?}, so that a write in flight can complete; raise it, \
         or lower store.write_timeout"
    );
    let valid = s.shutdown.timeout.0.mul_f64(0.8) > write.0;
    faults.require_with(&["store.write_timeout"], valid, "shutdown.timeout", text);
    faults.require(s.shutdown.timeout.0 <= HOUR, "shutdown.timeout", "must be at most 1h");
}
