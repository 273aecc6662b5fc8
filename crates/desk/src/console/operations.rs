//! What the jobs of the console do, through the desk: reading a queue, forecasting, replaying, parking, purging.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{
    self as desk, Audit, DeadLetter, DeadLetterReader, DeskError, Done, Follow, Followed, Operation, Run, Selection,
};
use axum::http::StatusCode;
use ticketlog_config::system::now_millis;
use ticketlog_contract::dead_letter::{Filter, bounded};
use ticketlog_http::client as http_client;
use ticketlog_rabbitmq::report::Report;
use ticketlog_status::read_status;

use super::details::Detail;
use super::find::find;
use super::jobs::{Job, Outcome, Phase, Task};
use super::pages::Problem;
use super::query::{DeadLetterQuery, QueueKind};
use super::snapshot::SnapshotBuilder;
use super::state::Console;

/// Dead letters of each group that are held with their bodies, up to this many bytes each.
const EXAMPLES: u32 = 10;
const MAX_EXAMPLE_BYTES: usize = 64 << 10;
/// Most groups with examples of their own.
const MAX_EXAMPLE_GROUPS: usize = 1000;
/// How long the workers are asked what became of a replay, without news.
pub(super) const FOLLOW_PATIENCE: Duration = Duration::from_secs(60);
/// A queue with at most this many is read again by itself after a change.
pub(super) const MAX_UNASKED_LOOK: usize = 20_000;

/// Starts a job, or joins one that goes on and does the same with the same dead letters.
///
/// # Errors
/// Too many jobs wait.
pub(super) fn start(
    console: &Arc<Console>,
    task: Task,
    query: DeadLetterQuery,
    who: &str,
) -> Result<Arc<Job>, Problem> {
    let running = console.jobs.running();
    if let Some(job) = running.iter().find(|job| job.is_doing(&task, &query)) {
        return Ok(Arc::clone(job));
    }
    if running.len() >= MAX_WAITING {
        let text = "Too many jobs wait for the queue; try again when some have ended.";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, text));
    }
    let job = Arc::new(Job::new(task, query, who.to_owned()));
    console.jobs.add(Arc::clone(&job));
    tokio::spawn(run(Arc::clone(console), Arc::clone(&job)));
    Ok(job)
}

/// Most jobs that run or wait.
const MAX_WAITING: usize = 20;

/// Starts to read the whole queue, or joins somebody who does.
pub(super) fn read(console: &Arc<Console>, queue: QueueKind, who: &str) -> Result<Arc<Job>, Problem> {
    start(console, Task::Read, DeadLetterQuery::of_queue(queue), who)
}

async fn run(console: Arc<Console>, job: Arc<Job>) {
    let queue = console.queue(job.query.queue);
    job.set_phase(Phase::Waiting);
    let Some(turn) = queue.wait_for_turn(&job).await else {
        job.finish(Phase::Failed(DeskError::Stopped.to_string()));
        return;
    };
    queue.set_holder(Some(format!("{} is {}", job.who, job.task.doing())));
    job.set_phase(Phase::Running);
    let (outcome, ended) = match perform(&console, &job).await {
        Ok((outcome, ended)) => (Some(outcome), ended),
        Err(error) => (None, Err(error)),
    };
    queue.set_holder(None);
    drop(turn);
    outcome.into_iter().for_each(|outcome| job.set_outcome(outcome));
    job.finish(ended.map_or_else(|error| Phase::Failed(error.to_string()), |()| Phase::Done));
    if job.task.changes_queue() {
        if job.is_stopped() {
            job.note("It was stopped early: the rest is in the queue as it was.");
        }
        let affected = affected(&job);
        affected.iter().for_each(|queue| {
            console.queue(*queue).set_stale(format!("{} was {}", job.who, job.task.doing()));
        });
        follow(&console, &job).await;
        read_again(&console, &job, &affected);
    }
}

/// What a job found or did, and how it ended: an operation may fail on its way.
type Performed = (Outcome, Result<(), DeskError>);

async fn perform(console: &Arc<Console>, job: &Arc<Job>) -> Result<Performed, DeskError> {
    let report: Arc<dyn Report> = Arc::<Job>::clone(job);
    let run = Run { settings: &console.settings, report: &report };
    let (done, ended) = match &job.task {
        Task::Read => return Ok((read_queue(console, job.query.queue, run).await?, Ok(()))),
        Task::Fetch(id) => return Ok((fetch(console, &job.query, id, run).await?, Ok(()))),
        Task::Find(sought) => return Ok((Outcome::Story(find(console, job, sought, run).await?), Ok(()))),
        Task::Forecast(replay) => {
            let forecast = replay.forecast(run, EXAMPLES as usize).await?;
            let is_followed = is_followed(console).await;
            return Ok((Outcome::Forecast(Arc::new(forecast), is_followed), Ok(())));
        }
        Task::Replay(replay) => operate(console, job, replay, run).await?,
        Task::Park(park) => operate(console, job, park, run).await?,
        Task::Purge(purge) => operate(console, job, purge, run).await?,
    };
    let expected = done.count;
    let outcome = match &job.task {
        Task::Replay(_) => Outcome::Replayed(done, Followed { expected, ..Followed::default() }),
        _ => Outcome::Operated(done),
    };
    Ok((outcome, ended))
}

async fn read_queue(console: &Console, queue: QueueKind, run: Run<'_>) -> Result<Outcome, DeskError> {
    let (began, taken) = (Instant::now(), now_millis());
    let reader = DeadLetterReader::open(run, &console.source(queue).into()).await?;
    let state = console.queue(queue);
    state.details.clear();
    let mut builder = SnapshotBuilder::with_capacity(reader.total() as usize);
    let mut examples = BTreeMap::<String, u32>::new();
    let add = |dead_letter: DeadLetter| {
        let bytes = dead_letter.delivery.body.len();
        builder.add(&dead_letter.delivery.dead_letter_fields(&dead_letter.record, &dead_letter.id), bytes);
        let held = bounded(&mut examples, &dead_letter.record.fingerprint, MAX_EXAMPLE_GROUPS);
        if *held < EXAMPLES && bytes <= MAX_EXAMPLE_BYTES {
            *held += 1;
            state.details.add(Detail::new(dead_letter));
        }
    };
    reader.read_all(add).await?;
    let snapshot = builder.finish(taken, began.elapsed());
    if run.report.is_stopped() {
        return Err(DeskError::Stopped);
    }
    let count = snapshot.len();
    state.set_snapshot(snapshot);
    Ok(Outcome::Read { count })
}

async fn fetch(console: &Console, query: &DeadLetterQuery, id: &str, run: Run<'_>) -> Result<Outcome, DeskError> {
    let queue = query.queue;
    let publishers = query.only.iter().cloned().collect();
    let filter = Filter { ids: vec![id.to_owned()], publishers, ..Filter::default() };
    let selection = Selection { source: console.source(queue), filter, limit: Some(1) };
    let mut reader = DeadLetterReader::open(run, &selection).await?;
    let found = reader.next().await;
    let dead_letter = reader.close(found).await?;
    let found = dead_letter.is_some();
    if !found && run.report.is_stopped() {
        return Err(DeskError::Stopped);
    }
    dead_letter.into_iter().for_each(|dead_letter| console.queue(queue).details.add(Detail::new(dead_letter)));
    Ok(Outcome::Found(found))
}

/// Runs an operation of the desk, with an entry of the history.
async fn operate<O: Operation>(
    console: &Console,
    job: &Job,
    operation: &O,
    run: Run<'_>,
) -> Result<(Arc<desk::Outcome>, Result<(), DeskError>), DeskError> {
    let audit = Audit::begin(console.history_file().as_deref(), &job.who, operation.subject())?;
    let Done { outcome, ended } = desk::run(operation, audit, run).await;
    outcome.notes(operation, ended.is_err()).iter().for_each(|note| job.note(note));
    Ok((Arc::new(outcome), ended))
}

/// Whether a worker would tell what becomes of a replay.
async fn is_followed(console: &Console) -> bool {
    for worker in http_client::at_all_addresses(&console.options.workers).await {
        if read_status(&worker).await.is_some() {
            return true;
        }
    }
    false
}

/// Asks the workers what became of a replay until all is known, or nothing new comes.
async fn follow(console: &Console, job: &Job) {
    let (Task::Replay(replay), Some(Outcome::Replayed(done, _))) = (&job.task, job.outcome()) else { return };
    let follow = Follow {
        workers: &console.options.workers,
        queue: &console.settings.queue,
        replay_id: &replay.id,
        expected: done.count,
        patience: FOLLOW_PATIENCE,
    };
    follow.run(|known| job.set_outcome(Outcome::Replayed(Arc::clone(&done), known.clone()))).await;
}

/// The queues that a job has changed.
fn affected(job: &Job) -> Vec<QueueKind> {
    match &job.task {
        Task::Park(_) | Task::Replay(_) => vec![QueueKind::DeadLetters, QueueKind::Parked],
        _ => vec![job.query.queue],
    }
}

/// After a change the snapshots are wrong, which pages say. Short queues are read again.
fn read_again(console: &Arc<Console>, job: &Job, affected: &[QueueKind]) {
    for queue in affected {
        let snapshot = console.queue(*queue).snapshot(None);
        if snapshot.is_some_and(|snapshot| snapshot.len() <= MAX_UNASKED_LOOK) {
            // If too many jobs wait, somebody will ask.
            let _ = read(console, *queue, &job.who);
        }
    }
}
