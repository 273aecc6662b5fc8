//! Owns what the jobs of the console do, through the desk: reading a queue, forecasting, replaying, parking, purging. Must not
//! know pages.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;
use tokio::sync::MutexGuard;
use tokio::time::timeout;

use crate::dead_letter::Filter;
use crate::desk::{self, Audit, DeskError, LetterReader, Park, Purge, Replay, Selection};
use crate::report::Report;
use crate::system::now_millis;

use super::details::Detail;
use super::jobs::{Job, Outcome, POLL, Phase, Task};
use super::pages::Problem;
use super::query::{LetterQuery, QueueKind};
use super::snapshot::SnapshotBuilder;
use super::{Console, QueueState};

/// Dead letters of each group that are held with their bodies, up to this many bytes each.
const EXAMPLES: u32 = 10;
const MAX_EXAMPLE_BYTES: usize = 64 << 10;
/// How often the workers are asked what became of a replay, and how long without news.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
const FOLLOW_PATIENCE: Duration = Duration::from_secs(60);
const FOLLOW_LIMIT: Duration = Duration::from_secs(600);
/// A queue with at most this many is read again by itself after a change.
pub(super) const MAX_UNASKED_LOOK: usize = 20_000;

/// Starts a job, or joins an equal one that changes nothing.
///
/// # Errors
/// Too many jobs wait.
pub(super) fn start(
    console: &Arc<Console>,
    task: Task,
    query: LetterQuery,
    who: &str,
) -> Result<Arc<Job>, TooManyJobs> {
    let running = console.jobs.running();
    let is_equal = |job: &&Arc<Job>| job.query.queue == query.queue && job.task.is_same_reading(&task);
    if let Some(job) = running.iter().find(is_equal) {
        return Ok(Arc::clone(job));
    }
    if running.len() >= MAX_WAITING {
        return Err(TooManyJobs);
    }
    let job = Arc::new(Job::new(task, query, who.to_owned()));
    console.jobs.add(Arc::clone(&job));
    tokio::spawn(run(Arc::clone(console), Arc::clone(&job)));
    Ok(job)
}

/// Most jobs that run or wait.
const MAX_WAITING: usize = 20;

/// Too many jobs wait.
#[derive(Debug)]
pub(super) struct TooManyJobs;

impl From<TooManyJobs> for Problem {
    fn from(_: TooManyJobs) -> Self {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "Too many jobs wait for the queue; try again when some have ended.")
    }
}

/// Starts to read the whole queue, or joins somebody who does.
pub(super) fn look(console: &Arc<Console>, queue: QueueKind, who: &str) -> Result<Arc<Job>, TooManyJobs> {
    start(console, Task::Look, LetterQuery::of_queue(queue), who)
}

async fn run(console: Arc<Console>, job: Arc<Job>) {
    let queue = console.queue(job.query.queue);
    job.set_phase(Phase::Waiting);
    let Some(turn) = wait_for_turn(queue, &job).await else {
        job.finish(Phase::Failed(DeskError::Stopped.to_string()));
        return;
    };
    queue.set_holder(Some(format!("{} is {}", job.who, job.task.doing())));
    job.set_phase(Phase::Running);
    let performed = perform(&console, &job).await;
    queue.set_holder(None);
    drop(turn);
    match performed {
        Ok(outcome) => {
            job.set_outcome(outcome);
            job.finish(Phase::Done);
        }
        Err(error) => job.finish(Phase::Failed(error.to_string())),
    }
    if job.task.changes_queue() {
        if job.is_stopped() {
            job.note("It was stopped before its end: the rest is in the queue as it was.");
        }
        let affected = affected(&job);
        affected.iter().for_each(|queue| {
            console.queue(*queue).set_stale(format!("{} was {}", job.who, job.task.doing()));
        });
        follow(&console, &job).await;
        look_again(&console, &job, &affected);
    }
}

/// The turn at a queue; none if the job is stopped before.
async fn wait_for_turn<'a>(queue: &'a QueueState, job: &Job) -> Option<MutexGuard<'a, ()>> {
    let mut turn = pin!(queue.turn.lock());
    loop {
        match timeout(POLL, &mut turn).await {
            Ok(turn) => return Some(turn),
            Err(_) if job.is_stopped() => return None,
            Err(_) => {}
        }
    }
}

async fn perform(console: &Arc<Console>, job: &Arc<Job>) -> Result<Outcome, DeskError> {
    let report: Arc<dyn Report> = Arc::<Job>::clone(job);
    match &job.task {
        Task::Look => read_queue(console, job.query.queue, &report).await,
        Task::Fetch(id) => fetch(console, job.query.queue, id, &report).await,
        Task::Forecast(replay) => {
            let forecast = replay.forecast(&console.settings, EXAMPLES as usize, &report).await?;
            Ok(Outcome::Forecast(Arc::new(forecast)))
        }
        Task::Replay(task) => replay(console, job, task, &report).await,
        Task::Park(task) => park(console, job, task, &report).await,
        Task::Purge(task) => purge(console, job, task, &report).await,
    }
}

async fn read_queue(console: &Console, queue: QueueKind, report: &Arc<dyn Report>) -> Result<Outcome, DeskError> {
    let (began, taken) = (Instant::now(), now_millis());
    let mut reader =
        LetterReader::open(&console.settings, &console.source(queue), &Selection::default(), report).await?;
    let state = console.queue(queue);
    state.details.clear();
    let mut builder = SnapshotBuilder::with_capacity(reader.total() as usize);
    let mut examples = HashMap::<String, u32>::new();
    let read = async {
        let mut count = 0;
        while let Some(letter) = reader.next().await? {
            let bytes = letter.delivery.body.len();
            builder.add(&letter.delivery.letter_fields(&letter.record, &letter.id), bytes);
            let held = examples.entry(letter.record.fingerprint.clone()).or_default();
            if *held < EXAMPLES && bytes <= MAX_EXAMPLE_BYTES {
                *held += 1;
                state.details.add(Detail::new(letter));
            }
            count += 1;
            report.set_done(count);
        }
        Ok(())
    }
    .await;
    reader.close(read).await?;
    let snapshot = builder.finish(taken, began.elapsed());
    if report.is_stopped() {
        return Err(DeskError::Stopped);
    }
    let count = snapshot.len();
    state.set_snapshot(snapshot);
    Ok(Outcome::Looked { count })
}

async fn fetch(console: &Console, queue: QueueKind, id: &str, report: &Arc<dyn Report>) -> Result<Outcome, DeskError> {
    let selection = Selection { filter: Filter { ids: vec![id.to_owned()], ..Filter::default() }, limit: Some(1) };
    let mut reader = LetterReader::open(&console.settings, &console.source(queue), &selection, report).await?;
    let found = reader.next().await;
    let letter = reader.close(found).await?;
    let found = letter.is_some();
    if !found && report.is_stopped() {
        return Err(DeskError::Stopped);
    }
    letter.into_iter().for_each(|letter| console.queue(queue).details.add(Detail::new(letter)));
    Ok(Outcome::Found(found))
}

impl Console {
    /// A path in the directory of the console.
    fn kept(&self, name: PathBuf) -> Option<PathBuf> {
        self.options.state_dir.as_ref().map(|directory| directory.join(name))
    }

    /// The file of the history.
    pub(super) fn history_file(&self) -> Option<PathBuf> {
        self.kept(PathBuf::from("history.ndjson"))
    }
}

async fn replay(console: &Console, job: &Job, replay: &Replay, report: &Arc<dyn Report>) -> Result<Outcome, DeskError> {
    let backup = replay.edit.as_ref().and_then(|_| console.kept(replay.backup_name()));
    let replay = Replay { backup, ..replay.clone() };
    let audit = Audit::begin(console.history_file().as_deref(), &job.who, replay.audit_subject())?;
    let (done, ended) = replay.run(&console.settings, report).await?;
    audit.end(done.outcome(), ended.is_err());
    done.transfer.undeliverable_notes().iter().for_each(|note| job.note(note));
    ended?;
    Ok(Outcome::Replayed {
        summary: done.to_json(&replay.id),
        text: done.to_text(),
        replayed: done.replayed(),
        outcomes: desk::Outcomes::default(),
        is_followed: false,
    })
}

async fn park(console: &Console, job: &Job, park: &Park, report: &Arc<dyn Report>) -> Result<Outcome, DeskError> {
    let action = if park.reset_replays { "unpark" } else { "park" };
    let subject = json!({ "action": action, "queue": park.source.queue, "filter": park.selection.to_json() });
    let audit = Audit::begin(console.history_file().as_deref(), &job.who, subject)?;
    let (done, ended) = park.run(&console.settings, report).await?;
    audit.end(Park::outcome(&done), ended.is_err());
    done.undeliverable_notes().iter().for_each(|note| job.note(note));
    ended?;
    Ok(Outcome::Moved { moved: done.moved(&()), to: park.to.clone() })
}

async fn purge(console: &Console, job: &Job, purge: &Purge, report: &Arc<dyn Report>) -> Result<Outcome, DeskError> {
    let backup = console.kept(Purge::backup_name(&purge.source.queue));
    let purge = Purge { backup, ..purge.clone() };
    let subject = json!({ "action": "purge", "queue": purge.source.queue, "filter": purge.selection.to_json() });
    let audit = Audit::begin(console.history_file().as_deref(), &job.who, subject)?;
    let (count, ended) = purge.run(&console.settings, report).await;
    // Nothing was deleted without a line in it.
    let file = purge.backup.as_ref().filter(|path| path.exists()).map(|path| path.display().to_string());
    let stopped = report.is_stopped().then_some(true);
    audit.end(json!({ "purged": count, "backup": file, "stopped": stopped }), ended.is_err());
    ended?;
    Ok(Outcome::Purged { count, file })
}

/// Asks the workers what became of a replay until all is known, or nothing new comes.
async fn follow(console: &Console, job: &Job) {
    let (Task::Replay(replay), Some(Outcome::Replayed { summary, text, replayed, .. })) = (&job.task, job.outcome())
    else {
        return;
    };
    let (mut last, began) = ((desk::Outcomes::default(), Instant::now()), Instant::now());
    loop {
        let outcomes = desk::ask_workers(&console.options.workers, &console.settings.queue, &replay.id).await;
        if outcomes.outcomes != last.0.outcomes {
            last.1 = Instant::now();
        }
        last.0 = outcomes.clone();
        let is_followed = replayed == 0
            || outcomes.known() >= replayed
            || last.1.elapsed() >= FOLLOW_PATIENCE
            || began.elapsed() >= FOLLOW_LIMIT;
        let (summary, text) = (summary.clone(), text.clone());
        job.set_outcome(Outcome::Replayed { summary, text, replayed, outcomes, is_followed });
        if is_followed {
            return;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// The queues that a job has changed.
fn affected(job: &Job) -> Vec<QueueKind> {
    match &job.task {
        Task::Park(_) | Task::Replay(_) => vec![QueueKind::DeadLetters, QueueKind::Parked],
        _ => vec![job.query.queue],
    }
}

/// After a change the snapshots are wrong, which pages say. Short queues are read again.
fn look_again(console: &Arc<Console>, job: &Job, affected: &[QueueKind]) {
    for queue in affected {
        let snapshot = console.queue(*queue).snapshot();
        if snapshot.is_some_and(|snapshot| snapshot.len() <= MAX_UNASKED_LOOK) {
            // If too many jobs wait, somebody will ask.
            let _ = look(console, *queue, &job.who);
        }
    }
}
