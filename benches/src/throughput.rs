//! Owns the comparison with the bare pipes, for backlogs of small, medium and large events; and with workers in Node
//! and Python, if these are installed.

use crate::page::{Block, Headlines, docs};
use crate::plot::{Bar, svg};
use crate::programs::{has_others, median, number};
use crate::run::{Bench, Contender, Load, Run};

/// Rounds of small events. Ratios are near one there, and single pairs differ by a tenth.
const ROUNDS: u64 = 5;
/// Rounds of everything else.
const FEW_ROUNDS: u64 = 3;
/// Events of about 280 bytes in the queue, and a part of it of larger ones.
const EVENTS: u64 = 200_000;

/// Who is compared, by name. The worker must be last.
type Contenders<'a> = &'a [(&'a str, Contender)];

pub fn measure(bench: &Bench, headlines: &mut Headlines) {
    let events = number("BENCH_EVENTS", EVENTS);
    let mut block = Block::default();
    block.line(bench.provenance());
    let mut all = vec![
        ("drain only", Contender::Pipe("drain")),
        ("insert only", Contender::Pipe("insert")),
        ("bare pipe, obvious", Contender::Pipe("obvious")),
        ("bare pipe, best", Contender::Pipe("best")),
        ("Node, amqplib, driver", Contender::Other("driver")),
        ("ticketlog run", Contender::Ticketlog(1, vec![])),
    ];
    all.retain(|(_, contender)| has_others() || !matches!(contender, Contender::Other(_)));
    // For development: writes nothing.
    if std::env::var_os("BENCH_QUICK").is_some() {
        compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all[2..], ROUNDS);
        return;
    }
    let small = compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all, ROUNDS);
    plot(bench, events, &all, &small);
    let medium = compare(bench, &mut block, "2 KiB", &Load::sized(events / 4, 2 << 10), &all[2..], FEW_ROUNDS);
    let large = compare(bench, &mut block, "20 KiB", &Load::sized(events / 15, 20 << 10), &all[2..], FEW_ROUNDS);
    block.write("throughput");
    let small = &small[2..];
    let rate = |runs: &[Run]| compared(runs, |run| format!("{:.0}", run.rate));
    headlines.row("events of about 280 bytes a second", rate(small));
    headlines.row("events of 2 KiB a second", rate(&medium));
    headlines.row("events of 20 KiB a second", rate(&large));
    let name = "processor time for an event of about 280 bytes, us";
    headlines.row(name, compared(small, |run| format!("{:.1}", run.client)));
    headlines.row("memory with them, MiB at its peak", compared(small, |run| format!("{:.0}", run.memory)));
}

/// Of the medians of the obvious pipe, the best, Node (if it is here) and the worker: the worker's, the best pipe's, Node's.
fn compared(medians: &[Run], text: fn(&Run) -> String) -> [String; 3] {
    match medians {
        [_, best, node, worker] => [worker, best, node].map(text),
        [_, best, worker] => [text(worker), text(best), String::new()],
        other => unreachable!("{} contenders", other.len()),
    }
}

fn plot(bench: &Bench, events: u64, contenders: Contenders, medians: &[Run]) {
    let bars = contenders.iter().zip(medians).map(|((name, _), run)| Bar {
        name: (*name).to_owned(),
        rate: run.rate,
        micros: [run.client, run.broker, run.store],
    });
    let title = format!("A backlog of {events} events of about 280 bytes, worked off");
    let plot = svg(&title, bench.provenance(), &bars.collect::<Vec<_>>());
    std::fs::write(docs().join("performance.svg"), plot).unwrap();
}

pub fn measure_others(bench: &Bench, headlines: &mut Headlines) {
    if !has_others() {
        return headlines.skip("others", "benches/others/prepare.sh found no Node or Python");
    }
    let mut block = Block::default();
    block.line(bench.provenance());
    let all = [
        ("Node, amqplib, Mongoose", Contender::Other("mongoose")),
        ("Python, pika, pymongo", Contender::Other("python")),
        ("ticketlog run", Contender::Ticketlog(1, vec![])),
    ];
    compare(bench, &mut block, "about 280 bytes", &Load::of(number("BENCH_EVENTS", EVENTS) / 2), &all, FEW_ROUNDS);
    block.write("others");
}

/// The worker with and without TLS to both servers, which serve both.
pub fn measure_tls(bench: &Bench, headlines: &mut Headlines) {
    let Ok(broker) = std::env::var("TICKETLOG_LOCAL_TLS_BROKER_URI") else {
        return headlines.skip("tls", "these servers take no TLS (TICKETLOG_LOCAL_TLS=1 with native servers)");
    };
    let of = |name: &str| std::env::var(name).unwrap();
    let settings = vec![
        ("BROKER__URI", broker),
        ("BROKER__TLS_CA", of("TICKETLOG_LOCAL_TLS_CA")),
        ("STORE__URI", of("TICKETLOG_LOCAL_TLS_STORE_URI")),
    ];
    let mut block = Block::default();
    block.line(bench.provenance());
    let all = [
        ("ticketlog run, no TLS", Contender::Ticketlog(1, vec![])),
        ("ticketlog run, TLS", Contender::Ticketlog(1, settings)),
    ];
    let events = number("BENCH_EVENTS", EVENTS);
    let small = compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all, FEW_ROUNDS);
    compare(bench, &mut block, "2 KiB", &Load::sized(events / 4, 2 << 10), &all, FEW_ROUNDS);
    block.write("tls");
    let rate = format!("{:.0}", small[1].rate);
    headlines.row("events of about 280 bytes a second with TLS", [rate, String::new(), String::new()]);
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
        for at in order.into_iter().filter(|at| contenders[*at].1.is_whole() || round < FEW_ROUNDS) {
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
