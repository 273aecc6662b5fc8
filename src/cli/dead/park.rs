//! Owns `ticketlog dead park` and `unpark`: move dead letters between the dead-letter queue and the parked queue. Must not
//! know how they are moved.

use clap::Args;
use serde_json::json;

use crate::config::Settings;
use crate::system::now_millis;

use super::super::terminal::print_line;
use super::super::{CommandError, publish};
use super::audit::{self, Audit};
use super::format::dead_letters;
use super::reader::{LetterReader, SelectedLetter};
use super::selection::{AuditArgs, BrowseArgs, QueueArgs, Selection};
use super::transfer::Transfer;

/// Flags of `ticketlog dead park`.
#[derive(Debug, Args)]
pub(super) struct ParkArgs {
    #[command(flatten, next_help_heading = "Queue")]
    queue: QueueArgs,
    #[command(flatten)]
    common: MoveArgs,
}

/// Flags of `ticketlog dead unpark`.
#[derive(Debug, Args)]
pub(super) struct UnparkArgs {
    #[command(flatten)]
    browse: BrowseArgs,
    #[command(flatten)]
    common: MoveArgs,
}

#[derive(Debug, Args)]
struct MoveArgs {
    #[command(flatten, next_help_heading = "Which dead letters")]
    selection: Selection,
    #[command(flatten, next_help_heading = "Options")]
    audit: AuditArgs,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s", value_parser = publish::rate)]
    rate: Option<f64>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl ParkArgs {
    pub async fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        self.common.run(settings, "park", &self.queue, &settings.dead_letter.parked_queue, false).await
    }
}

impl UnparkArgs {
    pub async fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let queue = QueueArgs { queue: None, parked: true, browse: self.browse.clone() };
        self.common.run(settings, "unpark", &queue, &settings.dead_letter.queue, true).await
    }
}

impl MoveArgs {
    async fn run(
        &self,
        settings: &Settings,
        action: &str,
        from: &QueueArgs,
        to: &str,
        reset_replays: bool,
    ) -> Result<u8, CommandError> {
        let queue = from.name(settings);
        if queue == to {
            return Err(CommandError::usage(format!("these dead letters are in {to} already")));
        }
        let audit = Audit::begin(settings, &self.audit, audit::subject(action, queue, &self.selection))?;
        let mut reader = LetterReader::open(settings, from, Some(&self.selection)).await?;
        reader.move_letters(now_millis(), None);
        let mut transfer = Transfer::new(settings, reader, self.rate, "moved").await?;
        let exchange = &settings.dead_letter.exchange;
        let sent = async {
            while let Some(SelectedLetter { delivery, record, handle, .. }) = transfer.next().await? {
                transfer.send(delivery.copy_to(&record, exchange, to, reset_replays), handle, ()).await?;
            }
            Ok(())
        }
        .await;
        let (report, ended) = transfer.finish(sent).await;
        let (moved, stayed) = (report.moved(&()), report.undeliverable());
        audit.end(json!({ "moved": moved, "stayed": stayed }), ended.is_err());
        if self.json {
            print_line(json!({ "moved": moved, "stayed": stayed, "to": to }))?;
        } else {
            print_line(format_args!("{} moved from {queue} to {to}", dead_letters(moved)))?;
        }
        ended?;
        report.print_undeliverable();
        Ok(report.exit_code())
    }
}
