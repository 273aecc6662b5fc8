//! Moves dead letters from a queue to somewhere else: each is published and confirmed first, and acknowledged afterwards. One
//! that cannot be delivered stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::oid::ObjectId;

use ticketlog_rabbitmq::report::Report;
use ticketlog_rabbitmq::{AckHandle, BatchPublisher, BrokerError, Outgoing, PublishResult, Publisher, Rate, Results};

use super::reader::{DeadLetter, DeadLetterRemover};
use super::{DeskError, Progress, Run, Selection, Touched};
use ticketlog_config::format::dead_letters;

/// Most documents that are named in a report.
const MAX_DOCUMENT_IDS: usize = 100;

/// The span of a dead letter's replay, in the trace of its message.
pub trait ReplaySpan: Send + Sync {
    /// RabbitMQ has confirmed it.
    fn confirmed(&mut self);
}

/// What is to be remembered of a dead letter until its confirm comes.
pub(super) struct Sent {
    /// Its `dl-id`.
    pub id: String,
    /// What becomes of it.
    pub touched: Touched,
    /// Whether a replay parks it instead.
    pub is_parked: bool,
    /// The `_id` of the document that is made of it, if that is known before.
    pub document_id: Option<ObjectId>,
    /// The span of its replay, if its trace is recorded.
    pub span: Option<Box<dyn ReplaySpan>>,
}

impl Sent {
    pub fn new(id: String, touched: Touched) -> Sent {
        Sent { id, touched, is_parked: false, document_id: None, span: None }
    }
}

/// A dead letter that is published, and still in its queue.
struct Unconfirmed {
    ack: AckHandle,
    destination: String,
    sent: Sent,
}

/// Dead letters on their way from a queue.
pub(super) struct Transfer<'a> {
    remover: DeadLetterRemover,
    report: Arc<dyn Report>,
    publisher: BatchPublisher<Unconfirmed>,
    /// Whether an exchange exists, by name.
    exchanges: BTreeMap<String, bool>,
    pub progress: &'a mut Progress,
}

impl<'a> Transfer<'a> {
    /// Opens the queue, and a publisher for at most `rate` messages a second. What is done is counted and named in `progress`.
    pub async fn open(
        run: Run<'_>,
        selection: &Selection,
        rate: Option<Rate>,
        progress: &'a mut Progress,
    ) -> Result<Self, DeskError> {
        let (remover, broker) = (DeadLetterRemover::open(run, selection, rate).await?, &run.settings.broker);
        let publisher = match Publisher::open_without_topology(broker, "dead letter transfer").await {
            Ok(publisher) => publisher,
            Err(error) => return remover.close(Err(error.into())).await,
        };
        let report = Arc::clone(run.report);
        let publisher = BatchPublisher::new(publisher, rate, Arc::clone(&report)).tolerant();
        // What RabbitMQ has taken back would be there twice.
        let publisher = publisher.only_if(|unconfirmed: &Unconfirmed| unconfirmed.ack.is_usable());
        Ok(Transfer { remover, report, publisher, exchanges: BTreeMap::new(), progress })
    }

    /// The next selected dead letter.
    pub async fn next(&mut self) -> Result<Option<(DeadLetter, AckHandle)>, DeskError> {
        self.remover.next().await
    }

    /// Moves a dead letter as `message`.
    pub async fn send(&mut self, message: Outgoing, ack: AckHandle, sent: Sent) -> Result<(), DeskError> {
        let exchange = message.exchange();
        let destination = format!("exchange {exchange:?}, routing key {:?}", message.routing_key());
        if !self.exchanges.contains_key(exchange) {
            let exists = self.publisher.exchange_exists(exchange).await?;
            self.exchanges.insert(exchange.to_owned(), exists);
        }
        if self.exchanges.get(exchange) == Some(&false) {
            self.progress.outcome.add_undeliverable(destination, 1);
            return Ok(());
        }
        self.remover.check()?;
        let mut results = Vec::new();
        let pushed = self.publisher.push(message, Unconfirmed { ack, destination, sent }, &mut results).await;
        self.acknowledge(results).await?;
        pushed.map_err(|error| self.why(error))
    }

    async fn acknowledge(&mut self, results: Results<Unconfirmed>) -> Result<(), DeskError> {
        let (mut confirmed, mut named) = (Vec::new(), Vec::new());
        for (Unconfirmed { ack, destination, sent }, result) in results {
            if result != PublishResult::Confirmed {
                self.progress.outcome.add_undeliverable(destination, 1);
                continue;
            }
            if let Some(mut span) = sent.span {
                span.confirmed();
            }
            if self.progress.outcome.document_ids.len() < MAX_DOCUMENT_IDS {
                self.progress.outcome.document_ids.extend(sent.document_id);
            }
            *(if sent.is_parked { &mut self.progress.outcome.parked } else { &mut self.progress.outcome.count }) += 1;
            named.push((sent.id, sent.touched, sent.document_id));
            confirmed.push(ack);
        }
        let acknowledged = self.remover.acknowledge(confirmed, |_| {}).await;
        named.iter().for_each(|(id, touched, document)| self.progress.name(*touched, id, *document));
        acknowledged
    }

    /// Publishes what it has collected.
    pub async fn flush(&mut self) -> Result<(), DeskError> {
        let mut results = Vec::new();
        let flushed = self.publisher.flush(&mut results).await;
        self.acknowledge(results).await?;
        flushed.map_err(|error| self.why(error))?;
        self.remover.check()
    }

    /// An operator who stops it does not wait for the confirms of a publisher that RabbitMQ blocks.
    fn why(&self, error: BrokerError) -> DeskError {
        match error {
            BrokerError::Timeout(_) if self.report.is_stopped() => DeskError::Stopped,
            error => error.into(),
        }
    }

    /// Publishes the rest, requeues what stays and closes both connections. `sent` is how it went so far.
    pub async fn finish(mut self, sent: Result<(), DeskError>) -> Result<(), DeskError> {
        let flushed = match sent {
            Ok(()) => self.flush().await,
            Err(error) => Err(error),
        };
        let (counts, duration) = self.publisher.close().await;
        (self.progress.outcome.bytes, self.progress.outcome.duration) = (counts.bytes, duration);
        if flushed.is_err() {
            let moved = dead_letters(self.progress.outcome.moved());
            self.report.note(&format!(
                "{moved} moved before this ended; the last of them may still be in the queue. Run it again"
            ));
        }
        self.remover.close(flushed).await
    }
}
