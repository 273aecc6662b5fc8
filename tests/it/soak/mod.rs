//! `make soak`: hours of load on a RabbitMQ cluster and a MongoDB replica set, with faults, replays and password rotations. At the
//! end the oracle looks for every event, and the samples say whether anything grows.

mod faults;
mod oracle;
mod processes;
mod samples;
mod table;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::harness::{Load, LoadPublisher, TestMessage, server_uri};

use faults::Faults;
use oracle::SoakReport;
use processes::Processes;
use table::Table;

/// Events a second.
const RATE: u32 = 1000;
/// How long the queue may take until it is empty at the end.
const DRAIN: Duration = Duration::from_secs(900);

/// How long, and how often what happens.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    length: Duration,
    fault: Duration,
    replay: Duration,
    sample: Duration,
}

impl Plan {
    /// From the environment. A short trial has as many faults as it has room for.
    fn read() -> Self {
        let length = Duration::from_secs_f64(server_uri("HOURS").parse::<f64>().expect("HOURS: a number") * 3600.0);
        let seed = std::env::var("SOAK_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
        let part =
            |of: u32, least: u64, most: u64| (length / of).clamp(Duration::from_secs(least), Duration::from_secs(most));
        Plan { seed, length, fault: part(16, 10, 180), replay: part(6, 20, 600), sample: part(60, 5, 60) }
    }
}

/// One of a hundred is malformed: half of these can be edited, the others cannot.
fn event(n: i32) -> TestMessage {
    let sent = TestMessage::numbered(n);
    let body = match n % 200 {
        37 => format!("{{\"n\":{n},\"user_id\":\"?\",\"text\":\"operation {n}\",\"status\":\"success\"}}").into_bytes(),
        137 => format!("nonsense {n}").into_bytes(),
        _ => return sent,
    };
    TestMessage { body, ..sent }
}

/// What an event is; see [`event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Valid,
    /// `user_id` has the wrong type.
    Editable,
    /// Not JSON.
    Hopeless,
}

impl Kind {
    fn of(n: i32) -> Kind {
        match n % 200 {
            37 => Kind::Editable,
            137 => Kind::Hopeless,
            _ => Kind::Valid,
        }
    }
}

/// What goes on beside the load, until it is told to stop.
struct Background(Vec<JoinHandle<()>>);

impl Background {
    fn start(processes: &Arc<Processes>, plan: Plan, stop: &watch::Receiver<bool>) -> Self {
        let every = |period, act: fn(Arc<Processes>)| {
            let (processes, stop) = (Arc::clone(processes), stop.clone());
            tokio::spawn(async move {
                let mut turn = interval(period);
                turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
                turn.tick().await;
                while until_stopped(&stop, turn.tick()).await {
                    let processes = Arc::clone(&processes);
                    let _ = tokio::task::spawn_blocking(move || act(processes)).await;
                }
            })
        };
        Background(vec![
            every(Duration::from_secs(5), |processes| processes.scrape()),
            every(Duration::from_secs(10), |processes| processes.view_console()),
            every(plan.replay, |processes| processes.replay()),
        ])
    }

    async fn end(self) {
        for task in self.0 {
            let _ = task.await;
        }
    }
}

/// Waits for it; returns false if the run is to stop.
async fn until_stopped<T>(stop: &watch::Receiver<bool>, wait: impl Future<Output = T>) -> bool {
    let mut stop = stop.clone();
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => false,
        _ = wait => true,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
#[ignore = "runs for HOURS hours: `make soak`"]
async fn nothing_is_lost_and_nothing_grows() {
    let plan = Plan::read();
    println!("{plan:?}");
    let (mut faults, processes) = Faults::start(plan).await;
    let (stopper, stop) = watch::channel(false);
    let mut table = Table::new(plan, faults.versions().await);
    let load = Load { message: event, every: Duration::from_secs(50) / RATE, missed: MissedTickBehavior::Burst };
    let load = LoadPublisher::with(&faults.env, 0, load);
    let background = Background::start(&processes, plan, &stop);
    let sampling = faults.sampler().await;
    // On a thread of its own, because `rabbitmqctl` and the start of a server block it.
    let mut faulting = tokio::task::spawn_blocking(move || {
        tokio::runtime::Handle::current().block_on(faults.go_on(&stop));
        faults
    });
    let (began, mut turn) = (Instant::now(), interval(plan.sample));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut end, mut interrupt) = (pin!(tokio::time::sleep(plan.length)), pin!(interrupted()));
    let why_ended = loop {
        tokio::select! {
            biased;
            () = &mut end => break None,
            () = &mut interrupt => break Some("it was interrupted".to_owned()),
            failed = &mut faulting => {
                // The servers have ended with it, so there is nothing left to look at.
                table.ends(began.elapsed(), Some("a fault could not be made".to_owned()));
                panic!("a fault could not be made: {:?}", failed.err());
            }
            _ = turn.tick() => {
                let sample = sampling.take(began.elapsed()).await;
                table.add(sample, load.published());
            }
        }
    };
    let length = began.elapsed();
    println!("the load ends after {length:?}: {}", why_ended.as_deref().unwrap_or("it has its length"));
    stopper.send(true).unwrap();
    table.ends(length, why_ended);
    background.end().await;
    let mut faults = faulting.await.unwrap();
    let published = load.stop().await;
    table.faults(&faults.happened, processes.replays());
    processes.drain(&faults.env, DRAIN).await;
    faults.env.reconnect().await;
    let report = SoakReport::of(&faults.env, published).await;
    table.oracle(&report);
    println!("{}", table.text());
    report.assert_safe();
    assert_eq!(table.growing(), Vec::<String>::new(), "what grows");
}
