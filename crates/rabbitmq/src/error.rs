//! Owns what can go wrong with RabbitMQ, as types, and is the only place that reads reply texts. Never carries a text of
//! lapin's, which may hold credentials or message content; the broker's reply texts are kept only where they name
//! exchanges, queues and arguments.

use std::borrow::Cow;

use lapin::ErrorKind;
use strum::{IntoStaticStr, VariantNames};

use ticketlog_contract::dead_letter::one_line;

/// A failed request to the broker, a lost connection, or a session that had to end. Displayed as what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum BrokerError {
    /// No TCP connection to this host and port, or it was reset.
    Unreachable(String),
    /// The content of this setting cannot be parsed.
    InvalidUri(&'static str),
    /// 403 while logging in with the URI of this setting.
    Authentication(&'static str),
    /// 530 while opening the virtual host of this setting.
    VirtualHost(&'static str),
    /// 530 while opening the virtual host: it, or the user, has as many connections as are allowed.
    ConnectionLimit,
    /// A TLS file that cannot be used.
    Certificate(String),
    /// No TLS session with this host and port.
    Tls(String),
    /// A request was not answered within its timeout.
    Timeout(Cow<'static, str>),
    /// A request about exchanges, queues or bindings was refused.
    Refused(Refusal),
    /// Any other error of the broker, by its AMQP reply code.
    Closed(u16),
    /// Missed heartbeats, or the connection broke.
    ConnectionLost,
    /// The broker cancelled the consumer: the queue was deleted, its leader moved, or (from 4.3 on) messages were
    /// unacknowledged for longer than the consumer timeout.
    ConsumerCancelled,
    /// A message has the header of a stream. A publisher may have set it: see `source_is_stream`.
    Stream,
    /// lapin cannot parse a frame although it was filtered: a bug, or not RabbitMQ.
    UnparsableFrame,
    /// An acknowledgement was late, or could not be written.
    AckFailed,
    /// A gap in the delivery tags. The session ends before it can acknowledge a wrong message.
    DeliveryTagGap,
    /// The bytes in flight exceed four times `broker.prefetch_bytes`.
    MemoryBudget,
}

impl BrokerError {
    /// What happened, without what to do about it.
    pub fn what(&self) -> Cow<'_, str> {
        match self {
            BrokerError::Unreachable(address) => format!("RabbitMQ cannot be reached at {address}").into(),
            BrokerError::InvalidUri(setting) => format!("{setting} is not an AMQP URI").into(),
            BrokerError::Authentication(setting) => {
                format!("RabbitMQ rejects the user name or the password of {setting}").into()
            }
            BrokerError::VirtualHost(setting) => {
                format!("the virtual host of {setting} does not exist, or the user has no access to it").into()
            }
            BrokerError::Certificate(fault) => fault.into(),
            BrokerError::Tls(address) => format!("the TLS handshake with RabbitMQ failed at {address}").into(),
            BrokerError::Timeout(action) => format!("RabbitMQ did not answer in time: {action}").into(),
            BrokerError::Refused(refusal) => (&refusal.text).into(),
            BrokerError::Closed(code) => format!("RabbitMQ closed the channel or the connection with code {code}").into(),
            BrokerError::ConnectionLimit => "RabbitMQ's connection limit for the user or the virtual host is reached".into(),
            BrokerError::ConnectionLost => "the connection to RabbitMQ was lost".into(),
            BrokerError::ConsumerCancelled => {
                "RabbitMQ cancelled the consumer: the queue was deleted, its leader moved, or the consumer timeout passed".into()
            }
            BrokerError::Stream => "broker.queue is a stream: acknowledgements remove nothing from it".into(),
            BrokerError::UnparsableFrame => "RabbitMQ sent a frame that cannot be parsed".into(),
            BrokerError::AckFailed => "an acknowledgement could not be sent".into(),
            BrokerError::DeliveryTagGap => "RabbitMQ's delivery tags are not contiguous".into(),
            BrokerError::MemoryBudget => "the messages in flight far exceed broker.prefetch_bytes".into(),
        }
    }

    /// What to do, if there is something to do.
    pub fn fix(&self) -> Option<&'static str> {
        Some(match self {
            BrokerError::Unreachable(_) => "start RabbitMQ, or correct the host and the port",
            BrokerError::InvalidUri(_) => {
                "write amqp://user:password@host:5672/%2f with special characters percent-encoded"
            }
            BrokerError::Authentication(_) => "correct them, or set the password with `rabbitmqctl change_password`",
            BrokerError::VirtualHost(_) => {
                "correct it (the default one is written %2f), or give the user permissions in it with `rabbitmqctl \
                 set_permissions`"
            }
            BrokerError::ConnectionLimit => {
                "raise it (`rabbitmqctl set_user_limits`, `rabbitmqctl set_vhost_limits`), or close other connections"
            }
            BrokerError::Certificate(_) => "correct the setting, or the file",
            BrokerError::Tls(_) => {
                "check that the certificate of RabbitMQ is valid for this host name and signed by a CA of the system or of \
                 broker.tls_ca, that it does not ask for a client certificate (broker.tls_certificate), and that the port \
                 speaks TLS"
            }
            BrokerError::Refused(refusal) => return refusal.fix(),
            // Its text: "number of channels opened … has reached the maximum allowed (user) limit of (10)".
            BrokerError::Closed(530) => {
                "if the user has as many channels as it may, raise that (`rabbitmqctl set_user_limits USER '{\"max-channels\": 100}'`)"
            }
            BrokerError::Stream => "name a quorum queue or a classic queue",
            BrokerError::UnparsableFrame => "please report this",
            _ => return None,
        })
    }
}

impl std::fmt::Display for BrokerError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.what())?;
        self.fix().map_or(Ok(()), |fix| write!(f, "; {fix}"))
    }
}

impl std::error::Error for BrokerError {}

/// A refusal of a request that names topology: reply codes 403 to 406, and 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// The broker's reply text, on one line. It names exchanges, queues, arguments and permissions.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// 403: the user has no permission.
    AccessRefused,
    /// 404: there is no such exchange or queue.
    NotFound,
    /// 404 as well: the queue exists, but the node that hosts it is down.
    QueueDown,
    /// 405: another connection holds the exclusive queue.
    ResourceLocked,
    /// 406: it exists with other properties, or the request is not valid.
    PreconditionFailed,
    /// 503: the plugin of the exchange type is not enabled.
    UnknownExchangeType,
}

impl Refusal {
    fn fix(&self) -> Option<&'static str> {
        Some(match self.kind {
            RefusalKind::AccessRefused => "deploy/rabbitmq/README.md lists the permissions that each login needs",
            RefusalKind::NotFound => "run `ticketlog setup`, or set broker.declare = true",
            RefusalKind::QueueDown => "start the node that hosts the queue",
            RefusalKind::ResourceLocked => return None,
            RefusalKind::UnknownExchangeType => {
                "broker.shards needs a plugin of RabbitMQ: run `rabbitmq-plugins enable rabbitmq_consistent_hash_exchange` on \
                 every node"
            }
            RefusalKind::PreconditionFailed => {
                "it exists with other properties. Change the configuration to match, delete it once it is empty, or set \
                 broker.declare = false to use it as it is"
            }
        })
    }

    fn new(code: u16, text: &str) -> Option<Self> {
        let kind = match code {
            403 => RefusalKind::AccessRefused,
            404 if text.starts_with("NOT_FOUND - no ") => RefusalKind::NotFound,
            404 => RefusalKind::QueueDown,
            405 => RefusalKind::ResourceLocked,
            // 3.x refuses a type that it has never heard of as an invalid request.
            406 | 503 if text.contains("exchange type") => RefusalKind::UnknownExchangeType,
            406 => RefusalKind::PreconditionFailed,
            _ => return None,
        };
        Some(Refusal { kind, text: one_line(text, usize::MAX) })
    }

    /// The argument that differs from the declaration, and its current value if it is set. RabbitMQ writes: `inequivalent
    /// arg 'x-max-length' for queue …: received none but current is the value '7' of type 'signedint'`.
    pub fn inequivalent_argument(&self) -> Option<(String, Option<String>)> {
        let (_, rest) = self.text.split_once("inequivalent arg '")?;
        let (name, rest) = rest.split_once('\'')?;
        let (_, current) = rest.rsplit_once("but current is ")?;
        let value = current.split_once('\'').and_then(|(_, rest)| rest.split_once('\''));
        Some((name.to_owned(), value.map(|(value, _)| value.to_owned())))
    }
}

impl BrokerError {
    /// The metric label and log field; all of them are `BrokerError::VARIANTS`.
    pub fn label(&self) -> &'static str {
        self.into()
    }

    /// Whether a message that RabbitMQ was delivering can be the reason.
    pub fn may_be_due_to_a_message(&self) -> bool {
        matches!(self, BrokerError::UnparsableFrame | BrokerError::ConnectionLost | BrokerError::Closed(_))
    }

    /// What kind of refusal it is, if it is one.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            BrokerError::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }

    /// `address` is the host and the port, `setting` the one of the URI.
    pub(super) fn from_connect(error: &lapin::Error, encrypted: bool, address: String, setting: &'static str) -> Self {
        use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
        let before_tls = [ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut];
        if let ErrorKind::IOError(error) = error.kind()
            && encrypted
            && !before_tls.contains(&error.kind())
        {
            return BrokerError::Tls(address);
        }
        match reply(error) {
            Some((403, _)) => BrokerError::Authentication(setting),
            // Its texts: "… connection limit (1) is reached", "… user connection limit (1) is reached".
            Some((530, text)) if text.contains("connection limit") => BrokerError::ConnectionLimit,
            Some((402 | 530, _)) => BrokerError::VirtualHost(setting),
            Some((code, _)) => BrokerError::Closed(code),
            None => BrokerError::Unreachable(address),
        }
    }

    /// For requests whose reply text may hold message content: only the code is kept.
    pub(super) fn from_request(error: &lapin::Error) -> Self {
        if matches!(error.kind(), ErrorKind::ParsingError(_)) {
            return BrokerError::UnparsableFrame;
        }
        reply(error).map_or(BrokerError::ConnectionLost, |(code, _)| BrokerError::Closed(code))
    }

    /// For declarations, consumers and publishes: their reply texts name topology, which comes from our configuration.
    pub(super) fn from_topology_request(error: &lapin::Error) -> Self {
        let refusal = reply(error).and_then(|(code, text)| Refusal::new(code, text));
        refusal.map_or_else(|| BrokerError::from_request(error), BrokerError::Refused)
    }
}

/// The broker's reply, if it is one: its code, and its text.
fn reply(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Some((reply.get_id(), reply.get_message().as_str())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_texts_become_kinds() {
        for (code, text, kind) in [
            (403, "ACCESS_REFUSED - access to queue 'q' refused", RefusalKind::AccessRefused),
            (404, "NOT_FOUND - no queue 'q' in vhost '/'", RefusalKind::NotFound),
            (404, "NOT_FOUND - queue 'q' in vhost '/' process is stopped", RefusalKind::QueueDown),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access", RefusalKind::ResourceLocked),
            (406, "PRECONDITION_FAILED - inequivalent arg 'durable'", RefusalKind::PreconditionFailed),
            (503, "COMMAND_INVALID - unknown exchange type 'x-consistent-hash'", RefusalKind::UnknownExchangeType),
        ] {
            assert_eq!(Refusal::new(code, text).map(|refusal| refusal.kind), Some(kind), "{text}");
        }
        assert_eq!(Refusal::new(541, "INTERNAL_ERROR"), None);
    }

    #[test]
    fn the_inequivalent_argument_is_read_with_its_value() {
        let read = |tail: &str| {
            Refusal::new(406, &format!("PRECONDITION_FAILED - inequivalent arg {tail}"))
                .unwrap()
                .inequivalent_argument()
        };
        let some = |name: &str, value: Option<&str>| Some((name.to_owned(), value.map(str::to_owned)));
        let (queue, large) = ("for queue 'd' in vhost '/': received", "'2000000000'");
        assert_eq!(
            read(&format!("'x-delivery-limit' {queue} {large} but current is '3'")),
            some("x-delivery-limit", Some("3"))
        );
        let none = format!("'x-delivery-limit' {queue} the value {large} of type 'signedint' but current is none");
        assert_eq!(read(&none), some("x-delivery-limit", None));
        let typed = format!("'x-max-length' {queue} none but current is the value '7' of type 'signedint'");
        assert_eq!(read(&typed), some("x-max-length", Some("7")));
        assert_eq!(Refusal::new(406, "nonsense").unwrap().inequivalent_argument(), None);
    }
}
