//! The receipt of a dead letter: what its publisher is told. It has neither the body nor a value of it.

use serde_json::json;

use super::headers::{MAX_DETAIL_BYTES, MAX_TEXT_BYTES, Origin, fingerprint, one_line};
use crate::Rejection;

/// The publisher in the routing key of a message that names none.
const UNKNOWN: &str = "unknown";
const PREFIX: &str = "rejected.";

/// A receipt as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// `rejected.PUBLISHER.REASON`: three words, at most 255 bytes.
    pub routing_key: String,
    /// JSON, at most about 10 KiB.
    pub body: String,
    /// The `dl-id`.
    pub id: String,
    /// Milliseconds since 1970.
    pub time: i64,
}

/// The receipt of a dead letter with this id. `publisher` is its `app_id`, or else its `user_id`; empty if it has neither.
pub fn receipt(
    rejection: &Rejection,
    origin: &Origin,
    (id, time): (&str, i64),
    publisher: &str,
    message_id: Option<&str>,
) -> Receipt {
    let text = |text: &str| one_line(text, MAX_TEXT_BYTES);
    let (exchange, routing_key) = origin.published_to();
    let body = json!({
        "dl_id": id,
        "publisher": Some(text(publisher)).filter(|name| !name.is_empty()),
        "message_id": message_id,
        "reason": rejection.reason.as_str(),
        "field": rejection.field.as_deref().map(text),
        "code": rejection.code,
        "detail": one_line(&rejection.detail, MAX_DETAIL_BYTES),
        "fingerprint": fingerprint(rejection),
        "time": time,
        "trace_id": origin.trace_id,
        "exchange": exchange,
        "routing_key": routing_key,
    });
    let routing_key = receipt_key(publisher, rejection.reason.as_str());
    Receipt { routing_key, body: body.to_string(), id: id.to_owned(), time }
}

/// The routing key. Of the publisher, letters and digits of any script, `-` and `_` stay, and `_` stands for each other character: a dot
/// would begin another word, and `*` and `#` mean something in a binding.
fn receipt_key(publisher: &str, reason: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = publisher.chars().map(safe).collect();
    let room = MAX_TEXT_BYTES.saturating_sub(PREFIX.len() + 1 + reason.len());
    let name = name.get(..name.floor_char_boundary(room)).unwrap_or_default();
    format!("{PREFIX}{}.{reason}", if name.is_empty() { UNKNOWN } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn the_key_has_three_words_and_fits_into_a_short_string() {
        for (publisher, expected) in [
            ("shop", "rejected.shop.too_deep"),
            ("", "rejected.unknown.too_deep"),
            ("ticket-shop_2", "rejected.ticket-shop_2.too_deep"),
            ("shop.eu", "rejected.shop_eu.too_deep"),
            ("#", "rejected._.too_deep"),
            (" *\r\n\u{0}\u{202e}", "rejected.______.too_deep"),
            ("Кассы", "rejected.Кассы.too_deep"),
        ] {
            assert_eq!(receipt_key(publisher, "too_deep"), expected);
        }
        for long in ["x".repeat(255), "é".repeat(127)] {
            let key = receipt_key(&long, "unexpected_routing_key");
            assert!((253..=255).contains(&key.len()) && key.ends_with(".unexpected_routing_key"), "{key}");
        }
    }

    #[test]
    fn a_receipt_says_what_is_wrong_with_which_message() {
        let origin = Origin {
            exchange: "tickets",
            routing_key: "ticket.buy",
            replay: None,
            queue: "q",
            worker: "w",
            user_id: None,
            trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
        };
        let rejection = Rejection::of_field(Reason::InvalidField, "user_id", "user_id expects a Number");
        let made = receipt(&rejection, &origin, ("0a", 1000), "shop", Some("m-1"));
        assert_eq!(made.routing_key, "rejected.shop.invalid_field");
        let body: serde_json::Value = serde_json::from_str(&made.body).unwrap();
        let expected = json!({
            "dl_id": "0a", "publisher": "shop", "message_id": "m-1", "reason": "invalid_field", "field": "user_id", "code": null,
            "detail": "user_id expects a Number", "fingerprint": fingerprint(&rejection), "time": 1000,
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "exchange": "tickets", "routing_key": "ticket.buy",
        });
        assert_eq!(body, expected);
    }
}
