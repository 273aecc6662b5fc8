//! What a person reads in a terminal of 80 columns, and what a command does that is interrupted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use bson::doc;

use crate::harness::{CommandOutput, DEADLINE, DedicatedServer, ServerKind, TestEnv, eventually, signal};

/// Runs a command in a terminal of 80 columns, and types `input`. What it prints has no line ends of a terminal.
pub async fn in_terminal(command: &Command, input: &str) -> (i32, String) {
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap().replace('\'', "'\\''"));
    let line: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols 80 rows 24; {}", line.join(" ")), "/dev/null"]);
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "dumb");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).replace('\r', ""))
}

fn dead(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.operator_command();
    command.arg("dead").args(arguments);
    command
}

#[tokio::test]
async fn a_terminal_of_80_columns_shows_what_a_person_needs() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(30).await;
    let (code, list) = in_terminal(&dead(&env, &["list", "--trust-queue"]), "").await;
    let lines: Vec<&str> = list.lines().collect();
    assert!(code == 0 && lines.iter().all(|line| line.chars().count() <= 80), "{list}");
    assert!(lines[0].starts_with("pos") && lines[0].ends_with("id") && lines[1].ends_with("id-0"), "{list}");
    let at = lines.iter().position(|line| line.contains("not shown at this width")).unwrap();
    assert!(at > 30, "the note is behind the rows: {list}");
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backup");
    let purge = ["purge", "--trust-queue", "--text", "id-1", "--backup", backup.to_str().unwrap()];
    let (code, asked) = in_terminal(&dead(&env, &purge), "no\n").await;
    let question = format!("purge 11 dead letters of queue {}; type the name", env.dead_letter_queue());
    assert!(code == 64 && asked.contains(&question) && asked.contains("nothing was purged"), "{asked}");
    let (code, purged) = in_terminal(&dead(&env, &purge), &format!("{}\n", env.dead_letter_queue())).await;
    assert!(code == 0 && purged.contains("11 dead letters purged from"), "{purged}");
    for unwanted in ["dead letters: purge", "\"state\"", "0/0", "INFO"] {
        assert!(!purged.contains(unwanted), "{unwanted}: {purged}");
    }
    let (code, exists) = in_terminal(&dead(&env, &purge), "").await;
    assert!(code == 73 && exists.contains("it exists already") && !exists.contains("type the name"), "{exists}");
    let (code, none) = in_terminal(&dead(&env, &["purge", "--trust-queue", "--reason", "too_deep"]), "").await;
    assert!(code == 0 && none.contains("none of 19 dead letters match") && none.contains("nothing to purge"), "{none}");
    env.clean().await;
}

#[tokio::test]
async fn wrong_values_get_an_answer_that_says_what_is_wrong() {
    let env = TestEnv::new().await;
    let missing = "there is no queue no.such.queue; correct --queue";
    let future = "is in the future; it is 20";
    for (arguments, code, expected) in [
        (&["list", "--code", "abc"][..], 64, "expected a number, such as 121 for a validator"),
        (&["list", "--fingerprint", "xyz"], 64, "expected 16 hexadecimal digits, as `ticketlog dead stats` shows them"),
        (&["list", "--since", "2126-01-01"], 64, future),
        (&["list", "--since", "yesterday"], 64, "2026-11-22T03:00+01:00 or 03:00, or a duration"),
        (&["list", "--queue", "no.such.queue"], 69, missing),
        (&["import", "/no/such/file"], 66, "/no/such/file cannot be read: No such file"),
    ] {
        let output = env.dead_command(arguments).await;
        assert!(output.code == Some(code) && output.err.contains(expected), "{arguments:?}: {output:?}");
    }
    for since in ["2026-11-22", "00:00", "90min", "2026-11-22T03:00", "2026-11-22T03:00+01:00"] {
        env.dead_command_succeeds(&["list", "--since", since, "--until", "2126-01-01"]).await;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let output: CommandOutput = env.operator_command().args(["status", &url]).output().unwrap().into();
    server.join().unwrap();
    let text = "something answers that is not a worker of ticketlog (HTTP 404 at /status)";
    assert!(output.code == Some(1) && output.out.contains(text), "{output:?}");
    env.clean().await;
}

#[tokio::test]
async fn a_closed_output_hides_no_finding() {
    let env = TestEnv::new().await;
    let code = |arguments: &[&str], input: &str| {
        let mut command = env.operator_command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait().unwrap().code()
    };
    assert_eq!(code(&["validate"], "{\"user_id\":1}\nnonsense\n"), Some(65));
    assert_eq!(code(&["validate"], "{\"user_id\":1}\n"), Some(0));
    assert_eq!(code(&["status", "http://127.0.0.1:9"], ""), Some(1));
    assert_eq!(code(&["setup"], ""), Some(0));
    env.clean().await;
}

/// Starts a command whose notes can be waited for.
fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a note, interrupts the command once, and returns how it ended. It must end in much less than its own timeouts.
async fn interrupt_after(mut child: Child, note: &str) -> CommandOutput {
    let note = note.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(&note) {
            assert_ne!(err.read_line(&mut said).unwrap(), 0, "it ended before {note:?}: {said}");
        }
        signal("INT", child.id());
        err.read_to_string(&mut said).unwrap();
        let mut output: CommandOutput = child.wait_with_output().unwrap().into();
        output.err = said;
        output
    });
    tokio::time::timeout(DEADLINE, ended).await.expect("it stops soon").unwrap()
}

#[tokio::test]
async fn an_interrupt_is_noticed_at_a_low_rate_and_while_waiting_for_the_lock() {
    let env = TestEnv::new().await;
    env.publish_good_dead_letters(30).await;
    let slow = start(env.build_dead_command(&["park", "--rate", "0.01", "--trust-queue"]));
    env.wait_for_depth(&env.parked_queue(), 1).await;
    let waiting = start(env.build_dead_command(&["park", "--trust-queue"]));
    let waited = interrupt_after(waiting, "waiting until it is done").await;
    assert!(waited.code == Some(130) && waited.err.contains("it was stopped early"), "{waited:?}");
    signal("INT", slow.id());
    let stopped = tokio::task::spawn_blocking(move || CommandOutput::from(slow.wait_with_output().unwrap()));
    let stopped = tokio::time::timeout(DEADLINE, stopped).await.expect("it stops soon").unwrap();
    assert!(stopped.code == Some(130) && stopped.out.starts_with("1 dead letter moved"), "{stopped:?}");
    env.wait_for_depth(&env.dead_letter_queue(), 29).await;
    env.wait_for_depth(&env.parked_queue(), 1).await;
    env.clean().await;
}

#[tokio::test]
async fn an_interrupt_is_noticed_while_rabbitmq_blocks_publishers() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let env = TestEnv::with_dedicated_broker(&broker).await;
    env.publish_good_dead_letters(30).await;
    broker.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let blocked = start(env.build_dead_command(&["park", "--trust-queue"]));
    let stopped = interrupt_after(blocked, "RabbitMQ blocks publishers").await;
    assert!(stopped.code == Some(130), "{stopped:?}");
    assert_eq!(stopped.err.matches("RabbitMQ blocks publishers").count(), 1, "said once: {stopped:?}");
    env.wait_for_depth(&env.dead_letter_queue(), 30).await;
}

#[tokio::test]
async fn an_erasure_that_is_interrupted_says_what_it_erased() {
    let env = TestEnv::new().await;
    let count = 60_000;
    for _ in 0..6 {
        env.collection.insert_many((0..count / 6).map(|_| doc! { "user_id": 42 })).await.unwrap();
    }
    assert!(env.operator_command().arg("setup").output().unwrap().status.success());
    let mut command = env.operator_command();
    command.args(["erase", "--user", "42", "--yes", "--json"]);
    let child = start(command);
    eventually("some are erased", DEADLINE, async || env.count().await < count).await;
    signal("INT", child.id());
    let ended = tokio::task::spawn_blocking(move || CommandOutput::from(child.wait_with_output().unwrap()));
    let ended = ended.await.unwrap();
    let left = env.count().await;
    assert!(ended.code == Some(130) && ended.err.contains("it was stopped"), "{ended:?}");
    assert_eq!(ended.json()[0]["documents"].as_u64(), Some(count - left), "{ended:?}");
    assert!(left > 0, "the first interrupt was noticed");
    env.clean().await;
}
