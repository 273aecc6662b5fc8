//! Owns what `ticketlog check` looks at in RabbitMQ: the way in, exchanges, queues and their arguments, bindings,
//! permissions, delivery limits. Changes nothing. Must not know how it is printed.
//!
//! AMQP has no questions, so what may be done is asked by wrong requests: RabbitMQ checks permissions before it refuses the
//! rest (403 before 406).

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::config::{self, QueueType, Settings};
use crate::finding::Finding;

use super::greeting;
use super::lives::{self, Verdict};
use super::management::Management;
use super::{BrokerError, call, close, connect, topology};

const SETUP: &str = "run `ticketlog setup`, or set broker.declare = true";

/// Looks at everything that the worker needs. `management` is the base address of the management API, if not the usual one.
pub async fn inspect(settings: &Settings, management: Option<&Url>) -> Vec<Finding> {
    let mut found = way_in(settings);
    let connection = match connect(&settings.broker, "check").await {
        Ok(connection) => connection,
        Err(error) => {
            found.push(Finding::fail("broker.uri", error.to_string(), "correct broker.uri, or start RabbitMQ"));
            return found;
        }
    };
    found.push(Finding::ok("broker.uri", "RabbitMQ answers, and lets us into the virtual host"));
    let inspection = Inspection { settings, connection: &connection, management };
    if let Err(error) = inspection.all(&mut found).await {
        found.push(Finding::fail("broker.uri", error.to_string(), "see RabbitMQ's own log"));
    }
    close(&connection, settings.broker.call_timeout.0).await;
    found
}

fn way_in(settings: &Settings) -> Vec<Finding> {
    let away = config::broker_in_the_open(settings.broker.uri.expose_secret());
    away.map(|_| {
        let said = "passwords and tickets travel unencrypted to RabbitMQ (broker.allow_plaintext)";
        Finding::warn("broker.allow_plaintext", said, "use amqps://, and take the setting back")
    })
    .into_iter()
    .collect()
}

struct Inspection<'a> {
    settings: &'a Settings,
    connection: &'a Connection,
    management: Option<&'a Url>,
}

/// How RabbitMQ answered.
enum Answer {
    Yes,
    Missing,
    Forbidden,
    Differs(String),
    Other(String),
}

impl Inspection<'_> {
    async fn all(&self, found: &mut Vec<Finding>) -> Result<(), BrokerError> {
        let (broker, dead) = (&self.settings.broker, &self.settings.dead_letter);
        found.push(self.exchange("broker.exchange", &broker.exchange, ExchangeKind::Topic).await?);
        found.push(self.exchange("dead_letter.exchange", &dead.exchange, ExchangeKind::Direct).await?);
        let wanted = topology::work_arguments(broker, dead);
        if self.queue("broker.queue", &broker.queue, wanted, found).await? {
            self.bindings(found).await;
        }
        self.reading(&broker.queue, found).await?;
        for (about, queue) in [("dead_letter.queue", &dead.queue), ("dead_letter.parked_queue", &dead.parked_queue)] {
            if self.queue(about, queue, topology::dead_arguments(broker), found).await? {
                self.lives(about, queue, found).await?;
            }
        }
        self.writing(&dead.exchange, found).await
    }

    async fn channel(&self) -> Result<Channel, BrokerError> {
        call(self.settings.broker.call_timeout.0, "opening a channel", self.connection.create_channel()).await
    }

    async fn ask<T>(&self, request: impl Future<Output = lapin::Result<T>>) -> Result<Answer, BrokerError> {
        let Ok(answer) = timeout(self.settings.broker.call_timeout.0, request).await else {
            return Err(BrokerError::Timeout("a question"));
        };
        Ok(match answer.map_err(|error| BrokerError::of_topology(&error)) {
            Ok(_) => Answer::Yes,
            // A classic queue whose node is away is not found either, but not missing.
            Err(BrokerError::Topology(said)) if said.starts_with("NOT_FOUND - no ") => Answer::Missing,
            Err(BrokerError::Topology(said)) if said.starts_with("ACCESS_REFUSED") => Answer::Forbidden,
            Err(BrokerError::Topology(said)) if said.starts_with("PRECONDITION_FAILED") => Answer::Differs(said),
            Err(BrokerError::Topology(said)) => Answer::Other(said),
            Err(error) => return Err(error),
        })
    }

    async fn exchange(&self, about: &'static str, name: &str, kind: ExchangeKind) -> Result<Finding, BrokerError> {
        let passive = ExchangeDeclareOptions { passive: true, durable: true, ..Default::default() };
        let channel = self.channel().await?;
        let answer =
            self.ask(channel.exchange_declare(name.into(), kind.clone(), passive, FieldTable::default())).await?;
        if !matches!(answer, Answer::Yes) {
            return Ok(self.absent(about, "exchange", name, answer));
        }
        let whole = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let answer = self.ask(channel.exchange_declare(name.into(), kind, whole, FieldTable::default())).await?;
        Ok(self.compared(about, "exchange", name, answer))
    }

    /// Whether the queue is there; it is declared only if it is, and so never made.
    async fn queue(
        &self,
        about: &'static str,
        name: &str,
        wanted: FieldTable,
        found: &mut Vec<Finding>,
    ) -> Result<bool, BrokerError> {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let channel = self.channel().await?;
        let answer = self.ask(channel.queue_declare(name.into(), passive, FieldTable::default())).await?;
        if !matches!(answer, Answer::Yes) {
            found.push(self.absent(about, "queue", name, answer));
            return Ok(false);
        }
        let whole = QueueDeclareOptions { durable: true, ..Default::default() };
        let answer = self.ask(channel.queue_declare(name.into(), whole, wanted)).await?;
        found.push(self.compared(about, "queue", name, answer));
        Ok(true)
    }

    fn absent(&self, about: &'static str, what: &str, name: &str, answer: Answer) -> Finding {
        match answer {
            Answer::Missing if self.settings.broker.declare => {
                Finding::warn(about, format!("{what} {name} is not there yet; the worker declares it"), SETUP)
            }
            Answer::Missing => {
                Finding::fail(about, format!("{what} {name} is missing, and broker.declare = false"), SETUP)
            }
            Answer::Forbidden if self.settings.broker.declare => Finding::fail(
                about,
                format!("{what} {name} may not even be looked at, and broker.declare = true"),
                "grant configure on it, or set broker.declare = false",
            ),
            // The worker goes on without; see `topology::ensure`.
            Answer::Forbidden => Finding::warn(
                about,
                format!("whether {what} {name} is there is not known: the user may not even look"),
                "ask with a login that may",
            ),
            Answer::Yes | Answer::Differs(_) | Answer::Other(_) => Finding::fail(about, said(answer), SETUP),
        }
    }

    fn compared(&self, about: &'static str, what: &str, name: &str, answer: Answer) -> Finding {
        let declare = self.settings.broker.declare;
        match answer {
            Answer::Yes => Finding::ok(about, format!("{what} {name} is as configured")),
            Answer::Forbidden if declare => Finding::fail(
                about,
                format!("{what} {name} is there, but the user may not configure it, and broker.declare = true"),
                "grant configure on it, or set broker.declare = false",
            ),
            Answer::Forbidden => Finding::ok(
                about,
                format!(
                    "{what} {name} is there; its arguments can't be compared without the permission to configure it"
                ),
            ),
            Answer::Differs(said) if declare => Finding::fail(
                about,
                said,
                "change the configuration to match, delete it when it is empty, or set broker.declare = false",
            ),
            other => Finding::warn(
                about,
                said(other),
                "make sure that this is meant; broker.declare = false uses it as it is",
            ),
        }
    }

    /// Whether what is published reaches its queue. Another way than the configured one may be meant, and `setup` would add
    /// the direct one to it.
    async fn bindings(&self, found: &mut Vec<Finding>) {
        let (broker, dead) = (&self.settings.broker, &self.settings.dead_letter);
        let about = "broker.routing_keys";
        let api = self.api().await;
        let Some(bound) = self.sources(api.as_ref(), &broker.queue).await else {
            let said = "bindings cannot be seen: AMQP does not show them, and no management API answers this user";
            let fix = "name the management API with --management URL, for a user who may ask it";
            return found.push(Finding::warn(about, said, fix));
        };
        for key in &broker.routing_keys {
            found.push(bound_or_not(about, &broker.queue, (&broker.exchange, key), &bound, broker.declare));
        }
        let about = "dead_letter.exchange";
        for queue in [&dead.queue, &dead.parked_queue] {
            if let Some(bound) = self.sources(api.as_ref(), queue).await {
                found.push(bound_or_not(about, queue, (&dead.exchange, queue), &bound, broker.declare));
            }
        }
    }

    /// The exchanges and keys that a queue is bound with, beside the default one.
    async fn sources(&self, api: Option<&Management>, queue: &str) -> Option<Vec<(String, String)>> {
        let listed = api?.list("queues", &[queue, "bindings"]).await?;
        let text = |binding: &Value, key: &str| binding.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pairs = listed.iter().map(|binding| (text(binding, "source"), text(binding, "routing_key")));
        Some(pairs.filter(|(source, _)| !source.is_empty()).collect())
    }

    async fn api(&self) -> Option<Management> {
        let addresses = config::broker_addresses(self.settings.broker.uri.expose_secret());
        let uri = addresses.first()?.parse::<AMQPUri>().ok()?;
        Management::find(&uri, self.management, &greeting::of(&addresses).await).await
    }

    /// A consumer whose priority is a text is refused, after the permission to read was looked at.
    async fn reading(&self, queue: &str, found: &mut Vec<Finding>) -> Result<(), BrokerError> {
        let mut wrong = FieldTable::default();
        wrong.insert("x-priority".into(), AMQPValue::LongString("none".into()));
        let channel = self.channel().await?;
        let limit = self.settings.broker.call_timeout.0;
        call(limit, "setting the prefetch", channel.basic_qos(1, BasicQosOptions::default())).await?;
        let request = channel.basic_consume(queue.into(), "check".into(), BasicConsumeOptions::default(), wrong);
        found.push(match self.ask(request).await? {
            Answer::Forbidden => Finding::fail(
                "broker.queue",
                format!("the user may not read queue {queue}"),
                "grant read on the queue to the user of broker.uri",
            ),
            Answer::Missing => return Ok(()),
            Answer::Differs(_) => Finding::ok("broker.queue", format!("the user may read queue {queue}")),
            other => Finding::warn("broker.queue", format!("reading {queue}: {}", said(other)), "look at it by hand"),
        });
        Ok(())
    }

    /// A message that claims another user is refused, after the permission to write was looked at; it goes nowhere.
    async fn writing(&self, exchange: &str, found: &mut Vec<Finding>) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        call(self.settings.broker.call_timeout.0, "confirms", channel.confirm_select(Default::default())).await?;
        let claim = BasicProperties::default().with_user_id("somebody-else-than-the-worker".into());
        let (key, options) =
            ("ticketlog.check.bound.nowhere", BasicPublishOptions { mandatory: true, ..Default::default() });
        let request = async { channel.basic_publish(exchange.into(), key.into(), options, b"", claim).await?.await };
        found.push(match self.ask(request).await? {
            Answer::Forbidden => Finding::fail(
                "dead_letter.exchange",
                format!("the user may not write to exchange {exchange}: no dead letter could be published"),
                "grant write on the exchange to the user of broker.uri",
            ),
            Answer::Missing => return Ok(()),
            _ => Finding::ok("dead_letter.exchange", format!("the user may write to exchange {exchange}")),
        });
        Ok(())
    }

    async fn lives(&self, about: &'static str, queue: &str, found: &mut Vec<Finding>) -> Result<(), BrokerError> {
        if self.settings.broker.queue_type == QueueType::Classic {
            return Ok(());
        }
        let verdict = lives::of(self.connection, &self.settings.broker, queue, self.management).await?;
        found.push(match verdict {
            Verdict::Safe(limit) => Finding::ok(about, format!("queue {queue} can be looked through{}", up_to(limit))),
            Verdict::Likely(limit, unknown) => Finding::warn(
                about,
                format!("queue {queue} can likely be looked through{}; {unknown}", up_to(limit)),
                "let the user ask the management API, or make sure that no policy sets a delivery-limit",
            ),
            Verdict::Deadly(why) => Finding::fail(
                about,
                format!("queue {queue} destroys what is looked at: {why}"),
                "raise its delivery limit by policy, or move its messages to a queue that `ticketlog setup` declares",
            ),
            Verdict::Unanswered => Finding::warn(
                about,
                format!("whether queue {queue} can be looked through is not known: the management API gives no answer"),
                "correct --management (plain http), or give the user the tag `management`",
            ),
            Verdict::Forbidden => Finding::ok(
                about,
                format!("the delivery limit of queue {queue} is told only to who may configure it (the desk's user)"),
            ),
        });
        Ok(())
    }
}

fn bound_or_not(
    about: &'static str,
    queue: &str,
    (exchange, key): (&str, &str),
    bound: &[(String, String)],
    declare: bool,
) -> Finding {
    if bound.iter().any(|(source, with)| source == exchange && with == key) {
        return Finding::ok(about, format!("{queue} is bound to {exchange} with {key}"));
    }
    let said = format!("{queue} is not bound to {exchange} with {key}");
    match bound.first() {
        _ if declare => Finding::warn(about, format!("{said} yet; the worker binds it"), SETUP),
        None => Finding::fail(about, format!("{said}, nor to anything else: nothing reaches it"), SETUP),
        Some((source, with)) => Finding::warn(
            about,
            format!("{said}, but to {source} with {with}"),
            "make sure that this is meant; `ticketlog setup` would add the binding of the configuration",
        ),
    }
}

fn said(answer: Answer) -> String {
    match answer {
        Answer::Yes => "it is there".to_owned(),
        Answer::Missing => "it is missing".to_owned(),
        Answer::Forbidden => "not permitted".to_owned(),
        Answer::Differs(said) | Answer::Other(said) => said,
    }
}

fn up_to(limit: Option<i64>) -> String {
    limit.map_or_else(String::new, |limit| format!(" (delivery limit {limit})"))
}
