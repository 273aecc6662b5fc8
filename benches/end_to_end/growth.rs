//! Owns what a message costs as things grow: backlog, workers, users, bad messages, repetition.

use crate::common::number;
use crate::common::page::Block;
use crate::run::{Bench, Contender, Load, Run};

pub fn measure(bench: &Bench) {
    let most = number("BENCH_BACKLOG", 2_000_000);
    let usual = number("BENCH_GROWTH_EVENTS", 100_000);
    let mut block = Block::default();
    block.line(&bench.provenance());
    block.line(&format!("one run each; {usual} events of about 280 bytes where the row says nothing else"));
    block.line(&format!("{:<34}{}", "", Run::HEAD));
    let one = Contender::Ticketlog(1, vec![]);
    let mut row = |name: String, contender: &Contender, load: &Load| {
        let run = bench.run(contender, load);
        block.line(&format!("{name:<34}{}", run.row()));
    };
    for events in [10_000, 100_000, 500_000, 2_000_000].into_iter().filter(|events| *events <= most) {
        row(format!("backlog of {events}"), &one, &Load::of(events));
    }
    for workers in [1, 2, 4] {
        row(format!("{workers} workers on the queue"), &Contender::Ticketlog(workers, vec![]), &Load::of(usual));
    }
    for users in [1, 100, 100_000] {
        let options = vec!["--users".to_owned(), users.to_string()];
        row(format!("{users} users"), &one, &Load { options, ..Load::of(usual) });
    }
    for percent in [0, 1, 50] {
        let options = vec!["--malformed".to_owned(), percent.to_string()];
        row(format!("{percent} % malformed"), &one, &Load { options, ..Load::of(usual) });
    }
    row("all stored before (duplicates)".to_owned(), &one, &Load { again: true, ..Load::of(usual) });
    block.write("growth");
}
