//! Owns the archive format: a dead letter as one line of NDJSON with the whole message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::terminal_safe;

/// The value of the first key of every line.
const FORMAT: &str = "ticketlog-dead-letter/1";

/// An archived message. `rabbitmq::message` owns the JSON form of `properties` and `headers`.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchivedMessage {
    /// The queue that it was in.
    pub queue: String,
    pub body: Vec<u8>,
    /// AMQP properties without the headers.
    pub properties: Map<String, Value>,
    pub headers: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: String,
    queue: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    properties: Map<String, Value>,
    headers: Map<String, Value>,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArchiveError(pub String);

impl ArchivedMessage {
    /// One line of JSON without line end. The body is a text if it is UTF-8, and base64 otherwise.
    pub fn to_line(&self) -> String {
        let text = std::str::from_utf8(&self.body).ok().map(str::to_owned);
        let line = Line {
            format: FORMAT.to_owned(),
            queue: self.queue.clone(),
            body_base64: text.is_none().then(|| BASE64.encode(&self.body)),
            body: text,
            properties: self.properties.clone(),
            headers: self.headers.clone(),
        };
        terminal_safe(&serde_json::to_string(&line).unwrap_or_default())
    }

    /// Parses a line.
    ///
    /// # Errors
    /// What is wrong, and at which column.
    pub fn from_line(line: &[u8]) -> Result<ArchivedMessage, ArchiveError> {
        let line: Line = serde_json::from_slice(line).map_err(|error| {
            // The caller adds the number of the line.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            ArchiveError(format!("{text}, at column {}", error.column()))
        })?;
        if line.format != FORMAT {
            return Err(ArchiveError(format!("the format is {:?}, not {FORMAT:?}", line.format)));
        }
        let body = match (line.body, line.body_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => {
                BASE64.decode(text).map_err(|error| ArchiveError(format!("body_base64 is not base64: {error}")))?
            }
            _ => return Err(ArchiveError("exactly one of body and body_base64 is needed".to_owned())),
        };
        Ok(ArchivedMessage { queue: line.queue, body, properties: line.properties, headers: line.headers })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_line_is_readable() {
        let archived = ArchivedMessage {
            queue: "q".into(),
            body: b"{\"a\":\n1}".to_vec(),
            properties: map(json!({"message_id": "m"})),
            headers: map(json!({"dl-reason": "invalid_json"})),
        };
        insta::assert_snapshot!(archived.to_line(), @r#"{"format":"ticketlog-dead-letter/1","queue":"q","body":"{\"a\":\n1}","properties":{"message_id":"m"},"headers":{"dl-reason":"invalid_json"}}"#);
        let binary = ArchivedMessage { body: vec![0xff, 0], ..archived };
        assert!(binary.to_line().contains(r#""body_base64":"/wA=""#));
    }

    #[test]
    fn an_invalid_line_is_an_error_with_its_column() {
        let wrong = |line: &str| ArchivedMessage::from_line(line.as_bytes()).unwrap_err().0;
        insta::assert_snapshot!(wrong("{"), @"EOF while parsing an object, at column 1");
        insta::assert_snapshot!(wrong("{}"), @"missing field `format`, at column 2");
        insta::assert_snapshot!(wrong(r#"{"format":"x","queue":"","properties":{},"headers":{}}"#), @r#"the format is "x", not "ticketlog-dead-letter/1""#);
        let head = r#"{"format":"ticketlog-dead-letter/1","queue":"","properties":{},"headers":{}"#;
        insta::assert_snapshot!(wrong(&format!("{head}}}")), @"exactly one of body and body_base64 is needed");
        insta::assert_snapshot!(wrong(&format!("{head},\"body_base64\":\"%\"}}")), @"body_base64 is not base64: Invalid symbol 37, offset 0.");
    }

    proptest! {
        #[test]
        fn no_line_causes_a_panic(bytes: Vec<u8>, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5)) {
            let _ = ArchivedMessage::from_line(&bytes);
            let archived = ArchivedMessage { queue: "q".into(), body: bytes, properties: Map::new(), headers: Map::new() };
            let mut line = archived.to_line().into_bytes();
            for (at, byte) in changes {
                let at = at.index(line.len());
                line[at] = byte;
            }
            let _ = ArchivedMessage::from_line(&line);
        }

        #[test]
        fn a_body_survives_a_round_trip(body: Vec<u8>, text in ".{0,200}") {
            for body in [body, text.into_bytes()] {
                let archived = ArchivedMessage { queue: "q".into(), body, properties: Map::new(), headers: Map::new() };
                let line = archived.to_line();
                prop_assert!(!line.contains('\n'));
                prop_assert_eq!(ArchivedMessage::from_line(line.as_bytes()).unwrap(), archived);
            }
        }
    }
}
