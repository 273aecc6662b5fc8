//! The time from publish to stored, as a change stream of MongoDB sees it, for `ticketlog run` and for a bare pipe that
//! inserts each message singly as it arrives; and how long the worker takes to start and to stop, and its idle load.
//! `make bench` provides the servers.
//!
//! environment: BENCH_SECONDS (10) for each rate, BENCH_RATES (100,1000,5000), BENCH_ROUNDS (5)

#![allow(clippy::print_stdout, clippy::print_stderr)]
// A benchmark: any error ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines
)]

mod common;

use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use bson::Document;
use common::page::Block;
use common::{cpu_seconds, end, median, must, number, pipe, spawn, ticketlog};
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ChangeStreamEvent;
use mongodb::{Client, Collection};

type Changes = ChangeStream<ChangeStreamEvent<Document>>;

fn main() {
    let Ok(store) = std::env::var("TICKETLOG_STORE__URI") else {
        println!("latency needs servers: run it by `make bench`");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::open(&store).await;
        let mut block = Block::default();
        bench.latencies(&mut block).await;
        bench.start_idle_stop(&mut block).await;
        block.write("latency");
    });
}

struct Bench {
    client: Client,
    channel: Channel,
    _connection: Connection,
}

#[derive(Clone, Copy, PartialEq)]
enum Contender {
    EachPipe,
    Ticketlog,
}

impl Bench {
    async fn open(store: &str) -> Self {
        let client = Client::with_uri_str(store).await.unwrap();
        let broker = std::env::var("TICKETLOG_BROKER__URI").unwrap();
        let connection = Connection::connect(&broker, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Bench { client, channel, _connection: connection }
    }

    async fn latencies(&self, block: &mut Block) {
        let rounds = number("BENCH_ROUNDS", 5);
        block.line("publish to stored, as a change stream sees it, in milliseconds");
        block.line(&format!("medians of {rounds} rounds in turn of {} s each", seconds()));
        block.line(&format!("{:>8}  {:<26}{:>8}{:>10}{:>10}{:>10}", "msg/s", "", "p50", "p99", "p99.9", "max"));
        let rates = std::env::var("BENCH_RATES").unwrap_or_else(|_| "100,1000,5000".to_owned());
        for rate in rates.split(',').map(|rate| rate.parse::<u64>().unwrap()) {
            let mut rows: [Vec<[f64; 4]>; 2] = Default::default();
            for round in 0..rounds {
                for contender in [Contender::EachPipe, Contender::Ticketlog] {
                    let mut latencies = self.latencies_at(contender, rate, round).await;
                    latencies.sort_by(f64::total_cmp);
                    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
                    rows[contender as usize].push([0.5, 0.99, 0.999, 1.0].map(percentile));
                }
            }
            for (name, rows) in ["bare pipe, each by itself", "ticketlog run"].iter().zip(&rows) {
                let [p50, p99, p999, max] = [0, 1, 2, 3].map(|at| median(rows.iter().map(|row| row[at]).collect()));
                block.line(&format!("{rate:>8}  {name:<26}{p50:>8.1}{p99:>10.1}{p999:>10.1}{max:>10.1}"));
            }
            let ratio = |at: usize| {
                let pairs = rows[1].iter().zip(&rows[0]).filter_map(|(own, pipe)| Some(own.get(at)? / pipe.get(at)?));
                median(pairs.collect())
            };
            let (p50, p99) = (ratio(0), ratio(1));
            block.line(&format!("{:>8}  ticketlog / bare pipe, median of pairs: p50 {p50:.2}, p99 {p99:.2}", ""));
        }
    }

    /// The latencies of all events of one round at a rate, in milliseconds.
    async fn latencies_at(&self, contender: Contender, rate: u64, round: u64) -> Vec<f64> {
        let name = format!("latency_{}_{rate}_{round}_{}", std::process::id(), contender as u8);
        must(ticketlog(&name).arg("setup"));
        let mut child = start(contender, &name);
        let mut changes = self.collection(&name).watch().await.unwrap();
        self.publish(&name).await;
        next_latency(&mut changes).await;
        let count = rate * seconds();
        let (publishing, watching) = (self.publish_at(&name, rate, count), async {
            let mut latencies = Vec::new();
            while latencies.len() < count as usize {
                latencies.push(next_latency(&mut changes).await);
            }
            latencies
        });
        let ((), latencies) = tokio::join!(publishing, watching);
        end(&mut child);
        self.client.database(&name).drop().await.unwrap();
        latencies
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.client.database(name).collection("log")
    }

    async fn publish_at(&self, name: &str, rate: u64, count: u64) {
        let started = Instant::now();
        for n in 0..count {
            let due = started + Duration::from_secs_f64(n as f64 / rate as f64);
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            self.publish(name).await;
        }
    }

    /// Does not wait for the confirm, which would limit the rate.
    async fn publish(&self, name: &str) {
        let body = event_of_now().to_string();
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(format!("{:032x}", rand::random::<u128>()).into());
        let (key, options) = ("ticket.purchase".into(), BasicPublishOptions::default());
        drop(self.channel.basic_publish(name.into(), key, options, body.as_bytes(), properties).await.unwrap());
    }

    /// Measures start, idle load and stop.
    async fn start_idle_stop(&self, block: &mut Block) {
        let name = format!("latency_{}_life", std::process::id());
        must(ticketlog(&name).arg("setup"));
        let mut changes = self.collection(&name).watch().await.unwrap();
        let mut starts = Vec::new();
        let mut stops = Vec::new();
        let mut idle = 0.0;
        for round in 0..5 {
            self.publish(&name).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let started = Instant::now();
            let mut child = start(Contender::Ticketlog, &name);
            next_latency(&mut changes).await;
            starts.push(started.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_secs(2)).await;
            if round == 0 {
                let before = cpu_seconds(child.id());
                tokio::time::sleep(Duration::from_secs(30)).await;
                idle = (cpu_seconds(child.id()) - before) / 30.0;
            }
            let stopped = Instant::now();
            end(&mut child);
            stops.push(stopped.elapsed().as_secs_f64() * 1e3);
        }
        starts.sort_by(f64::total_cmp);
        stops.sort_by(f64::total_cmp);
        let (start, idle, stop) = (starts[2], idle * 100.0, stops[2]);
        block.line(&format!(
            "start to first stored event: {start:.0} ms; idle: {idle:.2} % of a core; stop: {stop:.0} ms"
        ));
        self.client.database(&name).drop().await.unwrap();
    }
}

/// How long events are published in each round.
fn seconds() -> u64 {
    number("BENCH_SECONDS", 10)
}

fn start(contender: Contender, name: &str) -> Child {
    match contender {
        Contender::Ticketlog => spawn(ticketlog(name).arg("run")),
        Contender::EachPipe => {
            let arguments = [name, name, "log", "0"];
            spawn(pipe("bare_pipe", "each").args(arguments))
        }
    }
}

fn micros() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// An event of usual size with the time of its publish.
fn event_of_now() -> serde_json::Value {
    serde_json::json!({
        "user_id": 104_729, "timestamp": micros() / 1000, "sent": micros(), "status": "success", "operation_type": "purchase",
        "ticket_details": {"route": "Red Line", "fare": 2.75, "currency": "EUR", "zones": [1, 2, 3], "from": "Central Station", "to": "Harbour"},
    })
}

/// Waits for the next event to be stored. Returns the milliseconds since it was published.
async fn next_latency(changes: &mut Changes) -> f64 {
    let change = tokio::time::timeout(Duration::from_secs(60), changes.next())
        .await
        .expect("an event is stored in time")
        .unwrap()
        .unwrap();
    let sent = change.full_document.unwrap().get_i64("sent").unwrap();
    (micros() - sent) as f64 / 1e3
}
