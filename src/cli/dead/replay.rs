//! Owns `ticketlog dead replay`: its flags, its question and what it prints. Must not know how a replay is done.

use std::io::{IsTerminal as _, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use url::Url;

use crate::config::RouteSettings;
use crate::desk::{Edit, Forecast, Replay};
use crate::observe::traces;
use crate::rabbitmq::Rate;
use crate::report::Report;

use super::super::terminal::{confirm, note, print_line};
use super::super::terminal_report::TerminalReport;
use super::super::worker_address::parse_http_url;
use super::super::{CommandError, exit};
use super::follow;
use super::selection::{AuditArgs, QueueArgs, Selection, parse_name};
use super::{print_undeliverable, transfer_exit_code};

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
    /// Change each body by an expression in jq's language, such as `.user_id |= tonumber`. Its input is the decompressed body
    /// or, where that is not JSON, its text as a string. If it fails, or the decoder rejects what it made, the dead letter
    /// stays. A changed body is another event: it gets another `_id`.
    #[arg(long, value_name = "EXPRESSION")]
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
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Wait until the workers report the outcome of each.
    #[arg(long)]
    follow: bool,
    /// The HTTP address of a worker, for --follow; repeatable. A name with several addresses stands for a worker at each
    /// [default: http.listen].
    #[arg(long, value_name = "URL", value_parser = parse_http_url)]
    status: Vec<Url>,
    /// How long --follow waits without a new outcome.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    follow_timeout: Duration,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl ReplayArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let mut replay = self.replay(settings);
        if replay.source.queue == settings.parked_queue {
            return Err(CommandError::usage("parked dead letters are not replayed; run `ticketlog dead unpark` first"));
        }
        if !self.yes && !self.dry_run && !stdin().is_terminal() {
            return Err(CommandError::usage("standard input is not a terminal; pass --yes or --dry-run"));
        }
        if !self.yes {
            let forecast = replay.forecast(settings, 0, &TerminalReport::notes()).await?;
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
            replay.limit_to(&forecast);
        }
        self.run_replay(settings, &replay).await
    }

    fn replay(&self, settings: &RouteSettings) -> Replay {
        let mut replay = Replay::new(self.queue.source(settings), self.selection.to_desk());
        replay.edit = self.edit.clone().map(Edit::Expression);
        if self.edit.is_some() && !self.no_backup {
            replay.backup = Some(self.backup.clone().unwrap_or_else(|| replay.backup_name()));
        }
        Replay { to_queue: self.to_queue.clone(), skip_rejected: self.skip_bad, rate: self.rate, ..replay }
    }

    fn print_forecast(&self, forecast: &Forecast) -> Result<(), CommandError> {
        if self.json {
            return print_line(forecast.to_json());
        }
        print_line(forecast.to_text().trim_end())?;
        note("nothing was changed");
        Ok(())
    }

    async fn run_replay(&self, settings: &RouteSettings, replay: &Replay) -> Result<u8, CommandError> {
        let (audit, _logging) = self.audit.begin(settings, replay.audit_subject())?;
        let traces = traces::install(&settings.telemetry).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "replayed").stopped_by_interrupt();
        let (done, ended) = replay.run(settings, &report).await?;
        drop(report);
        audit.end(done.outcome(), ended.is_err());
        if let Some(traces) = traces {
            traces.finish().await;
        }
        let (replayed, summary) = (done.replayed(), done.to_json(&replay.id));
        let follow = self.follow && replayed > 0;
        if !self.json {
            print_line(format_args!("replay {}: {}", replay.id, done.to_text()))?;
        } else if ended.is_err() || !follow {
            print_line(&summary)?;
        }
        if let Some(file) = &done.backup {
            note(format_args!(
                "the originals of the edited dead letters are in {file}; `ticketlog dead import` restores them"
            ));
        }
        ended?;
        print_undeliverable(&done.transfer);
        let code = transfer_exit_code(&done.transfer);
        let code = if done.stayed.edit_failed.is_empty() { code } else { code.max(exit::DATA) };
        if !follow {
            return Ok(code);
        }
        let followed = self.follow(settings, &replay.id, replayed, summary).await?;
        Ok(if code == 0 { followed } else { code })
    }

    async fn follow(
        &self,
        settings: &RouteSettings,
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
}
