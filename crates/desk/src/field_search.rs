//! Whether a dead letter has a value in a top-level field: as the worker's own decoder would store it, or as it was sent.

use std::sync::Arc;

use bson::Bson;

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Decoder, Rules, Wanted};
use ticketlog_rabbitmq::Delivery;

use super::reader::json_body;

/// Whether a dead letter has the value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// The decoder cannot tell, and why.
    Undecided(String),
}

/// A value of a field.
pub(super) struct FieldSearch<'a> {
    field: &'static str,
    wanted: &'a Wanted,
    rules: Rules,
}

impl<'a> FieldSearch<'a> {
    /// With the casts of these settings.
    pub fn new(settings: &RouteSettings, field: &'static str, wanted: &'a Wanted) -> FieldSearch<'a> {
        // An event that is nested too deep has its fields all the same. What is hidden is hidden later.
        let rules = Rules { max_depth: usize::MAX, add_ingested_at: false, ..settings.rules() };
        FieldSearch { field, wanted, rules }
    }

    pub fn decoder(&self) -> Decoder {
        Decoder::new(Arc::new(self.rules.clone()))
    }

    /// Whether this one has it.
    pub fn of(&self, decoder: &mut Decoder, delivery: &Delivery) -> Holds {
        let field = self.field;
        let stored = decoder.field(&delivery.message(), field);
        // As it was sent, it may be exactly the value although the worker would not store it, or not exactly.
        let is_sent = || match json_body(delivery, &self.rules) {
            Some(Bson::Document(body)) => body.get(field).is_some_and(|sent| self.wanted.matches(sent)),
            _ => false,
        };
        match stored {
            Ok(Some(stored)) if self.wanted.matches(&stored) => Holds::Yes,
            Ok(Some(Bson::Double(stored))) if self.wanted.rounded() == Some(stored) => match is_sent() {
                true => Holds::Yes,
                false => Holds::Undecided(format!("{field} is a number that several ids become")),
            },
            Ok(_) => Holds::No,
            Err(_) if is_sent() => Holds::Yes,
            Err(rejection) => Holds::Undecided(rejection.reason_and_field()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticketlog_config::load_text;

    fn owner(settings: &RouteSettings, user: &str, body: &str) -> Holds {
        let user = Wanted::id(user);
        let search = FieldSearch::new(settings, "user_id", &user);
        search.of(&mut search.decoder(), &Delivery::with_body(body))
    }

    #[test]
    fn a_dead_letter_is_the_users_if_the_worker_would_store_it_under_the_id() {
        let settings = load_text("f", "[event]\nmax_depth = 2").unwrap().routes.remove(0);
        let undecided = |reason: &str| Holds::Undecided(reason.to_owned());
        let snowflake = "1234567890123456789";
        for (user, body, expected) in [
            ("42", r#"{"user_id":42}"#, Holds::Yes),
            ("42", r#"{"user_id":42.0}"#, Holds::Yes),
            ("42", r#"{"user_id":4.2e1}"#, Holds::Yes),
            ("42", r#"{"user_id":" 42"}"#, Holds::Yes),
            ("42", r#"{"user_id":"0x2a"}"#, Holds::Yes),
            ("42", r#"{"user_id":{"_id":42}}"#, Holds::Yes),
            ("42", r#"{"user_id":{"_id":"42"}}"#, Holds::Yes),
            ("42", "\u{feff}{\"user_id\":\"42\",\"a\":\"\\ud83d\"}", Holds::Yes),
            ("42", r#"{"user_id":42,"a":{"b":{"c":1}},"timestamp":"x","_id":1}"#, Holds::Yes),
            ("42", r#"{"user_id":1,"user_id":42}"#, Holds::Yes),
            ("42", r#"{"user_id":42,"user_id":1}"#, Holds::No),
            ("42", r#"{"user_id":420}"#, Holds::No),
            ("42", r#"{"user_id":42.5}"#, Holds::No),
            ("42", r#"{"user_id":null}"#, Holds::No),
            ("42", r#"{"other":42}"#, Holds::No),
            ("42", r#"[{"user_id":42}]"#, undecided("not_an_object")),
            ("42", r#""{\"user_id\":42}""#, undecided("not_an_object")),
            ("42", r#"{"user_id":[42]}"#, undecided("invalid_field user_id")),
            ("42", r#"{"user_id":"x"}"#, undecided("invalid_field user_id")),
            ("42", r#"{"user_id":42"#, undecided("invalid_json")),
            ("x", r#"{"user_id":"x"}"#, Holds::Yes),
            (snowflake, r#"{"user_id":1234567890123456789}"#, Holds::Yes),
            (snowflake, r#"{"user_id":"1234567890123456789"}"#, Holds::Yes),
            (snowflake, r#"{"user_id":1234567890123456768}"#, Holds::No),
            (
                snowflake,
                r#"{"user_id":"1234567890123456768"}"#,
                undecided("user_id is a number that several ids become"),
            ),
            ("18446744073709551615", r#"{"user_id":18446744073709551615}"#, Holds::Yes),
            ("18446744073709551615", r#"{"user_id":18446744073709551614}"#, Holds::No),
        ] {
            assert_eq!(owner(&settings, user, body), expected, "{user} {body}");
        }
    }

    #[test]
    fn an_id_that_is_stored_as_text_is_compared_as_text() {
        let as_text = load_text("f", "[event.fields]\nuser_id = { type = \"string\" }").unwrap().routes.remove(0);
        assert_eq!(owner(&as_text, "42", r#"{"user_id":42.0}"#), Holds::Yes);
        assert_eq!(owner(&as_text, "42", r#"{"user_id":" 42"}"#), Holds::No);
    }
}
