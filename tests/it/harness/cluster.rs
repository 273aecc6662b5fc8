//! Owns a cluster of three RabbitMQ nodes that belongs to one test: it kills, stops and restarts nodes, separates one from
//! the others, and moves the leader of a queue. And a publisher that goes on through all of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{DEADLINE, DedicatedServer, Remote, ServerKind, TestEnv, TestMessage, eventually};

/// Messages that are published before their confirms are awaited.
const CHUNK: i32 = 50;

/// Three nodes.
pub struct Cluster {
    nodes: Vec<DedicatedServer>,
    _epmd: DedicatedServer,
}

impl Cluster {
    /// Starts the nodes, which find each other.
    pub fn start() -> Self {
        let epmd = DedicatedServer::start(ServerKind::Epmd);
        let ports = super::servers::distinct_ports::<3>();
        let list = format!("{} {} {} {}\n", epmd.port(), ports[0], ports[1], ports[2]);
        let start = |port| {
            DedicatedServer::prepared_at(ServerKind::Rabbitmq, port, |directory, _| {
                std::fs::write(directory.join("cluster"), &list).unwrap();
                std::fs::write(directory.join("enabled_plugins"), "[rabbitmq_consistent_hash_exchange].").unwrap();
                std::fs::write(directory.join("extra.conf"), "cluster_partition_handling = pause_minority\n").unwrap();
            })
        };
        let nodes = thread::scope(|scope| {
            let started = ports.map(|port| scope.spawn(move || start(port)));
            started.into_iter().map(|node| node.join().unwrap()).collect()
        });
        Cluster { nodes, _epmd: epmd }
    }

    /// The URIs of all nodes, as a list.
    pub fn uris(&self) -> String {
        self.nodes.iter().map(DedicatedServer::uri).collect::<Vec<_>>().join(",")
    }

    /// Sends SIGKILL to a node.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Lets a node shut down cleanly.
    pub fn shut_down(&mut self, node: usize) {
        self.nodes[node].shut_down();
    }

    /// Starts nodes again, all at the same time.
    pub fn restart(&mut self, nodes: &[usize]) {
        thread::scope(|scope| {
            for (n, node) in self.nodes.iter_mut().enumerate() {
                if nodes.contains(&n) {
                    scope.spawn(move || node.restart());
                }
            }
        });
    }

    /// Separates a node from the others, or ends that. They refuse its connections, because it has another cookie for them.
    pub fn separate(&self, node: usize, separated: bool) {
        let cookie = if separated { "separated" } else { "TICKETLOG" };
        let mut code = String::new();
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let name = self.name(other);
            code.push_str(&format!("erlang:set_cookie('{name}', '{cookie}'), erlang:disconnect_node('{name}'), "));
        }
        self.nodes[node].eval(&format!("{code} ok."));
    }

    /// The node that leads a quorum queue, as another node sees it.
    pub fn leader(&self, queue: &str) -> usize {
        let leader = self.nodes[0]
            .eval(&of_queue(queue, "lists:flatten(io_lib:format(\"~p\", [rabbit_amqqueue:info(Q, [leader])]))"));
        (0..self.nodes.len())
            .find(|node| leader.contains(&self.name(*node)))
            .unwrap_or_else(|| panic!("{queue}: {leader}"))
    }

    /// Makes a node the leader of a quorum queue.
    pub fn move_leader(&self, queue: &str, to: usize) {
        let code = format!("rabbit_quorum_queue:transfer_leadership(Q, '{}')", self.name(to));
        self.nodes[0].eval(&of_queue(queue, &code));
    }

    /// Waits until all nodes have a replica of a quorum queue that runs.
    pub async fn wait_until_complete(&self, queue: &str) {
        eventually("all replicas of the queue run", DEADLINE, async || self.is_complete(queue)).await;
    }

    /// Whether all nodes have a replica of a quorum queue that runs.
    pub fn is_complete(&self, queue: &str) -> bool {
        let online = "lists:flatten(io_lib:format(\"~p\", [rabbit_amqqueue:info(Q, [online])]))";
        let online = self.nodes[0].remote().eval(&of_queue(queue, online)).unwrap_or_default();
        (0..self.nodes.len()).all(|node| online.contains(&self.name(node)))
    }

    /// For `rabbitmqctl` at each node.
    pub fn remotes(&self) -> Vec<Remote> {
        self.nodes.iter().map(DedicatedServer::remote).collect()
    }

    fn name(&self, node: usize) -> String {
        format!("ticketlog_{}@localhost", self.nodes[node].port())
    }
}

/// Erlang for what is to be done with a queue, `Q`.
fn of_queue(queue: &str, code: &str) -> String {
    format!("{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), {code}.")
}

/// What a [`LoadPublisher`] publishes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub message: fn(i32) -> TestMessage,
    /// From one chunk of 50 to the next.
    pub every: Duration,
    /// Whether it catches up after it was held up.
    pub missed: MissedTickBehavior,
}

impl Default for Load {
    fn default() -> Self {
        let every = Duration::from_millis(40);
        Load { message: TestMessage::numbered, every, missed: MissedTickBehavior::Delay }
    }
}

/// Publishes numbered events until it is stopped. What was not confirmed it publishes again, to another node.
pub struct LoadPublisher {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicI32>,
    task: JoinHandle<()>,
}

impl LoadPublisher {
    /// Starts with this number.
    pub fn start(env: &TestEnv, first: i32) -> Self {
        LoadPublisher::with(env, first, Load::default())
    }

    /// The same with another load.
    pub fn with(env: &TestEnv, first: i32, load: Load) -> Self {
        let (stop, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(first)));
        let (uris, exchange) = (env.broker_uri.clone(), env.name.clone());
        let task = tokio::spawn(publish_until(Arc::clone(&stop), Arc::clone(&published), uris, exchange, load));
        LoadPublisher { stop, published, task }
    }

    /// The first number that is not confirmed yet.
    pub fn published(&self) -> i32 {
        self.published.load(Ordering::Relaxed)
    }

    /// Stops it; returns the first number that was not published.
    pub async fn stop(self) -> i32 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.published.load(Ordering::Relaxed)
    }
}

async fn publish_until(stop: Arc<AtomicBool>, published: Arc<AtomicI32>, uris: String, exchange: String, load: Load) {
    let mut turn = interval(load.every);
    turn.set_missed_tick_behavior(load.missed);
    // Whether a chunk may have arrived whose confirm was lost: it is published again, also after the stop.
    let mut unconfirmed = false;
    for uri in uris.split(',').cycle() {
        let opened = timeout(Duration::from_secs(3), open(uri)).await;
        if let Ok(Ok((connection, channel))) = opened {
            while unconfirmed || !stop.load(Ordering::Relaxed) {
                turn.tick().await;
                unconfirmed = true;
                let first = published.load(Ordering::Relaxed);
                let publishing = publish_chunk(&channel, &exchange, (first..first + CHUNK).map(load.message));
                if !matches!(timeout(Duration::from_secs(5), publishing).await, Ok(Ok(true))) {
                    break;
                }
                unconfirmed = false;
                published.store(first + CHUNK, Ordering::Relaxed);
            }
            drop(connection);
        }
        if stop.load(Ordering::Relaxed) && !unconfirmed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn open(uri: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// Whether all were confirmed.
async fn publish_chunk(
    channel: &Channel,
    exchange: &str,
    chunk: impl Iterator<Item = TestMessage>,
) -> lapin::Result<bool> {
    let mut confirms = Vec::new();
    for sent in chunk {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (exchange.into(), "ticket.test".into());
        confirms.push(channel.basic_publish(exchange, key, options, &sent.body, sent.properties).await?);
    }
    let mut confirmed = true;
    for confirm in confirms {
        let confirm = confirm.await?;
        confirmed &= confirm.is_ack() && confirm.take_message().is_none();
    }
    Ok(confirmed)
}
