//! Owns what `ticketlog check` reports about MongoDB: connection, replica set, privileges, indexes, clock. Reads only.

use std::time::Duration;

use ::mongodb::options::IndexOptions;
use ::mongodb::{IndexModel, Namespace};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use secrecy::ExposeSecret;

use ticketlog_config::finding::Finding;
use ticketlog_config::{self as config, RouteSettings, StoreSettings};

use super::client::Store;
use super::collection;
use super::error::Failure;
use super::indexes;
use super::uri::check_settings;

/// Largest clock difference without a warning, in seconds.
const MAX_CLOCK_SKEW: f64 = 2.0;

/// Checks everything that the worker and the readers need; or else, as `operator`, what operators' commands need.
pub async fn check(route: &RouteSettings, operator: bool) -> Vec<Finding> {
    let (settings, subject) = (&route.store, route.store.uri_setting);
    let mut found = encryption(settings);
    let (options, usable) = uri_options(settings);
    found.extend(options);
    if !usable {
        return found;
    }
    let store = match Store::open(route, 1, None).await {
        Ok(store) => store,
        Err(failure) => return with(found, unreachable(settings, &failure)),
    };
    if let Err(failure) = store.ping().await {
        return with(found, unreachable(settings, &failure));
    }
    found.push(Finding::ok(subject, "MongoDB answers and accepts the login"));
    let mut checks = vec![replica_set_and_clock(&store, subject).await, privileges(&store, settings, operator).await];
    if !operator {
        checks.push(collection::findings(&store).await);
        checks.push(index_findings(&store, settings).await);
    }
    for findings in checks {
        match findings {
            Ok(mut findings) => found.append(&mut findings),
            Err(failure) => found.push(Finding::warn(subject, failure.what(subject), failure.fix())),
        }
    }
    found
}

fn with(mut found: Vec<Finding>, last: Finding) -> Vec<Finding> {
    found.push(last);
    found
}

/// The finding for a MongoDB that cannot be used: where it should be, and what fits the cause.
fn unreachable(settings: &StoreSettings, failure: &Failure) -> Finding {
    let hosts = config::store_hosts(settings.current_uri().expose_secret());
    let message = format!("{}, at {hosts}", failure.what(settings.uri_setting));
    Finding::fail(settings.uri_setting, message, failure.fix())
}

/// The findings about the options of `store.uri`, and whether the driver accepts the rest.
fn uri_options(settings: &StoreSettings) -> (Vec<Finding>, bool) {
    let ignored =
        |option| Finding::warn(settings.uri_setting, format!("the option {option} changes nothing here"), "remove it");
    match check_settings(settings) {
        Ok(options) => (options.into_iter().map(ignored).collect(), true),
        Err(error) => (vec![Finding::fail(settings.uri_setting, error.to_string(), "correct it")], false),
    }
}

fn encryption(settings: &StoreSettings) -> Vec<Finding> {
    let uri = settings.uri.expose_secret();
    let mut found = Vec::new();
    if config::unencrypted_store_host(uri).is_some() {
        let message = "passwords and events travel unencrypted to MongoDB";
        found.push(Finding::warn(
            "store.allow_plaintext",
            message,
            "add tls=true to store.uri and remove store.allow_plaintext",
        ));
    }
    if let Some(named) = config::store_database(uri).filter(|named| *named != settings.database) {
        let message =
            format!("{} names the database {named:?}, but events go to {:?}", settings.uri_setting, settings.database);
        found.push(Finding::warn("store.database", message, "remove one of the two names"));
    }
    let options = uri.split_once('?').map_or("", |(_, options)| options).to_ascii_lowercase();
    let unverified = ["tlsinsecure=true", "tlsallowinvalidcertificates=true", "tlsallowinvalidhostnames=true"];
    if options.split('&').any(|option| unverified.contains(&option)) {
        let fix = "remove the option from store.uri, and name the CA with tlsCAFile";
        found.push(Finding::fail(settings.uri_setting, "TLS does not verify the server's certificate", fix));
    }
    found
}

async fn replica_set_and_clock(store: &Store, subject: &'static str) -> Result<Vec<Finding>, Failure> {
    let hello = store.command("admin", doc! { "hello": 1 }).await?;
    let count = |key: &str| hello.get_array(key).map_or(0, Vec::len);
    let (members, arbiters) = (count("hosts") + count("passives"), count("arbiters"));
    let mut found = vec![match (hello.get_str("msg"), hello.get_str("setName")) {
        (Ok("isdbgrid"), _) => Finding::ok(subject, "a sharded cluster"),
        (_, Err(_)) => Finding::fail(
            subject,
            "MongoDB is a standalone server: no majority confirms writes, and a crash may lose confirmed events",
            "make it a replica set of at least one member (rs.initiate())",
        ),
        (_, Ok(name)) if members < 2 => Finding::warn(
            subject,
            format!("replica set {name} has one visible member: there is no failover, and only one copy of the data"),
            "add members",
        ),
        (_, Ok(name)) if arbiters > 0 && members < 3 => Finding::warn(
            subject,
            format!(
                "replica set {name} has {members} members and an arbiter: if one member fails, no write is confirmed"
            ),
            "replace the arbiter with a data-bearing member",
        ),
        (_, Ok(name)) => {
            Finding::ok(subject, format!("replica set {name} of {members} members, writes confirmed by a majority"))
        }
    }];
    let ahead = store.clock_ahead().await?;
    found.push(if ahead.abs() > MAX_CLOCK_SKEW {
        let fix = "synchronise the clocks (NTP): latencies and retention are off by the difference";
        Finding::warn("clock", format!("MongoDB's clock differs from this machine's by {ahead:+.1} s"), fix)
    } else {
        Finding::ok("clock", "MongoDB's clock and this machine's agree")
    });
    Ok(found)
}

/// Whether the user has the privileges of the worker. Without access control there is no user, and everything is allowed.
async fn privileges(store: &Store, settings: &StoreSettings, operator: bool) -> Result<Vec<Finding>, Failure> {
    let status = store.command("admin", doc! { "connectionStatus": 1, "showPrivileges": true }).await?;
    let info = status.get_document("authInfo").cloned().unwrap_or_default();
    let subject = settings.uri_setting;
    if info.get_array("authenticatedUsers").map_or(true, Vec::is_empty) {
        let fix = "enable access control, and give the worker the role of deploy/mongodb";
        return Ok(vec![Finding::warn(
            subject,
            "MongoDB has no access control: everybody who can reach it may do everything",
            fix,
        )]);
    }
    let namespace = store.collection().namespace();
    let held = info.get_array("authenticatedUserPrivileges").cloned().unwrap_or_default();
    let index = settings.ensure_indexes.then_some("createIndex");
    let wanted: Vec<_> = match operator {
        true => vec!["find", "remove"],
        false => ["insert", "find"].into_iter().chain(index).collect(),
    };
    let finding = |action| match held.iter().any(|privilege| grants(privilege, action, &namespace)) {
        true => Finding::ok(subject, format!("the user may {action} in {namespace}")),
        false => missing(subject, action, &namespace, operator),
    };
    Ok(wanted.into_iter().map(finding).collect())
}

/// The finding for a privilege that the user lacks. Only `ticketlog erase` needs those of operators.
fn missing(subject: &'static str, action: &str, namespace: &Namespace, operator: bool) -> Finding {
    let message = format!("the user may not {action} in {namespace}");
    match action {
        _ if operator => {
            let fix = "for `ticketlog erase`, grant the role ticketlogEraser of deploy/mongodb";
            Finding::warn(subject, message, fix)
        }
        "createIndex" => {
            let fix = "grant the role ticketlogWorker of deploy/mongodb, or set store.ensure_indexes = false";
            Finding::fail(subject, message, fix)
        }
        _ => Finding::fail(subject, message, "grant the role ticketlogWorker of deploy/mongodb"),
    }
}

fn grants(privilege: &Bson, action: &str, namespace: &Namespace) -> bool {
    let Some(privilege) = privilege.as_document() else { return false };
    let Ok(resource) = privilege.get_document("resource") else { return false };
    let names = |key: &str, name: &str| resource.get_str(key).is_ok_and(|held| held.is_empty() || held == name);
    let covers_collection = names("db", &namespace.db) && names("collection", &namespace.coll);
    let actions = privilege.get_array("actions").map_or(&[][..], Vec::as_slice);
    let named = actions.iter().any(|held| matches!(held.as_str(), Some(held) if held == action || held == "anyAction"));
    named && (covers_collection || resource.get_bool("anyResource").unwrap_or(false))
}

async fn index_findings(store: &Store, settings: &StoreSettings) -> Result<Vec<Finding>, Failure> {
    let listed: Vec<IndexModel> =
        match store.bounded(async { store.collection().list_indexes().await?.try_collect().await }).await {
            Ok(listed) => listed,
            // NamespaceNotFound
            Err(Failure { code: Some(26), .. }) => Vec::new(),
            // CommandNotSupportedOnView
            Err(Failure { code: Some(166), .. }) => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
    let wanted = indexes::wanted(settings.retention.0).into_iter();
    let mut found: Vec<Finding> = wanted
        .map(|(name, keys, expires)| index_finding(&listed, name, &keys, expires, settings.ensure_indexes))
        .collect();
    found.extend(listed.iter().filter_map(|index| harmful_index(index, settings)));
    Ok(found)
}

/// The finding for one of the wanted indexes.
fn index_finding(
    listed: &[IndexModel],
    name: &str,
    keys: &Document,
    expires: Option<Duration>,
    ensured: bool,
) -> Finding {
    let subject = "store.ensure_indexes";
    match listed.iter().find(|index| serves(index, keys)) {
        Some(there) if seconds_of(there) == expires.map(|after| after.as_secs()) => {
            Finding::ok(subject, format!("index {name} exists"))
        }
        Some(there) => {
            let dates = expires.is_none().then(|| format!(", where {} is a date", first_key(there)));
            let actual = deleted(seconds_of(there).map(Duration::from_secs)) + &dates.unwrap_or_default();
            let message = format!("index {name} deletes {actual}, but should delete {}", deleted(expires));
            Finding::fail(
                "store.retention",
                message,
                "change the index with collMod, or drop it and run `ticketlog setup`",
            )
        }
        None if ensured => {
            let message = format!("index {name} does not exist yet; the worker creates it");
            Finding::warn(subject, message, "run `ticketlog setup`")
        }
        None => Finding::warn(
            subject,
            format!("index {name} is missing: a query of the readers scans the whole collection"),
            "run `ticketlog setup` with a user who may create indexes",
        ),
    }
}

/// Whether the index has these keys (their numbers may be of any type) and covers every document.
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

/// The warning about an index that rejects events, or deletes them although the configuration does not say so.
fn harmful_index(index: &IndexModel, settings: &StoreSettings) -> Option<Finding> {
    let name = index.options.as_ref().and_then(|options| options.name.clone()).unwrap_or_default();
    // A clustered collection lists the index on `_id`, as unique.
    let is_id = index.keys.keys().eq(["_id"]);
    if !is_id && index.options.as_ref().and_then(|options| options.unique).unwrap_or(false) {
        let message =
            format!("index {name} is unique: further events with the same key become dead letters (duplicate_key)");
        return Some(Finding::warn("store.collection", message, "drop the index, unless this is intended"));
    }
    let ours = settings.retention.0.is_some() && serves(index, &doc! { "ingested_at": 1 });
    let after = seconds_of(index).filter(|_| !ours)?;
    // MongoDB's page on TTL indexes: a field that is not a date is never expired.
    let (deleted, field) = (deleted(Some(Duration::from_secs(after))), first_key(index));
    let message = format!("index {name} deletes {deleted}, where {field} is a date");
    Some(Finding::warn("store.retention", message, "drop the index, unless this is intended"))
}

fn seconds_of(index: &IndexModel) -> Option<u64> {
    index.options.as_ref().and_then(|options| options.expire_after).map(|after| after.as_secs())
}

fn first_key(index: &IndexModel) -> &str {
    index.keys.keys().next().map(String::as_str).unwrap_or_default()
}

/// What a TTL index deletes.
fn deleted(after: Option<Duration>) -> String {
    after.map_or_else(|| "nothing".to_owned(), |after| format!("documents after {}", humantime::format_duration(after)))
}
