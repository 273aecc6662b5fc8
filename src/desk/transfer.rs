//! Owns moving dead letters from a queue to somewhere else: each is published and confirmed first, and acknowledged
//! afterwards. One that cannot be delivered stays. Must not know where they go or why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;

use crate::config::RouteSettings;
use crate::rabbitmq::{BatchPublisher, Outgoing, PublishCounts, PublishResult, Publisher, Rate};
use crate::report::Report;

use super::reader::{LetterHandle, LetterReader, SelectedLetter};
use super::{DeskError, dead_letters};

/// Most documents that are named in a report.
const MAX_DOCUMENT_IDS: usize = 100;
/// Most destinations that are counted; further ones are counted together.
const MAX_COUNTED: usize = 1000;
/// Most destinations that are named in notes.
const MAX_DESTINATIONS: usize = 20;

/// Dead letters on their way from a queue. `T` is the kind of move, for counting.
pub struct Transfer<T> {
    reader: LetterReader,
    report: Arc<dyn Report>,
    publisher: BatchPublisher<(LetterHandle, T, String)>,
    /// Whether an exchange exists, by name.
    exchanges: BTreeMap<String, bool>,
    undeliverable: BTreeMap<String, u64>,
    moved: BTreeMap<T, u64>,
    /// Of those that were moved, the first few.
    document_ids: Vec<ObjectId>,
}

impl<T: Ord + Copy> Transfer<T> {
    /// Opens a publisher for at most `rate` messages a second.
    pub async fn new(
        settings: &RouteSettings,
        mut reader: LetterReader,
        rate: Option<Rate>,
        report: &Arc<dyn Report>,
    ) -> Result<Self, DeskError> {
        let publisher = match Publisher::open_without_topology(&settings.broker, "dead letter transfer").await {
            Ok(publisher) => publisher,
            Err(error) => return reader.close(Err(error.into())).await,
        };
        reader.set_rate(rate.map(Rate::per_second));
        let publisher = BatchPublisher::new(&settings.broker, publisher, rate, Arc::clone(report)).tolerant();
        let (exchanges, undeliverable, moved) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let document_ids = Vec::new();
        Ok(Transfer { reader, report: Arc::clone(report), publisher, exchanges, undeliverable, moved, document_ids })
    }

    /// The next selected dead letter.
    pub async fn next(&mut self) -> Result<Option<SelectedLetter>, DeskError> {
        self.reader.next().await
    }

    /// Counts a dead letter that stays because it cannot be delivered.
    pub fn count_undeliverable(&mut self, destination: String) {
        let has_room = self.undeliverable.len() < MAX_COUNTED || self.undeliverable.contains_key(&destination);
        let destination = if has_room { destination } else { "(other destinations)".to_owned() };
        *self.undeliverable.entry(destination).or_default() += 1;
    }

    /// Moves a dead letter as `message`.
    pub async fn send(&mut self, message: Outgoing, handle: LetterHandle, kind: T) -> Result<(), DeskError> {
        let exchange = message.exchange();
        let destination = format!("exchange {exchange:?}, routing key {:?}", message.routing_key());
        if !self.exchanges.contains_key(exchange) {
            let exists = self.publisher.exchange_exists(exchange).await?;
            self.exchanges.insert(exchange.to_owned(), exists);
        }
        if self.exchanges.get(exchange) == Some(&false) {
            self.count_undeliverable(destination);
            return Ok(());
        }
        let results = self.publisher.push(message, (handle, kind, destination)).await?;
        self.acknowledge(results).await
    }

    async fn acknowledge(&mut self, results: Vec<((LetterHandle, T, String), PublishResult)>) -> Result<(), DeskError> {
        let mut handles = Vec::new();
        for ((mut handle, kind, destination), result) in results {
            if result == PublishResult::Confirmed {
                if let Some(span) = &mut handle.span {
                    span.confirmed();
                }
                if self.document_ids.len() < MAX_DOCUMENT_IDS {
                    self.document_ids.extend(handle.document_id);
                }
                handles.push(handle);
                *self.moved.entry(kind).or_default() += 1;
            } else {
                self.count_undeliverable(destination);
            }
        }
        self.reader.acknowledge(handles).await
    }

    /// Publishes the rest, requeues what stays and closes both connections. `result` is how the transfer went so far.
    /// Returns the counts, and how it ended.
    pub async fn finish(mut self, result: Result<(), DeskError>) -> (TransferReport<T>, Result<(), DeskError>) {
        let flushed = match result {
            Ok(()) => match self.publisher.flush().await {
                Ok(results) => self.acknowledge(results).await,
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        let interrupted = self.report.is_stopped();
        let (counts, duration) = self.publisher.close().await;
        if flushed.is_err() {
            let moved = dead_letters(self.moved.values().sum());
            self.report.note(&format!(
                "{moved} moved before the failure; the last of them may still be in the queue. Run it again"
            ));
        }
        let ended = self.reader.close(flushed).await;
        let (moved, undeliverable, document_ids) = (self.moved, self.undeliverable, self.document_ids);
        (TransferReport { counts, duration, moved, undeliverable, document_ids, interrupted }, ended)
    }
}

/// The result of a transfer.
pub struct TransferReport<T> {
    /// What was published.
    pub counts: PublishCounts,
    /// How long it took.
    pub duration: Duration,
    moved: BTreeMap<T, u64>,
    /// By destination: those that stay because they cannot be delivered.
    pub undeliverable: BTreeMap<String, u64>,
    /// The `_id`s of the documents that are made of those that were moved, as far as they are known: the first hundred.
    pub document_ids: Vec<ObjectId>,
    /// Whether it was stopped early.
    pub interrupted: bool,
}

impl<T: Ord> TransferReport<T> {
    /// Number of dead letters moved as this kind.
    pub fn moved(&self, kind: &T) -> u64 {
        self.moved.get(kind).copied().unwrap_or(0)
    }

    /// Number of dead letters that stay because they cannot be delivered.
    pub fn undeliverable(&self) -> u64 {
        self.undeliverable.values().sum()
    }

    /// A sentence for each destination that could not be delivered to.
    pub fn undeliverable_notes(&self) -> Vec<String> {
        let note = |(destination, count): (&String, &u64)| {
            let count = dead_letters(*count);
            format!(
                "{count} stayed in the queue: {destination} is not deliverable. Check that a queue is bound and not full; \
                 --to-queue replays into a queue directly"
            )
        };
        let mut notes: Vec<_> = self.undeliverable.iter().take(MAX_DESTINATIONS).map(note).collect();
        if self.undeliverable.len() > MAX_DESTINATIONS {
            notes
                .push(format!("{} more destinations are not deliverable", self.undeliverable.len() - MAX_DESTINATIONS));
        }
        notes
    }
}
