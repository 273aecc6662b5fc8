//! Owns `ticketlog dead export`, and the archive file that `purge` writes as well.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Settings;

use super::super::Fault;
use super::super::carrier::progress;
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

impl Export {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let file = self.file.as_deref().filter(|path| *path != Path::new("-"));
        if let Some(path) = file.filter(|path| path.exists()) {
            let text = format!("{} exists already; export to a new file", path.display());
            return Err(Fault::new(73, anyhow::Error::msg(text)));
        }
        let audit = Audit::begin(settings, &self.audited, "export", self.target.queue(settings), &self.selection)?;
        // Whole or not at all: the name is given when the last line is on disk.
        let partial = file.map(|path| PathBuf::from(format!("{}.partial", path.display())));
        let out: Box<dyn Write> = match &partial {
            Some(path) => Box::new(create(path)?),
            None => Box::new(std::io::stdout().lock()),
        };
        let exported = self.write(settings, out).await;
        let (written, skipped) = match exported {
            Ok(counts) => counts,
            Err(fault) => {
                partial.map(std::fs::remove_file);
                return Err(fault);
            }
        };
        if let (Some(partial), Some(path)) = (partial, file) {
            File::open(&partial)?.sync_all()?;
            std::fs::rename(partial, path)?;
            note(format_args!(
                "{} exported to {}; they stay in the queue",
                count(written, "dead letter"),
                path.display()
            ));
        }
        audit.end(serde_json::json!({ "exported": written, "skipped": skipped }));
        if skipped > 0 {
            note(format_args!(
                "{} skipped: the headers are nested deeper than JSON can say",
                count(skipped, "dead letter")
            ));
            return Ok(65);
        }
        Ok(0)
    }

    async fn write(&self, settings: &Settings, out: Box<dyn Write>) -> Result<(u64, u64), Fault> {
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        let bar = progress(Some(scan.total()), "exported");
        let queue = self.target.queue(settings);
        let written = async {
            let mut out = BufWriter::new(out);
            let (mut written, mut skipped) = (0, 0);
            while let Some(found) = scan.next().await? {
                match found.delivery.archive(queue) {
                    Some(archived) => {
                        writeln!(out, "{}", archived.to_line())?;
                        written += 1;
                    }
                    None => skipped += 1,
                }
                bar.set_position(written);
            }
            out.flush()?;
            Ok((written, skipped))
        }
        .await;
        bar.finish_and_clear();
        scan.close(written).await
    }
}
