//! Owns the log: its form, its filter, and what never gets into it. Must not know what is worth logging.
//!
//! Drivers log messages and credentials. So whatever the filter says, only this crate's own events are written, and a
//! panic's text, which may hold a payload, is replaced by its place.

use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::{Log, LogFormat};

/// Exit code of a process that ended by a panic: `EX_SOFTWARE` of sysexits.
pub const PANIC_EXIT: i32 = 70;

/// Lines that wait for a reader of standard error that is slow; more are lost and counted. The room for them is taken at start.
const LINES: usize = 8_192;

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("log.filter is no filter; write for instance info, or info,ticketlog::broker=debug")]
pub struct FilterError;

/// Starts logging to standard error, for the whole process.
///
/// # Errors
/// A filter that cannot be read.
pub fn install(log: &Log) -> Result<Logging, FilterError> {
    let filter = EnvFilter::builder().parse(&log.filter).map_err(|_| FilterError)?;
    let own = filter_fn(|metadata| metadata.target() == "ticketlog" || metadata.target().starts_with("ticketlog::"));
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).finish(std::io::stderr());
    let lost = writer.error_counter();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if json {
        fmt::layer()
            .json()
            .log_internal_errors(false)
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .boxed()
    } else {
        fmt::layer().log_internal_errors(false).with_ansi(terminal).with_writer(writer).boxed()
    };
    let _ = tracing_subscriber::registry().with(layer.and_then(Count).with_filter(filter.and(own))).try_init();
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some((guard, lost));
    Ok(Logging(()))
}

/// The thread that writes what is logged. A reader that does not keep up loses lines, and holds up nothing.
static WRITER: Mutex<Option<(WorkerGuard, ErrorCounter)>> = Mutex::new(None);

/// Lines that were lost so far.
pub fn lost() -> u64 {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    writer.as_ref().map_or(0, |(_, lost)| lost.dropped_lines() as u64)
}

/// Counts what is logged.
struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        crate::metrics::logged(match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        });
    }
}

/// Logging is on; dropped, it writes the rest, as far as somebody reads it.
#[must_use]
pub struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

/// Writes what is still to be written, within about a second, and nothing after that: for a process that ends.
pub fn flush() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Makes any panic, in any thread, the end of the process: never half alive.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = "a panic: this is a bug; the process ends, unacknowledged messages return to the queue";
        if tracing::dispatcher::has_been_set() {
            tracing::error!(place, "{text}");
        } else {
            let _ = writeln!(std::io::stderr(), "ticketlog: {text} ({place})");
        }
        flush();
        std::process::exit(PANIC_EXIT);
    }));
}

/// Lets a repeated warning through once in a while, and counts what it held back.
#[derive(Debug)]
pub struct Sparingly {
    every: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Sparingly {
    /// At most one in `every`.
    pub const fn new(every: Duration) -> Self {
        Sparingly { every, state: Mutex::new((None, 0)) }
    }

    /// If this one may be written: how many were held back since the last.
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, held) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            *held += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test by itself: what the next one runs in a process of its own.
    #[test]
    fn child_of_a_panic() {
        if std::env::var_os("TICKETLOG_TEST_PANIC").is_none() {
            return;
        }
        let log = Log { format: LogFormat::Json, filter: "info".to_owned() };
        let logs = std::env::var_os("TICKETLOG_TEST_PANIC").is_some_and(|mode| mode == "logged");
        let _logging = logs.then(|| install(&log).unwrap());
        exit_on_panic();
        let panicking = std::thread::spawn(|| panic!("a payload: {}", 42));
        let _ = panicking.join();
        std::process::exit(0);
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_process_and_says_where_but_not_what() {
        for mode in ["logged", "silent"] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "telemetry::tests::child_of_a_panic", "--nocapture"]);
            let output = child.env("TICKETLOG_TEST_PANIC", mode).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(PANIC_EXIT), "{mode}: {text}");
            assert!(text.contains("a panic: this is a bug") && text.contains("telemetry.rs"), "{mode}: {text}");
            assert!(!text.contains("payload"), "{mode}: {text}");
        }
    }

    #[test]
    fn repeated_warnings_are_counted_not_written() {
        let (gate, start) = (Sparingly::new(Duration::from_secs(10)), Instant::now());
        assert_eq!(gate.allow(start), Some(0));
        assert_eq!(gate.allow(start + Duration::from_secs(5)), None);
        assert_eq!(gate.allow(start + Duration::from_secs(9)), None);
        assert_eq!(gate.allow(start + Duration::from_secs(11)), Some(2));
    }
}
