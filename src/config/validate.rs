//! Owns the bounds of single settings and the contradictions between several. Pure. Must not know where settings come from.

use std::time::Duration;

use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::uri;
use super::validate_routes::check_routes;
use super::{HumanDuration, Settings, Size};
use crate::event::{FieldKind, MAX_DOCUMENT_BYTES};

/// A setting that cannot be used: its key, what is wrong, and how to fix it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettingFault {
    pub key: String,
    pub text: String,
}

/// Most bytes of documents in one command: MongoDB accepts commands of 16 MiB and 16 KiB. A larger single document is a
/// command of its own.
const MAX_COMMAND: Size = Size(15 << 20);
/// `.shards`, the longest.
const SHARD_SUFFIX_BYTES: usize = 7;
const SHARDS: std::ops::RangeInclusive<u16> = 1..=64;
/// Least bytes of `event.mask_key`.
const MIN_MASK_KEY: usize = 16;
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Every fault of the settings.
pub(super) fn validate(settings: &Settings) -> Vec<SettingFault> {
    let mut faults = Faults::default();
    for check in [
        check_names,
        check_fields,
        check_servers,
        check_bounds,
        check_sizes,
        check_times,
        check_outage_times,
        check_routes,
    ] {
        check(settings, &mut faults);
    }
    faults.0
}

#[derive(Default)]
pub(super) struct Faults(pub Vec<SettingFault>);

impl Faults {
    /// Adds a fault unless `valid`. A setting has at most one fault, because a contradiction may follow from a value out of
    /// bounds.
    pub fn require(&mut self, valid: bool, key: impl Into<String>, text: impl Into<String>) {
        if valid {
            return;
        }
        let key = key.into();
        if !self.0.iter().any(|fault| fault.key == key) {
            self.0.push(SettingFault { key, text: text.into() });
        }
    }
}

pub(super) fn check_names(s: &Settings, faults: &mut Faults) {
    let valid = |name: &str| (1..=255).contains(&name.len()) && !name.chars().any(char::is_control);
    for (key, name) in [
        ("broker.exchange", &s.broker.exchange),
        ("broker.queue", &s.broker.queue),
        ("dead_letter.exchange", &s.dead_letter.exchange),
        ("dead_letter.queue", &s.dead_letter.queue),
        ("dead_letter.parked_queue", &s.dead_letter.parked_queue),
    ] {
        faults.require(valid(name), key, "must have 1 to 255 bytes and no control characters");
    }
    let (queue, dead, parked) = (&s.broker.queue, &s.dead_letter.queue, &s.dead_letter.parked_queue);
    let exchanges_differ = s.broker.exchange != s.dead_letter.exchange;
    let is_free =
        s.broker.shards <= 1 || ![&s.broker.exchange, &s.dead_letter.exchange].contains(&&s.broker.shard_exchange());
    faults.require(
        is_free,
        "broker.queue",
        "with .shards at its end is also the name of another exchange; use another queue",
    );
    faults.require(exchanges_differ, "dead_letter.exchange", "is also broker.exchange; use another exchange");
    let is_shared = s.broker.queues().iter().any(|queue| queue == dead || queue == parked);
    faults.require(!is_shared, "broker.queue", "is also a dead-letter queue; use another queue");
    let fits = s.broker.shards <= 1 || queue.len() <= 255 - SHARD_SUFFIX_BYTES;
    faults.require(fits, "broker.queue", "must have at most 248 bytes with several shards, whose names are longer");
    faults.require(dead != parked, "dead_letter.parked_queue", "is also dead_letter.queue; use another queue");
    let keys = &s.broker.routing_keys;
    faults.require(!keys.is_empty(), "broker.routing_keys", "needs at least one key, such as \"#\"");
    faults.require(keys.iter().all(|key| key.len() <= 255), "broker.routing_keys", "has a key of more than 255 bytes");
    faults.require(
        is_collection_name(&s.store.collection),
        "store.collection",
        "is not a valid name of a MongoDB collection",
    );
    faults.require(is_database_name(&s.store.database), "store.database", "is not a valid name of a MongoDB database");
}

pub(super) fn check_fields(s: &Settings, faults: &mut Faults) {
    let valid = |name: &String| !name.is_empty() && name != "_id" && !name.contains('\0');
    let text = "has a field name that is not allowed: empty, _id, or with a NUL";
    faults.require(s.event.fields.keys().all(valid), "event.fields", text);
    check_hidden_fields(s, faults);
}

fn check_hidden_fields(s: &Settings, faults: &mut Faults) {
    let (drop, mask) = (&s.event.drop, &s.event.mask);
    for (key, paths) in [("event.drop", drop), ("event.mask", mask)] {
        let fault = paths.iter().find_map(|path| Some(format!("has {path:?}, which {}", path_fault(path)?)));
        faults.require(fault.is_none(), key, fault.unwrap_or_default());
    }
    let number =
        mask.iter().find(|name| s.event.fields.get(*name).is_some_and(|field| field.r#type == FieldKind::Number));
    let text =
        number.map(|name| format!("has {name}, which event.fields makes a number; a mask is a text. Drop it instead"));
    faults.require(number.is_none(), "event.mask", text.unwrap_or_default());
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
    faults.require(!hides || key.len() >= MIN_MASK_KEY, "event.mask_key", text);
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

fn is_collection_name(name: &str) -> bool {
    (1..=120).contains(&name.len())
        && !name.contains(['$', '\0'])
        && !name.starts_with("system.")
        && !name.starts_with('.')
}

fn check_servers(s: &Settings, faults: &mut Faults) {
    let (broker, store) = (s.broker.uri.expose_secret(), s.store.uri.expose_secret());
    let management = match s.broker.management_url() {
        None if s.broker.management.is_empty() => None,
        None => Some(NO_HTTP_ADDRESS.to_owned()),
        Some(url) => management_fault(&url, s.broker.allow_plaintext),
    };
    let otlp = (!s.telemetry.otlp.is_empty()).then(|| otlp_fault(&s.telemetry.otlp)).flatten().map(str::to_owned);
    let all = [
        ("telemetry.otlp", otlp),
        ("broker.uri", broker_uri_fault(broker, s.broker.allow_plaintext)),
        ("broker.management", management),
        ("store.uri", store_uri_fault(store, s.store.allow_plaintext)),
    ];
    for (key, fault) in all {
        faults.require(fault.is_none(), key, fault.unwrap_or_default());
    }
    let both_or_none = s.broker.tls_certificate.is_empty() == s.broker.tls_key.is_empty();
    faults.require(both_or_none, "broker.tls_key", "must be set together with broker.tls_certificate");
}

const NO_HTTP_ADDRESS: &str = "must be an address such as http://rabbitmq:15672, or empty";

/// What is wrong with `broker.uri`, without showing it. A host is named only if the URI could be parsed: it may be a piece
/// of a password otherwise.
pub(super) fn broker_uri_fault(uri: &str, allow_plaintext: bool) -> Option<String> {
    let host = || uri::unencrypted_broker_host(uri).filter(|_| !allow_plaintext);
    let fault = uri::broker_fault(uri).map(str::to_owned);
    fault.or_else(|| Some(unencrypted(&host()?, "amqps://", "broker.allow_plaintext")))
}

/// The same of `store.uri`.
pub(super) fn store_uri_fault(uri: &str, allow_plaintext: bool) -> Option<String> {
    let host = || uri::unencrypted_store_host(uri).filter(|_| !allow_plaintext);
    let fault = uri::store_fault(uri).map(str::to_owned);
    fault.or_else(|| Some(unencrypted(&host()?, "?tls=true", "store.allow_plaintext")))
}

/// What is wrong with an address of the management API.
pub(super) fn management_fault(url: &Url, allow_plaintext: bool) -> Option<String> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Some(NO_HTTP_ADDRESS.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must have no user name and password: those of broker.uri are used".to_owned());
    }
    let host = url.host_str().filter(|host| url.scheme() == "http" && !uri::is_local(host) && !allow_plaintext)?;
    Some(unencrypted(host, "https://", "broker.allow_plaintext"))
}

fn otlp_fault(address: &str) -> Option<&'static str> {
    let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    else {
        return Some(
            "must be the address of a collector that takes OTLP over HTTP, such as http://collector:4318, or empty",
        );
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    (!is_plain)
        .then_some("must have no user name, password and query: OTEL_EXPORTER_OTLP_HEADERS can hold a credential")
}

fn unencrypted(host: &str, encrypted: &str, allow: &str) -> String {
    format!(
        "is not encrypted to {host}, another machine: passwords and events could be read on the network. Use \
         {encrypted}, or set {allow} = true if the network is trusted"
    )
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
    let text = "is not a valid filter; write for instance \"info\", or \"info,ticketlog::rabbitmq=debug\"";
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
    faults.require(s.broker.prefetch_bytes >= least, "broker.prefetch_bytes", text);
    let needed = s.batch.max_events.saturating_mul(s.write.concurrency.saturating_add(1));
    let text = format!(
        "{} is less than the writers need: batch.max_events * (write.concurrency + 1) = {needed}; raise it, or lower \
         batch.max_events or write.concurrency",
        s.broker.prefetch
    );
    faults.require(usize::from(s.broker.prefetch) >= needed, "broker.prefetch", text);
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
    faults.require(s.retry.max >= s.retry.initial, "retry.max", "is less than retry.initial");
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
    faults.require(s.write.max_rate == 0 || s.write.max_rate >= least, "write.max_rate", text);
    let write = s.store.write_timeout;
    let text = format!("must be longer than store.write_timeout = {write:?}, and at most 25min");
    let valid = s.retry.requeue_after > write && s.retry.requeue_after.0 <= MINUTE * 25;
    faults.require(valid, "retry.requeue_after", text);
    let text = format!(
        "must be a quarter longer than store.write_timeout = {write:?}, so that a write in flight can complete; raise it, \
         or lower store.write_timeout"
    );
    faults.require(s.shutdown.timeout.0.mul_f64(0.8) > write.0, "shutdown.timeout", text);
}
