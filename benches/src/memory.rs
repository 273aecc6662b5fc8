//! Owns the measurement of the worker's resident memory: with a large backlog, while MongoDB is frozen, and afterwards.

use std::process::Command;
use std::time::Duration;

use crate::page::{Block, Headlines};
use crate::programs::{end, mib, must, number, server_pid, spawn, ticketlog};
use crate::run::{Bench, Load, publish};

pub fn measure(bench: &Bench, headlines: &mut Headlines) {
    let Some(mongodb) = server_pid("MONGODB") else {
        return headlines.skip("memory", "`make bench` did not start this MongoDB, so it cannot be frozen");
    };
    let (events, outage) = (number("BENCH_MEMORY_EVENTS", 1_000_000), number("BENCH_OUTAGE", 60));
    let name = bench.name();
    must(ticketlog(&name).arg("setup"));
    publish(&name, &Load::of(events));
    let mut block = Block::default();
    block.line(bench.provenance());
    block.line(&format!("resident memory of a worker with a backlog of {events}, in MiB"));
    let mut child = spawn(ticketlog(&name).arg("run"));
    let mut report = |when: &str| {
        let (now, peak) = (mib(child.id(), "VmRSS:"), mib(child.id(), "VmHWM:"));
        block.line(&format!("{when:<44}{now:>6.1} now, {peak:>6.1} at the most so far"));
    };
    bench.wait(&name, events / 4);
    report("a quarter is stored");
    must(Command::new("kill").args(["-STOP", &mongodb.to_string()]));
    std::thread::sleep(Duration::from_secs(outage));
    report(&format!("MongoDB has stood still for {outage} s"));
    must(Command::new("kill").args(["-CONT", &mongodb.to_string()]));
    bench.wait(&name, events);
    report("all are stored");
    block.line(&format!("of these, mapped from the program's file: {:.1}", mib(child.id(), "RssFile:")));
    let peak = format!("{:.0}", mib(child.id(), "VmHWM:"));
    headlines.row(
        &format!("memory, a backlog of {events} and {outage} s of outage, MiB"),
        [peak, String::new(), String::new()],
    );
    end(&mut child);
    bench.forget(&name);
    block.write("memory");
}
