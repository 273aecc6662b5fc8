//! The download of dead letters.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{self as desk, Audit, DeskError, Export, ExportTo, LineSink, Operation as _, Run};
use ticketlog_config::system::now_millis;
use ticketlog_rabbitmq::report::Report;

use super::jobs::{Job, Task};
use super::pages::Problem;
use super::query::DeadLetterQuery;
use super::request::{By, Shared, read_query};
use super::state::Console;

/// Lines that are read ahead of the reader: few, because each can be as long as the largest message.
const READ_AHEAD: usize = 4;
/// How long a download may stand still.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

type Line = Result<Bytes, std::io::Error>;

/// Streams the selected dead letters as a file; they stay in the queue.
pub(super) async fn export(
    State(console): Shared,
    Extension(operator): By,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = read_query(&operator, query.as_deref())?;
    let Ok(permit) = Arc::clone(&console.downloads).try_acquire_owned() else {
        let text = "Too many downloads run or wait for the queue; try again when one of them has ended.";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, text));
    };
    let queue = console.queue_name(query.queue);
    let name = format!("{}-{}.ndjson", queue.replace(['/', '"', '\\'], "_"), now_millis());
    let (sender, receiver) = mpsc::channel::<Line>(READ_AHEAD);
    let lines = sender.clone();
    let sink: LineSink = Box::new(move |line| Box::pin(send_line(lines.clone(), line, SEND_TIMEOUT)));
    let export = Export { selection: console.selection(&query), to: ExportTo::Lines(sink) };
    let failed = |error: DeskError| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let audit = Audit::begin(console.history_file().as_deref(), &operator.name, export.subject()).map_err(failed)?;
    tokio::spawn(async move {
        let ended = send(&console, &query, &operator.name, &sender, (export, audit)).await;
        drop(permit);
        if let Err(error) = ended {
            // The download ends with an error, not as if it were complete.
            let _ = sender.send(Err(std::io::Error::other(error.to_string()))).await;
        }
    });
    let lines = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(CONTENT_TYPE, "application/x-ndjson".to_owned()), (CONTENT_DISPOSITION, disposition)];
    Ok((headers, Body::from_stream(lines)).into_response())
}

async fn send(
    console: &Console,
    query: &DeadLetterQuery,
    who: &str,
    sender: &mpsc::Sender<Line>,
    (export, audit): (Export<'static>, Audit),
) -> Result<(), DeskError> {
    let queue = console.queue(query.queue);
    let turn = tokio::select! {
        turn = queue.turn.lock() => turn,
        () = sender.closed() => return Err(DeskError::Stopped),
    };
    queue.set_holder(Some(format!("{who} is exporting")));
    let job = Arc::new(Job::new(Task::Read, query.clone(), who.to_owned()));
    let (closing, stopped) = (sender.clone(), Arc::clone(&job));
    // When the download is cancelled, nothing more is read.
    let watcher = tokio::spawn(async move {
        closing.closed().await;
        stopped.stop();
    });
    let report: Arc<dyn Report> = job;
    let done = desk::run(&export, audit, Run { settings: &console.settings, report: &report }).await;
    watcher.abort();
    queue.set_holder(None);
    drop(turn);
    done.ended
}

/// Others wait for the queue: who does not read for half a minute has no download.
async fn send_line(lines: mpsc::Sender<Line>, line: String, limit: Duration) -> std::io::Result<()> {
    let sent = timeout(limit, lines.send(Ok(Bytes::from(line + "\n")))).await;
    if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_download_that_nobody_reads_ends() {
        let (sender, mut receiver) = mpsc::channel(1);
        let send = |line: &str| send_line(sender.clone(), line.to_owned(), Duration::from_millis(20));
        send("1").await.unwrap();
        assert_eq!(send("2").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        receiver.recv().await.unwrap().unwrap();
        send("3").await.unwrap();
    }
}
