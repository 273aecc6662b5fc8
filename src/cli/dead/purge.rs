//! Owns `ticketlog dead purge`: its flags, its question and what it prints. Must not know how dead letters are deleted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::config::RouteSettings;
use crate::desk::{Purge, dead_letters};
use crate::report::Report;

use super::super::CommandError;
use super::super::terminal::{confirm, note, print_line};
use super::super::terminal_report::TerminalReport;
use super::selection::{AuditArgs, QueueArgs, Selection, subject};

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
        let file = backup.as_ref().map(|path| path.display().to_string());
        let (audit, _logging) = self.audit.begin(settings, subject("purge", queue, &self.selection))?;
        let purge = Purge { source: self.queue.source(settings), selection: self.selection.to_desk(), backup };
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "purged");
        let (count, ended) = purge.run(settings, &report).await;
        drop(report);
        // Nothing was deleted without a line in it.
        let file = file.filter(|file| Path::new(file).exists());
        audit.end(json!({ "purged": count, "backup": file }), ended.is_err());
        if let (Err(_), Some(file), true) = (&ended, &file, count > 0) {
            note(format_args!("{} purged before the failure; all are in {file}", dead_letters(count)));
        }
        ended?;
        self.print(queue, file, count)?;
        Ok(0)
    }

    fn print(&self, queue: &str, file: Option<String>, count: u64) -> Result<(), CommandError> {
        if self.json {
            print_line(json!({ "purged": count, "backup": file }))
        } else {
            let hint = file.map(|file| format!("; `ticketlog dead import {file}` restores them")).unwrap_or_default();
            print_line(format_args!("{} purged from {queue}{hint}", dead_letters(count)))
        }
    }

    fn selected_text(&self) -> String {
        match (self.selection.to_desk().filter.is_empty(), self.selection.limit) {
            (true, None) => "everything in it".to_owned(),
            (true, Some(limit)) => format!("the first {limit}"),
            (false, None) => "the selected dead letters".to_owned(),
            (false, Some(limit)) => format!("the first {limit} selected dead letters"),
        }
    }
}
