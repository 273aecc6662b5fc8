//! Owns the measurement of the time from publish to stored, as a change stream of MongoDB sees it, for `ticketlog run` and for a bare
//! pipe that inserts each message singly as it arrives; and of how long the worker takes to start and to stop, and its idle load.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::page::{Block, Headlines};
use crate::programs::{cpu_seconds, end, median, must, number, pipe, spawn, ticketlog};
use crate::run::Bench;
use crate::stored::{Stored, percentile};

/// Rounds of both programs at each rate.
const ROUNDS: u64 = 3;
/// Events a second.
const RATES: [u64; 3] = [100, 1000, 5000];

pub fn measure(bench: &Bench, headlines: &mut Headlines) {
    let mut block = Block::default();
    block.line(bench.provenance());
    bench.runtime.block_on(async {
        let stored = Stored::open().await;
        latencies(&stored, &mut block, headlines).await;
        start_idle_stop(&stored, &mut block, headlines).await;
    });
    block.write("latency");
}

#[derive(Clone, Copy)]
enum Contender {
    EachPipe,
    Ticketlog,
}

async fn latencies(stored: &Stored, block: &mut Block, headlines: &mut Headlines) {
    let rounds = Bench::rounds(ROUNDS);
    block.line("publish to stored, as a change stream sees it, in milliseconds");
    block.line(&format!("medians of {rounds} rounds in turn of {} s each", seconds()));
    block.line(&format!("{:>8}  {:<26}{:>8}{:>10}{:>10}{:>10}", "msg/s", "", "p50", "p99", "p99.9", "max"));
    for rate in RATES {
        let mut rows: [Vec<[f64; 4]>; 2] = Default::default();
        for round in 0..rounds {
            for contender in [Contender::EachPipe, Contender::Ticketlog] {
                let name = format!("latency_{}_{rate}_{round}_{}", std::process::id(), contender as u8);
                let (_, latencies) = stored.latencies(&name, rate, seconds(), || start(contender, &name)).await;
                rows[contender as usize].push([0.5, 0.99, 0.999, 1.0].map(|share| percentile(&latencies, share)));
            }
        }
        let medians =
            rows.each_ref().map(|rows| [0, 1, 2, 3].map(|at| median(rows.iter().map(|row| row[at]).collect())));
        for (name, [p50, p99, p999, max]) in ["bare pipe, each by itself", "ticketlog run"].iter().zip(medians) {
            block.line(&format!("{rate:>8}  {name:<26}{p50:>8.1}{p99:>10.1}{p999:>10.1}{max:>10.1}"));
        }
        let ratio = |at: usize| {
            let pairs = rows[1].iter().zip(&rows[0]).filter_map(|(own, pipe)| Some(own.get(at)? / pipe.get(at)?));
            median(pairs.collect())
        };
        let (p50, p99) = (ratio(0), ratio(1));
        block.line(&format!("{:>8}  ticketlog / bare pipe, median of pairs: p50 {p50:.2}, p99 {p99:.2}", ""));
        if rate == RATES[0] {
            for (at, name) in ["p50", "p99"].iter().enumerate() {
                let [pipe, worker] = medians.map(|values| format!("{:.1}", values[at]));
                headlines
                    .row(&format!("publish to stored at {rate} a second, {name}, ms"), [worker, pipe, String::new()]);
            }
        }
    }
}

/// Measures start, idle load and stop.
async fn start_idle_stop(stored: &Stored, block: &mut Block, headlines: &mut Headlines) {
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
    headlines.row("start to first stored event, ms", [format!("{start:.0}"), String::new(), String::new()]);
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
