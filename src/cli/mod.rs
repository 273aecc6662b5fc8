//! Owns the command line: commands, global flags, dispatch. Each command has its own file. Must not know how a command does
//! its work.

mod check;
mod completions;
mod config;
mod console;
mod dead;
mod erase;
mod error;
mod generate;
mod health;
mod publish;
mod run;
mod setup;
mod shadow;
mod source;
mod status;
mod steer;
mod tail;
mod terminal;
mod terminal_report;
mod validate;
mod worker_address;

use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use tokio::runtime::Runtime;

use crate::config::{Loaded, RouteSettings, Sources, load};
use crate::desk;

pub use error::CommandError;
use error::{EXIT_CODES, exit};
use steer::Action;

/// Reads ticket operations from RabbitMQ and stores each of them once in MongoDB.
#[derive(Debug, Parser)]
#[command(name = "ticketlog", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

/// The environment variable that stands for `--route`.
const ONLY_ROUTE: &str = "TICKETLOG_ONLY_ROUTE";

/// Where the configuration comes from, in addition to the built-in defaults and the environment.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// A TOML file with settings; repeatable, later files win. `ticketlog config --default` prints all settings.
    #[arg(long = "config", value_name = "FILE", global = true, env = "TICKETLOG_CONFIG", value_delimiter = ':')]
    config_files: Vec<PathBuf>,
    /// One setting, such as `broker.prefetch=5000`; repeatable, wins over files and environment.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Only this route of the configuration; `main` is the one that the sections describe. run, check, setup and erase take several
    /// [default: all]; publish, shadow, tail, validate, dead and console take one [default: main].
    #[arg(long, value_name = "NAME", global = true, env = ONLY_ROUTE, value_delimiter = ',')]
    route: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the worker until SIGTERM, SIGINT or SIGHUP. A second signal ends it at once, which loses nothing.
    Run,
    /// Declare the exchanges, queues and bindings, and create the indexes. Idempotent.
    Setup,
    /// Check configuration, connections, topology, permissions and indexes, with a fix for each problem. Changes nothing.
    Check(check::CheckArgs),
    /// Ask the worker of this configuration whether it is alive: exit code 0 or 1, for container health checks.
    Health(health::HealthArgs),
    /// Show what workers do now: rates, backlog, latency, dead letters, dependencies. Exit code 0 if all are ready, else 1.
    Status(status::StatusArgs),
    /// Pause consuming: the worker writes what is in flight, and consumes nothing until it is resumed. Not ready meanwhile.
    Pause(steer::SteerArgs),
    /// Go on consuming after a pause.
    Resume(steer::SteerArgs),
    /// Publish events with confirms: from files, from standard input, or generated.
    Publish(publish::PublishArgs),
    /// Try settings, or a version, beside the workers: decodes copies of what is published, reports what would be stored and refused,
    /// and writes nothing.
    Shadow(shadow::ShadowArgs),
    /// Print what is being stored, as it is stored.
    Tail(tail::TailArgs),
    /// Show what the worker would do with messages, without RabbitMQ: for tests of publishers.
    Validate(validate::ValidateArgs),
    /// Dead letters (the desk): view them without changing the queue, and replay, park or purge them.
    Dead(Box<dead::DeadArgs>),
    /// Serve the desk for dead letters in a browser: view, edit, replay.
    Console(Box<console::ConsoleArgs>),
    /// Delete what is stored of one user, and the user's dead letters: for requests to be forgotten.
    Erase(erase::EraseArgs),
    /// Print the settings in force, with secrets hidden, and where each comes from.
    Config(config::ShowConfigArgs),
    /// Evaluates an expression for bodies: the process that `--edit` starts.
    #[command(hide = true)]
    Evaluate,
    /// Print a shell completion script.
    Completions(completions::CompletionsArgs),
    /// Print the manual page, in roff; or write one page for each command.
    Man(completions::ManArgs),
}

/// Runs the command line of this process. Errors go to standard error.
pub fn main() -> ExitCode {
    // Before the command line is parsed: from here on a signal to a worker does not end it.
    let early = (std::env::args_os().nth(1).is_some_and(|first| first == "run")).then(run::Early::new);
    let command = without_empty_variables(Cli::command());
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match dispatch(cli, early) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(CommandError { code, error }) => {
            format!("{error:#}").lines().for_each(terminal::note);
            ExitCode::from(code)
        }
    }
}

/// An environment variable that is empty counts as not set, as usual for shells and Compose files.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_empty(name) => argument.env(None),
            _ => argument,
        })
        .mut_subcommands(without_empty_variables)
}

fn dispatch(cli: Cli, early: Option<std::io::Result<run::Early>>) -> Result<u8, CommandError> {
    let config = cli.config;
    match cli.command {
        Command::Run => run::run(&config, early.unwrap_or_else(run::Early::new)?),
        Command::Setup => setup::run(&config.routes()?),
        Command::Check(args) => args.run(config.routes()),
        Command::Health(args) => args.run(&config.load()?.settings),
        Command::Status(args) => args.run(&config.load()?.settings),
        Command::Pause(args) => args.run(&config, Action::Pause),
        Command::Resume(args) => args.run(&config, Action::Resume),
        Command::Publish(args) => args.run(&config.one_route()?),
        Command::Shadow(args) => args.run(&config.one_route()?),
        Command::Tail(args) => args.run(&config.one_route()?),
        Command::Validate(args) => args.run(&config.one_route()?),
        Command::Dead(args) => args.run(&config.one_route()?),
        Command::Evaluate => {
            desk::serve_expressions()?;
            Ok(0)
        }
        Command::Console(args) => args.run(config.one_route()?),
        Command::Erase(args) => args.run(&config.routes()?),
        Command::Config(args) => args.run(|| config.load()),
        Command::Completions(args) => args.run(Cli::command()),
        Command::Man(args) => args.run(Cli::command()),
    }
}

impl ConfigArgs {
    /// The settings. Names the variables that are ignored.
    fn load(&self) -> Result<Loaded, CommandError> {
        let loaded = self.read()?;
        loaded.ignored_variables.iter().for_each(|name| terminal::note(ignored_variable(name)));
        Ok(loaded)
    }

    fn read(&self) -> Result<Loaded, CommandError> {
        let flag = |text: &String| {
            let parts = text.split_once('=').and_then(|(path, value)| Some((path.split_once('.')?, value)));
            let Some(((section, key), value)) = parts else {
                let text = "--set needs SECTION.KEY=VALUE, such as --set broker.prefetch=5000";
                return Err(CommandError::usage(text));
            };
            Ok(("--set".to_owned(), section.to_owned(), key.to_owned(), value.to_owned()))
        };
        let flags = self.set.iter().map(flag).collect::<Result<_, _>>()?;
        let (files, other_variables) = (self.config_files.clone(), flag_variables(&Cli::command()));
        Ok(load(&Sources { files, environment: environment()?, other_variables, flags })?)
    }

    /// The settings of the routes that a command is about.
    fn routes(&self) -> Result<Vec<RouteSettings>, CommandError> {
        self.select(&mut self.load()?)
    }

    /// Takes the routes that are named out of the configuration; all if none is.
    fn select(&self, loaded: &mut Loaded) -> Result<Vec<RouteSettings>, CommandError> {
        let all = std::mem::take(&mut loaded.routes);
        if self.route.is_empty() {
            return Ok(all);
        }
        let mut selected: Vec<RouteSettings> = Vec::new();
        for name in &self.route {
            let Some(route) = all.iter().find(|route| route.name == *name) else {
                let names = all.iter().map(|route| route.name.as_str()).collect::<Vec<_>>().join(", ");
                let text = format!("there is no route {name:?}; the configuration has {names}");
                return Err(CommandError::text(exit::CONFIG, text));
            };
            if !selected.iter().any(|other| other.name == *name) {
                selected.push(route.clone());
            }
        }
        Ok(selected)
    }

    /// The settings of the one route that a command is about.
    fn one_route(&self) -> Result<RouteSettings, CommandError> {
        let mut loaded = self.load()?;
        if self.route.len() > 1 {
            return Err(CommandError::usage("this command is about one route; name one with --route"));
        }
        if self.route.is_empty() && loaded.routes.len() > 1 {
            let others: Vec<_> = loaded.routes.iter().skip(1).map(|route| route.name.as_str()).collect();
            let others = others.join(", ");
            terminal::note(format_args!("this is about the route main; --route names another: {others}"));
        }
        Ok(self.select(&mut loaded)?.swap_remove(0))
    }
}

/// What is said of a variable that means nothing.
fn ignored_variable(name: &str) -> String {
    format!("the environment variable {name} is not a setting and is ignored; `ticketlog config` shows all settings")
}

/// The environment variables that stand for flags of a command and its subcommands.
fn flag_variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()));
    own.chain(command.get_subcommands().flat_map(flag_variables)).collect()
}

/// The environment variables that are text.
///
/// # Errors
/// The value of one whose name begins with `TICKETLOG_` is not text.
fn environment() -> Result<Vec<(String, String)>, CommandError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("TICKETLOG_") => {
                return Err(CommandError::text(exit::CONFIG, format!("environment variable {name}: is not UTF-8")));
            }
            _ => {}
        }
    }
    Ok(variables)
}

/// Runs a future on this thread: the drivers have threads of their own where they need them, and waking another thread for
/// every message costs more than it brings (docs/adr/0004-one-thread.md).
///
/// # Errors
/// Those of the future, or the system refuses what the runtime needs.
fn block_on<T>(future: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    block_on_runtime(runtime()?, future)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn block_on_runtime<T>(
    runtime: Runtime,
    future: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    // Dropping the runtime would cancel the tasks of lapin, and its threads, which wait for them, would panic (async-rs). The
    // process ends soon anyway.
    ManuallyDrop::new(runtime).block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        // A global flag and an argument of a command with the same id would receive each other's values.
        let globals: Vec<String> =
            Cli::command().get_arguments().map(|argument| argument.get_id().to_string()).collect();
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                assert!(
                    !globals.contains(&argument.get_id().to_string()),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
