//! Owns serving HTTP/1 with bounds: the number and the duration of connections, the size of headers and the time that they may
//! take. Must not know what is served.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Most connections at a time. For each further one the oldest is closed, so that idle ones block nobody.
const MAX_CONNECTIONS: usize = 64;
/// Pause after closing one, so that a flood of connections leaves the process its time: they share a thread.
const ACCEPT_PAUSE: Duration = Duration::from_millis(2);
/// How long a client may take to send the headers of a request; idle connections are closed after it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of headers.
const MAX_HEADERS: usize = 16 * 1024;

/// Serves requests for ever. A connection ends after `max_duration` at the latest.
pub async fn serve<S, B>(listener: TcpListener, max_duration: Duration, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = accept(&listener).await;
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        let service = service.clone();
        let connection = async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADERS);
            let _ = timeout(max_duration, http.serve_connection(TokioIo::new(stream), service)).await;
        };
        open.push_back(tokio::spawn(connection).abort_handle());
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
