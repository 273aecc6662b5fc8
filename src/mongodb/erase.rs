//! Owns counting and deleting the documents of one user. Must not know who asks for it.

use bson::{Bson, Document, doc};

use super::{Failure, Store};

impl Store {
    /// Number of documents of a user, whose id may be stored as a number or as text.
    ///
    /// # Errors
    /// MongoDB does not answer, or the login may not find.
    pub async fn count_of_user(&self, user: &str) -> Result<u64, Failure> {
        let collection = self.collection();
        let count = collection.count_documents(of_user(user));
        self.bounded(async { count.await }).await
    }

    /// Deletes them; a majority has done so when it returns. There is no timeout, because many may take long.
    ///
    /// # Errors
    /// Some may be deleted, and the command can be repeated.
    pub async fn delete_of_user(&self, user: &str) -> Result<u64, Failure> {
        let deleted = self.collection().delete_many(of_user(user)).await;
        deleted.map(|result| result.deleted_count).map_err(|error| Failure::from(&error))
    }
}

/// Equal numbers of any type match each other in MongoDB.
fn of_user(user: &str) -> Document {
    let number = user.parse::<f64>().ok().filter(|number| number.is_finite()).map(Bson::from);
    let values: Vec<Bson> = [Some(Bson::from(user)), number].into_iter().flatten().collect();
    doc! { "user_id": { "$in": values } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_text_and_perhaps_a_number() {
        assert_eq!(of_user("42"), doc! { "user_id": { "$in": ["42", 42.0] } });
        assert_eq!(of_user("anna"), doc! { "user_id": { "$in": ["anna"] } });
        assert_eq!(of_user("NaN"), doc! { "user_id": { "$in": ["NaN"] } });
    }
}
