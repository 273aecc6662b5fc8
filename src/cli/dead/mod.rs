//! `ticketlog dead`, the dead-letter desk: its commands. Each has its own file, which reads the flags and shows the outcome.

mod export;
mod import;
mod list;
mod outcome;
mod park;
mod purge;
mod replay;
mod selection;
mod show;
mod stats;

use clap::{Args, Subcommand};

use ticketlog_config::RouteSettings;

pub(super) use replay::start_replay_span;
pub(super) use selection::{AuditArgs, BrowseArgs};

use super::CommandError;

/// Commands for dead letters.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ticketlog dead stats
  ticketlog dead list --reason invalid_field --since 2h
  ticketlog dead show @1
  ticketlog dead replay --dry-run --field timestamp --edit '.timestamp |= fromdate * 1000'
  ticketlog dead replay --id 9e3ae89b532b4843b4ffd3f6 --follow
  ticketlog dead purge --reason not_an_object")]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count them by reason, fingerprint and number of replays, with the oldest and the newest.
    Stats(stats::StatsArgs),
    /// List them, one a line: position, age, reason, field, detail, message id, routing key, size, replays, id, publisher.
    ///
    /// Each is printed as soon as it is read: aligned on a terminal, tab-separated in a pipe.
    List(list::ListArgs),
    /// Show one of them: properties, headers, and the body as text, JSON or hexadecimal, with the fault marked.
    Show(show::ShowArgs),
    /// Write them as NDJSON, one whole message a line. They stay in the queue.
    ///
    /// The file is a new one that only its owner can read (mode 0600). It is complete, or it does not exist.
    Export(export::ExportArgs),
    /// Put exported dead letters back into the dead-letter queue.
    ///
    /// The whole file is checked before the first one is sent.
    Import(import::ImportArgs),
    /// Publish them again to their original exchange and routing key. Each leaves the queue once RabbitMQ has confirmed it.
    Replay(replay::ReplayArgs),
    /// Move them to the parked queue.
    ///
    /// They must be unparked before they can be replayed.
    Park(park::ParkArgs),
    /// Move them back from the parked queue. Their replay count starts at 0 again.
    Unpark(park::UnparkArgs),
    /// Delete them after exporting them to a file.
    ///
    /// The file is synced to disk first. The command asks for the name of the queue.
    Purge(purge::PurgeArgs),
}

impl DeadArgs {
    pub fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        super::block_on(async {
            match &self.command {
                Command::Stats(args) => args.run(settings).await,
                Command::List(args) => args.run(settings).await,
                Command::Show(args) => args.run(settings).await,
                Command::Export(args) => args.run(settings).await,
                Command::Import(args) => args.run(settings).await,
                Command::Replay(args) => args.run(settings).await,
                Command::Park(args) => args.run(settings).await,
                Command::Unpark(args) => args.run(settings).await,
                Command::Purge(args) => args.run(settings).await,
            }
        })
    }
}
