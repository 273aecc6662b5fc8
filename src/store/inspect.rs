//! Owns what `ticketlog check` looks at in MongoDB: the way in, the replica set, privileges, indexes, the clock. Reads only.
//! Must not know how it is printed.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use secrecy::ExposeSecret;

use crate::config;
use crate::finding::Finding;

use super::{Failure, Store, indexes};

/// Clocks further apart than this are worth a line, in seconds.
const SKEW: f64 = 2.0;

/// Looks at everything that the worker and its readers need.
pub async fn inspect(settings: &config::Store) -> Vec<Finding> {
    let mut found = unverified(settings);
    let store = match Store::open(settings, 1).await {
        Ok(store) => store,
        Err(failure) => return with(found, Finding::fail("store.uri", failure.to_string(), "correct store.uri")),
    };
    if let Err(failure) = store.probe().await {
        let fix = "correct store.uri, start MongoDB, or grant the user the role of deploy/mongodb";
        return with(found, Finding::fail("store.uri", failure.to_string(), fix));
    }
    found.push(Finding::ok("store.uri", "MongoDB answers, and the collection can be read"));
    let parts = [hello(&store).await, privileges(&store, settings).await, index_findings(&store, settings).await];
    for part in parts {
        match part {
            Ok(mut findings) => found.append(&mut findings),
            Err(failure) => found.push(Finding::warn("store.uri", failure.to_string(), "grant it, or look by hand")),
        }
    }
    found
}

fn with(mut found: Vec<Finding>, last: Finding) -> Vec<Finding> {
    found.push(last);
    found
}

fn unverified(settings: &config::Store) -> Vec<Finding> {
    let uri = settings.uri.expose_secret();
    let mut found = Vec::new();
    if config::store_in_the_open(uri).is_some() {
        let said = "passwords and tickets travel unencrypted to MongoDB (store.allow_plaintext)";
        found.push(Finding::warn(
            "store.allow_plaintext",
            said,
            "add tls=true to store.uri, and take the setting back",
        ));
    }
    let options = uri.split_once('?').map_or("", |(_, options)| options).to_ascii_lowercase();
    let unverified = ["tlsinsecure=true", "tlsallowinvalidcertificates=true", "tlsallowinvalidhostnames=true"];
    if options.split('&').any(|option| unverified.contains(&option)) {
        let fix = "take the option out of store.uri, and name the CA with tlsCAFile";
        found.push(Finding::fail("store.uri", "TLS without verifying who is at the other end", fix));
    }
    found
}

async fn command(store: &Store, database: &str, command: Document) -> Result<Document, Failure> {
    let database = store.collection.client().database(database);
    store.bounded(async { database.run_command(command).await }).await
}

async fn hello(store: &Store) -> Result<Vec<Finding>, Failure> {
    let hello = command(store, "admin", doc! { "hello": 1 }).await?;
    let count = |key: &str| hello.get_array(key).map_or(0, Vec::len);
    let (members, arbiters) = (count("hosts") + count("passives"), count("arbiters"));
    let about = "store.uri";
    let mut found = vec![match (hello.get_str("msg"), hello.get_str("setName")) {
        (Ok("isdbgrid"), _) => Finding::ok(about, "a sharded cluster"),
        (_, Err(_)) => Finding::fail(
            about,
            "a standalone server: nothing is confirmed by a majority, and a crash may lose confirmed events",
            "make it a replica set, of one member at least (rs.initiate())",
        ),
        (_, Ok(name)) if members < 2 => Finding::warn(
            about,
            format!("replica set {name} has one visible member: no failover, and its disk is the only copy"),
            "add members",
        ),
        (_, Ok(name)) if arbiters > 0 && members < 3 => Finding::warn(
            about,
            format!(
                "replica set {name} has {members} members and an arbiter: without one of them nothing is confirmed"
            ),
            "make the arbiter a member with data",
        ),
        (_, Ok(name)) => {
            Finding::ok(about, format!("replica set {name} of {members} members, writes confirmed by a majority"))
        }
    }];
    let ahead = store.clock_ahead().await?;
    found.push(if ahead.abs() > SKEW {
        let fix = "synchronise the clocks (NTP): latencies and the retention are wrong by as much";
        Finding::warn("clock", format!("MongoDB's clock is {ahead:+.1} s from this machine's"), fix)
    } else {
        Finding::ok("clock", "MongoDB's clock and this machine's agree")
    });
    Ok(found)
}

/// Whether the user holds what the worker does. Without access control there is no user, and everything is allowed.
async fn privileges(store: &Store, settings: &config::Store) -> Result<Vec<Finding>, Failure> {
    let status = command(store, "admin", doc! { "connectionStatus": 1, "showPrivileges": true }).await?;
    let info = status.get_document("authInfo").cloned().unwrap_or_default();
    let about = "store.uri";
    if info.get_array("authenticatedUsers").map_or(true, Vec::is_empty) {
        let fix = "switch access control on, and give the worker the role of deploy/mongodb";
        return Ok(vec![Finding::warn(
            about,
            "MongoDB asks for no user: everybody who reaches it may do everything",
            fix,
        )]);
    }
    let held = info.get_array("authenticatedUserPrivileges").cloned().unwrap_or_default();
    let index = settings.ensure_indexes.then_some("createIndex");
    let wanted = ["insert", "find"].into_iter().chain(index);
    Ok(wanted
        .map(|action| {
            if held.iter().any(|privilege| grants(privilege, action, settings)) {
                Finding::ok(about, format!("the user may {action} in {}.{}", settings.database, settings.collection))
            } else {
                let said = format!("the user may not {action} in {}.{}", settings.database, settings.collection);
                Finding::fail(
                    about,
                    said,
                    "grant the role of deploy/mongodb; or, for indexes, set store.ensure_indexes = false",
                )
            }
        })
        .collect())
}

fn grants(privilege: &Bson, action: &str, settings: &config::Store) -> bool {
    let Some(privilege) = privilege.as_document() else { return false };
    let Ok(resource) = privilege.get_document("resource") else { return false };
    let names = |key: &str, name: &str| resource.get_str(key).is_ok_and(|held| held.is_empty() || held == name);
    let here = names("db", &settings.database) && names("collection", &settings.collection);
    let actions = privilege.get_array("actions").map_or(&[][..], Vec::as_slice);
    let named = actions.iter().any(|held| matches!(held.as_str(), Some(held) if held == action || held == "anyAction"));
    named && (here || resource.get_bool("anyResource").unwrap_or(false))
}

async fn index_findings(store: &Store, settings: &config::Store) -> Result<Vec<Finding>, Failure> {
    let listed: Vec<IndexModel> =
        match store.bounded(async { store.collection.list_indexes().await?.try_collect().await }).await {
            Ok(listed) => listed,
            // NamespaceNotFound
            Err(Failure { code: Some(26), .. }) => Vec::new(),
            // CommandNotSupportedOnView
            Err(Failure { code: Some(166), .. }) => {
                let said =
                    format!("{}.{} is a view: nothing can be stored in it", settings.database, settings.collection);
                return Ok(vec![Finding::fail("store.collection", said, "name a collection, or drop the view")]);
            }
            Err(failure) => return Err(failure),
        };
    let wanted = indexes::wanted(settings.retention.0).into_iter();
    let mut found: Vec<Finding> =
        wanted.map(|(name, keys, expires)| compared(&listed, name, &keys, expires, settings.ensure_indexes)).collect();
    found.extend(listed.iter().filter_map(|index| surprise(index, settings)));
    Ok(found)
}

fn compared(listed: &[IndexModel], name: &str, keys: &Document, expires: Option<Duration>, ensured: bool) -> Finding {
    let about = "store.ensure_indexes";
    match listed.iter().find(|index| serves(index, keys)) {
        Some(there) if seconds_of(there) == expires.map(|after| after.as_secs()) => {
            Finding::ok(about, format!("index {name} is there"))
        }
        Some(there) => {
            let deletes = days(seconds_of(there).map(Duration::from_secs));
            let said = format!("index {name} deletes {deletes}, the configuration says {}", days(expires));
            Finding::fail(
                "store.retention",
                said,
                "change the index with collMod, or drop it and run `ticketlog setup`",
            )
        }
        None if ensured => {
            let said = format!("index {name} is not there yet; the worker creates it");
            Finding::warn(about, said, "run `ticketlog setup`")
        }
        None => Finding::warn(
            about,
            format!("index {name} is missing: a question that readers ask scans the whole collection"),
            "run `ticketlog setup` with a user who may create indexes",
        ),
    }
}

/// Whether the index has these keys, as numbers of whatever type, and may be used for every document.
fn serves(index: &IndexModel, keys: &Document) -> bool {
    let number = |value: &Bson| match value {
        Bson::Int32(number) => Some(f64::from(*number)),
        Bson::Int64(number) => Some(*number as f64),
        Bson::Double(number) => Some(*number),
        _ => None,
    };
    let plain = |keys: &Document| -> Vec<(String, Option<f64>)> {
        keys.iter().map(|(name, value)| (name.clone(), number(value))).collect()
    };
    let limited = |options: &IndexOptions| options.hidden == Some(true) || options.partial_filter_expression.is_some();
    plain(&index.keys) == plain(keys) && !index.options.as_ref().is_some_and(limited)
}

/// Indexes of somebody else that refuse or delete events.
fn surprise(index: &IndexModel, settings: &config::Store) -> Option<Finding> {
    let name = index.options.as_ref().and_then(|options| options.name.clone()).unwrap_or_default();
    if index.options.as_ref().and_then(|options| options.unique).unwrap_or(false) {
        let said = format!("index {name} is unique: further events with its key become dead letters (duplicate_key)");
        return Some(Finding::warn("store.collection", said, "drop the index, unless this is meant"));
    }
    let ours = settings.retention.0.is_some() && serves(index, &doc! { "ingested_at": 1 });
    let after = seconds_of(index).filter(|_| !ours)?;
    let said = format!("index {name} deletes documents {}", days(Some(Duration::from_secs(after))));
    Some(Finding::warn("store.retention", said, "drop the index, unless this is meant"))
}

fn seconds_of(index: &IndexModel) -> Option<u64> {
    index.options.as_ref().and_then(|options| options.expire_after).map(|after| after.as_secs())
}

fn days(after: Option<Duration>) -> String {
    after.map_or_else(|| "nothing".to_owned(), |after| format!("after {}", humantime::format_duration(after)))
}
