//! Owns publishing that can be trusted: persistent, mandatory, confirmed, over a connection of its own. One task at a
//! time uses a publisher, and a failed one is thrown away. Must not know why something is published.
//!
//! lapin attaches a returned message to whichever confirm comes next, not to its own. So a window of publishes is judged
//! only when every confirm of it is in, and returns are matched by their mark.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::timeout;

use crate::config::{Broker, DeadLetter};

use super::delivery::{Outgoing, fit_headers, mark_of};
use super::{BrokerError, topology};

/// What became of one published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The broker has it in every queue it is routed to, durably.
    Stored,
    /// No queue is bound for it: it came back.
    Returned,
    /// The broker refused it (a full queue with `reject-publish`).
    Refused,
}

/// A confirming channel on a connection of its own.
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    call_timeout: Duration,
}

impl Publisher {
    /// Connects, makes sure of the topology, and turns on confirms.
    ///
    /// # Errors
    /// As for connecting and for declaring.
    pub async fn open(broker: &Broker, dead: &DeadLetter, purpose: &str) -> Result<Self, BrokerError> {
        Publisher::prepared(broker, Some(dead), purpose).await
    }

    /// The same without looking at the topology: for publishing to wherever a message says.
    ///
    /// # Errors
    /// As for connecting.
    pub async fn plain(broker: &Broker, purpose: &str) -> Result<Self, BrokerError> {
        Publisher::prepared(broker, None, purpose).await
    }

    async fn prepared(broker: &Broker, dead: Option<&DeadLetter>, purpose: &str) -> Result<Self, BrokerError> {
        let connection = super::connect(broker, purpose).await?;
        let limit = broker.call_timeout.0;
        let opened = async {
            if let Some(dead) = dead {
                topology::ensure(&connection, broker, dead).await?;
            }
            let channel = super::call(limit, "opening a channel", connection.create_channel()).await?;
            let confirms = channel.confirm_select(ConfirmSelectOptions::default());
            super::call(limit, "turning on confirms", confirms).await?;
            Ok(channel)
        };
        match opened.await {
            Ok(channel) => Ok(Publisher { connection, channel, call_timeout: limit }),
            Err(error) => {
                super::close(&connection, limit).await;
                Err(error)
            }
        }
    }

    /// Publishes a window and waits for all of its confirms; the answers stand in the order of the messages. While the
    /// broker blocks publishers (an alarm) it waits on, calling `blocked` now and then: lapin would neither write nor
    /// close such a connection, and a new one would fare no better.
    ///
    /// # Errors
    /// Nothing is known of any of them then, and the publisher must not be used again.
    pub async fn publish(
        &mut self,
        window: &mut [Outgoing],
        blocked: impl Fn(),
    ) -> Result<Vec<Confirmed>, BrokerError> {
        let room = match self.connection.configuration().frame_max() as usize {
            0 => usize::MAX,
            frame => frame.saturating_sub(64),
        };
        for outgoing in window.iter_mut() {
            fit_headers(outgoing, room);
        }
        let work = async {
            let mut confirms = Vec::with_capacity(window.len());
            for outgoing in window.iter() {
                confirms.push(self.send(outgoing).await?);
            }
            try_join_all(confirms).await
        };
        let mut work = pin!(work);
        let confirmations = loop {
            match timeout(self.call_timeout, &mut work).await {
                Ok(Ok(confirmations)) => break confirmations,
                Ok(Err(error)) => return Err(BrokerError::of_topology(&error)),
                Err(_) if self.connection.status().blocked() => blocked(),
                Err(_) => return Err(BrokerError::Timeout("confirming a publish")),
            }
        };
        judge(window, confirmations)
    }

    async fn send(&self, outgoing: &Outgoing) -> lapin::Result<lapin::PublisherConfirm> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (outgoing.exchange.clone(), outgoing.routing_key.clone());
        self.channel.basic_publish(exchange, key, options, &outgoing.body, outgoing.properties.clone()).await
    }

    /// Whether an exchange is there; publishing to one that is not would end the channel.
    ///
    /// # Errors
    /// The broker does not answer, or does not let us ask.
    pub async fn exchange_exists(&self, name: &str) -> Result<bool, BrokerError> {
        if name.is_empty() {
            return Ok(true);
        }
        let limit = self.call_timeout;
        let channel = super::call(limit, "opening a channel", self.connection.create_channel()).await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let kind = lapin::ExchangeKind::Direct;
        match timeout(limit, channel.exchange_declare(name.into(), kind, options, FieldTable::default())).await {
            Ok(Ok(())) => {
                super::call(limit, "closing a channel", channel.close(200, "bye".into())).await?;
                Ok(true)
            }
            Ok(Err(error)) => match BrokerError::of_topology(&error) {
                BrokerError::Topology(said) if said.starts_with("NOT_FOUND") => Ok(false),
                other => Err(other),
            },
            Err(_) => Err(BrokerError::Timeout("asking for an exchange")),
        }
    }

    /// Ends the connection in good order.
    pub async fn close(self) {
        super::close(&self.connection, self.call_timeout).await;
    }
}

/// Puts confirms and returns together.
fn judge(window: &[Outgoing], confirmations: Vec<Confirmation>) -> Result<Vec<Confirmed>, BrokerError> {
    let mut returned: HashMap<String, usize> = HashMap::new();
    let mut unmatched = 0;
    let mut verdicts = Vec::with_capacity(window.len());
    for confirmation in confirmations {
        let (verdict, message) = match confirmation {
            Confirmation::Ack(message) => (Confirmed::Stored, message),
            Confirmation::Nack(message) => (Confirmed::Refused, message),
            Confirmation::NotRequested => return Err(BrokerError::Lost),
        };
        verdicts.push(verdict);
        match message.map(|message| mark_of(&message.delivery.properties)) {
            Some(Some(mark)) => *returned.entry(mark).or_default() += 1,
            Some(None) => unmatched += 1,
            None => {}
        }
    }
    for (outgoing, verdict) in window.iter().zip(&mut verdicts) {
        match returned.get_mut(&outgoing.mark) {
            Some(count) if *count > 0 => {
                *count -= 1;
                *verdict = Confirmed::Returned;
            }
            _ => {}
        }
    }
    if unmatched > 0 || returned.values().any(|count| *count > 0) {
        // A return that fits no message leaves open which one it was: none of the window counts as stored.
        for verdict in verdicts.iter_mut().filter(|verdict| **verdict == Confirmed::Stored) {
            *verdict = Confirmed::Returned;
        }
    }
    Ok(verdicts)
}
