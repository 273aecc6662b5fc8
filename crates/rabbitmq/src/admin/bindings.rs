//! Owns with which routing keys queues are bound to the exchange, which only the management API shows.

use serde_json::Value;
use url::Url;

use ticketlog_config::RouteSettings;
use ticketlog_contract::binding_covers;

use super::super::copy_queue::is_copy_queue;
use super::management_api::{ManagementApi, ManagementError};

/// Which of the wanted messages can be copied: those that RabbitMQ takes to a queue anyway.
#[derive(Debug, PartialEq, Eq)]
pub struct CopiedKeys {
    pub bound: Vec<String>,
    /// The wanted ones that, as far as can be seen, nobody is bound with.
    pub unbound: Vec<String>,
}

/// Compares `broker.routing_keys` with the bindings of others, by the management API.
///
/// # Errors
/// It does not answer this user.
pub async fn copied_keys(settings: &RouteSettings, management: Option<&Url>) -> Result<CopiedKeys, ManagementError> {
    let api = ManagementApi::find(&settings.broker, management).await?;
    let bindings = api.list("exchanges", &[&settings.broker.exchange, "bindings", "source"]).await?;
    Ok(compare(&settings.routing_keys, &keys_of(&bindings, &settings.shard_exchange())))
}

/// The keys of bindings that lead to a queue: directly, or through the exchange of shards. Other exchanges may lead nowhere, and copies of
/// a copy are stored by nobody.
fn keys_of(bindings: &[Value], shard_exchange: &str) -> Vec<String> {
    let text = |binding: &Value, key: &str| binding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let leads_to_a_queue = |binding: &&Value| match text(binding, "destination_type").as_str() {
        "queue" => !is_copy_queue(&text(binding, "destination")),
        _ => text(binding, "destination") == shard_exchange,
    };
    bindings.iter().filter(leads_to_a_queue).map(|binding| text(binding, "routing_key")).collect()
}

fn compare(wanted: &[String], bound: &[String]) -> CopiedKeys {
    let mut keys = CopiedKeys { bound: Vec::new(), unbound: Vec::new() };
    for wanted in wanted {
        if bound.iter().any(|bound| binding_covers(bound, wanted)) {
            keys.bound.push(wanted.clone());
            continue;
        }
        let narrower: Vec<String> = bound.iter().filter(|bound| binding_covers(wanted, bound)).cloned().collect();
        if narrower.is_empty() {
            keys.unbound.push(wanted.clone());
        }
        keys.bound.extend(narrower);
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_others_are_bound_with_is_copied() {
        let binding = |to: &str, kind: &str, key: &str| json!({ "destination": to, "destination_type": kind, "routing_key": key });
        let copy = format!("log.shadow-{}", bson::oid::ObjectId::new().to_hex());
        let bindings = [
            binding("log", "queue", "ticket.#"),
            binding("audit", "queue", "audit.login"),
            binding("log.shards", "exchange", "shards.*"),
            binding("elsewhere", "exchange", "other.#"),
            binding(&copy, "queue", "new.#"),
        ];
        let bound = keys_of(&bindings, "log.shards");
        assert_eq!(bound, ["ticket.#", "audit.login", "shards.*"]);
        let wanted = ["ticket.*", "audit.#", "shards.*", "other.a", "new.a"].map(str::to_owned);
        let keys = compare(&wanted, &bound);
        assert_eq!(keys.bound, ["ticket.*", "audit.login", "shards.*"]);
        assert_eq!(keys.unbound, ["other.a", "new.a"]);
    }
}
