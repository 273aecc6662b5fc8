//! The mark of messages that `ticketlog check --end-to-end` publishes: how it is set, and when the worker believes it.

use lapin::types::AMQPValue;

use super::delivery::Delivery;
use super::encoded_headers::EncodedHeaders;
use super::outgoing::{Outgoing, short_string};

/// The header. Its name does not begin with `dl-`, so that the dead letter keeps it.
const MARK: &str = "ticketlog-check";

impl Outgoing {
    /// Marks it as published by a smoke test on behalf of this user of the broker: RabbitMQ accepts no other `user_id` than the
    /// publisher's own.
    #[must_use]
    pub fn marked_as_smoke_test(mut self, user_name: Option<&str>) -> Self {
        let mut headers = self.headers.decode(|_| true);
        headers.insert(MARK.into(), AMQPValue::LongString("end-to-end".into()));
        self.headers = EncodedHeaders::encode(headers);
        if let Some(name) = user_name {
            self.properties = self.properties.with_user_id(short_string(name));
        }
        self
    }
}

impl Delivery {
    /// Whether it carries the mark, whoever published it.
    pub(super) fn has_smoke_test_mark(&self) -> bool {
        self.headers.get(MARK).is_some()
    }

    /// Whether a smoke test published it that is trusted, once [`Delivery::recognise_mark`] has run. It does not count as traffic.
    pub fn is_smoke_test(&self) -> bool {
        self.is_smoke_test
    }
}

#[cfg(test)]
mod tests {
    use super::super::replay::ReplayTarget;
    use super::*;

    #[test]
    fn the_mark_is_believed_only_of_a_trusted_user() {
        let event = |user| {
            let outgoing = Outgoing::event("x", "k", Some("m"), 1, b"{}".to_vec()).marked_as_smoke_test(user);
            Delivery::for_test(outgoing.body.clone(), outgoing.published_properties())
        };
        let trusted = ["ops".to_owned()];
        for (mut delivery, expected) in [
            (event(Some("ops")), true),
            (event(Some("app")), false),
            (event(None), false),
            (Delivery::with_body("{\"ticketlog-check\":\"ticketlog-check\"}"), false),
        ] {
            delivery.recognise_mark(&trusted);
            assert_eq!(delivery.is_smoke_test(), expected);
        }
    }

    #[test]
    fn a_replay_is_no_smoke_test_whatever_header_the_publisher_set() {
        let outgoing = Outgoing::event("x", "k", Some("m"), 1, b"{}".to_vec()).marked_as_smoke_test(Some("app"));
        let dead = Delivery::for_test(outgoing.body.clone(), outgoing.published_properties());
        let target = ReplayTarget { replay_id: "r".to_owned(), user_name: Some("ops".to_owned()), queue: None };
        let replay = dead.replay(&dead.record("work"), &target, None).unwrap();
        let mut received = Delivery::for_test(replay.body.clone(), replay.published_properties());
        received.recognise_mark(&["ops".to_owned()]);
        assert!(received.has_smoke_test_mark() && received.replay_mark().is_some());
        assert!(!received.is_smoke_test());
    }
}
