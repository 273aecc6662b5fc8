//! Reading the selected dead letters of a queue; the others stay where they are.

use std::borrow::Cow;
use std::sync::Arc;

use bson::Bson;
use bson::oid::ObjectId;

use crate::config::RouteSettings;
use crate::dead_letter::{DeadLetterRecord, Filter};
use crate::event::{self, Rules};
use crate::observe::traces::ReplaySpan;
use crate::rabbitmq::{AckHandle, BrowsedMessage, Delivery, QueueBrowser};
use crate::report::Report;

use super::{DeskError, Selection, Source, dead_letters};

/// One pass through a queue.
pub struct LetterReader {
    browser: QueueBrowser,
    filter: Filter,
    rules: Rules,
    worker_queue: String,
    /// How many more to select.
    remaining: u32,
    /// Whether the browser has delivered all that it will.
    is_at_end: bool,
    report: Arc<dyn Report>,
}

/// A selected dead letter.
pub struct SelectedLetter {
    /// Its `dl-id`, or a hash of what it is.
    pub id: String,
    /// As it is in the queue.
    pub delivery: Delivery,
    /// What its headers say.
    pub record: DeadLetterRecord,
    /// Its position in the queue, from 1.
    pub position: u32,
    /// Removes it.
    pub handle: LetterHandle,
}

/// Removes a dead letter from its queue when passed to [`LetterReader::acknowledge`].
pub struct LetterHandle {
    ack: AckHandle,
    /// The `_id` of the document that is made of it, if that is known before.
    pub document_id: Option<ObjectId>,
    /// The span of its replay, if its trace is recorded.
    pub span: Option<ReplaySpan>,
}

impl LetterReader {
    /// Opens the queue; waits for another `ticketlog dead` that uses it.
    pub async fn open(
        settings: &RouteSettings,
        source: &Source,
        selection: &Selection,
        report: &Arc<dyn Report>,
    ) -> Result<LetterReader, DeskError> {
        let name = &source.queue;
        let on_wait = || report.note(&format!("another `ticketlog dead` uses queue {name}; waiting until it is done"));
        let options = &source.browse;
        if let Some(fault) = options.management.as_ref().and_then(|url| settings.broker.management_fault(url)) {
            return Err(DeskError::Usage(format!("--management {fault}")));
        }
        let mut browser = QueueBrowser::open(&settings.broker, name, options, on_wait).await?;
        if browser.policies_unknown {
            report.note(
                "a policy could set a lower delivery limit, which only RabbitMQ's management API shows; name it with \
                 --management URL (--trust-queue silences this)",
            );
        }
        if browser.has_other_readers {
            report.note(&format!("something else reads queue {name}; messages that it holds are not seen here"));
        }
        let filter = selection.filter.clone();
        let remaining = selection.limit.unwrap_or(u32::MAX);
        if filter.is_empty() {
            browser.limit(remaining);
        }
        let reader = LetterReader {
            browser,
            filter,
            rules: settings.rules(),
            worker_queue: settings.queue.clone(),
            remaining,
            is_at_end: false,
            report: Arc::clone(report),
        };
        report.set_total(u64::from(reader.total()));
        Ok(reader)
    }

    /// Opens the queue for an operation by which dead letters leave it. It will read those that are in the queue now, and none
    /// that arrives later: see [`QueueBrowser::mark`]. Each of them is read once more for that.
    pub async fn open_to_remove(
        settings: &RouteSettings,
        source: &Source,
        selection: &Selection,
        report: &Arc<dyn Report>,
    ) -> Result<LetterReader, DeskError> {
        let mut reader = LetterReader::open(settings, source, selection, report).await?;
        match reader.mark().await {
            Ok(()) => Ok(reader),
            Err(error) => reader.close(Err(error)).await,
        }
    }

    async fn mark(&mut self) -> Result<(), DeskError> {
        let mut read = 0;
        while self.browser.next().await?.is_some() {
            read += 1;
            self.report.set_done(read);
            if self.report.is_stopped() {
                return Err(DeskError::Stopped);
            }
        }
        let count = self.browser.mark().await?;
        self.report.set_done(0);
        self.report.set_total(u64::from(count.min(self.remaining)));
        Ok(())
    }

    /// Number of messages to read.
    pub fn total(&self) -> u32 {
        self.browser.count().min(self.remaining)
    }

    /// Reads no faster than `rate` messages a second.
    pub fn set_rate(&mut self, rate: Option<f64>) {
        if let Some(rate) = rate {
            self.browser.set_rate(rate);
        }
    }

    /// The next selected dead letter.
    pub async fn next(&mut self) -> Result<Option<SelectedLetter>, DeskError> {
        while self.remaining > 0 && !self.report.is_stopped() {
            let Some(message) = self.browser.next().await? else {
                self.is_at_end = true;
                return Ok(None);
            };
            if let Some(letter) = self.select(message) {
                self.remaining -= 1;
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    fn select(&self, message: BrowsedMessage) -> Option<SelectedLetter> {
        let position = message.position;
        let (delivery, ack) = message.into_parts();
        let record = delivery.record(&self.worker_queue);
        let id = delivery.letter_id(&record);
        let body = || json_body(&delivery, &self.rules);
        let selected = self.filter.matches(&delivery.letter_fields(&record, &id), body);
        let handle = LetterHandle { ack, document_id: None, span: None };
        selected.then_some(SelectedLetter { id, delivery, record, position, handle })
    }

    /// Removes dead letters from the queue.
    pub async fn acknowledge(&mut self, handles: Vec<LetterHandle>) -> Result<(), DeskError> {
        Ok(self.browser.acknowledge(handles.into_iter().map(|handle| handle.ack).collect()).await?)
    }

    /// Requeues what was not acknowledged. An error in `result` has priority.
    pub async fn close<T>(self, result: Result<T, DeskError>) -> Result<T, DeskError> {
        let (unmet, later) = self.browser.unmet();
        if later > 0 {
            self.report.note(&format!("{} stay: they arrived after this began", dead_letters(later.into())));
        }
        let closed = self.browser.close().await;
        let value = result?;
        closed?;
        if self.is_at_end && unmet > 0 { Err(DeskError::Unmet(unmet)) } else { Ok(value) }
    }
}

/// The body as a person or an edit reads it: decompressed, if it can be.
pub fn readable_body<'d>(delivery: &'d Delivery, rules: &Rules) -> Cow<'d, [u8]> {
    event::decompressed_body(&delivery.message(), rules).unwrap_or(Cow::Borrowed(&delivery.body))
}

/// The body as JSON, as it was sent; none if it is something else.
pub(super) fn json_body(delivery: &Delivery, rules: &Rules) -> Option<Bson> {
    event::read_json(&event::decompressed_body(&delivery.message(), rules).ok()?)
}
