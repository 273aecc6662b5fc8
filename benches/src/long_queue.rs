//! What a forgotten dead-letter queue costs those who look into it: time and peak memory of each command, and of the console; how soon
//! Ctrl-C ends a command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::page::{Block, Headlines};
use crate::programs::{mib, mib_of_running, must, number, roll_over_wal, server_pid, ticketlog};
use crate::run::Bench;

/// Bytes of a body.
const BODY: usize = 600;
/// Different causes, and different publishers.
const CAUSES: u64 = 100_000;
const PUBLISHERS: u64 = 10_000;
/// Messages whose confirms are awaited at a time.
const WINDOW: usize = 2000;

pub fn measure(bench: &Bench, _: &mut Headlines) {
    let count = number("BENCH_DEAD_LETTERS", 1_000_000);
    let name = bench.name();
    must(ticketlog(&name).arg("setup"));
    bench.runtime.block_on(fill(&name, count));
    roll_over_wal();
    bench.wait_until_idle();
    let mut block = Block::default();
    block.line(bench.provenance());
    block.line(&format!(
        "{count} dead letters of {BODY} bytes with {} causes from {} publishers; one run each, MiB at their peak\n",
        CAUSES.min(count),
        PUBLISHERS.min(count)
    ));
    block.line(&format!("{:<34}{:>9}{:>9}{:>14}", "", "seconds", "MiB", "RabbitMQ MiB"));
    let fingerprint = fingerprint(7);
    commands(bench, &name, &fingerprint, &mut block);
    bench.wait_until_idle();
    console(&name, &fingerprint, &mut block);
    bench.runtime.block_on(forget(&name));
    bench.forget(&name);
    block.write("long_queue");
}

/// The commands, each by itself; then some that are interrupted.
fn commands(bench: &Bench, name: &str, fingerprint: &str, block: &mut Block) {
    let archive = std::env::temp_dir().join(format!("{name}.ndjson"));
    let archive = archive.to_str().unwrap();
    for (row, arguments) in [
        ("dead stats", vec!["dead", "stats"]),
        ("dead stats --json", vec!["dead", "stats", "--json"]),
        ("dead list --limit 20", vec!["dead", "list", "--limit", "20"]),
        ("dead export", vec!["dead", "export", archive]),
        ("find --message-id", vec!["find", "--message-id", "00000007-7a59-4a53-8f0e-6b1d4c2e9f10"]),
        ("dead replay --fingerprint", vec!["dead", "replay", "--fingerprint", fingerprint, "--yes"]),
    ] {
        // RabbitMQ takes back what the last command has read.
        bench.wait_until_idle();
        let mut command = ticketlog(name);
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let (started, mut child) = (Instant::now(), command.spawn().unwrap());
        let peaks = peaks(&mut child);
        assert!(child.wait().unwrap().success(), "{arguments:?}");
        block.line(&format!("{row:<34}{:>9.1}{:>9.1}{:>14.0}", started.elapsed().as_secs_f64(), peaks[0], peaks[1]));
    }
    std::fs::remove_file(archive).unwrap();
    let replay = vec!["dead", "replay", "--fingerprint", fingerprint, "--yes"];
    for arguments in [vec!["dead", "stats"], vec!["dead", "export", archive], replay] {
        bench.wait_until_idle();
        let seconds = interrupted(name, &arguments);
        block.line(&format!("{:<34}{seconds:>9.2}", format!("Ctrl-C ends {}", arguments[..2].join(" "))));
    }
    // What was exported until then is there or not.
    let _ = std::fs::remove_file(archive);
}

/// How many seconds a command takes to end after Ctrl-C, in the middle of its reading.
fn interrupted(name: &str, arguments: &[&str]) -> f64 {
    let ours = ticketlog(name);
    // A shell starts what runs in the background with SIGINT ignored.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(ours.get_program());
    command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert!(child.try_wait().unwrap().is_none(), "{arguments:?} ended within 5 s: raise BENCH_DEAD_LETTERS");
    let started = Instant::now();
    must(Command::new("kill").args(["-INT", &child.id().to_string()]));
    child.wait().unwrap();
    started.elapsed().as_secs_f64()
}

/// The peaks of memory of a program until it ends, and of RabbitMQ meanwhile, in MiB.
fn peaks(child: &mut Child) -> [f64; 2] {
    let mut peaks = [0f64; 2];
    while child.try_wait().unwrap().is_none() {
        peaks = peaks_now(child.id(), peaks);
        std::thread::sleep(Duration::from_millis(20));
    }
    peaks
}

fn peaks_now(pid: u32, before: [f64; 2]) -> [f64; 2] {
    let own = mib_of_running(pid, "VmHWM:").unwrap_or(0.0);
    let broker = server_pid("RABBITMQ").map_or(f64::NAN, |pid| mib(pid, "VmRSS:"));
    [before[0].max(own), before[1].max(broker)]
}

/// The console: reading the queue, then its pages.
fn console(name: &str, fingerprint: &str, block: &mut Block) {
    let mut command = ticketlog(name);
    command.args(["console", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let address = address(&mut child);
    let filtered = format!("/dead-letters/list?fingerprint={fingerprint}");
    let mut row = |name: &str, path: &str| {
        let started = Instant::now();
        while !get(&address, path).contains("As read ") {
            std::thread::sleep(Duration::from_millis(50));
        }
        let peaks = peaks_now(child.id(), [0.0; 2]);
        block.line(&format!("{name:<34}{:>9.2}{:>9.1}{:>14.0}", started.elapsed().as_secs_f64(), peaks[0], peaks[1]));
    };
    read(&address);
    row("console: reading the queue", "/dead-letters");
    row("console: causes", "/dead-letters");
    row("console: list", "/dead-letters/list");
    row("console: list of one cause", &filtered);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Presses the button that reads the queue: a long one is read only if somebody asks for it.
fn read(address: &str) {
    let page = get(address, "/dead-letters");
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let form = format!("csrf={csrf}&queue=dead");
    let (kind, length) = ("Content-Type: application/x-www-form-urlencoded", form.len());
    send(address, &format!("POST /read HTTP/1.1\r\n{kind}\r\nContent-Length: {length}"), &form);
}

/// Where the console listens, which it prints.
fn address(child: &mut Child) -> String {
    let output: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    let (sender, addresses) = std::sync::mpsc::channel();
    for output in output {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(rest) = line.split("http://").nth(1) {
                    let _ = sender.send(rest.split('/').next().unwrap().to_owned());
                }
            }
        });
    }
    addresses.recv_timeout(Duration::from_secs(60)).expect("the console starts")
}

fn get(address: &str, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1"), "")
}

/// Sends a request with these first lines, and reads the answer to its end.
fn send(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{head}\r\nHost: {address}\r\nConnection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn fingerprint(n: u64) -> String {
    format!("{:016x}", n % CAUSES)
}

async fn channel() -> (Connection, Channel) {
    let broker = std::env::var("TICKETLOG_BROKER__URI").unwrap();
    let connection = Connection::connect(&broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Publishes dead letters into the queue, as a worker does.
async fn fill(name: &str, count: u64) {
    let (_connection, channel) = channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let queue = format!("{name}.dead");
    let mut confirms = FuturesUnordered::new();
    for n in 0..count {
        let (body, properties) = dead_letter(name, n);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await.unwrap();
        confirms.push(sent);
        if confirms.len() >= WINDOW {
            assert!(confirms.next().await.unwrap().unwrap().is_ack());
        }
    }
    while let Some(confirm) = confirms.next().await {
        assert!(confirm.unwrap().is_ack());
    }
}

async fn forget(name: &str) {
    let (_connection, channel) = channel().await;
    for queue in [name.to_owned(), format!("{name}.dead"), format!("{name}.parked")] {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

fn dead_letter(name: &str, n: u64) -> (Vec<u8>, BasicProperties) {
    let text = |text: String| AMQPValue::LongString(text.into());
    // Odd, so that no two ids are equal.
    let id = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C061) % (1 << 96);
    let mut headers = FieldTable::default();
    for (header, value) in [
        ("dl-version", AMQPValue::LongLongInt(1)),
        ("dl-id", text(format!("{:024x}", id))),
        ("dl-reason", text("invalid_json".to_owned())),
        ("dl-detail", text(format!("line 1, column {}: expected a comma or the end of the object", n % CAUSES))),
        ("dl-stage", text("decode".to_owned())),
        ("dl-time", AMQPValue::LongLongInt(1_796_000_000_000 + n as i64)),
        ("dl-exchange", text(name.to_owned())),
        ("dl-routing-key", text("ticket.purchase".to_owned())),
        ("dl-queue", text("bytemark.tickets.log".to_owned())),
        ("dl-worker", text("host/0.2.0".to_owned())),
        ("dl-fingerprint", text(fingerprint(n))),
    ] {
        headers.insert(header.into(), value);
    }
    let body = format!("{{\"user_id\":{n},\"status\":\"success\" \"note\":\"{}\"}}", "x".repeat(BODY - 60));
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(format!("{n:08x}-7a59-4a53-8f0e-6b1d4c2e9f10").into())
        .with_app_id(format!("publisher-{}", n % PUBLISHERS).into())
        .with_headers(headers);
    (body.into_bytes(), properties)
}
