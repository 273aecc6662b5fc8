//! Owns what `ticketlog check` reports about RabbitMQ: connection, exchanges, queues and their arguments, bindings, permissions,
//! delivery limits. Changes nothing.

use lapin::ExchangeKind;
use lapin::types::FieldTable;
use secrecy::ExposeSecret;
use serde_json::Value;
use url::Url;

use ticketlog_config::finding::Finding;
use ticketlog_config::{self as config, QueueType, RouteSettings};

use super::super::connection::{Connection, close, connect};
use super::super::error::{BrokerError, RefusalKind};
use super::super::topology;
use super::delivery_limit::{NotBrowsable, check_browsable};
use super::exchange_type::missing_plugin;
use super::management_api::ManagementApi;
use super::permissions::{Answer, Prober};
use super::removal::removing_keys;

const RUN_SETUP: &str = "run `ticketlog setup`, or set broker.declare = true";
const GRANT_CONFIGURE: &str = "grant the permission to configure it, or set broker.declare = false";

/// Checks everything that the worker needs. `management` is the address of the management API, if it is not the usual one.
pub async fn check(settings: &RouteSettings, management: Option<&Url>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config::unencrypted_broker_host(settings.broker.uri.expose_secret()).is_some() {
        findings.push(Finding::warn(
            "broker.allow_plaintext",
            "passwords and events travel unencrypted to RabbitMQ",
            "use amqps:// and remove broker.allow_plaintext",
        ));
    }
    let connection = match connect(&settings.broker, "check").await {
        Ok(connection) => connection,
        Err(error) => {
            findings.push(Finding::fail("broker.uri", error.to_string(), "correct broker.uri, or start RabbitMQ"));
            return findings;
        }
    };
    findings.push(Finding::ok("broker.uri", "RabbitMQ accepts the connection, the user and the virtual host"));
    let limit = settings.broker.call_timeout.0;
    let prober = Prober { connection: &connection, limit };
    let check = Check { settings, prober, management };
    if let Err(error) = check.run(&mut findings).await {
        findings.push(Finding::fail("broker.uri", error.to_string(), "see RabbitMQ's log"));
    }
    close(&connection, limit).await;
    findings
}

struct Check<'a> {
    settings: &'a RouteSettings,
    prober: Prober<'a>,
    management: Option<&'a Url>,
}

impl Check<'_> {
    async fn run(&self, findings: &mut Vec<Finding>) -> Result<(), BrokerError> {
        let settings = self.settings;
        let (broker, dead) = (&settings.broker, &settings.dead_letter);
        let none = FieldTable::default;
        findings.push(self.exchange("broker.exchange", &broker.exchange, ExchangeKind::Topic, none()).await?);
        findings.push(self.exchange("dead_letter.exchange", &dead.exchange, ExchangeKind::Direct, none()).await?);
        if broker.shards > 1 {
            let (kind, arguments) = (topology::shard_exchange_kind(), topology::shard_exchange_arguments());
            let finding = self.exchange("broker.shards", &settings.shard_exchange(), kind, arguments).await?;
            findings.push(missing_plugin(broker).await?.unwrap_or(finding));
        }
        let mut exist = true;
        for (at, queue) in settings.queues().iter().enumerate() {
            let arguments = match at {
                0 => topology::worker_queue_arguments(settings),
                _ => topology::shard_queue_arguments(settings),
            };
            exist &= self.queue("broker.queue", queue, arguments, findings).await?;
            findings.extend(self.read_permission(queue).await?);
        }
        if exist {
            self.bindings(findings).await?;
        }
        let (dead_letters, parked) = (&settings.dead_letter_queue, &settings.parked_queue);
        for (subject, queue) in [("dead_letter.queue", dead_letters), ("dead_letter.parked_queue", parked)] {
            let arguments = topology::dead_letter_queue_arguments(broker);
            if self.queue(subject, queue, arguments, findings).await? {
                findings.extend(self.browsing(subject, queue).await?);
                findings.extend(self.removal(subject, queue).await?);
            }
        }
        findings.extend(self.write_permission(&dead.exchange).await?);
        Ok(())
    }

    fn connection(&self) -> &Connection {
        self.prober.connection
    }

    async fn exchange(
        &self,
        subject: &'static str,
        name: &str,
        kind: ExchangeKind,
        arguments: FieldTable,
    ) -> Result<Finding, BrokerError> {
        let what = format!("exchange {name}");
        if let Err(refusal) = self.prober.exchange(name, kind.clone(), FieldTable::default(), true).await? {
            return Ok(self.lookup_refused(subject, &what, refusal.kind, refusal.text));
        }
        let answer = self.prober.exchange(name, kind, arguments, false).await?;
        Ok(self.comparison(subject, &what, answer))
    }

    /// Whether the queue exists. It is declared with its arguments only if it does, so that check never creates one.
    async fn queue(
        &self,
        subject: &'static str,
        name: &str,
        arguments: FieldTable,
        findings: &mut Vec<Finding>,
    ) -> Result<bool, BrokerError> {
        let what = format!("queue {name}");
        if let Err(refusal) = self.prober.queue(name, FieldTable::default(), true).await? {
            findings.push(self.lookup_refused(subject, &what, refusal.kind, refusal.text));
            return Ok(false);
        }
        let answer = self.prober.queue(name, arguments, false).await?;
        findings.push(self.comparison(subject, &what, answer));
        Ok(true)
    }

    /// The finding for an exchange or a queue whose lookup was refused: it does not exist, or the user may not look it up.
    fn lookup_refused(&self, subject: &'static str, what: &str, kind: RefusalKind, text: String) -> Finding {
        match (kind, self.settings.broker.declare) {
            (RefusalKind::NotFound, true) => {
                Finding::warn(subject, format!("{what} does not exist yet; the worker declares it"), RUN_SETUP)
            }
            (RefusalKind::NotFound, false) => {
                Finding::fail(subject, format!("{what} does not exist, and broker.declare = false"), RUN_SETUP)
            }
            (RefusalKind::AccessRefused, true) => {
                let message = format!("the user may not look up {what}, and broker.declare = true");
                Finding::fail(subject, message, GRANT_CONFIGURE)
            }
            // The worker continues; see `topology::ensure`.
            (RefusalKind::AccessRefused, false) => {
                let message = format!("unknown whether {what} exists: the user may not look it up");
                Finding::warn(subject, message, "check as a user who may")
            }
            _ => Finding::fail(subject, text, RUN_SETUP),
        }
    }

    /// The finding for an exchange or a queue that exists, by the answer to its declaration.
    fn comparison(&self, subject: &'static str, what: &str, answer: Answer) -> Finding {
        let declare = self.settings.broker.declare;
        let Err(refusal) = answer else { return Finding::ok(subject, format!("{what} is as configured")) };
        match refusal.kind {
            RefusalKind::AccessRefused if declare => {
                let message = format!("the user may not configure {what}, and broker.declare = true");
                Finding::fail(subject, message, GRANT_CONFIGURE)
            }
            RefusalKind::AccessRefused => {
                Finding::ok(subject, format!("{what} exists; comparing its arguments needs the configure permission"))
            }
            RefusalKind::PreconditionFailed if declare => Finding::fail(
                subject,
                refusal.text,
                "change the configuration to match, delete it once it is empty, or set broker.declare = false",
            ),
            _ => Finding::warn(
                subject,
                refusal.text,
                "check that this is intended; with broker.declare = false the worker uses it as it is",
            ),
        }
    }

    /// Checks the bindings. Other bindings than the configured ones may be intended; `ticketlog setup` would add the
    /// configured ones.
    async fn bindings(&self, findings: &mut Vec<Finding>) -> Result<(), BrokerError> {
        let (broker, dead) = (&self.settings.broker, &self.settings.dead_letter);
        let api = ManagementApi::find(broker, self.management).await?;
        let Some(bound) = bindings_of(api.as_ref(), &self.settings.queue).await else {
            findings.push(Finding::warn(
                "broker.routing_keys",
                "bindings are unknown: AMQP does not show them, and the management API does not answer this user",
                "name the management API with --management URL, and a user who may use it",
            ));
            return Ok(());
        };
        if broker.shards > 1 {
            self.shard_bindings(api.as_ref(), findings).await;
            self.shard_exchange_bindings(api.as_ref(), findings).await;
        } else {
            let queue = format!("queue {}", self.settings.queue);
            let binding = |key: &String| self.binding("broker.routing_keys", &queue, &broker.exchange, key, &bound);
            findings.extend(self.settings.routing_keys.iter().map(binding));
            findings.extend(bound.iter().filter_map(|bound| self.unexpected_binding(&queue, bound)));
        }
        for queue in [&self.settings.dead_letter_queue, &self.settings.parked_queue] {
            if let Some(bound) = bindings_of(api.as_ref(), queue).await {
                findings.push(self.binding(
                    "dead_letter.exchange",
                    &format!("queue {queue}"),
                    &dead.exchange,
                    queue,
                    &bound,
                ));
            }
        }
        Ok(())
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
    async fn shard_bindings(&self, api: Option<&ManagementApi>, findings: &mut Vec<Finding>) {
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
    async fn shard_exchange_bindings(&self, api: Option<&ManagementApi>, findings: &mut Vec<Finding>) {
        let (broker, exchange) = (&self.settings.broker, self.settings.shard_exchange());
        let Some(api) = api else { return };
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
            _ if self.settings.broker.declare => {
                Finding::warn(subject, format!("{missing} yet; the worker binds it"), RUN_SETUP)
            }
            None => Finding::fail(subject, format!("{missing}, nor to any other: it receives nothing"), RUN_SETUP),
            Some((source, bound_key)) => Finding::warn(
                subject,
                format!("{missing}, but to exchange {source} with {bound_key}"),
                "check that this is intended; `ticketlog setup` would add the configured binding",
            ),
        }
    }

    async fn read_permission(&self, queue: &str) -> Result<Option<Finding>, BrokerError> {
        let subject = "broker.queue";
        let refusal = self.prober.read(queue).await?.err();
        Ok(match refusal.map(|refusal| (refusal.kind, refusal.text)) {
            Some((RefusalKind::AccessRefused, _)) => Some(Finding::fail(
                subject,
                format!("the user may not read queue {queue}"),
                "grant the user of broker.uri the permission to read the queue",
            )),
            Some((RefusalKind::NotFound, _)) => None,
            Some((RefusalKind::PreconditionFailed, _)) => {
                Some(Finding::ok(subject, format!("the user may read queue {queue}")))
            }
            Some((_, text)) => Some(Finding::warn(subject, text, "see RabbitMQ's log")),
            None => Some(Finding::warn(
                subject,
                format!("unknown whether the user may read queue {queue}: RabbitMQ accepted an invalid consumer"),
                "check the user's permissions with rabbitmqctl list_user_permissions",
            )),
        })
    }

    async fn write_permission(&self, exchange: &str) -> Result<Option<Finding>, BrokerError> {
        let subject = "dead_letter.exchange";
        let refusal = self.prober.write(exchange).await?.err();
        Ok(match refusal.map(|refusal| refusal.kind) {
            Some(RefusalKind::AccessRefused) => Some(Finding::fail(
                subject,
                format!("the user may not write to exchange {exchange}: dead letters cannot be published"),
                "grant the user of broker.uri the permission to write to the exchange",
            )),
            Some(RefusalKind::NotFound) => None,
            _ => Some(Finding::ok(subject, format!("the user may write to exchange {exchange}"))),
        })
    }

    /// Whether a policy can remove messages from the queue; `None` if policies are unknown, which `browsing` says.
    async fn removal(&self, subject: &'static str, queue: &str) -> Result<Option<Finding>, BrokerError> {
        let Some(api) = ManagementApi::find(&self.settings.broker, self.management).await? else { return Ok(None) };
        let Some(policies) = api.queue_policies(queue).await else { return Ok(None) };
        let keys = removing_keys(&policies);
        Ok(Some(if keys.is_empty() {
            Finding::ok(subject, format!("no policy removes messages from queue {queue}"))
        } else {
            let message = format!("a policy can remove messages from queue {queue}: {}", keys.join(", "));
            Finding::fail(subject, message, "exclude the queue from the policy: dead letters exist nowhere else")
        }))
    }

    async fn browsing(&self, subject: &'static str, queue: &str) -> Result<Option<Finding>, BrokerError> {
        if self.settings.broker.queue_type == QueueType::Classic {
            return Ok(None);
        }
        let limit_text =
            |limit: Option<i64>| limit.map_or_else(String::new, |limit| format!(" (delivery limit {limit})"));
        let browsable = check_browsable(self.connection(), &self.settings.broker, queue, self.management).await?;
        Ok(Some(match browsable {
            Ok(browsable) if browsable.policies_known => {
                Finding::ok(subject, format!("queue {queue} can be browsed safely{}", limit_text(browsable.limit)))
            }
            Ok(browsable) => Finding::warn(
                subject,
                format!(
                    "queue {queue} can be browsed safely{} unless a policy sets a lower delivery limit, which only the \
                     management API shows",
                    limit_text(browsable.limit)
                ),
                "give the user access to the management API, or check that no policy sets delivery-limit",
            ),
            Err(NotBrowsable::NoManagementApi) => Finding::warn(
                subject,
                format!("unknown whether queue {queue} can be browsed safely: the management API does not answer"),
                "correct --management, or give the user the tag `management`",
            ),
            Err(NotBrowsable::NoPermission) => Finding::ok(
                subject,
                format!("queue {queue}: its delivery limit is shown to users who may configure it"),
            ),
            Err(reason) => Finding::fail(
                subject,
                format!("queue {queue} cannot be browsed safely: {reason}"),
                "raise its delivery limit with a policy, or move its messages to a queue that `ticketlog setup` declares",
            ),
        }))
    }
}

/// The exchanges and routing keys that a queue is bound with, without the default exchange.
async fn bindings_of(api: Option<&ManagementApi>, queue: &str) -> Option<Vec<(String, String)>> {
    let bindings = api?.list("queues", &[queue, "bindings"]).await?;
    let text = |binding: &Value, key: &str| binding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let pairs = bindings.iter().map(|binding| (text(binding, "source"), text(binding, "routing_key")));
    Some(pairs.filter(|(source, _)| !source.is_empty()).collect())
}
