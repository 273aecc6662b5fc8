//! The command line. `commands` lists the commands and runs one; each has its own file. This file has what they share: the flags of the
//! configuration, and the runtime.

// Some of what the commands share is used only by those of the desk.
#![cfg_attr(not(feature = "desk"), allow(dead_code))]

mod check;
pub mod commands;
mod completions;
mod config;
#[cfg(feature = "desk")]
mod console;
mod contract;
#[cfg(feature = "desk")]
mod dead;
#[cfg(feature = "desk")]
mod end_to_end;
#[cfg(feature = "desk")]
mod erase;
mod error;
#[cfg(feature = "desk")]
mod find;
#[cfg(feature = "desk")]
mod generate;
mod health;
#[cfg(feature = "desk")]
mod publish;
mod run;
mod setup;
mod shadow;
mod source;
mod status;
mod steer;
mod tail;
mod terminal;
#[cfg(feature = "desk")]
mod terminal_report;
mod validate;
mod worker_address;

use std::mem::ManuallyDrop;
use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Runtime;

use ticketlog_config::{Loaded, RouteSettings, Sources, load};

pub use error::CommandError;
use error::exit;

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
    /// Only this route of the configuration; `main` is the one that the sections describe. run, check, setup, erase, find and contract take several
    /// [default: all]; publish, shadow, tail, validate, dead and console take one [default: main].
    #[arg(long, value_name = "NAME", global = true, env = ONLY_ROUTE, value_delimiter = ',')]
    route: Vec<String>,
    /// The environment variables that stand for flags, and are no settings.
    #[arg(skip)]
    flag_variables: Vec<String>,
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
        let (files, other_variables) = (self.config_files.clone(), self.flag_variables.clone());
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
/// every message costs more than it brings (docs/develop/adr/0004-one-thread.md).
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
