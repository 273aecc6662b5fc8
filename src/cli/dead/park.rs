//! `ticketlog dead park` and `unpark`: move dead letters between the dead-letter queue and the parked queue.

use clap::Args;

use ticketlog_config::RouteSettings;
use ticketlog_desk::{Park, Source};
use ticketlog_rabbitmq::Rate;

use super::super::CommandError;
use super::outcome::run_and_print;
use super::selection::{AuditArgs, BrowseArgs, QueueArgs, Selection};

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
        self.common.run(settings, self.queue.source(settings), false).await
    }
}

impl UnparkArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let queue = QueueArgs { queue: None, parked: true, browse: self.browse.clone() };
        self.common.run(settings, queue.source(settings), true).await
    }
}

impl MoveArgs {
    async fn run(&self, settings: &RouteSettings, from: Source, is_back: bool) -> Result<u8, CommandError> {
        let mut park = Park::new(settings, self.selection.of(from), is_back)?;
        park.rate = self.rate;
        run_and_print(&park, settings, &self.audit, self.json).await
    }
}
