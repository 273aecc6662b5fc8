//! Owns a TCP proxy that causes faults at a chosen AMQP frame or MongoDB message: it cuts the connection before, within
//! or after it, drops it, or stops forwarding. It runs on a thread of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The frame at which the proxy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// An AMQP method, by class and method id, from the client.
    FromClient(u16, u16),
    /// An AMQP method from the broker, likewise.
    FromBroker(u16, u16),
    /// An AMQP frame with (a part of) the body of a message from the broker.
    BodyFromBroker,
    /// MongoDB's reply to a command of this name.
    Reply(&'static str),
}

/// `basic.ack` in AMQP 0-9-1, section 1.8.3.13.
pub const ACK: (u16, u16) = (60, 80);
/// `basic.publish`.
pub const PUBLISH: (u16, u16) = (60, 40);
/// `basic.deliver`.
pub const DELIVER: (u16, u16) = (60, 60);

/// What the proxy does at the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    CutBefore,
    CutAfter,
    /// Forwards half of it, then resets the connection.
    CutWithin,
    /// Drops it; what follows is forwarded.
    Swallow,
    /// From then on nothing is forwarded in either direction, and no connection is closed.
    Silence,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    frame: Frame,
    action: Action,
    skip: u32,
    times: u32,
}

#[derive(Debug, Default)]
struct Plan {
    rule: Option<Rule>,
    triggered: u32,
    delay: Duration,
    piece: usize,
}

/// The state of all connections: how often they were cut, and whether they are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkState {
    cuts: u32,
    silent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Amqp,
    Mongo,
}

struct Shared {
    protocol: Protocol,
    plan: Mutex<Plan>,
    link: watch::Sender<LinkState>,
}

/// A proxy in front of one server.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// A proxy in front of the server at this URI.
    pub fn in_front_of(uri: &str) -> Self {
        let url = url::Url::parse(first_of(uri)).unwrap();
        let protocol = if url.scheme() == "amqp" { Protocol::Amqp } else { Protocol::Mongo };
        Proxy::start(url.port().unwrap(), protocol)
    }

    fn start(target: u16, protocol: Protocol) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (link, _) = watch::channel(LinkState { cuts: 0, silent: false });
        let shared = Arc::new(Shared { protocol, plan: Mutex::default(), link });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::clone(&shared);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target, Arc::clone(&inner)));
            }
        });
        Proxy { port, shared, runtime: Some(runtime) }
    }

    /// The URI of the server, with the port of the proxy.
    pub fn proxied_uri(&self, uri: &str) -> String {
        let mut url = url::Url::parse(first_of(uri)).unwrap();
        if url.scheme() == "mongodb" {
            url.set_query(Some("directConnection=true"));
        }
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }

    /// Acts at the frame `times` times, after the first `skip` of them have passed.
    pub fn at(&self, frame: Frame, action: Action, skip: u32, times: u32) {
        let mut plan = self.shared.plan.lock().unwrap();
        plan.rule = Some(Rule { frame, action, skip, times });
        plan.triggered = 0;
    }

    /// How often it has acted.
    pub fn times_triggered(&self) -> u32 {
        self.shared.plan.lock().unwrap().triggered
    }

    /// Ends the actions and the delays; silent connections stay silent.
    pub fn reset(&self) {
        let mut plan = self.shared.plan.lock().unwrap();
        plan.rule = None;
        (plan.delay, plan.piece) = (Duration::ZERO, 0);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.shared.link.send_modify(|link| link.cuts += 1);
    }

    /// If silent, forwards nothing and closes nothing.
    pub fn silence(&self, silent: bool) {
        self.shared.link.send_modify(|link| link.silent = silent);
    }

    /// Delays every piece of a frame. Pieces have this many bytes; with 0 a frame is one piece.
    pub fn slow(&self, delay: Duration, piece: usize) {
        let mut plan = self.shared.plan.lock().unwrap();
        (plan.delay, plan.piece) = (delay, piece);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The first node of a cluster of brokers.
pub fn first_of(uris: &str) -> &str {
    uris.split(",amqp").next().unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// The MongoDB requests of one connection that have no reply yet: their ids and commands.
type Pending = Arc<Mutex<HashMap<i32, String>>>;

async fn connect(client: TcpStream, target: u16, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let pending = Pending::default();
    let up = forward(from_client, to_server, Sender::Client, Arc::clone(&shared), Arc::clone(&pending));
    let down = forward(from_server, to_client, Sender::Server, shared, pending);
    // When one direction ends, both do.
    tokio::select! { () = up => {}, () = down => {} }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    sender: Sender,
    shared: Arc<Shared>,
    pending: Pending,
) {
    let mut link = shared.link.subscribe();
    let cuts_at_start = link.borrow().cuts;
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = tokio::select! {
            read = from.read(&mut chunk) => match read { Ok(0) | Err(_) => return, Ok(count) => count },
            _ = link.wait_for(|link| link.cuts != cuts_at_start) => return,
        };
        buffer.extend_from_slice(&chunk[..count]);
        while let Some(length) = frame_length(&buffer, shared.protocol) {
            let frame: Vec<u8> = buffer.drain(..length).collect();
            if link.wait_for(|link| !link.silent || link.cuts != cuts_at_start).await.is_err() {
                return;
            }
            match action_at(&frame, sender, &shared, &pending) {
                None => write(&mut to, &frame, &shared).await,
                Some(Action::Swallow) => {}
                Some(Action::CutBefore) => return,
                Some(Action::CutAfter) => return write(&mut to, &frame, &shared).await,
                Some(Action::CutWithin) => {
                    write(&mut to, &frame[..length / 2], &shared).await;
                    #[allow(deprecated)]
                    let _ = to.as_ref().set_linger(Some(Duration::ZERO));
                    return;
                }
                Some(Action::Silence) => shared.link.send_modify(|link| link.silent = true),
            }
        }
    }
}

async fn write(to: &mut OwnedWriteHalf, frame: &[u8], shared: &Shared) {
    let (delay, size) = {
        let plan = shared.plan.lock().unwrap();
        (plan.delay, plan.piece)
    };
    for piece in frame.chunks(if size == 0 { frame.len().max(1) } else { size }) {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let _ = to.write_all(piece).await;
    }
}

/// The length of the frame or message that the bytes begin with, if it is complete.
fn frame_length(bytes: &[u8], protocol: Protocol) -> Option<usize> {
    let length = match (protocol, bytes) {
        (Protocol::Amqp, [b'A', b'M', b'Q', b'P', ..]) => 8,
        (Protocol::Amqp, [_, _, _, a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]) as usize + 8,
        (Protocol::Mongo, [a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => return None,
    };
    (bytes.len() >= length).then_some(length)
}

fn action_at(bytes: &[u8], sender: Sender, shared: &Shared, pending: &Pending) -> Option<Action> {
    let parsed = parse(bytes, sender, shared.protocol, pending);
    let mut plan = shared.plan.lock().unwrap();
    let rule = plan.rule.as_mut()?;
    let matches = match (rule.frame, &parsed) {
        (Frame::FromClient(class, method), Parsed::Method(a, b)) => {
            sender == Sender::Client && (class, method) == (*a, *b)
        }
        (Frame::FromBroker(class, method), Parsed::Method(a, b)) => {
            sender == Sender::Server && (class, method) == (*a, *b)
        }
        (Frame::BodyFromBroker, Parsed::Body) => sender == Sender::Server,
        (Frame::Reply(name), Parsed::Reply(command)) => name == command,
        _ => false,
    };
    if !matches || rule.times == 0 {
        return None;
    }
    if rule.skip > 0 {
        rule.skip -= 1;
        return None;
    }
    rule.times -= 1;
    let action = rule.action;
    plan.triggered += 1;
    Some(action)
}

enum Parsed {
    Method(u16, u16),
    Body,
    Reply(String),
    Other,
}

fn parse(frame: &[u8], sender: Sender, protocol: Protocol, pending: &Pending) -> Parsed {
    if protocol == Protocol::Mongo {
        let number = |at: usize| i32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        if sender == Sender::Server {
            return pending.lock().unwrap().remove(&number(8)).map_or(Parsed::Other, Parsed::Reply);
        }
        // The name of the document's first element, after header, flags, kind of section, length and type.
        if let Some(name) = frame.get(26..).and_then(|rest| rest.split(|byte| *byte == 0).next()) {
            pending.lock().unwrap().insert(number(4), String::from_utf8_lossy(name).into_owned());
        }
        return Parsed::Other;
    }
    match frame {
        [1, _, _, _, _, _, _, a, b, c, d, ..] => {
            Parsed::Method(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        [3, ..] => Parsed::Body,
        _ => Parsed::Other,
    }
}
