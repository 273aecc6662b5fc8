//! How a long operation reports on the terminal: notes, a progress bar, Ctrl-C.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use ticketlog_rabbitmq::report::Report;

use super::exit;
use super::terminal::note;

/// The notes so far: a command says each once, also if it reads a queue several times.
static NOTED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Reports to standard error.
pub(super) struct TerminalReport {
    bar: ProgressBar,
    has_bar: bool,
    stopped: AtomicBool,
}

impl TerminalReport {
    /// With a progress bar on standard error, if that is a terminal. `done` is what is counted, such as `published`.
    pub fn new(total: Option<u64>, done: &str) -> Arc<TerminalReport> {
        Arc::new(TerminalReport::with_bar(progress(total, done), true))
    }

    /// The same, with a bar that appears when the total is known.
    pub fn of_unknown_total(done: &str) -> Arc<TerminalReport> {
        let bar = progress(None, done);
        bar.set_draw_target(ProgressDrawTarget::hidden());
        Arc::new(TerminalReport::with_bar(bar, true))
    }

    fn with_bar(bar: ProgressBar, has_bar: bool) -> TerminalReport {
        TerminalReport { bar, has_bar, stopped: AtomicBool::new(false) }
    }

    /// Only notes.
    pub fn notes() -> Arc<dyn Report> {
        Arc::new(TerminalReport::with_bar(ProgressBar::hidden(), false))
    }

    /// With a bar for reading a queue of dead letters, which Ctrl-C ends at once.
    pub fn reading() -> Arc<dyn Report> {
        TerminalReport::of_unknown_total("read")
    }

    /// From now on the first SIGINT stops the operation gracefully, and the second ends the process.
    pub fn stopped_by_interrupt(self: Arc<Self>) -> Arc<Self> {
        // Not a strong one: the progress bar is cleared when the operation drops its report.
        let report = Arc::downgrade(&self);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                let running = report.upgrade().filter(|report| !report.stopped.swap(true, Ordering::Relaxed));
                let Some(report) = running else { std::process::exit(i32::from(exit::INTERRUPTED)) };
                report.note("stopping; a second interrupt ends it at once, which loses nothing");
            }
        });
        self
    }
}

impl Report for TerminalReport {
    fn note(&self, text: &str) {
        if NOTED.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned()) {
            self.bar.suspend(|| note(text));
        }
    }

    fn set_total(&self, total: u64) {
        if total > 0 {
            self.bar.set_length(total);
            if self.has_bar && self.bar.is_hidden() && std::io::stderr().is_terminal() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        }
    }

    fn set_done(&self, done: u64) {
        self.bar.set_position(done);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl Drop for TerminalReport {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A progress bar with a message behind it instead of its speed.
pub(super) fn progress_with_message(total: u64, done: &str) -> ProgressBar {
    let bar = progress(Some(total), done);
    match ProgressStyle::with_template(&format!("{{bar:30}} {{human_pos}}/{{human_len}} {done}  {{msg}}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A progress bar on standard error, if that is a terminal.
fn progress(total: Option<u64>, done: &str) -> ProgressBar {
    let bar = match total {
        _ if !std::io::stderr().is_terminal() => ProgressBar::hidden(),
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    let template = format!("{{bar:30}} {{human_pos}}/{{human_len}} {done}  {{rate}}  {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar
}
