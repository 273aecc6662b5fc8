//! Reads the selected dead letters of a queue: one reader leaves them in the queue, the other removes them.
//!
//! A dead letter on its way out passes through these hands, and through no others:
//!
//! ```text
//! queue -> DeadLetterRemover -> DeadLetter + AckHandle -> the operation -> Transfer (published, confirmed) -> acknowledge
//! ```
//!
//! Purging and erasing write to a file, or nothing, where others transfer. What is not acknowledged is requeued in its place.

use std::borrow::Cow;
use std::sync::Arc;

use bson::Bson;

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::{DeadLetterRecord, Filter};
use ticketlog_contract::{Rules, decompressed_body, read_json};
use ticketlog_rabbitmq::report::Report;
use ticketlog_rabbitmq::{AckHandle, BrowsedMessage, Delivery, MarkedBrowser, QueueBrowser, Rate};

use super::{DeskError, Selection};
use ticketlog_config::format::dead_letters;

/// With what a queue is read.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The settings of the route.
    pub settings: &'a RouteSettings,
    /// Where it reports to.
    pub report: &'a Arc<dyn Report>,
}

/// A dead letter.
#[derive(Debug)]
pub struct DeadLetter {
    /// Its `dl-id`, or a hash of what it is.
    pub id: String,
    /// As it is in the queue.
    pub delivery: Delivery,
    /// What its headers say.
    pub record: DeadLetterRecord,
    /// Its position in the queue, from 1.
    pub position: u32,
}

impl DeadLetter {
    /// As a line of the archive format, without line end.
    pub fn archive(&self, queue: &str) -> String {
        self.delivery.archive(&self.record, queue).to_line()
    }
}

/// Which messages of a queue are selected.
struct Selector {
    filter: Filter,
    rules: Rules,
    worker_queue: String,
    /// How many more to select.
    remaining: u32,
    /// How many were read, and how many of them are selected.
    read: u64,
    selected: u64,
    report: Arc<dyn Report>,
}

impl Selector {
    fn wants_more(&self) -> bool {
        self.remaining > 0 && !self.report.is_stopped()
    }

    fn select(&mut self, message: BrowsedMessage) -> Option<(DeadLetter, AckHandle)> {
        let BrowsedMessage { delivery, position, ack } = message;
        let record = delivery.record(&self.worker_queue);
        let id = delivery.dead_letter_id(&record);
        self.read += 1;
        let body = || json_body(&delivery, &self.rules);
        if !self.filter.matches(&delivery.dead_letter_fields(&record, &id), body) {
            return None;
        }
        self.remaining -= 1;
        self.selected += 1;
        Some((DeadLetter { id, delivery, record, position }, ack))
    }
}

impl Selector {
    /// Says so if the whole queue was read and the filter matches nothing in it.
    fn note_no_match(&self) {
        if self.selected == 0 && self.read > 0 && !self.filter.is_empty() && !self.report.is_stopped() {
            self.report.note(&format!("none of {} match", dead_letters(self.read)));
        }
    }
}

/// One pass through a queue that changes nothing.
pub struct DeadLetterReader {
    browser: QueueBrowser,
    selector: Selector,
}

impl DeadLetterReader {
    /// Opens the queue; waits for another `ticketlog dead` that uses it.
    pub async fn open(run: Run<'_>, selection: &Selection) -> Result<DeadLetterReader, DeskError> {
        let (Run { settings, report }, Selection { source, filter, limit }) = (run, selection);
        let name = &source.queue;
        let options = &source.browse;
        if let Some(fault) = options.management.as_ref().and_then(|url| settings.broker.management_fault(url)) {
            return Err(DeskError::Usage(format!("--management {fault}")));
        }
        let (filter, remaining) = (filter.clone(), limit.unwrap_or(u32::MAX));
        // Whether a message is selected is known only when it is read.
        let max = if filter.is_empty() { remaining } else { u32::MAX };
        let browser = QueueBrowser::open(&settings.broker, name, options, max, report).await?;
        if let Some(reason) = &browser.policies_unknown {
            report.note(&format!("policies are unknown, and one may set a lower delivery limit: {reason}"));
        }
        if browser.has_other_readers {
            report.note(&format!("something else reads queue {name}; messages that it holds are not seen here"));
        }
        let (rules, worker_queue) = (settings.rules(), settings.queue.clone());
        let report = Arc::clone(report);
        let selector = Selector { filter, rules, worker_queue, remaining, read: 0, selected: 0, report };
        let reader = DeadLetterReader { browser, selector };
        run.report.set_total(u64::from(reader.total()));
        Ok(reader)
    }

    /// Number of messages to read.
    pub fn total(&self) -> u32 {
        self.browser.count().min(self.selector.remaining)
    }

    /// The next selected dead letter.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, DeskError> {
        while self.selector.wants_more() {
            let Some(message) = self.browser.next().await? else { break };
            if let Some((dead_letter, _)) = self.selector.select(message) {
                return Ok(Some(dead_letter));
            }
        }
        Ok(None)
    }

    /// Hands over all selected dead letters, until the operator stops it, and requeues everything.
    pub async fn read_all(mut self, mut each: impl FnMut(DeadLetter)) -> Result<(), DeskError> {
        let read = loop {
            match self.next().await {
                Ok(Some(dead_letter)) => each(dead_letter),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.close(read).await
    }

    /// Requeues everything. An error in `result` has priority.
    pub async fn close<T>(self, result: Result<T, DeskError>) -> Result<T, DeskError> {
        let closed = self.browser.close().await;
        let value = result?;
        closed?;
        self.selector.note_no_match();
        Ok(value)
    }

    async fn read_to_end(&mut self) -> Result<(), DeskError> {
        while self.browser.next().await?.is_some() {
            if self.selector.report.is_stopped() {
                return Err(DeskError::Stopped);
            }
        }
        Ok(())
    }
}

/// One pass through a queue by which dead letters leave it.
pub(super) struct DeadLetterRemover {
    browser: MarkedBrowser,
    selector: Selector,
    is_at_end: bool,
}

impl DeadLetterRemover {
    /// Opens the queue. It will read those that are in the queue now, at most `rate` a second, and none that arrives later. Each of
    /// them is read once more for that: it marks them, without a clock and whoever sends to the queue
    /// ([`QueueBrowser::mark`], ADR 26). A forecast is another reading, before: nothing is held while a person thinks about it.
    pub async fn open(run: Run<'_>, selection: &Selection, rate: Option<Rate>) -> Result<DeadLetterRemover, DeskError> {
        let mut reader = DeadLetterReader::open(run, selection).await?;
        // All are read to mark them, also those that are not selected.
        run.report.set_total(u64::from(reader.browser.count()));
        if let Err(error) = reader.read_to_end().await {
            return reader.close(Err(error)).await;
        }
        let DeadLetterReader { browser, selector } = reader;
        let browser = browser.mark(rate).await?;
        run.report.set_done(0);
        run.report.set_total(u64::from(browser.remaining.min(selector.remaining)));
        Ok(DeadLetterRemover { browser, selector, is_at_end: false })
    }

    /// The next selected dead letter, and what removes it from the queue.
    pub async fn next(&mut self) -> Result<Option<(DeadLetter, AckHandle)>, DeskError> {
        while self.selector.wants_more() {
            let Some(message) = self.browser.next().await? else {
                self.is_at_end = true;
                break;
            };
            if let Some(selected) = self.selector.select(message) {
                return Ok(Some(selected));
            }
        }
        Ok(None)
    }

    /// Whether what it has handed over can be removed; else it is in the queue again.
    pub fn check(&self) -> Result<(), DeskError> {
        Ok(self.browser.check()?)
    }

    /// Removes dead letters from the queue; `removed` is called with the place of each.
    pub async fn acknowledge(&mut self, acks: Vec<AckHandle>, removed: impl FnMut(usize)) -> Result<(), DeskError> {
        Ok(self.browser.acknowledge(acks, removed).await?)
    }

    /// Requeues what was not acknowledged. An error in `result` has priority.
    pub async fn close<T>(self, result: Result<T, DeskError>) -> Result<T, DeskError> {
        let (unmet, later) = (self.browser.remaining, self.browser.later);
        if later > 0 {
            let later = dead_letters(later.into());
            self.selector.report.note(&format!("{later} stay: they arrived after this began"));
        }
        let closed = self.browser.close().await;
        let value = result?;
        closed?;
        self.selector.note_no_match();
        if self.is_at_end && unmet > 0 { Err(DeskError::Unmet(unmet)) } else { Ok(value) }
    }
}

/// The body as a person or an edit reads it: decompressed, if it can be.
pub fn readable_body<'d>(delivery: &'d Delivery, rules: &Rules) -> Cow<'d, [u8]> {
    decompressed_body(&delivery.message(), rules).unwrap_or(Cow::Borrowed(&delivery.body))
}

/// The body as JSON, as it was sent; `None` if it is something else.
pub(super) fn json_body(delivery: &Delivery, rules: &Rules) -> Option<Bson> {
    read_json(&decompressed_body(&delivery.message(), rules).ok()?)
}
