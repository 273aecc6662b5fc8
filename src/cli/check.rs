//! Owns `ticketlog check`: everything that the worker needs, looked at once, each line with its fix. Changes nothing.
//! Must not know how anything is looked at.

use std::io::IsTerminal as _;

use url::Url;

use crate::broker;
use crate::config::Settings;
use crate::finding::{Finding, Level};
use crate::store;

use super::Fault;
use super::terminal::say;

/// Flags of `ticketlog check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// One JSON object: `{"ok": …, "findings": [{"level", "about", "said", "fix"}]}`.
    #[arg(long)]
    json: bool,
    /// RabbitMQ's management API, asked for bindings and policies. By default http on port 15672 of the broker, if that is
    /// not TLS.
    #[arg(long, value_name = "URL")]
    management: Option<Url>,
}

/// The exit code where something fails: unavailable.
const FAILS: u8 = 69;

impl Check {
    /// Without settings that hold together there is one line, and nothing else is looked at.
    pub(super) fn run(&self, settings: Result<Settings, Fault>) -> Result<u8, Fault> {
        let (findings, code) = match settings {
            Ok(settings) => (self.look(&settings)?, FAILS),
            Err(Fault { code, error }) => {
                let fix = "correct it; `ticketlog config --default` explains every setting";
                (vec![Finding::fail("configuration", format!("{error:#}"), fix)], code)
            }
        };
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        if self.json {
            say(serde_json::json!({ "ok": worst < Level::Fail, "findings": findings }))?;
        } else {
            print(&findings)?;
        }
        Ok(if worst == Level::Fail { code } else { 0 })
    }

    fn look(&self, settings: &Settings) -> Result<Vec<Finding>, Fault> {
        let mut findings = vec![Finding::ok("configuration", "holds together")];
        super::runtime()?.block_on(async {
            match broker::check_address(&settings.broker) {
                Ok(()) => findings.extend(broker::inspect(settings, self.management.as_ref()).await),
                Err(error) => findings.push(Finding::fail("broker.uri", error.to_string(), "correct it")),
            }
            findings.extend(store::inspect(&settings.store).await);
        });
        Ok(findings)
    }
}

fn print(findings: &[Finding]) -> Result<(), Fault> {
    let terminal = std::io::stdout().is_terminal();
    let width = findings.iter().map(|finding| finding.about.len()).max().unwrap_or(0);
    for finding in findings {
        let level = match (terminal, finding.level) {
            (false, level) => format!("{:<4}", level.as_str()),
            (true, Level::Ok) => "\x1b[32mok\x1b[0m  ".to_owned(),
            (true, Level::Warn) => "\x1b[33mwarn\x1b[0m".to_owned(),
            (true, Level::Fail) => "\x1b[31mfail\x1b[0m".to_owned(),
        };
        say(format_args!("{level}  {:width$}  {}", finding.about, finding.said))?;
        if let Some(fix) = &finding.fix {
            say(format_args!("{:4}  {:width$}  fix: {fix}", "", ""))?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    say(format_args!("{} ok, {} to know, {} to mend", count(Level::Ok), count(Level::Warn), count(Level::Fail)))
}
