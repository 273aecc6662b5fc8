//! Owns `ticketlog dead purge`: deletes dead letters, each only after it is on disk in a backup file. Must not know how a
//! queue is browsed.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::config::Settings;
use crate::system::now_millis;

use super::super::CommandError;
use super::super::batch_publisher::progress;
use super::super::terminal::{confirm, note, print_line};
use super::archive_file::BackupFile;
use super::audit::{self, Audit};
use super::format::dead_letters;
use super::reader::{LetterHandle, LetterReader, SelectedLetter};
use super::selection::{AuditArgs, QueueArgs, Selection};

/// Most messages, and bytes of their lines, that are written before they are synced and deleted.
const MAX_BATCH_MESSAGES: usize = 500;
const MAX_BATCH_BYTES: usize = 8 << 20;

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
    pub async fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
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
            (None, false) => Some(PathBuf::from(format!("{}-{}.ndjson", queue.replace('/', "_"), now_millis()))),
        };
        let audit = Audit::begin(settings, &self.audit, audit::subject("purge", queue, &self.selection))?;
        let mut reader = LetterReader::open(settings, &self.queue, Some(&self.selection)).await?;
        reader.move_letters(now_millis(), None);
        let mut count = 0;
        let file = backup.as_ref().map(|path| path.display().to_string());
        let purged = purge(&mut reader, backup.map(BackupFile::new), queue, &mut count).await;
        audit.end(json!({ "purged": count, "backup": file }), purged.is_err());
        if let (Err(_), Some(file)) = (&purged, &file) {
            note(format_args!("{} purged before the failure; all are in {file}", dead_letters(count)));
        }
        reader.close(purged).await?;
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
        match (self.selection.filter().is_empty(), self.selection.limit) {
            (true, None) => "everything in it".to_owned(),
            (true, Some(limit)) => format!("the first {limit}"),
            (false, None) => "the selected dead letters".to_owned(),
            (false, Some(limit)) => format!("the first {limit} selected dead letters"),
        }
    }
}

async fn purge(
    reader: &mut LetterReader,
    mut backup: Option<BackupFile>,
    queue: &str,
    purged: &mut u64,
) -> Result<(), CommandError> {
    backup.as_mut().map(BackupFile::create).transpose()?;
    let bar = progress(Some(reader.total()), "purged");
    let (mut lines, mut handles) = (String::new(), Vec::new());
    while let Some(SelectedLetter { delivery, record, handle, .. }) = reader.next().await? {
        if backup.is_some() {
            lines.push_str(&delivery.archive(&record, queue).to_line());
            lines.push('\n');
        }
        handles.push(handle);
        if handles.len() >= MAX_BATCH_MESSAGES || lines.len() >= MAX_BATCH_BYTES {
            delete(reader, backup.as_mut(), &mut lines, &mut handles, purged).await?;
            bar.set_position(*purged);
        }
    }
    delete(reader, backup.as_mut(), &mut lines, &mut handles, purged).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Writes the lines and syncs them to disk, then deletes their messages.
async fn delete(
    reader: &mut LetterReader,
    backup: Option<&mut BackupFile>,
    lines: &mut String,
    handles: &mut Vec<LetterHandle>,
    purged: &mut u64,
) -> Result<(), CommandError> {
    if let Some(backup) = backup {
        backup.append(lines)?;
        lines.clear();
    }
    let count = handles.len() as u64;
    reader.acknowledge(std::mem::take(handles)).await?;
    *purged += count;
    Ok(())
}
