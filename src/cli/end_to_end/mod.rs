//! `ticketlog check --end-to-end`: a smoke test. Its flags, its exit codes, and one check for each route.

mod dead_letters;
mod event;
mod missing;
mod steps;

use std::time::{Duration, Instant};

use clap::Args;
use url::Url;

use ticketlog_config::finding::{Finding, Level};
use ticketlog_config::{BrokerSettings, RouteSettings};
use ticketlog_rabbitmq::{self as rabbitmq, BrokerError};

use super::dead::AuditArgs;
use super::exit;
use crate::mongodb::Failure;

/// Shortest and longest time between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the help says about it.
pub(super) const HELP: &str = "\
--end-to-end is a smoke test, for after a deployment. What it publishes carries a mark, so it is not counted as latency, and \
what an interrupted check left is deleted by the next one. Other queues that are bound to the exchange get the event, too (header \
ticketlog-check). It needs the login of operators at RabbitMQ (operator.broker_uri), which the workers must trust \
(dead_letter.operators), and one at MongoDB that may find and remove (operator.store_uri, with the role ticketlogEraser).

Exit codes of --end-to-end say which side failed first:
  69  publishers: RabbitMQ does not answer, refuses the event, or has no queue for it
  75  workers: nothing was stored or dead-lettered within --timeout, or another check is running
  74  store: MongoDB does not answer, refuses the login, or rejects the event
  65  readers: an index is missing, or what was stored or dead-lettered is not what was published
  78  the configuration is not valid

Examples:
  ticketlog check
  ticketlog check --end-to-end --dead-letter
  ticketlog check --end-to-end --timeout 2min --json";

/// Flags of the smoke test.
#[derive(Debug, Args)]
pub(super) struct EndToEndArgs {
    /// Publish one marked event for each route instead, wait until a worker has stored it, read it through the readers' index, compare it
    /// and delete it. Uses the operators' logins.
    #[arg(long, conflicts_with_all = ["status", "operator"])]
    end_to_end: bool,
    /// Also publish one malformed event, wait until it is a dead letter, and delete that.
    #[arg(long, requires = "end_to_end")]
    dead_letter: bool,
    /// How long to wait for each step.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, requires = "end_to_end")]
    timeout: Duration,
    #[command(flatten)]
    audit: AuditArgs,
}

/// Pauses that grow, until a deadline.
struct Waiting {
    deadline: Instant,
    pause: Duration,
}

impl Waiting {
    fn new(timeout: Duration) -> Self {
        Waiting { deadline: Instant::now() + timeout, pause: FIRST_PAUSE }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// False, at once, if the time is over.
    async fn pause(&mut self) -> bool {
        let left = self.left();
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        !left.is_zero()
    }
}

/// Which part of the path an event takes has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The settings of a connection are not valid.
    Settings,
    /// RabbitMQ does not take the event, or routes it nowhere.
    Publisher,
    /// No worker has done its part in time.
    Worker,
    /// MongoDB does not answer, or refuses.
    Store,
    /// What was stored, or dead-lettered, cannot be read, or is not what was published.
    Reader,
}

impl Side {
    fn exit_code(self) -> u8 {
        match self {
            Side::Settings => exit::CONFIG,
            Side::Publisher => exit::UNAVAILABLE,
            Side::Worker => exit::TEMPORARY,
            Side::Store => exit::IO,
            Side::Reader => exit::DATA,
        }
    }
}

/// A step that failed.
struct Failed {
    side: Side,
    finding: Finding,
}

impl Failed {
    fn new(side: Side, subject: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Failed { side, finding: Finding::fail(subject, message, fix) }
    }

    /// RabbitMQ did not do what a step needs.
    fn of_broker(subject: &'static str, error: &BrokerError) -> Self {
        let fix = error.fix().unwrap_or("see RabbitMQ's log, and run it again");
        Failed::new(Side::Publisher, subject, error.what(), fix)
    }

    /// MongoDB did not do what a step needs.
    fn of_store(subject: &'static str, settings: &RouteSettings, failure: &Failure) -> Self {
        Failed::new(Side::Store, subject, failure.what(settings.store.uri_setting), failure.fix())
    }
}

impl EndToEndArgs {
    pub fn is_wanted(&self) -> bool {
        self.end_to_end
    }

    /// Checks one route after the other; the routes are those of the workers. Returns what was found, and the exit code of the first
    /// failure.
    pub async fn check(&self, routes: Vec<RouteSettings>, management: Option<&Url>) -> (Vec<Finding>, u8) {
        let _logging = routes.first().and_then(AuditArgs::log);
        let (mut all, mut code) = (Vec::new(), exit::UNAVAILABLE);
        for settings in routes {
            let several = settings.has_several_routes();
            let workers = settings.broker.clone();
            let settings = settings.into_operator();
            let mut findings: Vec<Finding> = untrusted_user(&settings, &workers).into_iter().collect();
            let ended = steps::check_route(self, &settings, &workers, management, &mut findings).await;
            if let Err(Failed { side, finding }) = ended {
                if all.iter().all(|finding: &Finding| finding.level < Level::Fail) {
                    code = side.exit_code();
                }
                findings.push(finding);
            }
            for finding in findings.iter_mut().filter(|_| several) {
                finding.message = format!("route {}: {}", settings.name, finding.message);
            }
            all.append(&mut findings);
        }
        (all, code)
    }
}

/// The warning that the workers of these settings will take the event for traffic.
fn untrusted_user(settings: &RouteSettings, workers: &BrokerSettings) -> Option<Finding> {
    let user = rabbitmq::user_name(&settings.broker)?;
    let is_trusted =
        settings.dead_letter.operators.contains(&user) || rabbitmq::user_name(workers).as_ref() == Some(&user);
    let message = format!("the workers do not trust user {user}, so the event counts as traffic in their metrics");
    (!is_trusted).then(|| Finding::warn("publish", message, format!("add {user} to dead_letter.operators")))
}
