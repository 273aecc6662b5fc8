//! `ticketlog status` where a name or an address stands for several workers.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{TestEnv, Worker};

/// Two workers with this port, at 127.0.0.1 and 127.0.0.2.
async fn two_workers(env: &TestEnv) -> (u16, [Worker; 2]) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = async |ip: &str| env.worker_with(&[("HTTP__LISTEN", &format!("{ip}:{port}"))]).await;
    let workers = [listen("127.0.0.1").await, listen("127.0.0.2").await];
    for worker in &workers {
        worker.wait_until_ready().await;
    }
    (port, workers)
}

fn status(mut command: Command) -> Vec<Value> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn process(worker: &Value) -> &str {
    worker["status"]["process"].as_str().unwrap()
}

#[tokio::test]
async fn a_name_with_several_addresses_stands_for_a_worker_at_each() {
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare -m is not allowed here, so no name can be given two addresses");
        return;
    }
    let env = TestEnv::new().await;
    let (port, workers) = two_workers(&env).await;
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), "127.0.0.1 workers\n127.0.0.2 workers\n127.0.0.1 localhost\n").unwrap();
    let own = env.command();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"";
    command.args(["-m", "sh", "-c", script, "sh", hosts.path().to_str().unwrap()]).arg(own.get_program());
    command.args(["status", "--json", &format!("http://workers:{port}")]);
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let [first, second] = status(command).try_into().unwrap();
    assert_eq!(first["worker"], format!("http://127.0.0.1:{port}/"));
    assert_eq!(second["worker"], format!("http://127.0.0.2:{port}/"));
    assert_ne!(process(&first), process(&second));
    assert!(first["per_second"]["received"].is_number() && second["per_second"]["received"].is_number(), "{first}");
    drop(workers);
    env.clean().await;
}

#[tokio::test]
async fn two_workers_behind_one_address_are_never_mixed_in_one_rate() {
    let env = TestEnv::new().await;
    let (port, workers) = two_workers(&env).await;
    // Gives every connection to the other worker.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let next = AtomicUsize::new(0);
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let host = ["127.0.0.1", "127.0.0.2"][next.fetch_add(1, Ordering::Relaxed) % 2];
            tokio::spawn(async move {
                let mut server = TcpStream::connect((host, port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let run = async |arguments: &[&str]| {
        let mut command = env.command();
        command.arg("status").args(arguments).arg(&address).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let json: Value = serde_json::from_slice(&run(&["--json"]).await.stdout).unwrap();
    assert!(json["per_second"]["received"].is_null() && json["per_second"]["stored"].is_null(), "{json}");
    assert_eq!(json["in_flight"], 0, "the numbers of the last worker are known: {json}");
    let text = String::from_utf8(run(&[]).await.stdout).unwrap();
    assert!(text.contains("another worker has answered here before") && text.contains("? received"), "{text}");
    drop(workers);
    env.clean().await;
}

/// What a worker of 0.2.0 answers at `/status`.
const STATUS_OF_0_2_0: &str = r#"{
  "collection": "cache.bytemark_tickets_log",
  "components": { "breaker": "ok", "broker": "ok", "dead_letter": "ok", "store": "MongoDB does not answer" },
  "last_dead_letters": [{ "cause": "invalid_json", "detail": "at line 1", "id": "6b02f3f4420785e629d6b8be", "time": 0 }],
  "queue": "bytemark.tickets.log", "ready": false, "replays": {}, "uptime_seconds": 7200, "version": "0.2.0", "warnings": []
}"#;

#[tokio::test]
async fn a_worker_of_the_previous_release_is_shown_without_its_numbers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n", STATUS_OF_0_2_0.len());
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(format!("{head}\r\n{STATUS_OF_0_2_0}").as_bytes()).await;
        }
    });
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        command.arg("status").args(arguments).arg(&address).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let output = run(&[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in [
        "not ready  up 2h, version 0.2.0",
        "from queue    bytemark.tickets.log to cache.bytemark_tickets_log",
        "note          this worker is older than this command and does not tell its numbers here",
        "store: MongoDB does not answer",
        "invalid_json: at line 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("another worker"), "{text}");
    let json: Value = serde_json::from_slice(&run(&["--json"]).await.stdout).unwrap();
    assert_eq!(json["status"]["version"], "0.2.0");
    assert_eq!(json["status"]["components"]["store"], "MongoDB does not answer");
    assert!(json["per_second"]["received"].is_null() && json["backlog"].is_null(), "{json}");
}
