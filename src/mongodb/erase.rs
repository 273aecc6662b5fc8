//! Owns counting and deleting the documents of one user.

use ::mongodb::options::Collation;
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;

use ticketlog_contract::Wanted;

use super::client::Store;
use super::error::Failure;

/// Most documents that are deleted by one command.
const ERASE_BATCH: i64 = 1000;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct UserDocuments {
    /// Those whose `user_id` is the id.
    pub found: u64,
    /// Those that may be the user's: the `user_id` is an array that holds the id, or the double that this id and others become.
    pub undecided: u64,
}

impl Store {
    /// Number of documents of a user.
    ///
    /// # Errors
    /// MongoDB does not answer, or the login may not find.
    pub async fn count_of_user(&self, user: &Wanted) -> Result<UserDocuments, Failure> {
        let collection = self.collection();
        let found = collection.count_documents(of_user(user)).collation(exact());
        let found = self.bounded(async { found.await }).await?;
        let undecided = collection.count_documents(undecided_of(user)).collation(exact());
        Ok(UserDocuments { found, undecided: self.bounded(async { undecided.await }).await? })
    }

    /// Deletes at most 1,000 of those that are found; a majority has done so when it returns. Returns `None` if none is
    /// left.
    ///
    /// # Errors
    /// Some of the batch may be deleted, and the command can be repeated.
    pub async fn delete_some_of_user(&self, user: &Wanted) -> Result<Option<u64>, Failure> {
        let collection = self.collection();
        let find = collection.find(of_user(user)).projection(doc! { "_id": 1 }).collation(exact()).limit(ERASE_BATCH);
        let found = self.bounded(async { find.await?.try_collect::<Vec<_>>().await }).await?;
        let id = |found: &RawDocumentBuf| Document::try_from(&**found).ok()?.remove("_id");
        let ids: Vec<Bson> = found.iter().filter_map(id).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let mut filter = of_user(user);
        filter.insert("_id", doc! { "$in": ids });
        let delete = collection.delete_many(filter).collation(exact());
        Ok(Some(self.bounded(async { delete.await }).await?.deleted_count))
    }
}

/// Byte by byte: the collection's own collation may take `anna` for `Anna`.
pub(super) fn exact() -> Collation {
    Collation::builder().locale("simple".to_owned()).build()
}

/// The values of a field that a person means by a text: the text, and the number if it is written in plain digits. MongoDB compares
/// numbers of different types exactly.
pub fn values_of(wanted: &Wanted) -> Vec<Bson> {
    let number = wanted.integer().and_then(|digits| {
        let decimal = || digits.parse().ok().map(Bson::Decimal128);
        digits.parse().ok().map(Bson::Int64).or_else(decimal)
    });
    std::iter::once(Bson::from(wanted.text())).chain(number).collect()
}

fn of_user(user: &Wanted) -> Document {
    doc! { "user_id": { "$in": values_of(user), "$not": { "$type": "array" } } }
}

fn undecided_of(user: &Wanted) -> Document {
    let in_array = doc! { "user_id": { "$in": values_of(user), "$type": "array" } };
    let rounded = user.rounded().map(|double| doc! { "user_id": { "$eq": double, "$type": "double" } });
    let either: Vec<Document> = std::iter::once(in_array).chain(rounded).collect();
    doc! { "$or": either }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(user: &str) -> Vec<Bson> {
        values_of(&Wanted::id(user))
    }

    #[test]
    fn a_user_is_a_text_and_perhaps_an_exact_number() {
        assert_eq!(values("42"), ["42".into(), Bson::Int64(42)]);
        assert_eq!(values("1234567890123456789")[1], Bson::Int64(1_234_567_890_123_456_789));
        assert_eq!(values("18446744073709551615")[1].to_string(), "18446744073709551615");
        for text in ["anna", "NaN", "42.0", "12e5", "042", " 42", "true"] {
            assert_eq!(values(text), [Bson::from(text)]);
        }
        let id = Wanted::id("1234567890123456789");
        assert_eq!(undecided_of(&id).get_array("$or").unwrap().len(), 2);
        assert_eq!(undecided_of(&Wanted::id("42")).get_array("$or").unwrap().len(), 1);
    }
}
