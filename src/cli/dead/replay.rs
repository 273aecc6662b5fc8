//! `ticketlog dead replay`: its flags, its question, and following it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use url::Url;

use crate::observe::traces;
use ticketlog_config::RouteSettings;
use ticketlog_desk::{
    self as desk, Edit, EndedEarly, Follow, Followed, Forecast, Operation as _, Outcome, Replay, Run, StopAfter,
};
use ticketlog_rabbitmq::{Delivery, Rate};

use super::super::terminal::{after_printing, check_can_ask, confirm, note, print_line};
use super::super::terminal_report::{TerminalReport, progress_with_message};
use super::super::worker_address::{own_worker, parse_http_url};
use super::super::{CommandError, exit};
use super::outcome;
use super::selection::{AuditArgs, QueueArgs, Selection, parse_name};

/// Flags of `ticketlog dead replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    #[command(flatten, next_help_heading = "Options")]
    audit: AuditArgs,
    /// Only show what would happen with the current decoder and settings.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Replay into this queue directly, so that other queues bound to the exchange do not receive them again.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    to_queue: Option<String>,
    /// Change each body by an expression in jq's language, such as `.timestamp |= fromdate * 1000`. Its input is the decompressed
    /// body or, where that is not JSON, its text as a string. If it fails, or the decoder rejects what it made, the dead letter
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
    skip_rejected: bool,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Wait until the workers report the outcome of each.
    #[arg(long)]
    follow: bool,
    /// End when N of them have been dead-lettered again, so that a wrong edit costs fewer than 2 N: asks the workers while it sends,
    /// and lets at most N be on their way at a time. The rest stays in the queue.
    #[arg(long, value_name = "N", requires = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    stop_after: Option<u64>,
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

/// Records a replay in the trace of its message.
pub(in crate::cli) fn start_replay_span(
    delivery: &Delivery,
    dead_letter_id: &str,
    replay_id: &str,
    exchange: &str,
) -> Option<Box<dyn desk::ReplaySpan>> {
    let span = traces::ReplaySpan::start(delivery, dead_letter_id, replay_id, exchange)?;
    Some(Box::new(span))
}

impl desk::ReplaySpan for traces::ReplaySpan {
    fn confirmed(&mut self) {
        traces::ReplaySpan::confirmed(self);
    }
}

impl ReplayArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let mut replay = self.replay(settings);
        replay.check_queue(settings)?;
        if !self.yes && !self.dry_run {
            check_can_ask("--yes or --dry-run")?;
        }
        if !self.yes {
            let forecast = replay.forecast(Run { settings, report: &TerminalReport::reading() }, 0).await?;
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
        let mut replay = Replay::new(self.selection.of(self.queue.source(settings)), start_replay_span);
        replay.edit = self.edit.clone().map(Edit::Expression);
        if self.edit.is_some() && !self.no_backup {
            replay.backup = Some(self.backup.clone().unwrap_or_else(|| replay.backup_name()));
        }
        let stop_after = self.stop_after.map(|count| StopAfter {
            count,
            workers: self.workers(settings),
            patience: self.follow_timeout,
        });
        let (to_queue, rate) = (self.to_queue.clone(), self.rate);
        Replay { to_queue, skip_rejected: self.skip_rejected, rate, stop_after, ..replay }
    }

    fn workers(&self, settings: &RouteSettings) -> Vec<Url> {
        if self.status.is_empty() { vec![own_worker(settings)] } else { self.status.clone() }
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
        let _logging = AuditArgs::log(settings);
        let traces = traces::install(&settings.telemetry).map_err(|error| CommandError::new(exit::CONFIG, error))?;
        let done = outcome::run(replay, settings, &self.audit).await;
        if let Some(traces) = traces {
            traces.finish().await;
        }
        let done = done?;
        // Workers that told nothing while it ran are not asked again.
        let is_untold = matches!(done.outcome.ended_early, Some(EndedEarly::NoOutcome(_)));
        if !self.follow || done.ended.is_err() || done.outcome.count == 0 || is_untold {
            return outcome::print(replay, done, self.json);
        }
        let printed = if self.json { Ok(()) } else { print_line(replay.to_text(&done.outcome)) };
        let code = outcome::finish(replay, &done.outcome, done.ended)?;
        let followed = self.follow(settings, replay, &done.outcome).await;
        let ended = if code == 0 { followed } else { after_printing(Ok(code), followed.map(drop)) };
        after_printing(ended, printed)
    }

    async fn follow(&self, settings: &RouteSettings, replay: &Replay, outcome: &Outcome) -> Result<u8, CommandError> {
        let workers = self.workers(settings);
        let follow = Follow {
            workers: &workers,
            queue: &settings.queue,
            replay_id: &replay.id,
            expected: outcome.count,
            patience: self.follow_timeout,
        };
        let bar = progress_with_message(follow.expected, "settled");
        let followed = follow
            .run(|known| {
                let waiting = known.not_ready.as_ref().map(|cause| format!("waiting: {cause}"));
                bar.set_message(waiting.unwrap_or_default());
                bar.set_position(known.known());
            })
            .await;
        bar.finish_and_clear();
        let mut summary = replay.to_json(outcome);
        if let (true, Value::Object(summary)) = (followed.is_answered, &mut summary) {
            summary.insert("outcome".to_owned(), followed.to_json());
        }
        let printed = if self.json { print_line(summary) } else { Ok(()) };
        if !followed.is_answered {
            let addresses = workers.iter().map(Url::to_string).collect::<Vec<_>>().join(", ");
            let text = format!(
                "everything was replayed, but no worker answers at {addresses}; pass the HTTP address of a worker with --status URL"
            );
            return Err(CommandError::text(exit::UNAVAILABLE, text));
        }
        after_printing(self.print_followed(&followed), printed)
    }

    /// 0 only if every outcome is known and nothing was dead-lettered again.
    fn print_followed(&self, followed: &Followed) -> Result<u8, CommandError> {
        let unknown = followed.unknown();
        let mut printed = Ok(());
        if !self.json {
            printed = print_line(followed.to_text());
            if unknown > 0 {
                note(format_args!(
                    "{unknown} without an outcome so far: still in the queue, at a worker that was not asked (--status URL), or not \
                     trusted by the workers (dead_letter.operators)"
                ));
            }
        }
        let code = match (unknown, followed.dead_lettered_again()) {
            (0, 0) => 0,
            (0, _) => exit::DATA,
            _ => exit::TEMPORARY,
        };
        after_printing(Ok(code), printed)
    }
}
