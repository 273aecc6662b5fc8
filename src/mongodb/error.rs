//! Owns what MongoDB's errors mean for a message: transient, for an operator to resolve, about one document, or not classified.
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
    /// The code does not say: a document may be at fault.
    Unclassified,
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
    Other,
}

/// Why a command failed as a whole. Holds no text of the driver or the server, which may hold documents and credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub class: FailureClass,
    pub kind: FailureKind,
    /// The server's error code, if it sent one.
    pub code: Option<i32>,
}

impl Failure {
    /// `store.write_timeout` has passed.
    pub const TIMEOUT: Failure = Failure { class: FailureClass::Transient, kind: FailureKind::Timeout, code: None };

    /// A document was rejected with a code that is not known.
    pub fn unknown_code(code: i32) -> Failure {
        Failure { class: FailureClass::Unclassified, kind: FailureKind::Document, code: Some(code) }
    }

    /// Whether the login or its privileges are at fault.
    pub fn is_permission(&self) -> bool {
        self.kind == FailureKind::Authentication
            || self.code.is_some_and(|code| [11, 13, 18, 391, 8000].contains(&code))
    }

    /// The kind, as metric label and log field.
    pub fn label(&self) -> &'static str {
        self.kind.into()
    }
}

impl Failure {
    /// What happened, with the login of this setting.
    pub fn what(&self, uri_setting: &str) -> String {
        let text: &str = match self.kind {
            FailureKind::Timeout => "MongoDB did not answer within store.write_timeout",
            FailureKind::Io => "the connection to MongoDB was lost",
            FailureKind::ServerSelection => "no MongoDB primary can be reached",
            FailureKind::Authentication => &format!("MongoDB rejects the user name or the password of {uri_setting}"),
            FailureKind::Tls => "the TLS handshake with MongoDB failed",
            FailureKind::WriteConcern => "MongoDB cannot confirm writes by a majority",
            FailureKind::Document => "MongoDB rejects documents",
            FailureKind::Command if self.code == Some(13) => &format!("the user of {uri_setting} is not authorized"),
            FailureKind::Command if self.code == Some(13_297) => {
                "a database exists whose name differs only in case; correct store.database"
            }
            FailureKind::Command | FailureKind::Other => "MongoDB rejects the command",
        };
        self.code.map_or_else(|| text.to_owned(), |code| format!("{text} (code {code})"))
    }

    /// What to do.
    pub fn fix(&self) -> &'static str {
        match self.kind {
            FailureKind::Timeout => {
                "MongoDB is overloaded, frozen or cut off, the TLS options of the URI are wrong, or the timeout is too short"
            }
            FailureKind::ServerSelection => {
                "start MongoDB, or correct the hosts, replicaSet and the TLS options of the URI"
            }
            FailureKind::Authentication => {
                "correct them and authSource, or set the password with db.changeUserPassword()"
            }
            FailureKind::Tls => "check the certificates, and the files that the URI names",
            FailureKind::WriteConcern => "start the members of the replica set that are down",
            FailureKind::Command if self.code == Some(13) => {
                "grant the role of deploy/mongodb, or use a login that has it"
            }
            _ => "see MongoDB's log, and the error code in its manual",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.what("store.uri"))?;
        match self.kind {
            FailureKind::ServerSelection | FailureKind::Tls | FailureKind::Authentication => {
                write!(f, "; {}", self.fix())
            }
            _ if self.code == Some(13) => write!(f, "; {}", self.fix()),
            _ => Ok(()),
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
    /// A code of which nothing is known: the document may be at fault.
    Unclassified(i32),
}

/// Codes that are about the document itself, from the server's catalogue (`src/mongo/base/error_codes.yml`). Only these, and
/// codes outside the catalogue that name one document, can end as a dead letter.
const DOCUMENT_CODES: [i32; 17] = [
    2,      // BadValue: a field that a special collection or index needs has a value that it does not accept
    15,     // Overflow: nested too deep for the server
    16,     // InvalidLength
    22,     // InvalidBSON
    52,     // DollarPrefixedFieldName
    53,     // InvalidIdField
    55,     // InvalidDBRef
    56,     // EmptyFieldName
    57,     // DottedFieldName
    121,    // DocumentValidationFailure: the collection's validator
    171,    // CannotIndexParallelArrays
    201,    // CannotBuildIndexKeys
    357,    // InvalidBSONType
    378,    // NonConformantBSON
    10_334, // BSONObjectTooLarge
    11_000, // DuplicateKey
    17_280, // KeyTooLong
];

/// Codes with which a whole command fails because of what one document contains.
const CONTENT_CODES: [i32; 4] = [22, 357, 378, 10_334];

/// Codes of the network, elections, shutdowns, time limits and overload: they pass by themselves. 16500 is Azure Cosmos DB's
/// TooManyRequests, 50 also its ExceededTimeLimit.
const TRANSIENT_CODES: [i32; 60] = [
    6, 7, 24, 46, 50, 64, 79, 89, 90, 91, 94, 107, 109, 112, 117, 133, 134, 145, 146, 149, 150, 172, 173, 174, 175,
    189, 202, 208, 215, 216, 237, 246, 249, 250, 262, 264, 272, 279, 290, 317, 355, 365, 384, 402, 406, 407, 412, 433,
    449, 450, 462, 9001, 10_058, 10_107, 11_600, 11_601, 11_602, 13_388, 13_435, 13_436,
];

/// Codes of the catalogue above 999, and of Azure Cosmos DB, that need an operator or pass by themselves.
const LARGE_SERVER_CODES: [i32; 8] = [
    8000,   // AtlasError
    10_003, // CannotGrowDocumentInCappedNamespace
    12_586, // BackgroundOperationInProgressForDatabase
    12_587, // BackgroundOperationInProgressForNamespace
    13_297, // DatabaseDifferCase
    14_031, // OutOfDiskSpace
    16_500, // TooManyRequests (Azure Cosmos DB)
    46_841, // ClientMarkedKilled
];

/// The class of a server's error code. The catalogue fills the numbers below 1000, so what is not about a document there is
/// about the server, the command or the collection: the documents wait.
pub(super) fn class_of(code: i32) -> FailureClass {
    match code {
        _ if DOCUMENT_CODES.contains(&code) => FailureClass::Document,
        _ if TRANSIENT_CODES.contains(&code) => FailureClass::Transient,
        0..1000 => FailureClass::Operator,
        _ if LARGE_SERVER_CODES.contains(&code) => FailureClass::Operator,
        _ => FailureClass::Unclassified,
    }
}

/// The class of a command that failed as a whole. It says nothing about a document, unless the content of one is at fault:
/// then it is bisected.
fn class_of_command(code: i32) -> FailureClass {
    match class_of(code) {
        _ if CONTENT_CODES.contains(&code) => FailureClass::Unclassified,
        FailureClass::Transient => FailureClass::Transient,
        _ => FailureClass::Operator,
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
                (FailureClass::Unclassified, FailureKind::Other, None)
            }
            ErrorKind::Command(command) => (class_of_command(command.code), FailureKind::Command, Some(command.code)),
            ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
                (FailureClass::Transient, FailureKind::WriteConcern, Some(concern.code))
            }
            ErrorKind::Write(WriteFailure::WriteError(write)) => {
                (class_of_command(write.code), FailureKind::Document, Some(write.code))
            }
            _ => (FailureClass::Transient, FailureKind::Other, None),
        };
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
            (50, FailureClass::Transient),
            (1, FailureClass::Operator),
            (8, FailureClass::Operator),
            (13, FailureClass::Operator),
            (26, FailureClass::Operator),
            (96, FailureClass::Operator),
            (13_297, FailureClass::Operator),
            (14_031, FailureClass::Operator),
            (121, FailureClass::Document),
            (11000, FailureClass::Document),
            (16_755, FailureClass::Unclassified),
        ] {
            assert_eq!(class_of(code), class, "{code}");
        }
    }

    #[test]
    fn no_code_is_in_two_lists() {
        let mut all = [&DOCUMENT_CODES[..], &TRANSIENT_CODES, &LARGE_SERVER_CODES].concat();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
    }

    #[test]
    fn a_failed_command_is_about_a_document_only_if_its_content_is_at_fault() {
        for (code, class) in [
            (2, FailureClass::Operator),
            (121, FailureClass::Operator),
            (424_242, FailureClass::Operator),
            (10_334, FailureClass::Unclassified),
            (91, FailureClass::Transient),
        ] {
            assert_eq!(class_of_command(code), class, "{code}");
        }
    }
}
