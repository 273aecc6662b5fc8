//! Owns the collection that events are stored in: inserts, reads, and a timeout around every call.
//!
//! Rules that the driver makes necessary: every call gets a timeout, because the driver has none; the write concern is
//! majority with journal, whatever the URI says; one call is one command; no error text is passed on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ::mongodb::event::EventHandler;
use ::mongodb::event::cmap::CmapEvent;
use ::mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, ReadPreference, SelectionCriteria, Tls, WriteConcern,
};
use ::mongodb::{Client, Collection, Database};
use bson::oid::ObjectId;
use bson::raw::RawDocumentBuf;
use bson::{Document, doc, rawdoc};
use futures_util::TryStreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use tracing::info;
use xxhash_rust::xxh3::xxh3_64;

use ticketlog_config::{RouteSettings, StoreSettings};

use super::error::Failure;
use super::error::{FailureClass, FailureKind};
use super::insert::{InsertCommand, InsertResult, UNKNOWN_OUTCOME};
use super::uri;

/// Called with `open` or `in_use` and the number of such connections in the pool, whenever it changes.
pub type PoolListener = Arc<dyn Fn(&'static str, usize) + Send + Sync>;

/// Codes of a command that say that inserts fail: Unauthorized, AtlasError, DatabaseDifferCase, OutOfDiskSpace. Servers without
/// transactions answer with others.
const INSERT_FAILURES: [i32; 4] = [13, 8000, 13297, 14031];

/// The collection, with the write concern under which a confirmed write is durable.
#[derive(Clone)]
pub struct Store {
    settings: Arc<RouteSettings>,
    concurrency: usize,
    listener: Option<PoolListener>,
    /// Replaced when the login was renewed.
    client: Arc<RwLock<Handles>>,
    insert: InsertCommand,
    pub(super) timeout: Duration,
}

/// What belongs to one client of the driver.
#[derive(Clone)]
struct Handles {
    login: Login,
    database: Database,
    collection: Collection<RawDocumentBuf>,
}

/// What a client logged in with.
#[derive(Clone)]
struct Login {
    uri: SecretString,
    /// The TLS files that the URI names, with a hash of what they contained.
    files: Vec<(PathBuf, u64)>,
}

impl Login {
    fn new(uri: SecretString, options: &ClientOptions) -> Self {
        let paths = match &options.tls {
            Some(Tls::Enabled(tls)) => [tls.ca_file_path.clone(), tls.cert_key_file_path.clone()],
            _ => [None, None],
        };
        let files = paths.into_iter().flatten().map(|path| (path.clone(), content_hash(&path)));
        Login { uri, files: files.collect() }
    }

    /// Whether the files still say the same.
    fn is_current(&self, settings: &StoreSettings) -> bool {
        settings.current_uri().expose_secret() == self.uri.expose_secret()
            && self.files.iter().all(|(path, hash)| content_hash(path) == *hash)
    }
}

fn content_hash(path: &Path) -> u64 {
    std::fs::read(path).map_or(0, |content| xxh3_64(&content))
}

impl Store {
    /// Prepares the client for `concurrency` commands at a time. Makes no connection, except to resolve `mongodb+srv`.
    ///
    /// # Errors
    /// A URI that the driver cannot parse (see [`check_settings`](super::check_settings) for which part of it), or an SRV
    /// record that it cannot resolve.
    pub async fn open(
        settings: &RouteSettings,
        concurrency: usize,
        listener: Option<PoolListener>,
    ) -> Result<Self, Failure> {
        let client = Handles::open(settings, concurrency, listener.clone()).await?;
        let timeout = settings.store.write_timeout.0;
        let w_timeout = i32::try_from(w_timeout(timeout).as_millis()).unwrap_or(i32::MAX);
        let insert = InsertCommand::new(&settings.store.database, &settings.collection, w_timeout);
        let (settings, client) = (Arc::new(settings.clone()), Arc::new(RwLock::new(client)));
        Ok(Store { settings, concurrency, listener, client, insert, timeout })
    }

    fn handles(&self) -> Handles {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn collection(&self) -> Collection<RawDocumentBuf> {
        self.handles().collection
    }

    /// Logs in again with what the files of `store.uri` and of its TLS options say now, if that is something else.
    async fn renew_login(&self) {
        if self.handles().login.is_current(&self.settings.store) {
            return;
        }
        if let Ok(renewed) = Handles::open(&self.settings, self.concurrency, self.listener.clone()).await {
            info!("store.uri or its TLS files have changed: logging in to MongoDB again");
            *self.client.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        }
    }

    /// Logs in, which takes no privilege.
    ///
    /// # Errors
    /// Why that fails.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.command("admin", doc! { "ping": 1 }).await.map(drop)
    }

    /// Reads from the primary, to see whether it answers and accepts the user.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe(&self) -> Result<(), Failure> {
        // Unlike `ping`, a read needs a primary, the login and the privilege to read.
        let collection = self.collection();
        let query = collection.find_one(doc! { "_id": ObjectId::from_bytes([0; 12]) });
        self.bounded(async { query.await.map(|_| ()) }).await
    }

    /// Inserts a document in a transaction and aborts it, to see whether inserts succeed. Nobody ever sees the document.
    ///
    /// # Errors
    /// Why they fail as commands. Neither a rejected document nor a code unrelated to inserts is a failure: the
    /// server may have no transactions.
    pub async fn try_insert(&self) -> Result<(), Failure> {
        let attempt = async {
            let mut session = self.collection().client().start_session().await?;
            session.start_transaction().await?;
            let document = rawdoc! { "_id": ObjectId::new() };
            let inserted = self.collection().insert_one(document).session(&mut session).await;
            let _ = session.abort_transaction().await;
            inserted.map(|_| ())
        };
        let failure = match self.bounded(attempt).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let fails = match failure.class {
            FailureClass::Transient => failure.kind != FailureKind::Other,
            FailureClass::Operator => failure.code.is_none_or(|code| INSERT_FAILURES.contains(&code)),
            FailureClass::Document | FailureClass::Unclassified => false,
        };
        if fails { Err(failure) } else { Ok(()) }
    }

    /// Seconds by which MongoDB's clock is ahead of the worker's, accurate to half a round trip.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn clock_ahead(&self) -> Result<f64, Failure> {
        let database = self.collection().client().database("admin");
        let before = bson::DateTime::now().timestamp_millis();
        let hello = self.bounded(async { database.run_command(doc! { "hello": 1 }).await }).await?;
        let ours = i64::midpoint(before, bson::DateTime::now().timestamp_millis());
        let theirs = hello.get_datetime("localTime").map_or(ours, |time| time.timestamp_millis());
        Ok((theirs - ours) as f64 / 1000.0)
    }

    /// Inserts documents, unordered, with one command.
    pub async fn insert(&self, documents: &[&RawDocumentBuf]) -> InsertResult {
        let Some(command) = self.insert.command(documents) else { return InsertResult::Failed(UNKNOWN_OUTCOME) };
        let database = self.handles().database;
        let command = database.run_raw_command(command);
        match self.bounded(async { command.await }).await {
            Ok(reply) => self.insert.result(reply, documents.len()),
            Err(failure) => InsertResult::Failed(failure),
        }
    }

    /// Reads the documents with these `_id`s, as a majority has them, and calls `visit` with each.
    ///
    /// # Errors
    /// Not all of them could be read; some may have been visited.
    pub async fn find_by_ids(&self, ids: &[[u8; 12]], mut visit: impl FnMut([u8; 12], &[u8])) -> Result<(), Failure> {
        let list: Vec<ObjectId> = ids.iter().map(|id| ObjectId::from_bytes(*id)).collect();
        let collection = self.collection();
        let find = collection.find(doc! { "_id": { "$in": list } });
        self.bounded(async {
            let mut found = find.await?;
            while let Some(document) = found.try_next().await? {
                if let Ok(id) = document.get_object_id("_id") {
                    visit(id.bytes(), document.as_bytes());
                }
            }
            Ok(())
        })
        .await
    }

    /// The answer to a command in this database.
    pub(super) async fn command(&self, database: &str, command: Document) -> Result<Document, Failure> {
        let database = self.collection().client().database(database);
        self.bounded(async { database.run_command(command).await }).await
    }

    /// Awaits a call for at most `store.write_timeout`.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = ::mongodb::error::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(self.timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let failure = Failure::from(&error);
                // Pooled connections of a user that was dropped stay open, and have no rights. Certificates that are not valid
                // any more show as servers that cannot be reached.
                let unreachable =
                    [FailureKind::Io, FailureKind::ServerSelection, FailureKind::Tls].contains(&failure.kind);
                if unreachable || failure.is_permission() {
                    self.renew_login().await;
                }
                Err(failure)
            }
            Err(_) => Err(Failure::TIMEOUT),
        }
    }
}

impl Handles {
    async fn open(
        settings: &RouteSettings,
        concurrency: usize,
        listener: Option<PoolListener>,
    ) -> Result<Self, Failure> {
        let (settings, collection) = (&settings.store, &settings.collection);
        let uri = settings.current_uri();
        let invalid_uri = Failure { class: FailureClass::Unclassified, kind: FailureKind::Other, code: None };
        let usable = uri::usable(uri.expose_secret()).map_err(|_| invalid_uri)?;
        let parse = ClientOptions::parse(usable.uri);
        let mut options = match timeout(settings.write_timeout.0, parse).await {
            Ok(Ok(options)) => options,
            Ok(Err(error)) => return Err(Failure::from(&error)),
            Err(_) => return Err(Failure::TIMEOUT),
        };
        let login = Login::new(uri.clone(), &options);
        options.app_name = Some("ticketlog".to_owned());
        options.max_pool_size = Some(u32::try_from(concurrency + 2).unwrap_or(u32::MAX));
        options.server_selection_timeout = Some(Duration::from_secs(5).min(settings.write_timeout.0));
        options.connect_timeout = Some(Duration::from_secs(10).min(settings.write_timeout.0));
        options.cmap_event_handler = listener.map(|listener| EventHandler::callback(count_connections(listener)));
        let client = Client::with_options(options).map_err(|error| Failure::from(&error))?;
        let w_timeout = w_timeout(settings.write_timeout.0);
        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(w_timeout).build();
        let options = CollectionOptions::builder()
            .write_concern(concern)
            .read_concern(ReadConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        let database = client.database(&settings.database);
        let collection = database.collection_with_options(collection, options);
        Ok(Handles { login, database, collection })
    }
}

/// Shorter than our own timeout, so that the server's answer arrives.
fn w_timeout(timeout: Duration) -> Duration {
    timeout.mul_f64(0.8)
}

/// Counts the pool's connections by their ids, because the driver does not report every check-out and check-in.
fn count_connections(listener: PoolListener) -> impl Fn(CmapEvent) + Send + Sync + 'static {
    let (open, in_use) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    let change = move |ids: &Mutex<HashSet<u32>>, state: &'static str, id: u32, added: bool| {
        let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
        if added {
            ids.insert(id)
        } else {
            ids.remove(&id)
        };
        listener(state, ids.len());
    };
    move |event| match event {
        CmapEvent::ConnectionCreated(event) => change(&open, "open", event.connection_id, true),
        CmapEvent::ConnectionClosed(event) => {
            change(&open, "open", event.connection_id, false);
            change(&in_use, "in_use", event.connection_id, false);
        }
        CmapEvent::ConnectionCheckedOut(event) => change(&in_use, "in_use", event.connection_id, true),
        CmapEvent::ConnectionCheckedIn(event) => change(&in_use, "in_use", event.connection_id, false),
        _ => {}
    }
}
