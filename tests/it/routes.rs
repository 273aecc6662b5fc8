//! Several logs in one process (`[route.NAME]`): each message is stored in the collection of its route, and what goes wrong with one
//! route leaves the other alone.

use std::process::Command;

use bson::{Document, doc};
use lapin::options::{BasicPublishOptions, QueueBindOptions};
use mongodb::Collection;

use crate::harness::{DEADLINE, TestEnv, TestMessage, Worker, eventually};

/// A main route for `ticket.#`, and the route `refresh`, whose events need a number `n`.
struct Routes {
    env: TestEnv,
    refresh: Collection<Document>,
    queue: String,
}

impl Routes {
    async fn new() -> Self {
        let env = TestEnv::new().await;
        let refresh = env.client.database(&env.name).collection("refresh");
        let queue = format!("{}.refresh", env.name);
        let routes = Routes { env, refresh, queue };
        let output = routes.command().arg("setup").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("route refresh:"), "{output:?}");
        routes
    }

    fn command(&self) -> Command {
        let mut command = self.env.command();
        let fields = "{ n = { type = \"number\", required = true } }";
        let route = format!(
            "{{ queue = {:?}, routing_keys = [\"refresh.#\"], collection = \"refresh\", fields = {fields} }}",
            self.queue
        );
        command.env("TICKETLOG_ROUTE__REFRESH", route);
        command
    }

    async fn worker(&self) -> Worker {
        let worker = Worker::start(self.command()).await;
        worker.wait_until_ready().await;
        worker
    }

    /// What a command prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    }

    async fn publish(&self, key: &str, messages: impl IntoIterator<Item = TestMessage>) {
        let mut confirms = Vec::new();
        for message in messages {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let exchange = self.env.name.as_str().into();
            let publish =
                self.env.channel.basic_publish(exchange, key.into(), options, &message.body, message.properties);
            confirms.push(publish.await.unwrap());
        }
        for confirm in confirms {
            let confirmation = confirm.await.unwrap();
            assert!(confirmation.is_ack() && confirmation.take_message().is_none());
        }
    }

    async fn stored(&self) -> (u64, u64) {
        (self.env.count().await, self.refresh.count_documents(doc! {}).await.unwrap())
    }

    async fn wait_until_stored(&self, main: u64, refresh: u64) {
        eventually("all are stored", DEADLINE, async || self.stored().await == (main, refresh)).await;
    }

    async fn clean(self) {
        for suffix in ["", ".dead", ".parked"] {
            let queue = format!("{}{suffix}", self.queue);
            let _ = self.env.channel.queue_delete(queue.into(), Default::default()).await;
        }
        self.env.clean().await;
    }
}

/// The value of a series of one queue.
fn value(worker: &Worker, name: &str, queue: &str, label: &str) -> f64 {
    let (_, text) = worker.get("/metrics");
    let of = |line: &&str| line.starts_with(&format!("{name}{{queue=\"{queue}\"")) && line.contains(label);
    let values: Vec<f64> =
        text.lines().filter(of).map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    let [value] = values[..] else { panic!("{name} {queue} {label}: {values:?}") };
    value
}

#[tokio::test]
async fn each_message_is_stored_in_the_collection_of_its_route() {
    let routes = Routes::new().await;
    let mut worker = routes.worker().await;
    let (main, refresh) = (routes.env.queue(), routes.queue.clone());
    routes.publish("ticket.buy", (0..300).map(TestMessage::numbered)).await;
    // The same ids: each collection has its own.
    routes.publish("refresh.ok", (0..200).map(TestMessage::numbered)).await;
    routes.publish("refresh.bad", [TestMessage::body("{\"user_id\":42}")]).await;
    let bind = |queue: &str| {
        let exchange = routes.env.name.as_str().into();
        routes.env.channel.queue_bind(
            queue.into(),
            exchange,
            "left.over".into(),
            QueueBindOptions::default(),
            Default::default(),
        )
    };
    bind(&refresh).await.unwrap();
    routes.publish("left.over", [TestMessage::numbered(1_000)]).await;
    // Who names the queue itself means it.
    let numbered = TestMessage::numbered(200);
    let options = BasicPublishOptions::default();
    let publish = routes.env.channel.basic_publish(
        "".into(),
        refresh.as_str().into(),
        options,
        &numbered.body,
        numbered.properties,
    );
    publish.await.unwrap().await.unwrap();
    routes.wait_until_stored(300, 201).await;
    routes.env.assert_exactly(300).await;
    routes.env.wait_for_depth(&format!("{refresh}.dead"), 2).await;

    let settled = |queue: &str, outcome: &str| value(&worker, "ticketlog_messages_settled_total", queue, outcome);
    eventually("all are settled", DEADLINE, async || settled(&refresh, "dead_lettered") == 2.0).await;
    assert_eq!((settled(&main, "stored"), settled(&main, "dead_lettered")), (300.0, 0.0));
    assert_eq!(settled(&refresh, "stored"), 201.0);
    assert_eq!(value(&worker, "ticketlog_dead_letters_total", &refresh, "unexpected_routing_key"), 1.0);
    assert_eq!(value(&worker, "ticketlog_dead_letters_total", &main, "unexpected_routing_key"), 0.0);
    assert_eq!(value(&worker, "ticketlog_ready", &refresh, ""), 1.0);
    eventually("both queues are seen", DEADLINE, async || {
        value(&worker, "ticketlog_queue_messages", &refresh, "dead_letter") == 2.0
            && value(&worker, "ticketlog_queue_consumers", &main, "work") == 1.0
    })
    .await;
    let log = worker.log();
    assert!(
        log.lines()
            .any(|line| line.contains("\"span\":{\"route\":\"refresh\"") && line.contains("rejected for a new cause")),
        "{log}"
    );
    let status: serde_json::Value = serde_json::from_str(&worker.get("/status").1).unwrap();
    assert_eq!((status["queue"].as_str(), status["routes"][0]["queue"].as_str()), (Some(&*main), Some(&*refresh)));
    assert_eq!(status["routes"][0]["last_dead_letters"].as_array().unwrap().len(), 2);
    let shown = routes.run(&["status", &format!("http://{}", worker.address())]);
    assert!(shown.contains(&format!("{refresh} to")) && shown.contains("2 waiting, 0 parked"), "{shown}");

    // The desk of a route knows its fields.
    let dead_letters = routes.run(&["dead", "list", "--route", "refresh"]);
    assert!(
        dead_letters.contains("missing_field") && dead_letters.contains("unexpected_routing_key"),
        "{dead_letters}"
    );
    let fixed = [
        "dead",
        "replay",
        "--route",
        "refresh",
        "--reason",
        "missing_field",
        "--edit",
        ".n = 1",
        "--no-backup",
        "--yes",
    ];
    let shown = routes.run(&fixed);
    assert!(shown.contains("1"), "{shown}");
    routes.wait_until_stored(300, 202).await;
    let forecast = routes.run(&["dead", "replay", "--route", "refresh", "--dry-run"]);
    assert!(forecast.contains("unexpected_routing_key"), "{forecast}");
    let checked = routes.run(&["check"]);
    assert!(checked.contains("route refresh: queue") && checked.contains("route main: queue"), "{checked}");
    assert_eq!(routes.run(&["dead", "list", "--route", "refesh"]).matches("main, refresh").count(), 1);

    let refused = routes.run(&["publish", "--route", "refresh", "--generate", "1"]);
    assert!(refused.contains("needs a --routing-key that matches refresh.#"), "{refused}");

    assert!(routes.run(&["pause", "--route", "refresh", "--pid", "1"]).contains("paused together"));
    let both = routes.run(&["setup", "--route", "refresh,main,refresh"]);
    assert_eq!(both.matches("route refresh:").count(), 1);
    assert!(both.contains("route main:") && both.contains("route refresh:"), "{both}");
    assert!(routes.run(&["dead", "stats", "--route", "refresh,main"]).contains("about one route"));

    // Both are paused, resumed and erased together.
    worker.signal("USR1");
    eventually("both pause", DEADLINE, async || {
        let (_, problems) = worker.get("/readyz");
        ["route main: consumer: paused", "route refresh: consumer: paused"].iter().all(|line| problems.contains(line))
    })
    .await;
    worker.signal("USR2");
    worker.wait_until_ready().await;
    let erased = routes.run(&["erase", "--user", "42", "--yes"]);
    assert!(erased.contains("erased: 6 documents, 0 dead letters and 0 parked"), "{erased}");
    assert_eq!(worker.stop().await.code(), Some(0));
    routes.clean().await;
}

#[tokio::test]
async fn a_left_over_binding_is_noticed_behind_an_exchange_in_front() {
    let routes = Routes::new().await;
    let mut worker = routes.worker().await;
    let (upstream, exchange) = (format!("{}.upstream", routes.env.name), routes.env.name.clone());
    let channel = &routes.env.channel;
    let kind = lapin::ExchangeKind::Topic;
    channel.exchange_declare(upstream.as_str().into(), kind, Default::default(), Default::default()).await.unwrap();
    let (from, to) = (upstream.as_str(), exchange.as_str());
    let bind = channel.exchange_bind(to.into(), from.into(), "#".into(), Default::default(), Default::default());
    bind.await.unwrap();
    let queue = routes.queue.as_str();
    let bind = channel.queue_bind(queue.into(), to.into(), "ticket.#".into(), Default::default(), Default::default());
    bind.await.unwrap();
    for key in ["ticket.buy", "refresh.ok"] {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let publish = channel.basic_publish(from.into(), key.into(), options, b"{\"n\":1}", Default::default());
        assert!(publish.await.unwrap().await.unwrap().is_ack());
    }
    routes.wait_until_stored(1, 1).await;
    routes.env.wait_for_depth(&format!("{}.dead", routes.queue), 1).await;
    let dead_letters = routes.run(&["dead", "list", "--route", "refresh"]);
    assert!(dead_letters.contains("unexpected_routing_key"), "{dead_letters}");
    channel.exchange_delete(from.into(), Default::default()).await.unwrap();
    worker.stop().await;
    routes.clean().await;
}

#[tokio::test]
async fn a_route_whose_collection_rejects_everything_holds_its_events_and_no_others() {
    let routes = Routes::new().await;
    let database = routes.env.client.database(&routes.env.name);
    let never = doc! { "$jsonSchema": { "required": ["never"] } };
    database.run_command(doc! { "collMod": "refresh", "validator": &never }).await.unwrap();
    let mut worker = routes.worker().await;
    routes.publish("refresh.ok", (0..400).map(TestMessage::numbered)).await;
    eventually("the breaker of the route opens", DEADLINE, async || {
        worker.get("/readyz").1.contains("route refresh: breaker")
    })
    .await;
    routes.publish("ticket.buy", (0..300).map(TestMessage::numbered)).await;
    eventually("the other route stores", DEADLINE, async || routes.env.count().await == 300).await;
    assert_eq!(value(&worker, "ticketlog_breaker_open", &routes.queue, ""), 1.0);
    assert_eq!(value(&worker, "ticketlog_breaker_open", &routes.env.queue(), ""), 0.0);
    database.run_command(doc! { "collMod": "refresh", "validator": {} }).await.unwrap();
    worker.wait_until_ready().await;
    let mut dead = 0;
    eventually("each event is stored or a dead letter", DEADLINE, async || {
        dead = routes.env.depth(&format!("{}.dead", routes.queue)).await;
        u64::from(dead) + routes.stored().await.1 == 400
    })
    .await;
    assert!(dead <= 180, "{dead} dead letters");
    assert_eq!(routes.env.count().await, 300);
    assert_eq!(worker.stop().await.code(), Some(0));
    routes.clean().await;
}

#[tokio::test]
async fn kills_lose_and_double_nothing_of_any_route() {
    const EVENTS: i32 = 3_000;
    let routes = Routes::new().await;
    let publish = async {
        for start in (0..EVENTS).step_by(50) {
            routes.publish("ticket.buy", (start..start + 50).map(TestMessage::numbered)).await;
            routes.publish("refresh.ok", (start..start + 50).map(TestMessage::numbered)).await;
        }
    };
    let kill = async {
        for part in 1..4 {
            let mut worker = routes.worker().await;
            eventually("some are stored", DEADLINE, async || routes.stored().await.1 > part * 300).await;
            worker.kill();
        }
        routes.worker().await
    };
    let (mut worker, ()) = tokio::join!(kill, publish);
    routes.wait_until_stored(EVENTS as u64, EVENTS as u64).await;
    routes.env.assert_exactly(EVENTS).await;
    let numbers: Vec<bson::Bson> = routes.refresh.distinct("n", doc! {}).await.unwrap();
    assert_eq!(numbers.len(), EVENTS as usize);
    assert_eq!(worker.stop().await.code(), Some(0));
    for suffix in ["", ".dead"] {
        assert_eq!(routes.env.depth(&format!("{}{suffix}", routes.queue)).await, 0);
    }
    routes.clean().await;
}
