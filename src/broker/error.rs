//! Owns what can go wrong with the broker, in words for an operator. Never carries a driver's own text, which may hold
//! credentials or message content; the broker's reply texts are used only where they name topology.

use lapin::ErrorKind;

/// A failure of the broker, or of our ways with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// No TCP connection, or it broke off.
    #[error("the broker cannot be reached; check broker.uri and that RabbitMQ runs")]
    Unreachable,
    /// The URI cannot be used as an AMQP address.
    #[error(
        "broker.uri is no AMQP address; write amqp://user:password@host:5672/%2f, special characters percent-encoded"
    )]
    Address,
    /// 403 while logging in.
    #[error("the broker refuses the user or the password of broker.uri")]
    Refused,
    /// 530 while opening the virtual host.
    #[error(
        "the broker has no such virtual host, or the user may not enter it (the part of broker.uri behind the host)"
    )]
    VirtualHost,
    /// A file for TLS that cannot be used.
    #[error("{0}")]
    Certificate(String),
    /// No agreement on TLS.
    #[error(
        "no TLS with the broker: is its certificate valid, for the host name of broker.uri, and signed by a CA of the \
         system or of broker.tls_ca; does it ask for one of ours (broker.tls_certificate); is the port one for TLS?"
    )]
    Tls,
    /// A request was not answered within its limit.
    #[error("the broker did not answer in time: {0}")]
    Timeout(&'static str),
    /// A channel or connection error that names what is missing or different; the broker's own words.
    #[error("{0}")]
    Topology(String),
    /// Any other error of the broker, by its AMQP reply code.
    #[error("the broker closed the channel or the connection with code {0}")]
    Closed(u16),
    /// No heartbeat, a broken connection.
    #[error("the connection to the broker was lost")]
    Lost,
    /// The queue was deleted, or its leader moved.
    #[error("the broker cancelled the consumer: was the queue deleted?")]
    Cancelled,
    /// lapin could not read what the broker sent. A message property that is not UTF-8 does that, every time it comes.
    #[error(
        "the broker sent something unreadable: does a message at the head of the queue have a property or a header \
             name that is not UTF-8? Take it out with another client"
    )]
    Unreadable,
    /// An ack came too late, or could not be written.
    #[error("an acknowledgement could not be delivered")]
    Ack,
    /// Tags out of line: an accounting error, ended before it can ack a wrong message.
    #[error("the broker's delivery tags are not contiguous")]
    OutOfLine,
    /// More message bytes in hand than can be allowed.
    #[error("the messages in hand exceed broker.prefetch_bytes by far")]
    Memory,
}

impl BrokerError {
    /// The metric label and log field.
    pub fn label(&self) -> &'static str {
        match self {
            BrokerError::Unreachable => "unreachable",
            BrokerError::Address => "address",
            BrokerError::Refused => "refused",
            BrokerError::VirtualHost => "virtual_host",
            BrokerError::Certificate(_) => "certificate",
            BrokerError::Tls => "tls",
            BrokerError::Timeout(_) => "timeout",
            BrokerError::Topology(_) => "topology",
            BrokerError::Closed(_) => "closed",
            BrokerError::Lost => "lost",
            BrokerError::Cancelled => "cancelled",
            BrokerError::Unreadable => "unreadable",
            BrokerError::Ack => "ack",
            BrokerError::OutOfLine => "out_of_line",
            BrokerError::Memory => "memory",
        }
    }

    /// Every label, for the metric catalogue.
    pub const LABELS: [&'static str; 15] = [
        "unreachable",
        "address",
        "refused",
        "virtual_host",
        "certificate",
        "tls",
        "timeout",
        "topology",
        "closed",
        "lost",
        "cancelled",
        "unreadable",
        "ack",
        "out_of_line",
        "memory",
    ];

    pub(super) fn of_connecting(error: &lapin::Error, encrypted: bool) -> Self {
        use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
        let plain = [ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut];
        if let ErrorKind::IOError(error) = error.kind()
            && encrypted
            && !plain.contains(&error.kind())
        {
            return BrokerError::Tls;
        }
        match reply_code(error) {
            Some(403) => BrokerError::Refused,
            Some(402 | 530) => BrokerError::VirtualHost,
            Some(code) => BrokerError::Closed(code),
            None => BrokerError::Unreachable,
        }
    }

    pub(super) fn of_request(error: &lapin::Error) -> Self {
        if matches!(error.kind(), ErrorKind::ParsingError(_)) {
            return BrokerError::Unreadable;
        }
        match reply_code(error) {
            Some(code) => BrokerError::Closed(code),
            None => BrokerError::Lost,
        }
    }

    /// For declarations and checks, whose reply texts name exchanges, queues and arguments only: ours, from the config.
    pub(super) fn of_topology(error: &lapin::Error) -> Self {
        match (error.kind(), reply_code(error)) {
            (ErrorKind::ProtocolError(reply), Some(403..=406)) => {
                BrokerError::Topology(reply.get_message().to_string().replace(char::is_control, " "))
            }
            _ => BrokerError::of_request(error),
        }
    }
}

fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
        _ => None,
    }
}
