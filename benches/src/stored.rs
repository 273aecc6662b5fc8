//! The time from publish to stored, as a change stream of MongoDB sees it. The stream and the publisher are connected to the
//! servers directly, so a link in between delays the measured program alone.

use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use bson::Document;
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ChangeStreamEvent;
use mongodb::{Client, Collection};

use crate::programs::{end, must, ticketlog};

pub type Changes = ChangeStream<ChangeStreamEvent<Document>>;

pub struct Stored {
    pub client: Client,
    channel: Channel,
    _connection: Connection,
}

impl Stored {
    /// Connects to the servers that the environment names.
    pub async fn open() -> Self {
        let store = std::env::var("TICKETLOG_STORE__URI").unwrap();
        let client = Client::with_uri_str(store).await.unwrap();
        let broker = std::env::var("TICKETLOG_BROKER__URI").unwrap();
        let connection = Connection::connect(&broker, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Stored { client, channel, _connection: connection }
    }

    /// Starts a program and publishes `rate` events a second. Returns the milliseconds from its start until an event that waited
    /// in the queue is stored; and those from publish to stored of each further event, in order of size.
    pub async fn latencies(
        &self,
        name: &str,
        rate: u64,
        seconds: u64,
        start: impl FnOnce() -> Child,
    ) -> (f64, Vec<f64>) {
        must(ticketlog(name).arg("setup"));
        let mut changes = self.collection(name).watch().await.unwrap();
        let (starting, mut child) = self.first_stored(name, &mut changes, start).await;
        let count = rate * seconds;
        let (publishing, watching) = (self.publish_at(name, rate, count), async {
            let mut latencies = Vec::new();
            while latencies.len() < count as usize {
                latencies.push(next(&mut changes).await);
            }
            latencies
        });
        let ((), mut latencies) = tokio::join!(publishing, watching);
        end(&mut child);
        self.client.database(name).drop().await.unwrap();
        latencies.sort_by(f64::total_cmp);
        (starting, latencies)
    }

    /// Starts a program, and waits until it has stored an event that waited in the queue. Returns the milliseconds.
    pub async fn first_stored(&self, name: &str, changes: &mut Changes, start: impl FnOnce() -> Child) -> (f64, Child) {
        self.publish(name).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let started = Instant::now();
        let child = start();
        next(changes).await;
        (started.elapsed().as_secs_f64() * 1e3, child)
    }

    pub fn collection(&self, name: &str) -> Collection<Document> {
        self.client.database(name).collection("log")
    }

    async fn publish_at(&self, name: &str, rate: u64, count: u64) {
        let started = Instant::now();
        for n in 0..count {
            let due = started + Duration::from_secs_f64(n as f64 / rate as f64);
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            self.publish(name).await;
        }
    }

    /// Does not wait for the confirm, which would limit the rate.
    pub async fn publish(&self, name: &str) {
        let body = event_of_now().to_string();
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(format!("{:032x}", rand::random::<u128>()).into());
        let (key, options) = ("ticket.purchase".into(), BasicPublishOptions::default());
        drop(self.channel.basic_publish(name.into(), key, options, body.as_bytes(), properties).await.unwrap());
    }
}

/// The value below which this share of sorted values lies.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// Waits for the next event to be stored. Returns the milliseconds since it was published.
pub async fn next(changes: &mut Changes) -> f64 {
    let change = tokio::time::timeout(Duration::from_secs(60), changes.next())
        .await
        .expect("an event is stored in time")
        .unwrap()
        .unwrap();
    let sent = change.full_document.unwrap().get_i64("sent").unwrap();
    (micros() - sent) as f64 / 1e3
}

fn micros() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// An event of usual size with the time of its publish.
fn event_of_now() -> serde_json::Value {
    serde_json::json!({
        "user_id": 104_729, "timestamp": micros() / 1000, "sent": micros(), "status": "success", "operation_type": "purchase",
        "ticket_details": {"route": "Red Line", "fare": 2.75, "currency": "EUR", "zones": [1, 2, 3], "from": "Central Station", "to": "Harbour"},
    })
}
