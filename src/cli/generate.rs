//! Owns generating messages: realistic ticket operations, and malformed messages of many kinds. Deterministic for a seed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// The operations and their weights.
const OPERATIONS: [(&str, u32); 8] = [
    ("activate", 40),
    ("purchase", 25),
    ("refresh", 15),
    ("validate", 8),
    ("transfer", 4),
    ("refund", 3),
    ("cancel", 3),
    ("expire", 2),
];
const ROUTES: [&str; 8] = [
    "Red Line",
    "Blue Line",
    "Route 66",
    "Harbor Ferry",
    "Airport Express",
    "Night Bus N7",
    "Überlandlinie 4",
    "中央線",
];
const PRODUCTS: [&str; 5] = ["single", "day_pass", "week_pass", "month_pass", "ten_trip"];
const APPS: [&str; 4] = ["ios/7.2.0", "ios/7.1.3", "android/7.2.1", "web/2026.10"];
const ERRORS: [&str; 4] = ["card_declined", "device_limit", "pass_expired", "upstream_timeout"];

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedMessage {
    /// `ticket.<operation>`.
    pub routing_key: String,
    /// Unique to the operation, and the same for the same seed.
    pub message_id: String,
    /// JSON, unless it is malformed.
    pub body: Vec<u8>,
    /// AMQP property.
    pub content_encoding: Option<&'static str>,
    /// Whether the decoder must reject it.
    pub malformed: bool,
}

/// An endless source of messages.
pub struct Generator {
    random: StdRng,
    users: f64,
    malformed: f64,
    millis: u64,
}

impl Generator {
    /// `users` is the number of distinct users, of which a few are very busy; `malformed` the share of malformed messages, 0 to 1;
    /// `start_millis` the time of the first event.
    pub fn new(seed: u64, users: u32, malformed: f64, start_millis: u64) -> Self {
        let users = f64::from(users.max(1));
        Generator { random: StdRng::seed_from_u64(seed), users, malformed, millis: start_millis }
    }

    /// Sets the time of the next operation, to within 20 milliseconds.
    pub fn set_clock(&mut self, millis: u64) {
        self.millis = millis.saturating_sub(20);
    }

    /// The time of the last operation.
    pub fn millis(&self) -> u64 {
        self.millis
    }

    /// The next message.
    pub fn next_message(&mut self) -> GeneratedMessage {
        self.millis += self.random.random_range(0..20);
        let operation =
            OPERATIONS.choose_weighted(&mut self.random, |(_, weight)| *weight).map_or("activate", |(name, _)| *name);
        let uuid = self.uuid();
        let event = self.event(operation, &uuid);
        let mut message = GeneratedMessage {
            routing_key: format!("ticket.{operation}"),
            message_id: uuid,
            body: event.to_string().into_bytes(),
            content_encoding: None,
            malformed: false,
        };
        if self.malformed > 0.0 && self.random.random_bool(self.malformed.min(1.0)) {
            self.make_malformed(&mut message, event);
        }
        message
    }

    /// RFC 9562, version 4.
    fn uuid(&mut self) -> String {
        let (a, b): (u64, u64) = (self.random.random(), self.random.random());
        let (high, version) = (a >> 32, (a >> 16) & 0xffff);
        format!(
            "{high:08x}-{version:04x}-4{:03x}-{:04x}-{:012x}",
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    fn event(&mut self, operation: &str, uuid: &str) -> Value {
        // A user is twice as busy as one with twice the number (Zipf's law).
        let user = 100_000 + (self.users + 1.0).powf(self.random.random::<f64>()) as u64;
        let random = &mut self.random;
        let pick = |random: &mut StdRng, from: &[&'static str]| from.choose(random).copied().unwrap_or_default();
        let status = if random.random_bool(0.94) { "success" } else { "failed" };
        let mut event = json!({
            "user_id": user,
            "timestamp": self.millis,
            "uuid": uuid,
            "status": status,
            "operation_type": operation,
            "ticket_details": {
                "ticket_id": format!("T{:09}", random.random_range(0..1_000_000_000u32)),
                "route": pick(random, &ROUTES),
                "product": pick(random, &PRODUCTS),
                "fare": f64::from(random.random_range(100..12_000u32)) / 100.0,
                "zones": [random.random_range(1..4u8), random.random_range(4..8u8)],
            },
            "app": pick(random, &APPS),
        });
        if let Some(object) = event.as_object_mut() {
            if status == "failed" {
                object.insert(
                    "error".to_owned(),
                    json!({ "code": pick(random, &ERRORS), "retryable": random.random::<bool>() }),
                );
            }
            if operation == "purchase" {
                object.insert(
                    "payment".to_owned(),
                    json!({ "method": pick(random, &["card", "wallet", "voucher"]), "currency": "USD" }),
                );
            }
        }
        event
    }

    /// Makes a message malformed in a random way.
    fn make_malformed(&mut self, message: &mut GeneratedMessage, mut event: Value) {
        message.malformed = true;
        let mut text = message.body.clone();
        match self.random.random_range(0..19) {
            0 => text.clear(),
            1 => text.truncate(text.len() / 2),
            2 => text.extend_from_slice(b",}"),
            3 => text = [b"[".as_slice(), &text, b"]"].concat(),
            4 => text = b"null".to_vec(),
            5 => text.insert(text.iter().rposition(|byte| *byte == b'"').unwrap_or_default(), 0xff),
            6 => text = text.iter().flat_map(|byte| [*byte, 0]).collect(),
            7 => text = format!("{{\"deep\":{}1{}}}", "[".repeat(70), "]".repeat(70)).into_bytes(),
            8 => text = b"{\"user_id\":\"not a number\",\"status\":\"success\"}".to_vec(),
            9 => set_key(&mut text, &mut event, "timestamp", json!("2026-11-22T10:00:00Z")),
            10 => set_key(&mut text, &mut event, "uuid", json!([1, 2])),
            11 => set_key(&mut text, &mut event, "_id", json!("not-an-object-id")),
            12 => set_key(&mut text, &mut event, "a\u{0}b", json!(1)),
            13 => text = b" \r\n".to_vec(),
            14 => text = b"{\"user_id\":NaN}".to_vec(),
            15 => text = b"{\"fare\":1e400}".to_vec(),
            16 => text = b"{\"status\":\"\\ud80\"}".to_vec(),
            17 => message.content_encoding = Some("gzip"),
            _ => message.content_encoding = Some("br"),
        }
        message.body = text;
    }
}

/// Sets a key of the event, which becomes the text.
fn set_key(text: &mut Vec<u8>, event: &mut Value, key: &str, value: Value) {
    if let Some(object) = event.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    *text = event.to_string().into_bytes();
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::sync::Arc;

    use super::*;
    use ticketlog_contract::{Decoder, Message, Rules};

    fn generate(seed: u64, malformed: f64, count: usize) -> Vec<GeneratedMessage> {
        let mut generator = Generator::new(seed, 1000, malformed, 1_700_000_000_000);
        (0..count).map(|_| generator.next_message()).collect()
    }

    #[test]
    fn the_same_seed_generates_the_same_messages() {
        assert_eq!(generate(7, 0.1, 200), generate(7, 0.1, 200));
        assert_ne!(generate(7, 0.1, 20), generate(8, 0.1, 20));
    }

    #[test]
    fn exactly_the_malformed_messages_are_rejected() {
        let mut decoder = Decoder::new(Arc::new(Rules::default()));
        let mut reasons = HashSet::new();
        for message in generate(1, 0.5, 2000) {
            let GeneratedMessage { body, content_encoding, malformed, .. } = message;
            let message = Message { body: &body, content_encoding, ..Message::default() };
            let result = decoder.decode(&message, || [0; 12]);
            assert_eq!(result.is_err(), malformed, "{:?}", String::from_utf8_lossy(&body));
            reasons.extend(result.err().map(|rejection| rejection.reason));
        }
        assert!(reasons.len() >= 9, "{reasons:?}");
    }

    #[test]
    fn users_are_unevenly_busy_and_ids_are_unique() {
        let messages = generate(3, 0.0, 3000);
        let mut users: HashMap<u64, usize> = HashMap::new();
        for message in &messages {
            let event: Value = serde_json::from_slice(&message.body).unwrap();
            *users.entry(event["user_id"].as_u64().unwrap()).or_default() += 1;
        }
        let busiest = users.values().max().unwrap();
        assert!(*busiest > 200 && users.len() > 200);
        assert_eq!(messages.iter().map(|message| &message.message_id).collect::<HashSet<_>>().len(), messages.len());
        let mean = messages.iter().map(|message| message.body.len()).sum::<usize>() / messages.len();
        assert!((240..340).contains(&mean), "{mean}");
    }
}
