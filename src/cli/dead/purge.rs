//! `ticketlog dead purge`: its flags and its question.

use std::path::PathBuf;

use clap::Args;

use ticketlog_config::RouteSettings;
use ticketlog_desk::Purge;

use super::super::CommandError;
use super::super::terminal::confirm;
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
        if !self.yes {
            let question = format!("purge {}; type the name of the queue ({queue}) to confirm:", self.selected_text());
            if !confirm(&question, &[queue], "--yes")? {
                return Err(CommandError::usage("the name does not match; nothing was purged"));
            }
        }
        let backup = match (&self.backup, self.no_backup) {
            (_, true) => None,
            (Some(path), false) => Some(path.clone()),
            (None, false) => Some(Purge::backup_name(queue)),
        };
        let purge = Purge { selection: self.selection.of(self.queue.source(settings)), backup };
        run_and_print(&purge, settings, &self.audit, self.json).await
    }

    fn selected_text(&self) -> String {
        match (self.selection.filter().is_empty(), self.selection.limit) {
            (true, None) => "everything in it".to_owned(),
            (true, Some(limit)) => format!("the first {limit}"),
            (false, None) => "the selected dead letters".to_owned(),
            (false, Some(limit)) => format!("the first {limit} selected dead letters"),
        }
    }
}
