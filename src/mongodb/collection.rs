//! Owns what kind of collection events go to: some kinds cannot keep the promises.

use bson::{Document, doc};

use ticketlog_config::finding::Finding;

use super::client::Store;
use super::error::{Failure, FailureClass};

/// What MongoDB says of a collection (manual, `listCollections`).
#[derive(Debug, Default, PartialEq)]
struct Description {
    /// `collection`, `view` or `timeseries`; empty if it does not exist yet.
    kind: String,
    /// `None` if the user may not see the options.
    options: Option<Document>,
}

impl Description {
    fn read(reply: &Document, with_options: bool) -> Self {
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found = batch.ok().and_then(|batch| batch.first()).and_then(|found| found.as_document());
        let kind = found.and_then(|found| found.get_str("type").ok()).unwrap_or_default().to_owned();
        let options = found.and_then(|found| found.get_document("options").ok()).cloned().unwrap_or_default();
        Description { kind, options: with_options.then_some(options) }
    }

    /// Why events cannot be stored in it safely, and what to do.
    fn unfit(&self) -> Option<(&'static str, &'static str)> {
        let option =
            |name: &str| self.options.as_ref().and_then(|options| options.get_bool(name).ok()).unwrap_or(false);
        match self.kind.as_str() {
            "view" => Some(("is a view, which cannot store documents", "name a collection, or drop the view")),
            "timeseries" => Some((
                "is a time-series collection, which stores a repeated event twice: its _id is not unique",
                "name an ordinary collection",
            )),
            _ if option("capped") => Some((
                "is a capped collection, which deletes the oldest events",
                "name an ordinary collection, or convert this one by copying it",
            )),
            _ => None,
        }
    }

    /// Whether a validator rejects documents.
    fn validates(&self) -> bool {
        let Some(options) = &self.options else { return false };
        let is = |name: &str, value: &str| options.get_str(name).is_ok_and(|found| found == value);
        let has_rules = options.get_document("validator").is_ok_and(|rules| !rules.is_empty());
        has_rules && !is("validationAction", "warn") && !is("validationLevel", "off")
    }
}

async fn describe(store: &Store) -> Result<Description, Failure> {
    let namespace = store.collection().namespace();
    let filter = doc! { "name": &namespace.coll };
    let list = doc! { "listCollections": 1, "filter": &filter };
    match store.command(&namespace.db, list).await {
        Ok(reply) => Ok(Description::read(&reply, true)),
        // Every user may list the names and kinds of what it has privileges on.
        Err(failure) if failure.is_permission() => {
            let names =
                doc! { "listCollections": 1, "filter": filter, "nameOnly": true, "authorizedCollections": true };
            Ok(Description::read(&store.command(&namespace.db, names).await?, false))
        }
        Err(failure) => Err(failure),
    }
}

impl Store {
    /// Why the collection cannot keep what is promised, if it cannot.
    ///
    /// # Errors
    /// MongoDB does not answer.
    pub async fn unfit_collection(&self) -> Result<Option<String>, Failure> {
        let namespace = self.collection().namespace();
        let unfit = match describe(self).await {
            Ok(description) => description.unfit(),
            // A server that does not know the command, or does not permit it, must not stop the worker.
            Err(failure) if failure.class != FailureClass::Transient => None,
            Err(failure) => return Err(failure),
        };
        Ok(unfit.map(|(text, fix)| format!("store.collection: {namespace} {text}; {fix}")))
    }
}

/// What `ticketlog check` says of the collection.
pub(super) async fn findings(store: &Store) -> Result<Vec<Finding>, Failure> {
    let subject = "store.collection";
    let name = store.collection().namespace();
    let description = describe(store).await?;
    let mut found = Vec::new();
    if let Some((text, fix)) = description.unfit() {
        found.push(Finding::fail(subject, format!("{name} {text}"), fix));
    }
    if description.validates() {
        let text = format!("{name} has a validator: what it rejects becomes dead letters (rejected_by_store)");
        found.push(Finding::warn(subject, text, "remove it with collMod, unless this is intended"));
    }
    if description.options.is_none() {
        let text =
            format!("the user may not list collections: whether {name} is capped or has a validator is not known");
        found.push(Finding::warn(subject, text, "grant listCollections on the database"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_time_series_and_capped_collections_are_unfit() {
        let described = |found: Document| Description::read(&doc! { "cursor": { "firstBatch": [found] } }, true);
        for (found, fit) in [
            (doc! { "type": "collection", "options": {} }, true),
            (doc! { "type": "collection", "options": { "capped": true } }, false),
            (doc! { "type": "view", "options": { "viewOn": "x" } }, false),
            (doc! { "type": "timeseries", "options": {} }, false),
        ] {
            assert_eq!(described(found.clone()).unfit().is_none(), fit, "{found}");
        }
        assert_eq!(Description::read(&doc! { "cursor": { "firstBatch": [] } }, true).unfit(), None);
        let rules = doc! { "n": 1 };
        for (options, validates) in [
            (doc! { "validator": &rules }, true),
            (doc! { "validator": &rules, "validationAction": "warn" }, false),
            (doc! { "validator": {} }, false),
        ] {
            assert_eq!(
                described(doc! { "type": "collection", "options": &options }).validates(),
                validates,
                "{options}"
            );
        }
    }
}
