//! Owns the indexes that answer the readers' questions, and the TTL. Must not know who asks for them.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::IndexModel;
use mongodb::error::ErrorKind;
use mongodb::options::IndexOptions;

use super::{Failure, Store, outcome};

/// What came of one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexReport {
    /// It is there now.
    Ready(&'static str),
    /// One of the same name or keys is there with other options; it stays as it is.
    Differs(&'static str),
}

/// One user's last operations; failed operations; the last 24 hours; one operation by its uuid.
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

/// Creates the indexes that are missing, one after the other. No limit of time: on a large collection it takes long.
///
/// # Errors
/// The first that could not be created for another reason than a differing one.
pub async fn ensure_indexes(store: &Store, retention: Option<Duration>) -> Result<Vec<IndexReport>, Failure> {
    let mut reports = Vec::new();
    for (name, keys, expire_after) in wanted(retention) {
        let options = IndexOptions::builder().name(name.to_owned()).expire_after(expire_after).build();
        let model = IndexModel::builder().keys(keys).options(options).build();
        match store.collection.create_index(model).await {
            Ok(_) => reports.push(IndexReport::Ready(name)),
            Err(error) if differs(&error) => reports.push(IndexReport::Differs(name)),
            Err(error) => return Err(outcome::failure(&error)),
        }
    }
    Ok(reports)
}

/// IndexOptionsConflict and IndexKeySpecsConflict.
fn differs(error: &mongodb::error::Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if matches!(command.code, 85 | 86))
}
