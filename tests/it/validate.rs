//! `ticketlog validate` as publishers' tests and CI use it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn validate(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
    command.arg("validate").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn notes(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const FINE: &[u8] = br#"{"user_id":42,"timestamp":1790000000000,"uuid":"a","status":"ok"}"#;
const SECONDS: &[u8] = br#"{"user_id":42,"timestamp":1790000000,"uuid":"a","status":"ok"}"#;

#[test]
fn what_is_found_is_a_warning_and_with_strict_a_failure() {
    let warned = validate(&[], SECONDS);
    assert_eq!(warned.status.code(), Some(0));
    let text = out(&warned);
    let (first, summary) = text.trim_end().split_once('\n').unwrap();
    assert!(first.starts_with("-:1: warning: timestamp_unit: 1790000000 is 1970-01-21 (seconds instead of"), "{first}");
    assert_eq!(summary, "1 would be stored (1 with warnings), 0 would become dead letters");
    assert_eq!(validate(&["--strict"], SECONDS).status.code(), Some(65));
    assert_eq!(validate(&["--strict"], FINE).status.code(), Some(0));
    assert_eq!(validate(&["--strict", "--app-id", ""], FINE).status.code(), Some(65));
    assert_eq!(validate(&["--strict", "--timestamp", "1790000000000"], FINE).status.code(), Some(65));
    let anonymous = validate(&[], br#"{"user_id":42,"timestamp":1790000000000}"#);
    assert!(out(&anonymous).contains("1 would be stored (1 without identity, 1 with warnings)"), "{anonymous:?}");
    assert!(validate(&["--message-id", "m", "--strict"], br#"{"timestamp":1790000000000}"#).status.success());
}

#[test]
fn every_fault_of_a_message_is_listed_with_its_column() {
    let output = validate(&[], b"{\"_id\":\"x\",\"user_id\":[],\"timestamp\":\"2026-11-30\"}\n{\"a\":NaN}\n");
    insta::assert_snapshot!(out(&output), @"
    -:1: invalid_id: _id must be null or a string of 24 hexadecimal digits
    -:1: invalid_field: timestamp expects a Number, found a date as text; send milliseconds since 1970 (JavaScript: getTime(), Python: int(t.timestamp() * 1000))
    -:1: invalid_field: user_id expects a Number, found an array
    -:2: invalid_json: not JSON: NaN or Infinity; send null (Python: json.dumps(…, allow_nan=False) finds them), at column 6
    0 would be stored, 2 would become dead letters
    ");
    let output = validate(&["--format", "json"], b"{\"_id\":\"x\",\"user_id\":[]}\n");
    let json: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!((json["reason"].as_str(), json["faults"][1]["field"].as_str()), (Some("invalid_id"), Some("user_id")));
}

#[test]
fn an_empty_input_a_missing_file_and_a_file_of_another_shape_are_explained() {
    let empty = validate(&[], b"\n");
    assert!(empty.status.code() == Some(65) && notes(&empty).contains("--allow-empty"), "{empty:?}");
    assert_eq!(validate(&["--allow-empty"], b"").status.code(), Some(0));

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = validate(&["/no/such/file", &file("seconds", SECONDS)], b"");
    assert_eq!(missing.status.code(), Some(66));
    assert!(notes(&missing).contains("/no/such/file") && out(&missing).contains("timestamp_unit"), "{missing:?}");

    let pretty = file("pretty", b"{\n  \"user_id\": 42\n}\n");
    let hinted = validate(&[&pretty], b"");
    assert!(notes(&hinted).contains("--whole") && out(&hinted).lines().count() == 2, "{hinted:?}");
    assert_eq!(validate(&["--whole", &pretty], b"").status.code(), Some(0));
    for array in [&b"[\n  {\"user_id\": 42}\n]\n"[..], b"[{\"user_id\":42}]"] {
        let hinted = validate(&[&file("array", array)], b"");
        assert!(notes(&hinted).contains("jq -c '.[]'") && hinted.status.code() == Some(65), "{hinted:?}");
    }
}

#[test]
fn continuous_integration_gets_annotations_and_test_reports() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a,b");
    std::fs::write(&file, [SECONDS, b"\n{\"user_id\":\"<x>\"}\n"].concat()).unwrap();
    let file = file.to_str().unwrap();
    let github = out(&validate(&["--format", "github", file], b""));
    let place = file.replace(',', "%2C");
    assert!(github.contains(&format!("::warning file={place},line=1,title=timestamp_unit::1790000000 is")), "{github}");
    assert!(github.contains(&format!("::error file={place},line=2,title=invalid_field::user_id expects")), "{github}");
    let junit = validate(&["--format", "junit", file], b"");
    assert_eq!(junit.status.code(), Some(65));
    let junit = out(&junit);
    assert!(
        junit.contains("tests=\"2\" failures=\"1\"") && junit.contains("<failure type=\"invalid_field\""),
        "{junit}"
    );
    assert!(junit.contains("<system-out>warning: timestamp_unit: ") && junit.ends_with("</testsuites>\n"), "{junit}");
}

#[test]
fn properties_that_change_nothing_are_named() {
    let arguments = ["--header", "dl-id=x", "--header", "trace=y", "--content-type", "text/plain"];
    let output = validate(&arguments, FINE);
    assert!(output.status.success(), "{output:?}");
    let notes = notes(&output);
    assert!(notes.contains("header dl-id") && !notes.contains("trace") && notes.contains("content_type"), "{notes}");
}
