//! Owns publishing many messages from the command line: windows, pace, progress, and what became of each.
//! Must not know where they come from.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::broker::{BrokerError, Confirmed, Outgoing, Publisher};
use crate::config::{self, Settings};

use super::Fault;
use super::terminal::note;

/// Messages published before their confirms are awaited, and bytes of their bodies.
const WINDOW: usize = 500;
const WINDOW_BYTES: usize = 4 << 20;

/// What was done so far.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    /// Messages whose fate is known.
    pub published: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// No queue is bound for them.
    pub returned: u64,
    /// A full queue.
    pub refused: u64,
}

impl Tally {
    /// Messages that the broker has.
    pub fn confirmed(&self) -> u64 {
        self.published - self.returned - self.refused
    }
}

/// A publisher at work. `T` travels along with each message.
pub(super) struct Carrier<T> {
    broker: config::Broker,
    publisher: Publisher,
    window: Vec<(Outgoing, T)>,
    bytes: usize,
    pace: Option<f64>,
    /// Whether a message that ends the channel is set aside, and the others go on.
    singly: bool,
    started: Instant,
    /// When the next window is due, with a pace. Time that was not used is not made up for.
    next: Instant,
    bar: ProgressBar,
    pub tally: Tally,
}

/// A progress bar on standard error, where that is a terminal.
pub(super) fn progress(total: Option<u64>, done: &str) -> ProgressBar {
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

fn blocked() {
    note("the broker blocks publishers (a memory or disk alarm); waiting");
}

impl<T> Carrier<T> {
    /// At most `pace` messages a second.
    pub fn new(settings: &Settings, publisher: Publisher, pace: Option<f64>, bar: ProgressBar) -> Self {
        Carrier {
            broker: settings.broker.clone(),
            next: Instant::now(),
            publisher,
            window: Vec::with_capacity(WINDOW),
            bytes: 0,
            pace,
            singly: false,
            started: Instant::now(),
            bar,
            tally: Tally::default(),
        }
    }

    /// Messages come from many hands: one that the broker does not take must not stop the others.
    pub fn of_many(self) -> Self {
        Carrier { singly: true, ..self }
    }

    /// Takes in a message; what comes back are messages whose fate is known now.
    pub async fn push(&mut self, outgoing: Outgoing, about: T) -> Result<Vec<(T, Confirmed)>, Fault> {
        self.bytes += outgoing.bytes();
        self.window.push((outgoing, about));
        // With a pace, a window is what is due within about a fifth of a second.
        let size = self.pace.map_or(WINDOW, |pace| (pace / 5.0).clamp(1.0, WINDOW as f64) as usize);
        if self.window.len() >= size || self.bytes >= WINDOW_BYTES { self.flush().await } else { Ok(Vec::new()) }
    }

    /// Publishes what waits.
    pub async fn flush(&mut self) -> Result<Vec<(T, Confirmed)>, Fault> {
        if self.window.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(pace) = self.pace {
            tokio::time::sleep_until(self.next.into()).await;
            self.next = Instant::now() + Duration::from_secs_f64(self.window.len() as f64 / pace);
        }
        let (mut messages, about): (Vec<_>, Vec<_>) = self.window.drain(..).unzip();
        let verdicts = match self.publisher.publish(&mut messages, blocked).await {
            Ok(verdicts) => verdicts,
            Err(BrokerError::Topology(_) | BrokerError::Closed(_)) if self.singly => {
                self.publish_singly(messages).await?
            }
            Err(error) => return Err(error.into()),
        };
        for verdict in &verdicts {
            match verdict {
                Confirmed::Stored => {}
                Confirmed::Returned => self.tally.returned += 1,
                Confirmed::Refused => self.tally.refused += 1,
            }
        }
        self.tally.published += verdicts.len() as u64;
        self.tally.bytes += self.bytes as u64;
        self.bytes = 0;
        self.bar.set_position(self.tally.published);
        Ok(about.into_iter().zip(verdicts).collect())
    }

    /// One of them ended the channel: a missing right, a size that the broker does not take. The others must not suffer.
    async fn publish_singly(&mut self, messages: Vec<Outgoing>) -> Result<Vec<Confirmed>, Fault> {
        let mut verdicts = Vec::with_capacity(messages.len());
        self.publisher = Publisher::plain(&self.broker, "publish again").await?;
        for message in messages {
            match self.publisher.publish(&mut [message], blocked).await {
                Ok(verdict) => verdicts.extend(verdict),
                Err(error @ (BrokerError::Topology(_) | BrokerError::Closed(_))) => {
                    note(format_args!("the broker does not take a message: {error}"));
                    verdicts.push(Confirmed::Refused);
                    self.publisher = Publisher::plain(&self.broker, "publish again").await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(verdicts)
    }

    /// Whether an exchange is there.
    pub async fn exchange_exists(&self, name: &str) -> Result<bool, Fault> {
        Ok(self.publisher.exchange_exists(name).await?)
    }

    /// Ends it; all must be flushed. How long it took.
    pub async fn close(self) -> (Tally, Duration) {
        self.bar.finish_and_clear();
        self.publisher.close().await;
        (self.tally, self.started.elapsed())
    }
}
