//! `ticketlog shadow`: decodes copies of what is published, beside the workers, and writes nothing.

mod report;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use clap::Args;
use tokio::time::{sleep, sleep_until};
use url::Url;

use crate::mongodb::{self, Store};
use ticketlog_config::RouteSettings;
use ticketlog_contract::{Decoder, Identity};
use ticketlog_rabbitmq::{self as rabbitmq, CopyQueue, Delivery};

use super::terminal::{after_printing, note, print_line, wrapped};
use super::worker_address::parse_http_url;
use super::{CommandError, exit};
use report::Report;

/// How long after its arrival an event must be stored by the workers.
const STORED_WITHIN: Duration = Duration::from_secs(5);
/// Most documents that are looked up together, and bytes of those that wait to be.
const MAX_LOOKUP: usize = 500;
const MAX_PENDING_BYTES: usize = 64 << 20;

/// Flags of `ticketlog shadow`.
#[derive(Debug, Args)]
#[command(
    after_help = "It reads copies from a queue of its own, which RabbitMQ deletes with the connection. The login must be allowed to configure,
write and read `<broker.queue>.shadow-*` and to read the exchange; with --compare, to find documents (the role ticketlogReader).
Dead letters that are replayed come through the exchange, too.

It binds only routing keys that another queue is bound with: otherwise RabbitMQ would confirm messages that nobody stores. It reads the
bindings from the management API, with the login of broker.uri, which needs the tag `management`.

Examples:
  ticketlog shadow --config new.toml --for 10min            what would these settings refuse?
  ticketlog shadow --config new.toml --for 10min --compare  and what would they store differently?"
)]
pub(super) struct ShadowArgs {
    /// How long.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1min")]
    duration: Duration,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Compare what would be stored with what the workers stored within five seconds.
    #[arg(long)]
    compare: bool,
    /// RabbitMQ's management API, which shows the bindings [default: broker.management, or else http on port 15672 of the broker's
    /// host, unless broker.uri uses TLS].
    #[arg(long, value_name = "URL", env = "TICKETLOG_MANAGEMENT", hide_env_values = true, value_parser = parse_http_url)]
    management: Option<Url>,
    /// Do not check the bindings: a worker is bound with all of broker.routing_keys.
    #[arg(long)]
    trust_bindings: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// A document that would be stored, until it is compared.
struct Pending {
    since: Instant,
    id: [u8; 12],
    document: RawDocumentBuf,
}

struct Shadow {
    decoder: Decoder,
    store: Option<Store>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    report: Report,
}

async fn open_store(settings: &RouteSettings) -> Result<Store, CommandError> {
    mongodb::check_settings(&settings.store)?;
    let store = Store::open(settings, 1, None).await?;
    store.probe().await?;
    Ok(store)
}

impl ShadowArgs {
    pub fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        super::block_on(async {
            let store = if self.compare { Some(open_store(settings).await?) } else { None };
            let keys = self.routing_keys(settings).await?;
            let mut copies = CopyQueue::open(settings, &keys).await?;
            note(format_args!(
                "reading copies of {} from {}; nothing is written",
                settings.broker.exchange, copies.name
            ));
            let decoder = Decoder::new(Arc::new(settings.rules()));
            let mut shadow =
                Shadow { decoder, store, pending: VecDeque::new(), pending_bytes: 0, report: Report::default() };
            let began = Instant::now();
            let ended = self.read(&mut shadow, &mut copies).await;
            copies.close().await;
            shadow.report.took = began.elapsed();
            let compared = shadow.compare_rest().await;
            let printed = if self.json {
                print_line(shadow.report.to_json())
            } else {
                shadow.report.to_text().lines().try_for_each(|line| print_line(wrapped(line, 12)))
            };
            after_printing(ended.and(compared).map(|()| 0), printed)
        })
    }

    /// The routing keys to copy: those that somebody else is bound with.
    async fn routing_keys(&self, settings: &RouteSettings) -> Result<Vec<String>, CommandError> {
        let broker = &settings.broker;
        if self.trust_bindings {
            return Ok(settings.routing_keys.clone());
        }
        if let Some(fault) = self.management.as_ref().and_then(|url| broker.management_fault(url)) {
            return Err(CommandError::usage(format!("--management {fault}")));
        }
        let keys = rabbitmq::copied_keys(settings, self.management.as_ref()).await.map_err(|error| {
            let text = format!(
                "whether a worker is bound with these routing keys is not known: {error}. Or pass --trust-bindings if a worker with \
                 the same routing keys has run. (RabbitMQ would confirm messages that only the shadow gets.)"
            );
            CommandError::text(exit::UNAVAILABLE, text)
        })?;
        let unbound = keys.unbound.join(", ");
        if keys.bound.is_empty() {
            let text = format!("nobody is bound to {} with {unbound}: there is nothing to copy", broker.exchange);
            return Err(CommandError::text(exit::UNAVAILABLE, text));
        }
        if !unbound.is_empty() {
            note(format_args!("left out, because nobody else is bound with it: {unbound}"));
        }
        Ok(keys.bound)
    }

    async fn read(&self, shadow: &mut Shadow, copies: &mut CopyQueue) -> Result<(), CommandError> {
        let end = tokio::time::Instant::now() + self.duration;
        while self.limit.is_none_or(|limit| shadow.report.events() < limit) {
            tokio::select! {
                copy = copies.next() => shadow.decode(&copy?),
                () = sleep_until(end) => break,
                _ = tokio::signal::ctrl_c() => break,
            }
            shadow.compare_due().await?;
        }
        Ok(())
    }
}

impl Shadow {
    fn decode(&mut self, delivery: &Delivery) {
        let began = Instant::now();
        let decoded = self.decoder.decode(&delivery.message(), || [0; 12]);
        self.report.decoded(delivery.body.len(), began.elapsed());
        match decoded {
            Err(rejection) => self.report.refused(&rejection),
            Ok(event) => {
                self.report.accepted();
                let is_comparable = event.identity != Identity::None && self.pending_bytes < MAX_PENDING_BYTES;
                if self.store.is_some() && is_comparable {
                    self.pending_bytes += event.document.as_bytes().len();
                    self.pending.push_back(Pending { since: began, id: event.id, document: event.document });
                } else if self.store.is_some() {
                    self.report.not_compared();
                }
            }
        }
    }

    /// Compares those that the workers have had their time for, if there are many.
    async fn compare_due(&mut self) -> Result<(), CommandError> {
        let is_due =
            |pending: Option<&Pending>| pending.is_some_and(|pending| pending.since.elapsed() >= STORED_WITHIN);
        if self.pending.len() >= MAX_LOOKUP && is_due(self.pending.get(MAX_LOOKUP - 1)) {
            self.compare(MAX_LOOKUP).await?;
        }
        Ok(())
    }

    async fn compare_rest(&mut self) -> Result<(), CommandError> {
        if let Some(last) = self.pending.back() {
            sleep(STORED_WITHIN.saturating_sub(last.since.elapsed())).await;
        }
        while !self.pending.is_empty() {
            self.compare(MAX_LOOKUP).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, count: usize) -> Result<(), CommandError> {
        let Some(store) = &self.store else { return Ok(()) };
        let batch: Vec<Pending> = self.pending.drain(..count.min(self.pending.len())).collect();
        let ids: Vec<[u8; 12]> = batch.iter().map(|pending| pending.id).collect();
        let mut stored = HashMap::new();
        store.find_by_ids(&ids, |id, document| drop(stored.insert(id, document.to_vec()))).await?;
        for pending in batch {
            self.pending_bytes -= pending.document.as_bytes().len();
            self.report.compared(pending.document.as_bytes(), stored.get(&pending.id).map(Vec::as_slice));
        }
        Ok(())
    }
}
