//! The marked event of a smoke test: what is published, what must become of it, and recognising it where it was stored.
//!
//! Everything about it follows from its mark. So what a killed run has left is known again by rebuilding the event from the mark and
//! comparing the whole: an event of others that only has the same words in it is not one.

use std::sync::Arc;

use bson::RawDocument;
use bson::oid::ObjectId;
use serde_json::{Map, Value, json};

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Address, Decoder, Event, FieldKind, Message, Rejection, Rules, same_event};
use ticketlog_rabbitmq::Outgoing;

/// The field that has the mark; also the `app_id`, and what message ids begin with.
pub(super) const NAME: &str = "ticketlog-check";
/// The `user_id`, by which the readers' index finds the events: no id, and nothing that a placeholder or an overflow makes of one.
const USER: i32 = -1_414_284_107;

/// One marked event, by its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkedEvent(ObjectId);

/// How the events of a route are published and stored.
pub(super) struct Shape {
    rules: Arc<Rules>,
    exchange: String,
    /// A routing key that the route takes.
    pub routing_key: String,
}

impl MarkedEvent {
    /// With a mark that no other has.
    pub fn new() -> Self {
        MarkedEvent(ObjectId::new())
    }

    pub fn mark(self) -> String {
        self.0.to_hex()
    }

    pub fn message_id(self) -> String {
        format!("{NAME}-{}", self.mark())
    }

    fn of_mark(mark: &str) -> Option<Self> {
        ObjectId::parse_str(mark).ok().map(MarkedEvent).filter(|event| event.mark() == mark)
    }

    /// The event that a message has been made of, by its `message_id`.
    pub fn of_message_id(id: &str) -> Option<Self> {
        MarkedEvent::of_mark(id.strip_prefix(NAME)?.strip_prefix('-')?)
    }

    /// A body that no settings accept: its object has no end.
    pub fn malformed_body(self) -> Vec<u8> {
        format!("{{\"{NAME}\":\"{}\",", self.mark()).into_bytes()
    }

    fn seconds(self) -> u64 {
        self.0.timestamp().timestamp_millis().unsigned_abs() / 1000
    }

    /// A value that the field accepts.
    fn value(self, field: &str, kind: FieldKind) -> Value {
        match (field, kind) {
            ("timestamp", _) => json!(self.seconds() * 1000),
            ("user_id", _) => json!(USER),
            (_, FieldKind::Number) => json!(1),
            // Not the message_id: a copy of the body alone has another identity.
            ("uuid", _) => json!(self.mark()),
            ("status", _) => json!("success"),
            _ => json!(NAME),
        }
    }
}

impl Shape {
    pub fn of(settings: &RouteSettings) -> Self {
        Shape {
            rules: Arc::new(settings.rules()),
            exchange: settings.broker.exchange.clone(),
            routing_key: settings.routing_keys.first().map(|pattern| key_for(pattern)).unwrap_or_default(),
        }
    }

    /// The body: the fields that readers ask for, and those that the settings require.
    pub fn body(&self, event: MarkedEvent) -> Vec<u8> {
        let configured = self.rules.fields.iter().filter(|field| field.required);
        let usual = ["user_id", "timestamp", "uuid", "status"].map(|name| (name, self.kind(name)));
        let all = usual.into_iter().chain(configured.map(|field| (field.name.as_str(), field.kind)));
        let mut body: Map<String, Value> = all.map(|(name, kind)| (name.to_owned(), event.value(name, kind))).collect();
        body.insert("operation_type".to_owned(), json!(NAME));
        body.insert(NAME.to_owned(), json!(event.mark()));
        Value::Object(body).to_string().into_bytes()
    }

    fn kind(&self, name: &str) -> FieldKind {
        self.rules.fields.iter().find(|field| field.name == name).map_or(FieldKind::Any, |field| field.kind)
    }

    /// The message with one of the event's bodies, published by this user.
    pub fn outgoing(&self, event: MarkedEvent, body: Vec<u8>, user: Option<&str>) -> Outgoing {
        let id = event.message_id();
        Outgoing::event(&self.exchange, &self.routing_key, Some(&id), event.seconds(), body)
            .with_app_id(NAME)
            .marked_as_smoke_test(user)
    }

    /// What a worker with these settings stores.
    ///
    /// # Errors
    /// It rejects the event.
    pub fn expected(&self, event: MarkedEvent) -> Result<Event, Rejection> {
        let (id, body) = (event.message_id(), self.body(event));
        let message = Message {
            address: Some(Address { exchange: &self.exchange, routing_key: &self.routing_key }),
            body: &body,
            message_id: Some(&id),
            timestamp: Some(event.seconds()),
            app_id: Some(NAME),
            ..Message::default()
        };
        Decoder::new(Arc::clone(&self.rules)).decode(&message, || [0; 12])
    }

    /// The marked event that this document was made of; `None` if it is not exactly what a worker makes of one.
    pub fn event_of(&self, document: &RawDocument) -> Option<MarkedEvent> {
        let event = MarkedEvent::of_mark(document.get_str(NAME).ok()?)?;
        let expected = self.expected(event).ok()?;
        same_event(expected.document.as_bytes(), document.as_bytes()).then_some(event)
    }
}

/// A routing key that a binding with this pattern matches.
fn key_for(pattern: &str) -> String {
    let word = |word| if matches!(word, "*" | "#") { "check" } else { word };
    pattern.split('.').map(word).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bson::rawdoc;
    use proptest::prelude::*;

    use super::*;
    use ticketlog_contract::{
        Field, HiddenField, MaskKey, Treatment, add_ingested_at, binding_matches, different_fields,
    };

    fn shape(rules: Rules) -> Shape {
        Shape { rules: Arc::new(rules), exchange: "x".to_owned(), routing_key: "ticket.check".to_owned() }
    }

    #[test]
    fn what_a_worker_stores_of_an_event_is_recognised_and_nothing_else_is() {
        let hidden = |path: &str, treatment| HiddenField { path: path.to_owned(), treatment };
        let hidden_fields = vec![hidden("user_id", Treatment::Mask), hidden("status", Treatment::Drop)];
        let field = |name: &str, kind| Field { name: name.to_owned(), kind, required: true };
        let fields = vec![
            field("uuid", FieldKind::Number),
            field("user_id", FieldKind::String),
            field("fare", FieldKind::Number),
            field("shop", FieldKind::Any),
        ];
        for rules in [
            Rules::default(),
            Rules { hidden_fields, mask_key: MaskKey(b"0123456789abcdef".to_vec()), ..Rules::default() },
            Rules { fields, add_ingested_at: true, ..Rules::default() },
        ] {
            let shape = shape(rules);
            let event = MarkedEvent::new();
            let mut stored = shape.expected(event).unwrap().document;
            assert_eq!(shape.event_of(&stored), Some(event));
            if shape.rules.add_ingested_at {
                add_ingested_at(&mut stored, 1);
                assert_eq!(shape.event_of(&stored), Some(event));
            }
            let mut other = stored.clone();
            other.append(bson::raw::cstr!("more"), 1);
            assert_eq!(shape.event_of(&other), None);
            assert_eq!(different_fields(stored.as_bytes(), other.as_bytes()), BTreeSet::from(["more".to_owned()]));
        }
    }

    #[test]
    fn an_event_of_others_with_the_same_words_is_not_one() {
        let shape = shape(Rules::default());
        let event = MarkedEvent::new();
        let own = shape.expected(event).unwrap();
        // The same body under another message_id, so that only the `_id` is another.
        let (body, id) = (shape.body(event), MarkedEvent::new().message_id());
        let message = Message { body: &body, message_id: Some(&id), ..Message::default() };
        let foreign = Decoder::new(Arc::clone(&shape.rules)).decode(&message, || [0; 12]).unwrap();
        let different = different_fields(own.document.as_bytes(), foreign.document.as_bytes());
        assert_eq!(different, BTreeSet::from(["_id".to_owned()]));
        assert_eq!(shape.event_of(&foreign.document), None);
        assert_eq!(shape.event_of(&rawdoc! { "ticketlog-check": event.mark(), "user_id": USER }), None);
        assert_eq!(MarkedEvent::of_message_id(&event.message_id()), Some(event));
        for id in ["ticketlog-check", "ticketlog-check-", "ticketlog-check-zz", "m-1"] {
            assert_eq!(MarkedEvent::of_message_id(id), None);
        }
    }

    #[test]
    fn no_settings_accept_the_malformed_body() {
        let body = MarkedEvent::new().malformed_body();
        let mut decoder = Decoder::new(Arc::new(Rules { fields: Vec::new(), ..Rules::default() }));
        let rejection = decoder.decode(&Message { body: &body, ..Message::default() }, || [0; 12]).unwrap_err();
        assert_eq!(rejection.reason.as_str(), "invalid_json");
    }

    proptest! {
        #[test]
        fn the_routing_key_is_one_of_the_route(
            words in prop::collection::vec(prop::sample::select(vec!["ticket", "b", "*", "#"]), 1..5),
        ) {
            let pattern = words.join(".");
            prop_assert!(binding_matches(&pattern, &key_for(&pattern)));
        }
    }
}
