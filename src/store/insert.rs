//! Owns the one command that stores events, as raw bytes, and what its reply says of each document. Pure.
//! Must not know the connection, nor what becomes of a document.
//!
//! The driver's `insert_many` would serialize every document twice and note every `_id`; and it keeps from us which key was
//! there already, but for a text that the server leaves empty once a reply has a MiB of them.
//! Source: MongoDB manual, `insert` (database command).

use bson::raw::RawDocumentBuf;
use bson::{Document, rawdoc};
use serde::Deserialize;

use super::outcome::{self, Class, DocumentFault, Failure};

/// What is known after an insert.
#[derive(Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The command ran to its end under the write concern: every document is durable, but for these (by position).
    AllBut(Vec<(usize, DocumentFault)>),
    /// Nothing is known of any document.
    Unknown(Failure),
}

/// The parts of a collection's insert commands that are always the same.
#[derive(Debug, Clone)]
pub(super) struct Insert {
    /// The command up to where its documents begin.
    head: Vec<u8>,
    /// `E11000 duplicate key error collection: <db>.<collection> index: `, which the server puts before an index name.
    duplicate_prefix: String,
}

impl Insert {
    /// Into this collection, unordered, with majority and journal, confirmed within `patience` milliseconds.
    pub fn new(database: &str, collection: &str, patience: i32) -> Self {
        let concern = rawdoc! { "w": "majority", "j": true, "wtimeout": patience };
        let mut head = rawdoc! { "insert": collection, "ordered": false, "writeConcern": concern }.into_bytes();
        head.pop();
        head.extend_from_slice(b"\x04documents\0");
        Insert {
            head,
            duplicate_prefix: format!("E11000 duplicate key error collection: {database}.{collection} index: "),
        }
    }

    /// The command for these documents, written at once into as much memory as it takes: a batch is copied often enough on
    /// its way through the driver. None if it is longer than BSON can say. Source: bsonspec.org, 1.1.
    pub fn command(&self, documents: &[&RawDocumentBuf]) -> Option<RawDocumentBuf> {
        let elements: usize = documents.iter().map(|document| document.as_bytes().len() + LONGEST_KEY).sum();
        let mut command = Vec::with_capacity(self.head.len() + elements + 6);
        command.extend_from_slice(&self.head);
        let array = command.len();
        command.extend_from_slice(&[0; 4]);
        let mut digits = itoa::Buffer::new();
        for (index, document) in documents.iter().enumerate() {
            command.push(0x03);
            command.extend_from_slice(digits.format(index).as_bytes());
            command.push(0);
            command.extend_from_slice(document.as_bytes());
        }
        command.push(0);
        close(&mut command, array)?;
        command.push(0);
        close(&mut command, 0)?;
        RawDocumentBuf::from_bytes(command).ok()
    }

    /// Reads the reply to a command with `count` documents.
    pub fn outcome(&self, reply: Document, count: usize) -> Inserted {
        let Ok(reply) = bson::deserialize_from_document::<Reply>(reply) else {
            return Inserted::Unknown(NOT_UNDERSTOOD);
        };
        if let Some(concern) = reply.concern {
            let class = if outcome::class_of(concern.code) == Class::Hold { Class::Hold } else { Class::Transient };
            return Inserted::Unknown(Failure { class, kind: "write_concern", code: Some(concern.code) });
        }
        let sound = reply.errors.iter().all(|error| error.index < count);
        if !sound || reply.inserted + reply.errors.len() != count {
            return Inserted::Unknown(NOT_UNDERSTOOD);
        }
        Inserted::AllBut(reply.errors.iter().map(|error| (error.index, self.fault(error))).collect())
    }

    fn fault(&self, error: &WriteError) -> DocumentFault {
        match outcome::class_of(error.code) {
            _ if error.code == 11000 && self.is_id(error) => DocumentFault::SameId,
            _ if error.code == 11000 => DocumentFault::OtherIndex,
            Class::Document => DocumentFault::Refused(error.code),
            Class::Unknown => DocumentFault::Unknown(error.code),
            class => DocumentFault::Retry(Failure { class, kind: "command", code: Some(error.code) }),
        }
    }

    /// Whether the duplicate key is the `_id`: by its pattern, or from servers that send none, by the name in the text.
    fn is_id(&self, error: &WriteError) -> bool {
        match &error.key {
            Some(key) => key.len() == 1 && key.contains_key("_id"),
            None => error.message.strip_prefix(&self.duplicate_prefix).is_some_and(|index| index.starts_with("_id_ ")),
        }
    }
}

/// Type, digits and end of an array's key.
const LONGEST_KEY: usize = 7;

/// Writes the length of the BSON document that begins at `start` and ends `bytes`.
fn close(bytes: &mut [u8], start: usize) -> Option<()> {
    let length = i32::try_from(bytes.len() - start).ok()?;
    bytes.get_mut(start..start + 4)?.copy_from_slice(&length.to_le_bytes());
    Some(())
}

/// A command that is too long, or a reply that no server should send: nothing is taken for granted from it.
pub(super) const NOT_UNDERSTOOD: Failure = Failure { class: Class::Transient, kind: "other", code: None };

#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "n")]
    inserted: usize,
    #[serde(rename = "writeErrors", default)]
    errors: Vec<WriteError>,
    #[serde(rename = "writeConcernError")]
    concern: Option<ConcernError>,
}

#[derive(Deserialize)]
struct WriteError {
    index: usize,
    code: i32,
    #[serde(rename = "errmsg", default)]
    message: String,
    #[serde(rename = "keyPattern")]
    key: Option<Document>,
}

#[derive(Deserialize)]
struct ConcernError {
    code: i32,
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn insert() -> Insert {
        Insert::new("cache", "log", 12_000)
    }

    fn said(error: Document) -> DocumentFault {
        let mut error = error;
        error.insert("index", 1);
        match insert().outcome(doc! { "n": 1, "writeErrors": [error], "ok": 1.0 }, 2) {
            Inserted::AllBut(faults) if faults.len() == 1 && faults[0].0 == 1 => faults[0].1,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_is_what_the_manual_says() {
        let documents = [rawdoc! { "_id": 1 }, rawdoc! { "_id": 2, "a": [true] }];
        let command = insert().command(&documents.iter().collect::<Vec<_>>()).unwrap();
        let expected = doc! {
            "insert": "log", "ordered": false, "writeConcern": { "w": "majority", "j": true, "wtimeout": 12_000 },
            "documents": [{ "_id": 1 }, { "_id": 2, "a": [true] }],
        };
        assert_eq!(Document::try_from(command).unwrap(), expected);
    }

    #[test]
    fn what_is_not_among_the_errors_is_durable_unless_the_write_concern_failed() {
        let insert = insert();
        assert_eq!(insert.outcome(doc! { "n": 2, "ok": 1.0 }, 2), Inserted::AllBut(vec![]));
        let failed = insert.outcome(doc! { "n": 2, "writeConcernError": { "code": 64, "errmsg": "" }, "ok": 1.0 }, 2);
        let transient = Failure { class: Class::Transient, kind: "write_concern", code: Some(64) };
        assert_eq!(failed, Inserted::Unknown(transient));
    }

    #[test]
    fn a_reply_that_does_not_add_up_says_nothing() {
        let insert = insert();
        let error = doc! { "index": 2, "code": 121 };
        for reply in [doc! {}, doc! { "n": 1 }, doc! { "n": 3 }, doc! { "n": 1, "writeErrors": [error] }] {
            assert_eq!(insert.outcome(reply, 2), Inserted::Unknown(NOT_UNDERSTOOD));
        }
    }

    #[test]
    fn the_index_of_a_duplicate_is_its_key_pattern() {
        let duplicate = |key: Document| said(doc! { "code": 11000, "errmsg": "", "keyPattern": key });
        assert_eq!(duplicate(doc! { "_id": 1 }), DocumentFault::SameId);
        assert_eq!(duplicate(doc! { "uuid": 1 }), DocumentFault::OtherIndex);
        assert_eq!(duplicate(doc! { "_id": 1, "uuid": 1 }), DocumentFault::OtherIndex);
    }

    #[test]
    fn without_a_pattern_it_is_read_from_its_place_in_the_text_and_nowhere_else() {
        let text = |tail: &str| {
            said(
                doc! { "code": 11000, "errmsg": format!("E11000 duplicate key error collection: cache.log index: {tail}") },
            )
        };
        assert_eq!(text("_id_ dup key: { _id: ObjectId('65f0') }"), DocumentFault::SameId);
        assert_eq!(text("uuid_1 dup key: { uuid: \"cache.log index: _id_ \" }"), DocumentFault::OtherIndex);
        assert_eq!(said(doc! { "code": 11000, "errmsg": "E11000 index: _id_ dup key" }), DocumentFault::OtherIndex);
    }

    #[test]
    fn other_faults_of_documents() {
        assert_eq!(said(doc! { "code": 121 }), DocumentFault::Refused(121));
        assert_eq!(said(doc! { "code": 424_242 }), DocumentFault::Unknown(424_242));
        assert!(matches!(said(doc! { "code": 189 }), DocumentFault::Retry(_)));
    }
}
