//! The time from publish to stored, as a change stream of MongoDB sees it, for `ticketlog run` and for a bare pipe that
//! inserts each message singly as it arrives; and how long the worker takes to start and to stop, and its idle load.
//! `make bench` provides the servers.
//!
//! environment: BENCH_SECONDS (10) for each rate, BENCH_RATES (100,1000,5000), BENCH_ROUNDS (5)

#![allow(clippy::print_stdout, clippy::print_stderr)]
// A benchmark: any error ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines
)]

mod common;

use std::process::Child;
use std::time::{Duration, Instant};

use common::page::Block;
use common::stored::{Stored, percentile};
use common::{cpu_seconds, end, median, must, number, pipe, spawn, ticketlog};

fn main() {
    if std::env::var_os("TICKETLOG_STORE__URI").is_none() {
        println!("latency needs servers: run it by `make bench`");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stored = Stored::open().await;
        let mut block = Block::default();
        latencies(&stored, &mut block).await;
        start_idle_stop(&stored, &mut block).await;
        block.write("latency");
    });
}

#[derive(Clone, Copy)]
enum Contender {
    EachPipe,
    Ticketlog,
}

async fn latencies(stored: &Stored, block: &mut Block) {
    let rounds = number("BENCH_ROUNDS", 5);
    block.line("publish to stored, as a change stream sees it, in milliseconds");
    block.line(&format!("medians of {rounds} rounds in turn of {} s each", seconds()));
    block.line(&format!("{:>8}  {:<26}{:>8}{:>10}{:>10}{:>10}", "msg/s", "", "p50", "p99", "p99.9", "max"));
    let rates = std::env::var("BENCH_RATES").unwrap_or_else(|_| "100,1000,5000".to_owned());
    for rate in rates.split(',').map(|rate| rate.parse::<u64>().unwrap()) {
        let mut rows: [Vec<[f64; 4]>; 2] = Default::default();
        for round in 0..rounds {
            for contender in [Contender::EachPipe, Contender::Ticketlog] {
                let name = format!("latency_{}_{rate}_{round}_{}", std::process::id(), contender as u8);
                let (_, latencies) = stored.latencies(&name, rate, seconds(), || start(contender, &name)).await;
                rows[contender as usize].push([0.5, 0.99, 0.999, 1.0].map(|share| percentile(&latencies, share)));
            }
        }
        for (name, rows) in ["bare pipe, each by itself", "ticketlog run"].iter().zip(&rows) {
            let [p50, p99, p999, max] = [0, 1, 2, 3].map(|at| median(rows.iter().map(|row| row[at]).collect()));
            block.line(&format!("{rate:>8}  {name:<26}{p50:>8.1}{p99:>10.1}{p999:>10.1}{max:>10.1}"));
        }
        let ratio = |at: usize| {
            let pairs = rows[1].iter().zip(&rows[0]).filter_map(|(own, pipe)| Some(own.get(at)? / pipe.get(at)?));
            median(pairs.collect())
        };
        let (p50, p99) = (ratio(0), ratio(1));
        block.line(&format!("{:>8}  ticketlog / bare pipe, median of pairs: p50 {p50:.2}, p99 {p99:.2}", ""));
    }
}

/// Measures start, idle load and stop.
async fn start_idle_stop(stored: &Stored, block: &mut Block) {
    let name = format!("latency_{}_life", std::process::id());
    must(ticketlog(&name).arg("setup"));
    let mut changes = stored.collection(&name).watch().await.unwrap();
    let mut starts = Vec::new();
    let mut stops = Vec::new();
    let mut idle = 0.0;
    for round in 0..5 {
        let start = || start(Contender::Ticketlog, &name);
        let (starting, mut child) = stored.first_stored(&name, &mut changes, start).await;
        starts.push(starting);
        tokio::time::sleep(Duration::from_secs(2)).await;
        if round == 0 {
            let before = cpu_seconds(child.id());
            tokio::time::sleep(Duration::from_secs(30)).await;
            idle = (cpu_seconds(child.id()) - before) / 30.0;
        }
        let stopped = Instant::now();
        end(&mut child);
        stops.push(stopped.elapsed().as_secs_f64() * 1e3);
    }
    let (start, idle, stop) = (median(starts), idle * 100.0, median(stops));
    block.line(&format!("start to first stored event: {start:.0} ms; idle: {idle:.2} % of a core; stop: {stop:.0} ms"));
    stored.client.database(&name).drop().await.unwrap();
}

/// How long events are published in each round.
fn seconds() -> u64 {
    number("BENCH_SECONDS", 10)
}

fn start(contender: Contender, name: &str) -> Child {
    match contender {
        Contender::Ticketlog => spawn(ticketlog(name).arg("run")),
        Contender::EachPipe => {
            let arguments = [name, name, "log", "0"];
            spawn(pipe("bare_pipe", "each").args(arguments))
        }
    }
}
