//! Owns asking MongoDB for the documents of an event, for `ticketlog find` and the console.

use bson::{Bson, Document};
use futures_util::future::BoxFuture;

use crate::mongodb::{self, EventDocuments, EventQuery, Failure, Store, values_of};
use ticketlog_config::RouteSettings;
use ticketlog_contract::{Rules, Wanted};
use ticketlog_desk::{Documents, Gap, GapKind, Search};

/// Asks MongoDB, through the readers' indexes; without an index only if `scan` permits it.
pub(in crate::cli) fn find_documents(
    settings: RouteSettings,
    search: Search,
    scan: bool,
) -> BoxFuture<'static, Result<Documents, Gap>> {
    Box::pin(async move { find(&settings, &search, scan).await })
}

async fn find(settings: &RouteSettings, search: &Search, scan: bool) -> Result<Documents, Gap> {
    let failed = |failure: Failure| {
        let kind = if failure.is_permission() { GapKind::NoPermission } else { GapKind::Unavailable };
        let why = format!("{}; {}", failure.what(settings.store.uri_setting), failure.fix());
        Gap { place: "MongoDB".to_owned(), why, kind }
    };
    let of_collection =
        |why: String, kind: GapKind| Gap { place: format!("collection {}", settings.collection), why, kind };
    let query = query(&settings.rules(), search).map_err(|why| of_collection(why, GapKind::LeftOut))?;
    if let Err(error) = mongodb::check_settings(&settings.store) {
        return Err(of_collection(format!("{}: {error}", settings.store.uri_setting), GapKind::Unavailable));
    }
    let store = Store::open(settings, 1, None).await.map_err(failed)?;
    match store.find_event(&query, scan).await.map_err(failed)? {
        EventDocuments::Found(mut found) => {
            let has_more = found.len() > query.limit;
            found.truncate(query.limit);
            Ok(Documents { found, has_more })
        }
        EventDocuments::NoIndex(field) => {
            let why = format!(
                "no index begins with {field}, so that all documents would be read. `ticketlog setup` creates it; --scan reads them \
                 all the same"
            );
            Err(of_collection(why, GapKind::NoIndex))
        }
    }
}

/// The query, of what documents have: a field that is a hash is compared with the hash of the value.
fn query(rules: &Rules, search: &Search) -> Result<EventQuery, String> {
    let as_stored = |field: &str, wanted: &Option<Wanted>| {
        let values = wanted.as_ref().map(|wanted| stored_values(rules, field, wanted));
        match values {
            Some(values) if values.is_empty() => Err(format!("{field} is not stored (event.drop)")),
            values => Ok(values),
        }
    };
    let is_time_stored = stored_value(rules, "timestamp", Bson::Int64(0)) == Some(Bson::Int64(0));
    Ok(EventQuery {
        id: search.id,
        uuid: as_stored("uuid", &search.uuid)?,
        user: as_stored("user_id", &search.user)?,
        since: search.since.filter(|_| is_time_stored),
        limit: search.limit,
    })
}

/// The values that a field has in documents, if a person means this. Only a text can be a hash.
fn stored_values(rules: &Rules, field: &str, wanted: &Wanted) -> Vec<Bson> {
    values_of(wanted).into_iter().filter_map(|value| stored_value(rules, field, value)).collect()
}

/// `None` if it is not stored.
fn stored_value(rules: &Rules, field: &str, value: Bson) -> Option<Bson> {
    rules.hide(Document::from_iter([(field.to_owned(), value)]))?.remove(field)
}

#[cfg(test)]
mod tests {
    use ticketlog_config::load_text;

    use super::*;

    fn query_of(settings: &str, search: &Search) -> Result<EventQuery, String> {
        query(&load_text("f", settings).unwrap().routes[0].rules(), search)
    }

    #[test]
    fn a_hidden_field_is_compared_as_it_is_stored() {
        let search = Search {
            uuid: Some(Wanted::id("u-1")),
            user: Some(Wanted::id("42")),
            since: Some(5),
            limit: 3,
            ..Search::default()
        };
        let plain = query_of("", &search).unwrap();
        assert_eq!((plain.uuid.unwrap(), plain.since), (vec![Bson::from("u-1")], Some(5)));
        let key = "mask_key = \"0123456789abcdef\"";
        let masked = query_of(&format!("[event]\ndrop = [\"timestamp\"]\nmask = [\"uuid\"]\n{key}"), &search).unwrap();
        let hashes = masked.uuid.unwrap();
        assert!(hashes.len() == 1 && hashes[0].as_str().unwrap().starts_with("hmac-sha256:"), "{hashes:?}");
        assert_eq!((masked.user.unwrap().len(), masked.since), (2, None));
        let dropped = query_of(&format!("[event]\ndrop = [\"uuid\"]\n{key}"), &search);
        assert_eq!(dropped.unwrap_err(), "uuid is not stored (event.drop)");
    }
}
