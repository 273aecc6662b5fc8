//! Stored events that are probably mistakes: who is told of them, and who is not.

use lapin::BasicProperties;

use crate::harness::{TestEnv, TestMessage};

fn message(app_id: &str, body: &str, seconds: u64) -> TestMessage {
    let properties =
        BasicProperties::default().with_timestamp(seconds).with_message_id(format!("{app_id}-{seconds}").into());
    let properties = if app_id.is_empty() { properties } else { properties.with_app_id(app_id.into()) };
    TestMessage { properties, ..TestMessage::body(body) }
}

#[tokio::test]
async fn a_mistake_of_units_is_the_publishers_and_pages_nobody() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let seconds = now / 1000;
    let event = |time: u64| format!(r#"{{"user_id":42,"timestamp":{time},"status":"ok"}}"#);
    let two_days = 2 * 86_400_000;
    env.publish(&message("fine", &event(now), seconds)).await;
    for (app_id, time) in [("micros", now * 1000), ("secs", seconds), ("ticks", 639_000_000_000_000_000)] {
        env.publish(&message(app_id, &event(time), seconds)).await;
    }
    env.publish(&message("ahead", &event(now + two_days), seconds)).await;
    env.publish(&message("property", &event(now), now)).await;
    env.publish(&message("", &event(now), seconds)).await;
    env.publish(&message("fine", &format!(r#"{{"userId":42,"timestamp":{now}}}"#), seconds - 1)).await;
    worker.wait_until_settled(8).await;
    assert_eq!(worker.settled("stored"), 8, "they are stored all the same");

    let metrics = worker.metrics();
    let suspects = |kind: &str, publisher: &str| {
        metrics.get(&format!("ticketlog_suspect_events_total{{kind=\"{kind}\",publisher=\"{publisher}\"}}")).copied()
    };
    for (kind, publisher) in [
        ("timestamp_unit", "micros"),
        ("timestamp_unit", "secs"),
        ("timestamp_unit", "ticks"),
        ("timestamp_ahead", "ahead"),
        ("property_timestamp_unit", "property"),
        ("no_app_id", "unknown"),
        ("field_name", "fine"),
    ] {
        assert_eq!(suspects(kind, publisher), Some(1.0), "{kind} {publisher}: {metrics:?}");
        let line = worker.log().lines().filter(|line| line.contains(kind) && line.contains(publisher)).count();
        assert_eq!(line, 1, "{kind} {publisher}: {}", worker.log());
    }
    assert_eq!(metrics["ticketlog_event_to_stored_seconds_count"], 4.0, "only plausible times have a latency");
    assert_eq!(metrics["ticketlog_publish_to_stored_seconds_count"], 7.0);
    assert!(metrics["ticketlog_clock_skew_seconds{against=\"events\"}"] < 60.0, "{metrics:?}");
    assert!(!worker.log().contains(&(now * 1000).to_string()), "no value is logged");

    let (_, status) = worker.get("/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["suspect_events"].as_array().unwrap().len(), 7, "{status}");
    let shown = env.command().args(["status", &format!("http://{}", worker.address())]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("1 timestamp_unit of micros"));
    let tailed = env.command().args(["tail", "--suspect", "--since", "10min", "--limit", "5"]).output().unwrap();
    let (out, notes) = (String::from_utf8(tailed.stdout).unwrap(), String::from_utf8(tailed.stderr).unwrap());
    assert_eq!(out.lines().count(), 5, "{out}");
    assert!(notes.contains("timestamp_unit: ") && notes.contains("\"userId\" looks like user_id"), "{notes}");
    env.clean().await;
}
