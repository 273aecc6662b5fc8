//! Owns the admin socket: a Unix domain socket that only the user of the worker can open, with requests that steer it. Must not
//! know what they do.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How long a connection may take, and how long a client waits.
const SERVER_LIMIT: Duration = Duration::from_secs(5);
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// What a request asks for: the path, without the slash. None if there is no such request; an error says why it is refused.
pub type Act = dyn Fn(&str) -> Option<Result<String, String>> + Send + Sync;

/// The socket, which is removed when this is dropped, unless another worker has replaced it.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    inode: u64,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Creates the socket, with mode 600. One that a worker has left behind is replaced.
///
/// # Errors
/// Another worker listens there, or the path cannot be used.
pub fn bind(path: &Path) -> std::io::Result<(UnixListener, AdminSocket)> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::new(ErrorKind::AlreadyExists, "it is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(Error::new(ErrorKind::AddrInUse, "another worker listens there")),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        },
        Err(_) => {}
    }
    // Under another name first, so that nobody can connect before the mode is set.
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let temporary = path.with_file_name(format!("{name}.{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    let inode = std::fs::symlink_metadata(&temporary)?.ino();
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, path)?;
    Ok((listener, AdminSocket { path: path.to_owned(), inode }))
}

/// Serves requests of the own user and of root for ever.
pub async fn serve(listener: UnixListener, act: Arc<Act>) {
    let own = std::fs::metadata("/proc/self").map(|own| own.uid()).ok();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let user = stream.peer_cred().map(|peer| peer.uid()).ok();
        if user.is_none() || user != own && user != Some(0) {
            continue;
        }
        let act = Arc::clone(&act);
        let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&request, &*act))));
        let mut http = http1::Builder::new();
        http.keep_alive(false);
        tokio::spawn(async move { timeout(SERVER_LIMIT, http.serve_connection(TokioIo::new(stream), service)).await });
    }
}

fn answer(request: &Request<Incoming>, act: &Act) -> Response<Full<Bytes>> {
    let action = request.uri().path().trim_start_matches('/');
    let (status, text) = if request.method() != Method::POST {
        (StatusCode::METHOD_NOT_ALLOWED, "only POST".to_owned())
    } else {
        match act(action) {
            Some(Ok(text)) => (StatusCode::OK, text),
            Some(Err(text)) => (StatusCode::CONFLICT, text),
            None => (StatusCode::NOT_FOUND, "try /pause, /resume or /reload".to_owned()),
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
    *response.status_mut() = status;
    response
}

/// Sends a request to the worker at a socket. The text of its answer, which says why if it refuses.
///
/// # Errors
/// No worker answers there.
pub async fn request(path: &Path, action: &str) -> std::io::Result<Result<String, String>> {
    let sent = timeout(CLIENT_LIMIT, send(path, action)).await;
    sent.map_err(|_| Error::new(ErrorKind::TimedOut, "no answer within ten seconds; it may still happen"))?
}

async fn send(path: &Path, action: &str) -> std::io::Result<Result<String, String>> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(Error::other)?;
    tokio::spawn(connection);
    let request = Request::post(format!("/{action}")).header(HOST, "localhost").body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(Error::other)?).await.map_err(Error::other)?;
    let is_done = response.status() == StatusCode::OK;
    let body = response.into_body().collect().await.map_err(Error::other)?.to_bytes();
    let text = String::from_utf8_lossy(&body).trim_end().to_owned();
    Ok(if is_done { Ok(text) } else { Err(text) })
}
