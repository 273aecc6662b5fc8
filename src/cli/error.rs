//! Owns how a command fails: a text for a person, and an exit code for a script.

use crate::mongodb::{Failure, FailureClass, StoreUriError};
use ticketlog_config::ConfigErrors;
use ticketlog_rabbitmq::{BrokerError, BrowseError, RefusalKind};

/// Exit codes, as in sysexits where one fits.
pub(super) mod exit {
    /// `health`: the worker is not alive or not ready.
    pub const NOT_WELL: u8 = 1;
    /// `find`: the event was not found.
    pub const NOT_FOUND: u8 = 1;
    /// EX_USAGE.
    pub const USAGE: u8 = 64;
    /// EX_DATAERR.
    pub const DATA: u8 = 65;
    /// EX_NOINPUT.
    pub const NO_INPUT: u8 = 66;
    /// EX_UNAVAILABLE.
    pub const UNAVAILABLE: u8 = 69;
    /// EX_SOFTWARE.
    pub const SOFTWARE: u8 = 70;
    /// EX_CANTCREAT.
    pub const CANNOT_CREATE: u8 = 73;
    /// EX_IOERR.
    pub const IO: u8 = 74;
    /// EX_TEMPFAIL.
    pub const TEMPORARY: u8 = 75;
    /// EX_NOPERM.
    pub const NO_PERMISSION: u8 = 77;
    /// EX_CONFIG.
    pub const CONFIG: u8 = 78;
    /// 128 + SIGINT.
    pub const INTERRUPTED: u8 = 130;
}

/// The exit codes, as `--help` lists them.
pub(super) const EXIT_CODES: &str = "\
Exit codes (sysexits):
  0   success
  1   health, status: the worker is not ready, or does not answer; find: not found
  64  wrong usage of the command line; find: no index serves the query
  65  rejected messages or invalid lines: validate, publish, contract, dead import, dead replay
      check --end-to-end: the readers' side
  66  an input file cannot be read, or there is no such dead letter
  69  RabbitMQ or MongoDB is unavailable, or the HTTP address is in use; check: something failed
      check --end-to-end: the publishers' side
  70  a bug: a panic ended the process
  73  an output file exists already, or cannot be created
  74  input or output failed; check --end-to-end: MongoDB
  75  dead: the queue is in use by another `ticketlog dead`, or (replay --follow) some outcomes are not known yet
      erase: new data of the user has arrived meanwhile; check --end-to-end: the workers
  77  RabbitMQ or MongoDB rejects the user
  78  the configuration is not valid
  130 interrupted";

/// Why a command failed.
#[derive(Debug)]
pub struct CommandError {
    pub(super) code: u8,
    pub(super) error: anyhow::Error,
}

impl CommandError {
    pub(super) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        CommandError { code, error: error.into() }
    }

    pub(super) fn text(code: u8, text: impl Into<String>) -> Self {
        CommandError::new(code, anyhow::Error::msg(text.into()))
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        CommandError::text(exit::USAGE, text)
    }

    /// Whether the reader of the output has closed it (`ticketlog config | head`).
    pub(super) fn is_broken_pipe(&self) -> bool {
        let error = self.error.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<ConfigErrors> for CommandError {
    fn from(errors: ConfigErrors) -> Self {
        CommandError::new(exit::CONFIG, errors)
    }
}

impl From<BrokerError> for CommandError {
    fn from(error: BrokerError) -> Self {
        let code = match &error {
            BrokerError::Authentication(_) | BrokerError::VirtualHost(_) => exit::NO_PERMISSION,
            BrokerError::InvalidUri(_) | BrokerError::Certificate(_) => exit::CONFIG,
            BrokerError::Refused(refusal) if refusal.kind == RefusalKind::AccessRefused => exit::NO_PERMISSION,
            _ => exit::UNAVAILABLE,
        };
        CommandError::new(code, error)
    }
}

impl From<BrowseError> for CommandError {
    fn from(error: BrowseError) -> Self {
        match error {
            BrowseError::Broker(error) => error.into(),
            BrowseError::NoPermission { .. } => CommandError::new(exit::NO_PERMISSION, error),
            BrowseError::Locked { .. } => CommandError::new(exit::TEMPORARY, error),
            BrowseError::Stopped => CommandError::new(exit::INTERRUPTED, error),
            other => CommandError::new(exit::UNAVAILABLE, other),
        }
    }
}

#[cfg(feature = "desk")]
impl From<ticketlog_desk::DeskError> for CommandError {
    fn from(error: ticketlog_desk::DeskError) -> Self {
        use ticketlog_desk::DeskError;
        match error {
            DeskError::Browse(error) => error.into(),
            DeskError::Io(error) => error.into(),
            DeskError::CannotWrite { .. } => CommandError::new(exit::IO, error),
            DeskError::CannotCreate(_) => CommandError::new(exit::CANNOT_CREATE, error),
            DeskError::NoInput(_) => CommandError::new(exit::NO_INPUT, error),
            DeskError::Invalid(_) => CommandError::new(exit::DATA, error),
            DeskError::Usage(_) => CommandError::new(exit::USAGE, error),
            DeskError::Unmet(_) => CommandError::new(exit::TEMPORARY, error),
            DeskError::Stopped => CommandError::new(exit::INTERRUPTED, error),
        }
    }
}

impl From<StoreUriError> for CommandError {
    fn from(error: StoreUriError) -> Self {
        CommandError::text(exit::CONFIG, format!("store.uri: {error}"))
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        CommandError::of_store(&failure, "store.uri")
    }
}

impl CommandError {
    /// MongoDB's failure with the login of this setting.
    pub(super) fn of_store(failure: &Failure, uri_setting: &str) -> Self {
        let code = match failure.class {
            _ if failure.is_permission() => exit::NO_PERMISSION,
            FailureClass::Operator | FailureClass::Unclassified => exit::CONFIG,
            FailureClass::Transient | FailureClass::Document => exit::UNAVAILABLE,
        };
        CommandError::text(code, format!("{}; {}", failure.what(uri_setting), failure.fix()))
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        CommandError::new(exit::IO, error)
    }
}
