//! The benchmarks: `ticketlog run`, bare pipes and workers in other languages take turns on the same servers, so that their ratios hold
//! even on a noisy machine. Prints tables, and writes them into `docs/develop/performance.md`. `make bench` provides the
//! servers.
//!
//! environment: BENCH_PARTS (all of them; the summary only then), BENCH_EVENTS (200000), BENCH_ROUNDS (5 or 3), BENCH_WRITERS (3,16:
//! more numbers of writers in links), BENCH_DEAD_LETTERS (1000000), BENCH_SECONDS (10, of each rate in latency), BENCH_MEMORY_EVENTS
//! (1000000), BENCH_OUTAGE (60), BENCH_LINKS_EVENTS (60000), BENCH_GROWTH_EVENTS (100000), BENCH_QUICK (with BENCH_PARTS=throughput:
//! small events, the whole pipes and the worker only; writes nothing)

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

mod growth;
mod latency;
mod links;
mod long_queue;
mod memory;
mod page;
mod parts;
mod plot;
mod programs;
mod run;
#[path = "../../tests/it/harness/slow_link.rs"]
mod slow_link;
mod stored;
mod throughput;

use std::time::Instant;

use page::Headlines;
use run::Bench;

/// A part, and what measures it.
type Part = (&'static str, fn(&Bench, &mut Headlines));

const PARTS: [Part; 9] = [
    ("throughput", throughput::measure),
    ("others", throughput::measure_others),
    ("tls", throughput::measure_tls),
    ("latency", latency::measure),
    ("memory", memory::measure),
    ("links", links::measure),
    ("growth", growth::measure),
    ("long_queue", long_queue::measure),
    ("parts", parts::measure),
];

fn main() {
    if std::env::var_os("TICKETLOG_STORE__URI").is_none() {
        println!("this needs servers: run it by `make bench`");
        return;
    }
    let bench = Bench::new();
    let wanted = std::env::var("BENCH_PARTS").ok();
    let names: Vec<&str> = match &wanted {
        Some(names) => names.split(',').collect(),
        None => PARTS.map(|(name, _)| name).to_vec(),
    };
    let (mut headlines, started) = (Headlines::default(), Instant::now());
    for name in names {
        let part = PARTS.iter().find(|(part, _)| *part == name);
        let (_, measure) =
            part.unwrap_or_else(|| panic!("BENCH_PARTS: {name} is none of {:?}", PARTS.map(|(part, _)| part)));
        let started = Instant::now();
        measure(&bench, &mut headlines);
        println!("{name}: {:.1} minutes\n", minutes(started));
    }
    if wanted.is_none() {
        headlines.write(bench.provenance(), minutes(started));
    }
}

fn minutes(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() / 60.0
}
