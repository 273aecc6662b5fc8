//! Owns `ticketlog dead export`. Must not know how a queue is browsed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::config::RouteSettings;
use crate::desk::{self, create_file, dead_letters, sync_directory};
use crate::report::Report;

use super::super::terminal::{LineWriter, note};
use super::super::terminal_report::TerminalReport;
use super::super::{CommandError, exit};
use super::selection::{AuditArgs, QueueArgs, Selection, subject};

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
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let file = self.file.as_deref().filter(|path| *path != Path::new("-"));
        if let Some(path) = file.filter(|path| path.exists()) {
            let text = format!("{} exists already; export to a new file", path.display());
            return Err(CommandError::text(exit::CANNOT_CREATE, text));
        }
        let (audit, _logging) =
            self.audit.begin(settings, subject("export", self.queue.name(settings), &self.selection))?;
        let exported = match file {
            Some(path) => self.export_file(settings, path).await,
            None => self.export(settings, Box::new(std::io::stdout())).await,
        };
        let outcome = exported.as_ref().ok().map(|exported| json!({ "exported": exported }));
        audit.end(outcome.unwrap_or_default(), exported.is_err());
        exported.map(|_| 0)
    }

    /// Writes to a partial file, which gets its name when the last line is on disk: the file is complete, or does not exist.
    async fn export_file(&self, settings: &RouteSettings, path: &Path) -> Result<u64, CommandError> {
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
    async fn export(&self, settings: &RouteSettings, out: Box<dyn Write + Send>) -> Result<u64, CommandError> {
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "exported");
        let lines = LineWriter::new(out);
        let (source, selection) = (self.queue.source(settings), self.selection.to_desk());
        let write = |line| -> BoxFuture<'static, std::io::Result<()>> { Box::pin(lines.write(line)) };
        let exported = desk::export(settings, &source, &selection, &report, write).await;
        lines.finish().await?;
        Ok(exported?)
    }
}
