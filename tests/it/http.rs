//! The HTTP endpoints: which metrics exist from the start, and idle connections, wrong methods and a busy port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::{TestEnv, TestMessage};

#[tokio::test]
async fn every_series_exists_from_the_start_and_histograms_have_buckets() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let (status, text) = worker.get("/metrics");
    assert_eq!(status, 200);
    let label = format!("queue=\"{}\"", env.queue());
    for series in [
        "ticketlog_messages_received_total{redelivered=\"true\"} 0",
        "ticketlog_messages_settled_total{outcome=\"returned\"} 0",
        "ticketlog_dead_letters_total{reason=\"delivery_limit\"} 0",
        "ticketlog_batch_flushes_total{cause=\"drain\"} 0",
        "ticketlog_store_retries_total{kind=\"timeout\"} 0",
        "ticketlog_session_ends_total{cause=\"consumer_cancelled\"} 0",
        "ticketlog_store_write_duration_seconds_bucket{outcome=\"failed\",le=\"+Inf\"} 0",
        "ticketlog_event_to_stored_seconds_bucket{le=\"0.1\"} 0",
        "ticketlog_batch_events_count 0",
        "ticketlog_component_up{component=\"store\"} 1",
        "ticketlog_breaker_open 0",
        "ticketlog_messages_in_flight 0",
        "# TYPE ticketlog_store_write_duration_seconds histogram",
    ] {
        let series = match series.split_once(['{', ' ']) {
            Some((name, rest)) if series.contains('{') => format!("{name}{{{label},{rest}"),
            Some((name, value)) if !series.starts_with('#') => format!("{name}{{{label}}} {value}"),
            _ => series.to_owned(),
        };
        assert!(text.contains(&series), "{series}\n{text}");
    }
    for name in
        ["ticketlog_build_info", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"]
    {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    env.publish_all((0..50).map(TestMessage::numbered)).await;
    worker.wait_until_settled(50).await;
    assert!(worker.metrics()["ticketlog_store_write_duration_seconds_count{outcome=\"ok\"}"] >= 1.0);
    let status: serde_json::Value = serde_json::from_str(&worker.get("/status").1).unwrap();
    assert_eq!((status["ready"].as_bool(), status["components"]["broker"].as_str()), (Some(true), Some("ok")));
    assert_eq!(worker.get("/nothing").0, 404);
    env.clean().await;
}

#[tokio::test]
async fn idle_connections_and_wrong_methods_are_harmless() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let idle: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(worker.address()).unwrap()).collect();
    env.publish_all((0..200).map(TestMessage::numbered)).await;
    crate::harness::eventually("ingestion goes on", crate::harness::DEADLINE, async || env.count().await == 200).await;
    assert_eq!(worker.get("/readyz").0, 200, "a new connection is answered");
    drop(idle);
    let mut stream = TcpStream::connect(worker.address()).unwrap();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    env.clean().await;
}

#[tokio::test]
async fn status_shows_what_a_worker_does() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let event = |n| TestMessage::body(format!(r#"{{"uuid":"u-{n}","timestamp":{now}}}"#));
    env.publish_all((0..50).map(event)).await;
    env.publish(&TestMessage::body("nonsense")).await;
    worker.wait_until_settled(51).await;
    let address = format!("http://{}", worker.address());
    let status = |arguments: &[&str]| {
        let output = env.command().arg("status").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = status(&[&address]);
    assert!(code == Some(0) && text.contains("  ready  ") && text.contains("invalid_json: "), "{text}");
    assert!(text.contains(&format!("from queue    {} to {}.log", env.queue(), env.name)), "{text}");
    let (_, json) = status(&[&address, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["status"]["ready"], true);
    assert_eq!(json["in_flight"], 0);
    assert!(json["per_second"]["received"].is_number(), "{json}");
    assert!(json["event_to_stored_seconds"]["p50"].is_number(), "{json}");
    let numbers = &json["status"]["numbers"];
    assert_eq!(
        (&numbers["received"], &numbers["stored"], &numbers["dead_lettered"]),
        (&51.into(), &50.into(), &1.into())
    );
    let buckets = numbers["event_to_stored_seconds"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum::<u64>(), 50);
    let metrics = worker.metrics();
    assert_eq!(metrics["ticketlog_event_to_stored_seconds_count"], 50.0, "both count the same");
    assert!(json["seconds_since_stored"].as_f64().unwrap() < 60.0, "{json}");
    let (code, text) = status(&["http://127.0.0.1:9"]);
    assert!(code == Some(1) && text.contains("no worker answers"), "{text}");
    env.clean().await;
}

#[test]
fn a_busy_port_is_a_clear_error() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_ticketlog"))
        .args(["run", "--set", &format!("http.listen={address}")])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(&address) && text.contains("http.listen"), "{text}");
}
