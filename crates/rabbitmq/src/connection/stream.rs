//! Owns the byte stream of a connection: lapin reads from it through the frame filter.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AMQPUriTcpExt as _, AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use super::frame_filter::FrameFilter;
use super::incoming::IncomingMessages;

type TcpStream = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Opens a connection whose frames are filtered; `incoming` receives what the filter takes out of messages.
pub(super) async fn open(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: OwnedTLSConfig,
    incoming: IncomingMessages,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), FilteringReactor(tokio.clone())));
    let connect = async move |uri: AMQPUri, _| {
        let plain = Runtime::new(tokio.clone());
        let stream = uri.connect_with_config_async(tls.as_ref(), &plain).await?;
        Ok(AsyncTcpStream::Plain(FilteredStream::new(stream, incoming.clone())))
    };
    Connection::connector(uri, runtime, connect, properties).await
}

/// Creates now what async-compat, through which lapin reads, would create when lapin's IO thread drops the first lost connection: a
/// runtime, which panics if no file descriptor is left then. To be called outside of a runtime.
pub fn reserve_runtime() {
    drop(async_compat::Compat::new(()));
}

/// A stream to RabbitMQ whose frames can all be read by lapin.
pub(super) struct FilteredStream {
    stream: TcpStream,
    filter: FrameFilter,
    /// A frame that was held back, and how much of it was read.
    ready: Vec<u8>,
    ready_read: usize,
}

impl FilteredStream {
    fn new(stream: TcpStream, incoming: IncomingMessages) -> Self {
        FilteredStream { stream, filter: FrameFilter::new(incoming), ready: Vec::new(), ready_read: 0 }
    }

    fn read_ready(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.ready.get(self.ready_read..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.ready_read += count;
        count
    }
}

impl AsyncRead for FilteredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if this.ready_read < this.ready.len() {
                return Poll::Ready(Ok(this.read_ready(buffer)));
            }
            let missing = this.filter.missing();
            let wanted = missing.unwrap_or(buffer.len()).min(buffer.len());
            let Some(target) = buffer.get_mut(..wanted).filter(|target| !target.is_empty()) else {
                return Poll::Ready(Ok(0));
            };
            let count = ready!(Pin::new(&mut this.stream).poll_read(cx, target))?;
            let Some(read) = target.get_mut(..count).filter(|read| !read.is_empty()) else {
                return Poll::Ready(Ok(0));
            };
            if missing.is_some() {
                if let Some(frame) = this.filter.complete(read) {
                    (this.ready, this.ready_read) = (frame, 0);
                }
                continue;
            }
            match this.filter.filter(read) {
                0 => {}
                passed => return Poll::Ready(Ok(passed)),
            }
        }
    }
}

impl AsyncWrite for FilteredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
        slices: &[io::IoSlice],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// tokio's reactor with filtered streams. lapin takes the type of its streams from the reactor.
#[derive(Debug, Clone)]
struct FilteringReactor(Tokio);

impl Reactor for FilteringReactor {
    type TcpStream = FilteredStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(FilteredStream::new(AsyncTcpStream::Plain(connecting.await?), IncomingMessages::default())) }
    }
}
