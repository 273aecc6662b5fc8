//! Exporting dead letters as lines of the archive format; they stay in the queue.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use serde_json::Value;

use ticketlog_rabbitmq::report::Report;

use super::archive_file::NewFile;
use super::{DeadLetterReader, DeskError, Operation, Outcome, Progress, Run, Selection};
use ticketlog_config::format::dead_letters;

/// Takes a line without its end; returns when there is room for another.
pub type LineSink<'a> = Box<dyn Fn(String) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync + 'a>;

/// Where the lines go.
pub enum ExportTo<'a> {
    /// A new file, which is complete or does not exist.
    File(PathBuf),
    /// Somebody who reads them.
    Lines(LineSink<'a>),
}

/// What to export, and where.
pub struct Export<'a> {
    /// Which dead letters.
    pub selection: Selection,
    /// Where they go.
    pub to: ExportTo<'a>,
}

impl Export<'_> {
    async fn export(
        &self,
        reader: &mut DeadLetterReader,
        report: &dyn Report,
        outcome: &mut Outcome,
    ) -> Result<(), DeskError> {
        let mut file = match &self.to {
            ExportTo::File(path) => Some(NewFile::create(path)?),
            ExportTo::Lines(_) => None,
        };
        while let Some(dead_letter) = reader.next().await? {
            let line = dead_letter.archive(&self.selection.source.queue);
            match (&mut file, &self.to) {
                (Some(file), _) => file.write(&line).await?,
                (None, ExportTo::Lines(sink)) => sink(line).await?,
                (None, ExportTo::File(_)) => {}
            }
            outcome.count += 1;
        }
        if report.is_stopped() {
            return Err(DeskError::Stopped);
        }
        if let (Some(file), ExportTo::File(path)) = (file, &self.to) {
            file.finish().await?;
            outcome.file = Some(path.display().to_string());
        }
        Ok(())
    }
}

impl Operation for Export<'_> {
    const COUNTED: &'static str = "exported";

    fn subject(&self) -> Value {
        self.selection.subject("export")
    }

    async fn perform(&self, run: Run<'_>, progress: &mut Progress) -> Result<(), DeskError> {
        // Before it waits for the queue, and again when it is its turn.
        if let ExportTo::File(path) = &self.to {
            NewFile::check(path)?;
        }
        let mut reader = DeadLetterReader::open(run, &self.selection).await?;
        let exported = self.export(&mut reader, &**run.report, &mut progress.outcome).await;
        reader.close(exported).await
    }

    fn to_text(&self, outcome: &Outcome) -> String {
        let to: String = outcome.file.iter().map(|file| format!(" to {file}")).collect();
        format!("{} exported{to}; they stay in the queue", dead_letters(outcome.count))
    }
}
