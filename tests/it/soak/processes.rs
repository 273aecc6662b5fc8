//! The processes of a run: a worker that lives as long as the run and is measured, one beside it that is killed, and a console.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{Console, TestEnv, Worker};

/// How replays ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replays {
    pub done: u32,
    /// A fault has ended it; the next one does its work.
    pub failed: u32,
}

/// What runs beside the servers.
pub struct Processes {
    /// Never killed.
    measured: Worker,
    killed: Mutex<Option<Worker>>,
    console: Console,
    state: TempDir,
    /// Arguments and program of `ticketlog dead replay`.
    replays: [Mutex<Command>; 2],
    done: AtomicU32,
    failed: AtomicU32,
}

impl Processes {
    pub async fn start(env: &TestEnv, measured: Worker, killed: Worker) -> Self {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().to_str().unwrap();
        let worker = format!("http://{}", measured.address());
        let arguments = ["--allow", "replay,edit", "--state-dir", directory, "--worker", &worker];
        let console = env.console(&arguments).await;
        let history = state.path().join("history.ndjson");
        let replay = |arguments: &[&str]| {
            let mut command = env.build_dead_command(&[&["replay", "--yes"], arguments].concat());
            command.env("TICKETLOG_AUDIT_FILE", &history);
            Mutex::new(command)
        };
        let replays = [
            replay(&["--reason", "invalid_field", "--edit", ".user_id = .n % 97", "--no-backup"]),
            replay(&["--reason", "invalid_json"]),
        ];
        let killed = Mutex::new(Some(killed));
        Processes { measured, killed, console, state, replays, done: AtomicU32::new(0), failed: AtomicU32::new(0) }
    }

    pub fn measured(&self) -> &Worker {
        &self.measured
    }

    pub fn console(&self) -> &Console {
        &self.console
    }

    pub fn killed(&self) -> MutexGuard<'_, Option<Worker>> {
        self.killed.lock().unwrap()
    }

    pub fn replays(&self) -> Replays {
        Replays { done: self.done.load(Ordering::Relaxed), failed: self.failed.load(Ordering::Relaxed) }
    }

    /// Bytes in the state directory of the console, which has the audit trail.
    pub fn state_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.state.path()).unwrap().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Reads the metrics of both workers.
    pub fn scrape(&self) {
        let _ = self.measured.try_get("/metrics");
        let killed = self.killed();
        let _ = killed.as_ref().and_then(|worker| worker.try_get("/metrics"));
    }

    /// Opens the pages that an operator has open.
    pub fn view_console(&self) {
        for page in ["/", "/dead-letters", "/dead-letters?queue=parked"] {
            let _ = self.console.get(page);
        }
    }

    /// Edits and replays what can be edited, and replays the rest, which is dead-lettered again and in the end parked.
    pub fn replay(&self) {
        for command in &self.replays {
            let output = command.lock().unwrap().output().unwrap();
            let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
            println!("replay: {}", String::from_utf8_lossy(said).lines().next_back().unwrap_or_default());
            let counter = if output.status.success() { &self.done } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the queue is empty and nothing is in flight.
    pub async fn drain(&self, env: &TestEnv, limit: Duration) {
        let began = Instant::now();
        let mut times = 0;
        while began.elapsed() < limit {
            let in_flight = self.measured.metrics()["ticketlog_messages_in_flight"]
                + self.killed().as_ref().map_or(0.0, |worker| worker.metrics()["ticketlog_messages_in_flight"]);
            // Twice: between the two readings a message may have been neither.
            times = if env.depth(&env.queue()).await == 0 && in_flight == 0.0 { times + 1 } else { 0 };
            if times == 2 {
                println!("the queue is empty after {:?}", began.elapsed());
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
