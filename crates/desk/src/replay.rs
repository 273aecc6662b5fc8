//! Replaying: each dead letter is published again, as it was or edited, and leaves the queue once RabbitMQ has confirmed it.

use std::path::PathBuf;

use bson::oid::ObjectId;
use serde_json::{Value, json};

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::escape;
use ticketlog_rabbitmq::{self as rabbitmq, AckHandle, Delivery, Rate, ReplayTarget};

use super::archive_file::BackupFile;
use super::edit::Edit;
use super::forecast::{Forecast, Prediction, Predictor};
use super::reader::{DeadLetter, DeadLetterReader};
use super::stop_after::Gate;
use super::transfer::{ReplaySpan, Sent, Transfer};
use super::{DeskError, EndedEarly, Operation, Outcome, Progress, Run, Selection, StopAfter, Touched};
use ticketlog_config::format::dead_letters;

/// The destination of those that no message can be addressed to.
const TOO_LONG: &str = "an exchange or routing key over 255 bytes";

/// Starts the span of a replay: of a delivery, with the id of its dead letter and that of the replay, to an exchange. `None` if its trace is
/// not recorded.
pub type StartSpan = fn(&Delivery, &str, &str, &str) -> Option<Box<dyn ReplaySpan>>;

/// What to replay, and how.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Its id, which marks every message that it sends.
    pub id: String,
    /// Which dead letters.
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
    /// When it ends early.
    pub stop_after: Option<StopAfter>,
    /// Records it in the traces of its messages.
    pub start_span: StartSpan,
}

impl Replay {
    /// Everything that is selected, unchanged.
    pub fn new(selection: Selection, start_span: StartSpan) -> Replay {
        Replay {
            id: ObjectId::new().to_hex(),
            selection,
            edit: None,
            backup: None,
            to_queue: None,
            skip_rejected: false,
            rate: None,
            stop_after: None,
            start_span,
        }
    }

    /// The usual file for the originals of what is edited.
    pub fn backup_name(&self) -> PathBuf {
        PathBuf::from(format!("{}-{}.ndjson", self.selection.source.queue.replace('/', "_"), self.id))
    }

    /// # Errors
    /// The dead letters are parked, or the backup exists already.
    pub fn check_queue(&self, settings: &RouteSettings) -> Result<(), DeskError> {
        if self.selection.source.queue == settings.parked_queue {
            let text = "parked dead letters are not replayed; unpark them first (`ticketlog dead unpark`)";
            return Err(DeskError::Usage(text.to_owned()));
        }
        self.backup.clone().map_or(Ok(()), |path| BackupFile::new(path).check())
    }

    /// # Errors
    /// The dead letters are parked, the backup cannot be created, or the edit is wrong: where, and what was expected.
    pub async fn check(&self, settings: &RouteSettings) -> Result<(), DeskError> {
        self.predictor(settings).await.map(drop)
    }

    async fn predictor<'a>(&self, settings: &'a RouteSettings) -> Result<Predictor<'a>, DeskError> {
        self.check_queue(settings)?;
        Predictor::new(settings, self.edit.as_ref(), self.to_queue.is_some()).await
    }

    /// What would become of the selected dead letters, with the first `samples` of them in full. Nothing is changed.
    ///
    /// # Errors
    /// The queue cannot be read, or the edit is wrong.
    pub async fn forecast(&self, run: Run<'_>, samples: usize) -> Result<Forecast, DeskError> {
        let mut predictor = self.predictor(run.settings).await?;
        let mut reader = DeadLetterReader::open(run, &self.selection).await?;
        let mut forecast = Forecast::default();
        let read = async {
            while let Some(dead_letter) = reader.next().await? {
                let prediction = predictor.predict(&dead_letter.delivery, &dead_letter.record).await;
                forecast.add(&prediction);
                if forecast.samples.len() < samples {
                    let before = predictor.readable_body(&dead_letter.delivery).into_owned();
                    forecast.add_sample(dead_letter.id.clone(), before, prediction);
                }
            }
            Ok(())
        }
        .await;
        reader.close(read).await?;
        if run.report.is_stopped() {
            return Err(DeskError::Stopped);
        }
        Ok(forecast)
    }

    /// Limits it to as many as the forecast has counted.
    pub fn limit_to(&mut self, forecast: &Forecast) {
        self.selection.limit_to(forecast.total());
    }

    /// Sends every selected dead letter.
    async fn send(
        &self,
        run: Run<'_>,
        transfer: &mut Transfer<'_>,
        mut predictor: Predictor<'_>,
    ) -> Result<(), DeskError> {
        let Run { settings, report } = run;
        let mut backup = self.backup.clone().map(BackupFile::new);
        let user_name = rabbitmq::user_name(&settings.broker);
        let target = ReplayTarget { replay_id: self.id.clone(), user_name, queue: self.to_queue.clone() };
        let exchange = &settings.dead_letter.exchange;
        let mut gate = Gate::new(self, settings);
        while let Some((dead_letter, ack)) = transfer.next().await? {
            if let Some(gate) = &mut gate
                && !gate.admits(transfer, &**report).await?
            {
                break;
            }
            let DeadLetter { id, delivery, record, .. } = &dead_letter;
            let (edited, document_id) = match predictor.predict(delivery, record).await {
                Prediction::Parked => {
                    let parked = delivery.copy_to(record, exchange, &settings.parked_queue, false);
                    let sent = Sent { is_parked: true, ..Sent::new(id.clone(), Touched::Parked) };
                    transfer.send(parked, ack, sent).await?;
                    continue;
                }
                Prediction::EditFailed(error, _) => {
                    transfer.progress.outcome.stayed.note_failed_edit(id, &error, &**report);
                    continue;
                }
                prediction @ Prediction::Rejected(_) if self.skip_rejected => {
                    transfer.progress.outcome.stayed.add(&prediction);
                    continue;
                }
                Prediction::Rejected(_) => (None, None),
                Prediction::Accepted { edited, document_id } => (edited, document_id),
            };
            if let (Some(_), Some(backup)) = (&edited, &mut backup) {
                backup.append(&format!("{}\n", dead_letter.archive(&self.selection.source.queue)))?;
                transfer.progress.outcome.file = backup.created();
            }
            self.publish(transfer, (dead_letter, ack), &target, (edited, document_id)).await?;
        }
        Ok(())
    }

    /// Publishes a dead letter again, with its new body if it has one.
    async fn publish(
        &self,
        transfer: &mut Transfer<'_>,
        (dead_letter, ack): (DeadLetter, AckHandle),
        target: &ReplayTarget,
        (edited, document_id): (Option<Vec<u8>>, Option<ObjectId>),
    ) -> Result<(), DeskError> {
        let DeadLetter { id, delivery, record, .. } = dead_letter;
        let span = (self.start_span)(&delivery, &id, &self.id, target.address(&record).0);
        let touched = if edited.is_some() { Touched::Edited } else { Touched::Replayed };
        let Some(message) = delivery.replay(&record, target, edited) else {
            transfer.progress.outcome.add_undeliverable(TOO_LONG.to_owned(), 1);
            return Ok(());
        };
        transfer.send(message, ack, Sent { document_id, span, ..Sent::new(id, touched) }).await
    }
}

impl Operation for Replay {
    const COUNTED: &'static str = "replayed";

    fn subject(&self) -> Value {
        let mut subject = self.selection.subject("replay");
        if let Value::Object(subject) = &mut subject {
            subject.insert("replay_id".to_owned(), json!(self.id));
            subject.insert("to_queue".to_owned(), json!(self.to_queue));
            subject.insert("edited".to_owned(), json!(self.edit.is_some()));
        }
        subject
    }

    async fn perform(&self, run: Run<'_>, progress: &mut Progress) -> Result<(), DeskError> {
        let predictor = self.predictor(run.settings).await?;
        let mut transfer = Transfer::open(run, &self.selection, self.rate, progress).await?;
        let sent = self.send(run, &mut transfer, predictor).await;
        transfer.finish(sent).await
    }

    fn to_json(&self, outcome: &Outcome) -> Value {
        json!({
            "replay_id": self.id, "replayed": outcome.count, "parked": outcome.parked,
            "undeliverable": outcome.undeliverable, "skipped": outcome.stayed.rejected,
            "edit_failed": outcome.stayed.edit_failed, "backup": outcome.file,
            "seconds": outcome.duration.as_secs_f64(), "bytes": outcome.bytes,
            "ended_early": outcome.ended_early.map(EndedEarly::to_text),
            "document_ids": outcome.document_ids.iter().map(|id| id.to_hex()).collect::<Vec<_>>(),
        })
    }

    fn to_text(&self, outcome: &Outcome) -> String {
        let (replayed, seconds) = (dead_letters(outcome.count), outcome.duration.as_secs_f64());
        let mut text = format!("replay {}: {replayed} replayed in {seconds:.1} s", self.id);
        if outcome.parked > 0 {
            let parked = outcome.parked;
            text.push_str(&format!("; {parked} parked, because they were replayed dead_letter.max_replays times"));
        }
        for (what, causes) in
            [("skipped, still rejected", &outcome.stayed.rejected), ("not edited", &outcome.stayed.edit_failed)]
        {
            for (cause, count) in causes {
                text.push_str(&format!("; {count} {what} ({})", escape(cause)));
            }
        }
        if let Some(file) = &outcome.file {
            text.push_str(&format!("; the originals are in {file} (`ticketlog dead import` restores them)"));
        }
        text
    }
}
