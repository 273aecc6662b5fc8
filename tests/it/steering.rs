//! Steering a running worker: pausing, resuming and reloading, under load, and what is refused.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{DEADLINE, DedicatedServer, ServerKind, TestEnv, TestMessage, Worker, eventually, signal};

/// A worker with an admin socket and a configuration file in a directory.
async fn steered_worker(env: &TestEnv, directory: &Path, settings: &str) -> Worker {
    configure(directory, settings);
    let mut command = env.command();
    command.arg("--config").arg(directory.join("ticketlog.toml"));
    command.env("TICKETLOG_ADMIN__SOCKET", directory.join("admin.sock"));
    let worker = Worker::start(command).await;
    worker.wait_until_ready().await;
    worker
}

fn configure(directory: &Path, settings: &str) {
    std::fs::write(directory.join("ticketlog.toml"), settings).unwrap();
}

/// `ticketlog pause` and the like: exit code, and what it printed.
fn steer(env: &TestEnv, directory: &Path, action: &str) -> (i32, String) {
    let socket = directory.join("admin.sock");
    let output: Output = env.command().arg(action).arg("--socket").arg(socket).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_worker_that_is_steered_under_load_loses_nothing_and_stores_nothing_twice() {
    const ROUNDS: i32 = 6;
    const EVENTS: i32 = 200;
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let worker = steered_worker(&env, directory, "").await;
    for round in 0..ROUNDS {
        let first = round * EVENTS;
        // Some are in flight when it pauses.
        env.publish_all((first..first + EVENTS / 2).map(TestMessage::numbered)).await;
        let (code, text) = steer(&env, directory, "pause");
        // The reload of the round before may still be replacing the session: without one, it is paused at once.
        assert!(code == 0 && (text.starts_with("pausing: ") || text.starts_with("paused: ")), "{text}");
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
        let lines = format!("[batch]\nmax_events = {}\n[broker]\nprefetch = {}\n", 10 + round, 2000 + round);
        configure(directory, &lines);
        let (code, text) = steer(&env, directory, "reload");
        assert!(code == 0 && text.contains(&format!("batch.max_events = {}", 10 + round)), "{text}");
        assert_eq!(steer(&env, directory, "resume"), (0, "resumed\n".to_owned()));
        if round % 2 == 0 {
            configure(directory, &lines.replace("prefetch", "prefetch_bytes = \"16MiB\"\nprefetch"));
            worker.signal("HUP");
        }
    }
    let count = ROUNDS * EVENTS;
    eventually("all are stored", DEADLINE, async || env.count().await >= count as u64).await;
    env.assert_exactly(count).await;
    worker.wait_until_ready().await;
    assert!(worker.metrics()["ticketlog_reloads_total{outcome=\"applied\"}"] >= f64::from(ROUNDS));
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
    assert_eq!(worker.stop().await.code(), Some(0), "a paused worker stops in order");
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
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let worker = steered_worker(&env, directory, "[store]\nwrite_timeout = \"1s\"\n").await;
    steer(&env, directory, "pause");
    let is_paused = || worker.get("/readyz").1.contains("consumer: paused by an operator since 20");
    eventually("it is paused", DEADLINE, async || is_paused()).await;
    for action in ["resume", "pause"] {
        steer(&env, directory, action);
    }
    eventually("it is paused again", DEADLINE, async || is_paused()).await;
    env.publish(&TestMessage::numbered(0)).await;
    store.freeze(true);
    eventually("MongoDB is missed", DEADLINE, async || worker.get("/readyz").1.contains("store: ")).await;
    assert_eq!(steer(&env, directory, "resume"), (0, "resumed\n".to_owned()));
    eventually("it waits for MongoDB", DEADLINE, async || worker.log().contains("waiting for MongoDB")).await;
    assert_eq!(env.counts(&env.queue()).await, (1, 0), "it consumes nothing meanwhile");
    let (_, text) = steer(&env, directory, "pause");
    assert!(text.starts_with("paused: ") && is_paused(), "without a session it is paused at once: {text}");
    steer(&env, directory, "resume");
    store.freeze(false);
    worker.wait_until_settled(1).await;
    env.clean().await;
}

#[tokio::test]
async fn a_reload_is_refused_as_a_whole() {
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let worker = steered_worker(&env, directory, "[batch]\nmax_events = 10\n").await;
    assert_eq!(
        steer(&env, directory, "reload"),
        (0, format!("reloaded: no setting has changed in {}\n", directory.join("ticketlog.toml").display()))
    );
    assert_eq!(steer(&env, directory, "resume"), (0, "not paused\n".to_owned()));
    for (settings, expected) in [
        ("[batch]\nmax_events = 11\nmax_evnts = 1\n", "did you mean max_events?"),
        ("[batch]\nmax_events = 0\n", "batch.max_events"),
        (
            "[batch]\nmax_events = 11\n[retry]\ninitial = \"1s\"\nmax = \"20s\"\n[event]\nmax_depth = 9\n",
            "only a restart changes event.max_depth",
        ),
        ("[batch]\nmax_events = 11\n[log]\nfilter = \"info,=\"\n", "log.filter"),
    ] {
        configure(directory, settings);
        let (code, text) = steer(&env, directory, "reload");
        assert!(code == 78 && text.contains(expected), "{code} {text}");
    }
    worker.signal("HUP");
    eventually("the refusal is logged", DEADLINE, async || {
        worker.log().matches("the configuration is not reloaded").count() == 5
    })
    .await;
    let metrics = worker.metrics();
    assert_eq!(metrics["ticketlog_reloads_total{outcome=\"refused\"}"], 5.0);
    assert_eq!(metrics["ticketlog_sessions_opened_total"], 1.0, "the session goes on");
    configure(directory, "[batch]\nmax_events = 10\n[log]\nfilter = \"error\"\n");
    assert_eq!(steer(&env, directory, "reload"), (0, "reloaded: log.filter = \"error\"\n".to_owned()));
    assert_eq!(worker.metrics()["ticketlog_sessions_opened_total"], 1.0, "only the log has changed");
    steer(&env, directory, "pause");
    assert!(!worker.log().contains("what is in flight is written"), "info is not logged any more");
    env.clean().await;
}

#[tokio::test]
async fn the_socket_belongs_to_one_worker_and_its_user() {
    use std::os::unix::fs::PermissionsExt as _;
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let socket = directory.join("admin.sock");
    let (code, text) = steer(&env, directory, "pause");
    assert!(code == 69 && text.contains("no worker answers at"), "{code} {text}");
    let output = env.command().arg("pause").output().unwrap();
    assert_eq!(output.status.code(), Some(64), "no socket is named: {output:?}");
    let mut worker = steered_worker(&env, directory, "").await;
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let second = env.command().arg("run").env("TICKETLOG_ADMIN__SOCKET", &socket).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(69) && text.contains("another worker listens there"), "{text}");
    worker.kill();
    assert!(socket.exists(), "a killed worker leaves it behind");
    let mut again = steered_worker(&env, directory, "").await;
    assert_eq!(steer(&env, directory, "pause").0, 0);
    again.stop().await;
    assert!(!socket.exists(), "a worker that stops removes it");
    std::fs::write(&socket, "a file").unwrap();
    let third = env.command().arg("run").env("TICKETLOG_ADMIN__SOCKET", &socket).output().unwrap();
    assert_eq!(third.status.code(), Some(69));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file", "nothing but a socket is replaced");
    env.clean().await;
}

#[tokio::test]
async fn a_worker_keeps_to_its_rate_until_a_reload_lifts_it() {
    const RATE: u32 = 20;
    const EVENTS: i32 = 2_000;
    let env = TestEnv::new().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let started = std::time::Instant::now();
    let _worker = steered_worker(&env, directory, &format!("[write]\nmax_rate = {RATE}\n")).await;
    env.publish_all((0..EVENTS).map(TestMessage::numbered)).await;
    eventually("some are stored", DEADLINE, async || {
        let stored = env.count().await;
        let most = f64::from(RATE) * started.elapsed().as_secs_f64() + f64::from(RATE) / 10.0;
        assert!((stored as f64) <= most, "{stored} are more than {most}");
        stored > 60
    })
    .await;
    configure(directory, "");
    let (code, text) = steer(&env, directory, "reload");
    assert!(code == 0 && text.contains("write.max_rate = 0"), "{text}");
    eventually("all are stored", DEADLINE, async || env.count().await == EVENTS as u64).await;
    env.assert_exactly(EVENTS).await;
    env.clean().await;
}
