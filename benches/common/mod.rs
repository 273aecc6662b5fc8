//! Owns what the benchmarks share: the programs under measurement, their processes, and what proc(5) says of them.
//! The programs are release builds; what measures them need not be.

#![allow(dead_code)]

pub mod page;
pub mod plot;
pub mod proxy;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn release() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target"))).join("release")
}

/// Where `benches/others/prepare.sh` puts the workers in Node and Python; None where it could not.
fn others() -> Option<PathBuf> {
    let others = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/others"));
    others.join("ready").exists().then_some(others)
}

pub fn has_others() -> bool {
    others().is_some()
}

/// A worker in another language, by its kind: `driver`, `mongoose` or `python`.
pub fn other(kind: &str) -> Command {
    let others = others().expect("benches/others/prepare.sh makes them ready");
    let mut command = Command::new(if kind == "python" { "python3" } else { "node" });
    command.env("PYTHONPATH", others.join("python"));
    match kind {
        "python" => command.arg(others.join("worker.py")),
        kind => command.arg(others.join("worker.js")).arg(kind),
    };
    command
}

/// The program with queue, exchange and database of its own, all called `name`.
pub fn ticketlog(name: &str) -> Command {
    let program = release().join("ticketlog");
    assert!(program.exists(), "build it with cargo build --release");
    let mut command = Command::new(program);
    for (key, value) in [
        ("BROKER__EXCHANGE", name.to_owned()),
        ("BROKER__QUEUE", name.to_owned()),
        ("DEAD_LETTER__EXCHANGE", format!("{name}.dlx")),
        ("DEAD_LETTER__QUEUE", format!("{name}.dead")),
        ("DEAD_LETTER__PARKED_QUEUE", format!("{name}.parked")),
        ("STORE__DATABASE", name.to_owned()),
        ("STORE__COLLECTION", "log".to_owned()),
        ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
    ] {
        command.env(format!("TICKETLOG_{key}"), value);
    }
    command
}

/// A program of `benches/`, under a name with a hash; the latest one.
pub fn pipe(name: &str, kind: &str) -> Command {
    let files = std::fs::read_dir(release().join("deps")).expect("build it with cargo bench --no-run");
    let found = files.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        path.extension().is_none()
            && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")))
    });
    let latest = found.max_by_key(|path| path.metadata().and_then(|data| data.modified()).unwrap());
    let mut command = Command::new(latest.expect("build it with cargo bench --no-run"));
    command.env("BARE_PIPE", kind);
    command
}

pub fn must(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success(), "{command:?}");
}

pub fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The pipes end with their input, the worker by SIGTERM.
pub fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    child.wait().unwrap();
}

/// The process of a server that `deploy/local/services.sh` started: `RABBITMQ` or `MONGODB`.
pub fn server(name: &str) -> Option<u32> {
    std::env::var(format!("TICKETLOG_LOCAL_{name}_PID")).ok()?.parse().ok()
}

/// Has RabbitMQ move what stands in its queues from its write-ahead log to the queues' own files, as it does by itself
/// once the log has half a GiB: or else that falls on one run in so many, and a queue is read from memory or from
/// disk as it happens.
pub fn roll_over() {
    let at = std::env::var("TICKETLOG_LOCAL_RABBITMQ").unwrap_or_default();
    let Some((directory, port)) = at.rsplit_once(' ') else { return };
    let services = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/local/services.sh");
    let expression = "ra_log_wal:force_roll_over(ra_log_wal).";
    must(Command::new(services).args(["ctl", directory, port, "eval", expression]));
}

/// User and system time of all threads, from proc(5), at 100 ticks a second.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// `VmHWM`, the most that was ever resident, or `VmRSS`, what is now.
pub fn mib(pid: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
