//! Owns the measurement of the cost of a message as load grows: backlog, workers, users, malformed messages,
//! duplicates.

use crate::page::{Block, Headlines};
use crate::programs::number;
use crate::run::{Bench, Contender, Load, Run};

pub fn measure(bench: &Bench, _: &mut Headlines) {
    let events = number("BENCH_GROWTH_EVENTS", 100_000);
    let mut block = Block::default();
    block.line(bench.provenance());
    block.line(&format!("one run each; {events} events of about 280 bytes where the row says nothing else"));
    block.line(&format!("{:<34}{}", "", Run::HEAD));
    let one_worker = Contender::Ticketlog(1, vec![]);
    let mut row = |name: String, contender: &Contender, load: &Load| {
        let run = bench.run(contender, load);
        block.line(&format!("{name:<34}{}", run.row()));
    };
    for backlog in [10_000, 100_000, 1_000_000] {
        row(format!("backlog of {backlog}"), &one_worker, &Load::of(backlog));
    }
    for workers in [1, 2, 4] {
        row(format!("{workers} workers on the queue"), &Contender::Ticketlog(workers, vec![]), &Load::of(events));
    }
    for users in [1, 100, 100_000] {
        let options = vec!["--users".to_owned(), users.to_string()];
        row(format!("{users} users"), &one_worker, &Load { options, ..Load::of(events) });
    }
    for percent in [0, 1, 50] {
        let options = vec!["--malformed".to_owned(), percent.to_string()];
        row(format!("{percent} % malformed"), &one_worker, &Load { options, ..Load::of(events) });
    }
    row("all stored before (duplicates)".to_owned(), &one_worker, &Load { again: true, ..Load::of(events) });
    block.write("growth");
}
