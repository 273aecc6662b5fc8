//! A proxy that adds a delay to both directions of every connection, as a longer link does: what is sent back to back arrives
//! back to back. It runs on a thread of its own.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Chunks of up to 64 KiB that are under way in one direction of a connection.
const MAX_UNDER_WAY: usize = 1024;

/// Starts one in front of a port of this machine; returns its own port. It ends with the process. `one_way` is asked for each chunk.
pub fn slow_link(target: u16, one_way: impl Fn() -> Duration + Clone + Send + 'static) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target, one_way.clone()));
            }
        });
    });
    port
}

async fn connect(client: TcpStream, target: u16, one_way: impl Fn() -> Duration + Clone) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(forward(from_client, to_server, one_way.clone()), forward(from_server, to_client, one_way));
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: impl Fn() -> Duration) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_UNDER_WAY);
    let read = async move {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if sender.send((Instant::now() + one_way(), chunk[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            // Even a timer that is due takes up to a millisecond.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
