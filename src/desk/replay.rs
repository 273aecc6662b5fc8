//! Owns replaying dead letters: each is published again, as it was or edited, and leaves the queue once RabbitMQ has confirmed
//! it. Must not know how a prediction is made.

use std::path::PathBuf;
use std::sync::Arc;

use bson::oid::ObjectId;
use serde_json::{Value, json};

use crate::config::RouteSettings;
use crate::dead_letter::escape;
use crate::observe::traces::ReplaySpan;
use crate::rabbitmq::{self, Rate, ReplayTarget};
use crate::report::Report;

use super::archive_file::BackupFile;
use super::edit::Edit;
use super::forecast::{Forecast, Prediction, Predictor};
use super::reader::{LetterReader, SelectedLetter};
use super::transfer::{Transfer, TransferReport};
use super::{DeskError, Selection, Source, dead_letters};

/// What to replay, and how.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Its id, which marks every message that it sends.
    pub id: String,
    /// The queue that they leave.
    pub source: Source,
    /// Which of its dead letters.
    pub selection: Selection,
    /// How their bodies are changed.
    pub edit: Option<Edit>,
    /// The new file for those that are changed, as they were.
    pub backup: Option<PathBuf>,
    /// A queue that replaces the original exchange and routing key.
    pub to_queue: Option<String>,
    /// Whether those that the decoder would reject again stay.
    pub skip_rejected: bool,
    /// Most messages a second.
    pub rate: Option<Rate>,
}

/// How a dead letter was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// Published again.
    Replayed,
    /// Into the parked queue.
    Parked,
}

/// What a replay did.
pub struct ReplayReport {
    /// What was moved.
    pub transfer: TransferReport<Move>,
    /// What stayed, and why.
    pub stayed: Forecast,
    /// The file with the originals of those that were edited, if there are any.
    pub backup: Option<String>,
}

impl Replay {
    /// Everything that is selected, unchanged.
    pub fn new(source: Source, selection: Selection) -> Replay {
        Replay {
            id: ObjectId::new().to_hex(),
            source,
            selection,
            edit: None,
            backup: None,
            to_queue: None,
            skip_rejected: false,
            rate: None,
        }
    }

    /// The usual file for the originals of what is edited.
    pub fn backup_name(&self) -> PathBuf {
        PathBuf::from(format!("{}-{}.ndjson", self.source.queue.replace('/', "_"), self.id))
    }

    /// The part of an audit line that describes it.
    pub fn audit_subject(&self) -> Value {
        json!({
            "action": "replay", "queue": self.source.queue, "filter": self.selection.to_json(), "replay_id": self.id,
            "to_queue": self.to_queue, "edited": self.edit.is_some(),
        })
    }

    /// # Errors
    /// The edit is wrong: where, and what was expected.
    pub async fn check(&self, settings: &RouteSettings) -> Result<(), DeskError> {
        Predictor::new(settings, self.edit.as_ref(), self.to_queue.is_some()).await.map(drop)
    }

    /// What would become of the selected dead letters, with the first `samples` of them in full. Nothing is changed.
    ///
    /// # Errors
    /// The queue cannot be read, or the edit is wrong.
    pub async fn forecast(
        &self,
        settings: &RouteSettings,
        samples: usize,
        report: &Arc<dyn Report>,
    ) -> Result<Forecast, DeskError> {
        let mut predictor = Predictor::new(settings, self.edit.as_ref(), self.to_queue.is_some()).await?;
        let mut reader = LetterReader::open(settings, &self.source, &self.selection, report).await?;
        let mut forecast = Forecast::default();
        let read = async {
            while let Some(letter) = reader.next().await? {
                let prediction = predictor.predict(&letter.delivery, &letter.record).await;
                forecast.add(&prediction);
                if forecast.samples.len() < samples {
                    let before = predictor.readable_body(&letter.delivery).into_owned();
                    forecast.add_sample(letter.id.clone(), before, prediction);
                }
                report.set_done(forecast.total());
            }
            Ok(())
        }
        .await;
        reader.close(read).await?;
        if report.is_stopped() {
            return Err(DeskError::Stopped);
        }
        Ok(forecast)
    }

    /// Limits it to as many as the forecast has counted.
    pub fn limit_to(&mut self, forecast: &Forecast) {
        let count = u32::try_from(forecast.total()).unwrap_or(u32::MAX);
        self.selection.limit = Some(self.selection.limit.map_or(count, |limit| limit.min(count)));
    }

    /// Replays those that are in the queue when this begins. Returns what was done, and how it ended.
    ///
    /// # Errors
    /// The edit is wrong, or the queue cannot be opened; nothing was moved.
    pub async fn run(
        &self,
        settings: &RouteSettings,
        report: &Arc<dyn Report>,
    ) -> Result<(ReplayReport, Result<(), DeskError>), DeskError> {
        if self.source.queue == settings.parked_queue {
            let text = "parked dead letters are not replayed; unpark them first (`ticketlog dead unpark`)";
            return Err(DeskError::Usage(text.to_owned()));
        }
        let mut predictor = Predictor::new(settings, self.edit.as_ref(), self.to_queue.is_some()).await?;
        let reader = LetterReader::open_to_remove(settings, &self.source, &self.selection, report).await?;
        let mut transfer = Transfer::new(settings, reader, self.rate, report).await?;
        let mut progress = Progress { backup: self.backup.clone().map(BackupFile::new), ..Progress::default() };
        let sent = self.send(settings, &mut transfer, &mut predictor, &mut progress, &**report).await;
        let (transfer, ended) = transfer.finish(sent).await;
        let Progress { stayed, backup } = progress;
        let backup = backup.and_then(|backup| backup.created());
        Ok((ReplayReport { transfer, stayed, backup }, ended))
    }

    /// Sends every selected dead letter.
    async fn send(
        &self,
        settings: &RouteSettings,
        transfer: &mut Transfer<Move>,
        predictor: &mut Predictor<'_>,
        progress: &mut Progress,
        report: &dyn Report,
    ) -> Result<(), DeskError> {
        let user_name = rabbitmq::user_name(&settings.broker);
        let target = ReplayTarget { replay_id: self.id.clone(), user_name, queue: self.to_queue.clone() };
        while let Some(letter) = transfer.next().await? {
            let SelectedLetter { id: name, delivery, record, mut handle, .. } = letter;
            let edited = match predictor.predict(&delivery, &record).await {
                Prediction::Parked => {
                    let parked =
                        delivery.copy_to(&record, &settings.dead_letter.exchange, &settings.parked_queue, false);
                    transfer.send(parked, handle, Move::Parked).await?;
                    continue;
                }
                Prediction::EditFailed(error, _) => {
                    progress.stayed.note_failed_edit(&name, &error, report);
                    continue;
                }
                prediction @ Prediction::Rejected(_) if self.skip_rejected => {
                    progress.stayed.add(&prediction);
                    continue;
                }
                Prediction::Rejected(_) => None,
                Prediction::Accepted { edited, document_id } => {
                    handle.document_id = document_id;
                    edited
                }
            };
            if let (Some(_), Some(backup)) = (&edited, &mut progress.backup) {
                let archived = delivery.archive(&record, &self.source.queue);
                backup.append(&format!("{}\n", archived.to_line()))?;
            }
            let (exchange, _) = target.address(&record);
            handle.span = ReplaySpan::start(&delivery, &name, &self.id, exchange);
            match delivery.replay(&record, &target, edited) {
                Some(message) => transfer.send(message, handle, Move::Replayed).await?,
                None => transfer.count_undeliverable("an exchange or routing key over 255 bytes".to_owned()),
            }
        }
        Ok(())
    }
}

/// What is known of a replay while it runs.
#[derive(Default)]
struct Progress {
    /// What stays in the queue.
    stayed: Forecast,
    backup: Option<BackupFile>,
}

impl ReplayReport {
    /// Number of dead letters that were published again.
    pub fn replayed(&self) -> u64 {
        self.transfer.moved(&Move::Replayed)
    }

    /// Number of dead letters that were parked.
    pub fn parked(&self) -> u64 {
        self.transfer.moved(&Move::Parked)
    }

    /// As JSON, for the operator. Causes and errors may quote bodies.
    pub fn to_json(&self, replay_id: &str) -> Value {
        json!({
            "replay_id": replay_id, "replayed": self.replayed(), "parked": self.parked(),
            "undeliverable": self.transfer.undeliverable, "skipped": self.stayed.rejected,
            "edit_failed": self.stayed.edit_failed, "backup": self.backup,
            "seconds": self.transfer.duration.as_secs_f64(), "bytes": self.transfer.counts.bytes,
            "document_ids": self.transfer.document_ids.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        })
    }

    /// The outcome, for the audit: counts only.
    pub fn outcome(&self) -> Value {
        let sum = |counts: &std::collections::BTreeMap<String, u64>| counts.values().sum::<u64>();
        json!({
            "replayed": self.replayed(), "parked": self.parked(), "undeliverable": self.transfer.undeliverable(),
            "skipped": sum(&self.stayed.rejected), "edit_failed": sum(&self.stayed.edit_failed),
            "backup": self.backup, "seconds": self.transfer.duration.as_secs_f64(),
            "stopped": self.transfer.interrupted.then_some(true),
        })
    }

    /// As a sentence.
    pub fn to_text(&self) -> String {
        let seconds = self.transfer.duration.as_secs_f64();
        let mut text = format!("{} replayed in {seconds:.1} s", dead_letters(self.replayed()));
        if self.parked() > 0 {
            let parked = self.parked();
            text.push_str(&format!("; {parked} parked, because they were replayed dead_letter.max_replays times"));
        }
        for (what, causes) in
            [("skipped, still rejected", &self.stayed.rejected), ("not edited", &self.stayed.edit_failed)]
        {
            for (cause, count) in causes {
                text.push_str(&format!("; {count} {what} ({})", escape(cause)));
            }
        }
        text
    }
}
