//! Owns the bounds of single settings and the contradictions between several. Pure.

use std::time::Duration;

use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;

use super::uri;
use super::{Settings, Size};
use crate::event::MAX_DOCUMENT_BYTES;

/// A setting that cannot be: its key, what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub key: &'static str,
    pub text: String,
}

/// Most bytes of documents in one command, but for a single larger one: MongoDB takes commands of 16 MiB and 16 KiB.
const MAX_COMMAND: Size = Size(15 << 20);

/// The first fault, single settings before contradictions.
pub(super) fn first_fault(settings: &Settings) -> Option<Fault> {
    let found = names(settings)
        .or_else(|| servers(settings))
        .or_else(|| bounds(settings))
        .or_else(|| sizes(settings))
        .or_else(|| times(settings));
    found.map(|(key, text)| Fault { key, text })
}

type Found = Option<(&'static str, String)>;

fn fault(wrong: bool, key: &'static str, text: impl Into<String>) -> Found {
    wrong.then(|| (key, text.into()))
}

fn names(s: &Settings) -> Found {
    let all = [
        ("broker.exchange", &s.broker.exchange),
        ("broker.queue", &s.broker.queue),
        ("dead_letter.exchange", &s.dead_letter.exchange),
        ("dead_letter.queue", &s.dead_letter.queue),
        ("dead_letter.parked_queue", &s.dead_letter.parked_queue),
    ];
    let sound = |name: &str| (1..=255).contains(&name.len()) && !name.chars().any(char::is_control);
    let keys = &s.broker.routing_keys;
    let bad_field = |name: &String| name.is_empty() || name == "_id" || name.contains('\0');
    all.into_iter()
        .find_map(|(key, name)| fault(!sound(name), key, "must have 1 to 255 bytes and no control characters"))
        .or_else(|| clashes(s))
        .or_else(|| fault(keys.is_empty(), "broker.routing_keys", "needs at least one key, such as \"#\""))
        .or_else(|| fault(keys.iter().any(|key| key.len() > 255), "broker.routing_keys", "has a key over 255 bytes"))
        .or_else(|| {
            fault(!collection_name(&s.store.collection), "store.collection", "is no name for a MongoDB collection")
        })
        .or_else(|| fault(!database_name(&s.store.database), "store.database", "is no name for a MongoDB database"))
        .or_else(|| {
            let text = "has a name that no field can have: empty, with a NUL, or _id";
            fault(s.event.fields.keys().any(bad_field), "event.fields", text)
        })
}

/// Two things under one name.
fn clashes(s: &Settings) -> Found {
    let (queue, dead, parked) = (&s.broker.queue, &s.dead_letter.queue, &s.dead_letter.parked_queue);
    let same = s.broker.exchange == s.dead_letter.exchange;
    fault(same, "dead_letter.exchange", "is also broker.exchange; give the dead letters an exchange of their own")
        .or_else(|| fault(queue == dead || queue == parked, "broker.queue", "is also a dead-letter queue"))
        .or_else(|| fault(dead == parked, "dead_letter.parked_queue", "is also dead_letter.queue"))
}

/// MongoDB manual, "Naming Restrictions".
fn database_name(name: &str) -> bool {
    (1..64).contains(&name.len()) && !name.contains(['/', '\\', '.', ' ', '"', '$', '\0'])
}

fn collection_name(name: &str) -> bool {
    (1..=120).contains(&name.len())
        && !name.contains(['$', '\0'])
        && !name.starts_with("system.")
        && !name.starts_with('.')
}

fn servers(s: &Settings) -> Found {
    let (broker, store) = (s.broker.uri.expose_secret(), s.store.uri.expose_secret());
    let text = |text: &str| text.to_owned();
    (uri::broker_fault(broker).map(|fault| ("broker.uri", text(fault))))
        .or_else(|| uri::store_fault(store).map(|fault| ("store.uri", text(fault))))
        .or_else(|| {
            let open = uri::broker_in_the_open(broker).filter(|_| !s.broker.allow_plaintext)?;
            Some(("broker.uri", unencrypted(&open, "amqps://", "broker.allow_plaintext")))
        })
        .or_else(|| {
            let open = uri::store_in_the_open(store).filter(|_| !s.store.allow_plaintext)?;
            Some(("store.uri", unencrypted(&open, "?tls=true", "store.allow_plaintext")))
        })
        .or_else(|| {
            let half = s.broker.tls_certificate.is_empty() != s.broker.tls_key.is_empty();
            fault(half, "broker.tls_key", "and broker.tls_certificate are needed together")
        })
}

fn unencrypted(host: &str, with: &str, allow: &str) -> String {
    format!(
        "goes unencrypted to {host}, which is another machine: passwords and tickets would be readable on the way. Use \
         {with}, or set {allow} = true where the network is trusted"
    )
}

fn bounds(s: &Settings) -> Found {
    fault(s.broker.prefetch == 0, "broker.prefetch", "must be 1 to 65535")
        .or_else(|| fault(!(1..=10_000).contains(&s.batch.max_events), "batch.max_events", "must be 1 to 10000"))
        .or_else(|| fault(!(1..=64).contains(&s.write.concurrency), "write.concurrency", "must be 1 to 64"))
        .or_else(|| fault(!(1..=100).contains(&s.event.max_depth), "event.max_depth", "must be 1 to 100"))
        .or_else(|| {
            fault(!(1..=100).contains(&s.retry.document_attempts), "retry.document_attempts", "must be 1 to 100")
        })
        .or_else(|| {
            let ratio = s.dead_letter.max_ratio;
            fault(!(ratio > 0.0 && ratio <= 1.0), "dead_letter.max_ratio", "must be above 0 and at most 1")
        })
        .or_else(|| {
            let text = "is no filter; write for instance \"info\", or \"info,ticketlog::broker=debug\"";
            fault(EnvFilter::builder().parse(&s.log.filter).is_err(), "log.filter", text)
        })
        .or_else(|| fault(s.dead_letter.min_store == 0, "dead_letter.min_store", "must be at least 1"))
        .or_else(|| fault(s.dead_letter.min_decode == 0, "dead_letter.min_decode", "must be at least 1"))
}

fn sizes(s: &Settings) -> Found {
    let most = Size(MAX_DOCUMENT_BYTES as u64);
    let needed = s.batch.max_events * (s.write.concurrency + 1);
    fault(s.event.max_bytes.0 == 0 || s.event.max_bytes > most, "event.max_bytes", "must be 1 byte to 16MiB")
        .or_else(|| {
            let out = s.batch.max_bytes.0 == 0 || s.batch.max_bytes > MAX_COMMAND;
            fault(out, "batch.max_bytes", "must be 1 byte to 15MiB, so that a batch is one command")
        })
        .or_else(|| {
            let small = s.broker.prefetch_bytes < s.event.max_bytes;
            fault(
                small,
                "broker.prefetch_bytes",
                format!("is less than event.max_bytes = {}; raise it", s.event.max_bytes),
            )
        })
        .or_else(|| {
            let text = format!(
                "{} is less than the writers need: batch.max_events * (write.concurrency + 1) = {needed}; raise it, or \
                 lower batch.max_events or write.concurrency",
                s.broker.prefetch
            );
            fault(usize::from(s.broker.prefetch) < needed, "broker.prefetch", text)
        })
}

fn times(s: &Settings) -> Found {
    let within =
        |span: super::Span, least: u64, most: Duration| (Duration::from_millis(least)..=most).contains(&span.0);
    let hour = Duration::from_secs(3600);
    let write = s.store.write_timeout;
    fault(!within(s.broker.heartbeat, 1000, Duration::from_secs(600)), "broker.heartbeat", "must be 1s to 10min")
        .or_else(|| fault(!within(s.broker.connect_timeout, 100, hour), "broker.connect_timeout", "must be 100ms to 1h"))
        .or_else(|| fault(!within(s.broker.call_timeout, 100, hour), "broker.call_timeout", "must be 100ms to 1h"))
        .or_else(|| fault(!within(write, 100, hour), "store.write_timeout", "must be 100ms to 1h"))
        .or_else(|| fault(!within(s.dead_letter.window, 1000, hour), "dead_letter.window", "must be 1s to 1h"))
        .or_else(|| fault(s.batch.linger.0 > Duration::from_secs(60), "batch.linger", "must be at most 1min"))
        .or_else(|| fault(!within(s.retry.initial, 1, hour), "retry.initial", "must be 1ms to 1h"))
        .or_else(|| fault(s.retry.max < s.retry.initial, "retry.max", "is less than retry.initial"))
        .or_else(|| fault(s.retry.max.0 > hour, "retry.max", "must be at most 1h"))
        .or_else(|| {
            let retention = s.store.retention.0;
            fault(retention.is_some_and(|keep| keep < Duration::from_secs(1)), "store.retention", "must be at least 1s")
        })
        .or_else(|| {
            let text = format!("must be longer than store.write_timeout = {write:?}, and at most 25min");
            let out = s.retry.release_after <= write || s.retry.release_after.0 > Duration::from_secs(25 * 60);
            fault(out, "retry.release_after", text)
        })
        .or_else(|| {
            let text = format!(
                "must be a quarter longer than store.write_timeout = {write:?}, so that a write in flight can end; raise it or \
                 lower store.write_timeout"
            );
            fault(s.shutdown.timeout.0.mul_f64(0.8) <= write.0, "shutdown.timeout", text)
        })
}
