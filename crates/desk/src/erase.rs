//! The dead letters of one user: finding and deleting them. A dead letter is the user's if the worker's own decoder would store it under
//! the user's id.

use std::sync::Arc;

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Decoder, Wanted};
use ticketlog_rabbitmq::report::Report;

use super::field_search::{FieldSearch, Holds};
use super::reader::{DeadLetter, DeadLetterReader, DeadLetterRemover};
use super::{DeskError, Run, Source};

/// The field that says whose an event is.
pub(super) const USER_FIELD: &str = "user_id";
/// Most dead letters that are named because nobody knows whose they are.
const MAX_NAMED: usize = 1000;
/// Most dead letters that are acknowledged together.
const MAX_BATCH: usize = 500;

/// What a queue holds of a user, or what was deleted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct UserDeadLetters {
    /// Dead letters of the user.
    pub found: u64,
    /// How many may be anybody's, because the decoder cannot tell.
    pub undecided: u64,
    /// The first of these.
    pub named: Vec<Undecided>,
}

/// A dead letter that may be anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// Its queue.
    pub queue: String,
    /// Its `dl-id`.
    pub id: String,
    /// Why the decoder cannot tell.
    pub reason: String,
}

impl UserDeadLetters {
    /// Adds those of another queue.
    pub fn add(&mut self, more: UserDeadLetters) {
        self.found += more.found;
        self.undecided += more.undecided;
        let room = MAX_NAMED.saturating_sub(self.named.len());
        self.named.extend(more.named.into_iter().take(room));
    }
}

/// Finds the dead letters of a user.
pub struct UserSearch<'a> {
    settings: &'a RouteSettings,
    search: FieldSearch<'a>,
}

impl<'a> UserSearch<'a> {
    /// With the casts of these settings.
    pub fn new(settings: &'a RouteSettings, user: &'a Wanted) -> UserSearch<'a> {
        UserSearch { settings, search: FieldSearch::new(settings, USER_FIELD, user) }
    }

    /// Reads a queue; nothing is changed.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn find(&self, source: &Source, report: &Arc<dyn Report>) -> Result<UserDeadLetters, DeskError> {
        let mut dead_letters = UserDeadLetters::default();
        let run = Run { settings: self.settings, report };
        let reader = DeadLetterReader::open(run, &source.clone().into()).await?;
        let mut decoder = self.search.decoder();
        let add = |dead_letter| {
            let is_found = self.add(&mut decoder, dead_letter, &source.queue, &mut dead_letters);
            dead_letters.found += u64::from(is_found);
        };
        reader.read_all(add).await?;
        Ok(dead_letters)
    }

    /// Deletes them, without a copy, and counts in `deleted` what was deleted.
    ///
    /// # Errors
    /// The queue cannot be read; what was deleted before stays deleted.
    pub async fn delete(
        &self,
        source: &Source,
        report: &Arc<dyn Report>,
        deleted: &mut UserDeadLetters,
    ) -> Result<(), DeskError> {
        let run = Run { settings: self.settings, report };
        let mut remover = DeadLetterRemover::open(run, &source.clone().into(), None).await?;
        let ended = self.delete_all(&mut remover, &source.queue, &**report, deleted).await;
        remover.close(ended).await
    }

    async fn delete_all(
        &self,
        remover: &mut DeadLetterRemover,
        queue: &str,
        report: &dyn Report,
        deleted: &mut UserDeadLetters,
    ) -> Result<(), DeskError> {
        let mut decoder = self.search.decoder();
        let mut acks = Vec::new();
        loop {
            let next = remover.next().await?;
            let is_last = next.is_none();
            next.iter().for_each(|(dead_letter, _)| report.set_done(dead_letter.position.into()));
            if let Some((dead_letter, ack)) = next
                && self.add(&mut decoder, dead_letter, queue, deleted)
            {
                acks.push(ack);
            }
            if is_last || acks.len() >= MAX_BATCH {
                remover.acknowledge(std::mem::take(&mut acks), |_| deleted.found += 1).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Whether it is the user's. It is counted if nobody knows.
    fn add(
        &self,
        decoder: &mut Decoder,
        dead_letter: DeadLetter,
        queue: &str,
        dead_letters: &mut UserDeadLetters,
    ) -> bool {
        match self.search.of(decoder, &dead_letter.delivery) {
            Holds::Yes => true,
            Holds::No => false,
            Holds::Undecided(reason) => {
                let named = Undecided { queue: queue.to_owned(), id: dead_letter.id, reason };
                dead_letters.add(UserDeadLetters { found: 0, undecided: 1, named: vec![named] });
                false
            }
        }
    }
}
