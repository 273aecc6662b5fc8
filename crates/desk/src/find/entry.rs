//! One line of the story of an event: stored, dead-lettered, touched by an operation. Pure.

use bson::raw::RawDocument;
use bson::{Bson, Document};
use serde_json::{Value, json};

use ticketlog_config::RouteSettings;
use ticketlog_config::format::{counted, rfc3339};
use ticketlog_contract::dead_letter::escape;
use ticketlog_contract::{HiddenField, Printed, Rules, Treatment, read_json};

use super::super::reader::{DeadLetter, readable_body};
use super::trail::Touch;

/// What happened to an event, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub time: Option<i64>,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Stored(Stored),
    DeadLettered(Box<FoundDeadLetter>),
    Touched(Touch),
}

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub collection: String,
    /// Its `_id`, in hexadecimal if it is an ObjectId.
    pub id: String,
    /// The event's own time.
    pub event_time: Option<i64>,
    /// When it was stored, if documents say so.
    pub ingested_at: Option<i64>,
    /// The fields that the settings hide.
    pub hidden: Vec<String>,
    /// Whether it has, instead of the user, a number that several ids become.
    pub is_rounded: bool,
    /// As JSON without these, if it is asked for.
    pub document: Option<String>,
}

/// A dead letter that is in a queue now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FoundDeadLetter {
    pub queue: String,
    pub is_parked: bool,
    pub id: String,
    pub first_id: Option<String>,
    pub reason: &'static str,
    pub field: Option<String>,
    pub detail: String,
    pub message_id: Option<String>,
    pub exchange: String,
    pub routing_key: String,
    pub replays: i64,
    pub replay_id: Option<String>,
    pub trace_id: Option<String>,
    /// Whether its body cannot be read, but has the text that was asked for.
    pub is_by_text: bool,
    /// If it is asked for, without what is hidden.
    pub body: Option<String>,
}

impl Stored {
    pub fn new(settings: &RouteSettings, document: &RawDocument, with_body: bool) -> Stored {
        let rules = settings.rules();
        let id = match document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok()) {
            Some(Bson::ObjectId(id)) => id.to_hex(),
            Some(other) => Printed(&other).to_string(),
            None => String::new(),
        };
        let shown = rules.hide_stored(document.as_bytes()).and_then(|shown| Document::from_reader(&*shown).ok());
        let event_time = match shown.as_ref().and_then(|shown| shown.get("timestamp")) {
            Some(Bson::Int64(millis)) => Some(*millis),
            Some(Bson::Int32(millis)) => Some((*millis).into()),
            Some(Bson::Double(millis)) => Some(*millis as i64),
            _ => None,
        };
        let ingested_at = shown.as_ref().and_then(|shown| shown.get_datetime("ingested_at").ok());
        let hidden =
            rules.hidden_fields.iter().map(|field| format!("{} ({})", field.path, hiding(&rules, field, document)));
        let body = || match &shown {
            Some(shown) => Printed(&Bson::Document(shown.clone())).to_string(),
            None => "not shown: it is too large without what is hidden".to_owned(),
        };
        Stored {
            collection: settings.collection.clone(),
            id,
            event_time,
            ingested_at: ingested_at.map(|time| time.timestamp_millis()),
            hidden: hidden.collect(),
            is_rounded: false,
            document: with_body.then(body),
        }
    }
}

/// What became of a hidden field in a document, which may be older than the setting that hides it.
fn hiding(rules: &Rules, field: &HiddenField, document: &RawDocument) -> &'static str {
    let alone = Rules { hidden_fields: vec![field.clone()], ..rules.clone() };
    let is_hidden = alone.hide_stored(document.as_bytes()).as_deref() == Some(document.as_bytes());
    match (field.treatment, is_hidden) {
        (Treatment::Drop, true) => "not stored",
        (Treatment::Drop, false) => "stored all the same, not shown",
        (Treatment::Mask, true) => "a hash",
        (Treatment::Mask, false) => "stored in clear, shown as a hash",
    }
}

impl FoundDeadLetter {
    pub fn new(rules: &Rules, queue: &str, is_parked: bool, found: &DeadLetter, with_body: bool) -> FoundDeadLetter {
        let DeadLetter { id, delivery, record, .. } = found;
        FoundDeadLetter {
            queue: queue.to_owned(),
            is_parked,
            id: id.clone(),
            first_id: record.first_id.clone(),
            reason: record.cause.as_str(),
            field: record.field.clone(),
            detail: record.detail.clone(),
            message_id: delivery.message_id().map(str::to_owned),
            exchange: record.exchange.clone(),
            routing_key: record.routing_key.clone(),
            replays: record.replays,
            replay_id: record.replay_id.clone(),
            trace_id: delivery.trace_context().map(|trace| format!("{:032x}", trace.trace_id)),
            is_by_text: false,
            body: with_body.then(|| shown_body(rules, found)),
        }
    }
}

/// The body as JSON without what is hidden. What is not a JSON object cannot be hidden in part.
fn shown_body(rules: &Rules, dead_letter: &DeadLetter) -> String {
    let body = readable_body(&dead_letter.delivery, rules);
    let not_shown = |why: &str| format!("not shown, {} bytes: {why}", body.len());
    if rules.hidden_fields.is_empty() {
        return String::from_utf8(body.to_vec()).unwrap_or_else(|_| not_shown("it is not text"));
    }
    match read_json(&body) {
        Some(Bson::Document(document)) => match rules.hide(document) {
            Some(document) => Printed(&Bson::Document(document)).to_string(),
            None => not_shown("it is too large"),
        },
        _ => not_shown("it is not a JSON object, and the settings hide fields"),
    }
}

impl Entry {
    /// As lines for a terminal: what happened, and indented what there is to know about it. Texts of others are escaped.
    pub fn to_lines(&self) -> Vec<String> {
        let time = rfc3339(self.time);
        let (what, more) = match &self.what {
            What::Stored(stored) => stored.to_text(),
            What::DeadLettered(found) => found.to_text(),
            What::Touched(touch) => touch_text(touch),
        };
        let more = more.into_iter().map(|line| format!("    {line}"));
        std::iter::once(format!("{time:24}  {what}")).chain(more).collect()
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let mut json = match &self.what {
            What::Stored(stored) => stored.to_json(),
            What::DeadLettered(found) => found.to_json(),
            What::Touched(touch) => touch_json(touch),
        };
        if let Value::Object(json) = &mut json {
            json.insert("time".to_owned(), json!(self.time));
            json.insert("time_text".to_owned(), json!(rfc3339(self.time)));
        }
        json
    }

    /// The queue and the `dl-id` of a dead letter that is in a queue now.
    pub fn dead_letter(&self) -> Option<(&str, &str)> {
        match &self.what {
            What::DeadLettered(found) => Some((&found.queue, &found.id)),
            _ => None,
        }
    }
}

impl Stored {
    fn to_text(&self) -> (String, Vec<String>) {
        let time = match (self.ingested_at, self.event_time) {
            (Some(_), time) => format!("when it was stored; the event's own time is {}", rfc3339(time)),
            (None, Some(_)) => "the event's own time; when it was stored is not recorded".to_owned(),
            (None, None) => "the event has no time, and when it was stored is not recorded".to_owned(),
        };
        let mut more = vec![format!("_id {}", escape(&self.id)), time];
        if self.is_rounded {
            more.push("probably: its user_id is a number that several ids above 2^53 become".to_owned());
        }
        more.extend((!self.hidden.is_empty()).then(|| format!("hidden: {}", escape(&self.hidden.join(", ")))));
        more.extend(self.document.clone());
        (format!("stored in {}", escape(&self.collection)), more)
    }

    fn to_json(&self) -> Value {
        json!({
            "what": "stored", "collection": self.collection, "_id": self.id, "event_time": self.event_time,
            "ingested_at": self.ingested_at, "hidden": self.hidden, "rounded": self.is_rounded, "document": self.document,
        })
    }
}

impl FoundDeadLetter {
    fn to_text(&self) -> (String, Vec<String>) {
        let field = self.field.iter().map(|field| format!(" {}", escape(field))).collect::<String>();
        let now = if self.is_parked { "dead-lettered, parked in" } else { "dead-lettered, in" };
        let what = format!("{now} {}: {}{field}", escape(&self.queue), self.reason);
        let mut more = Vec::new();
        if self.is_by_text {
            more.push("probably: its body cannot be read, but has this text".to_owned());
        }
        more.extend((!self.detail.is_empty()).then(|| escape(&self.detail)));
        let message_id = self.message_id.iter().map(|id| format!(", message_id {}", escape(id)));
        more.push(format!("dl-id {}{}", escape(&self.id), message_id.collect::<String>()));
        more.push(format!("from exchange {:?}, routing key {:?}", escape(&self.exchange), escape(&self.routing_key)));
        if self.replays > 0 {
            let last = self.replay_id.iter().map(|id| format!(", last by replay {}", escape(id)));
            more.push(format!("replayed {}{}", counted(self.replays as u64, "time"), last.collect::<String>()));
        }
        more.extend(self.trace_id.iter().map(|id| format!("trace {id}")));
        more.extend(self.body.as_deref().map(escape));
        (what, more)
    }

    fn to_json(&self) -> Value {
        json!({
            "what": "dead_lettered", "queue": self.queue, "parked": self.is_parked, "id": self.id, "first_id": self.first_id,
            "reason": self.reason, "field": self.field, "detail": self.detail, "message_id": self.message_id,
            "exchange": self.exchange, "routing_key": self.routing_key, "replays": self.replays, "replay_id": self.replay_id,
            "trace_id": self.trace_id, "by_text": self.is_by_text, "body": self.body,
        })
    }
}

fn touch_text(touch: &Touch) -> (String, Vec<String>) {
    let done = match touch.what.as_str() {
        "edited" => "edited and replayed",
        "purged" => "deleted",
        other => other,
    };
    let same = if touch.count > 1 { format!(" ({} identical ones)", touch.count) } else { String::new() };
    let mut more = vec![format!("operation {} on {}, in {}", touch.operation, escape(&touch.queue), touch.file)];
    more.extend(touch.document.iter().map(|id| format!("as the event that gets _id {}", escape(id))));
    more.extend(touch.backup.iter().map(|file| format!("the original is in {}", escape(file))));
    (format!("{} by {}, dl-id {}{same}", escape(done), escape(&touch.who), escape(&touch.dead_letter)), more)
}

fn touch_json(touch: &Touch) -> Value {
    json!({
        "what": touch.what, "who": touch.who, "operation": touch.operation, "queue": touch.queue, "replay_id": touch.replay_id,
        "id": touch.dead_letter, "count": touch.count, "_id": touch.document, "backup": touch.backup, "file": touch.file,
    })
}

/// Puts entries into the order of time. An event has a time of its own, which may be long before it was stored: a document that a replay
/// has made comes behind the replay.
pub(super) fn in_order(entries: Vec<Entry>) -> Vec<Entry> {
    let made = |id: &str| {
        let replays = entries.iter().filter_map(|entry| match &entry.what {
            What::Touched(touch) if touch.document.as_deref() == Some(id) => entry.time,
            _ => None,
        });
        replays.max()
    };
    let key = |entry: &Entry| match &entry.what {
        What::Stored(stored) if stored.ingested_at.is_none() => (made(&stored.id).or(entry.time), true),
        _ => (entry.time, false),
    };
    let mut keyed: Vec<_> = entries.iter().map(|entry| (key(entry), entry)).collect();
    // Those without a time come last.
    keyed.sort_by_key(|((time, is_stored), _)| (time.is_none(), *time, *is_stored));
    keyed.into_iter().map(|(_, entry)| entry.clone()).collect()
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use ticketlog_config::load_text;

    use super::*;

    fn stored(document: Document) -> Entry {
        let stored = stored_with_body(document);
        let stored = Stored { document: None, ..stored };
        Entry { time: stored.ingested_at.or(stored.event_time), what: What::Stored(stored) }
    }

    fn stored_with_body(document: Document) -> Stored {
        let settings =
            load_text("f", "[event]\ndrop = [\"card\"]\nmask = [\"email\"]\nmask_key = \"0123456789abcdef\"");
        let document = bson::raw::RawDocumentBuf::try_from(&document).unwrap();
        Stored::new(&settings.unwrap().routes[0], &document, true)
    }

    #[test]
    fn a_document_that_is_older_than_the_setting_is_hidden_too_and_that_is_said() {
        let older = stored_with_body(doc! { "_id": 1, "card": "4111", "email": "a@b.c", "kept": 1 });
        assert_eq!(older.hidden, ["card (stored all the same, not shown)", "email (stored in clear, shown as a hash)"]);
        let shown = older.document.unwrap();
        assert!(!shown.contains("4111") && !shown.contains("a@b.c") && shown.contains("kept"), "{shown}");
        let hash = format!("hmac-sha256:{}", "0a".repeat(32));
        let newer = stored_with_body(doc! { "_id": 1, "email": &hash });
        assert_eq!(newer.hidden, ["card (not stored)", "email (a hash)"]);
        assert!(newer.document.unwrap().contains(&hash));
    }

    fn touched(time: i64, what: &str, document: Option<&str>) -> Entry {
        let touch = Touch {
            what: what.to_owned(),
            who: "anna".to_owned(),
            operation: "0e".repeat(12),
            queue: "q.dead".to_owned(),
            dead_letter: "0a".repeat(12),
            count: 1,
            document: document.map(str::to_owned),
            backup: document.map(|_| "q.ndjson".to_owned()),
            file: "audit.ndjson".to_owned(),
            ..Touch::default()
        };
        Entry { time: Some(time), what: What::Touched(touch) }
    }

    #[test]
    fn a_document_that_a_replay_made_comes_behind_it() {
        let id = bson::oid::ObjectId::from_bytes([7; 12]);
        let event = |time: i64| stored(doc! { "_id": id, "timestamp": time });
        let order = |entries: Vec<Entry>| -> Vec<String> {
            in_order(entries).iter().map(|entry| entry.to_lines()[0].chars().skip(26).take(6).collect()).collect()
        };
        let hex = id.to_hex();
        assert_eq!(order(vec![event(1000), touched(5000, "edited", Some(&hex))]), ["edited", "stored"]);
        assert_eq!(order(vec![touched(5000, "parked", None), event(1000)]), ["stored", "parked"]);
        let ingested = doc! { "_id": id, "timestamp": 1000, "ingested_at": bson::DateTime::from_millis(9000) };
        assert_eq!(order(vec![stored(ingested), touched(5000, "parked", None)]), ["parked", "stored"]);
        assert_eq!(order(vec![stored(doc! { "_id": id }), touched(5000, "parked", None)]), ["parked", "stored"]);
    }

    #[test]
    fn an_entry_says_what_when_who_and_where() {
        let lines =
            [stored(doc! { "_id": bson::oid::ObjectId::from_bytes([7; 12]), "timestamp": 1_795_316_400_000_i64 })]
                .into_iter()
                .chain([touched(1_795_316_460_000, "edited", Some("070707"))])
                .flat_map(|entry| entry.to_lines())
                .collect::<Vec<_>>();
        insta::assert_snapshot!(lines.join("\n"), @r"
        2026-11-22T03:00:00.000Z  stored in bytemark_tickets_log
            _id 070707070707070707070707
            the event's own time; when it was stored is not recorded
            hidden: card (not stored), email (a hash)
        2026-11-22T03:01:00.000Z  edited and replayed by anna, dl-id 0a0a0a0a0a0a0a0a0a0a0a0a
            operation 0e0e0e0e0e0e0e0e0e0e0e0e on q.dead, in audit.ndjson
            as the event that gets _id 070707
            the original is in q.ndjson
        ");
    }
}
