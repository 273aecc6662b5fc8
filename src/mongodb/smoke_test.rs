//! What a smoke test asks of the collection: a document through the readers' index, the documents that carry its mark, and deleting one.

use ::mongodb::options::Hint;
use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;

use super::client::Store;
use super::error::{Failure, FailureKind};
use super::indexes;

/// Most documents that one search returns.
const MAX_FOUND: i64 = 1000;

/// MaxTimeMSExpired.
const TOO_SLOW: i32 = 50;
/// BadValue: the answer to a hint at an index that does not exist.
const NO_SUCH_INDEX: i32 = 2;

impl Failure {
    /// Whether a search through one of the readers' indexes failed because there is no such index.
    pub fn is_missing_index(&self) -> bool {
        self.code == Some(NO_SUCH_INDEX)
    }

    /// Whether `store.write_timeout` has passed, here or on the server.
    pub fn is_timeout(&self) -> bool {
        self.kind == FailureKind::Timeout || self.code == Some(TOO_SLOW)
    }
}

/// The readers' index by which a document can be found, its name first: the first of those whose fields it has, `uuid` before others.
pub fn readers_index(document: &RawDocument) -> Option<(&'static str, Document)> {
    let has = |field: &String| matches!(document.get(field), Ok(Some(_)));
    let found = indexes::wanted(None).into_iter().rev().find(|(_, keys, _)| keys.keys().all(has));
    found.map(|(name, keys, _)| (name, keys))
}

impl Store {
    /// The documents that have the values of `like` in the fields of an index, read through that index.
    ///
    /// # Errors
    /// MongoDB does not answer, the login may not find, or there is no such index ([`Failure::is_missing_index`]).
    pub async fn find_through(&self, index: &Document, like: &RawDocument) -> Result<Vec<RawDocumentBuf>, Failure> {
        let value = |field: &String| Some((field.clone(), Bson::try_from(like.get(field).ok()??).ok()?));
        self.find_hinted(index.keys().filter_map(value).collect(), index).await
    }

    /// The documents of a user that have this field.
    ///
    /// # Errors
    /// As for [`Store::find_through`].
    pub async fn find_of_user_with(&self, user: &Bson, field: &str) -> Result<Vec<RawDocumentBuf>, Failure> {
        let filter = doc! { "user_id": user, field: { "$exists": true } };
        self.find_hinted(filter, &doc! { "user_id": 1, "timestamp": -1 }).await
    }

    async fn find_hinted(&self, filter: Document, index: &Document) -> Result<Vec<RawDocumentBuf>, Failure> {
        let collection = self.collection();
        let find = collection.find(filter).hint(Hint::Keys(index.clone())).limit(MAX_FOUND).max_time(self.timeout);
        self.bounded(async { find.await?.try_collect().await }).await
    }

    /// Deletes the document with this `_id`, if it has this value in this field, too; false if there is none.
    ///
    /// # Errors
    /// MongoDB does not answer, or the login may not remove.
    pub async fn delete_marked(&self, id: ObjectId, (field, mark): (&str, &str)) -> Result<bool, Failure> {
        let collection = self.collection();
        let delete = collection.delete_one(doc! { "_id": id, field: mark });
        Ok(self.bounded(async { delete.await }).await?.deleted_count == 1)
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn a_document_is_read_through_an_index_whose_fields_it_has() {
        let name = |document: &RawDocument| readers_index(document).map(|(name, _)| name);
        assert_eq!(name(&rawdoc! { "uuid": "a", "timestamp": 1, "user_id": 1 }), Some("uuid_1"));
        assert_eq!(name(&rawdoc! { "timestamp": 1, "user_id": 1 }), Some("timestamp_-1"));
        assert_eq!(name(&rawdoc! { "user_id": 1 }), None);
    }
}
