//! The servers of a run, and the faults that happen to them one after the other, in a random order in which each occurs as often.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::doc;
use mongodb::Client;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tempfile::TempDir;
use tokio::sync::watch;

use super::processes::Processes;
use super::samples::Sampler;
use super::{Plan, until_stopped};
use crate::harness::{Cluster, Remote, ReplicaSet, SHORT_TIMEOUTS, TestEnv, Worker};

/// How long anything may take to be well again. Generous, because the machine may be busy.
const RECOVERY: Duration = Duration::from_secs(600);

/// The logins of the two workers, at both servers.
const LOGINS: [&str; 2] = ["measured", "killed"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    NodeKilled,
    PrimaryKilled,
    PrimaryStepsDown,
    WorkerKilled,
    ConnectionsClosed,
    PasswordsRotated,
    WorkerPaused,
}

impl Fault {
    const ALL: [Fault; 7] = [
        Fault::NodeKilled,
        Fault::PrimaryKilled,
        Fault::PrimaryStepsDown,
        Fault::WorkerKilled,
        Fault::ConnectionsClosed,
        Fault::PasswordsRotated,
        Fault::WorkerPaused,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::NodeKilled => "a RabbitMQ node killed",
            Fault::PrimaryKilled => "the MongoDB primary killed",
            Fault::PrimaryStepsDown => "the primary steps down",
            Fault::WorkerKilled => "a worker killed",
            Fault::ConnectionsClosed => "all connections to RabbitMQ closed",
            Fault::PasswordsRotated => "the passwords of both servers rotated",
            Fault::WorkerPaused => "the measured worker paused",
        }
    }
}

/// How often each fault has happened.
pub type Happened = BTreeMap<Fault, u32>;

/// The files with the URIs of a worker.
struct Login {
    name: &'static str,
    broker: PathBuf,
    store: PathBuf,
}

/// The servers, the processes and what is to happen to them.
pub struct Faults {
    cluster: Cluster,
    store: ReplicaSet,
    pub env: TestEnv,
    processes: Arc<Processes>,
    logins: [Login; 2],
    rotations: u32,
    plan: Plan,
    random: StdRng,
    pub happened: Happened,
    _files: TempDir,
}

impl Faults {
    /// Starts everything.
    pub async fn start(plan: Plan) -> (Self, Arc<Processes>) {
        let (cluster, store) = (Cluster::start(), ReplicaSet::start().await);
        let env = TestEnv::at(cluster.uris(), store.admin_uri()).await;
        cluster.wait_until_complete(&env.queue()).await;
        let files = tempfile::tempdir().unwrap();
        let logins = LOGINS.map(|name| Login {
            name,
            broker: files.path().join(format!("{name}.broker")),
            store: files.path().join(format!("{name}.store")),
        });
        for login in &logins {
            ctl(&cluster.remotes()[0], &["add_user", login.name, "first"]).await;
            ctl(&cluster.remotes()[0], &["set_permissions", login.name, ".*", ".*", ".*"]).await;
            let user = doc! { "createUser": login.name, "pwd": "first", "roles": ["root"] };
            env.client.database("admin").run_command(user).await.unwrap();
            login.write(&cluster, &store, "first");
        }
        let workers = [login_worker(&env, &logins[0]).await, login_worker(&env, &logins[1]).await];
        let [measured, killed] = workers;
        let processes = Arc::new(Processes::start(&env, measured, killed).await);
        processes.measured().wait_until_ready().await;
        let random = StdRng::seed_from_u64(plan.seed);
        let rotations = 0;
        let happened = Happened::new();
        let faults = Faults {
            cluster,
            store,
            env,
            processes: Arc::clone(&processes),
            logins,
            rotations,
            plan,
            random,
            happened,
            _files: files,
        };
        (faults, processes)
    }

    pub async fn sampler(&self) -> Sampler {
        let mut store = Vec::new();
        for uri in self.store.member_uris() {
            store.push(Client::with_uri_str(uri).await.unwrap());
        }
        let processes = Arc::clone(&self.processes);
        Sampler { broker: self.cluster.remotes(), store, processes, login: LOGINS[0] }
    }

    /// The versions of both servers.
    pub async fn versions(&self) -> String {
        let info = self.env.client.database("admin").run_command(doc! { "buildInfo": 1 }).await.unwrap();
        let broker = ctl(&self.cluster.remotes()[0], &["version"]).await;
        format!("RabbitMQ {}, MongoDB {}", broker.trim(), info.get_str("version").unwrap())
    }

    /// Lets faults happen until it is told to stop. Each has ended then, and everything runs.
    pub async fn go_on(&mut self, stop: &watch::Receiver<bool>) {
        let mut next = Vec::new();
        while until_stopped(stop, tokio::time::sleep(self.plan.fault)).await {
            if next.is_empty() {
                next = Fault::ALL.to_vec();
                next.shuffle(&mut self.random);
            }
            let fault = next.pop().unwrap();
            let began = Instant::now();
            self.make(fault).await;
            println!("{}: over after {:.0?}", fault.name(), began.elapsed());
            *self.happened.entry(fault).or_default() += 1;
        }
    }

    async fn make(&mut self, fault: Fault) {
        let short = Duration::from_secs(self.random.random_range(3..20)).min(self.plan.fault);
        match fault {
            Fault::NodeKilled => self.kill_node(short).await,
            Fault::PrimaryKilled => self.kill_primary(short).await,
            Fault::PrimaryStepsDown => {
                // The command may close the connection instead of answering.
                let step_down = doc! { "replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3 };
                let _ = self.env.client.database("admin").run_command(step_down).await;
            }
            Fault::WorkerKilled => {
                let mut killed = self.processes.killed().take().unwrap();
                killed.kill();
                tokio::time::sleep(short).await;
                let again = login_worker(&self.env, &self.logins[1]).await;
                *self.processes.killed() = Some(again);
            }
            Fault::ConnectionsClosed => drop(self.ctl(&["close_all_connections", "soak"]).await),
            Fault::PasswordsRotated => self.rotate().await,
            Fault::WorkerPaused => {
                self.processes.measured().signal("USR1");
                tokio::time::sleep(short).await;
                self.processes.measured().signal("USR2");
            }
        }
    }

    async fn kill_node(&mut self, down: Duration) {
        let node = self.random.random_range(0..3);
        self.cluster.kill(node);
        tokio::time::sleep(down).await;
        self.cluster.restart(&[node]);
        let queue = self.env.queue();
        recovered("all replicas of the queue run", async || self.cluster.is_complete(&queue)).await;
    }

    async fn kill_primary(&mut self, down: Duration) {
        let mut primary = None;
        recovered("there is a primary", async || {
            primary = self.store.primary(&self.env.client).await;
            primary.is_some()
        })
        .await;
        self.store.kill(primary.unwrap());
        tokio::time::sleep(down).await;
        self.store.restart(primary.unwrap());
        recovered("all members run", async || self.store.is_complete(&self.env.client).await).await;
    }

    /// Both workers get new passwords at both servers, and have to use them.
    async fn rotate(&mut self) {
        self.rotations += 1;
        let password = format!("rotated-{}", self.rotations);
        for login in &self.logins {
            self.ctl(&["change_password", login.name, &password]).await;
            let user = doc! { "updateUser": login.name, "pwd": &password };
            let admin = self.env.client.database("admin");
            recovered("the password is changed", async || admin.run_command(user.clone()).await.is_ok()).await;
            login.write(&self.cluster, &self.store, &password);
        }
        self.ctl(&["close_all_connections", "renewal"]).await;
    }

    async fn ctl(&self, arguments: &[&str]) -> String {
        ctl(&self.cluster.remotes()[0], arguments).await
    }
}

impl Login {
    fn write(&self, cluster: &Cluster, store: &ReplicaSet, password: &str) {
        let login = format!("{}:{password}", self.name);
        // A worker never reads half a file.
        for (file, uri) in
            [(&self.broker, cluster.uris().replace("guest:guest", &login)), (&self.store, store.uri(&login))]
        {
            let written = file.with_extension("new");
            std::fs::write(&written, uri).unwrap();
            std::fs::rename(written, file).unwrap();
        }
    }
}

/// A worker with this login, which takes replays from the operators' login.
async fn login_worker(env: &TestEnv, login: &Login) -> Worker {
    let mut command = env.command();
    command.envs(SHORT_TIMEOUTS.map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
    for (section, file) in [("BROKER", &login.broker), ("STORE", &login.store)] {
        command.env_remove(format!("TICKETLOG_{section}__URI")).env(format!("TICKETLOG_{section}__URI_FILE"), file);
    }
    command.env("TICKETLOG_DEAD_LETTER__OPERATORS", "guest");
    Worker::start(command).await
}

/// Runs `rabbitmqctl`, again if it fails.
async fn ctl(remote: &Remote, arguments: &[&str]) -> String {
    let mut said = Err(String::new());
    recovered(&format!("{arguments:?}"), async || {
        said = remote.run(arguments);
        said.is_ok()
    })
    .await;
    said.unwrap()
}

/// Polls, less often than `eventually`, until the condition is true.
async fn recovered(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < RECOVERY, "not within {RECOVERY:?}: {what}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
