//! Owns the indexes of the readers' queries and the TTL index. Must not know who creates them.

use std::time::Duration;

use ::mongodb::IndexModel;
use ::mongodb::error::ErrorKind;
use ::mongodb::options::IndexOptions;
use bson::{Document, doc};

use super::{Failure, Store};

/// The result for one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexReport {
    /// It exists.
    Ready(&'static str),
    /// An index with the same name or keys has other options; it stays as it is.
    Differs(&'static str),
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
/// The first failure other than differing options.
pub async fn ensure_indexes(store: &Store, retention: Option<Duration>) -> Result<Vec<IndexReport>, Failure> {
    let mut reports = Vec::new();
    for (name, keys, expire_after) in wanted(retention) {
        let options = IndexOptions::builder().name(name.to_owned()).expire_after(expire_after).build();
        let model = IndexModel::builder().keys(keys).options(options).build();
        match store.collection.create_index(model).await {
            Ok(_) => reports.push(IndexReport::Ready(name)),
            Err(error) if is_conflict(&error) => reports.push(IndexReport::Differs(name)),
            Err(error) => return Err(Failure::from(&error)),
        }
    }
    Ok(reports)
}

/// IndexOptionsConflict (85) or IndexKeySpecsConflict (86).
fn is_conflict(error: &::mongodb::error::Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(command) if matches!(command.code, 85 | 86))
}
