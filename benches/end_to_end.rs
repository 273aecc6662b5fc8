//! The end-to-end benchmark: `ticketlog run` against the two bare pipes, in turn, on the same servers in one run, so
//! that ratios hold on a noisy machine. Prints a table. `make bench` provides the servers.
//!
//! environment: BENCH_EVENTS (200000) and BENCH_ROUNDS (3); with TICKETLOG_LOCAL_MONGODB_PID, which native services
//! set, MongoDB is also stopped for BENCH_OUTAGE seconds (60) under load, to see what memory does.

#![allow(clippy::print_stdout, clippy::print_stderr)]
// A program to measure with: what goes wrong ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines
)]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use bson::Document;
use common::{cpu_seconds, end, must, number, peak_mib, sibling, spawn, ticketlog};
use mongodb::Client;

fn main() {
    if std::env::var_os("TICKETLOG_STORE__URI").is_none() {
        println!("end_to_end needs servers: run it by `make bench`");
        return;
    }
    let events = number("BENCH_EVENTS", 200_000);
    let bench = Bench::new(events);
    println!(
        "backlog of {events} events in a quorum queue, indexes as in production, {} rounds",
        number("BENCH_ROUNDS", 3)
    );
    println!("{:<22}{:>10}{:>14}{:>14}", "", "msg/s", "CPU us/msg", "peak RSS MiB");
    let contenders = [Contender::ObviousPipe, Contender::BestPipe, Contender::Ticketlog];
    let mut rounds = Vec::new();
    for round in 0..number("BENCH_ROUNDS", 3) {
        let runs: Vec<Run> = contenders.iter().map(|contender| bench.run(*contender, round)).collect();
        for (contender, run) in contenders.iter().zip(&runs) {
            run.print(contender.name());
        }
        rounds.push(runs);
    }
    println!("medians");
    let medians: Vec<Run> =
        (0..contenders.len()).map(|at| Run::median(rounds.iter().map(|runs| runs[at]).collect())).collect();
    for (contender, run) in contenders.iter().zip(&medians) {
        run.print(contender.name());
    }
    for (pipe, run) in contenders.iter().zip(&medians).take(2) {
        let own = medians[2];
        println!("ticketlog / {}: throughput {:.2}, CPU {:.2}", pipe.name(), own.rate / run.rate, own.cpu / run.cpu);
    }
    if let Ok(pid) = std::env::var("TICKETLOG_LOCAL_MONGODB_PID") {
        bench.outage(&pid);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Contender {
    ObviousPipe,
    BestPipe,
    Ticketlog,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Contender::ObviousPipe => "bare pipe, obvious",
            Contender::BestPipe => "bare pipe, best",
            Contender::Ticketlog => "ticketlog run",
        }
    }
}

#[derive(Clone, Copy)]
struct Run {
    rate: f64,
    cpu: f64,
    memory: f64,
}

impl Run {
    fn print(&self, name: &str) {
        println!("{name:<22}{:>10.0}{:>14.2}{:>14.1}", self.rate, self.cpu, self.memory);
    }

    fn median(mut runs: Vec<Run>) -> Run {
        let mut middle = |pick: fn(&Run) -> f64| {
            runs.sort_by(|a, b| pick(a).total_cmp(&pick(b)));
            pick(&runs[runs.len() / 2])
        };
        Run { rate: middle(|run| run.rate), cpu: middle(|run| run.cpu), memory: middle(|run| run.memory) }
    }
}

struct Bench {
    events: u64,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Bench {
    fn new(events: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let uri = std::env::var("TICKETLOG_STORE__URI").unwrap();
        let client = runtime.block_on(async { Client::with_uri_str(uri).await }).unwrap();
        Bench { events, runtime, client }
    }

    fn stored(&self, name: &str) -> u64 {
        let collection = self.client.database(name).collection::<Document>("log");
        self.runtime.block_on(async { collection.estimated_document_count().await }).unwrap()
    }

    /// Fills a queue of its own, lets the contender empty it, and measures it when the last document is there.
    fn run(&self, contender: Contender, round: u64) -> Run {
        let name = format!("bench_{}_{}_{round}", std::process::id(), contender as u8);
        must(ticketlog(&name).arg("setup"));
        let count = self.events.to_string();
        must(ticketlog(&name).args(["publish", "--seed", "7", "--generate", &count]));
        std::thread::sleep(Duration::from_secs(2));
        let started = Instant::now();
        let mut child = match contender {
            Contender::Ticketlog => spawn(ticketlog(&name).arg("run")),
            pipe => {
                let program = sibling("bare_pipe");
                let kind = if pipe == Contender::BestPipe { "best" } else { "obvious" };
                spawn(Command::new(program).args([&name, &name, "log", &count]).env("BARE_PIPE", kind))
            }
        };
        while self.stored(&name) < self.events {
            std::thread::sleep(Duration::from_millis(10));
        }
        let seconds = started.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(200));
        let run = Run {
            rate: self.events as f64 / seconds,
            cpu: cpu_seconds(child.id()) * 1e6 / self.events as f64,
            memory: peak_mib(child.id()),
        };
        end(&mut child);
        self.runtime.block_on(async { self.client.database(&name).drop().await }).unwrap();
        run
    }

    /// Load goes on while MongoDB stands still; afterwards everything must arrive.
    fn outage(&self, pid: &str) {
        let seconds = number("BENCH_OUTAGE", 60);
        let name = format!("bench_{}_outage", std::process::id());
        must(ticketlog(&name).arg("setup"));
        let mut child = spawn(ticketlog(&name).arg("run"));
        let count = (seconds + 10) * 2000;
        let generate = count.to_string();
        let load = ["publish", "--seed", "9", "--rate", "2000/s", "--generate", &generate];
        let mut publisher = spawn(ticketlog(&name).args(load));
        std::thread::sleep(Duration::from_secs(5));
        must(Command::new("kill").args(["-STOP", pid]));
        std::thread::sleep(Duration::from_secs(seconds));
        must(Command::new("kill").args(["-CONT", pid]));
        assert!(publisher.wait().unwrap().success());
        while self.stored(&name) < count {
            std::thread::sleep(Duration::from_millis(100));
        }
        let memory = peak_mib(child.id());
        println!("MongoDB stopped for {seconds} s at 2000 msg/s: all {count} stored, peak RSS {memory:.1} MiB");
        end(&mut child);
    }
}
