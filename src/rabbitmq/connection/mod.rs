//! Owns opening and closing connections to RabbitMQ, and the timeout around every request. Must not know what a
//! connection is used for.
//!
//! lapin's auto-recovery stays off (docs/adr/0001-no-auto-recovery.md), and every request has a timeout of ours, because
//! lapin has none.

pub(super) mod handshake;
mod tls;
pub(super) mod uri;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, DefaultConnectionBuilder};
use tokio::time::timeout;

use crate::config::BrokerSettings;
use crate::system;

use super::BrokerError;
use uri::{Endpoints, is_encrypted};

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

/// As [`connect`], with frames of at most so many bytes; RabbitMQ 4.1 and later require at least 8192. lapin reserves 64
/// frames per connection, which is 8 MiB by RabbitMQ's default. A message's properties must fit into one frame.
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
    let mut last = BrokerError::Unreachable;
    for endpoint in Endpoints::parse(settings)?.iter() {
        let mut uri = endpoint.clone();
        uri.query.heartbeat = u16::try_from(settings.heartbeat.0.as_secs()).ok();
        uri.query.frame_max = frame_max.or(uri.query.frame_max);
        let properties = ConnectionProperties::default().with_connection_name(name.as_str().into());
        let Ok(builder) = DefaultConnectionBuilder::new() else { return Err(BrokerError::ConnectionLost) };
        let builder = builder.with_properties(properties).with_tls_config(tls.clone());
        match attempt(builder, uri, settings.connect_timeout.0).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn attempt(builder: DefaultConnectionBuilder, uri: AMQPUri, limit: Duration) -> Result<Connection, BrokerError> {
    if PEER_SILENT.load(Ordering::Relaxed) {
        handshake::check_peer(&uri, limit).await?;
    }
    let encrypted = is_encrypted(&uri);
    match timeout(limit, builder.with_uri(uri).connect()).await {
        Ok(Ok(connection)) => {
            PEER_SILENT.store(false, Ordering::Relaxed);
            Ok(connection)
        }
        Ok(Err(error)) => Err(BrokerError::from_connect(&error, encrypted)),
        Err(_) => {
            PEER_SILENT.store(true, Ordering::Relaxed);
            Err(BrokerError::Timeout("connecting"))
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
    match timeout(limit, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(BrokerError::from_request(&error)),
        Err(_) => Err(BrokerError::Timeout(action)),
    }
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
    match timeout(limit, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(BrokerError::from_topology_request(&error)),
        Err(_) => Err(BrokerError::Timeout(action)),
    }
}

/// Closes a connection, waiting at most `limit`. Unacknowledged deliveries return to their queue.
pub(super) async fn close(connection: &Connection, limit: Duration) {
    let _ = timeout(limit, connection.close(200, "closing".into())).await;
}
