//! Owns purging: deleting dead letters, each only after it is on disk in a backup file. Must not know how a queue is browsed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::RouteSettings;
use crate::report::Report;
use crate::system::now_millis;

use super::archive_file::BackupFile;
use super::reader::{LetterHandle, LetterReader, SelectedLetter};
use super::{DeskError, Selection, Source};

/// Most messages, and bytes of their lines, that are written before they are synced and deleted.
const MAX_BATCH_MESSAGES: usize = 500;
const MAX_BATCH_BYTES: usize = 8 << 20;

/// What to delete.
#[derive(Debug, Clone)]
pub struct Purge {
    /// The queue.
    pub source: Source,
    /// Which of its dead letters.
    pub selection: Selection,
    /// The new file for them; none deletes them without a copy.
    pub backup: Option<PathBuf>,
}

/// One run.
struct Run<'a> {
    reader: &'a mut LetterReader,
    backup: Option<BackupFile>,
    queue: &'a str,
    report: &'a dyn Report,
    lines: String,
    handles: Vec<LetterHandle>,
    purged: u64,
}

impl Purge {
    /// The usual file for what is deleted from a queue.
    pub fn backup_name(queue: &str) -> PathBuf {
        PathBuf::from(format!("{}-{}.ndjson", queue.replace('/', "_"), now_millis()))
    }

    /// Deletes those that are in the queue when this begins. Returns their number, and how it ended.
    pub async fn run(&self, settings: &RouteSettings, report: &Arc<dyn Report>) -> (u64, Result<(), DeskError>) {
        let mut reader = match LetterReader::open_to_remove(settings, &self.source, &self.selection, report).await {
            Ok(reader) => reader,
            Err(error) => return (0, Err(error)),
        };
        let mut run = Run {
            reader: &mut reader,
            backup: self.backup.clone().map(BackupFile::new),
            queue: &self.source.queue,
            report: &**report,
            lines: String::new(),
            handles: Vec::new(),
            purged: 0,
        };
        let ended = run.purge().await;
        let purged = run.purged;
        (purged, reader.close(ended).await)
    }
}

impl Run<'_> {
    async fn purge(&mut self) -> Result<(), DeskError> {
        self.backup.as_ref().map(BackupFile::check).transpose()?;
        while let Some(SelectedLetter { delivery, record, handle, .. }) = self.reader.next().await? {
            if self.backup.is_some() {
                self.lines.push_str(&delivery.archive(&record, self.queue).to_line());
                self.lines.push('\n');
            }
            self.handles.push(handle);
            if self.handles.len() >= MAX_BATCH_MESSAGES || self.lines.len() >= MAX_BATCH_BYTES {
                self.delete().await?;
            }
        }
        self.delete().await
    }

    /// Writes the lines and syncs them to disk, then deletes their messages.
    async fn delete(&mut self) -> Result<(), DeskError> {
        if let Some(backup) = &mut self.backup {
            backup.append(&self.lines)?;
            self.lines.clear();
        }
        let count = self.handles.len() as u64;
        self.reader.acknowledge(std::mem::take(&mut self.handles)).await?;
        self.purged += count;
        self.report.set_done(self.purged);
        Ok(())
    }
}
