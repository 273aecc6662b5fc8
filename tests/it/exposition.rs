//! The HTTP surface: what is there from the start, and that it stays there under abuse.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::{Bed, Sent};

#[tokio::test]
async fn every_series_is_there_from_the_start_and_histograms_are_real() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    worker.ready().await;
    let (status, text) = worker.get("/metrics");
    assert_eq!(status, 200);
    for series in [
        "ticketlog_messages_received_total{redelivered=\"true\"} 0",
        "ticketlog_messages_settled_total{outcome=\"returned\"} 0",
        "ticketlog_dead_letters_total{reason=\"delivery_limit\"} 0",
        "ticketlog_batch_flushes_total{cause=\"drain\"} 0",
        "ticketlog_store_retries_total{kind=\"timeout\"} 0",
        "ticketlog_session_ends_total{cause=\"cancelled\"} 0",
        "ticketlog_store_write_duration_seconds_bucket{outcome=\"failed\",le=\"+Inf\"} 0",
        "ticketlog_event_to_stored_seconds_bucket{le=\"0.1\"} 0",
        "ticketlog_batch_events_count 0",
        "ticketlog_dependency_up{part=\"store\"} 1",
        "ticketlog_breaker_open 0",
        "ticketlog_messages_in_flight 0",
        "# TYPE ticketlog_store_write_duration_seconds histogram",
    ] {
        assert!(text.contains(series), "{series}\n{text}");
    }
    for name in
        ["ticketlog_build_info", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"]
    {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    bed.publish_all((0..50).map(Sent::numbered)).await;
    worker.has_settled(50).await;
    assert!(worker.metrics()["ticketlog_store_write_duration_seconds_count{outcome=\"ok\"}"] >= 1.0);
    let status: serde_json::Value = serde_json::from_str(&worker.get("/status").1).unwrap();
    assert_eq!((status["ready"].as_bool(), status["parts"]["broker"].as_str()), (Some(true), Some("ok")));
    assert_eq!(worker.get("/nothing").0, 404);
    bed.clean().await;
}

#[tokio::test]
async fn idle_connections_and_wrong_methods_do_no_harm() {
    let bed = Bed::new().await;
    let worker = bed.worker().await;
    worker.ready().await;
    let idle: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(worker.address()).unwrap()).collect();
    bed.publish_all((0..200).map(Sent::numbered)).await;
    crate::harness::eventually("ingestion goes on", crate::harness::SOON, async || bed.count().await == 200).await;
    assert_eq!(worker.get("/readyz").0, 200, "and whoever asks gets an answer");
    drop(idle);
    let mut stream = TcpStream::connect(worker.address()).unwrap();
    stream.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    bed.clean().await;
}

#[test]
fn a_busy_port_is_a_clear_error() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_ticketlog"))
        .args(["run", "--set", &format!("http.listen={address}")])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains(&address) && said.contains("http.listen"), "{said}");
}
