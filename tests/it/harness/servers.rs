//! Owns servers that belong to one test, which may freeze, kill and restart them. A wrapper process
//! (`deploy/local/services.sh`) stops them when the test ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    Rabbitmq,
    /// Erlang's port mapper, which the nodes of a cluster share.
    Epmd,
    Mongodb,
    /// A replica set of three MongoDBs.
    Replica,
    /// A MongoDB for a replica set that the test initiates.
    Member,
    /// Needs a `prometheus.yml` that the test has written.
    Prometheus,
}

/// A server that belongs to one test.
pub struct DedicatedServer {
    kind: ServerKind,
    directory: TempDir,
    port: u16,
    wrapper: Child,
    pids: Vec<u32>,
}

impl DedicatedServer {
    /// Starts a new one.
    pub fn start(kind: ServerKind) -> Self {
        DedicatedServer::prepared(kind, |_, _| {})
    }

    /// Starts a new one after `prepare` has put files into its directory. `prepare` also gets the first of four ports;
    /// the fourth is free for the test.
    pub fn prepared(kind: ServerKind, prepare: impl FnOnce(&Path, u16)) -> Self {
        DedicatedServer::prepared_at(kind, free_port(), prepare)
    }

    /// The same at this port and the three after it.
    pub fn prepared_at(kind: ServerKind, port: u16, prepare: impl FnOnce(&Path, u16)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path(), port);
        let (wrapper, pids) = launch(kind, directory.path().to_path_buf(), port);
        DedicatedServer { kind, directory, port, wrapper, pids }
    }

    /// The URI for clients.
    pub fn uri(&self) -> String {
        match self.kind {
            ServerKind::Rabbitmq => format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port),
            ServerKind::Epmd => format!("127.0.0.1:{}", self.port),
            ServerKind::Prometheus => format!("http://127.0.0.1:{}", self.port),
            ServerKind::Mongodb => format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port),
            ServerKind::Member => format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port),
            ServerKind::Replica => {
                let [first, second, third] = [0, 1, 2].map(|at| format!("127.0.0.1:{}", self.port + at));
                format!("mongodb://{first},{second},{third}/?replicaSet=rs0&serverSelectionTimeoutMS=2000")
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are, as `services.sh ctl` wants to know.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends SIGKILL, and waits for the wrapper.
    pub fn kill(&mut self) {
        if self.kind == ServerKind::Rabbitmq {
            // RabbitMQ (3.10.8 and 4.3.6) writes its list of quorum queues to disk some seconds late. After a SIGKILL before
            // that it starts such a queue as an empty one.
            let sync = "[dets:sync(Table) || Table <- dets:all()].";
            assert!((0..3).any(|_| self.remote().eval(sync).is_ok()), "its tables are synced");
        }
        self.pids.iter().for_each(|pid| signal("KILL", *pid));
        drop(self.wrapper.stdin.take());
        self.wrapper.wait().unwrap();
    }

    /// Lets it shut down cleanly.
    pub fn shut_down(&mut self) {
        drop(self.wrapper.stdin.take());
        self.wrapper.wait().unwrap();
    }

    /// Starts it again with the same data and ports.
    pub fn restart(&mut self) {
        (self.wrapper, self.pids) = launch(self.kind, self.directory.path().to_path_buf(), self.port);
    }

    /// Sends SIGKILL to the member of a replica set that listens on this port.
    pub fn kill_member(&self, port: u16) {
        signal("KILL", self.pids[usize::from(port - self.port)]);
    }

    /// Prints the ends of its logs, for a test that failed.
    fn show_logs(&self) {
        let logs = std::fs::read_dir(self.directory.path().join("log")).into_iter().flatten().flatten();
        for path in logs.map(|entry| entry.path()).chain([self.directory.path().join("out.log")]) {
            let text =
                std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}\n{}", path.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }

    /// Runs `rabbitmqctl`, and returns what it prints. That takes a second of processor time; [`eval`](Self::eval) takes none.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.remote().run(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Runs Erlang in RabbitMQ, and returns its value.
    pub fn eval(&self, code: &str) -> String {
        self.remote().eval(code).unwrap_or_else(|error| panic!("{code}: {error}"))
    }

    /// Adds a user with the patterns of what it may configure, write and read; without them it may not even connect.
    pub fn add_user(&self, name: &str, password: &str, permissions: Option<[&str; 3]>) {
        let texts = |texts: &[&str]| {
            let quoted = texts.iter().map(|text| format!("<<\"{}\">>", text.replace('\\', r"\\")));
            quoted.collect::<Vec<_>>().join(", ")
        };
        self.eval(&format!("ok = rabbit_auth_backend_internal:add_user({}).", texts(&[name, password, "test"])));
        if let Some([configure, write, read]) = permissions {
            let permissions = texts(&[name, "/", configure, write, read, "test"]);
            self.eval(&format!("ok = rabbit_auth_backend_internal:set_permissions({permissions})."));
        }
    }

    /// For `rabbitmqctl` from another thread than the one that has the server.
    pub fn remote(&self) -> Remote {
        Remote { directory: self.directory.path().to_owned(), port: self.port }
    }

    /// Freezes the processes with SIGSTOP, or resumes them.
    pub fn freeze(&self, frozen: bool) {
        self.pids.iter().for_each(|pid| signal(if frozen { "STOP" } else { "CONT" }, *pid));
    }
}

/// Which server `rabbitmqctl` asks.
#[derive(Debug, Clone)]
pub struct Remote {
    directory: PathBuf,
    port: u16,
}

impl Remote {
    /// Runs `rabbitmqctl`; the error is what it prints to standard error.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.services("ctl", arguments)
    }

    /// Runs Erlang in RabbitMQ; the error is what it says.
    pub fn eval(&self, code: &str) -> Result<String, String> {
        let answer = self.services("eval", &[code])?;
        match answer.trim().strip_prefix("{ok, ") {
            Some(value) => Ok(value.trim_end_matches('}').to_owned()),
            None => Err(answer),
        }
    }

    fn services(&self, what: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(script());
        command.arg(what).arg(&self.directory).arg(self.port.to_string()).args(arguments);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for DedicatedServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        self.pids.iter().for_each(|pid| signal("KILL", *pid));
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}

/// Sends a signal to a process that this test started.
pub fn signal(name: &str, pid: u32) {
    let _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).stderr(Stdio::null()).status();
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/local/services.sh")
}

fn launch(kind: ServerKind, directory: PathBuf, port: u16) -> (Child, Vec<u32>) {
    let name = match kind {
        ServerKind::Rabbitmq => "rabbitmq",
        ServerKind::Epmd => "epmd",
        ServerKind::Mongodb => "mongodb",
        ServerKind::Replica => "replica",
        ServerKind::Member => "member",
        ServerKind::Prometheus => "prometheus",
    };
    let mut command = Command::new(script());
    command.arg(name).arg(&directory).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut wrapper = command.spawn().unwrap();
    let mut pids = Vec::new();
    for line in BufReader::new(wrapper.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix("pid ") {
            Some(number) => pids.push(number.parse().unwrap()),
            None if line == "ready" => return (wrapper, pids),
            None => {}
        }
    }
    panic!("{name} did not become ready; see the messages above");
}

/// The first ports of as many groups of four free ports.
pub fn distinct_ports<const N: usize>() -> [u16; N] {
    let mut ports = std::collections::BTreeSet::new();
    while ports.len() < N {
        ports.insert(free_port());
    }
    ports.into_iter().collect::<Vec<_>>().try_into().unwrap()
}

/// The first of four free ports, below the range that the system uses for outgoing connections.
fn free_port() -> u16 {
    for _ in 0..500 {
        let port = 10_000 + rand::random::<u16>() % 3_000 * 4;
        if (port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
    panic!("no free ports");
}
