//! Owns the bad messages until their dead letters are confirmed: what waits, what is held by the breaker, and the one
//! publish under way. Must not know acks: it hands back the deliveries that may be settled.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use tracing::{info, warn};

use crate::broker::{BrokerError, Confirmed, Delivery, Outgoing, Publisher};
use crate::dead_letter::{self, Origin};
use crate::event::{Reason, Rejection};
use crate::health::Part;
use crate::metrics;
use crate::recent::Seen;
use crate::retry::Delays;
use crate::telemetry::Sparingly;

use super::Context;
use super::intake::now_millis;

/// Most dead letters published before their confirms are awaited, and most bytes of them.
const WINDOW: usize = 64;
const WINDOW_BYTES: usize = 1 << 20;

static REPEATED: Sparingly = Sparingly::new(Duration::from_secs(10));
static REJECTED: Sparingly = Sparingly::new(Duration::from_secs(1));

/// A dead letter that is ready to be published, and the delivery that may be settled afterwards.
pub struct Letter {
    /// The delivery's tag.
    pub tag: u64,
    /// The delivery's bytes.
    pub bytes: usize,
    /// Why it is one.
    pub reason: Reason,
    /// What `/status` tells of it once it is one.
    pub seen: Seen,
    /// The replay that the message came from.
    pub replay: Option<String>,
    outgoing: Outgoing,
}

impl Letter {
    /// Writes the dead letter of a delivery.
    pub fn new(context: &Context, delivery: Delivery, rejection: &Rejection) -> Self {
        let settings = &context.settings;
        let id = ObjectId::new().to_hex();
        let replay = delivery.replay(&context.logins);
        let origin = Origin {
            exchange: delivery.exchange(),
            routing_key: delivery.routing_key(),
            queue: &settings.broker.queue,
            worker: &context.worker,
            replay: replay.as_ref(),
            user_id: delivery.user_id(),
        };
        let headers = dead_letter::headers(rejection, &origin, &id, now_millis());
        if let Some(held) = REJECTED.allow(Instant::now()) {
            let (reason, detail) = (rejection.reason.as_str(), rejection.detail.as_ref());
            warn!(reason, detail, dl_id = id, more_since_last = held, "a message is malformed");
        }
        let (tag, bytes) = (delivery.tag, delivery.body.len());
        let dead = &settings.dead_letter;
        let outgoing = delivery.into_dead_letter(&dead.exchange, &dead.queue, headers);
        let seen = Seen { id, time: now_millis(), cause: rejection.cause(), detail: rejection.detail.to_string() };
        Letter { tag, bytes, reason: rejection.reason, seen, replay: replay.map(|replay| replay.id), outgoing }
    }
}

/// A publish that came to its end.
struct Published {
    publisher: Option<Publisher>,
    confirmed: Vec<Letter>,
    again: Vec<Letter>,
    trouble: Option<String>,
}

type Publishing = Pin<Box<dyn Future<Output = Published>>>;

/// The dead letters of one session, and the publisher, which outlives it.
pub struct DeadLetters {
    context: Arc<Context>,
    waiting: VecDeque<Letter>,
    publisher: Option<Publisher>,
    publishing: Option<(Publishing, usize)>,
    delays: Delays,
    not_before: Instant,
    /// After a failure dead letters go one at a time, so that one that cannot be published does not hold up the others.
    alone: bool,
}

impl DeadLetters {
    /// None yet; the connection is made when the first one comes.
    pub fn new(context: Arc<Context>) -> Self {
        let delays = Delays::new(context.policy());
        DeadLetters {
            context,
            waiting: VecDeque::new(),
            publisher: None,
            publishing: None,
            delays,
            not_before: Instant::now(),
            alone: false,
        }
    }

    /// Takes in a dead letter.
    pub fn push(&mut self, letter: Letter) {
        self.waiting.push_back(letter);
    }

    /// How many are not confirmed.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.publishing.as_ref().map_or(0, |(_, count)| *count)
    }

    /// The session is over: its dead letters are void. A publish under way is dropped with its connection.
    pub fn forget(&mut self) {
        self.waiting.clear();
        self.publishing = None;
    }

    /// Waits for confirmed dead letters, publishing what waits meanwhile. Cancel safe.
    pub async fn next(&mut self) -> Vec<Letter> {
        loop {
            if self.publishing.is_none() {
                if self.waiting.is_empty() {
                    return pending().await;
                }
                tokio::time::sleep_until(self.not_before.into()).await;
                self.start();
            }
            let Some((publishing, _)) = &mut self.publishing else { continue };
            let published = publishing.await;
            self.publishing = None;
            let confirmed = self.finish(published);
            if !confirmed.is_empty() {
                return confirmed;
            }
        }
    }

    fn start(&mut self) {
        let mut window = Vec::new();
        let mut bytes = 0;
        let most = if self.alone { 1 } else { WINDOW };
        while window.len() < most
            && (window.is_empty() || bytes < WINDOW_BYTES)
            && let Some(letter) = self.waiting.pop_front()
        {
            bytes += letter.bytes;
            window.push(letter);
        }
        let count = window.len();
        let publishing = publish(Arc::clone(&self.context), self.publisher.take(), window);
        self.publishing = Some((Box::pin(publishing), count));
    }

    fn finish(&mut self, published: Published) -> Vec<Letter> {
        self.publisher = published.publisher;
        let failed_alone = self.alone && published.trouble.is_some();
        self.alone = published.trouble.is_some();
        for letter in published.again.into_iter().rev() {
            if failed_alone {
                self.waiting.push_back(letter);
            } else {
                self.waiting.push_front(letter);
            }
        }
        let health = &self.context.health;
        match published.trouble {
            None => {
                self.delays.reset();
                if health.up(Part::DeadLetter) {
                    info!("dead letters are published again");
                }
            }
            Some(trouble) => {
                self.not_before = Instant::now() + self.delays.draw();
                let news = health.down(Part::DeadLetter, format!("dead_letter_unavailable: {trouble}"));
                if news || REPEATED.allow(Instant::now()).is_some() {
                    warn!(
                        waiting = self.waiting.len(),
                        "dead_letter_unavailable: {trouble}; the originals stay in the queue"
                    );
                }
            }
        }
        published.confirmed
    }
}

/// Publishes a window. On any failure the publisher is given up; what is not confirmed is published again later.
async fn publish(context: Arc<Context>, publisher: Option<Publisher>, mut window: Vec<Letter>) -> Published {
    let settings = &context.settings;
    let opened = match publisher {
        Some(publisher) => Ok(publisher),
        None => Publisher::open(&settings.broker, &settings.dead_letter, "dead letters")
            .await
            .inspect(|_| metrics::publisher_opened()),
    };
    let mut publisher = match opened {
        Ok(publisher) => publisher,
        Err(error) => return failed(window, &error),
    };
    let mut outgoing: Vec<Outgoing> = Vec::with_capacity(window.len());
    let mut about = Vec::with_capacity(window.len());
    for letter in window.drain(..) {
        let Letter { tag, bytes, reason, seen, replay, outgoing: message } = letter;
        about.push(move |outgoing| Letter { tag, bytes, reason, seen, replay, outgoing });
        outgoing.push(message);
    }
    let blocked = || {
        let text = "dead_letter_unavailable: the broker blocks publishers (a memory or disk alarm)";
        if context.health.down(Part::DeadLetter, text) {
            warn!("{text}; the originals stay in the queue");
        }
    };
    let answer = publisher.publish(&mut outgoing, blocked).await;
    let letters = about.into_iter().zip(outgoing).map(|(letter, outgoing)| letter(outgoing));
    match answer {
        Ok(verdicts) => sort(publisher, letters.collect(), &verdicts),
        Err(error) => failed(letters.collect(), &error),
    }
}

fn failed(again: Vec<Letter>, error: &BrokerError) -> Published {
    metrics::dead_letter_failure("error");
    Published { publisher: None, confirmed: Vec::new(), again, trouble: Some(error.to_string()) }
}

fn sort(publisher: Publisher, letters: Vec<Letter>, verdicts: &[Confirmed]) -> Published {
    let mut published =
        Published { publisher: Some(publisher), confirmed: Vec::new(), again: Vec::new(), trouble: None };
    for (letter, verdict) in letters.into_iter().zip(verdicts) {
        let (cause, trouble) = match verdict {
            Confirmed::Stored => {
                metrics::dead_letter(letter.reason);
                published.confirmed.push(letter);
                continue;
            }
            Confirmed::Returned => {
                ("returned", "the dead-letter exchange has no queue bound for it; run `ticketlog setup`")
            }
            Confirmed::Refused => ("refused", "the dead-letter queue refuses messages: is it full?"),
        };
        metrics::dead_letter_failure(cause);
        published.trouble = Some(trouble.to_owned());
        published.again.push(letter);
    }
    if published.trouble.is_some() {
        // Opening a publisher declares the topology, which may be all that is missing.
        published.publisher = None;
    }
    published
}
