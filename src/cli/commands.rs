//! The commands: their names and help, and running the one that was asked for.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::observe::logging;
use ticketlog_config::RouteSettings;

use super::error::{EXIT_CODES, exit};
use super::steer::Action;
use super::{
    CommandError, ConfigArgs, check, completions, config, contract, health, run, setup, shadow, status, steer, tail,
    terminal, validate,
};
#[cfg(feature = "desk")]
use super::{console, dead, erase, find, publish};

/// Reads ticket operations from RabbitMQ and stores each of them once in MongoDB.
#[derive(Debug, Parser)]
#[command(name = "ticketlog", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten, next_help_heading = "Configuration")]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the worker until SIGTERM, SIGINT or SIGHUP. A second signal ends it at once, which loses nothing.
    Run,
    /// Declare the exchanges, queues and bindings, and create the indexes. Idempotent.
    Setup,
    /// Check configuration, connections, topology, permissions and indexes, with a fix for each problem. Changes nothing.
    /// With --end-to-end, a smoke test with an event of its own.
    Check(check::CheckArgs),
    /// Ask the worker of this configuration whether it is alive: exit code 0 or 1, for container health checks.
    Health(health::HealthArgs),
    /// Show what workers do now: rates, backlog, latency, dead letters, dependencies. Exit code 0 if all are ready, else 1.
    Status(status::StatusArgs),
    /// Pause consuming: the worker writes what is in flight, and consumes nothing until it is resumed. It is not ready while paused.
    Pause(steer::SteerArgs),
    /// Resume consuming after a pause.
    Resume(steer::SteerArgs),
    /// Publish events with confirms: from files, from standard input, or generated.
    #[cfg(feature = "desk")]
    Publish(publish::PublishArgs),
    /// Try settings, or a version, beside the workers: decodes copies of what is published, reports what would be stored or rejected,
    /// and writes nothing.
    Shadow(shadow::ShadowArgs),
    /// Print what is being stored, as it is stored.
    Tail(tail::TailArgs),
    /// Show what the worker would do with messages, without RabbitMQ: for tests of publishers.
    Validate(validate::ValidateArgs),
    /// Print what publishers need to know of the settings in force: as JSON Schema, AsyncAPI, TypeScript or Markdown.
    Contract(contract::ContractArgs),
    /// Dead letters: view them without changing the queue, and replay, park or purge them.
    #[cfg(feature = "desk")]
    Dead(Box<dead::DeadArgs>),
    /// Serve the console for dead letters in a browser: view, edit, replay.
    #[cfg(feature = "desk")]
    Console(Box<console::ConsoleArgs>),
    /// Find one event: stored, dead-lettered, replayed, by whom and when; or nowhere, and what that means. Exit code 0 if found, else 1.
    #[cfg(feature = "desk")]
    Find(Box<find::FindArgs>),
    /// Delete what is stored of one user, and the user's dead letters: for requests to be forgotten.
    #[cfg(feature = "desk")]
    Erase(erase::EraseArgs),
    /// Print the settings in force, with secrets hidden, and where each comes from.
    Config(config::ShowConfigArgs),
    /// Evaluates an expression for bodies: the process that `--edit` starts.
    #[cfg(feature = "desk")]
    #[command(hide = true)]
    Evaluate,
    /// Print a shell completion script.
    Completions(completions::CompletionsArgs),
    /// Print the manual page, in roff; or write one page for each command.
    Man(completions::ManArgs),
}

/// Runs the command line of this process. Errors go to standard error.
pub fn main() -> ExitCode {
    logging::exit_on_panic();
    // Before the command line is parsed: from here on a signal to a worker does not end it.
    let early = (std::env::args_os().nth(1).is_some_and(|first| first == "run")).then(run::Early::new);
    let command = without_empty_variables(Cli::command());
    let mut cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    cli.config.flag_variables = flag_variables(&Cli::command());
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
        Command::Setup => operate(config.routes()?, |routes| setup::run(&routes)),
        Command::Check(args) => args.run(&config),
        Command::Health(args) => args.run(&config.load()?.settings),
        Command::Status(args) => args.run(&config.load()?.settings),
        Command::Pause(args) => args.run(&config, Action::Pause),
        Command::Resume(args) => args.run(&config, Action::Resume),
        #[cfg(feature = "desk")]
        Command::Publish(args) => args.run(&config.one_route()?),
        Command::Shadow(args) => args.run(&config.one_route()?),
        Command::Tail(args) => args.run(&config.one_route()?),
        Command::Validate(args) => args.run(&config),
        Command::Contract(args) => args.run(&config),
        #[cfg(feature = "desk")]
        Command::Dead(args) => operate(vec![config.one_route()?], |mut routes| args.run(&routes.swap_remove(0))),
        #[cfg(feature = "desk")]
        Command::Evaluate => {
            ticketlog_desk::serve_expressions()?;
            Ok(0)
        }
        #[cfg(feature = "desk")]
        Command::Console(args) => operate(vec![config.one_route()?], |mut routes| args.run(routes.swap_remove(0))),
        #[cfg(feature = "desk")]
        Command::Erase(args) => operate(config.routes()?, |routes| args.run(&routes)),
        #[cfg(feature = "desk")]
        Command::Find(args) => operate(config.routes()?, |routes| args.run(&routes)),
        Command::Config(args) => args.run(|| config.load()),
        Command::Completions(args) => args.run(Cli::command()),
        Command::Man(args) => args.run(Cli::command()),
    }
}

/// Runs an operators' command with the operators' logins. If a server refuses one, says which setting it came from.
fn operate(
    routes: Vec<RouteSettings>,
    run: impl FnOnce(Vec<RouteSettings>) -> Result<u8, CommandError>,
) -> Result<u8, CommandError> {
    let routes: Vec<_> = routes.into_iter().map(RouteSettings::into_operator).collect();
    let used = routes.first().map_or(("", ""), |settings| (settings.broker.uri_setting, settings.store.uri_setting));
    run(routes).map_err(|CommandError { code, error }| match code {
        exit::NO_PERMISSION if used != ("operator.broker_uri", "operator.store_uri") => {
            let text = format!(
                "{error:#}\nthis command uses the logins of {} for RabbitMQ and {} for MongoDB; operators' commands use \
                 operator.broker_uri and operator.store_uri where these are set",
                used.0, used.1
            );
            CommandError::text(code, text)
        }
        _ => CommandError { code, error },
    })
}

/// The environment variables that stand for flags of a command and its subcommands.
fn flag_variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()));
    own.chain(command.get_subcommands().flat_map(flag_variables)).collect()
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
