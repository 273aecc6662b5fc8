//! Owns the faults of routes: each by itself, and two that would get in each other's way. Pure. Must not know where settings come
//! from.

use super::validate::{Faults, SettingFault, check_fields, check_names};
use super::{MAIN_ROUTE, Settings};
use crate::event::bindings_overlap;

/// Most routes: each has two connections to RabbitMQ and up to `broker.prefetch_bytes` of messages in memory.
const MAX_ROUTES: usize = 32;
const MAX_NAME: usize = 40;

/// The settings that a route has under other names.
const NAMES: [(&str, &str); 6] = [
    ("broker.queue", "queue"),
    ("broker.routing_keys", "routing_keys"),
    ("store.collection", "collection"),
    ("dead_letter.queue", "dead_letter_queue"),
    ("dead_letter.parked_queue", "parked_queue"),
    ("event.fields", "fields"),
];

/// Every fault of the routes.
pub(super) fn check_routes(settings: &Settings, faults: &mut Faults) {
    faults.require(settings.route.len() <= MAX_ROUTES, "route", format!("has more than {MAX_ROUTES} routes"));
    for name in settings.route.keys() {
        let valid = (1..=MAX_NAME).contains(&name.len())
            && name != MAIN_ROUTE
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let text =
            "is no name for a route: use up to 40 letters, digits, - and _; not main, which the sections describe";
        faults.require(valid, format!("route.{name}"), text);
    }
    let routes = settings.of_all_routes();
    for (at, route) in routes.iter().enumerate().skip(1) {
        check_route(route, faults);
        routes.iter().take(at).for_each(|other| check_pair(route, other, faults));
    }
}

/// What is wrong with one, but not with the sections.
fn check_route(route: &Settings, faults: &mut Faults) {
    let mut own = Faults::default();
    check_names(route, &mut own);
    check_fields(route, &mut own);
    for SettingFault { key, text } in own.0 {
        if let Some((_, name)) = NAMES.iter().find(|(general, _)| *general == key) {
            faults.require(false, format!("route.{}.{name}", route.route_name), text);
        } else if key == "event.mask" {
            let text = "has a number that event.mask hides; a mask is a text. Drop the field instead";
            faults.require(false, format!("route.{}.fields", route.route_name), text);
        }
    }
}

/// Each queue, each collection and each routing key belongs to one route.
fn check_pair(route: &Settings, other: &Settings, faults: &mut Faults) {
    let key = |name: &str| format!("route.{}.{name}", route.route_name);
    let of = |other: &Settings| match other.route_name.as_str() {
        MAIN_ROUTE => "the main route".to_owned(),
        name => format!("route.{name}"),
    };
    let queues = |route: &Settings| -> Vec<String> {
        let dead = &route.dead_letter;
        route.broker.queues().into_iter().chain([dead.queue.clone(), dead.parked_queue.clone()]).collect()
    };
    let taken = queues(other);
    let shared = queues(route).into_iter().find(|queue| taken.contains(queue));
    let text = format!(
        "or a dead-letter queue of it is also a queue of {}: {}",
        of(other),
        shared.as_deref().unwrap_or_default()
    );
    faults.require(shared.is_none(), key("queue"), text);
    let text = format!("is also the collection of {}; use another collection", of(other));
    faults.require(route.store.collection != other.store.collection, key("collection"), text);
    let overlap = route.broker.routing_keys.iter().find_map(|ours| {
        let theirs = other.broker.routing_keys.iter().find(|theirs| bindings_overlap(ours, theirs))?;
        Some(format!(
            "has {ours:?}, and {} has {theirs:?}: a message that both match would be stored in both collections; make one narrower",
            of(other)
        ))
    });
    faults.require(overlap.is_none(), key("routing_keys"), overlap.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::load_text;

    #[test]
    fn faults_of_routes_name_the_route_and_what_it_collides_with() {
        let route = |name: &str, rest: &str| {
            let text = format!("[route.{name}]\nqueue = \"{name}\"\n{rest}\n");
            if rest.contains("collection") { text } else { text + &format!("collection = \"{name}_log\"\n") }
        };
        let errors: Vec<String> = [
            route("a", "routing_keys = [\"ticket.refresh.#\"]"),
            route("a", "routing_keys = []"),
            route("a", ""),
            route("a", "routing_keys = [\"a\"]\ncolection = \"b\""),
            route("a", "routing_keys = [\"a\"]\ncollection = \"bytemark_tickets_log\""),
            route("a", "routing_keys = [\"a\"]\nparked_queue = \"bytemark.tickets.log.dead\""),
            route("a", "routing_keys = [\"a\"]\ndead_letter_queue = \"a\""),
            route("a", "routing_keys = [\"a\"]\nfields = { _id = { type = \"any\" } }"),
            route("main", "routing_keys = [\"a\"]"),
            route("a", "routing_keys = [\"x.*\"]") + &route("b", "routing_keys = [\"x.#\"]"),
            "[event]\nmask = [\"n\"]\nmask_key = \"0123456789abcdef\"\n".to_owned()
                + &route("a", "routing_keys = [\"a\"]\nfields = { n = { type = \"number\" } }"),
            "[route]\nqueue = \"a\"\n".to_owned(),
        ]
        .iter()
        .map(|text| load_text("f", text).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r##"
        f, line 1: route.a.routing_keys has "ticket.refresh.#", and the main route has "ticket.#": a message that both match would be stored in both collections; make one narrower
        f, line 1: route.a.routing_keys needs at least one key, such as "#"
        f, line 1: route.a has a wrong value: missing field `routing_keys`
        f, line 1: route.a has a wrong value: unknown field `colection`, expected one of `queue`, `routing_keys`, `collection`, `dead_letter_queue`, `parked_queue`, `fields`
        f, line 1: route.a.collection is also the collection of the main route; use another collection
        f, line 1: route.a.queue or a dead-letter queue of it is also a queue of the main route: bytemark.tickets.log.dead
        f, line 1: route.a.queue is also a dead-letter queue; use another queue
        f, line 1: route.a.fields has a field name that is not allowed: empty, _id, or with a NUL
        f, line 1: route.main is no name for a route: use up to 40 letters, digits, - and _; not main, which the sections describe
        f, line 5: route.b.routing_keys has "x.#", and route.a has "x.*": a message that both match would be stored in both collections; make one narrower
        f, line 4: route.a.fields has a number that event.mask hides; a mask is a text. Drop the field instead
        f, line 2: route.queue has a wrong value: invalid type: string "a", expected a table: [route.NAME]
        "##);
    }
}
