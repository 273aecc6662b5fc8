//! Owns moving dead letters from a queue to somewhere else: each is published and confirmed first, and acknowledged
//! afterwards. One that cannot be delivered stays. Must not know where they go or why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Settings;
use crate::rabbitmq::{Outgoing, PublishResult, Publisher};

use super::super::batch_publisher::{BatchPublisher, PublishCounts, progress};
use super::super::terminal::note;
use super::super::{CommandError, exit};
use super::format::dead_letters;
use super::reader::{LetterHandle, LetterReader, SelectedLetter};

/// Most destinations that are named in notes.
const MAX_DESTINATIONS: usize = 20;

/// Dead letters on their way from a queue. `T` is the kind of move, for counting.
pub(super) struct Transfer<T> {
    reader: LetterReader,
    publisher: BatchPublisher<(LetterHandle, T, String)>,
    /// Whether an exchange exists, by name.
    exchanges: BTreeMap<String, bool>,
    undeliverable: BTreeMap<String, u64>,
    moved: BTreeMap<T, u64>,
}

impl<T: Ord + Copy> Transfer<T> {
    /// Opens a publisher for at most `rate` messages a second. From now on the first SIGINT ends the transfer in order, the
    /// second at once.
    pub async fn new(
        settings: &Settings,
        mut reader: LetterReader,
        rate: Option<f64>,
        done: &str,
    ) -> Result<Self, CommandError> {
        let publisher = match Publisher::open_without_topology(&settings.broker, "dead letter transfer").await {
            Ok(publisher) => publisher,
            Err(error) => return reader.close(Err(error.into())).await,
        };
        reader.set_rate(rate);
        let bar = progress(Some(reader.total()), done);
        tokio::spawn(stop_on_interrupt(reader.stop_flag()));
        let publisher = BatchPublisher::new(settings, publisher, rate, bar).tolerant();
        let (exchanges, undeliverable, moved) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Transfer { reader, publisher, exchanges, undeliverable, moved })
    }

    /// The next selected dead letter.
    pub async fn next(&mut self) -> Result<Option<SelectedLetter>, CommandError> {
        self.reader.next().await
    }

    /// Counts a dead letter that stays because it cannot be delivered.
    pub fn count_undeliverable(&mut self, destination: String) {
        *self.undeliverable.entry(destination).or_default() += 1;
    }

    /// Moves a dead letter as `message`.
    pub async fn send(&mut self, message: Outgoing, handle: LetterHandle, kind: T) -> Result<(), CommandError> {
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

    async fn acknowledge(
        &mut self,
        results: Vec<((LetterHandle, T, String), PublishResult)>,
    ) -> Result<(), CommandError> {
        let mut handles = Vec::new();
        for ((handle, kind, destination), result) in results {
            if result == PublishResult::Confirmed {
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
    pub async fn finish(mut self, result: Result<(), CommandError>) -> (TransferReport<T>, Result<(), CommandError>) {
        let flushed = match result {
            Ok(()) => match self.publisher.flush().await {
                Ok(results) => self.acknowledge(results).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let interrupted = self.reader.stop_flag().load(Ordering::Relaxed);
        let (counts, duration) = self.publisher.close().await;
        if flushed.is_err() {
            let moved = dead_letters(self.moved.values().sum());
            note(format_args!(
                "{moved} moved before the failure; the last of them may still be in the queue. Run it again"
            ));
        }
        let ended = self.reader.close(flushed).await;
        let (moved, undeliverable) = (self.moved, self.undeliverable);
        (TransferReport { counts, duration, moved, undeliverable, interrupted }, ended)
    }
}

async fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
        note("stopping; a second interrupt ends it at once, which loses nothing");
    }
}

/// The result of a transfer.
pub(super) struct TransferReport<T> {
    pub counts: PublishCounts,
    pub duration: Duration,
    moved: BTreeMap<T, u64>,
    pub undeliverable: BTreeMap<String, u64>,
    interrupted: bool,
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

    /// Prints a note for each destination that could not be delivered to.
    pub fn print_undeliverable(&self) {
        for (destination, count) in self.undeliverable.iter().take(MAX_DESTINATIONS) {
            let count = dead_letters(*count);
            note(format_args!(
                "{count} stayed in the queue: {destination} is not deliverable. Check that a queue is bound and not full; \
                 --to-queue replays into a queue directly"
            ));
        }
        if self.undeliverable.len() > MAX_DESTINATIONS {
            note(format_args!("{} more destinations are not deliverable", self.undeliverable.len() - MAX_DESTINATIONS));
        }
    }

    pub fn exit_code(&self) -> u8 {
        match (self.undeliverable.is_empty(), self.interrupted) {
            (false, _) => exit::UNAVAILABLE,
            (true, true) => exit::INTERRUPTED,
            (true, false) => 0,
        }
    }
}
