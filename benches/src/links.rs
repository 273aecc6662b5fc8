//! What a distance to both servers costs: throughput, processor time and latency of the worker and of others, through a proxy
//! that delays every byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::page::{Block, Headlines};
use crate::programs::{cpu_seconds, end, has_others, median, mib, must, number, pipe, spawn, ticketlog};
use crate::run::{Bench, Contender, Load, Settings, publish, start};
use crate::slow_link::slow_link;
use crate::stored::{Stored, percentile};

/// Rounds of all links and contenders. Every other round is in reverse order.
const ROUNDS: u64 = 3;
/// Round trips in milliseconds. The first is what the others are compared with.
const ROUND_TRIPS: [u64; 5] = [0, 1, 5, 20, 50];
/// Events a second, and for how many seconds, where the latency is measured.
const LATENCY: (u64, u64) = (100, 10);

pub fn measure(bench: &Bench, headlines: &mut Headlines) {
    let links = Links::new();
    let mut block = Block::default();
    block.line(bench.provenance());
    rates(bench, &links, &mut block, headlines);
    latencies(bench, &links, &mut block);
    block.write("links");
}

/// The links to both servers, which are on this machine.
struct Links {
    /// Half of the round trip, in microseconds.
    one_way: Arc<AtomicU64>,
    /// Where their proxies are.
    settings: Settings,
}

impl Links {
    fn new() -> Self {
        let one_way = Arc::new(AtomicU64::new(0));
        let settings = ["BROKER__URI", "STORE__URI"].map(|name| {
            let delay = Arc::clone(&one_way);
            let mut uri = url::Url::parse(&std::env::var(format!("TICKETLOG_{name}")).unwrap()).unwrap();
            let port = slow_link(uri.port().unwrap(), move || Duration::from_micros(delay.load(Ordering::Relaxed)));
            uri.set_host(Some("127.0.0.1")).unwrap();
            uri.set_port(Some(port)).unwrap();
            if uri.scheme() == "mongodb" {
                uri.set_query(Some("directConnection=true"));
            }
            (name, uri.to_string())
        });
        Links { one_way, settings: settings.to_vec() }
    }

    fn set(&self, round_trip_millis: u64) {
        self.one_way.store(round_trip_millis * 500, Ordering::Relaxed);
    }
}

/// A run between the first tenth of its events and the last: messages a second, and the program's processor time for each in
/// microseconds. The seconds of its start, until a tenth is stored. The peak of its memory in MiB.
#[derive(Clone, Copy)]
struct Run {
    rate: f64,
    client: f64,
    start: f64,
    memory: f64,
}

fn rates(bench: &Bench, links: &Links, block: &mut Block, headlines: &mut Headlines) {
    let load = Load::of(number("BENCH_LINKS_EVENTS", 60_000));
    let contenders = contenders();
    let rounds = Bench::rounds(ROUNDS);
    let mut runs = vec![vec![Vec::new(); ROUND_TRIPS.len()]; contenders.len()];
    for round in 0..rounds {
        let mut order: Vec<(usize, usize)> =
            (0..ROUND_TRIPS.len()).flat_map(|link| (0..contenders.len()).map(move |who| (link, who))).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (link, who) in order {
            links.set(ROUND_TRIPS[link]);
            let run = run(bench, &contenders[who].1, &load, &links.settings);
            println!("  {:<24}{:>3} ms{:>9.0}{:>7.2}", contenders[who].0, ROUND_TRIPS[link], run.rate, run.start);
            runs[who][link].push(run);
        }
    }
    table(block, &load, &contenders, &runs);
    let (at, millis) = (3, ROUND_TRIPS[3]);
    let of = |name: &str| {
        let found = contenders.iter().zip(&runs).find(|((contender, _), _)| contender.starts_with(name));
        found.map_or(String::new(), |(_, links)| {
            format!("{:.0}", median(links[at].iter().map(|run| run.rate).collect()))
        })
    };
    let name = format!("events a second over a link of {millis} ms");
    headlines.row(&name, [of("ticketlog"), of("bare pipe, best"), of("Node")]);
}

fn table(block: &mut Block, load: &Load, contenders: &[(String, Contender)], runs: &[Vec<Vec<Run>>]) {
    let rounds = runs[0][0].len();
    block.line(&format!(
        "{} events of about 280 bytes through a proxy to each server, medians of {rounds} rounds in turn;\n\
         msg/s and client us after the first tenth; of 0 ms: median of pairs; start: until a tenth is stored",
        load.events
    ));
    block.line(&format!(
        "{:<26}{:>10}{:>9}{:>9}{:>11}{:>9}{:>9}",
        "", "round trip", "msg/s", "of 0 ms", "client us", "start s", "MiB"
    ));
    for ((name, _), links) in contenders.iter().zip(runs) {
        for (round_trip, runs) in ROUND_TRIPS.iter().zip(links) {
            let of = |pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
            let ratio = median(runs.iter().zip(&links[0]).map(|(run, near)| run.rate / near.rate).collect());
            let (rate, client) = (of(|run| run.rate), of(|run| run.client));
            let (start, memory) = (of(|run| run.start), of(|run| run.memory));
            block.line(&format!(
                "{name:<26}{round_trip:>7} ms{rate:>9.0}{ratio:>9.2}{client:>11.2}{start:>9.2}{memory:>9.1}"
            ));
        }
    }
}

/// The worker with its default settings first; with `BENCH_WRITERS=3,16` also with these numbers of writers.
fn contenders() -> Vec<(String, Contender)> {
    let mut all = vec![("ticketlog run".to_owned(), Contender::Ticketlog(1, vec![]))];
    let writers = std::env::var("BENCH_WRITERS").unwrap_or_default();
    for writers in writers.split(',').filter(|text| !text.is_empty()) {
        let prefetch = (500 * (writers.parse::<u32>().expect("BENCH_WRITERS: numbers") + 1)).max(4096).to_string();
        let settings = vec![("WRITE__CONCURRENCY", writers.to_owned()), ("BROKER__PREFETCH", prefetch)];
        all.push((format!("{writers} writers"), Contender::Ticketlog(1, settings)));
    }
    all.push(("bare pipe, best".to_owned(), Contender::Pipe("best")));
    if has_others() {
        all.push(("Node, amqplib, driver".to_owned(), Contender::Other("driver")));
    }
    all
}

fn run(bench: &Bench, contender: &Contender, load: &Load, links: &Settings) -> Run {
    let (name, events) = (bench.name(), load.events);
    must(ticketlog(&name).arg("setup"));
    publish(&name, load);
    bench.wait_until_idle();
    let spawned = Instant::now();
    let (mut children, _) = start(contender, &name, events, links);
    bench.wait(&name, events / 10);
    let (started, used, before) = (Instant::now(), cpu_seconds(children[0].id()), bench.stored(&name));
    bench.wait(&name, events);
    let counted = (events - before) as f64;
    let run = Run {
        rate: counted / started.elapsed().as_secs_f64(),
        client: (cpu_seconds(children[0].id()) - used) * 1e6 / counted,
        start: (started - spawned).as_secs_f64(),
        memory: mib(children[0].id(), "VmHWM:"),
    };
    children.iter_mut().for_each(end);
    bench.forget(&name);
    run
}

fn latencies(bench: &Bench, links: &Links, block: &mut Block) {
    let (rate, seconds) = LATENCY;
    let rounds = Bench::rounds(ROUNDS);
    block.line(&format!("\nstart to first stored event, and publish to stored at {rate} events a second, in milliseconds; medians of {rounds} rounds of\n\
         {seconds} s in turn; of the start also how many round trips it takes more than at 0 ms"));
    block.line(&format!("{:<26}{:>10}{:>9}{:>13}{:>9}{:>9}", "", "round trip", "start", "round trips", "p50", "p99"));
    let names = ["ticketlog run", "bare pipe, each by itself"];
    let mut rows = vec![vec![Vec::new(); ROUND_TRIPS.len()]; names.len()];
    let stored = bench.runtime.block_on(Stored::open());
    for _ in 0..rounds {
        for (at, round_trip) in ROUND_TRIPS.iter().enumerate() {
            for (who, rows) in rows.iter_mut().enumerate() {
                links.set(*round_trip);
                let name = bench.name();
                let mut command = if who == 0 { ticketlog(&name) } else { pipe("bare_pipe", "each") };
                if who == 0 {
                    command.arg("run")
                } else {
                    command.args([&name, &name, "log", "0"])
                };
                command.envs(links.settings.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
                let measured = stored.latencies(&name, rate, seconds, || spawn(&mut command));
                let (start, latencies) = bench.runtime.block_on(measured);
                rows[at].push([start, percentile(&latencies, 0.5), percentile(&latencies, 0.99)]);
            }
        }
    }
    for (name, links) in names.iter().zip(&rows) {
        let of = |rounds: &[[f64; 3]], at: usize| median(rounds.iter().map(|round| round[at]).collect());
        for (round_trip, rounds) in ROUND_TRIPS.iter().zip(links) {
            let [start, p50, p99] = [0, 1, 2].map(|at| of(rounds, at));
            let trips = match *round_trip {
                0 => String::new(),
                millis => format!("{:.1}", (start - of(&links[0], 0)) / millis as f64),
            };
            block.line(&format!("{name:<26}{round_trip:>7} ms{start:>9.0}{trips:>13}{p50:>9.1}{p99:>9.1}"));
        }
    }
}
