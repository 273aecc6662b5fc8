//! Routes: further logs in the same process, each with a queue and a collection of its own. Everything else they share.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::event::{RouteAddresses, binding_matches};

use super::{FieldSettings, Settings};

/// The name of the log that the sections themselves describe.
pub const MAIN_ROUTE: &str = "main";

pub(super) fn main_route() -> String {
    MAIN_ROUTE.to_owned()
}

/// What differs from the sections.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    pub queue: String,
    pub routing_keys: Vec<String>,
    pub collection: String,
    /// None: `queue` and `.dead`.
    pub dead_letter_queue: Option<String>,
    /// None: `queue` and `.parked`.
    pub parked_queue: Option<String>,
    /// None: those of `event.fields`.
    pub fields: Option<BTreeMap<String, FieldSettings>>,
}

impl Settings {
    /// The settings of every route, the main one first.
    pub fn of_all_routes(&self) -> Vec<Settings> {
        let further = self.route.keys().filter(|name| *name != MAIN_ROUTE).filter_map(|name| self.of_route(name));
        std::iter::once(self.clone()).chain(further).collect()
    }

    /// The settings of a route; none if there is no such route.
    pub fn of_route(&self, name: &str) -> Option<Settings> {
        if name == MAIN_ROUTE {
            return Some(self.clone());
        }
        let route = self.route.get(name)?.clone();
        let mut settings = self.clone();
        name.clone_into(&mut settings.route_name);
        let named = |given: Option<String>, suffix| given.unwrap_or_else(|| format!("{}{suffix}", route.queue));
        settings.dead_letter.queue = named(route.dead_letter_queue, ".dead");
        settings.dead_letter.parked_queue = named(route.parked_queue, ".parked");
        settings.broker.queue = route.queue;
        settings.main_routing_keys = std::mem::replace(&mut settings.broker.routing_keys, route.routing_keys);
        settings.store.collection = route.collection;
        if let Some(fields) = route.fields {
            settings.event.fields = fields;
        }
        Some(settings)
    }

    /// Whether these settings are of one route of several.
    pub fn has_several_routes(&self) -> bool {
        !self.route.is_empty()
    }

    /// Whether some route takes a message with this routing key.
    pub fn is_key_of_a_route(&self, key: &str) -> bool {
        let further = self.route.values().flat_map(|route| &route.routing_keys);
        let all = self.broker.routing_keys.iter().chain(&self.main_routing_keys).chain(further);
        all.into_iter().any(|pattern| binding_matches(pattern, key))
    }

    /// Where the messages of this route are published.
    pub fn addresses(&self) -> RouteAddresses {
        RouteAddresses { routing_keys: self.broker.routing_keys.clone(), queues: self.broker.queues() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;

    const ROUTES: &str = r#"
        [broker]
        prefetch = 5000
        [route.refresh]
        queue = "refresh.log"
        routing_keys = ["ticket_refresh.#"]
        collection = "refresh_log"
        [route.audit]
        queue = "audit"
        routing_keys = ["audit.*"]
        collection = "audit_log"
        parked_queue = "elsewhere"
        fields = { n = { type = "number", required = true } }
    "#;

    #[test]
    fn a_route_shares_what_it_does_not_name() {
        let all = load_text("f", ROUTES).unwrap().settings.of_all_routes();
        let names: Vec<&str> = all.iter().map(|settings| settings.route_name.as_str()).collect();
        assert_eq!(names, ["main", "audit", "refresh"]);
        let [main, audit, refresh] = &all[..] else { panic!("three routes") };
        assert_eq!(main.broker.queue, "bytemark.tickets.log");
        assert_eq!((refresh.broker.queue.as_str(), refresh.broker.prefetch), ("refresh.log", 5000));
        assert_eq!(refresh.store.collection, "refresh_log");
        assert_eq!(refresh.dead_letter.queue, "refresh.log.dead");
        assert_eq!((refresh.dead_letter.parked_queue.as_str(), refresh.event.fields.len()), ("refresh.log.parked", 4));
        assert_eq!((audit.dead_letter.parked_queue.as_str(), audit.event.fields.len()), ("elsewhere", 1));
        assert!(main.of_route("other").is_none());
    }

    #[test]
    fn only_with_several_routes_the_address_of_a_message_matters() {
        let all = load_text("f", ROUTES).unwrap().settings.of_all_routes();
        let addresses = |settings: &Settings| settings.rules().addresses;
        let of = |key: &str, queue: &str| {
            Some(RouteAddresses { routing_keys: vec![key.to_owned()], queues: vec![queue.to_owned()] })
        };
        assert_eq!(addresses(&all[0]), of("ticket.#", "bytemark.tickets.log"));
        assert_eq!(addresses(&all[1]), of("audit.*", "audit"));
        for route in &all {
            assert!(route.is_key_of_a_route("ticket.buy") && route.is_key_of_a_route("ticket_refresh.a"));
            assert!(!route.is_key_of_a_route("left.over"));
        }
        assert_eq!(addresses(&load_text("f", "").unwrap().settings), None);
    }
}
