//! What `ticketlog check` reports about bindings, which only the management API shows.

use serde_json::Value;

use ticketlog_config::finding::Finding;

use super::super::topology;
use super::check::{Check, RUN_SETUP, SEE_MANAGEMENT};
use super::management_api::ManagementApi;

impl Check<'_> {
    /// Checks the bindings. Other bindings than the configured ones may be intended; `ticketlog setup` would add the
    /// configured ones.
    pub(super) async fn bindings(&self, findings: &mut Vec<Finding>) {
        let (broker, dead) = (&self.settings.broker, &self.settings.dead_letter);
        let Some(api) = &self.api else {
            let message = "bindings are unknown: only the management API shows them";
            findings.push(Finding::warn("broker.routing_keys", message, SEE_MANAGEMENT));
            return;
        };
        let Some(bound) = bindings_of(api, &self.settings.queue).await else { return };
        if broker.shards > 1 {
            self.shard_bindings(api, findings).await;
            self.shard_exchange_bindings(api, findings).await;
        } else {
            let queue = format!("queue {}", self.settings.queue);
            let binding = |key: &String| self.binding("broker.routing_keys", &queue, &broker.exchange, key, &bound);
            findings.extend(self.settings.routing_keys.iter().map(binding));
            findings.extend(bound.iter().filter_map(|bound| self.unexpected_binding(&queue, bound)));
        }
        for queue in [&self.settings.dead_letter_queue, &self.settings.parked_queue] {
            if let Some(bound) = bindings_of(api, queue).await {
                findings.push(self.binding(
                    "dead_letter.exchange",
                    &format!("queue {queue}"),
                    &dead.exchange,
                    queue,
                    &bound,
                ));
            }
        }
    }

    /// A binding by which one of several routes gets messages that are not its own.
    fn unexpected_binding(&self, what: &str, (exchange, key): &(String, String)) -> Option<Finding> {
        let settings = self.settings;
        let is_expected = *exchange != settings.broker.exchange || settings.routing_keys.contains(key);
        if !settings.has_several_routes() || is_expected {
            return None;
        }
        let message = format!(
            "{what} is also bound to exchange {exchange} with {key}: what this route does not expect becomes a dead letter"
        );
        Some(Finding::warn("broker.routing_keys", message, "remove the binding, or add the key to the route"))
    }

    /// Checks the bindings of the shards. A queue that is bound to the exchange too gets some messages that another shard also gets.
    async fn shard_bindings(&self, api: &ManagementApi, findings: &mut Vec<Finding>) {
        let broker = &self.settings.broker;
        let exchange = self.settings.shard_exchange();
        for queue in self.settings.queues() {
            let Some(bound) = bindings_of(api, &queue).await else { continue };
            findings.push(self.binding(
                "broker.shards",
                &format!("queue {queue}"),
                &exchange,
                topology::SHARD_WEIGHT,
                &bound,
            ));
            if let Some((_, key)) = bound.iter().find(|(source, _)| *source == broker.exchange) {
                let message =
                    format!("queue {queue} is bound to exchange {} with {key}, and so is {exchange}", broker.exchange);
                let fix =
                    "remove this binding, by which messages come twice; a worker with broker.shards = 1 binds it again";
                findings.push(Finding::fail("broker.shards", message, fix));
            }
        }
    }

    /// Checks that the shard exchange gets the messages, and that no queue gets some that no worker with these settings consumes.
    async fn shard_exchange_bindings(&self, api: &ManagementApi, findings: &mut Vec<Finding>) {
        let (broker, exchange) = (&self.settings.broker, self.settings.shard_exchange());
        let text = |binding: &Value, key: &str| binding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let to = api.list("exchanges", &[&exchange, "bindings", "destination"]).await.unwrap_or_default();
        let bound: Vec<_> = to.iter().map(|binding| (text(binding, "source"), text(binding, "routing_key"))).collect();
        for key in &self.settings.routing_keys {
            findings.push(self.binding(
                "broker.routing_keys",
                &format!("exchange {exchange}"),
                &broker.exchange,
                key,
                &bound,
            ));
        }
        let what = format!("exchange {exchange}");
        findings.extend(bound.iter().filter_map(|bound| self.unexpected_binding(&what, bound)));
        let own = self.settings.queues();
        let from = api.list("exchanges", &[&exchange, "bindings", "source"]).await.unwrap_or_default();
        for queue in from.iter().map(|binding| text(binding, "destination")).filter(|queue| !own.contains(queue)) {
            let message = format!(
                "queue {queue} gets a share of the messages, and broker.shards = {} leaves it out",
                broker.shards
            );
            let fix = "raise broker.shards, or remove the binding and consume what the queue holds";
            findings.push(Finding::fail("broker.shards", message, fix));
        }
    }

    fn binding(
        &self,
        subject: &'static str,
        what: &str,
        exchange: &str,
        key: &str,
        bound: &[(String, String)],
    ) -> Finding {
        if bound.iter().any(|(source, bound_key)| source == exchange && bound_key == key) {
            return Finding::ok(subject, format!("{what} is bound to exchange {exchange} with {key}"));
        }
        let missing = format!("{what} is not bound to exchange {exchange} with {key}");
        match bound.first() {
            _ if self.declare => Finding::warn(subject, format!("{missing} yet; the worker binds it"), RUN_SETUP),
            None => Finding::fail(subject, format!("{missing}, nor to any other: it receives nothing"), RUN_SETUP),
            Some((source, bound_key)) => Finding::warn(
                subject,
                format!("{missing}, but to exchange {source} with {bound_key}"),
                "check that this is intended; `ticketlog setup` would add the configured binding",
            ),
        }
    }
}

/// The exchanges and routing keys that a queue is bound with, without the default exchange.
async fn bindings_of(api: &ManagementApi, queue: &str) -> Option<Vec<(String, String)>> {
    let bindings = api.list("queues", &[queue, "bindings"]).await.ok()?;
    let text = |binding: &Value, key: &str| binding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let pairs = bindings.iter().map(|binding| (text(binding, "source"), text(binding, "routing_key")));
    Some(pairs.filter(|(source, _)| !source.is_empty()).collect())
}
