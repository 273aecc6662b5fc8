//! Owns one measured run: fills a queue, starts the contenders, and measures what they and the servers use until all
//! messages are done.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;

use crate::programs::{self, cpu_seconds, end, mib, must, number, spawn, ticketlog};

/// Longest wait for idle servers before a run.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(8);

/// A program that empties the queue.
#[derive(Clone)]
pub enum Contender {
    /// A variant of `bare_pipe` or `best_pipe`.
    Pipe(&'static str),
    /// A worker of `benches/others`: `driver`, `mongoose` or `python`.
    Other(&'static str),
    /// This many workers, with these settings.
    Ticketlog(usize, Settings),
}

impl Contender {
    /// Whether it both consumes and inserts.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Contender::Pipe("drain" | "insert"))
    }
}

/// The messages in the queue.
#[derive(Clone)]
pub struct Load {
    pub events: u64,
    /// Bytes of a body; `None` for generated events, which have about 280.
    pub bytes: Option<usize>,
    /// Further arguments for `ticketlog publish --generate`.
    pub options: Vec<String>,
    /// Whether all events were stored before, so that every message is a duplicate.
    pub again: bool,
}

impl Load {
    pub fn of(events: u64) -> Self {
        Load { events, bytes: None, options: Vec::new(), again: false }
    }

    /// Whether every message becomes a new document.
    fn all_new(&self) -> bool {
        !self.again && !self.options.iter().any(|option| option == "--malformed")
    }

    pub fn sized(events: u64, bytes: usize) -> Self {
        Load { bytes: Some(bytes), ..Load::of(events) }
    }
}

/// The results of a run: messages a second; microseconds of processor time a message of contenders, broker and store;
/// peak memory in MiB.
#[derive(Clone, Copy)]
pub struct Run {
    pub rate: f64,
    pub client: f64,
    pub broker: f64,
    pub store: f64,
    pub memory: f64,
}

impl Run {
    pub const HEAD: &str = "    msg/s  client us  RabbitMQ us  MongoDB us  peak MiB";

    pub fn row(&self) -> String {
        let Run { rate, client, broker, store, memory } = self;
        format!("{rate:>9.0}{client:>11.2}{broker:>13.2}{store:>12.2}{memory:>10.1}")
    }

    pub fn medians(runs: &[Run]) -> Run {
        let median = |pick: fn(&Run) -> f64| programs::median(runs.iter().map(pick).collect());
        Run {
            rate: median(|run| run.rate),
            client: median(|run| run.client),
            broker: median(|run| run.broker),
            store: median(|run| run.store),
            memory: median(|run| run.memory),
        }
    }
}

/// The servers, and the number of runs so far.
pub struct Bench {
    pub runtime: tokio::runtime::Runtime,
    pub client: Client,
    runs: std::cell::Cell<u32>,
    /// What is measured: date, versions, commit, cores.
    provenance: String,
}

impl Bench {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let uri = std::env::var("TICKETLOG_STORE__URI").unwrap();
        let client = runtime.block_on(async { Client::with_uri_str(uri).await }).unwrap();
        let info = client.database("admin");
        let info = runtime.block_on(async { info.run_command(doc! { "buildInfo": 1 }).await }).unwrap();
        let provenance = crate::page::provenance(info.get_str("version").unwrap(), &rabbitmq_version());
        Bench { runtime, client, runs: std::cell::Cell::new(0), provenance }
    }

    /// `BENCH_ROUNDS`, or else this default.
    pub fn rounds(default: u64) -> u64 {
        number("BENCH_ROUNDS", default)
    }

    pub fn provenance(&self) -> &str {
        &self.provenance
    }

    pub fn name(&self) -> String {
        self.runs.set(self.runs.get() + 1);
        format!("bench_{}_{}", std::process::id(), self.runs.get())
    }

    pub fn stored(&self, name: &str) -> u64 {
        let collection = self.client.database(name).collection::<Document>("log");
        self.runtime.block_on(async { collection.estimated_document_count().await }).unwrap()
    }

    /// Waits until this many documents are stored. Asks rarely while the end is far, because each question costs
    /// MongoDB time.
    pub fn wait(&self, name: &str, events: u64) {
        let started = Instant::now();
        loop {
            let stored = self.stored(name);
            if stored >= events {
                return;
            }
            let elapsed = started.elapsed();
            let left = elapsed.mul_f64((events - stored) as f64 / (stored + 1) as f64);
            // The first estimates are poor, so the pause grows with the elapsed time.
            let pause = (left / 2).min(elapsed / 4);
            std::thread::sleep(pause.clamp(Duration::from_millis(5), Duration::from_millis(500)));
        }
    }

    /// Makes both servers write pending data to disk, and waits until they are idle, so that earlier runs and filling
    /// the queue do not slow down this run.
    pub fn wait_until_idle(&self) {
        programs::roll_over_wal();
        let admin = self.client.database("admin");
        self.runtime.block_on(async { admin.run_command(doc! { "fsync": 1 }).await }).unwrap();
        let deadline = Instant::now() + MAX_SETTLE_TIME;
        while Instant::now() < deadline {
            let before: f64 = server_seconds().iter().sum();
            std::thread::sleep(Duration::from_secs(1));
            let used = server_seconds().iter().sum::<f64>() - before;
            if used.is_nan() || used <= 0.05 {
                return;
            }
        }
    }

    pub fn forget(&self, name: &str) {
        self.runtime.block_on(async { self.client.database(name).drop().await }).unwrap();
    }

    /// Fills a queue, lets the contender empty it, and measures until the last message has its outcome.
    pub fn run(&self, contender: &Contender, load: &Load) -> Run {
        let name = self.name();
        must(ticketlog(&name).arg("setup"));
        publish(&name, load);
        if load.again {
            let (mut children, port) = start(&Contender::Ticketlog(1, vec![]), &name, load.events, &vec![]);
            wait_until_settled(port, load.events);
            children.iter_mut().for_each(end);
            publish(&name, load);
        }
        self.wait_until_idle();
        let (mut before, mut started) = (server_seconds(), Instant::now());
        let (mut children, port) = start(contender, &name, load.events, &vec![]);
        let mut used_before = 0.0;
        if matches!(contender, Contender::Pipe("insert")) {
            wait_for_line(&mut children[0], "ready");
            (before, started, used_before) = (server_seconds(), Instant::now(), cpu_seconds(children[0].id()));
        }
        match contender {
            Contender::Pipe(_) | Contender::Other(_) => wait_for_line(&mut children[0], "done"),
            // Counting documents costs the worker nothing; serving its metrics would.
            Contender::Ticketlog(..) if load.all_new() => self.wait(&name, load.events),
            Contender::Ticketlog(..) => wait_until_settled(port, load.events),
        }
        let seconds = started.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(200));
        let (events, after) = (load.events as f64, server_seconds());
        let client: f64 = children.iter().map(|child| cpu_seconds(child.id())).sum::<f64>() - used_before;
        let run = Run {
            rate: events / seconds,
            client: client * 1e6 / events,
            broker: (after[0] - before[0]) * 1e6 / events,
            store: (after[1] - before[1]) * 1e6 / events,
            memory: children.iter().map(|child| mib(child.id(), "VmHWM:")).fold(0.0, f64::max),
        };
        children.iter_mut().for_each(end);
        self.forget(&name);
        run
    }
}

/// Processor time of RabbitMQ and MongoDB so far, in seconds; NaN if `make bench` did not start them.
fn server_seconds() -> [f64; 2] {
    ["RABBITMQ", "MONGODB"].map(|name| programs::server_pid(name).map_or(f64::NAN, cpu_seconds))
}

/// Settings of the worker by their names in the environment, without `TICKETLOG_`.
pub type Settings = Vec<(&'static str, String)>;

/// Starts the contender, which finds its servers where `elsewhere` says, or else where this process does. Returns the port of
/// the first worker's metrics, too.
pub fn start(contender: &Contender, name: &str, events: u64, elsewhere: &Settings) -> (Vec<Child>, u16) {
    let spawn = |command: &mut Command| {
        spawn(command.envs(elsewhere.iter().map(|(key, value)| (format!("TICKETLOG_{key}"), value))))
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    match contender {
        Contender::Pipe(kind) => {
            let program = if *kind == "best" { "best_pipe" } else { "bare_pipe" };
            let count = events.to_string();
            (vec![spawn(programs::pipe(program, kind).args([name, name, "log", &count]))], port)
        }
        Contender::Other(kind) => {
            (vec![spawn(programs::other(kind).args([name, name, "log", &events.to_string()]))], port)
        }
        Contender::Ticketlog(count, settings) => {
            let workers = (0..*count).map(|at| {
                let mut command = ticketlog(name);
                for (key, value) in settings {
                    command.env(format!("TICKETLOG_{key}"), value);
                }
                if at == 0 {
                    command.env("TICKETLOG_HTTP__LISTEN", format!("127.0.0.1:{port}"));
                }
                spawn(command.arg("run"))
            });
            (workers.collect(), port)
        }
    }
}

/// Waits until a pipe prints this line.
fn wait_for_line(child: &mut Child, word: &str) {
    let output = child.stdout.as_mut().unwrap();
    // Byte by byte, so that later lines stay in the pipe.
    let mut lines = BufReader::with_capacity(1, output).lines();
    assert_eq!(lines.next().expect("the pipe ended").unwrap(), word);
}

/// Waits until the worker has settled this many deliveries, not counting requeued ones.
fn wait_until_settled(port: u16, events: u64) {
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let outcomes = page
            .lines()
            .filter(|line| line.starts_with("ticketlog_messages_settled_total{") && !line.contains("\"returned\""));
        let sum: f64 = outcomes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        if sum >= events as f64 {
            return;
        }
    }
}

/// Fills the queue. The same load always publishes the same messages.
pub fn publish(name: &str, load: &Load) {
    let count = load.events.to_string();
    let Some(bytes) = load.bytes else {
        let start = ["publish", "--seed", "7", "--generate", &count];
        return must(ticketlog(name).args(start).args(&load.options));
    };
    let mut file = std::env::temp_dir();
    file.push(format!("{name}.ndjson"));
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    for n in 0..load.events {
        writeln!(out, "{}", large_event(n, bytes)).unwrap();
    }
    out.flush().unwrap();
    must(ticketlog(name).arg("publish").arg(&file));
    std::fs::remove_file(file).unwrap();
}

/// An event with as many legs of a journey as it needs to have this many bytes.
fn large_event(n: u64, bytes: usize) -> String {
    let mut text = format!(
        r#"{{"user_id":{},"timestamp":{},"uuid":"{n:08x}-7a59-4a53-8f0e-6b1d4c2e9f10","status":"success","operation_type":"purchase","legs":["#,
        n.wrapping_mul(2_654_435_761) % 100_000,
        1_793_491_200_000 + n * 10,
    );
    let mut leg = 0;
    while text.len() < bytes - 80 {
        text += &format!(
            r#"{}{{"from":"Stop {leg}","to":"Städtisches Theater","fare":2.75,"zones":[1,2,3],"valid":true}}"#,
            if leg == 0 { "" } else { "," }
        );
        leg += 1;
    }
    text + "]}"
}

/// The broker's version, from the AMQP handshake.
fn rabbitmq_version() -> String {
    let uri = std::env::var("TICKETLOG_BROKER__URI").unwrap();
    let address = uri.rsplit('@').next().unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let mut handshake = [0; 4096];
    let read = stream.read(&mut handshake).unwrap();
    // A long string in the table of server properties: its name, `S`, four bytes of length, the text.
    let name = b"\x07versionS";
    let Some(at) = handshake[..read].windows(name.len()).position(|window| window == name) else {
        return "?".to_owned();
    };
    let length = usize::from(handshake[at + name.len() + 3]);
    let from = at + name.len() + 4;
    String::from_utf8_lossy(&handshake[from..from + length]).into_owned()
}
