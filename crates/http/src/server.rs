//! Serving HTTP/1 with bounds, for the worker's endpoints and for the console: the number and the duration of connections, the size
//! of headers and the time that they may take.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Most connections at a time that are not kept. For each further one the oldest is closed, so that idle ones block nobody.
const MAX_CONNECTIONS: usize = 64;
/// Most connections that are kept; further ones are refused.
const MAX_KEPT: usize = 256;
/// Pause after closing one, so that a flood of connections leaves the process its time: they share a thread.
const ACCEPT_PAUSE: Duration = Duration::from_millis(2);
/// How long a client may take to send the headers of a request; idle connections are closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of headers.
const MAX_HEADERS: usize = 16 * 1024;

/// The connection of a request, as an extension of it. The service keeps it where it knows who asks: it is not closed for new ones
/// until the next request begins.
#[derive(Debug, Clone, Default)]
pub struct KeptConnection(Arc<AtomicBool>);

impl KeptConnection {
    /// Keeps it during this request and its response.
    pub fn keep(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_kept(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that is served.
struct OpenConnection {
    task: AbortHandle,
    kept: KeptConnection,
}

/// Makes room for one more connection; false if there is none, because all are in use by somebody whom the service knows.
fn make_room(open: &mut VecDeque<OpenConnection>) -> bool {
    open.retain(|connection| !connection.task.is_finished());
    let kept = open.iter().filter(|connection| connection.kept.is_kept()).count();
    if open.len() - kept >= MAX_CONNECTIONS
        && let Some(at) = open.iter().position(|connection| !connection.kept.is_kept())
        && let Some(oldest) = open.remove(at)
    {
        oldest.task.abort();
    }
    kept < MAX_KEPT
}

/// Serves requests for ever. A connection ends after `max_duration` at the latest.
pub async fn serve<S, B>(listener: TcpListener, max_duration: Duration, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut open: VecDeque<OpenConnection> = VecDeque::new();
    loop {
        let stream = accept(&listener).await;
        let before = open.len();
        if !make_room(&mut open) {
            continue;
        }
        if before >= MAX_CONNECTIONS {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        let kept = KeptConnection::default();
        let (service, connection) = (service.clone(), kept.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            connection.0.store(false, Ordering::Relaxed);
            request.extensions_mut().insert(connection.clone());
            service.call(request)
        });
        let connection = async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADERS);
            let _ = timeout(max_duration, http.serve_connection(TokioIo::new(stream), service)).await;
        };
        open.push_back(OpenConnection { task: tokio::spawn(connection).abort_handle(), kept });
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Most likely no file descriptor is free. The process continues in the meantime.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(kept: bool) -> OpenConnection {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let connection = OpenConnection { task, kept: KeptConnection::default() };
        if kept {
            connection.kept.keep();
        }
        connection
    }

    #[tokio::test]
    async fn the_oldest_connection_that_is_not_kept_makes_room() {
        let mut open: VecDeque<_> = (0..MAX_CONNECTIONS + 2).map(|n| connection(n < 2)).collect();
        assert!(make_room(&mut open));
        assert_eq!(open.len(), MAX_CONNECTIONS + 1);
        assert_eq!(open.iter().filter(|connection| connection.kept.is_kept()).count(), 2);
        open = (0..MAX_KEPT).map(|_| connection(true)).collect();
        assert!(!make_room(&mut open), "all are in use");
        assert_eq!(open.len(), MAX_KEPT);
    }
}
