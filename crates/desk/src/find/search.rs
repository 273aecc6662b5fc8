//! What is known of an event that somebody looks for, and whether a dead letter may be it. Pure.

use std::sync::Arc;

use bson::Bson;
use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Decoder, Identity, Message, Wanted};

use super::super::erase::USER_FIELD;
use super::super::field_search::{FieldSearch, Holds};
use super::super::reader::{DeadLetter, json_body};
use super::super::{readable_body, replayed_message};

/// The field that names an operation across systems.
pub(super) const UUID_FIELD: &str = "uuid";

/// What is known of an event. All that is set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// The `uuid` in its body.
    pub uuid: Option<Wanted>,
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
        /// Whether the body has a time, which is a part of the `_id`; or else the AMQP property `timestamp` is, which is not known.
        has_time: bool,
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
                has_time: event.time.is_some() || event.identity == Identity::Body,
                document: event.document,
            },
            Err(rejection) => Expected::Rejected(format!("{}: {}", rejection.reason_and_field(), rejection.detail)),
        })
    }

    /// Whether documents can be found by it: they do not have the `message_id`.
    pub fn selects_documents(&self) -> bool {
        self.id.is_some() || self.uuid.is_some() || self.user.is_some()
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
    fields: Vec<(FieldSearch<'a>, Decoder, Option<&'a str>)>,
    decoder: Decoder,
}

impl<'a> Matcher<'a> {
    pub fn new(search: &'a Search, settings: &'a RouteSettings) -> Matcher<'a> {
        // The digits of a user_id may be those of anything.
        let uuid = search.uuid.as_ref().map(|uuid| (UUID_FIELD, uuid, Some(uuid.text())));
        let user = search.user.as_ref().map(|user| (USER_FIELD, user, None));
        let fields = uuid.into_iter().chain(user).map(|(field, wanted, text)| {
            let search = FieldSearch::new(settings, field, wanted);
            let decoder = search.decoder();
            (search, decoder, text)
        });
        Matcher { search, settings, fields: fields.collect(), decoder: Decoder::new(Arc::new(settings.rules())) }
    }

    pub fn compare(&mut self, dead_letter: &DeadLetter) -> Match {
        let DeadLetter { id, delivery, record, .. } = dead_letter;
        let search = self.search;
        let known = delivery.dead_letter_fields(record, id);
        let holds = search.since.is_none_or(|since| record.time.is_some_and(|time| time >= since))
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
        for (field, decoder, text) in &mut self.fields {
            match field.of(decoder, delivery) {
                Holds::Yes => {}
                Holds::No => return Match::No,
                Holds::Undecided(_) if text.is_some_and(|text| contains(&body, text.as_bytes())) => {
                    found = Match::ByText;
                }
                Holds::Undecided(reason) => found = Match::Undecided(reason),
            }
        }
        found
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
    use ticketlog_rabbitmq::Delivery;

    use super::*;

    fn compare(search: &Search, body: &str) -> Match {
        let settings = load_text("f", "").unwrap().routes.remove(0);
        let delivery = Delivery::with_body(body);
        let record = delivery.record("work");
        let dead_letter = DeadLetter { id: "0a".repeat(12), delivery, record, position: 1 };
        Matcher::new(search, &settings).compare(&dead_letter)
    }

    #[test]
    fn a_dead_letter_is_found_by_what_a_worker_would_store_or_by_its_text() {
        let uuid = Search { uuid: Some(Wanted::id("6fe2-a")), ..Search::default() };
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
        let Some(Expected::Document { id, has_time: false, .. }) = named.expected(&settings) else {
            panic!("it has an identity")
        };
        assert_eq!(id.to_hex(), "457456dcb02e5a3fb7b5e6d1");
        let bad = Search { body: Some(b"{".to_vec()), ..named };
        assert!(matches!(bad.expected(&settings), Some(Expected::Rejected(why)) if why.starts_with("invalid_json: ")));
    }
}
