//! `ticketlog pause` and `ticketlog resume`: which worker, its signal, and whether it has followed.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use url::Url;

use ticketlog_http::client as http_client;
use ticketlog_status::{UP, WorkerStatus};

use super::terminal::{print_line, wrapped};
use super::worker_address::own_worker;
use super::{CommandError, ConfigArgs, exit};

/// How long a worker has to answer one request, and to follow the signal.
const LIMIT: Duration = Duration::from_secs(3);

/// Flags of `ticketlog pause` and `resume`.
#[derive(Debug, Args)]
#[command(after_help = "They send a signal, which other tools can send as well: SIGUSR1 pauses, SIGUSR2 resumes.

Examples:
  ticketlog pause
  ticketlog pause --pid \"$(systemctl show --property MainPID --value ticketlog)\"
  docker compose exec ticketlog /usr/local/bin/ticketlog pause
  kubectl exec POD -- /usr/local/bin/ticketlog pause")]
pub(super) struct SteerArgs {
    /// The process of the worker [default: the only worker that runs here and that this user may signal].
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
}

/// What may be asked of a running worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Pause,
    Resume,
}

impl SteerArgs {
    /// The configuration says only where the worker answers: without one, nothing is confirmed.
    pub fn run(&self, config: &ConfigArgs, action: Action) -> Result<u8, CommandError> {
        // Set in the environment of a worker, the routes may be all that it runs.
        let is_flag = std::env::var_os(super::ONLY_ROUTE).is_none_or(|routes| routes.is_empty());
        if is_flag && !config.route.is_empty() {
            let text =
                "the routes of a process are paused together; run a route in a process of its own to pause it alone";
            return Err(CommandError::usage(text));
        }
        let pid = self.worker()?;
        let status = config.read().ok().and_then(|loaded| own_worker(&loaded.settings).join("/status").ok());
        let text = super::block_on(steer(pid, action, status))?;
        print_line(wrapped(&text, 2)).map(|()| 0)
    }

    fn worker(&self) -> Result<Pid, CommandError> {
        if let Some(pid) = self.pid {
            let worker = Pid::from_raw(pid).filter(|pid| is_worker(*pid));
            let text = format!("process {pid} is not a running worker");
            return worker.ok_or_else(|| CommandError::text(exit::UNAVAILABLE, text));
        }
        match running_workers()[..] {
            [worker] => Ok(worker),
            [] => {
                let text =
                    "no worker runs here that this user may signal; if it runs in a container, run this command there";
                Err(CommandError::text(exit::UNAVAILABLE, text))
            }
            ref several => {
                let lines: Vec<_> = several.iter().map(|pid| format!("  {pid}{}", control_group(*pid))).collect();
                Err(CommandError::usage(format!(
                    "several workers run here; name one with --pid:\n{}",
                    lines.join("\n")
                )))
            }
        }
    }
}

/// Sends the signal. What has happened, as far as `/status` of the worker tells.
async fn steer(pid: Pid, action: Action, status: Option<Url>) -> Result<String, CommandError> {
    let (signal, name) = match action {
        Action::Pause => (Signal::USR1, "SIGUSR1"),
        Action::Resume => (Signal::USR2, "SIGUSR2"),
    };
    let is_done = async || match &status {
        Some(status) => is_paused(status, pid).await.map(|is_paused| is_paused == (action == Action::Pause)),
        None => None,
    };
    let was_done = is_done().await == Some(true);
    kill_process(pid, signal).map_err(std::io::Error::from)?;
    let deadline = Instant::now() + LIMIT;
    let confirmed = loop {
        match is_done().await {
            Some(false) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            answer => break answer == Some(true),
        }
    };
    let worker = format!("the worker (process {pid})");
    Ok(match action {
        _ if !confirmed => format!("sent {name} to {worker}; /status does not confirm yet that it has followed"),
        Action::Pause if was_done => format!("already paused: {worker}"),
        Action::Pause => {
            format!("paused: {worker} writes what is in flight, and then consumes nothing until it is resumed")
        }
        Action::Resume if was_done => format!("not paused: {worker}"),
        Action::Resume => format!("resumed: {worker} consumes again as soon as MongoDB answers"),
    })
}

/// Whether consuming is to pause. `None` if that worker does not answer there.
async fn is_paused(status: &Url, pid: Pid) -> Option<bool> {
    let (_, body) = http_client::get(status, None, None, LIMIT).await.ok()?;
    let status: WorkerStatus = serde_json::from_slice(&body).ok()?;
    let is_that_worker = i64::from(status.pid) == i64::from(pid.as_raw_pid());
    is_that_worker.then(|| status.first.components.get("consumer").is_none_or(|state| state != UP))
}

fn running_workers() -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| is_worker(*pid) && test_kill_process(*pid).is_ok()).collect()
}

/// Whether a process is a `ticketlog run` that follows the signals. They would end another process, or mean something else to it.
fn is_worker(pid: Pid) -> bool {
    let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut arguments = command.split(|byte| *byte == 0);
    let program = arguments.next().map(std::ffi::OsStr::from_bytes).and_then(|path| Path::new(path).file_name());
    let own = std::env::current_exe().ok();
    let is_ours = program.is_some() && program == own.as_deref().and_then(Path::file_name);
    is_ours && arguments.any(|argument| argument == b"run") && catches_signals(pid).unwrap_or(false)
}

/// proc(5): `SigCgt` is the mask of the signals that a process handles.
fn catches_signals(pid: Pid) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
    Some([Signal::USR1, Signal::USR2].iter().all(|signal| caught >> (signal.as_raw() - 1) & 1 == 1))
}

/// Where a process belongs to, such as ` ticketlog.service`: unlike its arguments, that holds no credential.
fn control_group(pid: Pid) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let name = text.trim_end().rsplit('/').next().unwrap_or_default();
    if name.is_empty() { String::new() } else { format!(" {name}") }
}
