//! Owns steering a running worker: `ticketlog pause`, `resume` and `reload`, and what the worker does when they, or signals, ask
//! for it. Must not know how the flow pauses.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use clap::Args;
use humantime::format_rfc3339_seconds;
use tracing::{info, warn};

use crate::config::{Loaded, Settings};
use crate::observe::health::Component;
use crate::observe::{admin, logging, metrics};
use crate::worker::WorkerContext;

use super::terminal::{print_line, wrapped};
use super::{CommandError, ConfigArgs, exit};

/// Flags of `ticketlog pause`, `resume` and `reload`.
#[derive(Debug, Args)]
#[command(
    after_help = "The worker must have a socket (admin.socket). Without one, signals do the same: SIGUSR1 pauses, SIGUSR2
resumes, SIGHUP reloads."
)]
pub(super) struct SteerArgs {
    /// The socket of the worker [default: admin.socket].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl SteerArgs {
    /// Asks the worker, and prints its answer. With --socket, no configuration is read.
    pub fn run(&self, config: &ConfigArgs, action: Action) -> Result<u8, CommandError> {
        // Set in the environment of a worker, the routes may be all that it runs.
        let is_flag = std::env::var_os(super::ONLY_ROUTE).is_none_or(|routes| routes.is_empty());
        if is_flag && !config.route.is_empty() {
            let text =
                "the routes of a process are steered together; run a route in a process of its own to steer it alone";
            return Err(CommandError::usage(text));
        }
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => PathBuf::from(config.load()?.settings.admin.socket),
        };
        if socket.as_os_str().is_empty() {
            let text = "no socket is known: set admin.socket, for the worker too, or name its socket with --socket";
            return Err(CommandError::usage(text));
        }
        let answer = super::block_on(async { Ok(admin::request(&socket, action.as_str()).await) })?;
        let answer = answer.map_err(|error| {
            CommandError::text(exit::UNAVAILABLE, format!("no worker answers at {}: {error}", socket.display()))
        })?;
        match answer {
            Ok(text) => print_line(wrapped(&text, 2)).map(|()| 0),
            Err(text) if action == Action::Reload => Err(CommandError::text(exit::CONFIG, text)),
            Err(text) => Err(CommandError::text(exit::UNAVAILABLE, text)),
        }
    }
}

/// What may be asked of a running worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Action {
    Pause,
    Resume,
    Reload,
}

impl Action {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Steers the worker of this process.
pub(super) struct Steerer {
    /// Where its settings come from, and which are in force.
    config: ConfigArgs,
    loaded: Mutex<Loaded>,
    /// The routes; set once they run.
    workers: OnceLock<Vec<Arc<WorkerContext>>>,
    /// Whether the routes start paused.
    starts_paused: AtomicBool,
}

impl Steerer {
    pub fn new(config: ConfigArgs, loaded: Loaded) -> Self {
        Steerer { config, loaded: Mutex::new(loaded), workers: OnceLock::new(), starts_paused: AtomicBool::new(false) }
    }

    /// From now on the worker can be steered, all its routes together. They do what was asked for meanwhile.
    pub fn set_workers(&self, workers: Vec<Arc<WorkerContext>>) {
        let _ = self.workers.set(workers);
        if self.starts_paused.load(Ordering::Relaxed) {
            let _ = self.act(Action::Pause);
        }
    }

    /// Does what is asked for, and logs it. The answer for a person.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn act(&self, action: Action) -> Result<String, String> {
        let Some(workers) = self.workers.get() else { return self.act_early(action) };
        match action {
            Action::Pause => Ok(each(workers, pause)),
            Action::Resume => Ok(each(workers, resume)),
            Action::Reload => {
                let reloaded = self.reload(workers);
                metrics::reloaded(reloaded.is_ok());
                match &reloaded {
                    Ok(text) => info!("{text}"),
                    Err(text) => warn!("the configuration is not reloaded: {}", text.replace('\n', "; ")),
                }
                reloaded
            }
        }
    }

    /// The worker waits for the addresses of MongoDB, or has just started.
    fn act_early(&self, action: Action) -> Result<String, String> {
        if action == Action::Reload {
            let text = "the worker is starting: it waits for MongoDB; try again when it runs";
            warn!("the configuration is not reloaded: {text}");
            metrics::reloaded(false);
            return Err(text.to_owned());
        }
        let pauses = action == Action::Pause;
        let was_pausing = self.starts_paused.swap(pauses, Ordering::Relaxed);
        let text = match (pauses, was_pausing) {
            (true, _) => "paused: the worker is starting, and consumes nothing until it is resumed",
            (false, true) => "resumed",
            (false, false) => "not paused",
        };
        info!("{text}");
        Ok(text.to_owned())
    }

    fn reload(&self, workers: &[Arc<WorkerContext>]) -> Result<String, String> {
        let mut current = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.config.read().map_err(|error| format!("{:#}", error.error))?;
        let changed = current.differences(&loaded);
        let fixed: Vec<_> = changed.iter().filter(|name| !Settings::RELOADABLE.contains(&name.as_str())).collect();
        if !fixed.is_empty() {
            let names = fixed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "nothing was changed: only a restart changes {names}. A reload changes {}",
                Settings::RELOADABLE.join(", ")
            ));
        }
        if changed.is_empty() {
            let files: Vec<_> = self.config.config_files.iter().map(|path| path.display().to_string()).collect();
            let read = if files.is_empty() { "the environment and flags".to_owned() } else { files.join(", ") };
            return Ok(format!("reloaded: no setting has changed in {read}"));
        }
        logging::set_filter(&loaded.settings.log.filter).map_err(|error| error.to_string())?;
        if changed.iter().any(|name| name != "log.filter") {
            for worker in workers {
                let settings = loaded.settings.of_route(&worker.settings.get().route_name);
                settings.into_iter().for_each(|settings| worker.replace_settings(settings));
            }
        }
        let values = loaded.effective.iter().filter(|setting| changed.contains(&setting.name()));
        let values: Vec<_> = values.map(|setting| format!("{} = {}", setting.name(), setting.value)).collect();
        *current = loaded;
        Ok(format!("reloaded: {}", values.join(", ")))
    }
}

/// Steers every route. The answer of one that has work in flight, if there is one: they are steered together.
fn each(workers: &[Arc<WorkerContext>], steer: fn(&WorkerContext) -> String) -> String {
    let mut answers: Vec<String> = workers.iter().map(|worker| worker.scope.enter(|| steer(worker))).collect();
    let busy = answers.iter().position(|answer| answer.starts_with("pausing"));
    answers.swap_remove(busy.unwrap_or(0))
}

fn pause(worker: &WorkerContext) -> String {
    let now = SystemTime::now();
    if !worker.steering.pause(now) {
        return "paused already".to_owned();
    }
    if !worker.has_session.load(Ordering::Relaxed) {
        worker.health.down(Component::Consumer, format!("paused by an operator since {}", format_rfc3339_seconds(now)));
        info!("paused");
        return "paused: the worker consumes nothing until it is resumed".to_owned();
    }
    worker.health.down(Component::Consumer, "pausing: what is in flight is written first");
    info!("pausing: what is in flight is written, the rest waits in the queue");
    "pausing: the worker writes what is in flight, and then consumes nothing until it is resumed".to_owned()
}

fn resume(worker: &WorkerContext) -> String {
    if !worker.steering.resume() {
        return "not paused".to_owned();
    }
    worker.health.up(Component::Consumer);
    info!("resumed");
    "resumed".to_owned()
}
