//! Owns the indexes of the readers' queries and the TTL index.

use std::time::Duration;

use ::mongodb::IndexModel;
use ::mongodb::error::ErrorKind;
use ::mongodb::options::IndexOptions;
use bson::{Document, doc};

use super::client::Store;
use super::error::{Failure, FailureClass};

/// The result for one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexReport {
    Ready(&'static str),
    /// An index with the same name or keys has other options; it stays as it is.
    Differs(&'static str),
    /// It could not be created. That affects no other index.
    Failed(&'static str, Failure),
}

/// What to do about an index that could not be created.
pub fn index_advice(failure: &Failure) -> &'static str {
    match failure.code {
        Some(13) => "grant createIndex (the roles of deploy/mongodb have it), or set store.ensure_indexes = false",
        // CannotIndexParallelArrays.
        Some(171) => "documents hold arrays in two of its fields: correct these, or set store.ensure_indexes = false",
        _ => "see MongoDB's error code and log, or set store.ensure_indexes = false",
    }
}

/// The indexes by name, keys and TTL: for a user's last operations, failed operations, the last 24 hours, one operation by
/// its uuid; and the TTL index, if there is a retention.
pub(super) fn wanted(retention: Option<Duration>) -> Vec<(&'static str, Document, Option<Duration>)> {
    let mut wanted = vec![
        ("user_id_1_timestamp_-1", doc! { "user_id": 1, "timestamp": -1 }, None),
        ("status_1_timestamp_-1", doc! { "status": 1, "timestamp": -1 }, None),
        ("timestamp_-1", doc! { "timestamp": -1 }, None),
        ("uuid_1", doc! { "uuid": 1 }, None),
    ];
    if retention.is_some() {
        wanted.push(("ingested_at_1", doc! { "ingested_at": 1 }, retention));
    }
    wanted
}

/// Creates the missing indexes one after the other. There is no timeout, because this takes long on a large collection.
///
/// # Errors
/// A transient failure: the rest was not tried.
pub async fn ensure_indexes(store: &Store, retention: Option<Duration>) -> Result<Vec<IndexReport>, Failure> {
    let mut reports = Vec::new();
    for (name, keys, expire_after) in wanted(retention) {
        let options = IndexOptions::builder().name(name.to_owned()).expire_after(expire_after).build();
        let model = IndexModel::builder().keys(keys).options(options).build();
        match store.collection().create_index(model).await {
            Ok(_) => reports.push(IndexReport::Ready(name)),
            Err(error) if is_conflict(&error) => reports.push(IndexReport::Differs(name)),
            Err(error) => match Failure::from(&error) {
                failure if failure.class == FailureClass::Transient => return Err(failure),
                failure => reports.push(IndexReport::Failed(name, failure)),
            },
        }
    }
    Ok(reports)
}

/// IndexOptionsConflict (85) or IndexKeySpecsConflict (86).
fn is_conflict(error: &::mongodb::error::Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if matches!(command.code, 85 | 86))
}
