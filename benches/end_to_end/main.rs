//! The end-to-end benchmark: `ticketlog run` and bare pipes take turns on the same servers, so that their ratios hold
//! even on a noisy machine. Prints tables, and writes them into `docs/develop/performance.md`. `make bench` provides the
//! servers.
//!
//! environment: BENCH_PARTS (throughput,others,tls,growth,links,memory,long_queue), BENCH_EVENTS (300000), BENCH_ROUNDS (7 against
//! pipes, else 5), BENCH_WRITERS (3,16: more numbers of writers in links), BENCH_QUICK (small events, the whole pipes and the
//! worker only; writes nothing)

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

#[path = "../common/mod.rs"]
mod common;
mod growth;
mod links;
mod long_queue;
mod memory;
mod run;
mod throughput;

use run::Bench;

fn main() {
    if std::env::var_os("TICKETLOG_STORE__URI").is_none() {
        println!("end_to_end needs servers: run it by `make bench`");
        return;
    }
    let bench = Bench::new();
    let parts = std::env::var("BENCH_PARTS")
        .unwrap_or_else(|_| "throughput,others,tls,growth,links,memory,long_queue".to_owned());
    for part in parts.split(',') {
        match part {
            "throughput" => throughput::measure(&bench),
            "others" => throughput::measure_others(&bench),
            "tls" => throughput::measure_tls(&bench),
            "growth" => growth::measure(&bench),
            "links" => links::measure(&bench),
            "memory" => memory::measure(&bench),
            "long_queue" => long_queue::measure(&bench),
            other => {
                panic!("BENCH_PARTS: {other} is none of throughput, others, tls, growth, links, memory, long_queue")
            }
        }
    }
}
