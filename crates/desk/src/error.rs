//! Why an operation on dead letters failed.

use std::path::Path;

use ticketlog_rabbitmq::{BrokerError, BrowseError};

/// Why an operation on dead letters failed.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// A queue cannot be read, or the broker.
    #[error(transparent)]
    Browse(BrowseError),
    /// Whoever reads the lines does not take them.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file cannot be written.
    #[error("{file} cannot be written: {error}")]
    CannotWrite { file: String, error: std::io::Error },
    /// A file exists already, or cannot be created.
    #[error("{0}")]
    CannotCreate(String),
    /// A file cannot be read.
    #[error("{0}")]
    NoInput(String),
    /// A file holds something else than dead letters.
    #[error("{0}")]
    Invalid(String),
    /// As many dead letters that were in the queue at the beginning did not come.
    #[error(
        "RabbitMQ did not deliver {0} of the dead letters that were in the queue at the start: something else takes messages from it, or \
         RabbitMQ is still requeueing them. They are not changed; run it again"
    )]
    Unmet(u32),
    /// The operator stopped it; the result would not be complete.
    #[error("it was stopped early")]
    Stopped,
    /// The request makes no sense.
    #[error("{0}")]
    Usage(String),
}

impl DeskError {
    /// Of a file that exists and cannot be written, such as on a full disk.
    pub(super) fn cannot_write(file: &Path) -> impl Fn(std::io::Error) -> DeskError {
        let file = file.display().to_string();
        move |error| DeskError::CannotWrite { file: file.clone(), error }
    }
}

impl From<BrowseError> for DeskError {
    fn from(error: BrowseError) -> Self {
        match error {
            BrowseError::Stopped => DeskError::Stopped,
            error => DeskError::Browse(error),
        }
    }
}

impl From<BrokerError> for DeskError {
    fn from(error: BrokerError) -> Self {
        DeskError::Browse(BrowseError::Broker(error))
    }
}
