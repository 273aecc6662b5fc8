//! What is known of an event that somebody looks for, and whether a dead letter may be it. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use bson::Bson;
use bson::oid::ObjectId;
use bson::raw::{RawDocument, RawDocumentBuf};

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Decoder, Identity, Message, Wanted, read_json};

use ticketlog_rabbitmq::Delivery;

use super::super::erase::USER_FIELD;
use super::super::field_search::{FieldSearch, Holds};
use super::super::reader::{DeadLetter, json_body};
use super::super::{readable_body, replayed_message};

/// The field that names an operation across systems.
pub(super) const UUID_FIELD: &str = "uuid";

/// What is known of an event. All that is set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// The `uuid` in its body is one of these; empty if it is not known.
    pub uuid: Vec<Wanted>,
    /// Its AMQP `message_id`, which is not stored.
    pub message_id: Option<String>,
    /// The `_id` of its document, or the `dl-id` of its dead letter: both have 24 hexadecimal digits.
    pub id: Option<ObjectId>,
    /// The `user_id` in its body.
    pub user: Option<Wanted>,
    /// Since when, in milliseconds since 1970: its `timestamp`; of a dead letter, when it was dead-lettered.
    pub since: Option<i64>,
    /// Its body as it was published, decompressed.
    pub body: Option<Vec<u8>>,
    /// Only dead letters of this publisher.
    pub publisher: Option<String>,
    /// At most this many documents of a route, and dead letters of a queue.
    pub limit: usize,
}

/// What a worker would make of the message that a search describes.
pub enum Expected {
    /// It would be stored.
    Document {
        /// Its `_id`.
        id: ObjectId,
        document: RawDocumentBuf,
        /// Why the `_id` may be another one; `None` if it is certain.
        doubt: Option<&'static str>,
    },
    /// It has no identity, so its `_id` is a fresh one.
    NoIdentity,
    /// It would be dead-lettered: the reason and the detail.
    Rejected(String),
}

impl Search {
    /// What a worker of a route would make of it; `None` if its body is not known.
    pub fn expected(&self, settings: &RouteSettings) -> Option<Expected> {
        let body = self.body.as_deref()?;
        let message = Message { body, message_id: self.message_id.as_deref(), ..Message::default() };
        Some(match Decoder::new(Arc::new(settings.rules())).decode(&message, || [0; 12]) {
            Ok(event) if event.identity == Identity::None => Expected::NoIdentity,
            Ok(event) => Expected::Document {
                id: ObjectId::from_bytes(event.id),
                doubt: match (event.identity, event.time, &self.message_id) {
                    (Identity::Body, ..) | (_, Some(_), Some(_)) => None,
                    (_, None, _) => {
                        Some("if its AMQP timestamp is set, its _id begins with that time, and cannot be computed")
                    }
                    (_, _, None) => Some("if it has an AMQP message_id, its _id is another: add --message-id"),
                },
                document: event.document,
            },
            Err(rejection) => Expected::Rejected(format!("{}: {}", rejection.reason_and_field(), rejection.detail)),
        })
    }

    /// Whether documents can be found by it: they do not have the `message_id`.
    pub fn selects_documents(&self) -> bool {
        self.id.is_some() || !self.uuid.is_empty() || self.user.is_some()
    }

    /// The forms of a `uuid` that a person means: as it was typed; and if it has the form of a UUID, in lower and in upper case.
    pub fn uuids(typed: &str) -> Vec<Wanted> {
        let is_uuid = typed.len() == 36
            && typed.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        let cases = [typed.to_ascii_lowercase(), typed.to_ascii_uppercase()];
        let all = cases.into_iter().filter(|_| is_uuid).chain([typed.to_owned()]);
        all.collect::<BTreeSet<String>>().iter().map(|text| Wanted::id(text)).collect()
    }

    /// What documents are searched by beside the `_id` of the body: the `uuid` in the body, unless another is given or the `_id` is certain.
    pub(super) fn of_documents(&self, expected: Option<&Expected>) -> Search {
        let mut search = self.clone();
        let is_certain = matches!(expected, Some(Expected::Document { doubt: None, .. }));
        if self.uuid.is_empty()
            && !is_certain
            && let Some(Bson::Document(body)) = self.body.as_deref().and_then(read_json)
        {
            search.uuid =
                body.get_str(UUID_FIELD).ok().filter(|uuid| !uuid.is_empty()).map(Wanted::id).into_iter().collect();
        }
        search
    }

    /// Whether a document has, instead of the user, a number that several ids above 2^53 become.
    pub(super) fn is_rounded(&self, document: &RawDocument) -> bool {
        let rounded = self.user.as_ref().and_then(Wanted::rounded);
        rounded.is_some_and(|rounded| document.get_f64(USER_FIELD).is_ok_and(|stored| stored == rounded))
    }
}

/// Whether a dead letter is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    /// Its body cannot be read, but has the text of the `uuid`.
    ByText,
    No,
    /// The decoder cannot tell, and why.
    Undecided(String),
}

/// Compares the dead letters of a route with a search.
pub(super) struct Matcher<'a> {
    search: &'a Search,
    settings: &'a RouteSettings,
    /// The values of each field, of which it has one; and whether a body that cannot be read is searched for their texts.
    fields: Vec<(Vec<OneValue<'a>>, bool)>,
    decoder: Decoder,
}

type OneValue<'a> = (FieldSearch<'a>, Decoder, &'a str);

/// Whether a dead letter has one of the values of a field.
fn holds_one(values: &mut [OneValue], delivery: &Delivery) -> Holds {
    let mut all = Holds::No;
    for (field, decoder, _) in values {
        match field.of(decoder, delivery) {
            Holds::Yes => return Holds::Yes,
            Holds::No => {}
            undecided => all = undecided,
        }
    }
    all
}

impl<'a> Matcher<'a> {
    pub fn new(search: &'a Search, settings: &'a RouteSettings) -> Matcher<'a> {
        // The digits of a user_id may be those of anything.
        let fields = [(UUID_FIELD, &*search.uuid, true), (USER_FIELD, search.user.as_slice(), false)];
        let fields = fields.into_iter().filter(|(_, all_wanted, _)| !all_wanted.is_empty());
        let fields = fields.map(|(field, all_wanted, is_by_text)| {
            let values = all_wanted.iter().map(|wanted| {
                let search = FieldSearch::new(settings, field, wanted);
                let decoder = search.decoder();
                (search, decoder, wanted.text())
            });
            (values.collect(), is_by_text)
        });
        Matcher { search, settings, fields: fields.collect(), decoder: Decoder::new(Arc::new(settings.rules())) }
    }

    pub fn compare(&mut self, dead_letter: &DeadLetter) -> Match {
        let DeadLetter { id, delivery, record, .. } = dead_letter;
        let search = self.search;
        let known = delivery.dead_letter_fields(record, id);
        let holds = search.since.is_none_or(|since| record.time.is_none_or(|time| time >= since))
            && search.publisher.as_deref().is_none_or(|publisher| known.publisher == Some(publisher))
            && search.message_id.as_deref().is_none_or(|id| known.message_id == Some(id))
            && search.id.is_none_or(|id| self.has_id(id, dead_letter));
        if !holds {
            return Match::No;
        }
        let body = readable_body(delivery, self.decoder.rules());
        if search.body.as_deref().is_some_and(|wanted| *wanted != *body) {
            return Match::No;
        }
        let mut found = Match::Yes;
        for (values, is_by_text) in &mut self.fields {
            match holds_one(values, delivery) {
                Holds::Yes => {}
                Holds::No => return Match::No,
                Holds::Undecided(_)
                    if *is_by_text && values.iter().any(|(.., text)| contains(&body, text.as_bytes())) =>
                {
                    found = Match::ByText;
                }
                Holds::Undecided(reason) => found = Match::Undecided(reason),
            }
        }
        match search.since.is_some() && record.time.is_none() {
            true => Match::Undecided("when it was dead-lettered is not known".to_owned()),
            false => found,
        }
    }

    /// Whether it is the `dl-id`, also that of the message's first dead letter, or the `_id` that it has or would get.
    fn has_id(&mut self, wanted: ObjectId, dead_letter: &DeadLetter) -> bool {
        let DeadLetter { id, delivery, record, .. } = dead_letter;
        let hex = wanted.to_hex();
        let is_own = |id: &str| id.eq_ignore_ascii_case(&hex);
        if is_own(id) || record.first_id.as_deref().is_some_and(is_own) {
            return true;
        }
        let message = replayed_message(self.settings, delivery, record, None);
        match self.decoder.decode(&message, || [0; 12]) {
            Ok(event) => event.identity != Identity::None && event.id == wanted.bytes(),
            Err(_) => match json_body(delivery, self.decoder.rules()) {
                Some(Bson::Document(body)) => body.get_str("_id").is_ok_and(is_own),
                _ => false,
            },
        }
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && body.windows(text.len()).any(|part| part == text)
}

#[cfg(test)]
mod tests {
    use ticketlog_config::load_text;
    use ticketlog_contract::dead_letter::DeadLetterRecord;

    use super::*;

    fn compare(search: &Search, body: &str) -> Match {
        compare_dated(search, body, None)
    }

    fn compare_dated(search: &Search, body: &str, time: Option<i64>) -> Match {
        let settings = load_text("f", "").unwrap().routes.remove(0);
        let delivery = Delivery::with_body(body);
        let record = DeadLetterRecord { time, ..delivery.record("work") };
        let dead_letter = DeadLetter { id: "0a".repeat(12), delivery, record, position: 1 };
        Matcher::new(search, &settings).compare(&dead_letter)
    }

    #[test]
    fn a_dead_letter_is_found_by_what_a_worker_would_store_or_by_its_text() {
        let uuid = Search { uuid: Search::uuids("6fe2-a"), ..Search::default() };
        assert_eq!(compare(&uuid, r#"{"uuid":"6fe2-a","timestamp":"x"}"#), Match::Yes);
        assert_eq!(compare(&uuid, r#"{"uuid":"6fe2-b","note":"6fe2-a"}"#), Match::No);
        assert_eq!(compare(&uuid, r#"{"uuid":"6fe2-a","note":"#), Match::ByText);
        assert_eq!(compare(&uuid, "{"), Match::Undecided("invalid_json".to_owned()));
        let both = Search { user: Some(Wanted::id("42")), ..uuid };
        assert_eq!(compare(&both, r#"{"uuid":"6fe2-a","user_id":" 42"}"#), Match::Yes);
        assert_eq!(compare(&both, r#"{"uuid":"6fe2-a","user_id":43}"#), Match::No);
        assert_eq!(compare(&both, r#"{"uuid":"6fe2-a","user_id":42"#), Match::Undecided("invalid_json".to_owned()));
    }

    #[test]
    fn a_uuid_is_found_in_lower_and_in_upper_case_and_other_texts_as_they_are() {
        let lower = "6fe2b0de-4f7c-4a10-a64b-3bd5cbf6ef0a";
        let upper = lower.to_uppercase();
        for typed in [lower, &upper] {
            let search = Search { uuid: Search::uuids(typed), ..Search::default() };
            assert_eq!(search.uuid.len(), 2);
            for sent in [lower, &upper] {
                assert_eq!(compare(&search, &format!("{{\"uuid\":\"{sent}\"}}")), Match::Yes);
                assert_eq!(compare(&search, &format!("{{\"uuid\":\"{sent}\"")), Match::ByText);
            }
            assert_eq!(compare(&search, "{\"uuid\":\"x\"}"), Match::No);
        }
        assert_eq!(Search::uuids("Order-17"), [Wanted::id("Order-17")]);
    }

    #[test]
    fn a_dead_letter_without_a_time_may_be_since_then() {
        let search = Search { uuid: Search::uuids("u"), since: Some(5), ..Search::default() };
        let of = |body: &str, time: Option<i64>| compare_dated(&search, body, time);
        assert_eq!((of("{\"uuid\":\"u\"}", Some(5)), of("{\"uuid\":\"u\"}", Some(4))), (Match::Yes, Match::No));
        assert!(matches!(of("{\"uuid\":\"u\"}", None), Match::Undecided(why) if why.contains("not known")));
        assert_eq!(of("{\"uuid\":\"v\"}", None), Match::No);
    }

    #[test]
    fn a_number_that_several_ids_become_is_not_certainly_the_user() {
        let is_rounded = |user: &str, stored: bson::Document| {
            let search = Search { user: Some(Wanted::id(user)), ..Search::default() };
            search.is_rounded(&RawDocumentBuf::try_from(&stored).unwrap())
        };
        let (id, double) = ("1234567890123456789", bson::doc! { "user_id": 1_234_567_890_123_456_768.0 });
        assert!(is_rounded(id, double.clone()) && !is_rounded("1234567890123456768", double));
        assert!(!is_rounded(id, bson::doc! { "user_id": 1_234_567_890_123_456_789_i64 }));
        assert!(!is_rounded(id, bson::doc! {}));
    }

    #[test]
    fn an_id_is_that_of_the_dead_letter_or_of_its_document() {
        let id = |hex: &str| Search { id: Some(hex.parse().unwrap()), ..Search::default() };
        assert_eq!(compare(&id(&"0a".repeat(12)), "["), Match::Yes);
        let given = "507f1f77bcf86cd799439011";
        assert_eq!(compare(&id(given), r#"{"_id":"507F1F77bcf86cd799439011"}"#), Match::Yes);
        assert_eq!(compare(&id(given), r#"{"_id":"507F1F77bcf86cd799439011","timestamp":"x"}"#), Match::Yes);
        assert_eq!(compare(&id(given), r#"{"a":1}"#), Match::No);
        assert_eq!(compare(&id(&"00".repeat(12)), r#"{"a":1}"#), Match::No, "a fresh _id is not known");
    }

    #[test]
    fn the_bytes_of_a_body_select_exactly_it() {
        let search = Search { body: Some(b"{\"a\":1}".to_vec()), ..Search::default() };
        assert_eq!((compare(&search, "{\"a\":1}"), compare(&search, "{\"a\": 1}")), (Match::Yes, Match::No));
        let settings = load_text("f", "").unwrap().routes.remove(0);
        assert!(matches!(search.expected(&settings), Some(Expected::NoIdentity)));
        let named = Search { message_id: Some("m-1".to_owned()), ..search };
        let Some(Expected::Document { id, doubt: Some(doubt), .. }) = named.expected(&settings) else {
            panic!("it has an identity")
        };
        assert!(doubt.contains("AMQP timestamp"), "{doubt}");
        assert_eq!(id.to_hex(), "457456dcb02e5a3fb7b5e6d1");
        let body = br#"{"uuid":"u-1","timestamp":1}"#.to_vec();
        let uuids = |search: &Search| search.of_documents(search.expected(&settings).as_ref()).uuid;
        let certain = Search { body: Some(body), ..named.clone() };
        assert_eq!(uuids(&certain), [], "its _id is certain");
        let unnamed = Search { message_id: None, ..certain };
        assert_eq!(uuids(&unnamed), [Wanted::id("u-1")], "it may have a message_id");
        let given = Search { uuid: Search::uuids("u-2"), ..unnamed };
        assert_eq!(uuids(&given), [Wanted::id("u-2")]);
        let bad = Search { body: Some(b"{".to_vec()), ..named };
        assert!(matches!(bad.expected(&settings), Some(Expected::Rejected(why)) if why.starts_with("invalid_json: ")));
    }
}
