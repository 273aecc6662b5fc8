//! Owns everything about MongoDB, and is the only place that names its driver. Must not know deliveries or RabbitMQ.
//!
//! What the driver makes necessary here: a timeout of our own around every call, write concern majority with journal
//! whatever the URI says, one command a call, and no error text let through (it holds documents and credentials).

mod indexes;
mod insert;
mod inspect;
mod outcome;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bson::doc;
use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use futures_util::TryStreamExt;
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, Database};
use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::{config, metrics};

pub use indexes::{IndexReport, ensure_indexes};
use insert::Insert;
pub use insert::Inserted;
pub use inspect::inspect;
pub use outcome::{Class, DocumentFault, Failure};

/// The collection, with the write concern that makes an acknowledgement safe.
#[derive(Clone)]
pub struct Store {
    database: Database,
    collection: Collection<RawDocumentBuf>,
    insert: Insert,
    limit: Duration,
}

impl Store {
    /// Prepares the client. No connection is made yet, unless the URI is `mongodb+srv`.
    ///
    /// # Errors
    /// A URI that the driver cannot read (or whose SRV record it cannot resolve).
    pub async fn open(settings: &config::Store, pool: usize) -> Result<Self, Failure> {
        let parse = ClientOptions::parse(settings.uri.expose_secret());
        let mut options = match timeout(settings.write_timeout.0, parse).await {
            Ok(Ok(options)) => options,
            Ok(Err(error)) => return Err(outcome::failure(&error)),
            Err(_) => return Err(Failure::timed_out()),
        };
        options.app_name = Some("ticketlog".to_owned());
        options.max_pool_size = Some(u32::try_from(pool + 2).unwrap_or(u32::MAX));
        options.server_selection_timeout = Some(Duration::from_secs(5).min(settings.write_timeout.0));
        options.connect_timeout = Some(Duration::from_secs(10).min(settings.write_timeout.0));
        options.cmap_event_handler = Some(EventHandler::callback(connection_counter()));
        let client = Client::with_options(options).map_err(|error| outcome::failure(&error))?;
        let limit = settings.write_timeout.0;
        // The server gives up before we do, so that we hear of it.
        let patience = limit.mul_f64(0.8);
        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(patience).build();
        let options = CollectionOptions::builder()
            .write_concern(concern)
            .read_concern(ReadConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        let database = client.database(&settings.database);
        let collection = database.collection_with_options(&settings.collection, options);
        let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        let insert = Insert::new(&settings.database, &settings.collection, patience);
        Ok(Store { database, collection, insert, limit })
    }

    /// Asks the primary whether it answers and lets us in.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe(&self) -> Result<(), Failure> {
        // A read of the collection itself: unlike `ping` it needs a primary, the login and the right to read.
        let query = self.collection.find_one(doc! { "_id": ObjectId::from_bytes([0; 12]) });
        self.bounded(async { query.await.map(|_| ()) }).await
    }

    /// How many seconds MongoDB's clock is ahead of ours, to within half of the way there and back.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn clock_ahead(&self) -> Result<f64, Failure> {
        let database = self.collection.client().database("admin");
        let asked = bson::DateTime::now().timestamp_millis();
        let hello = self.bounded(async { database.run_command(doc! { "hello": 1 }).await }).await?;
        let ours = i64::midpoint(asked, bson::DateTime::now().timestamp_millis());
        let theirs = hello.get_datetime("localTime").map_or(ours, |time| time.timestamp_millis());
        Ok((theirs - ours) as f64 / 1000.0)
    }

    /// Inserts documents, unordered, in one command.
    pub async fn insert(&self, documents: &[&RawDocumentBuf]) -> Inserted {
        let Some(command) = self.insert.command(documents) else { return Inserted::Unknown(insert::NOT_UNDERSTOOD) };
        let command = self.database.run_raw_command(command);
        match self.bounded(async { command.await }).await {
            Ok(reply) => self.insert.outcome(reply, documents.len()),
            Err(failure) => Inserted::Unknown(failure),
        }
    }

    /// Reads the documents of these `_id`s, as stored durably, and shows each to `see`, one after the other.
    ///
    /// # Errors
    /// Why not all of them can be read; some may have been shown by then.
    pub async fn visit(&self, ids: &[[u8; 12]], mut see: impl FnMut([u8; 12], &[u8])) -> Result<(), Failure> {
        let list: Vec<ObjectId> = ids.iter().map(|id| ObjectId::from_bytes(*id)).collect();
        let find = self.collection.find(doc! { "_id": { "$in": list } });
        self.bounded(async {
            let mut found = find.await?;
            while let Some(document) = found.try_next().await? {
                if let Ok(id) = document.get_object_id("_id") {
                    see(id.bytes(), document.as_bytes());
                }
            }
            Ok(())
        })
        .await
    }

    async fn bounded<T>(&self, work: impl Future<Output = mongodb::error::Result<T>>) -> Result<T, Failure> {
        match timeout(self.limit, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(outcome::failure(&error)),
            Err(_) => Err(Failure::timed_out()),
        }
    }
}

/// Keeps count of the pool's connections, by their ids: not every check-out is told, nor every check-in.
fn connection_counter() -> impl Fn(CmapEvent) + Send + Sync + 'static {
    let (open, used) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    let change = |ids: &Mutex<HashSet<u32>>, state: &'static str, id: u32, there: bool| {
        let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
        if there {
            ids.insert(id)
        } else {
            ids.remove(&id)
        };
        metrics::store_connections(state, ids.len());
    };
    move |event| match event {
        CmapEvent::ConnectionCreated(event) => change(&open, "open", event.connection_id, true),
        CmapEvent::ConnectionClosed(event) => {
            change(&open, "open", event.connection_id, false);
            change(&used, "in_use", event.connection_id, false);
        }
        CmapEvent::ConnectionCheckedOut(event) => change(&used, "in_use", event.connection_id, true),
        CmapEvent::ConnectionCheckedIn(event) => change(&used, "in_use", event.connection_id, false),
        _ => {}
    }
}
