//! Owns a running `ticketlog run`: its log, its metrics, its end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::servers::signal;
use super::{SOON, eventually};

/// A worker process; killed when dropped.
pub struct Worker {
    child: Child,
    log: tempfile::NamedTempFile,
    address: String,
}

impl Worker {
    /// Starts it and waits until its HTTP address is known.
    pub async fn start(mut command: Command) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = || std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let child = command.arg("run").stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().unwrap();
        let mut worker = Worker { child, log, address: String::new() };
        eventually("the worker starts", SOON, async || {
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

    /// GET; the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap()
    }

    /// The same from a worker that may not answer.
    pub fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The samples of `/metrics`, by name with labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let (_, text) = self.get("/metrics");
        let sample = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
        text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
    }

    /// Messages with this outcome.
    pub fn settled(&self, outcome: &str) -> u64 {
        self.metrics()[&format!("ticketlog_messages_settled_total{{outcome=\"{outcome}\"}}")] as u64
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&self) {
        eventually("the worker is ready", SOON, async || self.get("/readyz").0 == 200).await;
    }

    /// Waits until this many messages have an outcome, and nothing is in flight; then the books must balance.
    pub async fn has_settled(&self, count: u64) {
        let total = |metrics: &BTreeMap<String, f64>, name: &str| {
            metrics.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| *value as u64).sum::<u64>()
        };
        let settled = |metrics: &BTreeMap<String, f64>| total(metrics, "ticketlog_messages_settled_total");
        let deadline = Instant::now() + SOON;
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
                panic!("{count} not settled: {ledger:#?}\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// SIGTERM, and what it ends with.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the worker ends", SOON, async || {
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
