//! Owns which dead letters a command is about. Must not know where they come from.

use serde_json::Value;

use super::{Cause, Record};

/// A condition on the JSON body: the value at a dotted path.
#[derive(Debug, Clone, PartialEq)]
pub struct Where {
    path: Vec<String>,
    expected: String,
}

impl Where {
    /// Reads `PATH=VALUE`, such as `ticket_details.route=42` or `items.0.id=x`.
    ///
    /// # Errors
    /// There is no `=`, or no path before it.
    pub fn parse(text: &str) -> Result<Where, String> {
        match text.split_once('=') {
            Some((path, expected)) if !path.is_empty() => {
                Ok(Where { path: path.split('.').map(str::to_owned).collect(), expected: expected.to_owned() })
            }
            _ => Err("a path and a value, such as ticket_details.route=42".to_owned()),
        }
    }

    /// The path as it was written.
    pub fn path(&self) -> String {
        self.path.join(".")
    }

    /// Text is compared as it is, everything else by its JSON text; a key with dots is found by its full name as well.
    fn matches(&self, body: &Value) -> bool {
        let nested = self.path.iter().try_fold(body, |value, key| match value {
            Value::Array(values) => values.get(key.parse::<usize>().ok()?),
            _ => value.get(key),
        });
        let found = nested.or_else(|| body.get(self.path()));
        found.is_some_and(|found| match found {
            Value::String(text) => *text == self.expected,
            other => serde_json::from_str::<Value>(&self.expected).is_ok_and(|expected| expected == *other),
        })
    }
}

/// Every condition must hold; one given several times holds if any of its values does (`wheres`: all of them).
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Filter {
    pub ids: Vec<String>,
    pub causes: Vec<Cause>,
    pub fields: Vec<String>,
    /// Milliseconds since 1970, inclusive.
    pub since: Option<i64>,
    /// Milliseconds since 1970, exclusive.
    pub until: Option<i64>,
    pub message_ids: Vec<String>,
    pub fingerprints: Vec<String>,
    /// Patterns as in a binding: `*` for one word, `#` for any number of them.
    pub routing_keys: Vec<String>,
    pub replayed_at_least: Option<i64>,
    pub wheres: Vec<Where>,
}

impl Filter {
    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether the dead letter is meant. `body` is asked for only where the body matters; none if it is no JSON.
    pub fn matches(&self, record: &Record, message_id: Option<&str>, body: impl FnOnce() -> Option<Value>) -> bool {
        fn any<T>(wanted: &[T], found: impl FnMut(&T) -> bool) -> bool {
            wanted.is_empty() || wanted.iter().any(found)
        }
        let within = self.since.is_none_or(|since| record.time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| record.time.is_some_and(|time| time < until));
        within
            && any(&self.ids, |id| record.id.as_deref() == Some(id))
            && any(&self.causes, |cause| record.cause == *cause)
            && any(&self.fields, |field| record.field.as_deref() == Some(field))
            && any(&self.message_ids, |id| message_id == Some(id))
            && any(&self.fingerprints, |fingerprint| record.fingerprint == *fingerprint)
            && any(&self.routing_keys, |pattern| routes(pattern, &record.routing_key))
            && self.replayed_at_least.is_none_or(|least| record.replays >= least)
            && (self.wheres.is_empty()
                || body().is_some_and(|body| self.wheres.iter().all(|condition| condition.matches(&body))))
    }
}

/// Whether a binding with this pattern would take the key (AMQP 0-9-1, section 3.1.3.3).
fn routes(pattern: &str, key: &str) -> bool {
    fn words(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#"], _) => true,
            (["#", rest @ ..], _) => (0..=key.len()).any(|skipped| words(rest, key.get(skipped..).unwrap_or_default())),
            ([first, pattern @ ..], [word, key @ ..]) => (*first == "*" || first == word) && words(pattern, key),
            _ => false,
        }
    }
    // More than a few `#` would take exponential time, and say nothing that one does not.
    if pattern.split('.').filter(|word| *word == "#").count() > 3 {
        return false;
    }
    words(&pattern.split('.').collect::<Vec<_>>(), &key.split('.').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Reason;

    fn record() -> Record {
        Record {
            cause: Cause::Reason(Reason::InvalidField),
            field: Some("user_id".into()),
            time: Some(1000),
            routing_key: "ticket.purchase".into(),
            replays: 1,
            ..Record::read(|_| None, None, "")
        }
    }

    fn takes(filter: &Filter) -> bool {
        filter.matches(&record(), Some("m-1"), || Some(json!({"a": {"b": [1, "x"]}, "n": 5, "t": "5", "d.e": true})))
    }

    #[test]
    fn every_condition_must_hold() {
        let all = Filter {
            causes: vec![Cause::Unknown, Cause::Reason(Reason::InvalidField)],
            fields: vec!["user_id".into()],
            since: Some(1000),
            until: Some(1001),
            message_ids: vec!["m-1".into()],
            routing_keys: vec!["ticket.*".into()],
            replayed_at_least: Some(1),
            wheres: vec![Where::parse("a.b.1=x").unwrap(), Where::parse("n=5").unwrap()],
            ..Filter::default()
        };
        assert!(takes(&all) && takes(&Filter::default()));
        for but in [
            Filter { causes: vec![Cause::Unknown], ..all.clone() },
            Filter { fields: vec!["uuid".into()], ..all.clone() },
            Filter { since: Some(1001), ..all.clone() },
            Filter { until: Some(1000), ..all.clone() },
            Filter { message_ids: vec!["m-2".into()], ..all.clone() },
            Filter { fingerprints: vec!["f".into()], ..all.clone() },
            Filter { routing_keys: vec!["ticket".into()], ..all.clone() },
            Filter { replayed_at_least: Some(2), ..all.clone() },
            Filter { ids: vec!["i".into()], ..all.clone() },
            Filter { wheres: vec![Where::parse("n=6").unwrap()], ..all.clone() },
        ] {
            assert!(!takes(&but), "{but:?}");
        }
    }

    #[test]
    fn values_are_compared_as_people_write_them() {
        let holds = |text: &str| takes(&Filter { wheres: vec![Where::parse(text).unwrap()], ..Filter::default() });
        assert!(holds("t=5") && holds("n=5") && holds("d.e=true") && holds("a.b.0=1") && holds("a.b=[1,\"x\"]"));
        assert!(!holds("t=\"5\"") && !holds("n=05") && !holds("nothing=null") && !holds("a=x"));
        assert!(Where::parse("a").is_err() && Where::parse("=1").is_err());
    }

    #[test]
    fn routing_keys_match_as_in_a_binding() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("#", "", true),
            ("#.c", "a.b.c", true),
            ("a.#.c", "a.c", true),
            ("*.b", "a.b", true),
            ("#.x.#", "a.b.c", false),
            ("#.#.#.#", "a", false),
        ] {
            assert_eq!(routes(pattern, key), expected, "{pattern} {key}");
        }
    }
}
