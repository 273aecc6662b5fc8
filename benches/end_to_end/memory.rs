//! Owns what the worker holds resident: with a large backlog, while MongoDB stands still, and afterwards.

use std::process::Command;
use std::time::Duration;

use crate::common::page::Block;
use crate::common::{end, mib, must, number, server, spawn, ticketlog};
use crate::run::{Bench, Load, publish};

pub fn measure(bench: &Bench) {
    let Some(mongodb) = server("MONGODB") else {
        println!("memory: MongoDB is not ours to stop; nothing measured");
        return;
    };
    let (events, outage) = (number("BENCH_MEMORY_EVENTS", 1_000_000), number("BENCH_OUTAGE", 60));
    let name = bench.name();
    must(ticketlog(&name).arg("setup"));
    publish(&name, &Load::of(events));
    let mut block = Block::default();
    block.line(&bench.provenance());
    block.line(&format!("resident memory of a worker with a backlog of {events}, in MiB"));
    let mut child = spawn(ticketlog(&name).arg("run"));
    let mut say = |when: &str| {
        let (now, most) = (mib(child.id(), "VmRSS:"), mib(child.id(), "VmHWM:"));
        block.line(&format!("{when:<44}{now:>6.1} now, {most:>6.1} at the most so far"));
    };
    bench.wait(&name, events / 4);
    say("a quarter is stored");
    must(Command::new("kill").args(["-STOP", &mongodb.to_string()]));
    std::thread::sleep(Duration::from_secs(outage));
    say(&format!("MongoDB has stood still for {outage} s"));
    must(Command::new("kill").args(["-CONT", &mongodb.to_string()]));
    bench.wait(&name, events);
    say("all are stored");
    block.line(&format!("of these, mapped from the program's file: {:.1}", mib(child.id(), "RssFile:")));
    end(&mut child);
    bench.forget(&name);
    block.write("memory");
}
