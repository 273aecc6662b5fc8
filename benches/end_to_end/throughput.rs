//! Owns the comparison with the bare pipes: a backlog of small, middling and large events, in turns.

use crate::common::page::{Block, docs};
use crate::common::plot::{Bar, svg};
use crate::common::{median, number};
use crate::run::{Bench, Contender, Load, Run};

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
    let small = compare(bench, &mut block, "about 280 bytes", &Load::of(events), &all);
    let bars = all.iter().zip(&small).map(|((name, _), run)| Bar {
        name: (*name).to_owned(),
        rate: run.rate,
        micros: [run.client, run.broker, run.store],
    });
    let title = format!("A backlog of {events} events of about 280 bytes, worked off ({})", bench.provenance());
    std::fs::write(docs().join("performance.svg"), svg(&title, &bars.collect::<Vec<_>>())).unwrap();
    compare(bench, &mut block, "2 KiB", &Load::sized(events / 5, 2 << 10), &all[2..]);
    compare(bench, &mut block, "20 KiB", &Load::sized(events / 30, 20 << 10), &all[2..]);
    block.write("throughput");
}

/// Runs all in turn, the rounds in alternating order; the answer is their medians.
fn compare(bench: &Bench, block: &mut Block, size: &str, load: &Load, contenders: &[(&str, Contender)]) -> Vec<Run> {
    let rounds = Bench::rounds();
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let run = bench.run(&contenders[at].1, load);
            println!("  {:<20}{}", contenders[at].0, run.row());
            runs[at].push(run);
        }
    }
    block.line(&format!("\n{} events of {size}, medians of {rounds} rounds", load.events));
    block.line(&format!("{:<20}{}", "", Run::HEAD));
    let medians: Vec<Run> = runs.iter().map(|runs| Run::medians(runs)).collect();
    for ((name, _), run) in contenders.iter().zip(&medians) {
        block.line(&format!("{name:<20}{}", run.row()));
    }
    let own = contenders.len() - 1;
    for other in [own - 2, own - 1] {
        // Of pairs from the same round, which saw the same machine.
        let ratio = |pick: fn(&Run) -> f64| {
            median(runs[own].iter().zip(&runs[other]).map(|(ours, theirs)| pick(ours) / pick(theirs)).collect())
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
