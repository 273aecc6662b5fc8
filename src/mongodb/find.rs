//! Owns finding the documents of an event, through the indexes of the readers' queries.

use std::time::Duration;

use ::mongodb::action::Action as _;
use ::mongodb::options::Hint;
use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc, oid::ObjectId};
use futures_util::TryStreamExt as _;
use tokio::time::timeout;

use super::client::Store;
use super::erase::exact;
use super::error::Failure;

/// How long a scan of the whole collection may take.
const MAX_SCAN: Duration = Duration::from_secs(600);

/// What is known of an event. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    pub id: Option<ObjectId>,
    /// The values that the field may have.
    pub uuid: Option<Vec<Bson>>,
    pub user: Option<Vec<Bson>>,
    /// The earliest `timestamp`, in milliseconds since 1970.
    pub since: Option<i64>,
    pub limit: usize,
}

/// What was found.
#[derive(Debug)]
pub enum EventDocuments {
    /// At most one more than the limit.
    Found(Vec<RawDocumentBuf>),
    /// No index serves the query; the field that one would have to begin with.
    NoIndex(&'static str),
    /// The collection does not exist.
    NoCollection,
}

impl EventQuery {
    /// What is compared for equality, which an index must serve.
    fn compared(&self) -> Document {
        let mut filter = Document::new();
        filter.extend(self.id.map(|id| ("_id".to_owned(), id.into())));
        let lists = [("uuid", &self.uuid), ("user_id", &self.user)];
        let lists = lists.into_iter().filter_map(|(field, values)| Some((field, values.as_ref()?)));
        filter.extend(lists.map(|(field, values)| (field.to_owned(), doc! { "$in": values }.into())));
        filter
    }

    /// The fields of which one must begin an index, the most selective first.
    fn fields(&self) -> impl Iterator<Item = &'static str> + Clone {
        let fields = [("_id", self.id.is_some()), ("uuid", self.uuid.is_some()), ("user_id", self.user.is_some())];
        fields.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field)
    }

    /// What is equal to a double that is compared, and none: another integer, since several become this double.
    fn other_integers(&self) -> Option<Document> {
        let is_double = |value: &&Bson| matches!(value, Bson::Double(_));
        let doubles: Vec<&Bson> = self.user.iter().flatten().filter(is_double).collect();
        (!doubles.is_empty()).then(|| doc! { "user_id": { "$in": doubles, "$not": { "$type": "double" } } })
    }

    /// The latest first, where there may be many.
    fn sort(&self) -> Document {
        if self.id.is_none() && self.uuid.is_none() {
            doc! { "timestamp": -1 }
        } else {
            Document::new()
        }
    }
}

impl Store {
    /// Finds the documents of an event. Reads the whole collection only if `scan` permits it, for at most ten minutes.
    ///
    /// # Errors
    /// MongoDB does not answer, or the login may not find.
    pub async fn find_event(&self, query: &EventQuery, scan: bool) -> Result<EventDocuments, Failure> {
        let collection = self.collection();
        let namespace = collection.namespace();
        let mut hint = None;
        if let Some(field) = query.fields().next() {
            let find = doc! {
                "find": &namespace.coll, "filter": query.compared(), "collation": { "locale": "simple" },
            };
            let explain = doc! { "explain": find, "verbosity": "queryPlanner" };
            match serving(&self.command(&namespace.db, explain).await?, query.fields()) {
                Plan::NoCollection => return Ok(EventDocuments::NoCollection),
                Plan::NoIndex if !scan => return Ok(EventDocuments::NoIndex(field)),
                Plan::NoIndex => {}
                Plan::Index(index) => hint = index.map(Hint::Name),
            }
        }
        let limit = i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut filter = query.compared();
        filter.extend(query.since.map(|since| ("timestamp".to_owned(), doc! { "$gte": since }.into())));
        filter.extend(query.other_integers().map(|other| ("$nor".to_owned(), vec![other].into())));
        let find = collection.find(filter).sort(query.sort()).collation(exact()).limit(limit);
        let find = find.optional(hint, |find, hint| find.hint(hint));
        let found = async { find.await?.try_collect::<Vec<_>>().await };
        let found = match scan {
            false => self.bounded(found).await?,
            true => match timeout(MAX_SCAN, found).await {
                Ok(found) => found.map_err(|error| Failure::from(&error))?,
                Err(_) => return Err(Failure::TIMEOUT),
            },
        };
        Ok(EventDocuments::Found(found))
    }
}

/// How MongoDB would find documents.
#[derive(Debug, PartialEq)]
enum Plan {
    /// By an index that serves the query; `None` if it has no name here: `_id`, or several.
    Index(Option<String>),
    NoIndex,
    NoCollection,
}

/// The index by which the plan that MongoDB has chosen reads only what the query selects: each of its scans begins with one of these
/// fields, which the query compares for equality. What is not understood is none.
fn serving(plan: &Document, fields: impl Iterator<Item = &'static str> + Clone) -> Plan {
    let mut scans = Vec::new();
    if let Ok(winning) = plan.get_document("queryPlanner").and_then(|plan| plan.get_document("winningPlan")) {
        add_scans(winning, &mut scans);
    }
    let is_empty = |scan: &&Document| scan.get_str("stage").is_ok_and(|stage| stage == "EOF");
    if !scans.is_empty() && scans.iter().all(is_empty) {
        return Plan::NoCollection;
    }
    let serves = |scan: &&Document| match scan.get_str("stage").unwrap_or_default() {
        "IXSCAN" => {
            let first = scan.get_document("keyPattern").ok().and_then(|keys| keys.keys().next());
            first.is_some_and(|first| fields.clone().any(|field| first == field))
        }
        // By `_id`, or by an index for one value (MongoDB 8); of a shard, nothing.
        stage => ["IDHACK", "EOF", "CLUSTERED_IXSCAN"].contains(&stage) || stage.starts_with("EXPRESS_"),
    };
    if scans.is_empty() || !scans.iter().all(serves) {
        return Plan::NoIndex;
    }
    let name = |scan: &&Document| scan.get_str("indexName").ok().map(str::to_owned);
    let mut names: Vec<_> = scans.iter().map(name).collect();
    names.dedup();
    Plan::Index(names.pop().flatten().filter(|_| names.is_empty()))
}

/// The stages that have no stage below them. A plan may be nested below other names, of shards for instance.
fn add_scans<'a>(plan: &'a Document, scans: &mut Vec<&'a Document>) {
    let before = scans.len();
    for value in plan.values() {
        match value {
            Bson::Document(below) => add_scans(below, scans),
            Bson::Array(below) => {
                below.iter().filter_map(Bson::as_document).for_each(|below| add_scans(below, scans));
            }
            _ => {}
        }
    }
    if scans.len() == before && plan.contains_key("stage") {
        scans.push(plan);
    }
}

#[cfg(test)]
mod tests {
    use ticketlog_contract::Wanted;

    use super::super::erase::values_of;
    use super::*;

    fn serving_of(winning: Document, field: &'static str) -> Plan {
        serving(&doc! { "queryPlanner": { "winningPlan": winning } }, [field].into_iter())
    }

    fn scan(keys: Document) -> Document {
        doc! { "stage": "IXSCAN", "keyPattern": keys, "indexName": "i", "indexBounds": { "x": ["[1, 1]"] } }
    }

    #[test]
    fn an_index_serves_a_query_if_it_begins_with_a_field_that_is_compared() {
        let fetch = |below: Document| doc! { "stage": "FETCH", "filter": { "a": { "$eq": 1 } }, "inputStage": below };
        let by = |name: &str| Plan::Index(Some(name.to_owned()));
        for (plan, expected) in [
            (fetch(scan(doc! { "user_id": 1, "timestamp": -1 })), by("i")),
            (fetch(scan(doc! { "timestamp": -1 })), Plan::NoIndex),
            (doc! { "stage": "COLLSCAN", "filter": {} }, Plan::NoIndex),
            (
                doc! { "stage": "LIMIT", "inputStage": { "stage": "SORT", "inputStage": { "stage": "COLLSCAN" } } },
                Plan::NoIndex,
            ),
            (doc! { "queryPlan": fetch(scan(doc! { "user_id": 1 })), "slotBasedPlan": { "stages": "…" } }, by("i")),
            (
                doc! { "stage": "SHARD_MERGE", "shards": [
                    { "shardName": "a", "winningPlan": fetch(scan(doc! { "user_id": 1 })) },
                    { "shardName": "b", "winningPlan": { "stage": "COLLSCAN" } },
                ] },
                Plan::NoIndex,
            ),
            (
                doc! { "stage": "SHARD_MERGE", "shards": [
                    { "shardName": "a", "winningPlan": fetch(scan(doc! { "user_id": 1 })) },
                    { "shardName": "b", "winningPlan": fetch(scan(doc! { "user_id": 1 })) },
                ] },
                by("i"),
            ),
            (
                doc! { "stage": "OR", "inputStages": [scan(doc! { "user_id": 1 }), scan(doc! { "uuid": 1 })] },
                Plan::NoIndex,
            ),
            (doc! { "stage": "EOF" }, Plan::NoCollection),
            (doc! { "stage": "IDHACK" }, Plan::Index(None)),
            (doc! { "stage": "EXPRESS_IXSCAN", "keyPattern": "{ user_id: 1 }" }, Plan::Index(None)),
            (doc! { "somethingElse": 1 }, Plan::NoIndex),
        ] {
            assert_eq!(serving_of(plan.clone(), "user_id"), expected, "{plan}");
        }
        assert_eq!(serving(&doc! {}, ["uuid"].into_iter()), Plan::NoIndex);
    }

    #[test]
    fn all_that_is_known_must_hold() {
        let user = Some(values_of(&Wanted::id("42")));
        let query = EventQuery { user, since: Some(5), ..EventQuery::default() };
        let expected = doc! { "user_id": { "$in": ["42", 42_i64] } };
        assert_eq!((query.compared(), query.sort()), (expected, doc! { "timestamp": -1 }));
        assert_eq!(query.other_integers(), None);
        let rounded = EventQuery { user: Some(vec![1e18.into()]), ..EventQuery::default() };
        let other = doc! { "user_id": { "$in": [1e18], "$not": { "$type": "double" } } };
        assert_eq!(rounded.other_integers(), Some(other));
        let by_id = EventQuery { id: Some(ObjectId::from_bytes([1; 12])), uuid: Some(vec!["u".into()]), ..query };
        assert_eq!(by_id.fields().collect::<Vec<_>>(), ["_id", "uuid", "user_id"]);
        assert!(by_id.sort().is_empty());
    }
}
