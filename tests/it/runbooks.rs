//! The commands of the operators' documents work as they are printed, with the shipped logins, against real servers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bson::{Document, doc};
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use mongodb::Client;
use regex::Regex;
use ticketlog::cli::commands::Cli;

use crate::harness::{DedicatedServer, TestEnv, Worker, access_control};

/// Commands that cannot run in this test, by how they begin, with the reason.
const NOT_RUN: [(&str, &str); 9] = [
    ("systemctl ", "there is no systemd; deploy/release checks the units"),
    ("journalctl ", "there is no systemd"),
    ("timedatectl", "there is no systemd, and the machine's clock stays as it is"),
    ("kubectl ", "there is no Kubernetes; deploy/helm/check.sh checks the manifests"),
    ("docker ", "there is no Docker; deploy/docker/try.sh tries the image"),
    ("ticketlog run", "runs until it is stopped; this test has two of them"),
    ("ticketlog console", "runs until it is stopped; tests/it/console.rs starts it"),
    ("ticketlog pause", "signals the only worker of a machine; tests/it/steering.rs has it"),
    ("ticketlog resume", "signals the only worker of a machine; tests/it/steering.rs has it"),
];

const DEAD_LETTER_ID: &str = "6b02f3f4420785e629d6b8be";
const FINGERPRINT: &str = "0000000000000001";
const INDEX: &str = "place_2dsphere";

/// The sections of every page, so that nobody searches at night.
const SECTIONS: [&str; 6] =
    ["What is wrong", "Is anything lost?", "Look here first", "Causes", "Commands", "It is over when"];

/// With which login a command runs: the comment above it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    Unknown,
    None,
    Worker,
    Operators,
    /// Of RabbitMQ and MongoDB.
    Administrator,
    /// On a node of RabbitMQ.
    Node,
    /// In mongosh.
    MongodbAdministrator,
    MongodbReader,
}

impl Login {
    /// The one that a comment names.
    fn named_in(comment: &str) -> Option<Login> {
        let names = [
            ("no login", Login::None),
            ("mongosh, with the login of an administrator", Login::MongodbAdministrator),
            ("mongosh, with the role ticketlogReader", Login::MongodbReader),
            ("with the worker's login", Login::Worker),
            ("with the operators' login", Login::Operators),
            ("with the administrators' login", Login::Administrator),
            ("node of RabbitMQ", Login::Node),
        ];
        names.into_iter().find(|(name, _)| comment.contains(name)).map(|(_, login)| login)
    }

    fn fits(self, command: &str) -> bool {
        match command.split(' ').next().unwrap() {
            "ticketlog" => matches!(self, Login::None | Login::Worker | Login::Operators | Login::Administrator),
            "rabbitmqctl" | "rabbitmq-diagnostics" => self == Login::Node,
            "mongosh" => matches!(self, Login::MongodbAdministrator | Login::MongodbReader),
            _ => true,
        }
    }
}

#[derive(Debug)]
struct Printed {
    place: String,
    login: Login,
    command: String,
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["docs/operate", "docs/operate/runbooks"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).filter(|file| file.is_file()).collect();
    files.sort();
    files
}

/// The commands of all fenced blocks of shell, one a line.
fn printed_commands() -> Vec<Printed> {
    let mut commands = Vec::new();
    for path in documents() {
        let (mut in_block, mut login) = (false, Login::Unknown);
        for (at, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let place = format!("{}:{}", path.file_name().unwrap().display(), at + 1);
            match line {
                _ if line.starts_with("```") => (in_block, login) = (line == "```sh", Login::Unknown),
                _ if !in_block => {}
                _ if line.starts_with('#') => login = Login::named_in(line).unwrap_or(login),
                _ => commands.push(Printed { place, login, command: line.to_owned() }),
            }
        }
    }
    assert!(commands.len() > 150, "{}", commands.len());
    commands
}

fn is_run(printed: &Printed) -> bool {
    !NOT_RUN.iter().any(|(start, _)| printed.command.starts_with(start))
}

#[test]
fn every_runbook_has_the_same_sections() {
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.starts_with("# Ticketlog") {
            continue;
        }
        let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{}", path.display());
    }
}

#[test]
fn every_command_of_the_operators_documents_says_which_login_it_needs() {
    let commands = printed_commands();
    for printed in commands.iter().filter(|printed| is_run(printed)) {
        assert!(printed.login.fits(&printed.command), "the comment above it names no fitting login: {printed:?}");
    }
    for (start, _) in NOT_RUN {
        assert!(commands.iter().any(|printed| printed.command.starts_with(start)), "no document has {start}");
    }
}

#[test]
fn commands_within_the_text_have_flags_that_exist() {
    let span = Regex::new(r"(?s)`(ticketlog [a-z][^`…]*)`").unwrap();
    let word = Regex::new(r"'([^']*)'|(\S+)").unwrap();
    let (mut found, mut wrong) = (0, Vec::new());
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for command in span.captures_iter(&text) {
            let words = word.captures_iter(&command[1]).map(|word| word.get(1).or(word.get(2)).unwrap().as_str());
            let parsed = Cli::command().try_get_matches_from(words);
            let kind = parsed.err().map(|error| error.kind());
            found += 1;
            if matches!(kind, Some(ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand)) {
                wrong.push(format!("{}: {}: {kind:?}", path.display(), &command[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(found > 50, "{found}");
}

/// Servers with the shipped topology and logins, two workers, and a directory to type in.
struct Site {
    broker: DedicatedServer,
    store: DedicatedServer,
    env: TestEnv,
    admin: Client,
    workers: Vec<Worker>,
    directory: tempfile::TempDir,
    files: usize,
}

impl Site {
    async fn start() -> Self {
        let broker = access_control::broker_with_topology();
        let (store, admin) = access_control::store().await;
        access_control::roles(&admin, "cache", "bytemark_tickets_log").await;
        let directory = tempfile::tempdir().unwrap();
        let env = TestEnv::at(broker.uri(), access_control::as_user(&store, "admin", "admin")).await;
        let mut site = Site { broker, store, env, admin, workers: Vec::new(), directory, files: 0 };
        site.write_tools();
        for _ in 0..2 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
            site.log_in(&mut command, Login::Worker);
            command.env("TICKETLOG_HTTP__LISTEN", "127.0.0.1:0");
            let worker = Worker::start(command).await;
            worker.wait_until_ready().await;
            site.workers.push(worker);
        }
        site
    }

    /// The programs that the documents name, as they are called on their machines.
    fn write_tools(&self) {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/local/services.sh");
        let (node, port) = (self.broker.directory().display(), self.broker.port());
        for tool in ["rabbitmqctl", "rabbitmq-diagnostics"] {
            let script = format!("#!/bin/sh\nTOOL={tool} exec {} ctl {node} {port} \"$@\"\n", services.display());
            let path = self.directory.path().join(tool);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ticketlog"), self.directory.path().join("ticketlog")).unwrap();
    }

    fn log_in(&self, command: &mut Command, login: Login) {
        let broker = |user: &str| self.broker.uri().replace("guest:guest", &format!("{user}:{user}-secret"));
        let store = |role: &str| access_control::as_user(&self.store, role, "cache");
        let operator = match login {
            Login::Operators => Some(("ticketlog-desk", "ticketlogEraser")),
            Login::Administrator => Some(("ticketlog-admin", "ticketlogSetup")),
            _ => None,
        };
        if let Some((user, role)) = operator {
            command
                .env("TICKETLOG_OPERATOR__BROKER_URI", broker(user))
                .env("TICKETLOG_OPERATOR__STORE_URI", store(role));
        }
        command.env_remove("RUST_MIN_STACK");
        let listen = self.workers.first().map_or("127.0.0.1:0", Worker::address).to_owned();
        for (name, value) in [
            ("BROKER__URI", broker("ticketlog")),
            ("STORE__URI", store("ticketlogWorker")),
            ("BROKER__DECLARE", "false".to_owned()),
            ("DEAD_LETTER__OPERATORS", "ticketlog-desk".to_owned()),
            ("HTTP__LISTEN", listen),
        ] {
            command.env(format!("TICKETLOG_{name}"), value);
        }
    }

    /// The command with what its reader fills in.
    fn filled_in(&mut self, command: &str) -> String {
        if command.contains("FILE") && !command.contains("dead import") {
            self.files += 1;
        }
        let file = format!("file-{}.ndjson", self.files);
        let mut text = command.to_owned();
        for (name, value) in [
            ("WORKER1:9464", self.workers[0].address()),
            ("WORKER2:9464", self.workers[1].address()),
            ("WORKER:9464", self.workers[0].address()),
            ("FINGERPRINT", FINGERPRINT),
            ("ID", DEAD_LETTER_ID),
            ("INDEX", INDEX),
            ("FILE", file.as_str()),
            ("USER", "ticketlog"),
            ("UUID", "u-1"),
        ] {
            text = Regex::new(&format!(r"\b{name}\b")).unwrap().replace_all(&text, value).into_owned();
        }
        // What asks a person cannot be asked here.
        let asks = ["ticketlog dead replay", "ticketlog dead purge"].iter().any(|start| text.starts_with(start));
        if asks && !text.contains("--dry-run") {
            let (typed, comment) = text.split_once(" #").unwrap_or((&text, ""));
            text = format!("{} --yes # {comment}", typed.trim_end());
        }
        text
    }

    /// The same dead letters in the dead-letter queue and in the parked queue. Where the command edits them, their time is a text.
    async fn fill_queues(&self, edits: bool) {
        for queue in ["bytemark.tickets.log.dead", "bytemark.tickets.log.parked"] {
            self.env.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
            for (n, reason) in ["invalid_field", "rejected_by_store", "duplicate_key"].into_iter().enumerate() {
                let id = if n == 0 { DEAD_LETTER_ID.to_owned() } else { format!("{n:024x}") };
                let timestamp = if edits { "\"2026-11-30T12:00:00Z\"".to_owned() } else { n.to_string() };
                let body = format!("{{\"uuid\":\"u-{n}\",\"user_id\":\"42\",\"timestamp\":{timestamp}}}");
                let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers(&id, reason));
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                let publish =
                    self.env.channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
                assert!(publish.await.unwrap().await.unwrap().is_ack());
            }
        }
    }

    /// Runs a command as it is typed.
    async fn run(&mut self, printed: &Printed) -> Result<(), String> {
        let text = self.filled_in(&printed.command);
        if text.contains("ticketlog dead ") {
            self.fill_queues(text.contains("--edit")).await;
        }
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", &text]).current_dir(self.directory.path());
        command.env("PATH", format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap()));
        self.log_in(&mut command, printed.login);
        let Output { status, stdout, stderr } =
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed_text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        if status.success() { Ok(()) } else { Err(format!("{status}\n{printed_text}")) }
    }

    /// Runs the command document of a line for mongosh.
    async fn run_in_mongosh(&mut self, printed: &Printed) -> Result<(), String> {
        let index = doc! { "createIndexes": "bytemark_tickets_log", "indexes": [{ "key": { "place": "2dsphere" }, "name": INDEX }] };
        self.admin.database("cache").run_command(index).await.unwrap();
        let text = self.filled_in(&printed.command);
        let call = Regex::new(r#"db\.getSiblingDB\("(\w+)"\)\.runCommand\("#).unwrap();
        let call = call.captures(&text).ok_or("not a command document")?;
        let (_, rest) = text.split_at(call.get(0).unwrap().end());
        // As a document, because the first key names the command.
        let mut documents = serde_json::Deserializer::from_str(rest).into_iter::<Document>();
        let command = documents.next().unwrap().map_err(|error| error.to_string())?;
        let client = match printed.login {
            Login::MongodbReader => {
                Client::with_uri_str(access_control::as_user(&self.store, "ticketlogReader", "cache")).await.unwrap()
            }
            _ => self.admin.clone(),
        };
        client.database(&call[1]).run_command(command).await.map(|_| ()).map_err(|error| error.to_string())
    }
}

fn headers(id: &str, reason: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    let now = ticketlog_config::system::now_millis();
    for (name, number) in [("dl-version", 1), ("dl-replays", 0), ("dl-time", now)] {
        headers.insert(name.into(), AMQPValue::LongLongInt(number));
    }
    for (name, text) in [
        ("dl-id", id),
        ("dl-reason", reason),
        ("dl-detail", "of a test"),
        ("dl-field", "user_id"),
        ("dl-exchange", "bytemark.tickets"),
        ("dl-routing-key", "ticket.test"),
        ("dl-fingerprint", FINGERPRINT),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(text.into()));
    }
    headers
}

#[tokio::test]
async fn the_commands_of_the_operators_documents_work_as_printed() {
    let mut site = Site::start().await;
    let mut seen = BTreeSet::new();
    let mut failures = Vec::new();
    for printed in printed_commands() {
        // Many pages have the same commands.
        if !is_run(&printed) || !seen.insert((format!("{:?}", printed.login), printed.command.clone())) {
            continue;
        }
        let is_for_mongosh = printed.command.starts_with("mongosh ");
        let result = if is_for_mongosh { site.run_in_mongosh(&printed).await } else { site.run(&printed).await };
        if let Err(problem) = result {
            failures.push(format!("{}: {}\n{problem}", printed.place, printed.command));
        }
    }
    assert!(failures.is_empty(), "{} commands fail:\n\n{}", failures.len(), failures.join("\n\n"));
}
