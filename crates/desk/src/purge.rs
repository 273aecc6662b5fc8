//! Purging: deleting dead letters, each only after it is on disk in a backup file.

use std::path::PathBuf;

use serde_json::Value;

use ticketlog_config::system::now_millis;
use ticketlog_rabbitmq::AckHandle;
use ticketlog_rabbitmq::report::Report;

use super::archive_file::BackupFile;
use super::reader::DeadLetterRemover;
use super::{DeskError, Operation, Outcome, Progress, Run, Selection, Touched};
use ticketlog_config::format::dead_letters;

/// Most messages, and bytes of their lines, that are written before they are synced and deleted.
const MAX_BATCH_MESSAGES: usize = 500;
const MAX_BATCH_BYTES: usize = 8 << 20;

/// What to delete.
#[derive(Debug, Clone)]
pub struct Purge {
    /// Which dead letters.
    pub selection: Selection,
    /// The new file for them; none deletes them without a copy.
    pub backup: Option<PathBuf>,
}

/// Dead letters that are read, and neither in the file nor deleted.
#[derive(Default)]
struct Batch {
    lines: String,
    ids: Vec<String>,
    acks: Vec<AckHandle>,
}

impl Purge {
    /// The usual file for what is deleted from a queue.
    pub fn backup_name(queue: &str) -> PathBuf {
        PathBuf::from(format!("{}-{}.ndjson", queue.replace('/', "_"), now_millis()))
    }

    /// # Errors
    /// The backup exists already, or its directory does not.
    pub fn check(&self) -> Result<(), DeskError> {
        self.backup.clone().map_or(Ok(()), |path| BackupFile::new(path).check())
    }

    async fn purge(
        &self,
        remover: &mut DeadLetterRemover,
        report: &dyn Report,
        progress: &mut Progress,
    ) -> Result<(), DeskError> {
        let mut backup = self.backup.clone().map(BackupFile::new);
        let mut batch = Batch::default();
        loop {
            let next = remover.next().await?;
            let is_last = next.is_none();
            if let Some((dead_letter, ack)) = next {
                if backup.is_some() {
                    batch.lines += &dead_letter.archive(&self.selection.source.queue);
                    batch.lines.push('\n');
                }
                batch.ids.push(dead_letter.id);
                batch.acks.push(ack);
            }
            if is_last || batch.acks.len() >= MAX_BATCH_MESSAGES || batch.lines.len() >= MAX_BATCH_BYTES {
                let Batch { lines, ids, acks } = std::mem::take(&mut batch);
                if let Some(backup) = &mut backup {
                    backup.append(&lines)?;
                    progress.outcome.file = backup.created();
                }
                let mut purged = 0;
                let name = |at: usize| {
                    purged += 1;
                    ids.get(at).into_iter().for_each(|id| progress.name(Touched::Purged, id, None));
                };
                let acknowledged = remover.acknowledge(acks, name).await;
                progress.outcome.count += purged;
                acknowledged?;
                report.set_done(progress.outcome.count);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

impl Operation for Purge {
    const COUNTED: &'static str = "purged";

    fn subject(&self) -> Value {
        self.selection.subject("purge")
    }

    async fn perform(&self, run: Run<'_>, progress: &mut Progress) -> Result<(), DeskError> {
        self.check()?;
        let mut remover = DeadLetterRemover::open(run, &self.selection, None).await?;
        let ended = self.purge(&mut remover, &**run.report, progress).await;
        let outcome = &progress.outcome;
        if let (Err(_), Some(file), true) = (&ended, &outcome.file, outcome.count > 0) {
            let purged = dead_letters(outcome.count);
            run.report.note(&format!("{purged} purged before the failure; all are in {file}"));
        }
        remover.close(ended).await
    }

    fn to_text(&self, outcome: &Outcome) -> String {
        let hint = outcome.file.iter().map(|file| format!("; `ticketlog dead import {file}` restores them"));
        let (purged, queue) = (dead_letters(outcome.count), &self.selection.source.queue);
        format!("{purged} purged from {queue}{}", hint.collect::<String>())
    }
}
