//! The commands as people and scripts use them: output, exit codes, errors.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::harness::TestEnv;

fn ticketlog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
    command.args(arguments);
    command
}

fn run_with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_variable_that_means_nothing_is_named() {
    let config = |name: &str| ticketlog(&["config"]).env(name, "x").output().unwrap();
    let mistyped = config("TICKETLOG_EVENT_DROP");
    assert_eq!(mistyped.status.code(), Some(78));
    assert!(
        text(&mistyped.stderr).contains("TICKETLOG_EVENT_DROP: is not a setting; did you mean TICKETLOG_EVENT__DROP?")
    );
    let unknown = config("TICKETLOG_MONGODB_URI");
    assert_eq!(unknown.status.code(), Some(0));
    assert!(text(&unknown.stderr).contains("TICKETLOG_MONGODB_URI"), "{unknown:?}");
    // They stand for flags of other commands.
    for name in ["TICKETLOG_CONSOLE_STATE_DIR", "TICKETLOG_AUDIT_FILE", "TICKETLOG_SERVICE_HOST"] {
        let known = config(name);
        assert_eq!((known.status.code(), text(&known.stderr).as_str()), (Some(0), ""), "{name}");
    }
}

#[test]
fn validate_shows_what_the_worker_would_do() {
    let input = b"{\"user_id\":\"7\",\"uuid\":\"u\"}\n\n{\"user_id\":\"abc\"}\n[1]\n{\"a\":\xff}\n";
    let output = run_with_input(ticketlog(&["validate"]), input);
    assert_eq!(output.status.code(), Some(65));
    insta::assert_snapshot!(text(&output.stdout), @r#"
    -:1: warning: no_time: the event has no time, so nobody can tell when it happened or sort it: send timestamp in milliseconds since 1970
    -:3: invalid_field: user_id expects a Number, found a string that is not a number
    -:4: not_an_object: the root is an array; send one message for each event
    -:5: invalid_utf8: not UTF-8 from byte 5 on
    1 would be stored (1 with warnings), 3 would become dead letters
    "#);
    let output = run_with_input(ticketlog(&["validate", "--json", "-"]), input);
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), lines[0]["document"]["user_id"].as_i64()), (4, Some(7)));
    assert_eq!((lines[0]["identity"].as_str(), lines[1]["reason"].as_str()), (Some("uuid"), Some("invalid_field")));
    assert_eq!(run_with_input(ticketlog(&["validate"]), b"{}\n").status.code(), Some(0));
    let missing = ticketlog(&["validate", "/no/such/file"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(66));
    assert!(text(&missing.stderr).contains("/no/such/file"));
}

#[test]
fn config_prints_the_settings_in_force_and_their_sources() {
    let output =
        ticketlog(&["config", "--set", "broker.prefetch=4500"]).env("TICKETLOG_STORE__DATABASE", "d").output().unwrap();
    let printed = text(&output.stdout);
    assert!(printed.contains("prefetch = 4500  # flag --set"), "{printed}");
    assert!(printed.contains("database = \"d\"  # environment variable TICKETLOG_STORE__DATABASE"), "{printed}");
    assert!(printed.contains("[event]") && printed.contains("# built-in defaults"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &output.stdout).unwrap();
    let again = ticketlog(&["config", "--json", "--config", file.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    for (arguments, code) in [(&["config"][..], 0), (&["dead", "stats", "--set", "broker.uri=amqp://127.0.0.1:9"], 69)]
    {
        let mut empty = ticketlog(arguments);
        empty.env("TICKETLOG_CONFIG", "").env("TICKETLOG_MANAGEMENT", "").env("TICKETLOG_AUDIT_FILE", "");
        let output = empty.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    }
    std::fs::write(file.path(), "\u{feff}amqp://u:p@127.0.0.1/%2f\n").unwrap();
    let mut marked = ticketlog(&["config"]);
    marked.env_remove("TICKETLOG_BROKER__URI").env("TICKETLOG_BROKER__URI_FILE", file.path());
    let marked = marked.output().unwrap();
    assert!(text(&marked.stdout).contains("amqp://u:***@127.0.0.1/%2f"), "{marked:?}");
    let default = ticketlog(&["config", "--default"]).output().unwrap();
    assert_eq!(
        text(&default.stdout),
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml")).unwrap()
    );
}

#[test]
fn usage_errors_and_configuration_errors_have_their_exit_codes() {
    for (arguments, code) in [
        (&["nonsense"][..], 64),
        (&["publish", "--malformed", "101", "--generate", "1"], 64),
        (&["config", "--set", "broker"], 64),
        (&["config", "--set", "broker.prefech=1"], 78),
        (&["run", "--config", "/no/such/file.toml"], 78),
        (&["setup", "--set", "broker.uri=amqp://127.0.0.1:9", "--set", "broker.connect_timeout=1s"], 69),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["completions", "bash"], 0),
        (&["man"], 0),
    ] {
        let output = ticketlog(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
    let man = text(&ticketlog(&["man"]).output().unwrap().stdout);
    assert!(man.contains(".TH ticketlog") && man.contains("ticketlog\\-publish"), "{man}");
    let help = text(&ticketlog(&["--help"]).output().unwrap().stdout);
    assert!(help.contains("sysexits"));
}

#[tokio::test]
async fn publish_takes_the_message_id_from_the_body() {
    let env = TestEnv::new().await;
    assert_eq!(env.command().arg("setup").status().unwrap().code(), Some(0));
    let mut command = env.command();
    command.args(["publish", "--message-id-from", "uuid", "--app-id", "shop"]);
    let output =
        run_with_input(command, b"{\"uuid\":\"a\",\"n\":1}\n{\"uuid\":\"b\"}\n{\"uuid\":7}\n{\"uuid\":\"c\"}\n");
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("-:3: --message-id-from uuid:"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("2 messages published and confirmed"), "{}", text(&output.stdout));
    let names = env.take_all_messages(&env.queue()).await.into_iter().map(|message| {
        let text = |name: &Option<lapin::types::ShortString>| name.as_ref().unwrap().to_string();
        (text(message.properties.message_id()), text(message.properties.app_id()))
    });
    let expected = [("a", "shop"), ("b", "shop")].map(|(id, app)| (id.to_owned(), app.to_owned()));
    assert_eq!(names.collect::<Vec<_>>(), expected);
    env.clean().await;
}

#[tokio::test]
async fn publish_sends_files_and_generated_events() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let mut command = env.command();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"n\":1}\n").unwrap();
    command.args(["publish", "--json", file.path().to_str().unwrap(), "-"]);
    let output = run_with_input(command, b"{\"n\":2}\r\n\nnot json\n");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), summary["confirmed"].as_u64()), (Some(0), Some(3)), "{}", text(&output.stderr));
    worker.wait_until_settled(3).await;
    for _ in 0..2 {
        let generated = ["publish", "--generate", "400", "--malformed", "10", "--seed", "3", "--rate", "4000/s"];
        let output = env.command().args(generated).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(output.stderr.is_empty(), "no progress bar without a terminal");
    }
    worker.wait_until_settled(803).await;
    let (stored, duplicate, dead) =
        (worker.settled("stored"), worker.settled("duplicate"), worker.settled("dead_lettered"));
    assert_eq!((stored - 2, 2 * duplicate), (duplicate, 800 - (dead - 1)), "the same seed generates the same events");
    assert!((21..=121).contains(&dead) && dead % 2 == 1, "{dead}");
    let mut command = env.command();
    command
        .args(["publish", "--generate", "1", "--set", "broker.exchange=nowhere"])
        .env("TICKETLOG_BROKER__DECLARE", "false");
    let unroutable = command.output().unwrap();
    assert_eq!(unroutable.status.code(), Some(69));
    env.clean().await;
}
