//! Owns a running `ticketlog run`: its log, its HTTP endpoints and its exit.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::servers::signal;
use super::{DEADLINE, World, eventually};

/// A worker process; killed when dropped.
pub struct Worker {
    child: Child,
    log: tempfile::NamedTempFile,
    address: String,
}

impl Worker {
    /// Starts it, and waits until its log names its HTTP address.
    pub async fn start(mut command: Command) -> Self {
        World::current().set_clock(&mut command, true);
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = || std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let child = command.arg("run").stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().unwrap();
        let mut worker = Worker { child, log, address: String::new() };
        eventually("the worker starts", DEADLINE, async || {
            let log = worker.log();
            let address = log
                .split("\"http\":\"")
                .nth(1)
                .or_else(|| log.split("http=\"").nth(1))
                .and_then(|rest| rest.split('"').next())
                .unwrap_or_default();
            worker.address = address.to_owned();
            !worker.address.is_empty()
        })
        .await;
        worker
    }

    /// Everything it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The status code and the body of a GET request.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap()
    }

    /// The same, or `None` if the worker does not answer.
    pub fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The samples of `/metrics`, by their names with labels, without the label `queue` that all of them have.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (_, text) = self.get("/metrics");
        let queue = regex::Regex::new("queue=\"[^\"]*\",?").unwrap();
        let name = |name: &str| queue.replace(name, "").replace("{}", "");
        let sample = |line: &str| line.rsplit_once(' ').map(|(series, value)| (name(series), value.parse().unwrap()));
        text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    }

    /// The number of messages with this outcome.
    pub fn settled(&self, outcome: &str) -> u64 {
        self.metrics()[&format!("ticketlog_messages_settled_total{{outcome=\"{outcome}\"}}")] as u64
    }

    /// Waits until `/readyz` answers 200.
    pub async fn wait_until_ready(&self) {
        eventually("the worker is ready", DEADLINE, async || self.get("/readyz").0 == 200).await;
    }

    /// Waits until this many messages have an outcome and none is in flight; then the ledger must balance.
    pub async fn wait_until_settled(&self, count: u64) {
        let total = |metrics: &BTreeMap<String, f64>, name: &str| {
            metrics.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| *value as u64).sum::<u64>()
        };
        let settled = |metrics: &BTreeMap<String, f64>| total(metrics, "ticketlog_messages_settled_total");
        let deadline = Instant::now() + DEADLINE;
        loop {
            let metrics = self.metrics();
            if settled(&metrics) >= count && metrics["ticketlog_messages_in_flight"] == 0.0 {
                assert_eq!(
                    total(&metrics, "ticketlog_messages_received_total"),
                    settled(&metrics),
                    "the ledger balances"
                );
                assert_eq!(settled(&metrics), count);
                return;
            }
            if Instant::now() >= deadline {
                let ledger: Vec<_> = metrics.iter().filter(|(name, _)| name.starts_with("ticketlog_mess")).collect();
                panic!("{count} messages are not settled: {ledger:#?}\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Sends SIGTERM, and waits for the exit status.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_exit().await
    }

    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the worker ends", DEADLINE, async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the worker's log\n{}", self.log());
        }
    }
}
