//! Jobs: what the console does in the background, how far it is, and how it ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;

use crate::{self as desk, Followed, Forecast, Park, Purge, Replay, Story};
use ticketlog_config::system::now_millis;
use ticketlog_rabbitmq::report::Report;

use super::access::Operator;
use super::query::DeadLetterQuery;
use super::sought::Sought;

/// Number of jobs kept, and of notes of each.
const MAX_JOBS: usize = 50;
const MAX_NOTES: usize = 50;
/// How often a request that waits for a job checks it, and a waiting job whether it was stopped.
pub(super) const POLL: Duration = Duration::from_millis(25);

/// What a job does.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Read the whole queue.
    Read,
    /// Read the queue up to one dead letter, for its body.
    Fetch(String),
    /// Predict a replay, with examples.
    Forecast(Replay),
    Replay(Replay),
    Park(Park),
    Purge(Purge),
    /// Look for one event.
    Find(Sought),
}

impl Task {
    /// In a word that continues `anna is …`.
    pub fn doing(&self) -> &'static str {
        match self {
            Task::Read => "reading the queue",
            Task::Fetch(_) => "reading the queue up to a dead letter",
            Task::Forecast(_) => "forecasting a replay",
            Task::Replay(_) => "replaying",
            Task::Park(park) if park.is_back => "unparking",
            Task::Park(_) => "parking",
            Task::Purge(_) => "purging",
            Task::Find(_) => "finding an event",
        }
    }

    /// Whether both do the same with the dead letters of one query.
    fn is_same(&self, other: &Task) -> bool {
        match (self, other) {
            (Task::Read, Task::Read) | (Task::Purge(_), Task::Purge(_)) => true,
            (Task::Fetch(id), Task::Fetch(other)) => id == other,
            (Task::Find(sought), Task::Find(other)) => sought == other,
            (Task::Park(park), Task::Park(other)) => park.is_back == other.is_back,
            (Task::Replay(replay), Task::Replay(other)) => {
                (&replay.edit, replay.skip_rejected, replay.rate, &replay.stop_after)
                    == (&other.edit, other.skip_rejected, other.rate, &other.stop_after)
            }
            _ => false,
        }
    }

    /// Whether it has parts of bodies: examples, or errors of an edit.
    fn holds_bodies(&self) -> bool {
        match self {
            Task::Forecast(_) => true,
            Task::Replay(replay) => replay.edit.is_some(),
            Task::Find(sought) => sought.with_bodies,
            _ => false,
        }
    }

    /// Whether dead letters leave the queue.
    pub fn changes_queue(&self) -> bool {
        matches!(self, Task::Replay(_) | Task::Park(_) | Task::Purge(_))
    }
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Somebody else uses the queue.
    Waiting,
    Running,
    Done,
    Failed(String),
}

/// What a job found or did.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Read {
        count: usize,
    },
    Found(bool),
    /// And whether a worker would tell what becomes of a replay.
    Forecast(Arc<Forecast>, bool),
    /// What a replay did, and what the workers have told so far.
    Replayed(Arc<desk::Outcome>, Followed),
    Operated(Arc<desk::Outcome>),
    /// What was found of an event.
    Story(Arc<Story>),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    notes: Vec<String>,
    outcome: Option<Outcome>,
    ended: Option<i64>,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub id: String,
    pub task: Task,
    pub query: DeadLetterQuery,
    pub who: String,
    /// Milliseconds since 1970.
    pub started: i64,
    state: Mutex<State>,
    done: AtomicU64,
    total: AtomicU64,
    stopped: AtomicBool,
}

impl Job {
    pub fn new(task: Task, query: DeadLetterQuery, who: String) -> Job {
        let state = State { phase: Phase::Running, notes: Vec::new(), outcome: None, ended: None };
        Job {
            id: ObjectId::new().to_hex(),
            task,
            query,
            who,
            started: now_millis(),
            state: Mutex::new(state),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// The title of its page.
    pub fn title(&self) -> &'static str {
        match &self.task {
            Task::Read => "Reading the queue",
            Task::Fetch(_) => "Reading the queue up to a dead letter",
            Task::Forecast(_) => "Forecast",
            Task::Replay(_) => "Replaying",
            Task::Park(park) if park.is_back => "Unparking",
            Task::Park(_) => "Parking",
            Task::Purge(_) => "Deleting",
            Task::Find(_) => "Finding an event",
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn phase(&self) -> Phase {
        self.state().phase.clone()
    }

    pub fn set_phase(&self, phase: Phase) {
        self.state().phase = phase;
    }

    pub fn finish(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.ended) = (phase, Some(now_millis()));
    }

    pub fn ended(&self) -> Option<i64> {
        self.state().ended
    }

    pub fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }

    pub fn outcome(&self) -> Option<Outcome> {
        self.state().outcome.clone()
    }

    pub fn set_outcome(&self, outcome: Outcome) {
        self.state().outcome = Some(outcome);
    }

    /// Messages processed, and to process.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Whoever is limited to one publisher sees jobs with the same limit. Reading a whole queue is done for all.
    pub fn is_visible_to(&self, operator: &Operator) -> bool {
        operator.publisher.is_none() || operator.publisher == self.query.only || matches!(self.task, Task::Read)
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it goes on and does exactly this, so that whoever asks for it again may join: a second press of a button.
    pub fn is_doing(&self, task: &Task, query: &DeadLetterQuery) -> bool {
        let is_read = matches!(task, Task::Read | Task::Fetch(_) | Task::Find(_));
        !self.is_stopped()
            && self.query.queue == query.queue
            && self.query.only == query.only
            && self.task.is_same(task)
            && (is_read || (self.query.limit == query.limit && self.query.fields() == query.fields()))
    }

    /// Whether nothing more will change.
    pub fn is_over(&self) -> bool {
        let state = self.state();
        let followed = !matches!(state.outcome, Some(Outcome::Replayed(_, Followed { is_over: false, .. })));
        state.ended.is_some() && followed
    }

    /// Waits until it has ended, at most `limit`; whether it has.
    pub async fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

impl Report for Job {
    fn note(&self, text: &str) {
        let mut state = self.state();
        if state.notes.len() < MAX_NOTES && !state.notes.iter().any(|note| note == text) {
            state.notes.push(text.to_owned());
        }
    }

    fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    fn set_done(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// The latest jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<VecDeque<Arc<Job>>>);

impl Jobs {
    pub fn add(&self, job: Arc<Job>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while jobs.len() >= MAX_JOBS {
            let Some(over) = jobs.iter().position(|job| job.is_over()) else { break };
            jobs.remove(over);
        }
        jobs.push_back(job);
    }

    pub fn find(&self, id: &str) -> Option<Arc<Job>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().find(|job| job.id == id).cloned()
    }

    /// Forgets those that hold parts of bodies and have ended before a time, in milliseconds since 1970.
    pub fn forget_bodies_before(&self, time: i64) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|job| !(job.task.holds_bodies() && job.is_over() && job.ended().is_some_and(|ended| ended < time)));
    }

    /// Those that have not ended, oldest first.
    pub fn running(&self) -> Vec<Arc<Job>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().filter(|job| job.ended().is_none()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::{Fields, QueueKind};
    use super::*;
    use crate::Source;
    use ticketlog_rabbitmq::BrowseOptions;

    fn job() -> Arc<Job> {
        Arc::new(Job::new(Task::Read, DeadLetterQuery::of_queue(QueueKind::DeadLetters), "anna".to_owned()))
    }

    #[test]
    fn what_is_asked_for_again_is_joined_unless_it_is_stopped_or_selects_others() {
        let query = |text: &str| DeadLetterQuery::read(&Fields::parse(text.as_bytes()), 2_000_000_000_000).unwrap();
        let source = Source { queue: "q".to_owned(), browse: BrowseOptions::default() };
        let purge =
            |query: &DeadLetterQuery| Task::Purge(Purge { selection: query.selection(source.clone()), backup: None });
        let replay = |skip_rejected| {
            let replay = Replay::new(query("field=a").selection(source.clone()), |_, _, _, _| None);
            Task::Replay(Replay { skip_rejected, ..replay })
        };
        let first = query("field=a&since=2h");
        let job = Job::new(purge(&first), first.clone(), "anna".to_owned());
        assert!(job.is_doing(&purge(&first), &query("field=a&since=2h&page=2")));
        for other in
            ["field=b&since=2h", "field=a&since=3h", "field=a&since=2h&limit=1", "field=a&since=2h&queue=parked"]
        {
            assert!(!job.is_doing(&purge(&first), &query(other)), "{other}");
        }
        assert!(!job.is_doing(&replay(false), &first) && !job.is_doing(&Task::Read, &first));
        let replaying = Job::new(replay(false), first.clone(), "anna".to_owned());
        assert!(replaying.is_doing(&replay(false), &first) && !replaying.is_doing(&replay(true), &first));
        let Task::Replay(slow) = replay(false) else { unreachable!() };
        let slow = Task::Replay(Replay { rate: "5/s".parse().ok(), ..slow });
        assert!(!replaying.is_doing(&slow, &first), "the rate that was asked for");
        // Somebody who may see one publisher's dead letters does not get the reading of all.
        let reading = Job::new(Task::Read, first.clone(), "anna".to_owned());
        let mut limited = first.clone();
        limited.only = Some("shop".to_owned());
        assert!(reading.is_doing(&Task::Read, &first) && !reading.is_doing(&Task::Read, &limited));
        job.stop();
        assert!(!job.is_doing(&purge(&first), &first));
    }

    #[test]
    fn the_oldest_jobs_that_are_over_are_forgotten() {
        let jobs = Jobs::default();
        let running = job();
        jobs.add(Arc::clone(&running));
        let first = job();
        first.finish(Phase::Done);
        jobs.add(Arc::clone(&first));
        for _ in 0..MAX_JOBS {
            let next = job();
            next.finish(Phase::Done);
            jobs.add(next);
        }
        assert!(jobs.find(&running.id).is_some() && jobs.find(&first.id).is_none());
        assert_eq!(jobs.running().len(), 1);
    }

    #[test]
    fn jobs_with_bodies_are_forgotten_in_time() {
        let jobs = Jobs::default();
        let queue = DeadLetterQuery::of_queue(QueueKind::DeadLetters);
        let source = Source { queue: "q".to_owned(), browse: BrowseOptions::default() };
        let forecast = Task::Forecast(Replay::new(queue.selection(source), |_, _, _, _| None));
        let forecast = Arc::new(Job::new(forecast, queue, "anna".to_owned()));
        for job in [&forecast, &job()] {
            jobs.add(Arc::clone(job));
            job.finish(Phase::Done);
        }
        let ended = forecast.ended().unwrap();
        jobs.forget_bodies_before(ended);
        assert!(jobs.find(&forecast.id).is_some());
        jobs.forget_bodies_before(ended + 1000);
        assert!(jobs.find(&forecast.id).is_none() && jobs.0.lock().unwrap().len() == 1);
    }

    #[test]
    fn a_replay_is_over_when_it_has_been_followed() {
        let job = job();
        let replayed = |is_over| Outcome::Replayed(Arc::default(), Followed { is_over, ..Followed::default() });
        job.set_outcome(replayed(false));
        job.finish(Phase::Done);
        assert!(!job.is_over());
        job.set_outcome(replayed(true));
        assert!(job.is_over());
    }
}
