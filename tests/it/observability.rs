//! Alerts, dashboards and metrics: the alerts pass their test cases, and every expression works in a real Prometheus
//! that scrapes a running worker.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use promql_parser::parser::{Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;
use url::Url;

use crate::harness::{DEADLINE, DedicatedServer, ServerKind, TestEnv, eventually};

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {printed}");
    printed
}

/// The names of the alerts.
fn alerts() -> Vec<String> {
    file("deploy/prometheus/alerts.yml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned))
        .collect()
}

#[test]
fn every_alert_is_tested_and_has_a_runbook() {
    for step in [["check", "rules"], ["test", "rules"]] {
        let file = if step[0] == "check" { "alerts.yml" } else { "alerts.test.yml" };
        run("deploy/local/services.sh", &["promtool", step[0], step[1], &format!("deploy/prometheus/{file}")]);
    }
    run("deploy/kubernetes/overlays/monitoring/prometheusrule.sh", &["--check"]);
    let cases = file("deploy/prometheus/alerts.test.yml");
    let alerts = alerts();
    assert!(alerts.len() >= 15);
    for alert in alerts {
        let quiet = format!("alertname: {alert} }}");
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(cases.contains(&quiet), "{alert} has no case in which it stays quiet");
        assert!(cases.contains(&fires), "{alert} has no case in which it fires");
        let page = file(&format!("docs/operate/runbooks/{alert}.md"));
        assert!(page.starts_with(&format!("# {alert}\n")), "{alert} has no runbook");
    }
}

#[test]
fn the_dashboards_are_generated_from_their_source() {
    run("python3", &["-B", "deploy/grafana/generate.py", "--check"]);
    let mut titles = BTreeSet::new();
    for (name, board) in dashboards() {
        assert!((39..=42).contains(&board["schemaVersion"].as_i64().unwrap()), "{name}");
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap();
            assert!(titles.insert(format!("{name}: {title}")), "{name} has two panels {title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 5), "{title} has no description");
            for link in panel["links"].as_array().unwrap() {
                let page = link["url"].as_str().unwrap().replace("${runbooks}", "docs/operate/runbooks");
                assert!(!file(&page).is_empty());
            }
        }
    }
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards");
    let boards: Vec<(String, Value)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect();
    assert_eq!(boards.len(), 4);
    boards
}

fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// An expression, after the name of the panel or rule that uses it.
type Placed = (String, String);

/// The expressions of all panels, and of all rules.
fn expressions() -> (Vec<Placed>, Vec<Placed>) {
    let mut shown = Vec::new();
    for (name, board) in dashboards() {
        let annotations = board["annotations"]["list"].as_array().unwrap().iter();
        let annotated = annotations.map(|one| (&one["name"], &one["expr"]));
        let targets = panels(&board).flat_map(|panel| {
            panel["targets"].as_array().unwrap().iter().map(|target| (&panel["title"], &target["expr"]))
        });
        for (title, expression) in annotated.chain(targets) {
            let expression = expression.as_str().unwrap().replace("$__rate_interval", "5s");
            let expression = expression.replace("$job", "ticketlog").replace("$instance", ".*").replace("$queue", ".*");
            assert!(!expression.contains('$'), "{expression}");
            shown.push((format!("{name}: {}", title.as_str().unwrap()), expression));
        }
    }
    (shown, rules())
}

fn rules() -> Vec<Placed> {
    let listed = run("deploy/local/services.sh", &["promtool", "check", "rules", "deploy/prometheus/alerts.yml"]);
    assert!(listed.contains("SUCCESS"), "{listed}");
    let text = file("deploy/prometheus/alerts.yml");
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim().strip_prefix("expr: ") else { continue };
        let mut whole = expression.trim_start_matches(">-").to_owned();
        while expression == ">-" && lines.peek().is_some_and(|next| next.starts_with("          ")) {
            whole += " ";
            whole += lines.next().unwrap().trim();
        }
        found.push((format!("rule {}", found.len() + 1), whole));
    }
    assert_eq!(found.len(), alerts().len() + 4);
    found
}

/// Collects the selectors of an expression.
#[derive(Default)]
struct Selectors(BTreeSet<String>);

impl ExprVisitor for Selectors {
    type Error = ();

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
        let selector = match expression {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        if let Some(VectorSelector { name, matchers, .. }) = selector {
            self.0.insert(format!("{}{{{matchers}}}", name.clone().unwrap_or_default()));
        }
        Ok(true)
    }
}

struct Prometheus(DedicatedServer);

impl Prometheus {
    fn scraping(workers: &[&str]) -> Self {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/alerts.yml");
        let targets: Vec<String> = workers.iter().map(|worker| format!("\"{worker}\"")).collect();
        let text = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [\"{}\"]\nscrape_configs:\n\
             - job_name: ticketlog\n  static_configs: [{{ targets: [{}] }}]\n",
            rules.display(),
            targets.join(", ")
        );
        Prometheus(DedicatedServer::prepared(ServerKind::Prometheus, |directory, _| {
            std::fs::write(directory.join("prometheus.yml"), text).unwrap();
        }))
    }

    /// The data of an answer. An error answer fails the test.
    async fn query(&self, path: &str, parameter: (&str, &str)) -> Value {
        let mut url = Url::parse(&self.0.uri()).unwrap().join(path).unwrap();
        url.query_pairs_mut().append_pair(parameter.0, parameter.1);
        let (status, body) = ticketlog_http::client::get(&url, None, None, Duration::from_secs(10)).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 200, "{parameter:?}: {answer}");
        answer["data"].clone()
    }

    async fn rows(&self, expression: &str) -> usize {
        self.query("/api/v1/query", ("query", expression)).await["result"].as_array().unwrap().len()
    }

    async fn has_series(&self, selector: &str) -> bool {
        !self.query("/api/v1/series", ("match[]", selector)).await.as_array().unwrap().is_empty()
    }
}

#[tokio::test]
async fn every_expression_uses_existing_series_and_every_panel_has_data() {
    let env = TestEnv::new().await;
    let receipts = format!("{}.receipts", env.name);
    let worker = env.worker_with(&[("BATCH__LINGER", "20ms"), ("DEAD_LETTER__RECEIPTS", &receipts)]).await;
    worker.wait_until_ready().await;
    let prometheus = Prometheus::scraping(&[worker.address()]);
    // Malformed events among valid ones, and a replay of dead letters, while Prometheus scrapes.
    let traffic = ["publish", "--generate", "5000", "--malformed", "3", "--rate", "500/s"];
    let mut publishing = env.command().args(traffic).stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("there are dead letters", DEADLINE, async || worker.settled("dead_lettered") > 20).await;
    let replayed = env.dead_command(&["replay", "--yes", "--limit", "10"]).await;
    assert_eq!(replayed.code, Some(0), "{replayed:?}");
    eventually("queue depths are exported", DEADLINE, async || {
        prometheus.rows("ticketlog_queue_messages{role=\"dead_letter\"} > 0").await > 0
    })
    .await;
    let (shown, rules) = expressions();
    let mut selectors = Selectors::default();
    for (place, expression) in shown.iter().chain(&rules) {
        let parsed = promql_parser::parser::parse(expression).unwrap_or_else(|error| panic!("{place}: {error}"));
        walk_expr(&mut selectors, &parsed).unwrap();
        prometheus.rows(expression).await;
    }
    // There is no such series while nothing fires.
    for selector in selectors.0.iter().filter(|selector| !selector.starts_with("ALERTS")) {
        eventually(selector, DEADLINE, async || prometheus.has_series(selector).await).await;
    }
    for (place, expression) in shown.iter().filter(|(_, expression)| !expression.starts_with("changes(")) {
        eventually(&format!("{place}: {expression}"), DEADLINE, async || prometheus.rows(expression).await > 0).await;
    }
    let active = prometheus.query("/api/v1/alerts", ("", "")).await;
    let firing: Vec<&Value> =
        active["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing").collect();
    assert!(firing.is_empty(), "{firing:#?}");
    publishing.wait().unwrap();
    env.clean().await;
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), worker.get("/metrics").1).unwrap();
    let check = format!("deploy/local/services.sh promtool check metrics < {}", text.path().display());
    assert_eq!(run("bash", &["-c", &check]), "");
    env.clean().await;
}
