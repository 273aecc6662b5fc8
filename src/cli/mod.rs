//! Owns the command line: commands, flags, exit codes. Each command has its own file.
//! Must not know how anything is done.

mod carrier;
mod check;
mod completions;
mod config;
mod dead;
mod generate;
mod health;
mod publish;
mod run;
mod setup;
mod source;
mod stack;
mod terminal;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::broker::BrokerError;
use crate::config::{ConfigError, Loaded, Sources, load};
use crate::store::{Class, Failure};

const EXIT_CODES: &str = "\
Exit codes (sysexits):
  0   done
  1   health: the worker is not well, or not there
  64  wrong use of the command line
  65  malformed messages or lines: validate, dead import, dead replay
  66  an input file cannot be read, or there is no such dead letter
  69  RabbitMQ or MongoDB is unavailable, or the HTTP address is in use; check: something is to be mended
  70  a bug: a panic ended the process
  73  an output file exists already, or cannot be created
  74  input or output failed
  75  dead: another desk is at work, or (replay --follow) not every outcome is known yet
  77  RabbitMQ or MongoDB refuses the user
  78  the configuration is wrong
  130 interrupted";

/// Reads ticket operations from RabbitMQ and stores each of them once in MongoDB.
#[derive(Debug, Parser)]
#[command(name = "ticketlog", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    layers: Layers,
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration comes from, beside the built-in defaults and the environment.
#[derive(Debug, Args)]
struct Layers {
    /// A TOML file with settings; repeatable, later files win. `ticketlog config --default` prints all settings.
    #[arg(long = "config", value_name = "FILE", global = true, env = "TICKETLOG_CONFIG", value_delimiter = ':')]
    configs: Vec<PathBuf>,
    /// One setting, such as `broker.prefetch=2000`; repeatable, wins over files and environment.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", global = true)]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The worker: runs until SIGTERM or SIGINT; a second signal ends it at once, still losing nothing.
    Run,
    /// Declares the exchanges, queues and bindings, and creates the indexes; idempotent.
    Setup,
    /// Looks at configuration, connections, topology, permissions and indexes; says what to mend. Changes nothing.
    Check(check::Check),
    /// Asks the worker of this configuration whether it lives: exit code 0 or 1, for container health checks.
    Health(health::Health),
    /// Publishes events, confirmed by the broker: from files, from standard input, or generated.
    Publish(publish::Publish),
    /// Says what the worker would do with messages, without a broker: for publishers' own tests.
    Validate(validate::Validate),
    /// The dead-letter desk: looks into the dead-letter queue without changing it, and replays, parks or purges.
    Dead(Box<dead::Dead>),
    /// Prints the effective configuration, secrets hidden, and where each setting comes from.
    Config(config::Config),
    /// Prints a completion script.
    Completions(completions::Completions),
    /// Prints the manual page, in roff.
    Man,
}

/// What ends a command: a text for a person, and an exit code for a script.
#[derive(Debug)]
pub struct Fault {
    code: u8,
    error: anyhow::Error,
}

impl Fault {
    fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Fault { code, error: error.into() }
    }

    fn usage(text: impl Into<String>) -> Self {
        Fault::new(64, anyhow::Error::msg(text.into()))
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Fault::new(78, error)
    }
}

impl From<BrokerError> for Fault {
    fn from(error: BrokerError) -> Self {
        let code = match error {
            BrokerError::Refused | BrokerError::VirtualHost => 77,
            BrokerError::Address | BrokerError::Certificate(_) => 78,
            BrokerError::Topology(ref said) if said.starts_with("ACCESS_REFUSED") => 77,
            _ => 69,
        };
        Fault::new(code, error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let code = match failure.class {
            Class::Hold => 77,
            Class::Unknown => 78,
            _ => 69,
        };
        Fault::new(code, anyhow::Error::msg(failure.to_string()))
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Fault::new(74, error)
    }
}

/// Runs the command line of this process. Errors go to standard error as one line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(Fault { error, .. }) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Fault { code, error }) => {
            terminal::note(format_args!("{error:#}"));
            ExitCode::from(code)
        }
    }
}

/// The reader of our output has seen enough (`ticketlog config | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn dispatch(cli: Cli) -> Result<u8, Fault> {
    let layers = cli.layers;
    if matches!(cli.command, Command::Run | Command::Dead(_)) {
        stack::again();
    }
    match cli.command {
        Command::Run => run::run(layers.load()?.settings),
        Command::Setup => setup::run(&layers.load()?.settings),
        Command::Check(command) => command.run(layers.load().map(|loaded| loaded.settings)),
        Command::Health(command) => command.run(&layers.load()?.settings),
        Command::Publish(command) => command.run(&layers.load()?.settings),
        Command::Validate(command) => command.run(&layers.load()?.settings),
        Command::Dead(command) => command.run(layers.load()?.settings),
        Command::Config(command) => command.run(|| layers.load()),
        Command::Completions(command) => command.run(Cli::command()),
        Command::Man => completions::man(Cli::command()),
    }
}

impl Layers {
    fn load(&self) -> Result<Loaded, Fault> {
        let flag = |set: &String| {
            let parts = set.split_once('=').and_then(|(path, value)| Some((path.split_once('.')?, value)));
            let Some(((section, key), value)) = parts else {
                return Err(Fault::usage("--set needs SECTION.KEY=VALUE, such as --set broker.prefetch=2000"));
            };
            Ok(("--set".to_owned(), section.to_owned(), key.to_owned(), value.to_owned()))
        };
        let flags = self.set.iter().map(flag).collect::<Result<_, _>>()?;
        Ok(load(&Sources { files: self.configs.clone(), environment: environment(), flags })?)
    }
}

/// The environment, as far as it is text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Milliseconds since 1970.
fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A runtime on this thread: the drivers have threads of their own where they need them, and waking another thread for
/// every message would cost more than it brings.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
