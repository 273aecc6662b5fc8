//! Owns `ticketlog dead purge`: dead letters deleted, each written to a file and on disk before it goes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::broker::Ticket;
use crate::config::Settings;

use super::super::carrier::progress;
use super::super::{Fault, now_millis};
use super::audit::Audit;
use super::export::{create, sync_folder};
use super::scan::{Found, Scan};
use super::{Audited, Selection, Target, confirm, count, note, say};

/// Messages written before they are made durable and deleted, and bytes of their lines.
const WINDOW: usize = 500;
const WINDOW_BYTES: usize = 8 << 20;

/// Flags of `ticketlog dead purge`.
#[derive(Debug, Args)]
pub(super) struct Purge {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    audited: Audited,
    /// The new file for what is deleted; by default one named after the queue and the time, here.
    #[arg(long, value_name = "FILE", conflicts_with = "no_backup")]
    backup: Option<PathBuf>,
    /// Delete without a file.
    #[arg(long)]
    no_backup: bool,
    /// Do not ask for the queue's name.
    #[arg(long)]
    yes: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Deleted, and kept because they cannot be written.
#[derive(Debug, Default)]
struct Done {
    purged: u64,
    kept: u64,
}

impl Purge {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let queue = self.target.queue(settings);
        if !self.yes {
            let question = format!("purge {}; type the name of the queue ({queue}) to go on:", self.which());
            if !confirm(&question, queue, "--yes")? {
                return Err(Fault::usage("that is not its name; nothing was purged"));
            }
        }
        let backup = match (&self.backup, self.no_backup) {
            (_, true) => None,
            (Some(path), false) => Some(path.clone()),
            (None, false) => Some(PathBuf::from(format!("{}-{}.ndjson", queue.replace('/', "_"), now_millis()))),
        };
        let audit = Audit::begin(settings, &self.audited, "purge", queue, &self.selection)?;
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        let mut done = Done::default();
        let purged = self.purge(&mut scan, backup.as_deref(), queue, &mut done).await;
        let file = backup.as_ref().map(|path| path.display().to_string());
        audit.end(json!({ "purged": done.purged, "kept": done.kept, "backup": file }), purged.is_err());
        if let (Err(_), Some(file)) = (&purged, &file) {
            note(format_args!("{} purged before it failed, all of them in {file}", count(done.purged, "dead letter")));
        }
        scan.close(purged).await?;
        if self.json {
            say(json!({ "purged": done.purged, "kept": done.kept, "backup": file }))?;
        } else {
            let into = file.map(|file| format!("; `dead import {file}` brings them back")).unwrap_or_default();
            say(format_args!("{} purged from {queue}{into}", count(done.purged, "dead letter")))?;
        }
        if done.kept > 0 {
            note(format_args!(
                "{} kept: the headers are nested deeper than JSON can say",
                count(done.kept, "dead letter")
            ));
            return Ok(65);
        }
        Ok(0)
    }

    /// What would go, in words.
    fn which(&self) -> String {
        match (self.selection.filter().is_empty(), self.selection.limit) {
            (true, None) => "everything in it".to_owned(),
            (true, Some(limit)) => format!("the first {limit}"),
            (false, None) => "what the filter takes".to_owned(),
            (false, Some(limit)) => format!("the first {limit} that the filter takes"),
        }
    }

    async fn purge(&self, scan: &mut Scan, backup: Option<&Path>, queue: &str, done: &mut Done) -> Result<(), Fault> {
        let mut file = backup.map(create).transpose()?;
        backup.map(sync_folder).transpose()?;
        let bar = progress(Some(scan.total()), "purged");
        let (mut lines, mut tickets): (String, Vec<Ticket>) = Default::default();
        while let Some(Found { delivery, record, ticket, .. }) = scan.next().await? {
            if file.is_some() {
                let Some(archived) = delivery.archive(&record, queue) else {
                    done.kept += 1;
                    continue;
                };
                lines.push_str(&archived.to_line());
                lines.push('\n');
            }
            tickets.push(ticket);
            if tickets.len() >= WINDOW || lines.len() >= WINDOW_BYTES {
                settle(scan, file.as_mut(), &mut lines, &mut tickets, done).await?;
                bar.set_position(done.purged);
            }
        }
        settle(scan, file.as_mut(), &mut lines, &mut tickets, done).await?;
        bar.finish_and_clear();
        Ok(())
    }
}

/// Makes the lines durable, then deletes their messages.
async fn settle(
    scan: &mut Scan,
    file: Option<&mut File>,
    lines: &mut String,
    tickets: &mut Vec<Ticket>,
    done: &mut Done,
) -> Result<(), Fault> {
    if let Some(file) = file {
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        lines.clear();
    }
    let count = tickets.len() as u64;
    scan.desk.settle(std::mem::take(tickets)).await?;
    done.purged += count;
    Ok(())
}
