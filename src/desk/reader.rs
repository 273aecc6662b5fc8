//! Owns reading the selected dead letters of a queue; the others stay where they are. Must not know what is done with them.

use std::collections::HashSet;
use std::sync::Arc;

use bson::oid::ObjectId;
use serde_json::Value;

use crate::config::Settings;
use crate::dead_letter::{Copies, DeadLetterRecord, Filter, Met};
use crate::event::{self, Message, Rules};
use crate::observe::traces::ReplaySpan;
use crate::rabbitmq::{AckHandle, BrowsedMessage, Delivery, QueueBrowser};
use crate::report::Report;
use crate::system::now_millis;

use super::{DeskError, Selection, Source, dead_letters};

/// One pass through a queue.
pub struct LetterReader {
    browser: QueueBrowser,
    filter: Filter,
    rules: Rules,
    worker_queue: String,
    /// How many more to select.
    remaining: u32,
    /// How many more to meet, with their copies.
    remaining_messages: u32,
    report: Arc<dyn Report>,
    /// Set if the selected dead letters leave the queue.
    moving: Option<Moving>,
    copies: Copies,
    /// Copies of selected dead letters, and those that may be copies.
    copies_met: Vec<SelectedLetter>,
    /// The keys of the dead letters that left the queue. Their copies leave with them.
    removed: HashSet<u128>,
    /// Whether the whole queue was read. Before that, a dead letter without a message_id may still turn out to be no copy.
    complete: bool,
    /// Whether the end of the reading is the end of the queue.
    reads_all: bool,
}

/// Which dead letters leave the queue: those that had died when the command began, all of them and no others. A count would
/// not do: others die meanwhile, and what a browser has held is requeued little by little.
struct Moving {
    /// In milliseconds since 1970.
    died_until: i64,
    /// What this replay has sent is not replayed again, whatever the workers' clocks say.
    replay_id: Option<String>,
    /// Whether one of them was among the messages since the browser was extended.
    met: bool,
    /// How many others had died later.
    later: u64,
}

/// A selected dead letter.
pub struct SelectedLetter {
    /// Its `dl-id`, or the one that it gets when it leaves its queue.
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
    /// See [`Copies::key`].
    key: Option<u128>,
}

impl LetterReader {
    /// Opens the queue; waits for another `ticketlog dead` that uses it.
    pub async fn open(
        settings: &Settings,
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
        let filter = selection.filter.clone();
        let remaining = selection.limit.unwrap_or(u32::MAX);
        let reads_all = !filter.is_empty() || remaining >= browser.count();
        if filter.is_empty() {
            browser.limit(remaining);
        }
        let worker_queue = settings.broker.queue.clone();
        let reader = LetterReader {
            browser,
            filter,
            rules: settings.rules(),
            worker_queue,
            remaining,
            remaining_messages: u32::MAX,
            report: Arc::clone(report),
            moving: None,
            copies: Copies::default(),
            copies_met: Vec::new(),
            removed: HashSet::new(),
            complete: false,
            reads_all,
        };
        report.set_total(u64::from(reader.total()));
        Ok(reader)
    }

    /// Number of messages to read.
    pub fn total(&self) -> u32 {
        self.browser.count().min(self.remaining)
    }

    /// Selects only what had died at this time (milliseconds since 1970), and continues until it has met all of that.
    pub fn move_letters(&mut self, died_until: i64, replay_id: Option<&str>) {
        self.moving = Some(Moving { died_until, replay_id: replay_id.map(str::to_owned), met: false, later: 0 });
    }

    /// Reads no faster than `rate` messages a second.
    pub fn set_rate(&mut self, rate: Option<f64>) {
        if let Some(rate) = rate {
            self.browser.set_rate(rate);
        }
    }

    /// Meets at most `max` selected messages in all, copies included.
    pub fn limit_messages(&mut self, max: Option<u32>) {
        self.remaining_messages = max.unwrap_or(u32::MAX);
    }

    /// The next selected dead letter.
    pub async fn next(&mut self) -> Result<Option<SelectedLetter>, DeskError> {
        while self.remaining > 0 && !self.report.is_stopped() {
            let Some(message) = self.next_message().await? else {
                self.complete = self.reads_all;
                let is_no_copy = |letter: &mut SelectedLetter| self.copies.are_several(letter.handle.key);
                let next = self.copies_met.extract_if(.., is_no_copy).next();
                self.remaining -= u32::from(next.is_some());
                return Ok(next);
            };
            let (key, count, has_message_id, letter) = self.select(message);
            let Some(letter) = letter.filter(|_| self.remaining_messages > 0) else {
                self.copies.add_evidence(key, count, has_message_id);
                continue;
            };
            self.remaining_messages -= 1;
            match self.copies.meet(key, count, has_message_id) {
                Met::New => {
                    self.remaining -= 1;
                    return Ok(Some(letter));
                }
                Met::Copy | Met::Doubtful => self.copies_met.push(letter),
            }
        }
        Ok(None)
    }

    async fn next_message(&mut self) -> Result<Option<BrowsedMessage>, DeskError> {
        loop {
            if let Some(message) = self.browser.next().await? {
                return Ok(Some(message));
            }
            let met = self.moving.as_mut().is_some_and(|moving| std::mem::take(&mut moving.met));
            if !met || !self.browser.extend().await? {
                return Ok(None);
            }
        }
    }

    /// What shows whether a message is a copy of another, and the dead letter if it is selected.
    fn select(&mut self, message: BrowsedMessage) -> (Option<u128>, Option<i64>, bool, Option<SelectedLetter>) {
        let position = message.position;
        let (delivery, ack) = message.into_parts();
        let record = delivery.record(&self.worker_queue);
        let key = Copies::key(&record, delivery.message_id(), &delivery.body);
        let handle = LetterHandle { ack, key, document_id: None, span: None };
        let (count, has_message_id) = (record.delivery_count, delivery.message_id().is_some());
        if let Some(moving) = &mut self.moving {
            let is_own = record.replay_id.is_some() && record.replay_id == moving.replay_id;
            // A time that has not come yet is of a clock that is ahead: it says nothing.
            let is_later = record.time.is_some_and(|time| time > moving.died_until && time <= now_millis());
            if is_own || is_later {
                moving.later += u64::from(!is_own);
                return (key, count, has_message_id, None);
            }
            moving.met = true;
        }
        let id = delivery.letter_id(&record);
        let body = || json_body(&delivery, &self.rules);
        let selected = self.filter.matches(&delivery.letter_fields(&record, &id), body);
        let letter = selected.then_some(SelectedLetter { id, delivery, record, position, handle });
        (key, count, has_message_id, letter)
    }

    /// Removes dead letters from the queue.
    pub async fn acknowledge(&mut self, handles: Vec<LetterHandle>) -> Result<(), DeskError> {
        self.removed.extend(handles.iter().filter_map(|handle| handle.key));
        Ok(self.browser.acknowledge(handles.into_iter().map(|handle| handle.ack).collect()).await?)
    }

    /// Number of messages met that are copies of other dead letters.
    pub fn copies(&self) -> usize {
        self.copies_met.len()
    }

    /// Removes the copies of what was removed.
    async fn acknowledge_copies(&mut self) -> Result<(), DeskError> {
        let is_removed = |letter: &SelectedLetter| {
            let key = letter.handle.key;
            let is_copy = letter.delivery.message_id().is_some() || self.complete && !self.copies.are_several(key);
            is_copy && key.is_some_and(|key| self.removed.contains(&key))
        };
        let (removed, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.copies_met).into_iter().partition(is_removed);
        if !removed.is_empty() {
            self.report.note(&format!("{} more were copies of these, and left the queue with them", removed.len()));
            self.browser.acknowledge(removed.into_iter().map(|letter| letter.handle.ack).collect()).await?;
        }
        if !stay.is_empty() {
            self.report.note(&format!(
                "{} more are copies of these: the worker was interrupted and wrote them again",
                stay.len()
            ));
        }
        Ok(())
    }

    /// Requeues what was not acknowledged. An error in `result` has priority.
    pub async fn close<T>(mut self, mut result: Result<T, DeskError>) -> Result<T, DeskError> {
        if result.is_ok()
            && let Err(error) = self.acknowledge_copies().await
        {
            result = Err(error);
        }
        if let Some(later) = self.moving.map(|moving| moving.later).filter(|later| *later > 0) {
            self.report.note(&format!("{} stay: they died after the command began, by dl-time", dead_letters(later)));
        }
        let closed = self.browser.close().await;
        let value = result?;
        closed?;
        Ok(value)
    }
}

/// The message that the decoder decodes.
pub fn decoder_message(delivery: &Delivery) -> Message<'_> {
    Message {
        body: &delivery.body,
        message_id: delivery.message_id(),
        content_encoding: delivery.content_encoding(),
        timestamp: delivery.timestamp(),
        dead_letter_id: None,
    }
}

/// U+FEFF in UTF-8, which the decoder accepts before JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The body as JSON; none if it is something else.
pub(super) fn json_body(delivery: &Delivery, rules: &Rules) -> Option<Value> {
    let body = event::decompressed_body(&decoder_message(delivery), rules).ok()?;
    serde_json::from_slice(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body)).ok()
}
