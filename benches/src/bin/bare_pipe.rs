//! The least that a worker can do: consume, JSON to raw BSON, `insert_many`, cumulative ack, and nothing else. It has
//! no identity, no limits, no outcome per document and no retry, so it loses and duplicates messages at the first
//! fault.
//!
//! usage: bare_pipe QUEUE DATABASE COLLECTION COUNT   (servers from TICKETLOG_BROKER__URI and TICKETLOG_STORE__URI)
//! BARE_PIPE=obvious: one delivery at a time on the multi-thread runtime, and the driver's `insert_many`.
//! BARE_PIPE=best: deliveries in chunks, the current-thread runtime, a raw command in one buffer, batches of at most
//! 2 MiB; in `best_pipe.rs` with the worker's allocator.
//! BARE_PIPE=each inserts each message singly as it arrives, for the lowest latency.
//! BARE_PIPE=drain only consumes and acknowledges. BARE_PIPE=insert reads the whole queue into memory, prints `ready`,
//! and inserts.
//! Prints `done` when it has finished, and ends when its standard input does.

#![allow(clippy::print_stdout, clippy::print_stderr)]
// A benchmark: any error ends it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines
)]

use std::io::{Read, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::rawdoc;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use mongodb::options::{Acknowledgment, CollectionOptions, InsertManyOptions, WriteConcern};
use mongodb::{Client, Collection};
use tokio::sync::mpsc;

const BATCH: usize = 1000;
const IN_FLIGHT: usize = 2;
/// Most bytes of documents in a batch of BARE_PIPE=best.
const MAX_BYTES: usize = 2 << 20;

/// Runs the variant that the environment names.
pub fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, queue, database, collection, count] = arguments.as_slice() else {
        println!("bare_pipe is run by `make bench`");
        return;
    };
    let kind = std::env::var("BARE_PIPE").unwrap_or_default();
    let multi_thread = matches!(kind.as_str(), "obvious" | "each");
    let mut builder = if multi_thread {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().unwrap();
    let count = count.parse().unwrap();
    match kind.as_str() {
        "each" => runtime.block_on(each(queue, database, collection)),
        "drain" => runtime.block_on(async { drop(drain(queue, count, false).await) }),
        "insert" => runtime.block_on(insert(queue, database, collection, count)),
        _ => runtime.block_on(pipe(queue, database, collection, count, kind == "best")),
    }
}

fn print(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
}

/// Waits until standard input ends. Until then the benchmark reads what this process used.
async fn wait_for_end_of_input() {
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

/// Consumes, and acknowledges every batch. Returns the documents if `keep` is set.
async fn drain(queue: &str, count: usize, keep: bool) -> Vec<RawDocumentBuf> {
    let (connection, mut consumer) = consume(queue).await;
    let (mut documents, mut taken) = (Vec::new(), 0);
    while taken < count {
        let mut delivery = Some(consumer.next().await.unwrap().unwrap());
        while let Some(next) = delivery.take() {
            taken += 1;
            if keep {
                documents.push(serde_json::from_slice(&next.data).unwrap());
            }
            if taken % BATCH == 0 || taken == count {
                next.acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
            }
            delivery = consumer.next().now_or_never().map(|next| next.unwrap().unwrap());
        }
    }
    if !keep {
        print("done");
        wait_for_end_of_input().await;
    }
    tokio::time::timeout(Duration::from_secs(5), connection.close(200, "done".into())).await.unwrap().unwrap();
    documents
}

/// Reads the whole queue into memory, then inserts it.
async fn insert(queue: &str, database: &str, collection: &str, count: usize) {
    let mut documents = drain(queue, count, true).await;
    let target = Target::open(database, collection, true).await;
    target.write(documents.split_off(documents.len() - 1)).await;
    print("ready");
    let slots = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    while !documents.is_empty() {
        let batch = documents.split_off(documents.len().saturating_sub(BATCH));
        let (slot, target) = (Arc::clone(&slots).acquire_owned().await.unwrap(), target.clone());
        tokio::spawn(async move {
            target.write(batch).await;
            drop(slot);
        });
    }
    drop(slots.acquire_many(IN_FLIGHT as u32).await.unwrap());
    print("done");
    wait_for_end_of_input().await;
}

async fn consume(queue: &str) -> (Connection, lapin::Consumer) {
    let broker = std::env::var("TICKETLOG_BROKER__URI").unwrap();
    let connection = Connection::connect(&broker, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos((BATCH * (IN_FLIGHT + 2)) as u16, BasicQosOptions::default()).await.unwrap();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let consumer = channel.basic_consume(queue.into(), "".into(), options, table).await.unwrap();
    (connection, consumer)
}

async fn pipe(queue: &str, database: &str, collection: &str, count: usize, best: bool) {
    let target = Target::open(database, collection, best).await;
    let (connection, mut consumer) = consume(queue).await;
    let (finished, mut acks) = mpsc::unbounded_channel();
    let mut writer = Writer { target, slots: Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT)), order: 0, finished };
    let acknowledge = tokio::spawn(async move {
        // Batches finish out of order; acks are sent in order.
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
    let (mut documents, mut bytes, mut taken) = (Vec::with_capacity(BATCH), 0, 0);
    while taken < count {
        let mut delivery = Some(consumer.next().await.unwrap().unwrap());
        while let Some(next) = delivery.take() {
            let event: RawDocumentBuf = serde_json::from_slice(&next.data).unwrap();
            bytes += event.as_bytes().len();
            documents.push(event);
            taken += 1;
            if documents.len() == BATCH || taken == count || (best && bytes >= MAX_BYTES) {
                bytes = 0;
                writer.write(std::mem::take(&mut documents), next.acker).await;
            } else if best {
                delivery = consumer.next().now_or_never().map(|next| next.unwrap().unwrap());
            }
        }
    }
    drop(writer);
    acknowledge.await.unwrap();
    print("done");
    wait_for_end_of_input().await;
    tokio::time::timeout(Duration::from_secs(5), connection.close(200, "done".into())).await.unwrap().unwrap();
}

/// Inserts and acknowledges each message on a task of its own, until standard input ends.
async fn each(queue: &str, database: &str, collection: &str) {
    let collection = Target::open(database, collection, false).await.collection;
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

#[derive(Clone)]
struct Target {
    database: mongodb::Database,
    collection: Collection<RawDocumentBuf>,
    raw: bool,
}

impl Target {
    async fn open(database: &str, collection: &str, raw: bool) -> Self {
        let client = Client::with_uri_str(std::env::var("TICKETLOG_STORE__URI").unwrap()).await.unwrap();
        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let options = CollectionOptions::builder().write_concern(concern).build();
        let database = client.database(database);
        Target { collection: database.collection_with_options(collection, options), database, raw }
    }

    async fn write(&self, documents: Vec<RawDocumentBuf>) {
        if !self.raw {
            let options = InsertManyOptions::builder().ordered(false).build();
            self.collection.insert_many(documents).with_options(options).await.unwrap();
            return;
        }
        let reply = self.database.run_raw_command(command(self.collection.name(), &documents)).await.unwrap();
        assert_eq!(reply.get_i32("n").unwrap(), documents.len() as i32);
    }
}

/// An `insert` command with these documents, written into one buffer.
fn command(collection: &str, documents: &[RawDocumentBuf]) -> RawDocumentBuf {
    let concern = rawdoc! { "w": "majority", "j": true };
    let head = rawdoc! { "insert": collection, "ordered": false, "writeConcern": concern };
    let size: usize = documents.iter().map(|document| document.as_bytes().len() + 8).sum();
    let mut bytes = Vec::with_capacity(size + 200);
    bytes.extend_from_slice(&head.as_bytes()[..head.as_bytes().len() - 1]);
    bytes.extend_from_slice(b"\x04documents\0");
    let array = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    for (index, document) in documents.iter().enumerate() {
        bytes.push(3);
        write!(bytes, "{index}\0").unwrap();
        bytes.extend_from_slice(document.as_bytes());
    }
    bytes.push(0);
    let length = (bytes.len() - array) as i32;
    bytes[array..array + 4].copy_from_slice(&length.to_le_bytes());
    bytes.push(0);
    let length = bytes.len() as i32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

struct Writer {
    target: Target,
    slots: Arc<tokio::sync::Semaphore>,
    order: u64,
    finished: mpsc::UnboundedSender<(u64, lapin::Acker)>,
}

impl Writer {
    async fn write(&mut self, documents: Vec<RawDocumentBuf>, acker: lapin::Acker) {
        let slot = Arc::clone(&self.slots).acquire_owned().await.unwrap();
        let (target, order, finished) = (self.target.clone(), self.order, self.finished.clone());
        self.order += 1;
        tokio::spawn(async move {
            target.write(documents).await;
            finished.send((order, acker)).unwrap();
            drop(slot);
        });
    }
}
