//! The steps of a smoke test in one route: a marked event goes in as a publisher's, comes out as a reader's, and is deleted.

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, RawDocument, RawDocumentBuf};
use url::Url;

use ticketlog_config::finding::Finding;
use ticketlog_config::format::{counted, dead_letters};
use ticketlog_config::{BrokerSettings, RouteSettings};
use ticketlog_contract::{Event, Reason, dead_letter::Cause, different_fields, same_event};
use ticketlog_desk::{DeadLetter, DeskError, Source};
use ticketlog_rabbitmq::{self as rabbitmq, BrowseOptions, PublishResult, Publisher, QueueDepths};

use super::dead_letters::DeadLetters;
use super::event::{MarkedEvent, NAME, Shape};
use super::{EndToEndArgs, Failed, LONGEST_PAUSE, Side, Waiting};
use crate::mongodb::{self, Failure, Store, readers_index};

/// The lock that belongs to a dead-letter queue: two checks at a time would take each other's events for left over.
const LOCK: &str = ".check";
/// What to do if the dead letters cannot be read or deleted.
const FIX_READING: &str = "see docs/operate/browsing.md";

/// What the steps of one route need.
pub(super) struct RouteCheck<'a> {
    pub(super) settings: &'a RouteSettings,
    /// With the login of the workers, which may see more of their queue than an operator's.
    pub(super) workers: &'a BrokerSettings,
    pub(super) timeout: Duration,
    pub(super) shape: Shape,
    pub(super) store: Store,
    pub(super) dead_letters: DeadLetters<'a>,
    publisher: Publisher,
    depths: QueueDepths,
    user: Option<String>,
    with_dead_letter: bool,
}

/// Checks one route, and adds what succeeds to `found`.
///
/// # Errors
/// The step that failed. What it has stored or dead-lettered is deleted as far as that is possible.
pub(super) async fn check_route(
    args: &EndToEndArgs,
    settings: &RouteSettings,
    workers: &BrokerSettings,
    management: Option<&Url>,
    found: &mut Vec<Finding>,
) -> Result<(), Failed> {
    let invalid = |setting, fault: String| Failed::new(Side::Settings, setting, fault, "correct it");
    rabbitmq::check_settings(&settings.broker)
        .map_err(|error| invalid(settings.broker.uri_setting, error.what().to_string()))?;
    mongodb::check_settings(&settings.store).map_err(|error| invalid(settings.store.uri_setting, error.to_string()))?;
    let opened = Publisher::open_without_topology(&settings.broker, "smoke test").await;
    let publisher = opened.map_err(|error| Failed::of_broker("publish", &error))?;
    lock(&publisher, settings, args.timeout).await?;
    let store = Store::open(settings, 1, None).await.map_err(|failure| Failed::of_store("read", settings, &failure))?;
    let browse = BrowseOptions { trust_queue: false, management: management.cloned(), wait: args.timeout };
    let source = Source { queue: settings.dead_letter_queue.clone(), browse };
    let mut check = RouteCheck {
        settings,
        workers,
        timeout: args.timeout,
        shape: Shape::of(settings),
        store,
        dead_letters: DeadLetters::new(settings, source, args),
        publisher,
        depths: QueueDepths::default(),
        user: rabbitmq::user_name(&settings.broker),
        with_dead_letter: args.dead_letter,
    };
    let ended = check.run(found).await;
    check.publisher.close().await;
    ended
}

/// Waits until no other check of this route runs.
async fn lock(publisher: &Publisher, settings: &RouteSettings, timeout: Duration) -> Result<(), Failed> {
    let mut waiting = Waiting::new(timeout);
    while !publisher
        .try_lock(&settings.dead_letter_queue, LOCK)
        .await
        .map_err(|error| Failed::of_broker("publish", &error))?
    {
        if !waiting.pause().await {
            let message = "another `check --end-to-end` of this route is running";
            return Err(Failed::new(
                Side::Worker,
                "publish",
                message,
                "run it again later, or with a longer --timeout",
            ));
        }
    }
    Ok(())
}

impl RouteCheck<'_> {
    async fn run(&mut self, found: &mut Vec<Finding>) -> Result<(), Failed> {
        self.dead_letters.check_audit().map_err(|error| unreadable(&error))?;
        let mut left_over = self.delete_left_over_documents(found).await?;
        let dead = self.delete_left_over_dead_letters(found).await?;
        let mut ended = self.round_trip(found).await;
        if ended.is_ok() && self.with_dead_letter {
            ended = self.dead_letter_round_trip(found).await;
        }
        // What arrived meanwhile; after a failure also this check's own event, if it is stored after all.
        if ended.is_ok() {
            left_over += self.delete_left_over_documents(&mut Vec::new()).await?;
        } else {
            let _ = self.delete_left_over_documents(&mut Vec::new()).await;
        }
        if left_over + dead > 0 {
            let text = format!("deleted {} and {}", counted(left_over, "document"), dead_letters(dead));
            found.push(Finding::ok("left over", format!("{text} of earlier checks that were interrupted")));
        }
        ended
    }

    fn failed_store(&self, subject: &'static str, failure: &Failure) -> Failed {
        Failed::of_store(subject, self.settings, failure)
    }

    /// Publishes an event, and waits for the confirm.
    async fn publish(&mut self, event: MarkedEvent, body: Vec<u8>, found: &mut Vec<Finding>) -> Result<(), Failed> {
        let began = Instant::now();
        let mut outgoing = self.shape.outgoing(event, body, self.user.as_deref());
        let (exchange, key) = (&self.settings.broker.exchange, &self.shape.routing_key);
        let deadline = began + self.timeout;
        let published = self.publisher.publish(&mut [&mut outgoing], LONGEST_PAUSE, || Instant::now() < deadline).await;
        let results = published.map_err(|unfinished| Failed::of_broker("publish", &unfinished.error))?;
        let failed = |message: String, fix: &str| Err(Failed::new(Side::Publisher, "publish", message, fix));
        match results.first() {
            Some(PublishResult::Confirmed) => {
                let message = format!("RabbitMQ has confirmed it: exchange {exchange}, routing key {key}");
                found.push(Finding::ok("publish", message).after(began.elapsed()));
                Ok(())
            }
            Some(PublishResult::Nacked) => failed(
                format!("a queue behind exchange {exchange} refuses messages"),
                "see which is full, and make room",
            ),
            Some(PublishResult::Returned) | None => failed(
                format!("no queue is bound to exchange {exchange} for routing key {key}: RabbitMQ returned the event"),
                "run `ticketlog setup`, or correct broker.routing_keys; publishers' events are lost the same way",
            ),
        }
    }

    /// The way of a good event.
    async fn round_trip(&mut self, found: &mut Vec<Finding>) -> Result<(), Failed> {
        let event = MarkedEvent::new();
        let expected = self.shape.expected(event).map_err(|rejection| {
            let message = format!("these settings reject the event of the check: {}", rejection.detail);
            Failed::new(Side::Publisher, "publish", message, "correct [event], or report this")
        })?;
        if self.shape.event_of(&expected.document) != Some(event) {
            let message = format!("the field {NAME}, by which the check knows its documents, is not stored as it is");
            return Err(Failed::new(Side::Publisher, "publish", message, "take it out of event.drop and event.mask"));
        }
        self.publish(event, self.shape.body(event), found).await?;
        let began = Instant::now();
        if !self.wait_until_stored(&expected).await.map_err(|failure| self.failed_store("store", &failure))? {
            return Err(self.why_not_stored(event, &expected).await);
        }
        let (database, collection) = (&self.settings.store.database, &self.settings.collection);
        found.push(
            Finding::ok("store", format!("a worker has stored it in {database}.{collection}")).after(began.elapsed()),
        );
        let read = self.read_back(&expected, found).await;
        let began = Instant::now();
        let deleted = self.delete(expected.id.into(), event).await;
        read?;
        if !deleted? {
            let fix = "see what else deletes or changes documents of this collection";
            return Err(Failed::new(
                Side::Store,
                "delete",
                "its document is gone, or has changed, before it was deleted",
                fix,
            ));
        }
        found.push(Finding::ok("delete", "its document is deleted").after(began.elapsed()));
        Ok(())
    }

    /// False if the time is over.
    async fn wait_until_stored(&self, expected: &Event) -> Result<bool, Failure> {
        let mut waiting = Waiting::new(self.timeout);
        loop {
            let mut is_stored = false;
            let failure = self.store.find_by_ids(&[expected.id], |_, _| is_stored = true).await.err();
            if is_stored {
                return Ok(true);
            }
            // A primary that is being elected is waited for, like a worker.
            if !waiting.pause().await || failure.is_some_and(|failure| failure.is_permission()) {
                return failure.map_or(Ok(false), Err);
            }
        }
    }

    /// Reads the document as readers do, and compares it.
    async fn read_back(&self, expected: &Event, found: &mut Vec<Finding>) -> Result<(), Failed> {
        let began = Instant::now();
        let Some((index, keys)) = readers_index(&expected.document) else {
            found.push(Finding::ok("read", "no readers' index has a field that is stored (event.drop)"));
            return Ok(());
        };
        let of_reader = |message: String, fix: &str| Failed::new(Side::Reader, "read", message, fix);
        let read = self.once_indexed(async || self.store.find_through(&keys, &expected.document).await).await;
        let read = read.map_err(|failure| {
            if failure.is_missing_index() { missing_index(index) } else { self.failed_store("read", &failure) }
        })?;
        let is_it = |document: &&RawDocumentBuf| id_of(document) == Some(expected.id.into());
        let Some(document) = read.iter().find(is_it) else {
            let fix = "the index is damaged, or another program deletes documents: see `db.collection.validate()`";
            return Err(of_reader(format!("it is stored, but the index {index} does not find it"), fix));
        };
        if !same_event(expected.document.as_bytes(), document.as_bytes()) {
            let fields = different_fields(expected.document.as_bytes(), document.as_bytes());
            let fields = fields.into_iter().collect::<Vec<_>>().join(", ");
            let fix = "give this command the workers' settings and version (event.fields, event.drop, event.mask)";
            return Err(of_reader(format!("it is stored otherwise than these settings say: {fields}"), fix));
        }
        let fields = counted(document.iter_elements().count() as u64, "field");
        let text = format!("the readers' index {index} finds it, and its {fields} are as they were published");
        found.push(Finding::ok("read", text).after(began.elapsed()));
        Ok(())
    }

    /// Repeats a search while its index does not exist: a worker that has just started may be building it.
    async fn once_indexed<T>(&self, search: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut waiting = Waiting::new(self.timeout);
        loop {
            let found = search().await;
            let is_missing = found.as_ref().is_err_and(Failure::is_missing_index);
            if !is_missing || !waiting.pause().await {
                return found;
            }
        }
    }

    /// Deletes the document of a marked event.
    async fn delete(&self, id: ObjectId, event: MarkedEvent) -> Result<bool, Failed> {
        let deleted = self.store.delete_marked(id, (NAME, &event.mark())).await;
        deleted.map_err(|failure| self.failed_store("delete", &failure))
    }

    /// Deletes the documents of marked events that are still there, and no others. Returns how many.
    async fn delete_left_over_documents(&self, found: &mut Vec<Finding>) -> Result<u64, Failed> {
        let example = self.shape.expected(MarkedEvent::new()).ok();
        let user = example.and_then(|event| Bson::try_from(event.document.get("user_id").ok()??).ok());
        let Some(user) = user else {
            let message = "what interrupted checks left cannot be found: user_id is not stored (event.drop)";
            found.push(Finding::warn("left over", message, format!("find documents with {NAME} by hand")));
            return Ok(0);
        };
        let marked = match self.once_indexed(async || self.store.find_of_user_with(&user, NAME).await).await {
            Err(failure) if failure.is_missing_index() => return Err(missing_index("user_id_1_timestamp_-1")),
            // It answers, but not this: the path may be well.
            Err(failure) if failure.is_timeout() && self.store.probe().await.is_ok() => {
                let message =
                    "what interrupted checks left was not searched: that takes longer than store.write_timeout";
                found.push(Finding::warn("left over", message, "give this command a longer store.write_timeout"));
                return Ok(0);
            }
            marked => marked.map_err(|failure| self.failed_store("store", &failure))?,
        };
        let (mut deleted, mut foreign) = (0, 0);
        for document in &marked {
            match (id_of(document), self.shape.event_of(document)) {
                (Some(id), Some(event)) => deleted += u64::from(self.delete(id, event).await?),
                _ => foreign += 1,
            }
        }
        if foreign > 0 {
            let message = format!(
                "{} with the field {NAME}, not as a check with these settings publishes it: left alone",
                counted(foreign, "document")
            );
            let fix = "see whose they are; delete them by hand if a check with other settings left them";
            found.push(Finding::warn("left over", message, fix));
        }
        Ok(deleted)
    }

    /// The same with dead letters. A failure is a warning, unless this check is about to leave one there: each would leave another.
    async fn delete_left_over_dead_letters(&mut self, found: &mut Vec<Finding>) -> Result<u64, Failed> {
        if !self.with_dead_letter && self.depth().await == Some(0) {
            return Ok(0);
        }
        let deleted = async {
            let left_over = self.dead_letters.find(None, &self.shape).await?;
            if left_over.is_empty() { Ok(0) } else { self.dead_letters.delete(&left_over).await }
        };
        match deleted.await {
            Err(error) if self.with_dead_letter => Err(unreadable(&error)),
            Err(error) => {
                let message = format!("what interrupted checks left in the dead-letter queue was not deleted: {error}");
                found.push(Finding::warn("left over", message, FIX_READING));
                Ok(0)
            }
            Ok(deleted) => Ok(deleted),
        }
    }

    /// The number of messages that are ready in the dead-letter queue, if that is known.
    async fn depth(&mut self) -> Option<u32> {
        let queue = self.settings.dead_letter_queue.clone();
        let counts = self.depths.read(&self.settings.broker, &[queue]).await.ok()?;
        counts.map(|counts| counts.ready)
    }

    /// The way of a malformed event.
    async fn dead_letter_round_trip(&mut self, found: &mut Vec<Finding>) -> Result<(), Failed> {
        let event = MarkedEvent::new();
        self.publish(event, event.malformed_body(), found).await?;
        let began = Instant::now();
        let failed = |side, message: String, fix: &str| Err(Failed::new(side, "dead letter", message, fix));
        let queue = &self.settings.dead_letter_queue;
        let dead = self.wait_until_dead_lettered(event).await.map_err(|error| unreadable(&error))?;
        let Some(dead_letter) = dead.first() else {
            return Err(self.why_not_dead_lettered().await);
        };
        let (reason, time) = (dead_letter.record.cause.as_str(), began.elapsed());
        let began = Instant::now();
        let deleted = self.dead_letters.delete(&dead).await.map_err(|error| unreadable(&error))?;
        if let Some(fault) = self.fault_of(dead_letter, event) {
            return failed(Side::Reader, fault, "give this command the workers' settings and version");
        }
        found.push(Finding::ok("dead letter", format!("it is in queue {queue} as {reason}")).after(time));
        // More than one if a worker ended before it settled the message: equal dead letters have one id.
        if deleted < dead.len() as u64 {
            let message = format!("{deleted} of {} were deleted from queue {queue}", dead_letters(dead.len() as u64));
            return failed(Side::Reader, message, "something else takes messages from it; run it again");
        }
        found.push(Finding::ok("delete", "its dead letter is deleted").after(began.elapsed()));
        Ok(())
    }

    /// Reads the dead-letter queue whenever its length has changed, and once more at the end.
    async fn wait_until_dead_lettered(&mut self, event: MarkedEvent) -> Result<Vec<DeadLetter>, DeskError> {
        let (mut waiting, mut last) = (Waiting::new(self.timeout), Some(0));
        loop {
            let is_last = waiting.left().is_zero();
            let depth = self.depth().await;
            if is_last || depth != last {
                let found = self.dead_letters.find(Some(event), &self.shape).await?;
                if !found.is_empty() || is_last {
                    return Ok(found);
                }
            }
            last = depth;
            waiting.pause().await;
        }
    }

    /// What of a dead letter is not as it should be.
    fn fault_of(&self, dead_letter: &DeadLetter, event: MarkedEvent) -> Option<String> {
        let record = &dead_letter.record;
        let is_as_published = dead_letter.delivery.body == event.malformed_body()
            && record.exchange == self.settings.broker.exchange
            && record.routing_key == self.shape.routing_key;
        if !is_as_published {
            return Some("the dead letter is not the event that was published".to_owned());
        }
        let reason = record.cause.as_str();
        let is_expected = record.cause == Cause::Reason(Reason::InvalidJson);
        (!is_expected).then(|| format!("the reason of the dead letter is {reason}, and should be invalid_json"))
    }
}

fn unreadable(error: &DeskError) -> Failed {
    Failed::new(Side::Reader, "dead letter", error.to_string(), FIX_READING)
}

fn missing_index(name: &str) -> Failed {
    let fix = "create it: set store.ensure_indexes = true, or run `ticketlog setup`";
    Failed::new(Side::Reader, "read", format!("the readers' index {name} does not exist"), fix)
}

fn id_of(document: &RawDocument) -> Option<ObjectId> {
    document.get_object_id("_id").ok()
}
