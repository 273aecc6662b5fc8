//! Owns a TCP proxy that understands AMQP frames and MongoDB messages well enough to fail at a chosen one: cut before or
//! after it, in the middle of it, swallow it, or go silent. It runs on a thread of its own, whatever the test does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which frame is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An AMQP method, by class and method id, from the client.
    Sent(u16, u16),
    /// An AMQP method from the broker.
    Received(u16, u16),
    /// MongoDB's reply to a command of this name.
    Reply(&'static str),
}

/// `basic.ack` in AMQP 0-9-1, section 1.8.3.13.
pub const ACK: (u16, u16) = (60, 80);
/// `basic.publish`.
pub const PUBLISH: (u16, u16) = (60, 40);
/// `basic.deliver`.
pub const DELIVER: (u16, u16) = (60, 60);

/// What happens at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    CutBefore,
    CutAfter,
    /// Half of it arrives, then a reset.
    CutWithin,
    /// It is lost; what follows is not.
    Swallow,
    /// From it on nothing is forwarded in either direction, and nothing closed.
    Silence,
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    what: What,
    act: Act,
    skip: u32,
    times: u32,
}

#[derive(Debug, Default)]
struct Plan {
    rule: Option<Rule>,
    hits: u32,
    delay: Duration,
    slice: usize,
}

/// The state of all connections: a number that counts cuts, and whether they are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
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
    line: watch::Sender<Line>,
}

/// A proxy in front of one server.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// In front of the server that a URI names.
    pub fn before(uri: &str) -> Self {
        let url = url::Url::parse(uri).unwrap();
        let protocol = if url.scheme() == "amqp" { Protocol::Amqp } else { Protocol::Mongo };
        Proxy::start(url.port().unwrap(), protocol)
    }

    fn start(target: u16, protocol: Protocol) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (line, _) = watch::channel(Line { cuts: 0, silent: false });
        let shared = Arc::new(Shared { protocol, plan: Mutex::default(), line });
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

    /// The URI of a server, by way of the proxy.
    pub fn through(&self, uri: &str) -> String {
        let mut url = url::Url::parse(uri).unwrap();
        if url.scheme() == "mongodb" {
            url.set_query(Some("directConnection=true"));
        }
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }

    /// Acts at the frame, `times` times, after it has passed `skip` times.
    pub fn at(&self, what: What, act: Act, skip: u32, times: u32) {
        let mut plan = self.shared.plan.lock().unwrap();
        plan.rule = Some(Rule { what, act, skip, times });
        plan.hits = 0;
    }

    /// How often it has acted.
    pub fn hits(&self) -> u32 {
        self.shared.plan.lock().unwrap().hits
    }

    /// No more acts; silent connections stay silent.
    pub fn behave(&self) {
        let mut plan = self.shared.plan.lock().unwrap();
        plan.rule = None;
        (plan.delay, plan.slice) = (Duration::ZERO, 0);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.shared.line.send_modify(|line| line.cuts += 1);
    }

    /// Forwards nothing, and closes nothing.
    pub fn silence(&self, silent: bool) {
        self.shared.line.send_modify(|line| line.silent = silent);
    }

    /// Every chunk waits so long, and comes in pieces of so many bytes (0: as it is).
    pub fn slow(&self, delay: Duration, slice: usize) {
        let mut plan = self.shared.plan.lock().unwrap();
        (plan.delay, plan.slice) = (delay, slice);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

/// Requests of one connection that wait for their replies: id and name.
type Asked = Arc<Mutex<HashMap<i32, String>>>;

async fn connect(client: TcpStream, target: u16, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let asked = Asked::default();
    let up = forward(from_client, to_server, From::Client, Arc::clone(&shared), Arc::clone(&asked));
    let down = forward(from_server, to_client, From::Server, shared, asked);
    // The end of one direction is the end of both.
    tokio::select! { () = up => {}, () = down => {} }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, side: From, shared: Arc<Shared>, asked: Asked) {
    let mut line = shared.line.subscribe();
    let born = line.borrow().cuts;
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = tokio::select! {
            read = from.read(&mut chunk) => match read { Ok(0) | Err(_) => return, Ok(count) => count },
            _ = line.wait_for(|line| line.cuts != born) => return,
        };
        buffer.extend_from_slice(&chunk[..count]);
        while let Some(length) = frame(&buffer, shared.protocol) {
            let frame: Vec<u8> = buffer.drain(..length).collect();
            if line.wait_for(|line| !line.silent || line.cuts != born).await.is_err() {
                return;
            }
            match act(&frame, side, &shared, &asked) {
                None => write(&mut to, &frame, &shared).await,
                Some(Act::Swallow) => {}
                Some(Act::CutBefore) => return,
                Some(Act::CutAfter) => return write(&mut to, &frame, &shared).await,
                Some(Act::CutWithin) => {
                    write(&mut to, &frame[..length / 2], &shared).await;
                    #[allow(deprecated)]
                    let _ = to.as_ref().set_linger(Some(Duration::ZERO));
                    return;
                }
                Some(Act::Silence) => shared.line.send_modify(|line| line.silent = true),
            }
        }
    }
}

async fn write(to: &mut OwnedWriteHalf, frame: &[u8], shared: &Shared) {
    let (delay, slice) = {
        let plan = shared.plan.lock().unwrap();
        (plan.delay, plan.slice)
    };
    for piece in frame.chunks(if slice == 0 { frame.len().max(1) } else { slice }) {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let _ = to.write_all(piece).await;
    }
}

/// Length of the frame or message that the bytes begin with, once it is complete.
fn frame(bytes: &[u8], protocol: Protocol) -> Option<usize> {
    let length = match (protocol, bytes) {
        (Protocol::Amqp, [b'A', b'M', b'Q', b'P', ..]) => 8,
        (Protocol::Amqp, [_, _, _, a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]) as usize + 8,
        (Protocol::Mongo, [a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => return None,
    };
    (bytes.len() >= length).then_some(length)
}

fn act(frame: &[u8], side: From, shared: &Shared, asked: &Asked) -> Option<Act> {
    let seen = describe(frame, side, shared.protocol, asked);
    let mut plan = shared.plan.lock().unwrap();
    let rule = plan.rule.as_mut()?;
    let meant = match (rule.what, &seen) {
        (What::Sent(class, method), Seen::Method(a, b)) => side == From::Client && (class, method) == (*a, *b),
        (What::Received(class, method), Seen::Method(a, b)) => side == From::Server && (class, method) == (*a, *b),
        (What::Reply(name), Seen::Reply(to)) => name == to,
        _ => false,
    };
    if !meant || rule.times == 0 {
        return None;
    }
    if rule.skip > 0 {
        rule.skip -= 1;
        return None;
    }
    rule.times -= 1;
    let act = rule.act;
    plan.hits += 1;
    Some(act)
}

enum Seen {
    Method(u16, u16),
    Reply(String),
    Other,
}

fn describe(frame: &[u8], side: From, protocol: Protocol, asked: &Asked) -> Seen {
    if protocol == Protocol::Mongo {
        let number = |at: usize| i32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        if side == From::Server {
            return asked.lock().unwrap().remove(&number(8)).map_or(Seen::Other, Seen::Reply);
        }
        // Header, flags, kind of section, length of the document, type of its first element: then its name.
        if let Some(name) = frame.get(26..).and_then(|rest| rest.split(|byte| *byte == 0).next()) {
            asked.lock().unwrap().insert(number(4), String::from_utf8_lossy(name).into_owned());
        }
        return Seen::Other;
    }
    match frame {
        [1, _, _, _, _, _, _, a, b, c, d, ..] => {
            Seen::Method(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => Seen::Other,
    }
}
