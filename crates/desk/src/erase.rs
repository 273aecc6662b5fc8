//! The dead letters of one user: finding and deleting them. A dead letter is the user's if the worker's own decoder would store it under
//! the user's id.

use std::sync::Arc;

use bson::Bson;

use ticketlog_config::RouteSettings;
use ticketlog_contract::{Decoder, Rules, Wanted};
use ticketlog_rabbitmq::Delivery;
use ticketlog_rabbitmq::report::Report;

use super::reader::{DeadLetter, DeadLetterReader, DeadLetterRemover, json_body};
use super::{DeskError, Run, Source};

/// The field that says whose an event is.
const USER_FIELD: &str = "user_id";
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

/// Whose a dead letter is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    User,
    Other,
    Undecided(String),
}

/// Finds the dead letters of a user.
pub struct UserSearch<'a> {
    settings: &'a RouteSettings,
    user: &'a Wanted,
    rules: Rules,
}

impl<'a> UserSearch<'a> {
    /// With the casts of these settings.
    pub fn new(settings: &'a RouteSettings, user: &'a Wanted) -> UserSearch<'a> {
        // An event that is nested too deep is the user's all the same. What is hidden is hidden later.
        let rules = Rules { max_depth: usize::MAX, add_ingested_at: false, ..settings.rules() };
        UserSearch { settings, user, rules }
    }

    /// Reads a queue; nothing is changed.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn find(&self, source: &Source, report: &Arc<dyn Report>) -> Result<UserDeadLetters, DeskError> {
        let mut dead_letters = UserDeadLetters::default();
        let run = Run { settings: self.settings, report };
        let mut reader = DeadLetterReader::open(run, &source.clone().into()).await?;
        let mut decoder = self.decoder();
        let read = async {
            while let Some(dead_letter) = reader.next().await? {
                report.set_done(dead_letter.position.into());
                let is_found = self.add(&mut decoder, dead_letter, &source.queue, &mut dead_letters);
                dead_letters.found += u64::from(is_found);
            }
            Ok(())
        }
        .await;
        reader.close(read).await.map(|()| dead_letters)
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
        let mut reader = DeadLetterRemover::open(run, &source.clone().into(), None).await?;
        let ended = self.delete_all(&mut reader, &source.queue, &**report, deleted).await;
        reader.close(ended).await
    }

    async fn delete_all(
        &self,
        reader: &mut DeadLetterRemover,
        queue: &str,
        report: &dyn Report,
        deleted: &mut UserDeadLetters,
    ) -> Result<(), DeskError> {
        let mut decoder = self.decoder();
        let mut acks = Vec::new();
        loop {
            let next = reader.next().await?;
            let is_last = next.is_none();
            next.iter().for_each(|(dead_letter, _)| report.set_done(dead_letter.position.into()));
            if let Some((dead_letter, ack)) = next
                && self.add(&mut decoder, dead_letter, queue, deleted)
            {
                acks.push(ack);
            }
            if is_last || acks.len() >= MAX_BATCH {
                let count = acks.len() as u64;
                reader.acknowledge(std::mem::take(&mut acks)).await?;
                deleted.found += count;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn decoder(&self) -> Decoder {
        Decoder::new(Arc::new(self.rules.clone()))
    }

    /// Whether it is the user's. It is counted if nobody knows.
    fn add(
        &self,
        decoder: &mut Decoder,
        dead_letter: DeadLetter,
        queue: &str,
        dead_letters: &mut UserDeadLetters,
    ) -> bool {
        match self.owner(decoder, &dead_letter.delivery) {
            Owner::User => true,
            Owner::Other => false,
            Owner::Undecided(reason) => {
                let named = Undecided { queue: queue.to_owned(), id: dead_letter.id, reason };
                dead_letters.add(UserDeadLetters { found: 0, undecided: 1, named: vec![named] });
                false
            }
        }
    }

    fn owner(&self, decoder: &mut Decoder, delivery: &Delivery) -> Owner {
        let stored = decoder.field(&delivery.message(), USER_FIELD);
        // As it was sent, it may be exactly the id although the worker would not store it, or not exactly.
        let is_sent = || match json_body(delivery, &self.rules) {
            Some(Bson::Document(body)) => body.get(USER_FIELD).is_some_and(|sent| self.user.matches(sent)),
            _ => false,
        };
        match stored {
            Ok(Some(stored)) if self.user.matches(&stored) => Owner::User,
            Ok(Some(Bson::Double(stored))) if self.user.rounded() == Some(stored) => match is_sent() {
                true => Owner::User,
                false => Owner::Undecided(format!("{USER_FIELD} is a number that several ids become")),
            },
            Ok(_) => Owner::Other,
            Err(_) if is_sent() => Owner::User,
            Err(rejection) => Owner::Undecided(rejection.reason_and_field()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticketlog_config::load_text;

    fn owner(settings: &RouteSettings, user: &str, body: &str) -> Owner {
        let user = Wanted::id(user);
        let search = UserSearch::new(settings, &user);
        let mut decoder = Decoder::new(Arc::new(search.rules.clone()));
        search.owner(&mut decoder, &Delivery::with_body(body))
    }

    #[test]
    fn a_dead_letter_is_the_users_if_the_worker_would_store_it_under_the_id() {
        let settings = load_text("f", "[event]\nmax_depth = 2").unwrap().routes.remove(0);
        let undecided = |reason: &str| Owner::Undecided(reason.to_owned());
        let snowflake = "1234567890123456789";
        for (user, body, expected) in [
            ("42", r#"{"user_id":42}"#, Owner::User),
            ("42", r#"{"user_id":42.0}"#, Owner::User),
            ("42", r#"{"user_id":4.2e1}"#, Owner::User),
            ("42", r#"{"user_id":" 42"}"#, Owner::User),
            ("42", r#"{"user_id":"0x2a"}"#, Owner::User),
            ("42", r#"{"user_id":{"_id":42}}"#, Owner::User),
            ("42", r#"{"user_id":{"_id":"42"}}"#, Owner::User),
            ("42", "\u{feff}{\"user_id\":\"42\",\"a\":\"\\ud83d\"}", Owner::User),
            ("42", r#"{"user_id":42,"a":{"b":{"c":1}},"timestamp":"x","_id":1}"#, Owner::User),
            ("42", r#"{"user_id":1,"user_id":42}"#, Owner::User),
            ("42", r#"{"user_id":42,"user_id":1}"#, Owner::Other),
            ("42", r#"{"user_id":420}"#, Owner::Other),
            ("42", r#"{"user_id":42.5}"#, Owner::Other),
            ("42", r#"{"user_id":null}"#, Owner::Other),
            ("42", r#"{"other":42}"#, Owner::Other),
            ("42", r#"[{"user_id":42}]"#, undecided("not_an_object")),
            ("42", r#""{\"user_id\":42}""#, undecided("not_an_object")),
            ("42", r#"{"user_id":[42]}"#, undecided("invalid_field user_id")),
            ("42", r#"{"user_id":"x"}"#, undecided("invalid_field user_id")),
            ("42", r#"{"user_id":42"#, undecided("invalid_json")),
            ("x", r#"{"user_id":"x"}"#, Owner::User),
            (snowflake, r#"{"user_id":1234567890123456789}"#, Owner::User),
            (snowflake, r#"{"user_id":"1234567890123456789"}"#, Owner::User),
            (snowflake, r#"{"user_id":1234567890123456768}"#, Owner::Other),
            (
                snowflake,
                r#"{"user_id":"1234567890123456768"}"#,
                undecided("user_id is a number that several ids become"),
            ),
            ("18446744073709551615", r#"{"user_id":18446744073709551615}"#, Owner::User),
            ("18446744073709551615", r#"{"user_id":18446744073709551614}"#, Owner::Other),
        ] {
            assert_eq!(owner(&settings, user, body), expected, "{user} {body}");
        }
    }

    #[test]
    fn an_id_that_is_stored_as_text_is_compared_as_text() {
        let as_text = load_text("f", "[event.fields]\nuser_id = { type = \"string\" }").unwrap().routes.remove(0);
        assert_eq!(owner(&as_text, "42", r#"{"user_id":42.0}"#), Owner::User);
        assert_eq!(owner(&as_text, "42", r#"{"user_id":" 42"}"#), Owner::Other);
    }
}
