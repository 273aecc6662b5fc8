//! Owns going through a queue for the dead letters that a command is about; the others stay where they are.
//! Must not know what is done with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::broker::{Delivery, Desk, Held, Ticket};
use crate::config::Settings;
use crate::dead_letter::{Filter, Record};
use crate::event::{self, Message, Rules};

use super::super::Fault;
use super::{Selection, Target, note};

/// A walk through a queue.
pub(super) struct Scan {
    pub desk: Desk,
    filter: Filter,
    rules: Rules,
    /// The worker's queue.
    work: String,
    left: u32,
    /// Set when somebody wants it to end.
    pub stop: Arc<AtomicBool>,
}

/// One that is meant.
pub(super) struct Found {
    pub delivery: Delivery,
    pub record: Record,
    pub position: u32,
    pub ticket: Ticket,
}

impl Scan {
    /// Opens the queue; waits for other desks.
    pub async fn open(settings: &Settings, target: &Target, selection: Option<&Selection>) -> Result<Scan, Fault> {
        let queue = target.queue(settings);
        let waiting = || note(format_args!("another desk is at work on {queue}; waiting until it is done"));
        let mut desk = Desk::open(&settings.broker, queue, &target.trust.trust(), waiting).await?;
        if let Some(caution) = desk.caution {
            note(format_args!("{caution} (--trust-queue silences this)"));
        }
        let filter = selection.map(Selection::filter).unwrap_or_default();
        let left = selection.and_then(|selection| selection.limit).unwrap_or(u32::MAX);
        if filter.is_empty() {
            desk.at_most(left);
        }
        let work = settings.broker.queue.clone();
        Ok(Scan { desk, filter, rules: settings.rules(), work, left, stop: Arc::default() })
    }

    /// Will take so many a second, at most.
    pub fn paced(&mut self, rate: Option<f64>) {
        if let Some(rate) = rate {
            self.desk.paced(rate);
        }
    }

    /// Takes no more than so many.
    pub fn at_most(&mut self, limit: Option<u32>) {
        self.left = self.left.min(limit.unwrap_or(u32::MAX));
    }

    /// Messages in the queue, or at most to be taken, for a progress bar.
    pub fn total(&self) -> u64 {
        u64::from(self.desk.count().min(self.left))
    }

    /// The next one that is meant.
    pub async fn next(&mut self) -> Result<Option<Found>, Fault> {
        while self.left > 0
            && !self.stop.load(Ordering::Relaxed)
            && let Some(held) = self.desk.next().await?
        {
            if let Some(found) = self.sort(held) {
                self.left -= 1;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn sort(&mut self, held: Held) -> Option<Found> {
        let position = held.position;
        let (delivery, ticket) = held.split();
        let record = delivery.record(&self.work);
        let meant = self.filter.matches(&record, delivery.message_id(), || json(&delivery, &self.rules));
        if !meant {
            return None;
        }
        Some(Found { delivery, record, position, ticket })
    }

    /// Gives back what was not settled. What went wrong before comes first.
    pub async fn close<T>(self, done: Result<T, Fault>) -> Result<T, Fault> {
        let released = self.desk.release().await;
        let done = done?;
        released?;
        Ok(done)
    }
}

/// A delivery as the decoder takes it.
pub(super) fn message(delivery: &Delivery) -> Message<'_> {
    Message {
        body: &delivery.body,
        message_id: delivery.message_id(),
        content_encoding: delivery.content_encoding(),
        timestamp: delivery.timestamp(),
        letter: None,
    }
}

fn json(delivery: &Delivery, rules: &Rules) -> Option<Value> {
    let plain = event::plain(&message(delivery), rules).ok()?;
    serde_json::from_slice(&plain).ok()
}
