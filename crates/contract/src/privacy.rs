//! Owns which fields are not stored, or only as a keyed hash. Works on the finished document, so that the identity and the casts see
//! the original, and a worker that hides nothing does nothing.

use bson::raw::{RawArray, RawArrayBuf, RawBson, RawDocument, RawDocumentBuf};
use bson::{Document, RawBsonRef};
use ring::hmac;

use super::rules::{MAX_DOCUMENT_BYTES, Rules};

/// In front of the hash, in 64 hexadecimal digits.
const PREFIX: &str = "hmac-sha256:";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It is not stored.
    Drop,
    /// Its HMAC-SHA-256 is stored.
    Mask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenField {
    /// Its name; with dots, a field of an object, or of each object in an array. A key may have some of the dots in it.
    pub path: String,
    pub treatment: Treatment,
}

/// The key of masks. Not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MaskKey(pub Vec<u8>);

impl std::fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("MaskKey")
    }
}

/// The rules about hidden fields, ready for use.
#[derive(Debug)]
pub(super) struct Privacy {
    fields: Vec<HiddenField>,
    key: hmac::Key,
    /// Whether what is a hash already stays as it is.
    keeps_hashes: bool,
}

/// What is left of a path below an object.
type Rest<'a> = (&'a str, Treatment);

/// What is left of a path below the key `name`; empty if the key itself is meant. `a.b.c` has the keys `a`, `b`, `c`, but also the key
/// `a.b` and in it `c`, and so on: JSON permits dots in keys.
fn below<'a>((path, treatment): &Rest<'a>, name: &str) -> Option<Rest<'a>> {
    let rest = path.strip_prefix(name)?;
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
    Some((rest, *treatment))
}

fn is_hash(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Rules {
    /// A document or a body without what is hidden, as a worker stores it: for whoever shows one. `None` if it is too large then.
    pub fn hide(&self, document: Document) -> Option<Document> {
        let Some(privacy) = Privacy::new(self) else { return Some(document) };
        let document = RawDocumentBuf::try_from(&document).ok()?;
        Document::from_reader(&*privacy.apply(document.as_bytes())?).ok()
    }

    /// A stored document without what is hidden now, for whoever shows one: it may be older than these rules. What is a hash already stays
    /// as it is. `None` if it is too large then.
    pub fn hide_stored(&self, document: &[u8]) -> Option<Vec<u8>> {
        match Privacy::new(self) {
            Some(privacy) => Privacy { keeps_hashes: true, ..privacy }.apply(document),
            None => Some(document.to_vec()),
        }
    }
}

impl Privacy {
    /// `None` if nothing is hidden.
    pub fn new(rules: &Rules) -> Option<Privacy> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rules.mask_key.0);
        (!rules.hidden_fields.is_empty()).then(|| Privacy {
            fields: rules.hidden_fields.clone(),
            key,
            keeps_hashes: false,
        })
    }

    /// The document without what is hidden. `None` if it would become larger than MongoDB permits: a mask may be longer than the value.
    pub fn apply(&self, document: &[u8]) -> Option<Vec<u8>> {
        let rests: Vec<Rest> = self.fields.iter().map(|field| (field.path.as_str(), field.treatment)).collect();
        let document = RawDocument::from_bytes(document).ok()?;
        Some(self.object(document, &rests)?.into_bytes())
    }

    fn object(&self, document: &RawDocument, rests: &[Rest]) -> Option<RawDocumentBuf> {
        let mut kept = RawDocumentBuf::new();
        for element in document {
            let (name, value) = element.ok()?;
            let below: Vec<Rest> = rests.iter().filter_map(|rest| below(rest, name.as_str())).collect();
            match below.iter().find(|(rest, _)| rest.is_empty()) {
                Some((_, Treatment::Drop)) => {}
                Some((_, Treatment::Mask)) => kept.append(name, self.mask(value)),
                None if below.is_empty() => kept.append(name, value),
                None => kept.append(name, self.value(value, &below)?),
            }
            if kept.as_bytes().len() > MAX_DOCUMENT_BYTES {
                return None;
            }
        }
        Some(kept)
    }

    fn value(&self, value: RawBsonRef, rests: &[Rest]) -> Option<RawBson> {
        Some(match value {
            RawBsonRef::Document(document) => RawBson::Document(self.object(document, rests)?),
            RawBsonRef::Array(array) => RawBson::Array(self.array(array, rests)?),
            other => other.into(),
        })
    }

    fn array(&self, array: &RawArray, rests: &[Rest]) -> Option<RawArrayBuf> {
        let mut kept = RawArrayBuf::new();
        for element in array {
            kept.push(self.value(element.ok()?, rests)?);
            if kept.as_bytes().len() > MAX_DOCUMENT_BYTES {
                return None;
            }
        }
        Some(kept)
    }

    /// Of a text, the hash is that of its UTF-8; of another value, that of the BSON document with this value under the empty name.
    fn mask(&self, value: RawBsonRef) -> RawBson {
        let hash = match value {
            RawBsonRef::Null => return RawBson::Null,
            RawBsonRef::String(text) if self.keeps_hashes && is_hash(text) => return RawBson::String(text.to_owned()),
            RawBsonRef::String(text) => hmac::sign(&self.key, text.as_bytes()),
            other => {
                let mut document = RawDocumentBuf::new();
                document.append(bson::raw::cstr!(""), other);
                hmac::sign(&self.key, document.as_bytes())
            }
        };
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in hash.as_ref() {
            text.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16)));
        }
        RawBson::String(text)
    }
}

#[cfg(test)]
mod tests {
    use bson::{Bson, doc};
    use proptest::prelude::*;

    use super::super::{Decoder, Message};
    use super::*;

    fn rules(drop: &[&str], mask: &[&str]) -> Rules {
        let hidden = |treatment| move |path: &&str| HiddenField { path: (*path).to_owned(), treatment };
        let hidden_fields = drop.iter().map(hidden(Treatment::Drop)).chain(mask.iter().map(hidden(Treatment::Mask)));
        Rules { hidden_fields: hidden_fields.collect(), mask_key: MaskKey(b"key".to_vec()), ..Rules::default() }
    }

    fn decode(rules: Rules, body: &str) -> (bson::oid::ObjectId, Document) {
        let message = Message { body: body.as_bytes(), message_id: Some("m"), ..Message::default() };
        let event = Decoder::new(rules.into()).decode(&message, || [0; 12]).unwrap();
        let mut document = Document::try_from(event.document).unwrap();
        let id = document.remove("_id").unwrap().as_object_id().unwrap();
        assert_eq!(id.bytes(), event.id);
        (id, document)
    }

    #[test]
    fn a_key_with_dots_in_it_is_hidden_and_a_document_that_grows_too_large_is_rejected() {
        let body = r#"{"a.b":1,"x":{"a.b":2,"c.d":3},"kept":4}"#;
        let kept = doc! { "x": { "a.b": 2 }, "kept": 4 };
        assert_eq!(decode(rules(&["a.b", "x.c.d"], &[]), body).1, kept);
        let body = r#"{"a.b":{"c":1,"d":2},"a":[{"b.c":3,"b":[{"c":4},5]}],"a.b.c":6,"a.":{"b.c":7},"ab":{"c":8},"":{"a.b.c":9}}"#;
        let kept = doc! { "a.b": { "d": 2 }, "a": [{ "b": [{}, 5] }], "a.": { "b.c": 7 }, "ab": { "c": 8 }, "": { "a.b.c": 9 } };
        assert_eq!(decode(rules(&["a.b.c"], &[]), body).1, kept);
        let body = format!("{{\"a\":[{}]}}", vec![r#"{"c":1}"#; 300_000].join(","));
        let message = Message { body: body.as_bytes(), ..Message::default() };
        let rejection = Decoder::new(rules(&[], &["a.c"]).into()).decode(&message, || [0; 12]).unwrap_err();
        assert_eq!(rejection.reason, super::super::Reason::TooLarge);
    }

    #[test]
    fn what_is_shown_is_hidden_as_what_is_stored() {
        let body = doc! { "card": "4111", "user_id": 7, "kept": { "card": "4111", "$oid": "x" } };
        let hidden = rules(&["card"], &["user_id"]).hide(body.clone()).unwrap();
        let (_, stored) = decode(rules(&[], &["user_id"]), r#"{"user_id":7}"#);
        let expected = doc! { "user_id": stored.get_str("user_id").unwrap(), "kept": { "card": "4111", "$oid": "x" } };
        assert_eq!(hidden, expected);
        assert_eq!(Rules::default().hide(body.clone()), Some(body));
    }

    #[test]
    fn what_was_stored_before_it_was_hidden_is_hidden_and_a_hash_stays() {
        let rules = rules(&["payment.card"], &["uuid", "items.pan"]);
        let hide = |document: Document| {
            let document = RawDocumentBuf::try_from(&document).unwrap();
            Document::from_reader(&*rules.hide_stored(document.as_bytes()).unwrap()).unwrap()
        };
        let older = doc! { "uuid": "u-1", "payment": { "card": "4111", "kept": 1 }, "items": [{ "pan": 4111 }, 2] };
        let hidden = hide(older);
        let text = hidden.to_string();
        assert!(!text.contains("4111") && !text.contains("u-1") && text.contains("kept"), "{text}");
        assert_eq!(hide(hidden.clone()), hidden, "the hash is not hashed again");
        let forged = hide(doc! { "uuid": "hmac-sha256:4111" });
        assert!(is_hash(forged.get_str("uuid").unwrap()), "{forged}");
    }

    const BODY: &str = r#"{"user_id":7,"uuid":"u","card":"4111","n":5,"z":null,
        "payment":{"card":"4111","pan":{"last":1},"kept":true},"items":[{"card":"1","a":1},2,[{"card":"2"}]]}"#;

    #[test]
    fn dropped_fields_are_not_stored_also_in_objects_and_arrays() {
        let (id, document) =
            decode(rules(&["card", "payment.card", "payment.pan", "items.card", "none.at.all"], &[]), BODY);
        let items = vec![Bson::from(doc! { "a": 1 }), Bson::from(2), Bson::from(vec![Bson::from(doc! {})])];
        let kept = doc! { "user_id": 7, "uuid": "u", "n": 5, "z": null, "payment": { "kept": true }, "items": items };
        assert_eq!(document, kept);
        assert_ne!(
            id,
            decode(rules(&["card"], &[]), &BODY.replace("4111", "4112")).0,
            "the identity is that of the original"
        );
        assert_ne!(id, decode(Rules::default(), BODY).0, "who knows the rest cannot find the card by trying");
        let other_key = Rules { mask_key: MaskKey(b"other".to_vec()), ..rules(&["card"], &[]) };
        assert_ne!(id, decode(other_key, BODY).0);
    }

    #[test]
    fn masked_fields_are_keyed_hashes() {
        let (_, document) = decode(rules(&[], &["card", "payment.card", "n", "z", "uuid"]), BODY);
        // printf 4111 | openssl dgst -sha256 -hmac key
        let card = "hmac-sha256:af7765bc688fb399e2b836cf292efba8dd997bb9e980d584c5d01fd7d187bf10";
        assert_eq!(document.get_str("card").unwrap(), card);
        assert_eq!(document.get_document("payment").unwrap().get_str("card").unwrap(), card);
        assert_eq!((document.get("z"), document.get("user_id")), (Some(&Bson::Null), Some(&Bson::Int32(7))));
        assert!(document.get_str("n").unwrap().len() == 76 && document.get_str("uuid").unwrap() != "u");
        let other_key = Rules { mask_key: MaskKey(b"other".to_vec()), ..rules(&[], &["card"]) };
        assert_ne!(decode(other_key, BODY).1.get_str("card").unwrap(), card);
        assert_eq!(format!("{:?}", MaskKey(b"secret".to_vec())), "MaskKey");
    }

    /// JSON whose keys are made of a few letters and dots, so that paths are often met.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = Just(serde_json::json!(1));
        leaf.prop_recursive(4, 40, 4, |inner| {
            let key = prop::sample::select(&["a", "b", "c", "a.b", "b.c", "a.b.c", "a.", ".c", "", "x"][..]);
            let object = prop::collection::vec((key, inner.clone()), 0..4);
            let object =
                object.prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
            prop_oneof![
                object.prop_map(serde_json::Value::Object),
                prop::collection::vec(inner, 0..3).prop_map(Into::into)
            ]
        })
    }

    /// The paths of all values; arrays are no part of a path.
    fn paths(value: &Bson, path: &[String], found: &mut Vec<String>) {
        match value {
            Bson::Document(document) => document.iter().for_each(|(key, value)| {
                let path = [path, std::slice::from_ref(key)].concat();
                found.push(path.join("."));
                paths(value, &path, found);
            }),
            Bson::Array(array) => array.iter().for_each(|value| paths(value, path, found)),
            _ => {}
        }
    }

    proptest! {
        /// What is hidden has no path left that spells its name, however the name is split into keys; everything else is kept.
        #[test]
        fn no_split_of_a_path_into_keys_is_left(value in json()) {
            let body = serde_json::json!({ "a": value, "a.b": value, "x": value }).to_string();
            let all = |drop: &[&str]| {
                let mut found = Vec::new();
                paths(&Bson::Document(decode(rules(drop, &[]), &body).1), &[], &mut found);
                found
            };
            let is_hidden = |path: &String| path == "a.b.c" || path.starts_with("a.b.c.");
            prop_assert_eq!(all(&["a.b.c"]), all(&[]).into_iter().filter(|path| !is_hidden(path)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_required_field_may_be_dropped_but_not_absent() {
        let mut required = rules(&["status"], &[]);
        required.fields.iter_mut().for_each(|field| field.required = field.name == "status");
        assert_eq!(decode(required.clone(), r#"{"status":"x","status":"y"}"#).1, doc! {});
        let message = Message { body: b"{}", ..Message::default() };
        assert!(Decoder::new(required.into()).decode(&message, || [0; 12]).is_err());
    }
}
