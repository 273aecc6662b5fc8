//! Owns `ticketlog dead export`. Must not know how a queue is browsed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::config::Settings;

use super::super::batch_publisher::progress;
use super::super::terminal::{LineWriter, note};
use super::super::{CommandError, exit};
use super::archive_file::{create_file, sync_directory};
use super::audit::{self, Audit};
use super::format::dead_letters;
use super::reader::LetterReader;
use super::selection::{AuditArgs, QueueArgs, Selection};

/// Flags of `ticketlog dead export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A new file, readable for its owner only [default: standard output, also `-`].
    file: Option<PathBuf>,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    audit: AuditArgs,
}

struct Counts {
    exported: u64,
    /// Not written, because their headers are nested too deep for JSON.
    skipped: u64,
}

impl ExportArgs {
    pub async fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let file = self.file.as_deref().filter(|path| *path != Path::new("-"));
        if let Some(path) = file.filter(|path| path.exists()) {
            let text = format!("{} exists already; export to a new file", path.display());
            return Err(CommandError::text(exit::CANNOT_CREATE, text));
        }
        let subject = audit::subject("export", self.queue.name(settings), &self.selection);
        let audit = Audit::begin(settings, &self.audit, subject)?;
        let exported = match file {
            Some(path) => self.export_file(settings, path).await,
            None => self.export(settings, Box::new(std::io::stdout())).await,
        };
        let outcome = exported.as_ref().ok();
        let outcome = outcome.map(|counts| json!({ "exported": counts.exported, "skipped": counts.skipped }));
        audit.end(outcome.unwrap_or_default(), exported.is_err());
        let skipped = exported?.skipped;
        if skipped > 0 {
            note(format_args!("{} skipped: the headers are nested too deep for JSON", dead_letters(skipped)));
            return Ok(exit::DATA);
        }
        Ok(0)
    }

    /// Writes to a partial file, which gets its name when the last line is on disk: the file is complete, or does not exist.
    async fn export_file(&self, settings: &Settings, path: &Path) -> Result<Counts, CommandError> {
        let partial = PathBuf::from(format!("{}.partial", path.display()));
        // Left over from a killed export.
        let _ = std::fs::remove_file(&partial);
        let counts = match self.export(settings, Box::new(create_file(&partial)?)).await {
            Ok(counts) => counts,
            Err(error) => {
                let _ = std::fs::remove_file(&partial);
                return Err(error);
            }
        };
        File::open(&partial)?.sync_all()?;
        std::fs::rename(partial, path)?;
        sync_directory(path)?;
        note(format_args!("{} exported to {}; they stay in the queue", dead_letters(counts.exported), path.display()));
        Ok(counts)
    }

    async fn export(&self, settings: &Settings, out: Box<dyn Write + Send>) -> Result<Counts, CommandError> {
        let mut reader = LetterReader::open(settings, &self.queue, Some(&self.selection)).await?;
        let bar = progress(Some(reader.total()), "exported");
        let queue = self.queue.name(settings);
        let lines = LineWriter::new(out);
        let written = async {
            let mut counts = Counts { exported: 0, skipped: 0 };
            while let Some(letter) = reader.next().await? {
                match letter.delivery.archive(&letter.record, queue) {
                    Some(archived) => {
                        lines.write(archived.to_line()).await?;
                        counts.exported += 1;
                    }
                    None => counts.skipped += 1,
                }
                bar.set_position(counts.exported);
            }
            Ok(counts)
        }
        .await;
        bar.finish_and_clear();
        let (counts, finished) = (reader.close(written).await, lines.finish().await);
        finished?;
        counts
    }
}
