//! `ticketlog tail`: what is being stored, from now on or from a time ago, with conditions.

use std::process::Stdio;

use serde_json::Value;

use crate::harness::{DEADLINE, TestEnv, TestMessage, eventually};

#[tokio::test]
async fn what_is_stored_is_printed_as_it_was_sent_and_safe_for_a_terminal() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    let values = [
        r#"{"$oid":"zz"}"#,
        r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
        r#"{"$date":5}"#,
        r#"{"$numberLong":"x"}"#,
        r#"{"$numberDecimal":"x"}"#,
        r#"{"$binary":1}"#,
        r#"{"$regularExpression":{"pattern":1}}"#,
        r#"{"$timestamp":{"t":-1}}"#,
        r#"{"$uuid":"x"}"#,
        r#"{"$minKey":2}"#,
        r#"{"$code":{}}"#,
        r#"{"$dbPointer":{}}"#,
        r#"{"z":18446744073709551615,"a":-0.0,"$":[]}"#,
        "\"\u{9b}31m\u{202e}\u{61c}\u{7f}\\u001b]0;owned\\u0007\"",
    ];
    env.publish_all(values.map(|value| TestMessage::body(format!("{{\"d\":{value},\"user_id\":42.0}}")))).await;
    worker.wait_until_settled(values.len() as u64).await;
    let limit = values.len().to_string();
    let arguments = ["tail", "--since", "10min", "--where", "user_id=42", "--limit", &limit];
    let output = env.command().args(arguments).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut printed: Vec<&str> = out.lines().map(|line| line.split_once(",\"d\":").unwrap().1).collect();
    let escaped = "\"\\u009b31m\\u202e\\u061c\\u007f\\u001b]0;owned\\u0007\"";
    let mut expected: Vec<String> = values.iter().map(|value| format!("{value},\"user_id\":42.0}}")).collect();
    expected[values.len() - 1] = format!("{escaped},\"user_id\":42.0}}");
    printed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(printed, expected);
    worker.stop().await;
    env.clean().await;
}

#[tokio::test]
async fn tail_prints_what_is_stored() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    worker.wait_until_ready().await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["tail", "--where", "user_id=42", "--where", "a.b=x", "--limit", "2"];
    let mut follower = env.command();
    follower.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
    let follower = follower.spawn().unwrap();
    eventually("it follows", DEADLINE, async || std::fs::read_to_string(log.path()).unwrap().contains("following"))
        .await;
    let event = |user: &str, b: &str, n: i32| {
        TestMessage::body(format!("{{\"user_id\":{user},\"a\":{{\"b\":\"{b}\"}},\"n\":{n}}}"))
    };
    for (user, b, n) in [("42", "x", 1), ("43", "x", 2), ("42", "y", 3), ("\"42\"", "x", 4)] {
        env.publish(&event(user, b, n)).await;
    }
    worker.wait_until_settled(4).await;
    let output = tokio::task::spawn_blocking(|| follower.wait_with_output()).await.unwrap().unwrap();
    let lines = |output: &[u8]| -> Vec<Value> {
        String::from_utf8_lossy(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let printed = lines(&output.stdout);
    assert_eq!((output.status.code(), printed.len()), (Some(0), 2), "{printed:?}");
    assert_eq!((&printed[0]["n"], &printed[1]["n"], &printed[1]["user_id"]), (&1.into(), &4.into(), &42.into()));
    assert!(printed[0]["_id"]["$oid"].is_string(), "{printed:?}");
    let past = env.command().args(["tail", "--since", "10min", "--limit", "4"]).output().unwrap();
    assert_eq!(lines(&past.stdout).len(), 4, "{past:?}");
    worker.stop().await;
    env.clean().await;
}
