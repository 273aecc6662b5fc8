//! A replay ends when too many of its messages have been dead-lettered again, so that a wrong edit costs few of them.

use lapin::BasicProperties;
use serde_json::Value;

use crate::harness::TestEnv;

/// Dead letters that every worker rejects again.
async fn with_bad_dead_letters(count: i32) -> TestEnv {
    let env = TestEnv::new().await;
    let dead_letter = |n: i32| {
        let headers = env.headers(&format!("id-{n}"), "invalid_field", n);
        (format!("{{\"user_id\":[{n}]}}").into_bytes(), BasicProperties::default().with_headers(headers))
    };
    env.publish_dead_letters((0..count).map(dead_letter)).await;
    env
}

async fn replay(env: &TestEnv, address: &str, more: &[&str]) -> (Option<i32>, Value, String) {
    let arguments = ["replay", "--yes", "--follow", "--json", "--status", address, "--stop-after", "10"];
    let output = env.dead_command(&[&arguments[..], more].concat()).await;
    (output.code, output.json().first().cloned().unwrap_or_default(), output.err)
}

#[tokio::test]
async fn a_replay_ends_when_as_many_are_dead_lettered_again() {
    let env = with_bad_dead_letters(300).await;
    let worker = env.worker().await;
    let address = format!("http://{}", worker.address());
    let audit = tempfile::NamedTempFile::new().unwrap();
    let (code, summary, notes) = replay(&env, &address, &["--audit-file", audit.path().to_str().unwrap()]).await;
    assert_eq!(code, Some(65), "{summary} {notes}");
    let replayed = summary["replayed"].as_u64().unwrap();
    let again = summary["outcome"]["dead_lettered_again"]["invalid_field user_id"].as_u64().unwrap();
    assert!((10..20).contains(&replayed) && again == replayed, "{summary} {notes}");
    assert!(notes.contains("ended early: 1") && notes.contains("The rest is in the queue as it was"), "{notes}");
    let lines = std::fs::read_to_string(audit.path()).unwrap();
    assert!(lines.lines().last().unwrap().contains("\"stopped\":true"), "{lines}");
    env.wait_for_depth(&env.dead_letter_queue(), 300).await;
    env.dead_command_succeeds(&["purge", "--yes", "--no-backup"]).await;
    env.publish_good_dead_letters(300).await;
    let (code, summary, notes) = replay(&env, &address, &[]).await;
    assert_eq!((code, &summary["outcome"]["stored"]), (Some(0), &300.into()), "{summary} {notes}");
    env.assert_exactly(300).await;
    env.clean().await;
}

#[tokio::test]
async fn a_replay_ends_if_nobody_tells_its_outcomes() {
    let env = with_bad_dead_letters(30).await;
    let (code, _, notes) = replay(&env, "http://127.0.0.1:1", &["--follow-timeout", "1s"]).await;
    assert!(code == Some(75) && notes.contains("no worker has told an outcome for 1.0 s"), "{code:?} {notes}");
    assert_eq!((env.depth(&env.dead_letter_queue()).await, env.depth(&env.queue()).await), (20, 10));
    env.clean().await;
}

#[tokio::test]
async fn the_console_ends_a_replay_likewise() {
    let env = with_bad_dead_letters(300).await;
    let worker = env.worker().await;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    let address = format!("http://{}", worker.address());
    let console = env.console(&["--allow", "replay,edit", "--state-dir", state, "--worker", &address]).await;
    let (forecast, page) = console.job("/forecast", &[("reason", "invalid_field")], "Replay 300").await;
    assert!(page.body.contains("name=\"stop_after\"") && page.body.contains("value=\"100\""), "{}", page.body);
    let forecast = forecast.rsplit('/').next().unwrap();
    let wrong = console.post("/replay", &[("forecast", forecast), ("stop_after", "0")]);
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let (_, page) = console.job("/replay", &[("forecast", forecast), ("stop_after", "10")], "ended early: 1").await;
    assert!(page.body.contains("The rest is in the queue as it was"), "{}", page.body);
    env.wait_for_depth(&env.dead_letter_queue(), 300).await;
    env.clean().await;
}
