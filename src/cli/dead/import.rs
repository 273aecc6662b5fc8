//! `ticketlog dead import`.

use std::path::PathBuf;

use clap::Args;

use ticketlog_config::RouteSettings;
use ticketlog_desk::Import;
use ticketlog_rabbitmq::Rate;

use super::super::CommandError;
use super::outcome::run_and_print;
use super::selection::{AuditArgs, parse_name};

/// Flags of `ticketlog dead import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A file that `dead export` or `dead purge` wrote.
    file: PathBuf,
    /// The queue to put them into [default: dead_letter.queue].
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    queue: Option<String>,
    #[command(flatten)]
    audit: AuditArgs,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl ImportArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        let queue = self.queue.as_ref().unwrap_or(&settings.dead_letter_queue).clone();
        let import = Import { file: self.file.clone(), queue, rate: self.rate };
        run_and_print(&import, settings, &self.audit, self.json).await
    }
}
