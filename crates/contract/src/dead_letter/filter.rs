//! Owns which dead letters a command selects.

use bson::Bson;

use super::Cause;
use crate::{Wanted, binding_matches};

/// A condition on a body or a document: the value at a dotted path.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyCondition {
    path: Vec<String>,
    wanted: Wanted,
}

impl BodyCondition {
    /// Parses `PATH=VALUE`, such as `ticket_details.route=42` or `items.0.id=x`.
    ///
    /// # Errors
    /// There is no `=`, or no path before it.
    pub fn parse(text: &str) -> Result<BodyCondition, String> {
        match text.split_once('=') {
            Some((path, wanted)) if !path.is_empty() => {
                Ok(BodyCondition { path: path.split('.').map(str::to_owned).collect(), wanted: Wanted::new(wanted) })
            }
            _ => Err("expected a path and a value, such as ticket_details.route=42".to_owned()),
        }
    }

    /// The path as it was written.
    pub fn path(&self) -> String {
        self.path.join(".")
    }

    /// Whether there is the value. Dots of the path may be part of keys.
    pub fn matches(&self, found: &Bson) -> bool {
        self.matches_below(found, &self.path)
    }

    fn matches_below(&self, found: &Bson, path: &[String]) -> bool {
        if path.is_empty() {
            return self.wanted.matches(found);
        }
        (1..=path.len()).any(|keys| {
            let (key, rest) = path.split_at_checked(keys).unwrap_or_default();
            let next = match (found, key) {
                (Bson::Document(document), _) => document.get(key.join(".")),
                (Bson::Array(values), [index]) => index.parse::<usize>().ok().and_then(|index| values.get(index)),
                _ => None,
            };
            next.is_some_and(|next| self.matches_below(next, rest))
        })
    }
}

/// What a filter compares.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterFields<'a> {
    /// `dl-id`, or what it would be.
    pub id: &'a str,
    pub cause: Cause,
    pub field: Option<&'a str>,
    pub code: Option<i64>,
    pub detail: &'a str,
    /// Milliseconds since 1970.
    pub time: Option<i64>,
    pub message_id: Option<&'a str>,
    pub fingerprint: &'a str,
    pub exchange: &'a str,
    pub routing_key: &'a str,
    /// `app_id`, or else `user_id`.
    pub publisher: Option<&'a str>,
    pub replays: i64,
    pub replay_id: Option<&'a str>,
}

impl DeadLetterFields<'_> {
    /// Whether one of its texts contains `wanted`, which has no capital letters.
    fn contains(&self, wanted: &str) -> bool {
        let texts = [self.id, self.detail, self.exchange, self.routing_key, self.fingerprint];
        let optional = [self.field, self.message_id, self.publisher, self.replay_id];
        texts.into_iter().chain(optional.into_iter().flatten()).any(|text| text.to_lowercase().contains(wanted))
    }
}

/// All conditions must hold. Of several values for one condition, one must match; of `conditions`, all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub ids: Vec<String>,
    pub causes: Vec<Cause>,
    pub fields: Vec<String>,
    /// MongoDB's error codes.
    pub codes: Vec<i64>,
    /// Milliseconds since 1970, inclusive.
    pub since: Option<i64>,
    /// Milliseconds since 1970, exclusive.
    pub until: Option<i64>,
    pub message_ids: Vec<String>,
    pub fingerprints: Vec<String>,
    /// Patterns as in a binding: `*` for one word, `#` for any number of them.
    pub routing_keys: Vec<String>,
    pub publishers: Vec<String>,
    pub replayed_at_least: Option<i64>,
    pub replay_ids: Vec<String>,
    /// A part of its detail, ids, names or routing key; capital letters make no difference.
    pub text: Option<String>,
    pub conditions: Vec<BodyCondition>,
}

impl Filter {
    /// Whether there is no condition, so that everything is selected.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether the dead letter is selected. `body` is called only if needed; it returns `None` if the body is not JSON.
    pub fn matches(&self, dead_letter: &DeadLetterFields, body: impl FnOnce() -> Option<Bson>) -> bool {
        fn any<T>(wanted: &[T], found: impl FnMut(&T) -> bool) -> bool {
            wanted.is_empty() || wanted.iter().any(found)
        }
        let within = self.since.is_none_or(|since| dead_letter.time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| dead_letter.time.is_some_and(|time| time < until));
        within
            && any(&self.ids, |id| dead_letter.id == id)
            && any(&self.causes, |cause| dead_letter.cause == *cause)
            && any(&self.fields, |field| dead_letter.field == Some(field))
            && any(&self.codes, |code| dead_letter.code == Some(*code))
            && any(&self.message_ids, |id| dead_letter.message_id == Some(id))
            && any(&self.fingerprints, |fingerprint| dead_letter.fingerprint == *fingerprint)
            && any(&self.routing_keys, |pattern| binding_matches(pattern, dead_letter.routing_key))
            && any(&self.publishers, |publisher| dead_letter.publisher == Some(publisher))
            && self.replayed_at_least.is_none_or(|least| dead_letter.replays >= least)
            && any(&self.replay_ids, |id| dead_letter.replay_id == Some(id))
            && self.text.as_ref().is_none_or(|text| dead_letter.contains(&text.to_lowercase()))
            && (self.conditions.is_empty()
                || body().is_some_and(|body| self.conditions.iter().all(|condition| condition.matches(&body))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reason, read_json};

    fn selects(filter: &Filter) -> bool {
        let dead_letter = DeadLetterFields {
            id: "0a",
            cause: Cause::Reason(Reason::InvalidField),
            field: Some("user_id"),
            code: None,
            detail: "user_id expects a Number",
            time: Some(1000),
            message_id: Some("m-1"),
            fingerprint: "fp",
            exchange: "x",
            routing_key: "ticket.purchase",
            publisher: Some("shop"),
            replays: 1,
            replay_id: None,
        };
        filter.matches(&dead_letter, || {
            read_json(br#"{"a":{"b":[1,"x"],"c.d":{"e.f":1}},"n":5,"m":42.0,"t":"5","d.e":true}"#)
        })
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
            publishers: vec!["shop".into()],
            text: Some("EXPECTS a".into()),
            conditions: vec![BodyCondition::parse("a.b.1=x").unwrap(), BodyCondition::parse("n=5").unwrap()],
            ..Filter::default()
        };
        assert!(selects(&all) && selects(&Filter::default()));
        for changed in [
            Filter { causes: vec![Cause::Unknown], ..all.clone() },
            Filter { fields: vec!["uuid".into()], ..all.clone() },
            Filter { since: Some(1001), ..all.clone() },
            Filter { until: Some(1000), ..all.clone() },
            Filter { message_ids: vec!["m-2".into()], ..all.clone() },
            Filter { fingerprints: vec!["f".into()], ..all.clone() },
            Filter { routing_keys: vec!["ticket".into()], ..all.clone() },
            Filter { replayed_at_least: Some(2), ..all.clone() },
            Filter { ids: vec!["i".into()], ..all.clone() },
            Filter { publishers: vec!["other".into()], ..all.clone() },
            Filter { replay_ids: vec!["r".into()], ..all.clone() },
            Filter { text: Some("absent".into()), ..all.clone() },
            Filter { conditions: vec![BodyCondition::parse("n=6").unwrap()], ..all.clone() },
        ] {
            assert!(!selects(&changed), "{changed:?}");
        }
    }

    #[test]
    fn strings_are_compared_literally_and_other_values_as_json() {
        let holds = |text: &str| {
            selects(&Filter { conditions: vec![BodyCondition::parse(text).unwrap()], ..Filter::default() })
        };
        assert!(holds("t=5") && holds("n=5") && holds("d.e=true") && holds("a.b.0=1") && holds("a.b=[1,\"x\"]"));
        assert!(holds("m=42") && holds("m=4.2e1") && holds("n=5.0") && holds("a.c.d.e.f=1"));
        assert!(!holds("t=\"5\"") && !holds("n=05") && !holds("nothing=null") && !holds("a=x"));
        assert!(BodyCondition::parse("a").is_err() && BodyCondition::parse("=1").is_err());
    }
}
