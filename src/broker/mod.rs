//! Owns everything about RabbitMQ, and is the only place that names lapin. Must not know what an event is, nor MongoDB.
//!
//! What lapin and RabbitMQ make necessary here: no auto-recovery (a session and its unsettled deliveries live and die
//! together), a timeout of our own around every call, acks through the delivery's own handle.

mod delivery;
mod desk;
mod error;
mod greeting;
mod headers;
mod inspect;
mod letter;
mod lives;
mod management;
mod publisher;
mod session;
mod settlement;
mod tls;
mod topology;
mod watch;
mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, DefaultConnectionBuilder};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{config, host};

pub use delivery::{Delivery, Outgoing};
pub use desk::{Desk, DeskError, Held, Ticket, Trust};
pub use error::BrokerError;
#[cfg(any(test, feature = "fuzzing"))]
pub use headers::hold as headers_hold;
pub use inspect::inspect;
pub use letter::{Replaying, login};
pub use publisher::{Confirmed, Publisher};
pub use session::{End, Session};
pub use settlement::{Acks, Settlement};
pub use topology::setup;
pub use watch::{Seen, Watch};

/// Makes sure that the addresses and the files for TLS can be used at all.
///
/// # Errors
/// `Address` or `Certificate`, if one cannot.
pub fn check_address(settings: &config::Broker) -> Result<(), BrokerError> {
    let addresses = config::broker_addresses(settings.uri.expose_secret());
    let sound = addresses.iter().all(|address| address.parse::<AMQPUri>().is_ok());
    if !sound {
        return Err(BrokerError::Address);
    }
    tls::read(settings).map(drop)
}

/// Opens a connection to the first address of the cluster that lets us in; `purpose` names it in RabbitMQ's overview.
///
/// # Errors
/// What the last address answered, within `broker.connect_timeout` each.
async fn connect(settings: &config::Broker, purpose: &str) -> Result<Connection, BrokerError> {
    connect_with(settings, purpose, None).await
}

/// As [`connect`], with frames of at most so many bytes; RabbitMQ 4.1 and later want 8192 or more. lapin keeps room for 64
/// of the largest, which is 8 MiB by RabbitMQ's default; but a message's properties must fit into one.
async fn connect_with(
    settings: &config::Broker,
    purpose: &str,
    frame_max: Option<u32>,
) -> Result<Connection, BrokerError> {
    let mut last = BrokerError::Unreachable;
    let tls = tls::read(settings)?;
    for address in config::broker_addresses(settings.uri.expose_secret()) {
        let Ok(mut uri) = address.parse::<AMQPUri>() else { return Err(BrokerError::Address) };
        uri.query.heartbeat = u16::try_from(settings.heartbeat.0.as_secs()).ok();
        uri.query.frame_max = frame_max.or(uri.query.frame_max);
        let name = format!("ticketlog {purpose} on {}", host::name());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let limit = settings.connect_timeout.0;
        if SILENT.load(Ordering::Relaxed)
            && let Err(error) = greeting(&uri, limit).await
        {
            last = error;
            continue;
        }
        let encrypted = uri.scheme == AMQPScheme::AMQPS;
        let Ok(builder) = DefaultConnectionBuilder::new() else { return Err(BrokerError::Lost) };
        let builder = builder.with_uri(uri).with_properties(properties).with_tls_config(tls.clone());
        match timeout(limit, builder.connect()).await {
            Ok(Ok(connection)) => {
                SILENT.store(false, Ordering::Relaxed);
                return Ok(connection);
            }
            Ok(Err(error)) => last = BrokerError::of_connecting(&error, encrypted),
            Err(_) => {
                SILENT.store(true, Ordering::Relaxed);
                last = BrokerError::Timeout("the connection");
            }
        }
    }
    Err(last)
}

/// Set after an attempt that the peer left unanswered. lapin keeps a thread and a socket for each such attempt until the
/// peer speaks or goes; so the next ones ask first, by hand.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Makes sure that the peer accepts a connection and, on plain TCP, answers the protocol header with anything.
async fn greeting(uri: &AMQPUri, limit: Duration) -> Result<(), BrokerError> {
    let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
    let plain = uri.scheme == AMQPScheme::AMQP;
    let asking = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        if plain {
            stream.write_all(b"AMQP\0\0\x09\x01").await?;
            stream.read_u8().await?;
        }
        std::io::Result::Ok(())
    };
    match timeout(limit, asking).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(BrokerError::Unreachable),
        Err(_) => Err(BrokerError::Timeout("the connection")),
    }
}

/// Runs one request to the broker under the configured timeout.
async fn call<T>(
    limit: Duration,
    what: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match timeout(limit, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(BrokerError::of_request(&error)),
        Err(_) => Err(BrokerError::Timeout(what)),
    }
}

/// Closes a connection as far as the peer still plays along; unacknowledged deliveries return to their queue.
async fn close(connection: &Connection, limit: Duration) {
    let _ = timeout(limit, connection.close(200, "bye".into())).await;
}
