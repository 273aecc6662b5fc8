//! Owns opening and closing connections to RabbitMQ, and the timeout around every request.
//!
//! lapin's auto-recovery stays off (docs/develop/adr/0001-no-auto-recovery.md), and every request has our own timeout, because
//! lapin has none.

mod content_header;
mod frame_filter;
pub(super) mod handshake;
pub(super) mod incoming;
pub(super) mod invalid_text;
mod stream;
mod tls;
pub(super) mod uri;
mod wire;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lapin::ConnectionProperties;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use tokio::time::timeout;

use ticketlog_config::BrokerSettings;
use ticketlog_config::system;

use super::error::BrokerError;
pub use frame_filter::check_frame_filter;
use incoming::IncomingMessages;
pub use stream::reserve_runtime;
use uri::{Endpoints, address, is_encrypted};
pub(super) use wire::table;

pub(super) struct Connection {
    connection: lapin::Connection,
    /// What lapin does not read of deliveries that are not handed over yet.
    pub incoming: IncomingMessages,
}

impl Deref for Connection {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.connection
    }
}

/// Set after a connection attempt that the peer did not answer. lapin keeps a thread and a socket for each such attempt
/// until the peer answers or closes; so the next attempts check the peer first.
static PEER_SILENT: AtomicBool = AtomicBool::new(false);

/// Checks that the addresses and the TLS files can be used.
///
/// # Errors
/// `InvalidUri` or `Certificate`.
pub fn check_settings(settings: &BrokerSettings) -> Result<(), BrokerError> {
    Endpoints::parse(settings)?;
    tls::read_files(settings).map(drop)
}

/// Opens a connection to the first node that accepts it. `purpose` is part of the connection name that RabbitMQ shows.
///
/// # Errors
/// The error of the last node; each has `broker.connect_timeout`.
pub(super) async fn connect(settings: &BrokerSettings, purpose: &str) -> Result<Connection, BrokerError> {
    connect_with_frame_max(settings, purpose, None).await
}

/// As [`connect`], with frames of at most that many bytes; RabbitMQ 4.1 and later require at least 8192. lapin reserves 64
/// frames per connection, which is 8 MiB by RabbitMQ's default. The properties of a message that is published must fit into one
/// frame; those of a delivery need not.
///
/// # Errors
/// As for [`connect`].
pub(super) async fn connect_with_frame_max(
    settings: &BrokerSettings,
    purpose: &str,
    frame_max: Option<u32>,
) -> Result<Connection, BrokerError> {
    let tls = tls::read_files(settings)?;
    let name = format!("ticketlog {purpose} on {}", system::host_name());
    let mut last = BrokerError::InvalidUri(settings.uri_setting);
    for endpoint in Endpoints::parse(settings)?.iter() {
        let mut uri = endpoint.clone();
        uri.query.heartbeat = u16::try_from(settings.heartbeat.0.as_secs()).ok();
        uri.query.frame_max = frame_max.or(uri.query.frame_max);
        match attempt(settings, uri, &name, tls.clone()).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn attempt(
    settings: &BrokerSettings,
    uri: AMQPUri,
    name: &str,
    tls: OwnedTLSConfig,
) -> Result<Connection, BrokerError> {
    let limit = settings.connect_timeout.0;
    if PEER_SILENT.load(Ordering::Relaxed) {
        handshake::check_peer(&uri, limit).await?;
    }
    let (encrypted, address) = (is_encrypted(&uri), address(&uri));
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let incoming = IncomingMessages::default();
    match timeout(limit, stream::open(uri, properties, tls, incoming.clone())).await {
        Ok(Ok(connection)) => {
            PEER_SILENT.store(false, Ordering::Relaxed);
            Ok(Connection { connection, incoming })
        }
        Ok(Err(error)) => Err(BrokerError::from_connect(&error, encrypted, address, settings.uri_setting)),
        Err(_) => {
            PEER_SILENT.store(true, Ordering::Relaxed);
            Err(BrokerError::Timeout(format!("connecting to {address}").into()))
        }
    }
}

/// Awaits a request for at most `limit`; `action` names it in the error.
///
/// # Errors
/// `Timeout`, or the broker's reply code.
pub(super) async fn call<T>(
    limit: Duration,
    action: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    answer_of(limit, action, request, BrokerError::from_request).await
}

/// As [`call`], for requests that name topology: the reply text is kept.
///
/// # Errors
/// `Timeout`, or `Refused` for reply codes 403 to 406.
pub(super) async fn call_topology<T>(
    limit: Duration,
    action: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    answer_of(limit, action, request, BrokerError::from_topology_request).await
}

async fn answer_of<T>(
    limit: Duration,
    action: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
    read: fn(&lapin::Error) -> BrokerError,
) -> Result<T, BrokerError> {
    timeout(limit, request).await.map_err(|_| BrokerError::Timeout(action.into()))?.map_err(|error| read(&error))
}

/// How long to wait after single acks before a channel is closed. RabbitMQ's channel keeps acks for a quorum queue back while
/// 32 of its commands are under way (`rabbit_fifo_client`), and forgets those when it closes: the messages return. Seen on
/// 4.3.6; there is no answer to an ack that could be awaited.
const ACK_FLUSH: Duration = Duration::from_millis(300);

/// Waits until RabbitMQ has passed on the last single acks to the queue.
pub(super) async fn flush_single_acks(last: Option<Instant>) {
    if let Some(last) = last {
        tokio::time::sleep(ACK_FLUSH.saturating_sub(last.elapsed())).await;
    }
}

/// Closes a connection, waiting at most `limit`. Unacknowledged deliveries return to their queue.
pub(super) async fn close(connection: &lapin::Connection, limit: Duration) {
    let _ = timeout(limit, connection.close(200, "closing".into())).await;
}
