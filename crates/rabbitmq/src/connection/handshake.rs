//! Owns the first frame of an AMQP connection, read without lapin: whether the peer speaks AMQP at all, and the server properties in
//! `connection.start` (AMQP 0-9-1, section 1.4.2.1), which lapin does not expose.

use std::time::Duration;

use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::error::BrokerError;
use super::uri::{Endpoints, address, is_encrypted};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest `connection.start` that is read, in bytes.
const MAX_FRAME: usize = 64 * 1024;

/// The server properties that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerProperties {
    pub major_version: Option<u32>,
    /// The name of the cluster. The management API shows it as well, so that the two can be matched.
    pub cluster_name: Option<String>,
}

/// Checks that the peer accepts a TCP connection and, without TLS, answers the protocol header.
///
/// # Errors
/// `Unreachable`, or `Timeout` after `limit`.
pub(super) async fn check_peer(uri: &AMQPUri, limit: Duration) -> Result<(), BrokerError> {
    let check = async {
        let mut stream = open(uri).await?;
        if !is_encrypted(uri) {
            stream.read_u8().await?;
        }
        std::io::Result::Ok(())
    };
    match timeout(limit, check).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(BrokerError::Unreachable(address(uri))),
        Err(_) => Err(BrokerError::Timeout(format!("connecting to {}", address(uri)).into())),
    }
}

/// The properties that the first node without TLS sends; empty if there is none, or no answer within two seconds.
pub(crate) async fn server_properties(endpoints: &Endpoints) -> ServerProperties {
    for uri in endpoints.iter().filter(|uri| !is_encrypted(uri)) {
        if let Ok(Ok(frame)) = timeout(TIMEOUT, read_start_frame(uri)).await {
            return parse(&frame);
        }
    }
    ServerProperties::default()
}

/// Connects and, without TLS, sends the protocol header.
async fn open(uri: &AMQPUri) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await?;
    if !is_encrypted(uri) {
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
    }
    Ok(stream)
}

async fn read_start_frame(uri: &AMQPUri) -> std::io::Result<Vec<u8>> {
    let mut stream = open(uri).await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [_, _, _, a, b, c, d] = head;
    let mut payload = vec![0; (u32::from_be_bytes([a, b, c, d]) as usize).min(MAX_FRAME)];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

fn parse(payload: &[u8]) -> ServerProperties {
    let version = text_property(payload, "version");
    let major_version = version.and_then(|version| version.split('.').next().and_then(|major| major.parse().ok()));
    ServerProperties { major_version, cluster_name: text_property(payload, "cluster_name") }
}

/// A text in a field table: the name with its length in one byte, `S`, the text with its length in four bytes.
fn text_property(payload: &[u8], name: &str) -> Option<String> {
    let mut key = vec![u8::try_from(name.len()).ok()?];
    key.extend_from_slice(name.as_bytes());
    key.push(b'S');
    let at = payload.windows(key.len()).position(|window| window == key)? + key.len();
    let (length, rest) = payload.get(at..)?.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_cluster_name_are_read() {
        let payload = b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8\x0ccluster_nameS\0\0\0\x03a@b..";
        let expected = ServerProperties { major_version: Some(3), cluster_name: Some("a@b".into()) };
        assert_eq!(parse(payload), expected);
        assert_eq!(parse(b"\x07versionS\0\0\0\xff3"), ServerProperties::default(), "truncated");
        assert_eq!(parse(b""), ServerProperties::default());
    }
}
