//! Owns one GET over plain HTTP/1.1, within a time and a size. Must not know what is asked for.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// Largest answer that is read.
const MOST: usize = 4 << 20;

/// The status and the body of `http://…`, with an `Authorization` header where one is given; none if there is no answer
/// within `limit`, or if the address is no plain HTTP.
pub async fn get(url: &Url, authorization: Option<&str>, limit: Duration) -> Option<(u16, Vec<u8>)> {
    timeout(limit, ask(url, authorization)).await.ok()?
}

async fn ask(url: &Url, authorization: Option<&str>) -> Option<(u16, Vec<u8>)> {
    if url.scheme() != "http" {
        return None;
    }
    let host = url.host_str()?;
    let port = url.port_or_known_default()?;
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::get(format!("{}{query}", url.path()))
        .header(HOST, format!("{host}:{port}"))
        .header("connection", "close");
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).ok()?).await.ok()?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MOST).collect().await.ok()?.to_bytes();
    Some((status, body.to_vec()))
}
