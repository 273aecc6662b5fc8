//! The throughput of the worker over slow links to both servers, with the default settings and with other numbers of writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::page::Block;
use crate::common::slow_link::slow_link;
use crate::common::{end, median, mib, must, number, ticketlog};
use crate::run::{Bench, Contender, Load, publish, start};

/// Rounds of all contenders. Every other round is in reverse order.
const ROUNDS: u64 = 3;
/// Round trips in milliseconds.
const ROUND_TRIPS: [u64; 5] = [0, 1, 5, 20, 50];
/// The round trip to MongoDB in the middle third of the last row.
const SLOW: u64 = 50;

pub fn measure(bench: &Bench) {
    let load = Load::of(number("BENCH_LINKS_EVENTS", 60_000));
    let (broker, store) = (Link::new("BROKER__URI"), Link::new("STORE__URI"));
    let writers = std::env::var("BENCH_WRITERS").unwrap_or_else(|_| "3,7,16".to_owned());
    let fixed: Vec<usize> = writers.split(',').map(|text| text.parse().expect("BENCH_WRITERS: numbers")).collect();
    let mut contenders = vec![vec![]];
    contenders.extend(fixed.iter().map(|writers| {
        let prefetch = (500 * (writers + 1)).max(4096);
        vec![("WRITE__CONCURRENCY", writers.to_string()), ("BROKER__PREFETCH", prefetch.to_string())]
    }));
    contenders.iter_mut().for_each(|settings| settings.extend([broker.setting(), store.setting()]));
    let mut block = Block::default();
    block.line(&bench.provenance());
    block.line(&format!(
        "{} events of about 280 bytes through a proxy to each server, medians of {} rounds in turn; in parentheses the median\n\
         of pairs with the default settings; start: until a tenth is stored",
        load.events,
        Bench::rounds(ROUNDS)
    ));
    let names = fixed.iter().map(|writers| format!("{writers} writers"));
    let names: String = names.map(|name| format!("{name:>16}")).collect();
    block.line(&format!("{:<26}{:>9}{names}{:>10}{:>10}", "round trip", "default", "start s", "MiB"));
    for millis in ROUND_TRIPS {
        broker.set(millis);
        store.set(millis);
        row(bench, &mut block, &format!("{millis} ms"), &contenders, &load, None);
    }
    broker.set(0);
    store.set(0);
    let name = format!("MongoDB 0, {SLOW}, 0 ms");
    row(bench, &mut block, &name, &contenders, &load, Some(&store));
    block.write("links");
}

/// A link to a server of this machine, which delays every byte.
struct Link {
    /// Half of the round trip, in microseconds.
    one_way: Arc<AtomicU64>,
    name: &'static str,
    uri: String,
}

impl Link {
    fn new(name: &'static str) -> Self {
        let one_way = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&one_way);
        let mut uri = url::Url::parse(&std::env::var(format!("TICKETLOG_{name}")).unwrap()).unwrap();
        let port = slow_link(uri.port().unwrap(), move || Duration::from_micros(delay.load(Ordering::Relaxed)));
        uri.set_host(Some("127.0.0.1")).unwrap();
        uri.set_port(Some(port)).unwrap();
        if uri.scheme() == "mongodb" {
            uri.set_query(Some("directConnection=true"));
        }
        Link { one_way, name, uri: uri.to_string() }
    }

    fn setting(&self) -> (&'static str, String) {
        (self.name, self.uri.clone())
    }

    fn set(&self, round_trip_millis: u64) {
        self.one_way.store(round_trip_millis * 500, Ordering::Relaxed);
    }
}

/// Rates between the first tenth and the end.
fn row(bench: &Bench, block: &mut Block, name: &str, contenders: &[Settings], load: &Load, slows_down: Option<&Link>) {
    let mut rates = vec![Vec::new(); contenders.len()];
    let (mut starts, mut peaks) = (Vec::new(), Vec::new());
    for round in 0..Bench::rounds(ROUNDS) {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (rate, start, peak) = run(bench, &contenders[at], load, slows_down);
            println!("  {name:<24}{at}{rate:>9.0}{start:>8.2}{peak:>8.1}");
            rates[at].push(rate);
            if at == 0 {
                starts.push(start);
                peaks.push(peak);
            }
        }
    }
    let mut line = format!("{name:<26}{:>9.0}", median(rates[0].clone()));
    for fixed in &rates[1..] {
        let ratio = median(fixed.iter().zip(&rates[0]).map(|(fixed, default)| fixed / default).collect());
        line += &format!("{:>9.0} ({ratio:.2})", median(fixed.clone()));
    }
    block.line(&format!("{line}{:>10.2}{:>10.1}", median(starts), median(peaks)));
}

type Settings = Vec<(&'static str, String)>;

/// Messages a second after the start, the seconds of the start, and the peak of memory in MiB.
fn run(bench: &Bench, settings: &Settings, load: &Load, slows_down: Option<&Link>) -> (f64, f64, f64) {
    let (name, events) = (bench.name(), load.events);
    must(ticketlog(&name).arg("setup"));
    publish(&name, load);
    bench.settle();
    let spawned = Instant::now();
    let (mut children, _) = start(&Contender::Ticketlog(1, settings.clone()), &name, events);
    bench.wait(&name, events / 10);
    let (started, before) = (Instant::now(), bench.stored(&name));
    if let Some(link) = slows_down {
        bench.wait(&name, events / 3);
        link.set(SLOW);
        bench.wait(&name, events * 2 / 3);
        link.set(0);
    }
    bench.wait(&name, events);
    let rate = (events - before) as f64 / started.elapsed().as_secs_f64();
    let peak = mib(children[0].id(), "VmHWM:");
    children.iter_mut().for_each(end);
    bench.forget(&name);
    (rate, (started - spawned).as_secs_f64(), peak)
}
