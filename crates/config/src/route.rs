//! The settings of a route: a log with a queue and a collection of its own. A process has one or several, and `main` is the one whose
//! settings are in the sections of the configuration.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Deref;
use std::sync::Arc;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use toml::{Table, Value};

use super::settings::{FieldSettings, Settings};
use ticketlog_contract::{Field, MaskKey, RouteAddresses, RouteContract, Rules, binding_matches};

/// The name of the route whose settings are in the sections.
pub const MAIN_ROUTE: &str = "main";
/// The section whose keys are names of further routes.
pub(super) const ROUTES: &str = "route";
const MAX_NAME: usize = 40;

/// The settings of the main route: section, key, and the key in the table of another route.
const IN_SECTIONS: [(&str, &str, &str); 6] = [
    ("broker", "queue", "queue"),
    ("broker", "routing_keys", "routing_keys"),
    ("store", "collection", "collection"),
    ("dead_letter", "queue", "dead_letter_queue"),
    ("dead_letter", "parked_queue", "parked_queue"),
    ("event", "fields", "fields"),
];

/// A route as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    queue: String,
    routing_keys: Vec<String>,
    collection: String,
    /// None: `queue` and `.dead`.
    dead_letter_queue: Option<String>,
    /// None: `queue` and `.parked`.
    parked_queue: Option<String>,
    /// None: those of the main route.
    fields: Option<BTreeMap<String, FieldSettings>>,
}

/// The routes as they are written.
#[derive(Debug)]
pub(super) struct RouteTables {
    main: RouteTable,
    further: BTreeMap<String, RouteTable>,
}

/// The settings of a route. It dereferences to those that all routes share.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct RouteSettings {
    pub name: String,
    pub queue: String,
    pub routing_keys: Vec<String>,
    /// The routing keys of each other route of the configuration.
    pub other_routes: Vec<Vec<String>>,
    pub collection: String,
    pub dead_letter_queue: String,
    pub parked_queue: String,
    pub fields: BTreeMap<String, FieldSettings>,
    pub process: Arc<Settings>,
}

impl Deref for RouteSettings {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.process
    }
}

/// Whether a further route can have this name.
pub(super) fn is_route_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name != MAIN_ROUTE
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

impl RouteTables {
    /// Takes the settings of the routes out of a table of all sections.
    pub fn take_from(sections: &mut Table) -> Result<Self, toml::de::Error> {
        let mut main = Table::new();
        for (section, key, name) in IN_SECTIONS {
            let value = sections.get_mut(section).and_then(Value::as_table_mut).and_then(|section| section.remove(key));
            main.extend(value.map(|value| (name.to_owned(), value)));
        }
        let further = sections.remove(ROUTES).unwrap_or_else(|| Value::Table(Table::new()));
        Ok(RouteTables { main: RouteTable::deserialize(Value::Table(main))?, further: BTreeMap::deserialize(further)? })
    }

    /// The settings of every route, the main one first.
    pub fn resolve(&self, process: &Arc<Settings>) -> Vec<RouteSettings> {
        let further = self.further.iter().map(|(name, table)| (name.as_str(), table));
        let all: Vec<_> = iter::once((MAIN_ROUTE, &self.main)).chain(further).collect();
        let others = |name| all.iter().filter(move |(other, _)| *other != name);
        let keys_of_others = |name| others(name).map(|(_, table)| table.routing_keys.clone()).collect();
        all.iter().map(|(name, table)| self.resolve_one(name, table, keys_of_others(*name), process)).collect()
    }

    fn resolve_one(
        &self,
        name: &str,
        table: &RouteTable,
        other_routes: Vec<Vec<String>>,
        process: &Arc<Settings>,
    ) -> RouteSettings {
        let named =
            |given: &Option<String>, suffix| given.clone().unwrap_or_else(|| format!("{}{suffix}", table.queue));
        RouteSettings {
            name: name.to_owned(),
            queue: table.queue.clone(),
            routing_keys: table.routing_keys.clone(),
            other_routes,
            collection: table.collection.clone(),
            dead_letter_queue: named(&table.dead_letter_queue, ".dead"),
            parked_queue: named(&table.parked_queue, ".parked"),
            fields: table.fields.as_ref().or(self.main.fields.as_ref()).cloned().unwrap_or_default(),
            process: Arc::clone(process),
        }
    }
}

impl RouteSettings {
    /// The same with the operators' logins in place of the worker's, where they are set.
    pub fn into_operator(self) -> Self {
        let process = Arc::new(Settings::clone(&self.process).into_operator());
        RouteSettings { process, ..self }
    }

    /// The name of a setting of a route, such as `collection`, where it is written.
    pub(super) fn setting(&self, name: &str) -> String {
        let in_section = IN_SECTIONS.iter().find(|(_, _, other)| *other == name && self.name == MAIN_ROUTE);
        in_section
            .map_or_else(|| format!("{ROUTES}.{}.{name}", self.name), |(section, key, _)| format!("{section}.{key}"))
    }

    /// The queues that the worker consumes: `queue`, and with several shards `queue.2` and so on.
    pub fn queues(&self) -> Vec<String> {
        let further = (2..=self.broker.shards).map(|shard| format!("{}.{shard}", self.queue));
        iter::once(self.queue.clone()).chain(further).collect()
    }

    /// The exchange that spreads messages over several shards.
    pub fn shard_exchange(&self) -> String {
        format!("{}.shards", self.queue)
    }

    /// The decoder's rules.
    pub fn rules(&self) -> Rules {
        let field = |(name, settings): (&String, &FieldSettings)| Field {
            name: name.clone(),
            kind: settings.r#type,
            required: settings.required,
        };
        Rules {
            addresses: self.has_several_routes().then(|| self.addresses()),
            max_bytes: self.event.max_bytes.bytes(),
            max_depth: self.event.max_depth,
            fields: self.fields.iter().map(field).collect(),
            add_ingested_at: self.store.retention.0.is_some(),
            hidden_fields: self.event.hidden_fields(),
            mask_key: MaskKey(self.event.mask_key.expose_secret().as_bytes().to_vec()),
        }
    }

    /// What publishers need to know of it.
    pub fn contract(&self) -> RouteContract {
        let Rules { max_bytes, max_depth, fields, add_ingested_at, hidden_fields, .. } = self.rules();
        RouteContract {
            route: self.name.clone(),
            exchange: self.broker.exchange.clone(),
            routing_keys: self.routing_keys.clone(),
            queues: self.queues(),
            rejects_other_routing_keys: self.has_several_routes(),
            max_bytes,
            max_depth,
            fields,
            adds_ingested_at: add_ingested_at,
            hides_fields: !hidden_fields.is_empty(),
        }
    }

    /// Whether the configuration has further routes.
    pub fn has_several_routes(&self) -> bool {
        !self.other_routes.is_empty()
    }

    /// Whether some route takes a message with this routing key.
    pub fn is_key_of_a_route(&self, key: &str) -> bool {
        self.routing_keys.iter().chain(self.other_routes.iter().flatten()).any(|pattern| binding_matches(pattern, key))
    }

    /// Where the messages of this route are published.
    pub fn addresses(&self) -> RouteAddresses {
        RouteAddresses { routing_keys: self.routing_keys.clone(), queues: self.queues() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::load_text;
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
        let all = load_text("f", ROUTES).unwrap().routes;
        let names: Vec<&str> = all.iter().map(|settings| settings.name.as_str()).collect();
        assert_eq!(names, ["main", "audit", "refresh"]);
        let [main, audit, refresh] = &all[..] else { panic!("three routes") };
        assert_eq!(main.queue, "bytemark.tickets.log");
        assert_eq!(refresh.queue, "refresh.log");
        assert_eq!(refresh.broker.prefetch, 5000);
        assert_eq!(refresh.collection, "refresh_log");
        assert_eq!(refresh.dead_letter_queue, "refresh.log.dead");
        assert_eq!(refresh.parked_queue, "refresh.log.parked");
        assert_eq!(refresh.fields.len(), 4);
        assert_eq!(audit.parked_queue, "elsewhere");
        assert_eq!(audit.fields.len(), 1);
        assert!(Arc::ptr_eq(&main.process, &audit.process));
    }

    #[test]
    fn only_with_several_routes_the_address_of_a_message_matters() {
        let all = load_text("f", ROUTES).unwrap().routes;
        let addresses = |settings: &RouteSettings| settings.rules().addresses;
        let of = |key: &str, queue: &str| {
            Some(RouteAddresses { routing_keys: vec![key.to_owned()], queues: vec![queue.to_owned()] })
        };
        assert_eq!(addresses(&all[0]), of("ticket.#", "bytemark.tickets.log"));
        assert_eq!(addresses(&all[1]), of("audit.*", "audit"));
        for route in &all {
            assert!(route.is_key_of_a_route("ticket.buy") && route.is_key_of_a_route("ticket_refresh.a"));
            assert!(!route.is_key_of_a_route("left.over"));
        }
        assert_eq!(addresses(&load_text("f", "").unwrap().routes[0]), None);
    }
}
