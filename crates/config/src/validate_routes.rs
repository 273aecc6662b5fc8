//! The faults of routes: each by itself, and two that would get in each other's way.

use super::faults::Faults;
use super::route::{MAIN_ROUTE, ROUTES, RouteSettings};
use ticketlog_contract::{FieldKind, bindings_overlap};

/// Most routes beside the main one: each has two connections to RabbitMQ (three with receipts) and up to `broker.prefetch_bytes` of messages in memory.
const MAX_ROUTES: usize = 32;
/// `.shards`, the longest.
const SHARD_SUFFIX_BYTES: usize = 7;

pub(super) const INVALID_NAME: &str = "must have 1 to 255 bytes and no control characters";

/// Whether RabbitMQ takes this as the name of an exchange or a queue, and a log can show it.
pub(super) fn is_amqp_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn is_collection_name(name: &str) -> bool {
    (1..=120).contains(&name.len())
        && !name.contains(['$', '\0'])
        && !name.starts_with("system.")
        && !name.starts_with('.')
}

/// Every fault of the routes.
pub(super) fn check_routes(routes: &[RouteSettings], faults: &mut Faults) {
    faults.require(routes.len() <= MAX_ROUTES + 1, ROUTES, format!("has more than {MAX_ROUTES} routes"));
    for (at, route) in routes.iter().enumerate() {
        check_queues(route, faults);
        check_keys_and_collection(route, faults);
        check_fields(route, faults);
        routes.iter().take(at).for_each(|other| check_pair(route, other, faults));
    }
}

fn check_queues(route: &RouteSettings, faults: &mut Faults) {
    let (queue, dead, parked) = (&route.queue, &route.dead_letter_queue, &route.parked_queue);
    for (name, value) in [("queue", queue), ("dead_letter_queue", dead), ("parked_queue", parked)] {
        faults.require(is_amqp_name(value), route.setting(name), INVALID_NAME);
    }
    let is_sharded = route.broker.shards > 1;
    let exchanges = [&route.broker.exchange, &route.dead_letter.exchange, &route.dead_letter.receipts];
    let is_free = !is_sharded || !exchanges.contains(&&route.shard_exchange());
    let text = "with .shards at its end is also the name of another exchange; use another queue";
    faults.require(is_free, route.setting("queue"), text);
    let is_shared = route.queues().iter().any(|queue| queue == dead || queue == parked);
    let text = "is also a dead-letter queue; use another queue";
    let contradicts = &["dead_letter.queue", "dead_letter.parked_queue"];
    faults.require_with(contradicts, !is_shared, route.setting("queue"), text);
    let fits = !is_sharded || queue.len() <= 255 - SHARD_SUFFIX_BYTES;
    let text = "must have at most 248 bytes with several shards, whose names are longer";
    faults.require_with(&["broker.shards"], fits, route.setting("queue"), text);
    let text = format!("is also {}; use another queue", route.setting("dead_letter_queue"));
    faults.require_with(&["dead_letter.queue"], dead != parked, route.setting("parked_queue"), text);
}

fn check_keys_and_collection(route: &RouteSettings, faults: &mut Faults) {
    let (keys, name) = (&route.routing_keys, route.setting("routing_keys"));
    faults.require(!keys.is_empty(), name.as_str(), "needs at least one key, such as \"#\"");
    faults.require(keys.iter().all(|key| key.len() <= 255), name, "has a key of more than 255 bytes");
    let text = "is not a valid name of a MongoDB collection";
    faults.require(is_collection_name(&route.collection), route.setting("collection"), text);
}

fn check_fields(route: &RouteSettings, faults: &mut Faults) {
    let valid = |name: &String| !name.is_empty() && name != "_id" && !name.contains('\0');
    let text = "has a field name that is not allowed: empty, _id, or with a NUL";
    faults.require(route.fields.keys().all(valid), route.setting("fields"), text);
    let is_number = |name: &&String| route.fields.get(*name).is_some_and(|field| field.r#type == FieldKind::Number);
    let Some(name) = route.event.mask.iter().find(is_number) else { return };
    if route.name == MAIN_ROUTE {
        let text = format!("has {name}, which event.fields makes a number; a mask is a text. Drop it instead");
        faults.require_with(&["event.fields"], false, "event.mask", text);
    } else {
        let text = "has a number that event.mask hides; a mask is a text. Drop the field instead";
        faults.require(false, route.setting("fields"), text);
    }
}

/// Each queue, each collection and each routing key belongs to one route.
fn check_pair(route: &RouteSettings, other: &RouteSettings, faults: &mut Faults) {
    let of_other = match other.name.as_str() {
        MAIN_ROUTE => "the main route".to_owned(),
        name => format!("route.{name}"),
    };
    let queues = |route: &RouteSettings| -> Vec<String> {
        route.queues().into_iter().chain([route.dead_letter_queue.clone(), route.parked_queue.clone()]).collect()
    };
    let taken = queues(other);
    let shared = queues(route).into_iter().find(|queue| taken.contains(queue));
    let text = format!(
        "or a dead-letter queue of it is also a queue of {of_other}: {}",
        shared.as_deref().unwrap_or_default()
    );
    faults.require(shared.is_none(), route.setting("queue"), text);
    let text = format!("is also the collection of {of_other}; use another collection");
    faults.require(route.collection != other.collection, route.setting("collection"), text);
    let overlap = route.routing_keys.iter().find_map(|ours| {
        let theirs = other.routing_keys.iter().find(|theirs| bindings_overlap(ours, theirs))?;
        Some(format!(
            "has {ours:?}, and {of_other} has {theirs:?}: a message that both match would be stored in both collections; make one \
             narrower"
        ))
    });
    faults.require(overlap.is_none(), route.setting("routing_keys"), overlap.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::load::load_text;

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
        f, line 1: route.main is not a valid route name: use 1 to 40 letters, digits, - or _ (main is reserved)
        f, line 5: route.b.routing_keys has "x.#", and route.a has "x.*": a message that both match would be stored in both collections; make one narrower
        f, line 4: route.a.fields has a number that event.mask hides; a mask is a text. Drop the field instead
        f, line 2: route.queue has a wrong value: invalid type: string "a", expected a table: [route.NAME]
        "##);
    }
}
