//! Which messages are meant for a route: by their routing key, or by the name of a queue.

use super::{Reason, Rejection, binding_matches};

/// Where a message was published.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Empty for the default exchange, whose routing keys are names of queues.
    pub exchange: &'a str,
    /// The routing key that its publisher gave it.
    pub routing_key: &'a str,
}

/// The addresses of one of several routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteAddresses {
    /// Patterns, as in a binding of a topic exchange.
    pub routing_keys: Vec<String>,
    /// The queue, or its shards.
    pub queues: Vec<String>,
}

impl RouteAddresses {
    /// A binding that is left over, or was made by hand, would put a message into the wrong collection: a binding of the exchange, or of
    /// one in front of it, which is the one that the delivery names. Who names the queue itself, through the default exchange, means it.
    ///
    /// # Errors
    /// The message was meant for another route, or for none.
    pub fn check(&self, address: Address) -> Result<(), Rejection> {
        let Address { exchange, routing_key } = address;
        let is_expected = self.routing_keys.iter().any(|pattern| binding_matches(pattern, routing_key))
            || exchange.is_empty() && self.queues.iter().any(|queue| queue == routing_key);
        if is_expected {
            return Ok(());
        }
        let detail = "the routing key matches no pattern of the route that the queue belongs to";
        Err(Rejection::new(Reason::UnexpectedRoutingKey, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_expected_by_its_routing_key_or_by_the_name_of_a_queue() {
        let addresses = RouteAddresses {
            routing_keys: vec!["audit.*".to_owned()],
            queues: vec!["audit".to_owned(), "audit.2".to_owned()],
        };
        for (exchange, routing_key, is_expected) in [
            ("tickets", "audit.login", true),
            ("upstream", "audit.login", true),
            ("tickets", "ticket.buy", false),
            ("tickets", "audit", false),
            ("", "audit", true),
            ("", "audit.2", true),
            ("", "refresh.log", false),
            ("", "audit.login", true),
        ] {
            let checked = addresses.check(Address { exchange, routing_key });
            assert_eq!(checked.is_ok(), is_expected, "{exchange:?} {routing_key:?}");
            assert!(checked.err().is_none_or(|rejection| rejection.reason == Reason::UnexpectedRoutingKey));
        }
    }
}
