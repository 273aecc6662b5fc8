//! Owns the comparison of adaptive concurrency with every fixed setting, for three loads.

use std::time::Duration;

use crate::common::page::Block;
use crate::common::{median, number, proxy};
use crate::run::{Bench, Contender, Load};

/// Rounds of all four contenders. Every other round is in reverse order.
const ROUNDS: u64 = 5;

pub fn measure(bench: &Bench) {
    let events = number("BENCH_TUNING_EVENTS", 100_000);
    let uri = std::env::var("TICKETLOG_STORE__URI").unwrap();
    let server = uri.split("//").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let port = bench.runtime.block_on(proxy::delayed(server, Duration::from_millis(20)));
    let far = vec![("STORE__URI", format!("mongodb://127.0.0.1:{port}/?directConnection=true"))];
    let mut block = Block::default();
    block.line(&bench.provenance());
    block.line("messages a second, medians of rounds in turn; the lowest of the three medians of pairs");
    let mut head = format!("{:<36}", "");
    ["fixed 1", "fixed 2", "fixed 3", "adaptive"].iter().for_each(|name| head += &format!("{name:>10}"));
    block.line(&(head + "   adaptive / best fixed"));
    for (name, load, settings) in [
        ("small events", Load::of(events), vec![]),
        ("20 KiB events", Load::sized(events / 5, 20 << 10), vec![]),
        ("small events, MongoDB 40 ms away", Load::of(events), far),
    ] {
        row(bench, &mut block, name, &load, &settings);
    }
    block.write("tuning");
}

fn row(bench: &Bench, block: &mut Block, name: &str, load: &Load, settings: &[(&'static str, String)]) {
    let contenders = [Some("1"), Some("2"), Some("3"), None].map(|fixed| {
        let mut settings = settings.to_vec();
        if let Some(concurrency) = fixed {
            settings.push(("WRITE__CONCURRENCY", concurrency.to_owned()));
            settings.push(("WRITE__ADAPTIVE", "false".to_owned()));
        }
        Contender::Ticketlog(1, settings)
    });
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 0..Bench::rounds(ROUNDS) {
        let mut order = [0, 1, 2, 3];
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            rates[at].push(bench.run(&contenders[at], load).rate);
        }
    }
    // The median of pairs from the same round, which had the same conditions. The best fixed setting is the one with
    // the lowest ratio.
    let ratio =
        |fixed: &Vec<f64>| median(rates[3].iter().zip(fixed).map(|(adaptive, fixed)| adaptive / fixed).collect());
    let lowest = rates[..3].iter().map(ratio).fold(f64::INFINITY, f64::min);
    let mut line = format!("{name:<36}");
    rates.iter().for_each(|rates| line += &format!("{:>10.0}", median(rates.clone())));
    block.line(&format!("{line}{lowest:>12.2}"));
}
