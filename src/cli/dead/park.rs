//! Owns `ticketlog dead park` and `unpark`: move dead letters between the dead-letter queue and the parked queue. Must not
//! know how they are moved.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::config::RouteSettings;
use crate::desk::{Park, Source, dead_letters};
use crate::rabbitmq::Rate;
use crate::report::Report;

use super::super::CommandError;
use super::super::terminal::print_line;
use super::super::terminal_report::TerminalReport;
use super::selection::{AuditArgs, BrowseArgs, QueueArgs, Selection, subject};
use super::{print_undeliverable, transfer_exit_code};

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
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl ParkArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        self.common.run(settings, "park", self.queue.source(settings), false).await
    }
}

impl UnparkArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let queue = QueueArgs { queue: None, parked: true, browse: self.browse.clone() };
        self.common.run(settings, "unpark", queue.source(settings), true).await
    }
}

impl MoveArgs {
    async fn run(&self, settings: &RouteSettings, action: &str, from: Source, back: bool) -> Result<u8, CommandError> {
        let queue = from.queue.clone();
        let park = Park { rate: self.rate, ..Park::new(settings, from, self.selection.to_desk(), back)? };
        let (audit, _logging) = self.audit.begin(settings, subject(action, &queue, &self.selection))?;
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "moved").stopped_by_interrupt();
        let (done, ended) = park.run(settings, &report).await?;
        drop(report);
        audit.end(Park::outcome(&done), ended.is_err());
        let (moved, stayed) = (done.moved(&()), done.undeliverable());
        if self.json {
            print_line(json!({ "moved": moved, "stayed": stayed, "to": park.to }))?;
        } else {
            print_line(format_args!("{} moved from {queue} to {}", dead_letters(moved), park.to))?;
        }
        ended?;
        print_undeliverable(&done);
        Ok(transfer_exit_code(&done))
    }
}
