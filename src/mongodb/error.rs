//! Owns what MongoDB's errors mean for a message: transient, for an operator to resolve, about one document, or unknown.
//! Pure. Sources: the server's error codes, the specification of retryable writes, and experiments.

use ::mongodb::error::{Error, ErrorKind, WriteFailure};
use strum::{IntoStaticStr, VariantNames};

/// How a failure is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// It passes by itself, and the outcome of the command is unknown. The same documents are retried.
    Transient,
    /// It passes when an operator acts. The same documents are retried as well.
    Operator,
    /// It is about one document.
    Document,
    /// The code is not known.
    Unknown,
}

/// What failed, for logs, metrics and `/readyz`; the metric labels are `FailureKind::VARIANTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum FailureKind {
    /// `store.write_timeout` has passed.
    Timeout,
    /// The connection broke.
    Io,
    /// No primary.
    ServerSelection,
    /// Wrong user or password.
    Authentication,
    /// No TLS session.
    Tls,
    /// Not confirmed by a majority.
    WriteConcern,
    /// The server refused the command.
    Command,
    /// The server refused a document.
    Document,
    /// Anything else.
    Other,
}

/// Why a command failed as a whole. Holds no text of the driver or the server, which may hold documents and credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How it is handled.
    pub class: FailureClass,
    /// What failed.
    pub kind: FailureKind,
    /// The server's error code, if it sent one.
    pub code: Option<i32>,
}

impl Failure {
    /// `store.write_timeout` has passed.
    pub const TIMEOUT: Failure = Failure { class: FailureClass::Transient, kind: FailureKind::Timeout, code: None };

    /// The kind, as metric label and log field.
    pub fn label(&self) -> &'static str {
        self.kind.into()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let text = match self.kind {
            FailureKind::Timeout => "MongoDB did not answer within store.write_timeout",
            FailureKind::Io => "the connection to MongoDB was lost",
            FailureKind::ServerSelection => "no MongoDB primary can be reached; check store.uri and the replica set",
            FailureKind::Authentication => "MongoDB rejects the user name or the password of store.uri",
            FailureKind::Tls => "the TLS handshake with MongoDB failed; check the certificates",
            FailureKind::WriteConcern => "MongoDB cannot confirm writes by a majority",
            FailureKind::Document => "MongoDB rejects documents",
            FailureKind::Command | FailureKind::Other => "MongoDB rejects the command",
        };
        match self.code {
            Some(code) => write!(f, "{text} (code {code})"),
            None => f.write_str(text),
        }
    }
}

/// What is wrong with one document of an insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentError {
    /// A document with the same `_id` is stored.
    DuplicateId,
    /// Another unique index holds its key.
    DuplicateKey,
    /// The server rejects it, with this code.
    Rejected(i32),
    /// A code that is not about the document; retry it.
    Retry(Failure),
    /// A code that is not known.
    Unknown(i32),
}

/// The class of a server's error code.
pub(super) fn class_of(code: i32) -> FailureClass {
    match code {
        6 | 7 | 89 | 91 | 112 | 134 | 189 | 262 | 402 | 433 | 449 | 450 | 462 | 9001 | 10107 | 13435 | 13436
        | 10058 | 11600 | 11601 | 11602 | 133 | 146 | 211 | 365 => FailureClass::Transient,
        391 | 8000 | 11 | 13 | 18 | 20 | 26 | 31 | 72 | 73 | 115 | 166 | 371 | 14031 => FailureClass::Operator,
        2 | 15 | 16 | 22 | 52 | 53 | 55 | 56 | 57 | 67 | 121 | 171 | 201 | 10334 | 11000 | 17280 => {
            FailureClass::Document
        }
        _ => FailureClass::Unknown,
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let labelled = ["RetryableWriteError", "RetryableError", "SystemOverloadedError", "TransientTransactionError"]
            .iter()
            .any(|label| error.contains_label(label));
        let (class, kind, code) = match error.kind.as_ref() {
            ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => {
                (FailureClass::Transient, FailureKind::Io, None)
            }
            ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } => {
                (FailureClass::Transient, FailureKind::ServerSelection, None)
            }
            ErrorKind::Authentication { .. } => (FailureClass::Operator, FailureKind::Authentication, None),
            ErrorKind::InvalidTlsConfig { .. } => (FailureClass::Operator, FailureKind::Tls, None),
            // The client itself refuses to send the command; one document may be the cause.
            ErrorKind::InvalidArgument { .. } | ErrorKind::Bson(_) | ErrorKind::BsonSerialization(_) => {
                (FailureClass::Unknown, FailureKind::Other, None)
            }
            ErrorKind::Command(command) => (class_of(command.code), FailureKind::Command, Some(command.code)),
            ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
                (FailureClass::Transient, FailureKind::WriteConcern, Some(concern.code))
            }
            ErrorKind::Write(WriteFailure::WriteError(write)) => {
                (class_of(write.code), FailureKind::Document, Some(write.code))
            }
            _ => (FailureClass::Transient, FailureKind::Other, None),
        };
        // A command that fails as a whole with a code about one document does not say which one: it is bisected.
        let class = if class == FailureClass::Document { FailureClass::Unknown } else { class };
        let transient = labelled && class != FailureClass::Operator;
        Failure { class: if transient { FailureClass::Transient } else { class }, kind, code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_have_their_class() {
        for (code, class) in [
            (189, FailureClass::Transient),
            (91, FailureClass::Transient),
            (13, FailureClass::Operator),
            (14031, FailureClass::Operator),
            (121, FailureClass::Document),
            (11000, FailureClass::Document),
            (424242, FailureClass::Unknown),
        ] {
            assert_eq!(class_of(code), class, "{code}");
        }
    }
}
