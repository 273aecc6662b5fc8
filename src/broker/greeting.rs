//! Owns what RabbitMQ says of itself in its greeting, read by hand: lapin does not tell. Must not know what it is for.

use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The server properties that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    /// RabbitMQ's major version.
    pub major: Option<u32>,
    /// The name of the cluster, which the management API tells as well.
    pub cluster: Option<String>,
}

/// The greeting of the first address that gives one; empty where that is encrypted.
pub(super) async fn of(addresses: &[String]) -> Greeting {
    for address in addresses {
        if let Ok(uri) = address.parse::<AMQPUri>()
            && uri.scheme == AMQPScheme::AMQP
            && let Ok(Some(greeting)) = timeout(PATIENCE, ask(&uri)).await
        {
            return read(&greeting);
        }
    }
    Greeting::default()
}

async fn ask(uri: &AMQPUri) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await.ok()?;
    stream.write_all(b"AMQP\0\0\x09\x01").await.ok()?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.ok()?;
    let [_, _, _, a, b, c, d] = head;
    let mut greeting = vec![0; (u32::from_be_bytes([a, b, c, d]) as usize).min(64 * 1024)];
    stream.read_exact(&mut greeting).await.ok()?;
    Some(greeting)
}

fn read(greeting: &[u8]) -> Greeting {
    let version = property(greeting, "version");
    let major = version.and_then(|version| version.split('.').next().and_then(|major| major.parse().ok()));
    Greeting { major, cluster: property(greeting, "cluster_name") }
}

/// A property: a name with its length before it, `S`, and a text with its length in four bytes.
fn property(greeting: &[u8], name: &str) -> Option<String> {
    let mut wanted = vec![u8::try_from(name.len()).ok()?];
    wanted.extend_from_slice(name.as_bytes());
    wanted.push(b'S');
    let at = greeting.windows(wanted.len()).position(|window| window == wanted)? + wanted.len();
    let (length, rest) = greeting.get(at..)?.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_tells_version_and_cluster() {
        let greeting = b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8\x0ccluster_nameS\0\0\0\x03a@b..";
        assert_eq!(read(greeting), Greeting { major: Some(3), cluster: Some("a@b".into()) });
        assert_eq!(read(b"\x07versionS\0\0\0\xff3"), Greeting::default(), "cut off");
        assert_eq!(read(b""), Greeting::default());
    }
}
