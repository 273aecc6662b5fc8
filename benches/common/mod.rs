//! Owns what the benchmarks share: the program under measurement, its processes, and what proc(5) says of them.

#![allow(dead_code)]

use std::process::{Child, Command, Stdio};

const TICKETLOG: &str = env!("CARGO_BIN_EXE_ticketlog");

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The program with queue, exchange and database of its own, all called `name`.
pub fn ticketlog(name: &str) -> Command {
    let mut command = Command::new(TICKETLOG);
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

/// A benchmark's program: beside this one, under a name with a hash.
pub fn sibling(name: &str) -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let found =
        std::fs::read_dir(own.parent().unwrap()).unwrap().filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
            path.extension().is_none()
                && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")))
        });
    found
        .max_by_key(|path| path.metadata().and_then(|data| data.modified()).unwrap())
        .expect("build it with cargo bench")
}

pub fn must(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
}

pub fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The pipes end with their input, the worker by SIGTERM.
pub fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    child.wait().unwrap();
}

/// User and system time of all threads, from proc(5), at 100 ticks a second.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

pub fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
