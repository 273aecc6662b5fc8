//! Owns what `ticketlog check` reports about RabbitMQ: connection, exchanges, queues and their arguments, permissions. Changes nothing.

use lapin::ExchangeKind;
use lapin::types::FieldTable;
use secrecy::ExposeSecret;
use url::Url;

use ticketlog_config::finding::Finding;
use ticketlog_config::{self as config, RouteSettings};

use super::super::connection::{Connection, close, connect};
use super::super::error::{BrokerError, RefusalKind};
use super::super::topology;
use super::exchange_type::missing_plugin;
use super::management_api::{ManagementApi, ManagementError};
use super::permissions::{Answer, Prober};

pub(super) const SEE_MANAGEMENT: &str = "see broker.management";
pub(super) const RUN_SETUP: &str = "run `ticketlog setup`, or set broker.declare = true";
const GRANT_CONFIGURE: &str = "grant the permission to configure it, or set broker.declare = false";

/// Checks everything that the worker needs; or else, as `operator`, what operators' commands need. `management` is the address of the
/// management API, if it is not that of the settings.
pub async fn check(settings: &RouteSettings, management: Option<&Url>, operator: bool) -> Vec<Finding> {
    let (broker, subject) = (&settings.broker, settings.broker.uri_setting);
    let mut findings = Vec::new();
    if config::unencrypted_broker_host(broker.uri.expose_secret()).is_some() {
        findings.push(Finding::warn(
            "broker.allow_plaintext",
            "passwords and events travel unencrypted to RabbitMQ",
            "use amqps:// and remove broker.allow_plaintext",
        ));
    }
    let failed =
        |error: &BrokerError| Finding::fail(subject, error.what(), error.fix().unwrap_or("see RabbitMQ's log"));
    let connection = match connect(broker, "check").await {
        Ok(connection) => connection,
        Err(error) => {
            findings.push(failed(&error));
            return findings;
        }
    };
    findings.push(Finding::ok(subject, "RabbitMQ accepts the connection, the user and the virtual host"));
    let limit = broker.call_timeout.0;
    let api = match ManagementApi::find(broker, management).await {
        Ok(api) => api.list("policies", &[]).await.map(|_| api),
        Err(error) => Err(error),
    };
    findings.push(management_finding(&api, operator));
    let prober = Prober { connection: &connection, limit };
    let declare = broker.declare && !operator;
    let check = Check { settings, prober, management, api: api.ok(), declare, operator };
    if let Err(error) = check.run(&mut findings).await {
        findings.push(failed(&error));
    }
    close(&connection, limit).await;
    findings
}

/// Whether the management API answers, and what is not known without it.
fn management_finding(api: &Result<ManagementApi, ManagementError>, operator: bool) -> Finding {
    let subject = "broker.management";
    let Err(error) = api else { return Finding::ok(subject, "RabbitMQ's management API answers") };
    let alert = if operator { "" } else { "; the alert TicketlogDeadLettersRemovable cannot fire" };
    let unknown = "so bindings, policies, and whether a dead-letter queue is full, are unknown";
    Finding::warn(subject, format!("{}, {unknown}{alert}", error.what()), error.fix())
}

pub(super) struct Check<'a> {
    pub settings: &'a RouteSettings,
    pub prober: Prober<'a>,
    /// The address of the management API that a person named.
    pub management: Option<&'a Url>,
    /// The management API, if it answers.
    pub api: Option<ManagementApi>,
    /// Whether who is checked declares what is missing.
    pub declare: bool,
    pub operator: bool,
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
        if self.worker_queues(findings).await? {
            self.bindings(findings).await;
        }
        self.dead_letter_queues(findings).await?;
        if self.operator {
            findings.extend(self.write_permission("broker.exchange", &broker.exchange, "replays").await?);
        }
        findings.extend(self.write_permission("dead_letter.exchange", &dead.exchange, "dead letters").await?);
        if !dead.receipts.is_empty() && !self.operator {
            findings.push(self.exchange("dead_letter.receipts", &dead.receipts, ExchangeKind::Topic, none()).await?);
            findings.extend(self.write_permission("dead_letter.receipts", &dead.receipts, "receipts").await?);
        }
        Ok(())
    }

    /// Checks the queues that the worker consumes. Whether all of them exist.
    async fn worker_queues(&self, findings: &mut Vec<Finding>) -> Result<bool, BrokerError> {
        let mut exist = true;
        for (at, queue) in self.settings.queues().iter().enumerate() {
            let arguments = match at {
                0 => topology::worker_queue_arguments(self.settings),
                _ => topology::shard_queue_arguments(self.settings),
            };
            exist &= self.queue("broker.queue", queue, arguments, findings).await?;
            if !self.operator {
                findings.extend(self.read_permission("broker.queue", queue).await?);
            }
        }
        Ok(exist)
    }

    pub(super) fn connection(&self) -> &Connection {
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
    pub(super) async fn queue(
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
        match (kind, self.declare) {
            (RefusalKind::NotFound, true) => {
                Finding::warn(subject, format!("{what} does not exist yet; the worker declares it"), RUN_SETUP)
            }
            (RefusalKind::NotFound, false) if self.operator => {
                Finding::fail(subject, format!("{what} does not exist"), RUN_SETUP)
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
        let declare = self.declare;
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

    /// What to do about a permission that the user lacks.
    pub(super) fn grant(&self) -> &'static str {
        if self.operator {
            "use the operators' login of deploy/rabbitmq (operator.broker_uri), or grant the permission"
        } else {
            "use the worker's login of deploy/rabbitmq (broker.uri), or grant the permission"
        }
    }

    pub(super) async fn read_permission(
        &self,
        subject: &'static str,
        queue: &str,
    ) -> Result<Option<Finding>, BrokerError> {
        let refusal = self.prober.read(queue).await?.err();
        Ok(match refusal.map(|refusal| (refusal.kind, refusal.text)) {
            Some((RefusalKind::AccessRefused, _)) => {
                Some(Finding::fail(subject, format!("the user may not read queue {queue}"), self.grant()))
            }
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

    async fn write_permission(
        &self,
        subject: &'static str,
        exchange: &str,
        what: &str,
    ) -> Result<Option<Finding>, BrokerError> {
        let refusal = self.prober.write(exchange).await?.err();
        Ok(match refusal.map(|refusal| refusal.kind) {
            Some(RefusalKind::AccessRefused) => Some(Finding::fail(
                subject,
                format!("the user may not write to exchange {exchange}: {what} cannot be published"),
                self.grant(),
            )),
            Some(RefusalKind::NotFound) => None,
            _ => Some(Finding::ok(subject, format!("the user may write to exchange {exchange}"))),
        })
    }
}
