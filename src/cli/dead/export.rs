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
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    #[command(flatten, next_help_heading = "Options")]
    audit: AuditArgs,
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
        let outcome = exported.as_ref().ok().map(|exported| json!({ "exported": exported }));
        audit.end(outcome.unwrap_or_default(), exported.is_err());
        exported.map(|_| 0)
    }

    /// Writes to a partial file, which gets its name when the last line is on disk: the file is complete, or does not exist.
    async fn export_file(&self, settings: &Settings, path: &Path) -> Result<u64, CommandError> {
        let partial = PathBuf::from(format!("{}.partial", path.display()));
        // Left over from a killed export.
        let _ = std::fs::remove_file(&partial);
        let exported = match self.export(settings, Box::new(create_file(&partial)?)).await {
            Ok(exported) => exported,
            Err(error) => {
                let _ = std::fs::remove_file(&partial);
                return Err(error);
            }
        };
        File::open(&partial)?.sync_all()?;
        std::fs::rename(partial, path)?;
        sync_directory(path)?;
        note(format_args!("{} exported to {}; they stay in the queue", dead_letters(exported), path.display()));
        Ok(exported)
    }

    /// Writes the selected dead letters, and returns their number.
    async fn export(&self, settings: &Settings, out: Box<dyn Write + Send>) -> Result<u64, CommandError> {
        let mut reader = LetterReader::open(settings, &self.queue, Some(&self.selection)).await?;
        let bar = progress(Some(reader.total()), "exported");
        let queue = self.queue.name(settings);
        let lines = LineWriter::new(out);
        let written = async {
            let mut exported = 0;
            while let Some(letter) = reader.next().await? {
                lines.write(letter.delivery.archive(&letter.record, queue).to_line()).await?;
                exported += 1;
                bar.set_position(exported);
            }
            Ok(exported)
        }
        .await;
        bar.finish_and_clear();
        let (exported, finished) = (reader.close(written).await, lines.finish().await);
        finished?;
        exported
    }
}
