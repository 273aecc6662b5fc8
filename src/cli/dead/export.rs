//! `ticketlog dead export`.

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::future::BoxFuture;

use ticketlog_config::RouteSettings;
use ticketlog_desk::{Export, ExportTo, Operation as _};

use super::super::CommandError;
use super::super::terminal::{LineWriter, after_printing, note};
use super::outcome;
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
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let _logging = AuditArgs::log(settings);
        let selection = self.selection.of(self.queue.source(settings));
        if let Some(path) = self.file.as_deref().filter(|path| *path != Path::new("-")) {
            let export = Export { selection, to: ExportTo::File(path.to_owned()) };
            let done = outcome::run(&export, settings, &self.audit).await?;
            if done.ended.is_ok() {
                note(export.to_text(&done.outcome));
            }
            return outcome::finish(&export, &done.outcome, done.ended);
        }
        let lines = LineWriter::new(Box::new(std::io::stdout()));
        let sink = Box::new(|line| -> BoxFuture<'static, std::io::Result<()>> { Box::pin(lines.write(line)) });
        let export = Export { selection, to: ExportTo::Lines(sink) };
        let done = outcome::run(&export, settings, &self.audit).await;
        let code = done.and_then(|done| outcome::finish(&export, &done.outcome, done.ended));
        drop(export);
        after_printing(code, lines.finish().await)
    }
}
