//! Real faults, watched by a real Prometheus with the real alerts, whose minutes are seconds here: the one that names the
//! cause fires, the others stay quiet, and all end when it is mended.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use bson::{Document, doc};
use regex::Regex;
use url::Url;

use crate::harness::{Bed, Kind, Private, SHORT, SOON, Sent, Worker, eventually};

/// The alerts with every duration sixty times shorter.
fn hurried() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let duration = Regex::new(r"(for: |\[|:|offset )(\d+)([dhm])\b").unwrap();
    let hurried = duration.replace_all(&text, |found: &regex::Captures| {
        let minutes = match &found[3] {
            "d" => 1440,
            "h" => 60,
            _ => 1,
        };
        format!("{}{}s", &found[1], found[2].parse::<u32>().unwrap() * minutes)
    });
    hurried.into_owned()
}

struct Watch(Private);

impl Watch {
    fn of(worker: &Worker) -> Self {
        let target = worker.address().to_owned();
        Watch(Private::prepared(Kind::Prometheus, |directory, _| {
            std::fs::write(directory.join("alerts.yml"), hurried()).unwrap();
            let text = format!(
                "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [alerts.yml]\n\
                 scrape_configs: [{{ job_name: ticketlog, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
            );
            std::fs::write(directory.join("prometheus.yml"), text).unwrap();
        }))
    }

    async fn ask(&self, path: &str) -> serde_json::Value {
        let url = Url::parse(&self.0.uri()).unwrap().join(path).unwrap();
        let (_, body) = ticketlog::fetch::get(&url, None, Duration::from_secs(10)).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Prometheus takes its first look some seconds after its start, which are minutes here.
    async fn has_begun(&self) {
        let looked =
            async || !self.ask("/api/v1/query?query=up").await["data"]["result"].as_array().unwrap().is_empty();
        eventually("a first scrape", SOON, looked).await;
        self.is_quiet().await;
    }

    async fn firing(&self) -> BTreeSet<String> {
        let answer = self.ask("/api/v1/alerts").await;
        let alerts = answer["data"]["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().replace("Ticketlog", "")).collect()
    }

    /// Waits until `cause` fires; nothing may fire meanwhile that is neither that nor among `besides`.
    async fn names(&self, cause: &str, besides: &[&str]) {
        let mut fired = BTreeSet::new();
        eventually(cause, SOON, async || {
            fired.append(&mut self.firing().await);
            fired.contains(cause)
        })
        .await;
        fired.remove(cause);
        fired.retain(|alert| !besides.contains(&alert.as_str()));
        assert!(fired.is_empty(), "beside {cause}: {fired:?}");
    }

    async fn is_quiet(&self) {
        eventually("all is quiet", SOON, async || self.firing().await.is_empty()).await;
    }
}

/// A trickle of good events; ended when dropped.
struct Traffic(Child);

impl Traffic {
    fn into(bed: &Bed) -> Self {
        let arguments = ["publish", "--generate", "100000", "--rate", "100/s"];
        Traffic(bed.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
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
async fn the_alert_that_names_the_cause_fires_and_the_others_stay_quiet() {
    let (broker, store) = (Private::start(Kind::Rabbitmq), Private::start(Kind::Mongodb));
    let bed = Bed::on(&broker, &store).await;
    let mut settings = SHORT.to_vec();
    settings.push(("BROKER__DECLARE", "false"));
    let mut worker = bed.worker_with(&settings).await;
    worker.ready().await;
    let watch = Watch::of(&worker);
    let traffic = Traffic::into(&bed);
    eventually("traffic", SOON, async || worker.settled("stored") > 100).await;

    watch.has_begun().await;
    store.freeze(true);
    watch.names("StoreUnavailable", &["Unready"]).await;
    store.freeze(false);
    watch.is_quiet().await;

    let (queue, dlx) = (bed.dead_queue(), format!("{}.dlx", bed.name));
    let none = Default::default;
    bed.channel.queue_unbind(queue.as_str().into(), dlx.as_str().into(), queue.as_str().into(), none()).await.unwrap();
    bed.publish(&Sent::body("{\"user_id\":\"bad\"}")).await;
    watch.names("DeadLetteringUnavailable", &["Unready"]).await;
    let options = Default::default();
    bed.channel.queue_bind(queue.as_str().into(), dlx.into(), queue.into(), options, none()).await.unwrap();
    watch.is_quiet().await;

    let validator = |rule: Document| doc! { "collMod": "log", "validator": rule };
    let database = bed.client.database(&bed.name);
    database.run_command(validator(doc! { "never": true })).await.unwrap();
    // Until a hundred verdicts make a case, what is refused becomes dead letters.
    watch.names("BreakerOpen", &["Unready", "DeadLetterRatio"]).await;
    database.run_command(validator(doc! {})).await.unwrap();
    watch.is_quiet().await;

    drop(traffic);
    broker.freeze(true);
    watch.names("BrokerUnavailable", &["Unready"]).await;
    broker.freeze(false);
    watch.is_quiet().await;

    worker.kill();
    watch.names("Down", &[]).await;
}
