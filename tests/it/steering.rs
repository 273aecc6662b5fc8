//! Steering a running worker: pausing and resuming under load, the signals, and which worker gets them.

use std::io::BufRead as _;
use std::process::{Command, Stdio};

use crate::harness::{DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, Worker, eventually, signal};

/// `ticketlog pause` and the like: exit code, and what it printed.
fn steer(env: &TestEnv, worker: &Worker, action: &str) -> (i32, String) {
    let (pid, listen) = (worker.id().to_string(), format!("http.listen={}", worker.address()));
    run(&mut env.command(), &[action, "--pid", &pid, "--set", &listen])
}

fn run(command: &mut Command, arguments: &[&str]) -> (i32, String) {
    let output = command.args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_worker_that_is_steered_under_load_loses_nothing_and_stores_nothing_twice() {
    const ROUNDS: i32 = 6;
    const EVENTS: i32 = 200;
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    for round in 0..ROUNDS {
        let first = round * EVENTS;
        // Some are in flight when it pauses.
        env.publish_all((first..first + EVENTS / 2).map(TestMessage::numbered)).await;
        let (code, text) = steer(&env, &worker, "pause");
        assert!(code == 0 && text.starts_with("paused: "), "{text}");
        eventually("it is paused", DEADLINE, async || {
            let (status, problems) = worker.get("/readyz");
            status == 503 && problems.starts_with("consumer: paused by an operator since 20")
        })
        .await;
        let (stored, (waiting, consumers)) = (env.count().await, env.counts(&env.queue()).await);
        let published = (first + EVENTS / 2) as u64;
        assert_eq!((stored + u64::from(waiting), consumers), (published, 0), "nothing is in flight");
        env.publish_all((first + EVENTS / 2..first + EVENTS).map(TestMessage::numbered)).await;
        env.wait_for_depth(&env.queue(), waiting + EVENTS as u32 / 2).await;
        assert_eq!(env.count().await, stored, "it stores nothing while it is paused");
        let (code, text) = steer(&env, &worker, "resume");
        assert!(code == 0 && text.starts_with("resumed: "), "{text}");
    }
    let count = ROUNDS * EVENTS;
    eventually("all are stored", DEADLINE, async || env.count().await >= count as u64).await;
    env.assert_exactly(count).await;
    worker.wait_until_ready().await;
    env.clean().await;
}

#[tokio::test]
async fn signals_pause_and_resume() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    worker.wait_until_ready().await;
    worker.signal("USR1");
    eventually("it is paused", DEADLINE, async || worker.get("/readyz").1.contains("paused by an operator")).await;
    env.publish(&TestMessage::numbered(0)).await;
    env.wait_for_depth(&env.queue(), 1).await;
    let components = worker.metrics();
    assert_eq!(components["ticketlog_component_up{component=\"consumer\"}"], 0.0);
    assert_eq!(components["ticketlog_component_up{component=\"broker\"}"], 1.0);
    worker.signal("USR2");
    worker.wait_until_settled(1).await;
    worker.signal("USR1");
    eventually("it is paused again", DEADLINE, async || worker.get("/readyz").0 == 503).await;
    assert_eq!(worker.stop().await.code(), Some(0), "a paused worker stops gracefully");
    env.clean().await;
}

/// It reads its configuration from a pipe, so that it is known to have started, and not to have read it.
#[tokio::test]
async fn signals_do_not_end_a_worker_that_has_just_started() {
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("ticketlog.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let start = || {
        let mut command = env.command();
        command.args(["run", "--config"]).arg(&pipe).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // Returns once the worker has opened the other end.
        (child, std::fs::OpenOptions::new().write(true).open(&pipe).unwrap())
    };
    let (child, pipe_end) = start();
    for name in ["USR1", "USR2", "TERM"] {
        signal(name, child.id());
    }
    drop(pipe_end);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (mut child, pipe_end) = start();
    signal("USR1", child.id());
    drop(pipe_end);
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"paused\"")), "it starts paused");
    signal("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    env.clean().await;
}

#[tokio::test]
async fn a_pause_and_a_resume_at_one_moment_pause() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    worker.wait_until_ready().await;
    for order in [["USR2", "USR1"], ["USR1", "USR2"]] {
        worker.signal("STOP");
        order.iter().for_each(|name| worker.signal(name));
        worker.signal("CONT");
        eventually("it is paused", DEADLINE, async || worker.get("/readyz").1.contains("paused by an operator")).await;
        worker.signal("USR2");
        worker.wait_until_ready().await;
    }
    env.clean().await;
}

#[tokio::test]
async fn a_resumed_worker_waits_for_mongodb_and_can_be_paused_meanwhile() {
    let store = DedicatedServer::start(ServerKind::Mongodb);
    let env = TestEnv::with_dedicated_store(&store).await;
    let mut command = env.command();
    command.env("TICKETLOG_STORE__WRITE_TIMEOUT", "1s");
    let worker = Worker::start(command).await;
    worker.wait_until_ready().await;
    steer(&env, &worker, "pause");
    let is_paused = || worker.get("/readyz").1.contains("consumer: paused by an operator since 20");
    eventually("it is paused", DEADLINE, async || is_paused()).await;
    for action in ["resume", "pause"] {
        steer(&env, &worker, action);
    }
    eventually("it is paused again", DEADLINE, async || is_paused()).await;
    env.publish(&TestMessage::numbered(0)).await;
    store.freeze(true);
    eventually("MongoDB is missed", DEADLINE, async || worker.get("/readyz").1.contains("store: ")).await;
    assert!(steer(&env, &worker, "resume").1.starts_with("resumed: "));
    eventually("it waits for MongoDB", DEADLINE, async || worker.log().contains("waiting for MongoDB")).await;
    assert_eq!(env.counts(&env.queue()).await, (1, 0), "it consumes nothing meanwhile");
    let (_, text) = steer(&env, &worker, "pause");
    assert!(text.starts_with("paused: ") && is_paused(), "without a session it is paused at once: {text}");
    steer(&env, &worker, "resume");
    store.freeze(false);
    worker.wait_until_settled(1).await;
    env.clean().await;
}

#[tokio::test]
async fn the_command_finds_workers_and_signals_nothing_else() {
    let env = TestEnv::new().await;
    let workers = [env.worker().await, env.worker().await];
    let (code, text) = run(&mut env.command(), &["pause"]);
    let lists = |worker: &Worker| text.split_whitespace().any(|word| word == worker.id().to_string());
    assert!(code == 64 && workers.iter().all(lists), "{code} {text}");
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    for pid in [other.id(), std::process::id()] {
        let refused = run(&mut env.command(), &["pause", "--pid", &pid.to_string()]);
        assert_eq!(refused, (69, format!("ticketlog: process {pid} is not a running worker\n")));
    }
    assert!(other.try_wait().unwrap().is_none(), "it was not ended by a signal");
    other.kill().unwrap();
    other.wait().unwrap();

    let [worker, another] = &workers;
    worker.wait_until_ready().await;
    assert!(steer(&env, worker, "resume").1.starts_with("not paused: "));
    assert!(steer(&env, worker, "pause").1.starts_with("paused: "));
    assert!(steer(&env, worker, "pause").1.starts_with("already paused: "));
    // What answers there is another worker.
    let (pid, listen) = (worker.id().to_string(), format!("http.listen={}", another.address()));
    let (code, text) = run(&mut env.command(), &["resume", "--pid", &pid, "--set", &listen]);
    assert!(code == 0 && text.starts_with(&format!("sent SIGUSR2 to the worker (process {pid})")), "{code} {text}");
    worker.wait_until_ready().await;
    env.clean().await;
}

#[tokio::test]
async fn a_hangup_stops_a_worker_as_a_termination_does() {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    worker.wait_until_ready().await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    eventually("some are stored", DEADLINE, async || env.count().await > 0).await;
    worker.signal("HUP");
    assert_eq!(worker.wait_for_exit().await.code(), Some(0));
    let (waiting, consumers) = env.counts(&env.queue()).await;
    assert_eq!((env.count().await + u64::from(waiting), consumers), (500, 0), "nothing is stored twice or lost");
    env.clean().await;
}

#[tokio::test]
async fn a_worker_keeps_to_its_rate() {
    const RATE: u32 = 20;
    let env = TestEnv::new().await;
    let started = std::time::Instant::now();
    let mut command = env.command();
    command.env("TICKETLOG_WRITE__MAX_RATE", RATE.to_string());
    let mut worker = Worker::start(command).await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    eventually("some are stored", DEADLINE, async || {
        let stored = env.count().await;
        let most = f64::from(RATE) * started.elapsed().as_secs_f64() + f64::from(RATE) / 10.0;
        assert!((stored as f64) <= most, "{stored} are more than {most}");
        stored > 60
    })
    .await;
    assert_eq!(worker.stop().await.code(), Some(0));
    let _unlimited = env.worker().await;
    eventually("all are stored", DEADLINE, async || env.count().await == 500).await;
    env.assert_exactly(500).await;
    env.clean().await;
}
