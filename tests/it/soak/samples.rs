//! Takes the samples of a run: what the worker, the console and both servers say of their size at one moment.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use mongodb::Client;

use super::processes::Processes;
use crate::harness::Remote;

/// What is sampled: name, unit, and how much it may grow in the second half of a run.
pub const SERIES: [(&str, f64); 14] = [
    ("worker: resident memory, MiB", 2.0),
    ("worker: descriptors", 1.0),
    ("worker: threads", 1.0),
    ("worker: series of `/metrics`", 1.0),
    ("worker: connections to RabbitMQ", 1.0),
    ("worker: channels at RabbitMQ", 1.0),
    ("worker: connections to MongoDB", 1.0),
    ("worker: sessions at MongoDB", 1.0),
    ("console: resident memory, MiB", 2.0),
    ("console: descriptors", 1.0),
    ("console: threads", 1.0),
    ("console: state directory, bytes for each replay", 64.0),
    ("RabbitMQ: connections", 1.0),
    ("RabbitMQ: channels", 1.0),
];

/// One value for each of [`SERIES`]; `None` where nobody answered.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Hours since the start.
    pub hours: f64,
    pub values: [Option<f64>; SERIES.len()],
}

/// Where the samples come from.
#[derive(Clone)]
pub struct Sampler {
    pub broker: Vec<Remote>,
    /// One client for each member, so that the sampler itself needs no new sessions.
    pub store: Vec<Client>,
    pub processes: Arc<Processes>,
    /// That of the measured worker.
    pub login: &'static str,
}

impl Sampler {
    pub async fn take(&self, since: Duration) -> Sample {
        let sampler = self.clone();
        let (own, broker) = tokio::task::spawn_blocking(move || (sampler.own(), sampler.broker())).await.unwrap();
        let [memory, descriptors, threads, series, console_memory, console_descriptors, console_threads, state] = own;
        let [connections, channels, all_connections, all_channels] = broker;
        let (store_connections, sessions) = self.store().await.unzip();
        let values = [
            memory,
            descriptors,
            threads,
            series,
            connections,
            channels,
            store_connections,
            sessions,
            console_memory,
            console_descriptors,
            console_threads,
            state,
            all_connections,
            all_channels,
        ];
        Sample { hours: since.as_secs_f64() / 3600.0, values }
    }

    fn own(&self) -> [Option<f64>; 8] {
        let (worker, console) = (self.processes.measured(), self.processes.console().id());
        let series = worker
            .try_get("/metrics")
            .map(|(_, text)| text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count() as f64);
        let [memory, descriptors, threads] = of_process(worker.id());
        let [console_memory, console_descriptors, console_threads] = of_process(console);
        let replays = self.processes.replays();
        let replays = f64::from(replays.done + replays.failed);
        let state = (replays > 0.0).then(|| self.processes.state_bytes() as f64 / replays);
        [memory, descriptors, threads, series, console_memory, console_descriptors, console_threads, state]
    }

    /// Connections and channels of the worker, and of all.
    fn broker(&self) -> [Option<f64>; 4] {
        let listed = |what: &str| {
            let answers = self.broker.iter().find_map(|node| node.run(&[what, "user", "--no-table-headers"]).ok());
            answers.map(|text| {
                let users: Vec<&str> = text.lines().map(str::trim).filter(|user| !user.is_empty()).collect();
                (users.iter().filter(|user| **user == self.login).count() as f64, users.len() as f64)
            })
        };
        let ((connections, all_connections), (channels, all_channels)) =
            (listed("list_connections").unzip(), listed("list_channels").unzip());
        [connections, channels, all_connections, all_channels]
    }

    /// Connections of the worker to all members, and its sessions that they know; `None` if one does not answer.
    async fn store(&self) -> Option<(f64, f64)> {
        let (mut connections, mut sessions) = (0.0, 0.0);
        for member in &self.store {
            let admin = member.database("admin");
            let operations = admin.run_command(doc! { "currentOp": 1, "$all": true }).await.ok()?;
            let of_worker = |operation: &&Bson| {
                let users = operation.as_document().and_then(|operation| operation.get_array("effectiveUsers").ok());
                let user =
                    |user: &Bson| user.as_document().is_some_and(|user| user.get_str("user").ok() == Some(self.login));
                users.is_some_and(|users| users.iter().any(user))
            };
            connections += operations.get_array("inprog").ok()?.iter().filter(of_worker).count() as f64;
            let users = doc! { "$listLocalSessions": { "users": [{ "user": self.login, "db": "admin" }] } };
            let listed = admin.aggregate([users, doc! { "$count": "sessions" }]).await.ok()?;
            let counted: Vec<Document> = listed.try_collect().await.ok()?;
            sessions +=
                counted.first().map_or(0.0, |counted| f64::from(counted.get_i32("sessions").unwrap_or_default()));
        }
        Some((connections, sessions))
    }
}

/// Resident memory, descriptors and threads, from proc(5).
fn of_process(pid: u32) -> [Option<f64>; 3] {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|entries| entries.count() as f64);
    [field("VmRSS:").map(|kib| kib / 1024.0), descriptors, field("Threads:")]
}
