//! Owns `ticketlog dead export`, and the archive file that `purge` writes as well.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::config::Settings;

use super::super::Fault;
use super::super::carrier::progress;
use super::super::terminal::Lines;
use super::audit::Audit;
use super::scan::Scan;
use super::{Audited, Selection, Target, count, note};

/// Flags of `ticketlog dead export`.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// A new file, readable for its owner only; standard output without one, or for `-`.
    file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    audited: Audited,
}

/// A message that has no form as JSON.
pub(super) fn too_deep() -> Fault {
    let text =
        "its headers are nested deeper than 60 levels and cannot be written as JSON; replay and park can take it";
    Fault::new(65, anyhow::Error::msg(text))
}

/// Creates a file that did not exist, for its owner only.
pub(super) fn create(path: &Path) -> Result<File, Fault> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| Fault::new(73, anyhow::Error::msg(format!("{} cannot be created: {error}", path.display()))))
}

/// Makes the name of a file durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), Fault> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(folder)?.sync_all()?)
}

impl Export {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let file = self.file.as_deref().filter(|path| *path != Path::new("-"));
        if let Some(path) = file.filter(|path| path.exists()) {
            let text = format!("{} exists already; export to a new file", path.display());
            return Err(Fault::new(73, anyhow::Error::msg(text)));
        }
        let audit = Audit::begin(settings, &self.audited, "export", self.target.queue(settings), &self.selection)?;
        let exported = match file {
            Some(path) => self.write_whole(settings, path).await,
            None => self.write(settings, Box::new(std::io::stdout())).await,
        };
        let outcome =
            exported.as_ref().ok().map(|(written, skipped)| json!({ "exported": written, "skipped": skipped }));
        audit.end(outcome.unwrap_or_default(), exported.is_err());
        let (_, skipped) = exported?;
        if skipped > 0 {
            let skipped = count(skipped, "dead letter");
            note(format_args!("{skipped} skipped: the headers are nested deeper than JSON can say"));
            return Ok(65);
        }
        Ok(0)
    }

    /// Whole or not at all: the name is given when the last line is on disk.
    async fn write_whole(&self, settings: &Settings, path: &Path) -> Result<(u64, u64), Fault> {
        let partial = PathBuf::from(format!("{}.partial", path.display()));
        // What a killed export left behind is nobody's.
        let _ = std::fs::remove_file(&partial);
        let counts = match self.write(settings, Box::new(create(&partial)?)).await {
            Ok(counts) => counts,
            Err(fault) => {
                let _ = std::fs::remove_file(&partial);
                return Err(fault);
            }
        };
        File::open(&partial)?.sync_all()?;
        std::fs::rename(partial, path)?;
        sync_folder(path)?;
        let written = count(counts.0, "dead letter");
        note(format_args!("{written} exported to {}; they stay in the queue", path.display()));
        Ok(counts)
    }

    async fn write(&self, settings: &Settings, out: Box<dyn Write + Send>) -> Result<(u64, u64), Fault> {
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        let bar = progress(Some(scan.total()), "exported");
        let queue = self.target.queue(settings);
        let lines = Lines::to(out);
        let written = async {
            let (mut written, mut skipped) = (0, 0);
            while let Some(found) = scan.next().await? {
                match found.delivery.archive(&found.record, queue) {
                    Some(archived) => {
                        lines.line(archived.to_line()).await?;
                        written += 1;
                    }
                    None => skipped += 1,
                }
                bar.set_position(written);
            }
            Ok((written, skipped))
        }
        .await;
        bar.finish_and_clear();
        let (counts, ended) = (scan.close(written).await, lines.end().await);
        ended?;
        counts
    }
}
