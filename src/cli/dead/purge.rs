//! `ticketlog dead purge`: its flags and its question.

use std::path::PathBuf;

use clap::Args;

use ticketlog_config::RouteSettings;
use ticketlog_config::format::dead_letters;
use ticketlog_desk::{Purge, Run};

use super::super::CommandError;
use super::super::terminal::{self, confirm, note};
use super::super::terminal_report::TerminalReport;
use super::outcome::run_and_print;
use super::selection::{AuditArgs, QueueArgs, Selection};

/// Flags of `ticketlog dead purge`.
#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    #[command(flatten, next_help_heading = "Options")]
    audit: AuditArgs,
    /// The new file for what is deleted [default: a file in this directory, named after the queue and the time].
    #[arg(long, value_name = "FILE", conflicts_with = "no_backup")]
    backup: Option<PathBuf>,
    /// Delete without a backup file.
    #[arg(long)]
    no_backup: bool,
    /// Do not ask for the name of the queue.
    #[arg(long)]
    yes: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl PurgeArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let queue = self.queue.name(settings);
        let backup = match (&self.backup, self.no_backup) {
            (_, true) => None,
            (Some(path), false) => Some(path.clone()),
            (None, false) => Some(Purge::backup_name(queue)),
        };
        let mut purge = Purge { selection: self.selection.of(self.queue.source(settings)), backup };
        purge.check()?;
        if !self.yes {
            terminal::check_can_ask("--yes")?;
            let count = purge.selection.count(Run { settings, report: &TerminalReport::reading() }).await?;
            if count == 0 {
                note(format_args!("nothing to purge in queue {queue}"));
                return Ok(0);
            }
            let what = dead_letters(count);
            let question = format!("purge {what} of queue {queue}; type the name of the queue to confirm:");
            if !confirm(&question, &[queue], "--yes")? {
                return Err(CommandError::usage("the name does not match; nothing was purged"));
            }
            // No more than that, also if others come after the question.
            purge.selection.limit_to(count);
        }
        run_and_print(&purge, settings, &self.audit, self.json).await
    }
}
