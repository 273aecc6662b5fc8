//! Owns what MongoDB's answers mean for a message: transient, an operator's affair, this document's own fault, or
//! unknown. Pure. Sources: the server's error codes, the retryable-writes specification, and experiment.

use mongodb::error::{Error, ErrorKind, WriteFailure};

/// What a failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Passes by itself; the outcome is unknown. Retry the same documents.
    Transient,
    /// Passes when an operator acts. Retry as well, and say so.
    Hold,
    /// Concerns this document alone.
    Document,
    /// None of the known ones.
    Unknown,
}

/// Why a command failed as a whole. Holds no text of the driver or the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What it calls for.
    pub class: Class,
    /// The kind of failure, for logs, metrics and `/readyz`.
    pub kind: &'static str,
    /// The server's error code, where it sent one.
    pub code: Option<i32>,
}

impl Failure {
    /// Our own limit was reached.
    pub fn timed_out() -> Self {
        Failure { class: Class::Transient, kind: "timeout", code: None }
    }

    /// Every kind, for the metric catalogue.
    pub const KINDS: [&'static str; 9] =
        ["timeout", "io", "server_selection", "authentication", "tls", "write_concern", "command", "document", "other"];
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let text = match self.kind {
            "timeout" => "MongoDB does not answer within store.write_timeout",
            "io" => "the connection to MongoDB breaks",
            "server_selection" => "no MongoDB primary can be reached; check store.uri and the replica set",
            "authentication" => "MongoDB refuses the user or the password of store.uri",
            "tls" => "no TLS session with MongoDB; check the certificates",
            "write_concern" => "MongoDB cannot confirm writes by a majority",
            "document" => "MongoDB refuses documents",
            _ => "MongoDB refuses the command",
        };
        match self.code {
            Some(code) => write!(f, "{text} (code {code})"),
            None => f.write_str(text),
        }
    }
}

/// What is wrong with one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentFault {
    /// The same `_id` is stored already.
    SameId,
    /// Another unique index holds its key.
    OtherIndex,
    /// The server refuses it, with this code.
    Refused(i32),
    /// A code that may pass; try it again.
    Retry(Failure),
    /// A code that is not known to be about documents.
    Unknown(i32),
}

/// The class of a server's error code.
pub fn class_of(code: i32) -> Class {
    match code {
        6 | 7 | 89 | 91 | 112 | 134 | 189 | 262 | 402 | 433 | 449 | 450 | 462 | 9001 | 10107 | 13435 | 13436
        | 10058 | 11600 | 11601 | 11602 | 133 | 146 | 211 | 365 => Class::Transient,
        391 | 8000 | 11 | 13 | 18 | 20 | 26 | 31 | 72 | 73 | 115 | 166 | 371 | 14031 => Class::Hold,
        2 | 15 | 16 | 22 | 52 | 53 | 55 | 56 | 57 | 67 | 121 | 171 | 201 | 10334 | 11000 | 17280 => Class::Document,
        _ => Class::Unknown,
    }
}

/// Why a command failed as a whole.
pub(super) fn failure(error: &Error) -> Failure {
    let labelled = ["RetryableWriteError", "RetryableError", "SystemOverloadedError", "TransientTransactionError"]
        .iter()
        .any(|label| error.contains_label(label));
    let (class, kind, code) = match error.kind.as_ref() {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => (Class::Transient, "io", None),
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } => {
            (Class::Transient, "server_selection", None)
        }
        ErrorKind::Authentication { .. } => (Class::Hold, "authentication", None),
        ErrorKind::InvalidTlsConfig { .. } => (Class::Hold, "tls", None),
        // What the client itself refuses to send may be one document's fault.
        ErrorKind::InvalidArgument { .. } | ErrorKind::Bson(_) | ErrorKind::BsonSerialization(_) => {
            (Class::Unknown, "other", None)
        }
        ErrorKind::Command(command) => (class_of(command.code), "command", Some(command.code)),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            (Class::Transient, "write_concern", Some(concern.code))
        }
        ErrorKind::Write(WriteFailure::WriteError(write)) => (class_of(write.code), "document", Some(write.code)),
        _ => (Class::Transient, "other", None),
    };
    // A command refused as a whole for what would be one document's fault says nothing of the others: bisect.
    let class = if class == Class::Document { Class::Unknown } else { class };
    Failure { class: if labelled && class != Class::Hold { Class::Transient } else { class }, kind, code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_class_that_keeps_promises() {
        for (code, class) in [
            (189, Class::Transient),
            (91, Class::Transient),
            (13, Class::Hold),
            (14031, Class::Hold),
            (121, Class::Document),
            (11000, Class::Document),
            (424242, Class::Unknown),
        ] {
            assert_eq!(class_of(code), class, "{code}");
        }
    }
}
