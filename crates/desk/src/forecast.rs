//! The forecast of a replay: what would become of each dead letter with the current decoder and settings.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bson::oid::ObjectId;
use serde_json::{Value, json};

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::{DeadLetterRecord, bounded, escape};
use ticketlog_contract::{Address, Decoder, Identity, Message};
use ticketlog_rabbitmq::Delivery;
use ticketlog_rabbitmq::report::Report;

use super::edit::{Edit, Editor};
use super::{DeskError, readable_body};
use ticketlog_config::format::dead_letters;

/// Most dead letters that are named in notes because their edits failed.
const MAX_NAMED: u64 = 20;
/// Most different texts of one kind that are counted; further ones are counted together. They may hold values of bodies, so
/// there may be as many as dead letters.
const MAX_TEXTS: usize = 50;
/// Most bytes of a body that are kept of a sample.
const MAX_SAMPLE: usize = 8 << 10;

/// What a replay would do with a dead letter.
pub(super) enum Prediction {
    /// The decoder accepts it.
    Accepted {
        /// The new body, if it was edited.
        edited: Option<Vec<u8>>,
        /// The `_id` of the document, if it is known before: if the message has an identity.
        document_id: Option<ObjectId>,
    },
    /// It would be dead-lettered again, unchanged, for this cause.
    Rejected(String),
    /// It was replayed `dead_letter.max_replays` times and is parked.
    Parked,
    /// The edit failed, or the decoder rejects what it made, and it stays: the queue holds the only original. The body is set
    /// if the edit made one.
    EditFailed(String, Option<Vec<u8>>),
}

/// The message that a replay makes of a dead letter: published where it was published first, with texts that are not UTF-8 replaced, and
/// without a content encoding if its body was edited. If its routing key is of another route, RabbitMQ takes it there: the rules of this
/// one are a guess at what becomes of it, and its routing key is not at fault.
pub fn replayed_message<'a>(
    settings: &RouteSettings,
    delivery: &'a Delivery,
    record: &'a DeadLetterRecord,
    edited: Option<&'a [u8]>,
) -> Message<'a> {
    let DeadLetterRecord { exchange, routing_key, .. } = record;
    let is_judged = !exchange.is_empty() && !settings.is_key_of_a_route(routing_key);
    let address = is_judged.then_some(Address { exchange, routing_key });
    let message =
        Message { unreadable: None, address, dead_letter_id: record.first_dead_letter_id(), ..delivery.message() };
    match edited {
        Some(body) => Message { body, content_encoding: None, ..message },
        None => message,
    }
}

/// Predicts what becomes of dead letters.
pub(super) struct Predictor<'a> {
    settings: &'a RouteSettings,
    decoder: Decoder,
    editor: Option<Editor>,
    /// Whether they go to a queue instead of their exchange.
    to_queue: bool,
}

impl<'a> Predictor<'a> {
    /// # Errors
    /// The expression of the edit is wrong.
    pub async fn new(settings: &'a RouteSettings, edit: Option<&Edit>, to_queue: bool) -> Result<Self, DeskError> {
        let max_bytes = settings.event.max_bytes.bytes();
        let editor = match edit {
            Some(edit) => Some(Editor::new(edit.clone(), max_bytes).await?),
            None => None,
        };
        Ok(Predictor { settings, decoder: Decoder::new(Arc::new(settings.rules())), editor, to_queue })
    }

    /// The body as an edit receives it.
    pub fn readable_body<'d>(&self, delivery: &'d Delivery) -> Cow<'d, [u8]> {
        readable_body(delivery, self.decoder.rules())
    }

    pub async fn predict(&mut self, delivery: &Delivery, record: &DeadLetterRecord) -> Prediction {
        if record.replays >= i64::from(self.settings.dead_letter.max_replays) {
            return Prediction::Parked;
        }
        let body = self.readable_body(delivery);
        let edited = match &mut self.editor {
            None => None,
            Some(editor) => match editor.apply(&body).await {
                Ok(edited) => Some(edited),
                Err(error) => return Prediction::EditFailed(error, None),
            },
        };
        let message = replayed_message(self.settings, delivery, record, edited.as_deref());
        let message = if self.to_queue { Message { address: None, ..message } } else { message };
        match self.decoder.decode(&message, || [0; 12]) {
            // A replay replaces texts that are not UTF-8, the message_id among them.
            Ok(event) if event.identity == Identity::None || delivery.is_unreadable() => {
                Prediction::Accepted { edited, document_id: None }
            }
            Ok(event) => Prediction::Accepted { edited, document_id: Some(ObjectId::from_bytes(event.id)) },
            Err(rejection) if edited.is_some() => {
                let error = format!("the edited body is rejected: {}", rejection.reason_and_field());
                Prediction::EditFailed(error, edited)
            }
            Err(rejection) => Prediction::Rejected(rejection.reason_and_field()),
        }
    }
}

/// One dead letter of a forecast.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its id.
    pub name: String,
    /// The beginning of its body, decompressed.
    pub before: Vec<u8>,
    /// The beginning of the edited body, if there is one.
    pub after: Option<Vec<u8>>,
    /// Why it would not be stored; `None` if it would.
    pub problem: Option<String>,
}

/// The predictions for all dead letters, counted.
#[derive(Debug, Default)]
pub struct Forecast {
    /// The decoder accepts them now.
    pub accepted: u64,
    /// By cause: they would be dead-lettered again.
    pub rejected: BTreeMap<String, u64>,
    /// They would be parked.
    pub parked: u64,
    /// By error: they would stay.
    pub edit_failed: BTreeMap<String, u64>,
    /// The first of them.
    pub samples: Vec<Sample>,
}

impl Forecast {
    pub(super) fn add(&mut self, prediction: &Prediction) {
        match prediction {
            Prediction::Accepted { .. } => self.accepted += 1,
            Prediction::Rejected(cause) => count(&mut self.rejected, cause),
            Prediction::Parked => self.parked += 1,
            Prediction::EditFailed(error, _) => count(&mut self.edit_failed, error),
        }
    }

    pub(super) fn add_sample(&mut self, name: String, before: Vec<u8>, prediction: Prediction) {
        let (after, problem) = match prediction {
            Prediction::Accepted { edited, .. } => (edited, None),
            Prediction::Rejected(cause) => (None, Some(format!("would be dead-lettered again: {cause}"))),
            Prediction::Parked => (None, Some("would be parked: replayed dead_letter.max_replays times".to_owned())),
            Prediction::EditFailed(error, after) => (after, Some(format!("would stay: {error}"))),
        };
        let cut = |mut body: Vec<u8>| {
            body.truncate(MAX_SAMPLE);
            body
        };
        self.samples.push(Sample { name, before: cut(before), after: after.map(cut), problem });
    }

    /// Counts a dead letter that stays because its edit failed. The first of them are named in notes.
    pub(super) fn note_failed_edit(&mut self, name: &str, error: &str, report: &dyn Report) {
        let before: u64 = self.edit_failed.values().sum();
        if before < MAX_NAMED {
            report.note(&format!("{} stays in the queue: {}", escape(name), escape(error)));
        }
        count(&mut self.edit_failed, error);
    }

    /// Number of dead letters.
    pub fn total(&self) -> u64 {
        self.accepted + self.parked + self.rejected.values().sum::<u64>() + self.edit_failed.values().sum::<u64>()
    }

    /// As lines for a person.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}:\n", dead_letters(self.total()));
        let _ = writeln!(text, "{:>8}  accepted by the decoder now; MongoDB may still reject them", self.accepted);
        for (cause, count) in &self.rejected {
            let _ = writeln!(text, "{count:>8}  would be dead-lettered again: {}", escape(cause));
        }
        if self.parked > 0 {
            let _ =
                writeln!(text, "{:>8}  would be parked: already replayed dead_letter.max_replays times", self.parked);
        }
        for (error, count) in &self.edit_failed {
            let _ = writeln!(text, "{count:>8}  would stay: {}", escape(error));
        }
        text
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "accepted": self.accepted, "dead_lettered_again": self.rejected, "parked": self.parked,
            "edit_failed": self.edit_failed,
        })
    }
}

fn count(counts: &mut BTreeMap<String, u64>, text: &str) {
    *bounded(counts, text, MAX_TEXTS) += 1;
}
