//! Owns the environment of one test: an exchange, queues and a database with a unique name; publishing to it as any
//! client would; and reading the results.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mongodb::{Client, Collection};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::world::{Access, Accesses};
use super::{DEADLINE, DedicatedServer, Worker, World, eventually};

/// A message that a test published.
#[derive(Debug, Clone)]
pub struct TestMessage {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

/// A dead letter, taken from its queue.
#[derive(Debug)]
pub struct DeadLetter {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
    pub headers: BTreeMap<String, String>,
}

impl DeadLetter {
    pub fn reason(&self) -> &str {
        &self.headers["dl-reason"]
    }
}

/// The exchange, queues and database of one test.
pub struct TestEnv {
    pub name: String,
    pub broker_uri: String,
    pub store_uri: String,
    pub channel: Channel,
    pub collection: Collection<Document>,
    pub client: Client,
    pub connection: Connection,
    accesses: Accesses,
}

impl TestEnv {
    /// On the servers that `make test` provides.
    pub async fn new() -> Self {
        TestEnv::at(server_uri("TICKETLOG_BROKER__URI"), server_uri("TICKETLOG_STORE__URI")).await
    }

    /// On a broker that belongs to this test.
    pub async fn with_dedicated_broker(broker: &DedicatedServer) -> Self {
        TestEnv::at(broker.uri(), server_uri("TICKETLOG_STORE__URI")).await
    }

    /// On a MongoDB that belongs to this test.
    pub async fn with_dedicated_store(store: &DedicatedServer) -> Self {
        TestEnv::at(server_uri("TICKETLOG_BROKER__URI"), store.uri()).await
    }

    /// On servers that both belong to this test.
    pub async fn on(broker: &DedicatedServer, store: &DedicatedServer) -> Self {
        TestEnv::at(broker.uri(), store.uri()).await
    }

    /// On servers at these addresses.
    pub async fn at(broker_uri: String, store_uri: String) -> Self {
        let (broker_uri, store_uri) = World::current().addresses(broker_uri, store_uri);
        let name = format!("t{:016x}", rand::random::<u64>());
        let connection = connect(&broker_uri).await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        // The URI may give the worker little time to find a primary; the test itself waits for as long as an election takes.
        let mut options = mongodb::options::ClientOptions::parse(&store_uri).await.unwrap();
        options.server_selection_timeout = Some(DEADLINE);
        let client = Client::with_options(options).unwrap();
        let collection = client.database(&name).collection("log");
        let world = World::current();
        let accesses = world.accesses(&name, &client, &broker_uri, &store_uri).await;
        let env = TestEnv { name, broker_uri, store_uri, channel, collection, client, connection, accesses };
        let administrator =
            Access { broker_uri: env.broker_uri.clone(), store_uri: env.store_uri.clone(), settings: Vec::new() };
        let output = env.command_with(&administrator).arg("setup").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        env
    }

    /// RabbitMQ's version: 3.10.8 is `(3, 10)`.
    pub async fn broker_version(&self) -> (u32, u32) {
        let url = url::Url::parse(self.broker_uri.split(",amqp").next().unwrap()).unwrap();
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
        stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        let mut start = vec![0; 2048];
        let count = stream.read(&mut start).await.unwrap();
        // `version` among the server properties, then the type and the length of its value in five bytes.
        let key = start[..count].windows(8).position(|window| window == b"versionS").unwrap();
        let text = String::from_utf8_lossy(&start[key + 12..]).into_owned();
        let mut numbers = text.split(|byte: char| !byte.is_ascii_digit()).map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// A new connection, after the broker was restarted.
    pub async fn reconnect(&mut self) {
        let connection = connect(&self.broker_uri).await;
        self.channel = connection.create_channel().await.unwrap();
        self.channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        self.connection = connection;
    }

    /// The program, configured for this environment, with short delays, and with the worker's login.
    pub fn command(&self) -> Command {
        self.command_with(&self.accesses.worker)
    }

    /// The same with the operators' login.
    pub fn operator_command(&self) -> Command {
        self.command_with(&self.accesses.operator)
    }

    fn command_with(&self, access: &Access) -> Command {
        let mut command = Command::new(program());
        command.env_remove("RUST_MIN_STACK");
        for (key, value) in [
            ("BROKER__URI", access.broker_uri.as_str()),
            ("BROKER__EXCHANGE", &self.name),
            ("BROKER__QUEUE", &format!("{}.q", self.name)),
            ("DEAD_LETTER__EXCHANGE", &format!("{}.dlx", self.name)),
            ("DEAD_LETTER__QUEUE", &format!("{}.dead", self.name)),
            ("DEAD_LETTER__PARKED_QUEUE", &format!("{}.parked", self.name)),
            ("STORE__URI", &access.store_uri),
            ("STORE__DATABASE", &self.name),
            ("STORE__COLLECTION", "log"),
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("RETRY__INITIAL", "20ms"),
            ("RETRY__MAX", "500ms"),
        ] {
            command.env(format!("TICKETLOG_{key}"), value);
        }
        for (key, value) in &access.settings {
            command.env(format!("TICKETLOG_{key}"), value);
        }
        World::current().set_clock(&mut command, false);
        command
    }

    pub fn queue(&self) -> String {
        format!("{}.q", self.name)
    }

    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.name)
    }

    pub async fn worker(&self) -> Worker {
        self.worker_with(&[]).await
    }

    /// A worker with further settings, such as `("BATCH__LINGER", "1s")`.
    pub async fn worker_with(&self, settings: &[(&str, &str)]) -> Worker {
        let mut command = self.command();
        for (key, value) in settings {
            command.env(format!("TICKETLOG_{key}"), value);
        }
        Worker::start(command).await
    }

    /// A worker under a limit that the shell sets, such as `ulimit -n 24`.
    pub async fn worker_under(&self, limit: &str, settings: &[(&str, &str)]) -> Worker {
        let mut command = under(limit, &self.command());
        for (key, value) in settings {
            command.env(format!("TICKETLOG_{key}"), value);
        }
        Worker::start(command).await
    }

    /// Publishes to the exchange, and waits for the confirm.
    pub async fn publish(&self, sent: &TestMessage) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (self.name.as_str().into(), "ticket.test".into());
        let publishing = self.channel.basic_publish(exchange, key, options, &sent.body, sent.properties.clone());
        let confirmation = publishing.await.unwrap().await.unwrap();
        assert!(confirmation.is_ack() && confirmation.take_message().is_none());
    }

    /// Publishes many, then waits for all confirms.
    pub async fn publish_all(&self, all: impl IntoIterator<Item = TestMessage>) {
        let mut confirms = Vec::new();
        for sent in all {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let (exchange, key) = (self.name.as_str().into(), "ticket.test".into());
            confirms
                .push(self.channel.basic_publish(exchange, key, options, &sent.body, sent.properties).await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }

    pub async fn documents(&self) -> Vec<Document> {
        // Read as raw documents: the driver would turn `{"$numberLong": …}` in a `Document` into a number, as extended
        // JSON.
        let raw = self.collection.clone_with_type::<bson::RawDocumentBuf>();
        let found: Vec<bson::RawDocumentBuf> = raw.find(doc! {}).await.unwrap().try_collect().await.unwrap();
        found.iter().map(|document| Document::from_reader(document.as_bytes()).unwrap()).collect()
    }

    pub async fn count(&self) -> u64 {
        self.collection.count_documents(doc! {}).await.unwrap()
    }

    /// How many messages are ready in a queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        self.counts(queue).await.0
    }

    /// Ready messages and consumers of a queue.
    pub async fn counts(&self, queue: &str) -> (u32, u32) {
        let connection = connect(&self.broker_uri).await;
        let channel = connection.create_channel().await.unwrap();
        let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(queue.into(), options, Default::default()).await.unwrap();
        connection.close(200, "".into()).await.unwrap();
        (declared.message_count(), declared.consumer_count())
    }

    /// Takes this many dead letters out of their queue; there must be no more.
    pub async fn take_dead_letters(&self, count: usize) -> Vec<DeadLetter> {
        let mut dead = Vec::new();
        eventually(&format!("{count} dead letters"), DEADLINE, async || {
            while let Some(got) =
                self.channel.basic_get(self.dead_letter_queue().into(), BasicGetOptions::default()).await.unwrap()
            {
                got.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
                dead.push(DeadLetter {
                    headers: text_headers(&got.delivery.properties),
                    body: got.delivery.data,
                    properties: got.delivery.properties,
                });
            }
            dead.len() >= count
        })
        .await;
        assert_eq!(dead.len(), count, "{:?}", dead.iter().map(|dead| &dead.headers).collect::<Vec<_>>());
        dead
    }

    /// Asserts that MongoDB has each numbered event exactly once and as it was sent, and nothing else.
    pub async fn assert_exactly(&self, count: i32) {
        let mut found: HashMap<i32, u32> = HashMap::new();
        let mut unexpected = 0;
        for document in self.documents().await {
            match document.get_i32("n") {
                Ok(n) if (0..count).contains(&n) && document.get_str("text").ok() == Some(text(n).as_str()) => {
                    *found.entry(n).or_default() += 1
                }
                _ => unexpected += 1,
            }
        }
        let lost = (0..count).filter(|n| !found.contains_key(n)).count();
        let doubled = found.values().filter(|times| **times > 1).count();
        println!("attempted {count} stored {} lost {lost} doubled {doubled} unexpected {unexpected}", found.len());
        assert_eq!((lost, doubled, unexpected), (0, 0, 0));
    }

    /// Deletes the queues, the exchanges and the database.
    pub async fn clean(self) {
        for queue in [self.queue(), self.dead_letter_queue(), format!("{}.parked", self.name)] {
            let _ = self.channel.queue_delete(queue.into(), Default::default()).await;
        }
        for exchange in [self.name.clone(), format!("{}.dlx", self.name), format!("{}.receipts", self.name)] {
            let _ = self.channel.exchange_delete(exchange.into(), Default::default()).await;
        }
        let _ = self.client.database(&self.name).drop().await;
    }
}

/// A connection to the first broker of a list that accepts one.
async fn connect(uris: &str) -> Connection {
    let mut errors = Vec::new();
    for uri in uris.split(',') {
        match Connection::connect(uri, ConnectionProperties::default()).await {
            Ok(connection) => return connection,
            Err(error) => errors.push(error),
        }
    }
    panic!("no broker accepts a connection: {errors:?}");
}

/// The program under test: `TICKETLOG_BIN`, such as a release build, or else the one that was built with the tests.
pub fn program() -> String {
    std::env::var("TICKETLOG_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ticketlog").to_owned())
}

/// The URI of a server that `make test` provides.
pub fn server_uri(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

fn text(n: i32) -> String {
    format!("operation {n}")
}

impl TestMessage {
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        TestMessage { body: body.into(), properties: BasicProperties::default().with_delivery_mode(2) }
    }

    /// A valid event with a number and an identity.
    pub fn numbered(n: i32) -> Self {
        let body = format!("{{\"n\":{n},\"user_id\":{},\"text\":\"{}\",\"status\":\"success\"}}", n % 97, text(n));
        TestMessage::body(body).with(|properties| properties.with_message_id(format!("m-{n}").into()))
    }

    /// Changes the properties.
    pub fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }
}

/// Those headers that are text or numbers, as text.
fn text_headers(properties: &BasicProperties) -> BTreeMap<String, String> {
    let Some(headers) = properties.headers() else { return BTreeMap::new() };
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::LongLongInt(number) => Some(number.to_string()),
        _ => None,
    };
    headers.inner().iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}

/// The same command under a limit that the shell sets.
pub fn under(limit: &str, program: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).arg(program.get_program()).args(program.get_args());
    command.env_remove("RUST_MIN_STACK");
    for (key, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    command
}
