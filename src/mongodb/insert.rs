//! Owns the insert command, as raw bytes, and what its reply says of each document. Pure.
//!
//! The driver's `insert_many` would serialize every document twice, and it does not tell which key was a duplicate except in
//! an error text, which the server leaves empty once a reply holds a MiB of them (docs/develop/adr/0003-raw-insert-command.md).
//! Source: MongoDB manual, `insert` (database command).

use std::io::Write as _;

use bson::raw::RawDocumentBuf;
use bson::{Document, rawdoc};
use serde::Deserialize;

use super::error::{DocumentError, Failure, FailureClass, FailureKind, class_of};

#[derive(Debug, PartialEq, Eq)]
pub enum InsertResult {
    /// The command completed under the write concern: every document is durable except these, by position.
    Completed(Vec<(usize, DocumentError)>),
    /// The outcome of every document is unknown.
    Failed(Failure),
}

/// The part that all insert commands of a collection have in common.
#[derive(Debug, Clone)]
pub(super) struct InsertCommand {
    /// The bytes of the command in front of its documents.
    head: Vec<u8>,
    /// `E11000 duplicate key error collection: <db>.<collection> index: `, which the server puts before an index name.
    duplicate_prefix: String,
}

impl InsertCommand {
    /// Into this collection, unordered, with majority and journal, confirmed within `w_timeout` milliseconds.
    pub fn new(database: &str, collection: &str, w_timeout: i32) -> Self {
        let concern = rawdoc! { "w": "majority", "j": true, "wtimeout": w_timeout };
        let mut head = rawdoc! { "insert": collection, "ordered": false, "writeConcern": concern }.into_bytes();
        head.pop();
        head.extend_from_slice(b"\x04documents\0");
        InsertCommand {
            head,
            duplicate_prefix: format!("E11000 duplicate key error collection: {database}.{collection} index: "),
        }
    }

    /// The command for these documents, written into one allocation. `None` if it is longer than BSON permits.
    /// Source: bsonspec.org, version 1.1.
    pub fn command(&self, documents: &[&RawDocumentBuf]) -> Option<RawDocumentBuf> {
        let elements: usize = documents.iter().map(|document| document.as_bytes().len() + MAX_KEY_BYTES).sum();
        let mut command = Vec::with_capacity(self.head.len() + elements + 6);
        command.extend_from_slice(&self.head);
        let array = command.len();
        command.extend_from_slice(&[0; 4]);
        for (index, document) in documents.iter().enumerate() {
            command.push(0x03);
            write!(command, "{index}\0").ok()?;
            command.extend_from_slice(document.as_bytes());
        }
        command.push(0);
        write_length(&mut command, array)?;
        command.push(0);
        write_length(&mut command, 0)?;
        RawDocumentBuf::from_bytes(command).ok()
    }

    /// What the reply to a command with `count` documents means.
    pub fn result(&self, reply: Document, count: usize) -> InsertResult {
        let Ok(reply) = bson::deserialize_from_document::<Reply>(reply) else {
            return InsertResult::Failed(UNKNOWN_OUTCOME);
        };
        if let Some(concern) = reply.concern {
            let operator = class_of(concern.code) == FailureClass::Operator;
            let class = if operator { FailureClass::Operator } else { FailureClass::Transient };
            return InsertResult::Failed(Failure { class, kind: FailureKind::WriteConcern, code: Some(concern.code) });
        }
        let valid = reply.errors.iter().all(|error| error.index < count);
        if !valid || reply.inserted + reply.errors.len() != count {
            return InsertResult::Failed(UNKNOWN_OUTCOME);
        }
        InsertResult::Completed(reply.errors.iter().map(|error| (error.index, self.document_error(error))).collect())
    }

    fn document_error(&self, error: &WriteError) -> DocumentError {
        match class_of(error.code) {
            _ if error.code == 11000 && self.is_duplicate_id(error) => DocumentError::DuplicateId,
            _ if error.code == 11000 => DocumentError::DuplicateKey,
            FailureClass::Document => DocumentError::Rejected(error.code),
            FailureClass::Unclassified => DocumentError::Unclassified(error.code),
            class => DocumentError::Retry(Failure { class, kind: FailureKind::Command, code: Some(error.code) }),
        }
    }

    /// Whether the duplicate key is the `_id`: by `keyPattern`, or by the error text of servers that do not send it.
    fn is_duplicate_id(&self, error: &WriteError) -> bool {
        match &error.key {
            Some(key) => key.len() == 1 && key.contains_key("_id"),
            None => error.message.strip_prefix(&self.duplicate_prefix).is_some_and(|index| index.starts_with("_id_ ")),
        }
    }
}

/// Most bytes of an array element's key: type, digits, NUL.
const MAX_KEY_BYTES: usize = 7;

/// Writes the length of the BSON document that starts at `start` and ends with `bytes`.
fn write_length(bytes: &mut [u8], start: usize) -> Option<()> {
    let length = i32::try_from(bytes.len() - start).ok()?;
    bytes.get_mut(start..start + 4)?.copy_from_slice(&length.to_le_bytes());
    Some(())
}

/// The failure for a command that is too long, and for a reply that no server should send.
pub(super) const UNKNOWN_OUTCOME: Failure =
    Failure { class: FailureClass::Transient, kind: FailureKind::Other, code: None };

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

    fn insert() -> InsertCommand {
        InsertCommand::new("cache", "log", 12_000)
    }

    fn error_of(error: Document) -> DocumentError {
        let mut error = error;
        error.insert("index", 1);
        match insert().result(doc! { "n": 1, "writeErrors": [error], "ok": 1.0 }, 2) {
            InsertResult::Completed(faults) if faults.len() == 1 && faults[0].0 == 1 => faults[0].1,
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
    fn documents_without_errors_are_durable_unless_the_write_concern_failed() {
        let insert = insert();
        assert_eq!(insert.result(doc! { "n": 2, "ok": 1.0 }, 2), InsertResult::Completed(vec![]));
        let failed = insert.result(doc! { "n": 2, "writeConcernError": { "code": 64, "errmsg": "" }, "ok": 1.0 }, 2);
        let transient = Failure { class: FailureClass::Transient, kind: FailureKind::WriteConcern, code: Some(64) };
        assert_eq!(failed, InsertResult::Failed(transient));
    }

    #[test]
    fn a_reply_whose_counts_do_not_add_up_is_a_failure() {
        let insert = insert();
        let error = doc! { "index": 2, "code": 121 };
        for reply in [doc! {}, doc! { "n": 1 }, doc! { "n": 3 }, doc! { "n": 1, "writeErrors": [error] }] {
            assert_eq!(insert.result(reply, 2), InsertResult::Failed(UNKNOWN_OUTCOME));
        }
    }

    #[test]
    fn the_key_pattern_tells_which_index_has_the_duplicate() {
        let duplicate = |key: Document| error_of(doc! { "code": 11000, "errmsg": "", "keyPattern": key });
        assert_eq!(duplicate(doc! { "_id": 1 }), DocumentError::DuplicateId);
        assert_eq!(duplicate(doc! { "uuid": 1 }), DocumentError::DuplicateKey);
        assert_eq!(duplicate(doc! { "_id": 1, "uuid": 1 }), DocumentError::DuplicateKey);
    }

    #[test]
    fn without_a_key_pattern_the_error_text_tells() {
        let text = |tail: &str| {
            error_of(
                doc! { "code": 11000, "errmsg": format!("E11000 duplicate key error collection: cache.log index: {tail}") },
            )
        };
        assert_eq!(text("_id_ dup key: { _id: ObjectId('65f0') }"), DocumentError::DuplicateId);
        assert_eq!(text("uuid_1 dup key: { uuid: \"cache.log index: _id_ \" }"), DocumentError::DuplicateKey);
        assert_eq!(
            error_of(doc! { "code": 11000, "errmsg": "E11000 index: _id_ dup key" }),
            DocumentError::DuplicateKey
        );
    }

    #[test]
    fn other_document_errors_by_code() {
        assert_eq!(error_of(doc! { "code": 121 }), DocumentError::Rejected(121));
        assert_eq!(error_of(doc! { "code": 424_242 }), DocumentError::Unclassified(424_242));
        assert!(matches!(error_of(doc! { "code": 189 }), DocumentError::Retry(_)));
    }
}
