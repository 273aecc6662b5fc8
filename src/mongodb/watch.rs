//! Owns following what is stored, by a change stream.

use std::time::Duration;

use ::mongodb::change_stream::ChangeStream;
use ::mongodb::change_stream::event::ChangeStreamEvent;
use bson::raw::RawDocumentBuf;
use bson::{Timestamp, doc};
use futures_util::TryStreamExt as _;

use ticketlog_config::system;

use super::client::Store;
use super::error::Failure;

/// The documents that are inserted, in the order of MongoDB's log.
pub struct Watch(ChangeStream<ChangeStreamEvent<RawDocumentBuf>>);

impl Store {
    /// Follows the inserts from now on, or from a time ago, as far as MongoDB's log reaches back. Needs a replica set.
    ///
    /// # Errors
    /// The login may not (`changeStream`), the log does not reach back, or MongoDB is not a replica set (40573).
    pub async fn watch(&self, ago: Option<Duration>) -> Result<Watch, Failure> {
        let since = ago.map(|ago| Timestamp {
            time: u32::try_from(system::since_epoch().saturating_sub(ago).as_secs()).unwrap_or(u32::MAX),
            increment: 0,
        });
        let collection = self.collection();
        let stream = collection.watch().pipeline([doc! { "$match": { "operationType": "insert" } }]);
        let opened = async {
            match since {
                Some(since) => stream.start_at_operation_time(since).await,
                None => stream.await,
            }
        };
        Ok(Watch(self.bounded(opened).await?))
    }
}

impl Watch {
    /// The next document, raw: serde would take keys such as `$oid` for types. The driver continues by itself after a lost connection, if it can.
    ///
    /// # Errors
    /// It cannot.
    pub async fn next(&mut self) -> Result<Option<RawDocumentBuf>, Failure> {
        loop {
            let event = self.0.try_next().await.map_err(|error| Failure::from(&error))?;
            match event {
                Some(event) if event.full_document.is_some() => return Ok(event.full_document),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}
