//! Owns what must hold for any bytes that come from outside, for the fuzz targets (`fuzz/`) and for tests that replay
//! their seeds. Exists in tests and with the feature `fuzzing` only. Must not know how the bytes are made.

use std::sync::Arc;

use serde_json::Value;

use crate::broker::Delivery;
use crate::config::{self, ConfigError};
use crate::dead_letter::{Archived, fault_at, text};
use crate::event::{Decoder, Message, Reason, Rules};

/// A message body: never a panic; refused, or a sound document that begins with its `_id`, and the same one again.
/// `serde_json` says what is JSON.
pub fn message(body: &[u8]) {
    let mut decoder = Decoder::new(Arc::new(Rules::default()));
    let message = Message { body, message_id: Some("m"), ..Message::default() };
    let first = decoder.decode(&message, || [9; 12]);
    assert_eq!(decoder.decode(&message, || [9; 12]), first, "a message must become the same each time");
    let plain = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let is_object = matches!(serde_json::from_slice::<Value>(plain), Ok(Value::Object(_)));
    match first {
        Ok(event) => {
            assert!(is_object, "stored what is no JSON object");
            let document = bson::Document::from_reader(event.document.as_slice());
            let first = document.ok().and_then(|document| document.keys().next().cloned());
            assert_eq!(first.as_deref(), Some("_id"), "no sound document");
        }
        Err(rejection) if is_object => {
            let allowed = [Reason::InvalidField, Reason::InvalidFieldName, Reason::InvalidId, Reason::TooDeep];
            assert!(allowed.contains(&rejection.reason), "refused an object as {}", rejection.reason.as_str());
        }
        Err(rejection) => drop(text(&String::from_utf8_lossy(body), fault_at("", &rejection.detail, None), false)),
    }
    for encoding in ["gzip", "zstd"] {
        let _ = decoder.decode(&Message { content_encoding: Some(encoding), ..message }, || [9; 12]);
    }
}

/// A line of an archive: refused, or a dead letter that reads, moves, is replayed, and comes back from the archive as it
/// went in.
pub fn archive(line: &[u8]) {
    let Ok(archived) = Archived::from_line(line) else { return };
    assert_eq!(Archived::from_line(archived.to_line().as_bytes()).as_ref(), Ok(&archived), "a line reads back");
    let body = archived.body.clone();
    let Ok(delivery) = Delivery::of_archive(archived) else { return };
    let record = delivery.record("work");
    let Some(again) = delivery.archive(&record, "queue") else { return };
    assert_eq!(again.body, body);
    let line = again.to_line();
    let read = Archived::from_line(line.as_bytes());
    assert_eq!(read.as_ref(), Ok(&again), "an archived letter reads back");
    let Ok(back) = Delivery::of_archive(again) else { return };
    let second = back.record("work");
    assert_eq!((&second.cause, &second.routing_key), (&record.cause, &record.routing_key));
    assert_eq!(delivery.moved(&record, "", "parked", false).routing_key(), "parked");
    let _ = delivery.replay(&["guest".to_owned()]);
}

/// AMQP headers in their JSON form: refused, or the same after a turn through AMQP.
pub fn headers(json: &[u8]) {
    let Ok(Value::Object(map)) = serde_json::from_slice(json) else { return };
    crate::broker::headers_hold(&map);
}

/// A configuration file: settings that hold together, or an error that names it.
pub fn configuration(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Err(error) = config::load_text("FILE", text) {
        let error: ConfigError = error;
        assert!(error.to_string().contains("FILE"), "{error}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 4] =
        [("message", message), ("archive", archive), ("headers", headers), ("configuration", configuration)];

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let seeds: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() > 5, "{target} has no seeds");
        seeds
    }

    #[test]
    fn every_seed_holds() {
        for (target, hold) in TARGETS {
            seeds(target).iter().for_each(|seed| hold(seed));
        }
    }

    fn damaged(mut seed: Vec<u8>, other: &[u8], changes: &[(u8, Index, u8)]) -> Vec<u8> {
        for (kind, at, byte) in changes {
            let at = at.index(seed.len() + 1);
            match kind {
                0 if at < seed.len() => seed[at] = *byte,
                1 if at < seed.len() => seed[at] ^= 1 << (byte % 8),
                2 => seed.insert(at, *byte),
                3 => seed.truncate(at),
                4 => seed.extend_from_slice(&other[at.min(other.len())..]),
                _ => {}
            }
        }
        seed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        /// The short run of the fuzz targets: seeds with random damage, and spliced.
        #[test]
        fn damaged_seeds_hold(target in 0usize..4, pick: Index, other: Index, changes in prop::collection::vec((0u8..5, any::<Index>(), any::<u8>()), 1..8)) {
            let (name, hold) = TARGETS[target];
            let seeds = seeds(name);
            hold(&damaged(pick.get::<Vec<u8>>(&seeds).clone(), other.get::<Vec<u8>>(&seeds), &changes));
        }
    }
}
