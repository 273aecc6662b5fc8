//! Owns the assertions that must hold for any input from outside. The fuzz targets (`fuzz/`) call them, and so do the tests here, with
//! the seeds. Compiled in tests and with the feature `fuzzing` only.

use std::sync::Arc;

use serde_json::Value;

use ticketlog_config as config;
use ticketlog_contract::dead_letter::{ArchivedMessage, fault_offset, render_text};
use ticketlog_contract::{
    Decoder, HiddenField, MaskKey, Message, Printed, Reason, Rules, Treatment, read_json, replace_lone_surrogates,
};
use ticketlog_rabbitmq::Delivery;

/// A message body is rejected, or becomes a valid document that starts with its `_id`, the same each time. `serde_json`
/// decides what is JSON.
pub fn message(body: &[u8]) {
    let mut decoder = Decoder::new(Arc::new(Rules::default()));
    let message = Message { body, message_id: Some("m"), ..Message::default() };
    let first = decoder.decode(&message, || [9; 12]);
    assert_eq!(decoder.decode(&message, || [9; 12]), first, "decoding a message twice gives two results");
    let plain = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let replaced = std::str::from_utf8(plain).ok().and_then(replace_lone_surrogates);
    let json = replaced.as_deref().map_or(plain, str::as_bytes);
    let is_object = matches!(serde_json::from_slice::<Value>(json), Ok(Value::Object(_)));
    match first {
        Ok(event) => {
            assert!(is_object, "stored a body that is not a JSON object");
            let document = bson::Document::from_reader(event.document.as_bytes());
            let first = document.ok().and_then(|document| document.keys().next().cloned());
            assert_eq!(first.as_deref(), Some("_id"), "not a valid document that starts with _id");
        }
        Err(rejection) if is_object => {
            let allowed = [Reason::InvalidField, Reason::InvalidFieldName, Reason::InvalidId, Reason::TooDeep];
            assert!(allowed.contains(&rejection.reason), "rejected an object as {}", rejection.reason.as_str());
        }
        Err(rejection) => {
            assert!(!decoder.faults(&message).is_empty(), "a rejected message has no fault");
            drop(render_text(&String::from_utf8_lossy(body), fault_offset("", &rejection.detail, None), false))
        }
    }
    let _ = decoder.field(&message, "user_id");
    if let Some(read) = read_json(body) {
        assert_eq!(read_json(Printed(&read).to_string().as_bytes()).as_ref(), Some(&read), "printing changes a body");
    }
    hidden(&message);
    for encoding in ["gzip", "zstd"] {
        let _ = decoder.decode(&Message { content_encoding: Some(encoding), ..message }, || [9; 12]);
    }
}

/// Hiding a field changes neither whether a message is rejected nor that the document is valid, and leaves no value at its path, however
/// the path is split into keys.
fn hidden(message: &Message) {
    let hidden_fields = vec![HiddenField { path: "a.b.c".to_owned(), treatment: Treatment::Drop }];
    let rules = Rules { hidden_fields, mask_key: MaskKey(b"0123456789abcdef".to_vec()), ..Rules::default() };
    let plain = Decoder::new(Arc::new(Rules::default())).decode(message, || [9; 12]);
    let hidden = Decoder::new(Arc::new(rules)).decode(message, || [9; 12]);
    assert_eq!(plain.as_ref().err(), hidden.as_ref().err(), "hiding a field changes what is rejected");
    let Ok(event) = hidden else { return };
    let document = bson::Document::from_reader(event.document.as_bytes());
    assert!(document.is_ok_and(|document| !has_path(&document.into(), "a.b.c")), "a hidden field is left");
}

fn has_path(value: &bson::Bson, path: &str) -> bool {
    match value {
        bson::Bson::Document(document) => document.iter().any(|(key, value)| {
            path == key
                || path
                    .strip_prefix(key.as_str())
                    .and_then(|rest| rest.strip_prefix('.'))
                    .is_some_and(|rest| has_path(value, rest))
        }),
        bson::Bson::Array(array) => array.iter().any(|value| has_path(value, path)),
        _ => false,
    }
}

/// A line of an archive is rejected, or is a dead letter that can be read and copied, and that survives another export and
/// import.
pub fn archive(line: &[u8]) {
    let Ok(archived) = ArchivedMessage::from_line(line) else { return };
    assert_eq!(
        ArchivedMessage::from_line(archived.to_line().as_bytes()).as_ref(),
        Ok(&archived),
        "a line changes in a round trip"
    );
    let body = archived.body.clone();
    let Ok(delivery) = Delivery::from_archive(archived) else { return };
    let record = delivery.record("work");
    let again = delivery.archive(&record, "queue");
    assert_eq!(again.body, body);
    let line = again.to_line();
    let read = ArchivedMessage::from_line(line.as_bytes());
    assert_eq!(read.as_ref(), Ok(&again), "a dead letter changes in a round trip");
    let Ok(mut back) = Delivery::from_archive(again) else { return };
    let second = back.record("work");
    assert_eq!((&second.cause, &second.routing_key), (&record.cause, &record.routing_key));
    assert_eq!(delivery.copy_to(&record, "", "parked", false).routing_key(), "parked");
    back.recognise_mark(&["guest".to_owned()]);
}

/// AMQP headers in their JSON form are rejected, or survive a round trip through AMQP.
pub fn headers(json: &[u8]) {
    let Ok(Value::Object(map)) = serde_json::from_slice(json) else { return };
    ticketlog_rabbitmq::check_json_round_trip(&map);
}

/// Bytes from RabbitMQ pass the frame filter with the same result however they are cut into pieces, and a second time
/// unchanged.
pub fn frames(bytes: &[u8]) {
    ticketlog_rabbitmq::check_frame_filter(bytes);
}

/// A configuration file gives valid settings, or errors that all name the file.
pub fn configuration(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Err(errors) = config::load_text("FILE", text) {
        assert!(errors.iter().all(|error| error.to_string().contains("FILE")), "{errors}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 5] = [
        ("message", message),
        ("archive", archive),
        ("headers", headers),
        ("frames", frames),
        ("configuration", configuration),
    ];

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let seeds: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() > 5, "{target} has no seeds");
        seeds
    }

    #[test]
    fn every_seed_passes() {
        for (target, check) in TARGETS {
            seeds(target).iter().for_each(|seed| check(seed));
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

        /// A short run of the fuzz targets: seeds with random damage, some spliced with another seed.
        #[test]
        fn damaged_seeds_pass(target in 0usize..5, pick: Index, other: Index, changes in prop::collection::vec((0u8..5, any::<Index>(), any::<u8>()), 1..8)) {
            let (name, check) = TARGETS[target];
            let seeds = seeds(name);
            check(&damaged(pick.get::<Vec<u8>>(&seeds).clone(), other.get::<Vec<u8>>(&seeds), &changes));
        }
    }
}
