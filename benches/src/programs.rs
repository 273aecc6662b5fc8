//! Owns what the benchmarks share: the programs that they measure, their processes, and their numbers from proc(5).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A program that was built beside this one.
fn program(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap().with_file_name(name);
    assert!(program.exists(), "{} is missing: build it as `make bench` does", program.display());
    program
}

/// The directory of the workers in Node and Python; `None` if `benches/others/prepare.sh` could not install them.
fn others() -> Option<PathBuf> {
    let others = root().join("target/others");
    others.join("ready").exists().then_some(others)
}

pub fn has_others() -> bool {
    others().is_some()
}

/// A worker in another language: `driver`, `mongoose` or `python`.
pub fn other(kind: &str) -> Command {
    let others = others().expect("run benches/others/prepare.sh first");
    let mut command = Command::new(if kind == "python" { "python3" } else { "node" });
    command.env("PYTHONPATH", others.join("python"));
    match kind {
        "python" => command.arg(others.join("worker.py")),
        kind => command.arg(others.join("worker.js")).arg(kind),
    };
    command
}

/// The program, configured for a queue, an exchange and a database with this name.
pub fn ticketlog(name: &str) -> Command {
    let mut command = Command::new(program("ticketlog"));
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

/// A bare pipe: `bare_pipe` or `best_pipe`, and which of its variants.
pub fn pipe(name: &str, kind: &str) -> Command {
    let mut command = Command::new(program(name));
    command.env("BARE_PIPE", kind);
    command
}

/// Runs a command, which must succeed.
pub fn must(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
}

pub fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Ends a process: closes its standard input, at which pipes end, and sends SIGTERM.
pub fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    child.wait().unwrap();
}

/// The process id of a server that `deploy/local/services.sh` started: `RABBITMQ` or `MONGODB`.
pub fn server_pid(name: &str) -> Option<u32> {
    std::env::var(format!("TICKETLOG_LOCAL_{name}_PID")).ok()?.parse().ok()
}

/// Makes RabbitMQ move the messages of its queues from its write-ahead log to the queues' own files. By itself it does
/// so when the log has half a GiB, which would slow down one run now and then; and a queue would be read sometimes from
/// memory, sometimes from disk.
pub fn roll_over_wal() {
    let server = std::env::var("TICKETLOG_LOCAL_RABBITMQ").unwrap_or_default();
    let Some((directory, port)) = server.rsplit_once(' ') else { return };
    let services = root().join("deploy/local/services.sh");
    let expression = "ra_log_wal:force_roll_over(ra_log_wal).";
    must(Command::new(services).args(["ctl", directory, port, "eval", expression]));
}

/// User and system time of all threads, from proc(5), at 100 ticks a second.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A field of proc(5) status in MiB: `VmHWM` is the peak of resident memory, `VmRSS` its present size.
pub fn mib(pid: u32, field: &str) -> f64 {
    mib_of_running(pid, field).unwrap()
}

/// The same; none of a process that has ended.
pub fn mib_of_running(pid: u32, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
