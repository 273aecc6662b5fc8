//! Owns the forecast of a replay: what would become of each dead letter with the current decoder and settings. Must not know
//! how a replay is sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::Settings;
use crate::dead_letter::DeadLetterRecord;
use crate::event::{self, Decoder, Message};
use crate::rabbitmq::Delivery;

use super::super::terminal::note;
use super::edit::edit;
use super::format::dead_letters;
use super::reader::decoder_message;

/// Most dead letters that are named in notes because their edits failed.
const MAX_NAMED: u64 = 20;

/// What a replay would do with a dead letter. The body is set if it was edited.
pub(super) enum Prediction {
    /// The decoder accepts it.
    Accepted(Option<Vec<u8>>),
    /// It would be dead-lettered again, unchanged, for this cause.
    Rejected(String),
    /// It was replayed `dead_letter.max_replays` times and is parked.
    Parked,
    /// The edit command failed, or the decoder rejects what it made, and it stays: the queue holds the only original.
    EditFailed(String),
}

/// Predicts what becomes of dead letters.
pub(super) struct Predictor<'a> {
    settings: &'a Settings,
    decoder: Decoder,
    edit_command: Option<&'a str>,
}

impl<'a> Predictor<'a> {
    pub fn new(settings: &'a Settings, edit_command: Option<&'a str>) -> Self {
        Predictor { settings, decoder: Decoder::new(Arc::new(settings.rules())), edit_command }
    }

    pub async fn predict(&mut self, delivery: &Delivery, record: &DeadLetterRecord) -> Prediction {
        if record.replays >= i64::from(self.settings.dead_letter.max_replays) {
            return Prediction::Parked;
        }
        let edited = match self.edited_body(delivery).await {
            Ok(edited) => edited,
            Err(error) => return Prediction::EditFailed(error),
        };
        let original = decoder_message(delivery);
        let message = match &edited {
            Some(body) => Message { body, content_encoding: None, ..original },
            None => original,
        };
        match self.decoder.decode(&message, || [0; 12]) {
            Ok(_) => Prediction::Accepted(edited),
            Err(rejection) if edited.is_some() => {
                Prediction::EditFailed(format!("the edited body is rejected: {}", rejection.reason_and_field()))
            }
            Err(rejection) => Prediction::Rejected(rejection.reason_and_field()),
        }
    }

    async fn edited_body(&self, delivery: &Delivery) -> Result<Option<Vec<u8>>, String> {
        let Some(command) = self.edit_command.map(str::to_owned) else { return Ok(None) };
        let body = event::decompressed_body(&decoder_message(delivery), self.decoder.rules());
        let body = body.map_or_else(|_| delivery.body.clone(), |body| body.into_owned());
        let max_bytes = self.settings.event.max_bytes.bytes();
        let edited = tokio::task::spawn_blocking(move || edit(&command, body, max_bytes)).await;
        edited.unwrap_or_else(|_| Err("the edit was aborted".to_owned())).map(Some)
    }
}

/// The predictions for all dead letters, counted.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    pub accepted: u64,
    pub rejected: BTreeMap<String, u64>,
    pub parked: u64,
    pub edit_failed: BTreeMap<String, u64>,
}

impl Forecast {
    pub fn add(&mut self, prediction: Prediction) {
        match prediction {
            Prediction::Accepted(_) => self.accepted += 1,
            Prediction::Rejected(cause) => *self.rejected.entry(cause).or_default() += 1,
            Prediction::Parked => self.parked += 1,
            Prediction::EditFailed(error) => *self.edit_failed.entry(error).or_default() += 1,
        }
    }

    /// Counts a dead letter that stays because its edit failed. The first of them are named in notes.
    pub fn edit_failed(&mut self, record: &DeadLetterRecord, position: u32, error: String) {
        let before: u64 = self.edit_failed.values().sum();
        if before < MAX_NAMED {
            let id = record.id.clone().unwrap_or_else(|| format!("@{position}"));
            note(format_args!("{id} stays in the queue: {error}"));
        }
        self.add(Prediction::EditFailed(error));
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
            let _ = writeln!(text, "{count:>8}  would be dead-lettered again: {cause}");
        }
        if self.parked > 0 {
            let _ =
                writeln!(text, "{:>8}  would be parked: already replayed dead_letter.max_replays times", self.parked);
        }
        for (error, count) in &self.edit_failed {
            let _ = writeln!(text, "{count:>8}  would stay: {error}");
        }
        text
    }

    pub fn to_json(&self) -> Value {
        json!({
            "accepted": self.accepted, "dead_again": self.rejected, "parked": self.parked,
            "edit_failed": self.edit_failed,
        })
    }
}
