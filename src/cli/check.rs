//! Owns `ticketlog check`: runs all checks and prints the findings.

use std::collections::BTreeSet;
use std::time::Duration;

use url::Url;

use crate::mongodb;
use ticketlog_config::finding::{Finding, Level};
use ticketlog_config::format::counted;
use ticketlog_config::{EffectiveSetting, RouteSettings, Source};
use ticketlog_contract::dead_letter::{escape, one_line};
use ticketlog_http::client as http_client;
use ticketlog_rabbitmq as rabbitmq;

#[cfg(feature = "desk")]
use super::end_to_end::EndToEndArgs;
use super::terminal::{after_printing, green, print_coloured, print_line, red, wrapped, yellow};
use super::worker_address::parse_http_url;
use super::{CommandError, ConfigArgs, exit};

const READINESS_TIMEOUT: Duration = Duration::from_secs(3);

/// What is checked of the connections, which are those of all routes.
const SHARED: [&str; 9] = [
    "broker.uri",
    "operator.broker_uri",
    "broker.management",
    "broker.exchange",
    "broker.allow_plaintext",
    "store.uri",
    "operator.store_uri",
    "store.allow_plaintext",
    "clock",
];

/// Flags of `ticketlog check`.
#[derive(Debug, clap::Args)]
#[cfg_attr(feature = "desk", command(after_help = super::end_to_end::HELP))]
pub struct CheckArgs {
    /// Print one JSON object: `{"ok": …, "findings": [{"level", "subject", "message", "fix", "milliseconds"}]}`.
    #[arg(long)]
    json: bool,
    /// RabbitMQ's management API, for bindings and policies [default: broker.management, or else http on port 15672 of the
    /// broker's host, unless broker.uri uses TLS].
    #[arg(long, value_name = "URL", value_parser = parse_http_url)]
    management: Option<Url>,
    /// The HTTP address of a worker, whose readiness is shown; repeatable.
    #[arg(long, value_name = "URL", value_parser = parse_http_url)]
    status: Vec<Url>,
    /// Check what operators' commands (dead, find, erase, console) need, with operator.broker_uri and operator.store_uri where these are
    /// set, instead of what the worker needs.
    #[arg(long)]
    operator: bool,
    #[cfg(feature = "desk")]
    #[command(flatten, next_help_heading = "Smoke test")]
    end_to_end: EndToEndArgs,
}

impl CheckArgs {
    /// With an invalid configuration, only its faults are reported.
    pub(super) fn run(&self, config: &ConfigArgs) -> Result<u8, CommandError> {
        let loaded = config.load();
        let routes = loaded.and_then(|mut loaded| Ok((origin(config, &loaded.effective), config.select(&mut loaded)?)));
        let (findings, failure_code) = match routes {
            #[cfg(feature = "desk")]
            Ok((_, routes)) if self.end_to_end.is_wanted() => self.check_end_to_end(routes)?,
            Ok((origin, routes)) => (self.check(origin, routes)?, exit::UNAVAILABLE),
            Err(CommandError { code, error }) => {
                let fix = "correct it; `ticketlog config --default` explains every setting";
                let text = format!("{error:#}");
                (text.lines().map(|line| Finding::fail("configuration", line, fix)).collect(), code)
            }
        };
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        let printed = if self.json {
            print_line(serde_json::json!({ "ok": worst < Level::Fail, "findings": findings }))
        } else {
            print(&findings)
        };
        after_printing(Ok(if worst == Level::Fail { failure_code } else { 0 }), printed)
    }

    fn check_management(&self, routes: &[RouteSettings]) -> Result<(), CommandError> {
        let fault = |settings: &RouteSettings| settings.broker.management_fault(self.management.as_ref()?);
        let fault = routes.iter().find_map(fault);
        fault.map_or(Ok(()), |fault| Err(CommandError::usage(format!("--management {fault}"))))
    }

    #[cfg(feature = "desk")]
    fn check_end_to_end(&self, routes: Vec<RouteSettings>) -> Result<(Vec<Finding>, u8), CommandError> {
        self.check_management(&routes)?;
        super::block_on(async { Ok(self.end_to_end.check(routes, self.management.as_ref()).await) })
    }

    fn check(&self, origin: Finding, routes: Vec<RouteSettings>) -> Result<Vec<Finding>, CommandError> {
        self.check_management(&routes)?;
        let mut findings = vec![origin];
        super::block_on(async {
            for settings in routes {
                let settings = if self.operator { settings.into_operator() } else { settings };
                for mut finding in self.check_route(&settings).await {
                    // What all routes share is said once.
                    if settings.has_several_routes() && !SHARED.contains(&finding.subject) {
                        finding.message = format!("route {}: {}", settings.name, finding.message);
                    }
                    if !findings.contains(&finding) {
                        findings.push(finding);
                    }
                }
            }
            for worker in &self.status {
                findings.push(readiness(worker).await);
            }
            Ok(findings)
        })
    }

    async fn check_route(&self, settings: &RouteSettings) -> Vec<Finding> {
        let mut findings = match rabbitmq::check_settings(&settings.broker) {
            Ok(()) => rabbitmq::check(settings, self.management.as_ref(), self.operator).await,
            Err(error) => {
                vec![Finding::fail(settings.broker.uri_setting, error.what(), error.fix().unwrap_or("correct it"))]
            }
        };
        findings.extend(mongodb::check(settings, self.operator).await);
        findings
    }
}

/// Where the settings come from: the first thing to know about any other finding.
fn origin(config: &ConfigArgs, effective: &[EffectiveSetting]) -> Finding {
    let mut from: Vec<String> = config.config_files.iter().map(|path| path.display().to_string()).collect();
    let variable = |setting: &EffectiveSetting| match &setting.source {
        Source::Environment(name) => Some(name.clone()),
        _ => None,
    };
    from.extend(effective.iter().filter_map(variable).collect::<BTreeSet<_>>());
    from.extend((!config.set.is_empty()).then(|| "--set".to_owned()));
    let subject = "configuration";
    if from.is_empty() {
        let fix = "name the worker's file with --config or TICKETLOG_CONFIG, or set its environment variables, unless these are meant";
        return Finding::warn(subject, "nothing was given: this checks the built-in defaults", fix);
    }
    Finding::ok(subject, format!("is valid, and comes from {}", from.join(", ")))
}

/// What `/readyz` of a worker says.
async fn readiness(worker: &Url) -> Finding {
    let subject = "worker";
    let fix = "the runbooks explain each component: docs/operate/runbooks/README.md";
    let Ok(url) = worker.join("/readyz") else { return Finding::fail(subject, "its address is not valid", fix) };
    match http_client::get(&url, None, None, READINESS_TIMEOUT).await {
        Err(reason) => Finding::fail(
            subject,
            format!("{worker} does not answer: {reason}"),
            "start the worker, or correct --status",
        ),
        Ok((status, body)) => {
            let text = one_line(&String::from_utf8_lossy(&body).trim_end().replace('\n', "; "), usize::MAX);
            match (status, text.as_str()) {
                (200, "ready") => Finding::ok(subject, format!("{worker} is ready")),
                (200, _) => Finding::warn(subject, format!("{worker} is {text}"), fix),
                _ => Finding::fail(subject, format!("{worker} is not ready: {text}"), fix),
            }
        }
    }
}

fn print(findings: &[Finding]) -> Result<(), CommandError> {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for finding in findings {
        let level = format!("{:<4}", finding.level.as_str());
        let level = match finding.level {
            Level::Ok => green(&level),
            Level::Warn => yellow(&level),
            Level::Fail => red(&level),
        };
        let message = escape(&finding.message);
        print_coloured(wrapped(&format!("{level}  {:width$}  {message}", finding.subject), width + 8))?;
        if let Some(fix) = &finding.fix {
            print_line(wrapped(&format!("{:4}  {:width$}  fix: {fix}", "", ""), width + 8))?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count() as u64;
    let (failures, warnings) = (count(Level::Fail), count(Level::Warn));
    print_line(format_args!(
        "{} ok, {}, {}",
        count(Level::Ok),
        counted(warnings, "warning"),
        counted(failures, "failure")
    ))
}
