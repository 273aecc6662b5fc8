//! Owns the log: its format, its filter, and what must never be logged.
//!
//! The drivers log message bodies and credentials. So only events of this crate are written, whatever the filter says, and
//! the text of a panic, which may hold a payload, is replaced by its source location.

use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use ticketlog_config::system;
use ticketlog_config::{LogFormat, LogSettings};

/// Exit code after a panic: `EX_SOFTWARE` of sysexits.
pub const PANIC_EXIT_CODE: i32 = 70;

/// Most lines buffered while standard error is read slowly; further ones are lost and counted. Allocated at start.
const BUFFERED_LINES: usize = 8_192;

/// A filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("log.filter is not a valid filter; write for instance info, or warn,ticketlog::worker=info")]
pub struct FilterError;

/// Starts logging to standard error, for the whole process.
///
/// # Errors
/// A filter that cannot be parsed.
pub fn install(log: &LogSettings) -> Result<Logging, FilterError> {
    let filter = EnvFilter::builder().parse(&log.filter).map_err(|_| FilterError)?;
    let own = filter_fn(|metadata| is_own(metadata.target()));
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(BUFFERED_LINES).finish(std::io::stderr());
    let lost = writer.error_counter();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if json {
        fmt::layer()
            .json()
            .log_internal_errors(false)
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(writer)
            .boxed()
    } else {
        fmt::layer().log_internal_errors(false).with_ansi(system::has_colours(terminal)).with_writer(writer).boxed()
    };
    let _ = tracing_subscriber::registry().with(layer.and_then(LineCounter).with_filter(filter.and(own))).try_init();
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some((guard, lost));
    Ok(Logging(()))
}

/// The guard of the thread that writes the log, and its count of lost lines. If standard error is read too slowly, lines are
/// lost, and nothing is blocked.
static WRITER: Mutex<Option<(WorkerGuard, ErrorCounter)>> = Mutex::new(None);

/// Number of lines lost so far.
pub fn lines_lost() -> u64 {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    writer.as_ref().map_or(0, |(_, lost)| lost.dropped_lines() as u64)
}

/// Counts lines by level.
struct LineCounter;

impl<S: Subscriber> Layer<S> for LineCounter {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        super::metrics::log_line(match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        });
    }
}

/// Logging is on while this exists. When it is dropped, buffered lines are written as by [`flush`].
#[must_use]
pub struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

/// Writes buffered lines, for about a second at most. Later lines are lost: call it only when the process ends.
pub fn flush() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Makes a panic in any thread end the process with [`PANIC_EXIT_CODE`].
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = "a panic, which is a bug: the process ends, and unacknowledged messages return to the queue";
        if tracing::dispatcher::has_been_set() {
            tracing::error!(location, "{text}");
        } else {
            let _ = writeln!(std::io::stderr(), "ticketlog: {text} ({location})");
        }
        flush();
        std::process::exit(PANIC_EXIT_CODE);
    }));
}

/// Permits a repeated warning once per interval, and counts the suppressed ones.
#[derive(Debug)]
pub struct LogThrottle {
    interval: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogThrottle {
    /// Permits at most one line in `interval`.
    pub const fn new(interval: Duration) -> Self {
        LogThrottle { interval, state: Mutex::new((None, 0)) }
    }

    /// Whether the line may be written: if so, how many were suppressed since the last one.
    pub fn permit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            *suppressed += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(suppressed))
    }
}

/// Whether a target is a module of this program, in whichever of its crates.
fn is_own(target: &str) -> bool {
    target.strip_prefix("ticketlog").is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test of its own: the next test runs it in a child process.
    #[test]
    fn panicking_child() {
        if std::env::var_os("TICKETLOG_TEST_PANIC").is_none() {
            return;
        }
        let log = LogSettings { format: LogFormat::Json, filter: "info".to_owned() };
        let is_logged = std::env::var_os("TICKETLOG_TEST_PANIC").is_some_and(|mode| mode == "logged");
        let _logging = is_logged.then(|| install(&log).unwrap());
        exit_on_panic();
        let panicking = std::thread::spawn(|| panic!("a payload: {}", 42));
        let _ = panicking.join();
        std::process::exit(0);
    }

    #[test]
    fn a_panic_ends_the_process_and_shows_its_location_but_not_its_text() {
        for mode in ["logged", "silent"] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "observe::logging::tests::panicking_child", "--nocapture"]);
            let output = child.env("TICKETLOG_TEST_PANIC", mode).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(PANIC_EXIT_CODE), "{mode}: {text}");
            assert!(text.contains("a panic, which is a bug") && text.contains("logging.rs"), "{mode}: {text}");
            assert!(!text.contains("payload"), "{mode}: {text}");
        }
    }

    #[test]
    fn repeated_warnings_are_suppressed_and_counted() {
        let (throttle, start) = (LogThrottle::new(Duration::from_secs(10)), Instant::now());
        assert_eq!(throttle.permit(start), Some(0));
        assert_eq!(throttle.permit(start + Duration::from_secs(5)), None);
        assert_eq!(throttle.permit(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.permit(start + Duration::from_secs(11)), Some(2));
    }
}
