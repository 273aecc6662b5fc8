//! Owns the comparison with the bare pipes, for backlogs of small, medium and large events; and with workers in Node
//! and Python, if these are installed.

use crate::common::page::{Block, docs};
use crate::common::plot::{Bar, svg};
use crate::common::{has_others, median, number};
use crate::run::{Bench, Contender, Load, Run};

/// Rounds against the bare pipes. These need more: ratios are near one, and single pairs differ by a tenth.
const PIPE_ROUNDS: u64 = 7;
/// Rounds against workers in other languages.
const OTHER_ROUNDS: u64 = 5;

/// Who is compared, by name. The worker must be last.
type Contenders<'a> = &'a [(&'a str, Contender)];

pub fn measure(bench: &Bench) {
    let events = number("BENCH_EVENTS", 300_000);
    let mut block = Block::default();
    block.line(&bench.provenance());
    let all: [(&str, Contender); 5] = [
        ("drain only", Contender::Pipe("drain")),
        ("insert only", Contender::Pipe("insert")),
        ("bare pipe, obvious", Contender::Pipe("obvious")),
        ("bare pipe, best", Contender::Pipe("best")),
        ("ticketlog run", Contender::Ticketlog(1, vec![])),
    ];
    // For development: writes nothing.
    if std::env::var_os("BENCH_QUICK").is_some() {
        compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all[2..], PIPE_ROUNDS);
        return;
    }
    let small = compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all, PIPE_ROUNDS);
    let bars = all.iter().zip(&small).map(|((name, _), run)| Bar {
        name: (*name).to_owned(),
        rate: run.rate,
        micros: [run.client, run.broker, run.store],
    });
    let title = format!("A backlog of {events} events of about 280 bytes, worked off");
    let plot = svg(&title, &bench.provenance(), &bars.collect::<Vec<_>>());
    std::fs::write(docs().join("performance.svg"), plot).unwrap();
    compare(bench, &mut block, "2 KiB", &Load::sized(events / 4, 2 << 10), &all[2..], PIPE_ROUNDS);
    compare(bench, &mut block, "20 KiB", &Load::sized(events / 15, 20 << 10), &all[2..], PIPE_ROUNDS);
    block.write("throughput");
}

pub fn measure_others(bench: &Bench) {
    if !has_others() {
        println!("others: benches/others/prepare.sh found no Node or Python; nothing measured");
        return;
    }
    let mut block = Block::default();
    block.line(&bench.provenance());
    let all = [
        ("Node, amqplib, driver", Contender::Other("driver")),
        ("Node, amqplib, Mongoose", Contender::Other("mongoose")),
        ("Python, pika, pymongo", Contender::Other("python")),
        ("ticketlog run", Contender::Ticketlog(1, vec![])),
    ];
    let load = Load::of(number("BENCH_OTHERS_EVENTS", 100_000));
    compare(bench, &mut block, "about 280 bytes", &load, &all, OTHER_ROUNDS);
    block.write("others");
}

/// The worker with and without TLS to both servers, which serve both.
pub fn measure_tls(bench: &Bench) {
    let Ok(broker) = std::env::var("TICKETLOG_LOCAL_TLS_BROKER_URI") else {
        println!("tls: these servers take no TLS (TICKETLOG_LOCAL_TLS=1 with native servers); nothing measured");
        return;
    };
    let of = |name: &str| std::env::var(name).unwrap();
    let settings = vec![
        ("BROKER__URI", broker),
        ("BROKER__TLS_CA", of("TICKETLOG_LOCAL_TLS_CA")),
        ("STORE__URI", of("TICKETLOG_LOCAL_TLS_STORE_URI")),
    ];
    let mut block = Block::default();
    block.line(&bench.provenance());
    let all = [
        ("bare pipe, best, no TLS", Contender::Pipe("best")),
        ("ticketlog run, no TLS", Contender::Ticketlog(1, vec![])),
        ("ticketlog run, TLS", Contender::Ticketlog(1, settings)),
    ];
    let events = number("BENCH_EVENTS", 300_000);
    compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all, OTHER_ROUNDS);
    compare(bench, &mut block, "2 KiB", &Load::sized(events / 4, 2 << 10), &all[1..], OTHER_ROUNDS);
    block.write("tls");
}

/// Runs all in turn, every other round in reverse order. Returns their medians.
fn compare(bench: &Bench, block: &mut Block, size: &str, load: &Load, contenders: Contenders, rounds: u64) -> Vec<Run> {
    let rounds = Bench::rounds(rounds);
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        // A pipe that does half the job gets no ratio, and needs fewer rounds.
        for at in order.into_iter().filter(|at| contenders[*at].1.is_whole() || round < OTHER_ROUNDS) {
            let run = bench.run(&contenders[at].1, load);
            println!("  {:<24}{}", contenders[at].0, run.row());
            runs[at].push(run);
        }
    }
    block.line(&format!("\n{} events of {size}, medians of {rounds} rounds in turn", load.events));
    block.line(&format!("{:<24}{}", "", Run::HEAD));
    let medians: Vec<Run> = runs.iter().map(|runs| Run::medians(runs)).collect();
    for ((name, _), run) in contenders.iter().zip(&medians) {
        block.line(&format!("{name:<24}{}", run.row()));
    }
    let worker = contenders.len() - 1;
    for other in (0..worker).filter(|other| contenders[*other].1.is_whole()) {
        // The median of pairs from the same round, which had the same conditions.
        let ratio = |pick: fn(&Run) -> f64| {
            median(runs[worker].iter().zip(&runs[other]).map(|(ours, theirs)| pick(ours) / pick(theirs)).collect())
        };
        block.line(&format!(
            "ticketlog / {}, median of pairs: throughput {:.2}, client processor {:.2}",
            contenders[other].0,
            ratio(|run| run.rate),
            ratio(|run| run.client),
        ));
    }
    medians
}
