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
    let of_collection =
        |why: String, kind: GapKind| Gap { place: format!("collection {}", settings.collection), why, kind };
    let failed = |failure: Failure| {
        let why = format!("{}; {}", failure.what(settings.store.uri_setting), failure.fix());
        match failure.is_permission() {
            true => of_collection(why, GapKind::NoPermission),
            false => Gap { place: "MongoDB".to_owned(), why, kind: GapKind::Unavailable },
        }
    };
    let rules = settings.rules();
    let query = query(&rules, search);
    if let Err(error) = mongodb::check_settings(&settings.store) {
        return Err(of_collection(format!("{}: {error}", settings.store.uri_setting), GapKind::Unavailable));
    }
    let store = Store::open(settings, 1, None).await.map_err(failed)?;
    match store.find_event(&query, scan).await.map_err(failed)? {
        EventDocuments::Found(mut found) => {
            let has_more = found.len() > query.limit;
            found.truncate(query.limit);
            let gap = dropped(&rules, search).map(|why| of_collection(why, GapKind::LeftOut));
            Ok(Documents { found, has_more, gap })
        }
        EventDocuments::NoIndex(field) => {
            let why = format!(
                "no index begins with {field}, so that all documents would be read. `ticketlog setup` creates it; --scan reads them \
                 all the same"
            );
            Err(of_collection(why, GapKind::NoIndex))
        }
        EventDocuments::NoCollection => Err(of_collection("it does not exist".to_owned(), GapKind::LeftOut)),
    }
}

/// The query, of what documents have. Settings cannot hide the `user_id`.
fn query(rules: &Rules, search: &Search) -> EventQuery {
    let uuids: Vec<Bson> = search.uuid.iter().flat_map(|uuid| stored_values(rules, "uuid", uuid)).collect();
    let is_time_stored = stored_value(rules, "timestamp", Bson::Int64(0)) == Some(Bson::Int64(0));
    EventQuery {
        id: search.id,
        uuid: (!uuids.is_empty()).then_some(uuids),
        user: search.user.as_ref().map(|user| {
            let rounded = user.rounded().map(Bson::Double);
            values_of(user).into_iter().chain(rounded).collect()
        }),
        since: search.since.filter(|_| is_time_stored),
        limit: search.limit,
    }
}

/// The values that a field has in documents, if a person means this: as it is, because a document may be older than the settings, and its
/// hash. Only a text can be a hash.
fn stored_values(rules: &Rules, field: &str, wanted: &Wanted) -> Vec<Bson> {
    let clear = values_of(wanted);
    let hashes = clear.iter().filter_map(|value| stored_value(rules, field, value.clone()));
    let hashes: Vec<Bson> = hashes.filter(|hash| !clear.contains(hash)).collect();
    clear.into_iter().chain(hashes).collect()
}

/// `None` if it is not stored.
fn stored_value(rules: &Rules, field: &str, value: Bson) -> Option<Bson> {
    rules.hide(Document::from_iter([(field.to_owned(), value)]))?.remove(field)
}

/// Why only documents that are older than the settings can be found, if so.
fn dropped(rules: &Rules, search: &Search) -> Option<String> {
    let is_dropped = !search.uuid.is_empty() && stored_value(rules, "uuid", Bson::from("u")).is_none();
    let why = "uuid is not stored (event.drop): only documents that are older than this setting are found by it";
    is_dropped.then(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use ticketlog_config::load_text;

    use super::*;

    fn rules(settings: &str) -> Rules {
        load_text("f", settings).unwrap().routes[0].rules()
    }

    #[test]
    fn a_hidden_field_is_compared_as_it_is_stored_and_as_it_was() {
        let search = Search {
            uuid: vec![Wanted::id("u-1")],
            user: Some(Wanted::id("42")),
            since: Some(5),
            limit: 3,
            ..Search::default()
        };
        let plain = query(&rules(""), &search);
        assert_eq!((plain.uuid.unwrap(), plain.since), (vec![Bson::from("u-1")], Some(5)));
        assert_eq!(plain.user.unwrap(), [Bson::from("42"), Bson::Int64(42)]);
        let key = "mask_key = \"0123456789abcdef\"";
        let masking = rules(&format!("[event]\ndrop = [\"timestamp\"]\nmask = [\"uuid\"]\n{key}"));
        let masked = query(&masking, &search);
        let uuids = masked.uuid.unwrap();
        assert!(uuids[0] == Bson::from("u-1") && uuids[1].as_str().unwrap().starts_with("hmac-sha256:"), "{uuids:?}");
        assert_eq!((uuids.len(), masked.since, dropped(&masking, &search)), (2, None, None));
        let dropping = rules(&format!("[event]\ndrop = [\"uuid\"]\n{key}"));
        assert_eq!(query(&dropping, &search).uuid.unwrap(), [Bson::from("u-1")]);
        assert!(dropped(&dropping, &search).unwrap().starts_with("uuid is not stored (event.drop)"));
    }

    #[test]
    fn an_id_above_2_to_the_53_is_also_the_double_that_it_became() {
        let search = Search { user: Some(Wanted::id("1234567890123456789")), ..Search::default() };
        let user = query(&rules(""), &search).user.unwrap();
        let double = Bson::Double(1_234_567_890_123_456_768.0);
        assert_eq!(user, [Bson::from("1234567890123456789"), Bson::Int64(1_234_567_890_123_456_789), double]);
    }
}
