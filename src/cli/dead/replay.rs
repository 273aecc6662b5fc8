//! Owns `ticketlog dead replay`: publishes dead letters again, and reports the results. Must not know how a prediction is
//! made.

use std::io::{IsTerminal as _, stdin};
use std::path::PathBuf;
use std::time::Duration;

use bson::oid::ObjectId;
use clap::Args;
use serde_json::{Value, json};
use url::Url;

use crate::config::Settings;
use crate::rabbitmq::{self, ReplayTarget};
use crate::system::now_millis;

use super::super::terminal::{confirm, note, print_line};
use super::super::worker_address::parse_http_url;
use super::super::{CommandError, exit, publish};
use super::archive_file::BackupFile;
use super::audit::{self, Audit};
use super::follow;
use super::forecast::{Forecast, Prediction, Predictor};
use super::format::dead_letters;
use super::reader::{LetterReader, SelectedLetter};
use super::selection::{AuditArgs, QueueArgs, Selection, parse_name};
use super::transfer::{Transfer, TransferReport};

/// Flags of `ticketlog dead replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    #[command(flatten, next_help_heading = "Options")]
    audit: AuditArgs,
    /// Only show what would become of them with the current decoder and settings.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Replay into this queue directly, so that other queues bound to the exchange do not receive them again.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    to_queue: Option<String>,
    /// Pipe each body through this shell command, such as `jq -c '.user_id |= tonumber'`. If it fails,
    /// or the decoder rejects what it made, the dead letter stays. The body is decompressed first. A changed body is another
    /// event: it gets another `_id`.
    #[arg(long, value_name = "COMMAND")]
    edit: Option<String>,
    /// The new file for dead letters that --edit changes, as they were [default: a file in this directory, named after the
    /// queue and the replay].
    #[arg(long, value_name = "FILE", requires = "edit", conflicts_with = "no_backup")]
    backup: Option<PathBuf>,
    /// Keep no copy of what --edit changes.
    #[arg(long, requires = "edit")]
    no_backup: bool,
    /// Leave those in the queue that the decoder would reject again.
    #[arg(long)]
    skip_bad: bool,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s", value_parser = publish::rate)]
    rate: Option<f64>,
    /// Wait until the workers report the outcome of each.
    #[arg(long)]
    follow: bool,
    /// The HTTP address of a worker, for --follow; repeatable [default: http.listen].
    #[arg(long, value_name = "URL", value_parser = parse_http_url)]
    status: Vec<Url>,
    /// How long --follow waits without a new outcome.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    follow_timeout: Duration,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// How a dead letter was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    Replayed,
    Parked,
}

impl ReplayArgs {
    pub async fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        if self.queue.name(settings) == settings.dead_letter.parked_queue {
            return Err(CommandError::usage("parked dead letters are not replayed; run `ticketlog dead unpark` first"));
        }
        if !self.yes && !self.dry_run && !stdin().is_terminal() {
            return Err(CommandError::usage("standard input is not a terminal; pass --yes or --dry-run"));
        }
        let (mut forecast_messages, began) = (None, now_millis());
        if !self.yes {
            let (forecast, messages) = self.forecast(settings).await?;
            if self.dry_run {
                self.print_forecast(&forecast)?;
                return Ok(0);
            }
            forecast.to_text().lines().for_each(note);
            if forecast.total() == 0 {
                return Ok(0);
            }
            if !confirm("replay them? [y/N]", &["y", "Y", "yes"], "--yes or --dry-run")? {
                return Err(CommandError::usage("nothing was replayed"));
            }
            // Dead letters that came after the forecast are not replayed.
            forecast_messages = Some(u32::try_from(messages).unwrap_or(u32::MAX));
        }
        self.replay(settings, forecast_messages, began).await
    }

    fn print_forecast(&self, forecast: &Forecast) -> Result<(), CommandError> {
        if self.json {
            return print_line(forecast.to_json());
        }
        print_line(forecast.to_text().trim_end())?;
        note("nothing was changed");
        Ok(())
    }

    /// The forecast, and the number of messages that it met: the dead letters and their copies.
    async fn forecast(&self, settings: &Settings) -> Result<(Forecast, u64), CommandError> {
        let mut reader = LetterReader::open(settings, &self.queue, Some(&self.selection)).await?;
        let mut predictor = Predictor::new(settings, self.edit.as_deref());
        let mut forecast = Forecast::default();
        let read = async {
            while let Some(SelectedLetter { delivery, record, .. }) = reader.next().await? {
                forecast.add(predictor.predict(&delivery, &record).await);
            }
            Ok(())
        }
        .await;
        let messages = forecast.total() + reader.copies() as u64;
        reader.close(read).await?;
        Ok((forecast, messages))
    }

    async fn replay(&self, settings: &Settings, max_messages: Option<u32>, began: i64) -> Result<u8, CommandError> {
        let replay_id = ObjectId::new().to_hex();
        let subject = self.audit_subject(self.queue.name(settings), &replay_id);
        let audit = Audit::begin(settings, &self.audit, subject)?;
        let mut reader = LetterReader::open(settings, &self.queue, Some(&self.selection)).await?;
        reader.limit_messages(max_messages);
        reader.move_letters(began, Some(&replay_id));
        let mut transfer = Transfer::new(settings, reader, self.rate, "replayed").await?;
        let mut stayed = Forecast::default();
        let mut backup = self.backup_file(self.queue.name(settings), &replay_id);
        let sent = self.send(settings, &mut transfer, &replay_id, &mut stayed, backup.as_mut()).await;
        let backup = backup.and_then(|backup| backup.created());
        let (report, ended) = transfer.finish(sent).await;
        let replayed = report.moved(&Move::Replayed);
        let summary = summary(&replay_id, &report, &stayed, backup.as_deref());
        audit.end(summary.clone(), ended.is_err());
        let follow = self.follow && replayed > 0;
        if !self.json {
            print_line(format_args!("replay {replay_id}: {}", summary_text(&report, &stayed)))?;
        } else if ended.is_err() || !follow {
            print_line(&summary)?;
        }
        if let Some(file) = backup {
            note(format_args!(
                "the originals of the edited dead letters are in {file}; `ticketlog dead import` restores them"
            ));
        }
        ended?;
        report.print_undeliverable();
        let code = report.exit_code();
        let code = if stayed.edit_failed.is_empty() { code } else { code.max(exit::DATA) };
        if !follow {
            return Ok(code);
        }
        let followed = self.follow(settings, &replay_id, replayed, summary).await?;
        Ok(if code == 0 { followed } else { code })
    }

    fn audit_subject(&self, queue: &str, replay_id: &str) -> Value {
        let mut subject = audit::subject("replay", queue, &self.selection);
        if let Value::Object(subject) = &mut subject {
            subject.insert("replay_id".to_owned(), json!(replay_id));
            subject.insert("to_queue".to_owned(), json!(self.to_queue));
            subject.insert("edited".to_owned(), json!(self.edit.is_some()));
        }
        subject
    }

    fn backup_file(&self, queue: &str, replay_id: &str) -> Option<BackupFile> {
        let default = || PathBuf::from(format!("{}-{replay_id}.ndjson", queue.replace('/', "_")));
        let wanted = self.edit.is_some() && !self.no_backup;
        wanted.then(|| BackupFile::new(self.backup.clone().unwrap_or_else(default)))
    }

    async fn follow(
        &self,
        settings: &Settings,
        replay_id: &str,
        replayed: u64,
        summary: Value,
    ) -> Result<u8, CommandError> {
        match follow::follow(settings, &self.status, replay_id, replayed, self.follow_timeout).await {
            Ok(outcomes) => {
                outcomes.print(self.json.then_some(summary))?;
                Ok(outcomes.exit_code())
            }
            Err(error) => {
                if self.json {
                    print_line(&summary)?;
                }
                Err(error)
            }
        }
    }

    /// Sends every selected dead letter; `stayed` counts those that stay in the queue.
    async fn send(
        &self,
        settings: &Settings,
        transfer: &mut Transfer<Move>,
        replay_id: &str,
        stayed: &mut Forecast,
        mut backup: Option<&mut BackupFile>,
    ) -> Result<(), CommandError> {
        let mut predictor = Predictor::new(settings, self.edit.as_deref());
        let user_name = rabbitmq::user_name(&settings.broker);
        let target = ReplayTarget { replay_id: replay_id.to_owned(), user_name, queue: self.to_queue.clone() };
        let dead_letter = &settings.dead_letter;
        while let Some(SelectedLetter { delivery, record, position, handle }) = transfer.next().await? {
            let edited = match predictor.predict(&delivery, &record).await {
                Prediction::Parked => {
                    let parked = delivery.copy_to(&record, &dead_letter.exchange, &dead_letter.parked_queue, false);
                    transfer.send(parked, handle, Move::Parked).await?;
                    continue;
                }
                Prediction::EditFailed(error) => {
                    stayed.edit_failed(&record, position, error);
                    continue;
                }
                prediction @ Prediction::Rejected(_) if self.skip_bad => {
                    stayed.add(prediction);
                    continue;
                }
                Prediction::Rejected(_) => None,
                Prediction::Accepted(edited) => edited,
            };
            if let (Some(_), Some(backup)) = (&edited, &mut backup) {
                let archived = delivery.archive(&record, self.queue.name(settings));
                backup.append(&format!("{}\n", archived.to_line()))?;
            }
            match delivery.replay(&record, &target, edited) {
                Some(message) => transfer.send(message, handle, Move::Replayed).await?,
                None => transfer.count_undeliverable("an exchange or routing key over 255 bytes".to_owned()),
            }
        }
        Ok(())
    }
}

fn summary(replay_id: &str, report: &TransferReport<Move>, stayed: &Forecast, backup: Option<&str>) -> Value {
    json!({
        "replay_id": replay_id, "replayed": report.moved(&Move::Replayed), "parked": report.moved(&Move::Parked),
        "undeliverable": report.undeliverable, "skipped": stayed.rejected, "edit_failed": stayed.edit_failed,
        "backup": backup, "seconds": report.duration.as_secs_f64(), "bytes": report.counts.bytes,
    })
}

fn summary_text(report: &TransferReport<Move>, stayed: &Forecast) -> String {
    let seconds = report.duration.as_secs_f64();
    let mut text = format!("{} replayed in {seconds:.1} s", dead_letters(report.moved(&Move::Replayed)));
    let parked = report.moved(&Move::Parked);
    if parked > 0 {
        text.push_str(&format!("; {parked} parked, because they were replayed dead_letter.max_replays times"));
    }
    for (what, causes) in [("skipped, still rejected", &stayed.rejected), ("not edited", &stayed.edit_failed)] {
        for (cause, count) in causes {
            text.push_str(&format!("; {count} {what} ({cause})"));
        }
    }
    text
}
