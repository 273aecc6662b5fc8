//! Ends a replay when too many of its messages have been dead-lettered again: asks the workers while it sends, and sends no more than
//! they keep up with.

use std::time::{Duration, Instant};

use url::Url;

use ticketlog_rabbitmq::report::Report;

use super::follow::{Follow, Followed};
use super::transfer::Transfer;
use super::{DeskError, Replay};
use ticketlog_config::RouteSettings;
use ticketlog_config::format::seconds;

/// How long to wait before the workers are asked again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// When a replay ends early, and who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopAfter {
    /// It ends when as many have been dead-lettered again; not 0. No more than this are on their way at a time, so fewer than twice
    /// as many are dead-lettered again.
    pub count: u64,
    /// The HTTP addresses of workers.
    pub workers: Vec<Url>,
    /// How long to wait for an outcome.
    pub patience: Duration,
}

/// Why a replay ended early. The rest is in the queue as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedEarly {
    /// As many were dead-lettered again.
    DeadLetteredAgain(u64),
    /// The workers tell no outcome.
    NoOutcome(Duration),
}

impl EndedEarly {
    /// For the operator.
    pub fn to_text(self) -> String {
        match self {
            EndedEarly::DeadLetteredAgain(count) => {
                format!("ended early: {count} were dead-lettered again. The rest is in the queue as it was")
            }
            EndedEarly::NoOutcome(patience) => format!(
                "ended early: no worker has told an outcome for {}, so it is not known what becomes of them. The rest is in the queue \
                 as it was. Name the workers (--status, --worker) and list this login in dead_letter.operators, or replay without a \
                 limit of those that are dead-lettered again",
                seconds(patience.as_secs_f64())
            ),
        }
    }
}

/// Decides before each message whether it may be sent.
pub(super) struct Gate<'a> {
    follow: Follow<'a>,
    count: u64,
    known: Followed,
    /// Messages that were sent, or wait in the publisher's batch.
    sent: u64,
}

impl<'a> Gate<'a> {
    pub fn new(replay: &'a Replay, settings: &'a RouteSettings) -> Option<Gate<'a>> {
        let StopAfter { count, workers, patience } = replay.stop_after.as_ref()?;
        let (queue, replay_id, patience) = (settings.queue.as_str(), replay.id.as_str(), *patience);
        let follow = Follow { workers, queue, replay_id, expected: 0, patience };
        Some(Gate { follow, count: *count, known: Followed::default(), sent: 0 })
    }

    fn on_their_way(&self) -> u64 {
        self.sent.saturating_sub(self.known.known())
    }

    /// Whether the next one may be sent. Waits while too many are on their way. The outcome of the transfer says why not.
    ///
    /// # Errors
    /// RabbitMQ did not take what was sent before.
    pub async fn admits(&mut self, transfer: &mut Transfer<'_>, report: &dyn Report) -> Result<bool, DeskError> {
        self.sent += 1;
        if self.on_their_way() <= self.count {
            return Ok(true);
        }
        // Only what RabbitMQ has confirmed has an outcome one day.
        transfer.flush().await?;
        self.sent = transfer.progress.outcome.count;
        let ended = self.wait(report).await;
        transfer.progress.outcome.ended_early = ended;
        self.sent += 1;
        Ok(ended.is_none() && !report.is_stopped())
    }

    /// Waits until half of what may be on its way has an outcome.
    async fn wait(&mut self, report: &dyn Report) -> Option<EndedEarly> {
        let (mut last_news, mut pause) = (Instant::now(), FIRST_PAUSE);
        while !report.is_stopped() {
            if self.known.learn(self.follow.ask().await) {
                (last_news, pause) = (Instant::now(), FIRST_PAUSE);
            }
            let again = self.known.dead_lettered_again();
            if again >= self.count {
                return Some(EndedEarly::DeadLetteredAgain(again));
            }
            if self.on_their_way() <= self.count / 2 {
                return None;
            }
            if last_news.elapsed() >= self.follow.patience {
                return Some(EndedEarly::NoOutcome(self.follow.patience));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        None
    }
}
