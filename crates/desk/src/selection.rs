//! Which queue an operation reads, how, and which of its dead letters.

use serde_json::{Map, Value, json};

use ticketlog_contract::dead_letter::Filter;
use ticketlog_rabbitmq::BrowseOptions;

use super::{DeadLetterReader, DeskError, Run};
use ticketlog_config::format::rfc3339;

/// A queue, and how it is browsed.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub queue: String,
    /// How it is browsed.
    pub browse: BrowseOptions,
}

/// Which dead letters.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The queue that they are in.
    pub source: Source,
    /// What must hold for each.
    pub filter: Filter,
    /// At most this many, from the head of the queue.
    pub limit: Option<u32>,
}

impl From<Source> for Selection {
    /// All of a queue.
    fn from(source: Source) -> Selection {
        Selection { source, filter: Filter::default(), limit: None }
    }
}

impl Selection {
    /// How many dead letters are selected now. Without a filter the queue is not read for it.
    ///
    /// # Errors
    /// The queue cannot be read, or the operator stops it.
    pub async fn count(&self, run: Run<'_>) -> Result<u64, DeskError> {
        let reader = DeadLetterReader::open(run, self).await?;
        if self.filter.is_empty() {
            let count = reader.total().into();
            return reader.close(Ok(count)).await;
        }
        let mut count = 0;
        reader.read_all(|_| count += 1).await?;
        if run.report.is_stopped() { Err(DeskError::Stopped) } else { Ok(count) }
    }

    /// Limits it to as many as a person was told.
    pub fn limit_to(&mut self, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.limit = Some(self.limit.map_or(count, |limit| limit.min(count)));
    }

    /// The part of an audit line that names an action and its dead letters.
    pub(super) fn subject(&self, action: &str) -> Value {
        json!({ "action": action, "queue": self.source.queue, "filter": self.conditions() })
    }

    /// The conditions, without those that are not set.
    fn conditions(&self) -> Value {
        let filter = &self.filter;
        let mut json = Map::new();
        let mut put = |name: &str, value: Value| {
            if !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
                json.insert(name.to_owned(), value);
            }
        };
        let time = |millis: Option<i64>| millis.map_or(Value::Null, |millis| json!(rfc3339(Some(millis))));
        put("id", json!(filter.ids));
        put("reason", filter.causes.iter().map(|cause| cause.as_str()).collect());
        put("field", json!(filter.fields));
        put("code", json!(filter.codes));
        put("since", time(filter.since));
        put("until", time(filter.until));
        put("message_id", json!(filter.message_ids));
        put("fingerprint", json!(filter.fingerprints));
        put("routing_key", json!(filter.routing_keys));
        put("publisher", json!(filter.publishers));
        put("replayed_at_least", json!(filter.replayed_at_least));
        put("replay_id", json!(filter.replay_ids));
        put("text", json!(filter.text));
        // Only the paths: the values come from payloads.
        put("where", filter.conditions.iter().map(|condition| json!(condition.path())).collect());
        put("limit", json!(self.limit));
        Value::Object(json)
    }
}
