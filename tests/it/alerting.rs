//! Real faults, a real Prometheus, and the alerts of deploy/, with minutes turned into seconds: only the alert for the
//! cause fires, and it stops when the fault is fixed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use bson::{Document, doc};
use regex::Regex;
use url::Url;

use crate::harness::{DEADLINE, DedicatedServer, SHORT_TIMEOUTS, ServerKind, TestEnv, TestMessage, Worker, eventually};

/// The alert rules, with all durations divided by sixty.
fn fast_alert_rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let duration = Regex::new(r"(for: |\[|:|offset )(\d+)([dhm])\b").unwrap();
    let fast = duration.replace_all(&text, |found: &regex::Captures| {
        let minutes = match &found[3] {
            "d" => 1440,
            "h" => 60,
            _ => 1,
        };
        format!("{}{}s", &found[1], found[2].parse::<u32>().unwrap() * minutes)
    });
    fast.into_owned()
}

/// A Prometheus that scrapes a worker and evaluates the alerts.
struct AlertWatch(DedicatedServer);

impl AlertWatch {
    fn scraping(worker: &Worker) -> Self {
        let target = worker.address().to_owned();
        AlertWatch(DedicatedServer::prepared(ServerKind::Prometheus, |directory, _| {
            std::fs::write(directory.join("alerts.yml"), fast_alert_rules()).unwrap();
            let text = format!(
                "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [alerts.yml]\n\
                 scrape_configs: [{{ job_name: ticketlog, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
            );
            std::fs::write(directory.join("prometheus.yml"), text).unwrap();
        }))
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        let url = Url::parse(&self.0.uri()).unwrap().join(path).unwrap();
        let (_, body) = ticketlog_http::client::get(&url, None, None, Duration::from_secs(10)).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Prometheus first scrapes some seconds after its start, which count as minutes here.
    async fn wait_for_first_scrape(&self) {
        let scraped =
            async || !self.get("/api/v1/query?query=up").await["data"]["result"].as_array().unwrap().is_empty();
        eventually("Prometheus scrapes the worker", DEADLINE, scraped).await;
        self.wait_until_none_fires().await;
    }

    async fn firing(&self) -> BTreeSet<String> {
        let answer = self.get("/api/v1/alerts").await;
        let alerts = answer["data"]["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().replace("Ticketlog", "")).collect()
    }

    /// Waits until the alert `cause` fires. No other may fire until then, except those of `also_allowed`.
    async fn only_fires(&self, cause: &str, also_allowed: &[&str]) {
        let mut fired = BTreeSet::new();
        eventually(cause, DEADLINE, async || {
            fired.append(&mut self.firing().await);
            fired.contains(cause)
        })
        .await;
        fired.remove(cause);
        fired.retain(|alert| !also_allowed.contains(&alert.as_str()));
        assert!(fired.is_empty(), "also fired before {cause}: {fired:?}");
    }

    async fn wait_until_none_fires(&self) {
        eventually("no alert fires", DEADLINE, async || self.firing().await.is_empty()).await;
    }
}

/// Publishes 100 valid events a second; stops when dropped.
struct Traffic(Child);

impl Traffic {
    fn start(env: &TestEnv) -> Self {
        let arguments = ["publish", "--generate", "100000", "--rate", "100/s"];
        Traffic(env.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "takes two minutes: a part of `make chaos`"]
async fn only_the_alert_for_the_cause_fires() {
    let (broker, store) = (DedicatedServer::start(ServerKind::Rabbitmq), DedicatedServer::start(ServerKind::Mongodb));
    let env = TestEnv::on(&broker, &store).await;
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.push(("BROKER__DECLARE", "false"));
    let mut worker = env.worker_with(&settings).await;
    worker.wait_until_ready().await;
    let watch = AlertWatch::scraping(&worker);
    let traffic = Traffic::start(&env);
    eventually("events are stored", DEADLINE, async || worker.settled("stored") > 100).await;

    watch.wait_for_first_scrape().await;
    store.freeze(true);
    watch.only_fires("StoreUnavailable", &["Unready"]).await;
    store.freeze(false);
    watch.wait_until_none_fires().await;

    let (queue, dlx) = (env.dead_letter_queue(), format!("{}.dlx", env.name));
    let none = Default::default;
    env.channel.queue_unbind(queue.as_str().into(), dlx.as_str().into(), queue.as_str().into(), none()).await.unwrap();
    env.publish(&TestMessage::body("{\"user_id\":\"bad\"}")).await;
    watch.only_fires("DeadLetteringUnavailable", &["Unready"]).await;
    let options = Default::default();
    env.channel.queue_bind(queue.as_str().into(), dlx.into(), queue.into(), options, none()).await.unwrap();
    watch.wait_until_none_fires().await;

    let validator = |rule: Document| doc! { "collMod": "log", "validator": rule };
    let database = env.client.database(&env.name);
    database.run_command(validator(doc! { "never": true })).await.unwrap();
    // Until the breaker has enough outcomes to open, rejected events become dead letters.
    watch.only_fires("BreakerOpen", &["Unready", "DeadLetterRatio"]).await;
    database.run_command(validator(doc! {})).await.unwrap();
    watch.wait_until_none_fires().await;

    drop(traffic);
    broker.freeze(true);
    // The dead letters from before the breaker opened are in the window of the ratio for fifteen minutes.
    watch.only_fires("BrokerUnavailable", &["Unready", "DeadLetterRatio"]).await;
    broker.freeze(false);
    watch.wait_until_none_fires().await;

    worker.kill();
    watch.only_fires("Down", &[]).await;
}
