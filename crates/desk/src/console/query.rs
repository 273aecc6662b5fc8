//! The fields of URLs and forms: which queue, which dead letters, which page. The state of a list is in its URL, so that it can be sent
//! to a colleague. Pure.

use url::form_urlencoded;

use crate::{Selection, Source};
use ticketlog_config::format;
use ticketlog_contract::dead_letter::{Cause, Filter};

/// Dead letters on a page of a list.
pub(super) const PAGE_SIZE: usize = 50;

/// The fields that select dead letters.
const SELECTING: [&str; 13] = [
    "queue",
    "id",
    "reason",
    "field",
    "code",
    "since",
    "until",
    "message_id",
    "fingerprint",
    "routing_key",
    "publisher",
    "replay_id",
    "text",
];

/// The fields of a form or a query, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn parse(bytes: &[u8]) -> Fields {
        Fields(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The value of a field; `None` if it is missing or blank.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.trim().is_empty())
    }

    fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(field, value)| field == name && !value.trim().is_empty());
        values.map(|(_, value)| value.clone()).collect()
    }

    /// Whether there is such a field, blank or not.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// # Errors
    /// A field is neither one that selects nor one of `others`, or it selects and is blank.
    pub fn check_selection(&self, others: &[&str]) -> Result<(), String> {
        for (name, value) in &self.0 {
            let selects = SELECTING.contains(&name.as_str());
            if selects && value.trim().is_empty() {
                return Err(format!("{name}: it is empty, which would select everything"));
            }
            if !selects && !others.contains(&name.as_str()) {
                return Err(format!("{name}: there is no such field"));
            }
        }
        Ok(())
    }
}

/// Which of the two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueKind {
    DeadLetters,
    Parked,
}

/// A list of dead letters: queue, filter, page.
#[derive(Debug, Clone)]
pub(super) struct DeadLetterQuery {
    pub queue: QueueKind,
    pub filter: Filter,
    /// At most this many, from the head of the queue; only for operations.
    pub limit: Option<u32>,
    /// From 1.
    pub page: usize,
    /// The only publisher that whoever asks may see. Then `filter` selects it.
    pub only: Option<String>,
    /// As they were typed: a time, or a duration ago.
    since: Option<String>,
    until: Option<String>,
}

impl DeadLetterQuery {
    /// Reads the fields. Durations such as `2h` end at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Which field is wrong, and what was expected.
    pub fn read(fields: &Fields, now: i64) -> Result<DeadLetterQuery, String> {
        let time = |name: &str, parse: fn(&str, i64) -> Result<i64, String>| {
            let named = |text: &str| parse(text, now).map_err(|error| format!("{name}: {error}"));
            fields.get(name).map(named).transpose()
        };
        let number = |name: &str| {
            let parse = |text: &str| text.parse().map_err(|_| format!("{name}: expected a number, not {text:?}"));
            fields.get(name).map(parse).transpose()
        };
        let cause = |name: &String| Cause::parse(name).ok_or_else(|| format!("reason: there is no reason {name:?}"));
        let filter = Filter {
            ids: fields.all("id"),
            causes: fields.all("reason").iter().map(cause).collect::<Result<_, _>>()?,
            fields: fields.all("field"),
            codes: number("code")?.map(i64::from).into_iter().collect(),
            since: time("since", format::parse_past)?,
            until: time("until", format::parse_time)?,
            message_ids: fields.all("message_id"),
            fingerprints: fields.all("fingerprint"),
            routing_keys: fields.all("routing_key"),
            publishers: fields.all("publisher"),
            replayed_at_least: None,
            replay_ids: fields.all("replay_id"),
            text: fields.get("text").map(|text| text.trim().to_owned()),
            conditions: Vec::new(),
        };
        let queue = if fields.get("queue") == Some("parked") { QueueKind::Parked } else { QueueKind::DeadLetters };
        let typed = |name: &str| fields.get(name).map(str::to_owned);
        let page = number("page")?.and_then(|page: u32| usize::try_from(page).ok()).unwrap_or(1).max(1);
        let (since, until) = (typed("since"), typed("until"));
        Ok(DeadLetterQuery { queue, filter, limit: number("limit")?, page, only: None, since, until })
    }

    /// Selects nothing but the dead letters of `only`, if it is given.
    ///
    /// # Errors
    /// The query asks for those of another publisher.
    pub fn limited_to(mut self, only: Option<&str>) -> Result<DeadLetterQuery, String> {
        let Some(only) = only else { return Ok(self) };
        if self.filter.publishers.iter().any(|publisher| publisher != only) {
            return Err(format!("publisher: this login sees only the dead letters of {only}"));
        }
        self.filter.publishers = vec![only.to_owned()];
        self.only = Some(only.to_owned());
        Ok(self)
    }

    pub fn of_queue(queue: QueueKind) -> DeadLetterQuery {
        let filter = Filter::default();
        DeadLetterQuery { queue, filter, limit: None, page: 1, only: None, since: None, until: None }
    }

    /// The fields that differ from the default, for forms.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let filter = &self.filter;
        let mut fields = Vec::new();
        if self.queue == QueueKind::Parked {
            fields.push(("queue", "parked".to_owned()));
        }
        let lists = [
            ("id", &filter.ids),
            ("field", &filter.fields),
            ("message_id", &filter.message_ids),
            ("fingerprint", &filter.fingerprints),
            ("routing_key", &filter.routing_keys),
            ("publisher", &filter.publishers),
            ("replay_id", &filter.replay_ids),
        ];
        for (name, values) in lists {
            fields.extend(values.iter().map(|value| (name, value.clone())));
        }
        fields.extend(filter.causes.iter().map(|cause| ("reason", cause.as_str().to_owned())));
        fields.extend(filter.codes.iter().map(|code| ("code", code.to_string())));
        let optional = [("since", &self.since), ("until", &self.until), ("text", &filter.text)];
        fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        fields
    }

    /// The same list at another page.
    pub fn at_page(&self, page: usize) -> DeadLetterQuery {
        DeadLetterQuery { page, ..self.clone() }
    }

    /// `path` with the fields as its query.
    pub fn url(&self, path: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.fields());
        if self.page > 1 {
            query.append_pair("page", &self.page.to_string());
        }
        let query = query.finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// As operations take it.
    pub fn selection(&self, source: Source) -> Selection {
        Selection { source, filter: self.filter.clone(), limit: self.limit }
    }

    /// The conditions in words.
    pub fn describe(&self) -> String {
        let fields = self.fields().into_iter().filter(|(name, _)| *name != "queue");
        let all: Vec<String> = fields.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
        if all.is_empty() { "all".to_owned() } else { all.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_url() {
        let url = "queue=parked&field=a+b&reason=too_deep&since=2026-11-22T03%3A00&text=%3Cx%3E&page=3";
        let query = DeadLetterQuery::read(&Fields::parse(url.as_bytes()), 2_000_000_000_000).unwrap();
        assert_eq!((query.queue, query.page, query.filter.since), (QueueKind::Parked, 3, Some(1_795_316_400_000)));
        assert_eq!(query.url("/dead-letters"), format!("/dead-letters?{url}"));
        assert_eq!(query.describe(), "field a b, reason too_deep, since 2026-11-22T03:00, text <x>");
        let empty = DeadLetterQuery::read(&Fields::parse(b"id=&page=0&text=+"), 0).unwrap();
        assert_eq!((empty.url("/dead-letters"), empty.filter.is_empty()), ("/dead-letters".to_owned(), true));
    }

    #[test]
    fn a_limit_holds_whatever_is_asked() {
        let limited =
            |text: &str| DeadLetterQuery::read(&Fields::parse(text.as_bytes()), 0).unwrap().limited_to(Some("shop"));
        for text in ["", "id=a&queue=parked", "publisher=shop", "publisher=shop&publisher=shop", "publisher="] {
            let query = limited(text).unwrap();
            assert_eq!(
                (query.filter.publishers, query.only.as_deref()),
                (vec!["shop".to_owned()], Some("shop")),
                "{text}"
            );
        }
        for text in ["publisher=other", "publisher=shop&publisher=other", "publisher=shop+", "publisher=Shop"] {
            assert!(limited(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_fields_are_named() {
        let error = |query: &str| DeadLetterQuery::read(&Fields::parse(query.as_bytes()), 0).unwrap_err();
        assert_eq!(error("reason=x"), "reason: there is no reason \"x\"");
        assert_eq!(error("limit=-1"), "limit: expected a number, not \"-1\"");
        let check = |form: &str| Fields::parse(form.as_bytes()).check_selection(&["limit"]);
        assert_eq!(check("id=a&limit="), Ok(()));
        assert_eq!(check("id=").unwrap_err(), "id: it is empty, which would select everything");
        assert_eq!(check("ids=a").unwrap_err(), "ids: there is no such field");
        assert!(error("since=yesterday").starts_with("since: expected a time"));
    }
}
