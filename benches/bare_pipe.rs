//! The floor: consume, JSON to raw BSON, `insert_many`, cumulative ack, and nothing else. No identity, no limits, no
//! outcome per document, no retry: it loses and doubles messages at the first fault. Only to be measured against.
//!
//! usage: bare_pipe QUEUE DATABASE COLLECTION COUNT   (servers from TICKETLOG_BROKER__URI and TICKETLOG_STORE__URI)
//! BARE_PIPE=best takes ready chunks on the current-thread runtime; BARE_PIPE=each inserts each message by itself as it
//! comes, which is the least latency; otherwise the obvious one: one delivery at a time on the multi-thread runtime.

#![allow(clippy::print_stdout, clippy::print_stderr)]
// A program to measure with: what goes wrong ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines
)]

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bson::raw::RawDocumentBuf;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use mongodb::options::{Acknowledgment, CollectionOptions, InsertManyOptions, WriteConcern};
use mongodb::{Client, Collection};
use tokio::sync::mpsc;

const BATCH: usize = 1000;
const IN_FLIGHT: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    let [_, queue, database, collection, count] = arguments.as_slice() else {
        println!("bare_pipe is run by the end_to_end benchmark: make bench");
        return;
    };
    let kind = std::env::var("BARE_PIPE").unwrap_or_default();
    let best = kind == "best";
    let mut builder =
        if best { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
    let runtime = builder.enable_all().build().unwrap();
    if kind == "each" {
        return runtime.block_on(each(queue, database, collection));
    }
    runtime.block_on(pipe(queue, database, collection, count.parse().unwrap(), best));
}

async fn pipe(queue: &str, database: &str, collection: &str, count: usize, best: bool) {
    let collection = open(database, collection).await;
    let broker = std::env::var("TICKETLOG_BROKER__URI").unwrap();
    let connection = Connection::connect(&broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos((BATCH * (IN_FLIGHT + 2)) as u16, BasicQosOptions::default()).await.unwrap();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, table).await.unwrap();
    let (finished, mut acks) = mpsc::unbounded_channel();
    let mut writer = Writer { collection, slots: Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT)), order: 0, finished };
    let acknowledge = tokio::spawn(async move {
        // Batches end out of order; acks go out in order.
        let (mut next, mut waiting) = (0, std::collections::BTreeMap::new());
        while let Some((order, acker)) = acks.recv().await {
            waiting.insert(order, acker);
            while let Some(acker) = waiting.remove(&next) {
                let acker: lapin::Acker = acker;
                acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
                next += 1;
            }
        }
    });
    let (mut documents, mut taken) = (Vec::with_capacity(BATCH), 0);
    while taken < count {
        let mut delivery = Some(consumer.next().await.unwrap().unwrap());
        while let Some(next) = delivery.take() {
            let event: RawDocumentBuf = serde_json::from_slice(&next.data).unwrap();
            documents.push(event);
            taken += 1;
            if documents.len() == BATCH || taken == count {
                writer.write(std::mem::take(&mut documents), next.acker).await;
            } else if best {
                delivery = consumer.next().now_or_never().map(|next| next.unwrap().unwrap());
            }
        }
    }
    drop(writer);
    acknowledge.await.unwrap();
    // Stays until it has been measured.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(5), connection.close(200, "done".into())).await.unwrap().unwrap();
}

/// Inserts and acknowledges each message on a task of its own, until its input ends.
async fn each(queue: &str, database: &str, collection: &str) {
    let collection = open(database, collection).await;
    let broker = std::env::var("TICKETLOG_BROKER__URI").unwrap();
    let connection = Connection::connect(&broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(200, BasicQosOptions::default()).await.unwrap();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, table).await.unwrap();
    let mut end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery.unwrap().unwrap(),
            _ = &mut end => break,
        };
        let collection = collection.clone();
        tokio::spawn(async move {
            let event: RawDocumentBuf = serde_json::from_slice(&delivery.data).unwrap();
            collection.insert_one(event).await.unwrap();
            delivery.acker.ack(BasicAckOptions { multiple: false }).await.unwrap();
        });
    }
    tokio::time::timeout(Duration::from_secs(5), connection.close(200, "done".into())).await.unwrap().unwrap();
}

async fn open(database: &str, collection: &str) -> Collection<RawDocumentBuf> {
    let client = Client::with_uri_str(std::env::var("TICKETLOG_STORE__URI").unwrap()).await.unwrap();
    let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    let options = CollectionOptions::builder().write_concern(concern).build();
    client.database(database).collection_with_options(collection, options)
}

struct Writer {
    collection: Collection<RawDocumentBuf>,
    slots: Arc<tokio::sync::Semaphore>,
    order: u64,
    finished: mpsc::UnboundedSender<(u64, lapin::Acker)>,
}

impl Writer {
    async fn write(&mut self, documents: Vec<RawDocumentBuf>, acker: lapin::Acker) {
        let slot = Arc::clone(&self.slots).acquire_owned().await.unwrap();
        let (collection, order, finished) = (self.collection.clone(), self.order, self.finished.clone());
        self.order += 1;
        tokio::spawn(async move {
            let options = InsertManyOptions::builder().ordered(false).build();
            collection.insert_many(documents).with_options(options).await.unwrap();
            finished.send((order, acker)).unwrap();
            drop(slot);
        });
    }
}
