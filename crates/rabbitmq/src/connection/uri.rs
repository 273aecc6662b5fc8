//! Owns the parsed form of `broker.uri`: one AMQP URI for each node of the cluster.

use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::ExposeSecret as _;

use ticketlog_config::{self as config, BrokerSettings};

use super::super::error::BrokerError;

/// The nodes of `broker.uri`, in the order in which they are tried; at least one.
pub(crate) struct Endpoints(Vec<AMQPUri>);

impl Endpoints {
    /// # Errors
    /// `InvalidUri` if one of them cannot be parsed.
    pub fn parse(settings: &BrokerSettings) -> Result<Self, BrokerError> {
        let uris = config::broker_addresses(settings.current_uri().expose_secret());
        let parsed = uris.iter().map(|uri| uri.parse().map_err(|_| BrokerError::InvalidUri(settings.uri_setting)));
        let nodes: Vec<AMQPUri> = parsed.collect::<Result<_, _>>()?;
        if nodes.is_empty() { Err(BrokerError::InvalidUri(settings.uri_setting)) } else { Ok(Endpoints(nodes)) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &AMQPUri> {
        self.0.iter()
    }

    /// The node that is tried first.
    pub fn first(&self) -> Option<&AMQPUri> {
        self.0.first()
    }
}

/// The host and the port.
pub(crate) fn address(uri: &AMQPUri) -> String {
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

pub(crate) fn is_encrypted(uri: &AMQPUri) -> bool {
    uri.scheme == AMQPScheme::AMQPS
}

/// The user name of `broker.uri`; `None` if it is empty. RabbitMQ guarantees it in the `user_id` property of what this user
/// publishes.
pub fn user_name(settings: &BrokerSettings) -> Option<String> {
    let endpoints = Endpoints::parse(settings).ok()?;
    let name = endpoints.first()?.authority.userinfo.username.to_string();
    Some(name).filter(|name| !name.is_empty())
}
