//! Why an event of a smoke test has not arrived in time, as far as that can be known, and what to do.

use ticketlog_config::BrokerSettings;
use ticketlog_config::format::counted;
use ticketlog_contract::{Event, Stage, dead_letter::Cause};
use ticketlog_rabbitmq::{BrokerError, QueueCounts, QueueDepths};

use super::event::{MarkedEvent, NAME};
use super::steps::RouteCheck;
use super::{Failed, Side};
use crate::mongodb::readers_index;

/// What becomes of an event that is still on its way.
const CLEANED_UP: &str = "The next check deletes the event of this one";

impl RouteCheck<'_> {
    /// Why no document has the expected `_id`.
    pub(super) async fn why_not_stored(&self, event: MarkedEvent, expected: &Event) -> Failed {
        if let Some(failed) = self.stored_otherwise(event, expected).await {
            return failed;
        }
        if let Some(failed) = self.dead_lettered(event).await {
            return failed;
        }
        self.still_waiting("store", "stored").await
    }

    /// Why the malformed event is not in the dead-letter queue.
    pub(super) async fn why_not_dead_lettered(&self) -> Failed {
        self.still_waiting("dead letter", "dead-lettered").await
    }

    /// A document with its mark has another `_id`: what that is made of depends on settings. It stays: it may be a copy that others made.
    async fn stored_otherwise(&self, event: MarkedEvent, expected: &Event) -> Option<Failed> {
        let (_, index) = readers_index(&expected.document)?;
        let found = self.store.find_through(&index, &expected.document).await.ok()?;
        found.iter().find(|it| it.get_str(NAME).is_ok_and(|mark| mark == event.mark()))?;
        let message = "it is stored under another _id than these settings say: left alone";
        let fix = "give this command the workers' settings and version (event.drop, event.mask, event.mask_key). A check with these \
                   deletes it";
        Some(Failed::new(Side::Reader, "read", message, fix))
    }

    /// It became a dead letter. Deletes that.
    async fn dead_lettered(&self, event: MarkedEvent) -> Option<Failed> {
        let dead = self.dead_letters.find(Some(event), &self.shape).await.ok()?;
        let record = &dead.first()?.record;
        let is_of_store = matches!(record.cause, Cause::Reason(reason) if reason.stage() == Stage::Store);
        let side = if is_of_store { Side::Store } else { Side::Worker };
        let (reason, [_, remedy]) = (record.cause.as_str(), record.cause.explanation_of(&record.detail));
        let message = format!("it became a dead letter: {reason}: {}", record.detail);
        let deleted = self.dead_letters.delete(&dead).await;
        let left = deleted.err().map_or(String::new(), |error| format!(" (and could not be deleted: {error})"));
        Some(Failed::new(side, "store", message + &left, remedy))
    }

    /// Nobody has taken it, or those who have are not done.
    async fn still_waiting(&self, subject: &'static str, done: &str) -> Failed {
        let counts = match self.source_queue(self.workers).await {
            Ok(Some(counts)) => Some(counts),
            _ => match self.source_queue(&self.settings.broker).await {
                Ok(counts) => counts,
                // It went down meanwhile.
                Err(error) => return Failed::of_broker(subject, &error),
            },
        };
        let (queue, after) = (&self.settings.queue, humantime::format_duration(self.timeout));
        let (why, fix) = match counts.map(|counts| (counts.consumers, counts.ready)) {
            Some((0, ready)) => {
                let waiting = counted(ready.into(), "message");
                (
                    format!("no worker consumes queue {queue}, in which {waiting} wait"),
                    "start the workers, or `ticketlog resume` them",
                )
            }
            Some((_, 0)) => (
                format!("queue {queue} is empty, so a worker has taken it"),
                "see what the workers wait for: `ticketlog status`, /readyz. If they are well, they store it elsewhere (compare \
                 store.database and store.collection), or it became one of many dead letters: run it with --dead-letter",
            ),
            Some((_, ready)) => (
                format!("{} wait in queue {queue}", counted(ready.into(), "message")),
                "wait until the workers have caught up (`ticketlog status`), or give a longer --timeout",
            ),
            None => (
                format!("how many messages wait in queue {queue} is not known: the login may not see it"),
                "see whether workers run, are paused or are behind: `ticketlog status`",
            ),
        };
        Failed::new(
            Side::Worker,
            subject,
            format!("no worker has {done} it after {after}: {why}"),
            format!("{fix}. {CLEANED_UP}"),
        )
    }

    /// The counts of the queue that the workers consume; `None` if this login may not see it.
    async fn source_queue(&self, broker: &BrokerSettings) -> Result<Option<QueueCounts>, BrokerError> {
        QueueDepths::default().read(broker, &self.settings.queues()).await
    }
}
