//! Owns publishing with confirms: persistent, mandatory, over a connection of its own. One task at a time uses a publisher, and a
//! publisher that failed is dropped.
//!
//! lapin attaches a returned message to whichever confirm comes next, not to its own. So the results of messages
//! that are published together are known only when all their confirms are in, and returns are matched by return key. Where
//! several messages share the key of one that was returned, none of them counts as confirmed.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind, PublisherConfirm};
use tokio::time::timeout;

use ticketlog_config::{BrokerSettings, RouteSettings};

use super::browser::lock::{lock_name, try_lock};
use super::connection::{Connection, call, call_topology, close, connect};
use super::error::{BrokerError, RefusalKind};
use super::message::{Outgoing, fit_headers, return_key};
use super::topology;

/// Bytes of a frame that are not the content header's.
const FRAME_OVERHEAD: usize = 64;

/// What became of one published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishResult {
    /// Confirmed: it is durable in every queue that it was routed to.
    Confirmed,
    /// Returned: no queue is bound for it.
    Returned,
    /// Refused with `basic.nack`: a queue with `reject-publish` is full, for instance.
    Nacked,
}

/// A publish that did not end: the channel or the connection did, or an answer is late.
#[derive(Debug)]
pub struct Unfinished {
    pub error: BrokerError,
    /// What is known of each message. One without a result may have been routed or not.
    pub results: Vec<Option<PublishResult>>,
}

/// The confirms of the messages that were sent, and what the first of them say.
struct Answers {
    confirms: Vec<PublisherConfirm>,
    known: Vec<Option<Confirmation>>,
}

impl Answers {
    /// Waits for all confirms. Returns why one of them or what went before failed; if known, by the broker's own reply.
    async fn wait(&mut self, mut failure: Option<lapin::Error>) -> Option<lapin::Error> {
        let is_reply = |error: &lapin::Error| matches!(error.kind(), ErrorKind::ProtocolError(_));
        for confirm in &mut self.confirms {
            match confirm.await {
                Ok(answer) => self.known.push(Some(answer)),
                Err(error) => {
                    failure = failure.filter(is_reply).or(Some(error));
                    self.known.push(None);
                }
            }
        }
        failure
    }

    /// What is known of each of `count` messages, without waiting any longer.
    fn into_known(mut self, count: usize) -> Vec<Option<Confirmation>> {
        let more = self.confirms.iter_mut().skip(self.known.len());
        self.known.extend(more.map(|confirm| confirm.now_or_never().and_then(Result::ok)));
        self.known.resize_with(count, || None);
        self.known.iter_mut().for_each(|answer| *answer = answer.take().filter(|it| *it != Confirmation::NotRequested));
        self.known
    }
}

/// A confirming channel on a connection of its own.
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    call_timeout: Duration,
}

async fn with_confirms(channel: Channel, limit: Duration) -> Result<Channel, BrokerError> {
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    call(limit, "turning on confirms", confirms).await?;
    Ok(channel)
}

impl Publisher {
    /// Connects, ensures the topology, and turns on confirms.
    ///
    /// # Errors
    /// As for connecting and for declaring.
    pub async fn open(settings: &RouteSettings, purpose: &str) -> Result<Self, BrokerError> {
        Publisher::open_with(&settings.broker, Some(settings), purpose).await
    }

    /// Connects and turns on confirms; declares nothing.
    ///
    /// # Errors
    /// As for connecting.
    pub async fn open_without_topology(broker: &BrokerSettings, purpose: &str) -> Result<Self, BrokerError> {
        Publisher::open_with(broker, None, purpose).await
    }

    async fn open_with(
        broker: &BrokerSettings,
        topology: Option<&RouteSettings>,
        purpose: &str,
    ) -> Result<Self, BrokerError> {
        let connection = connect(broker, purpose).await?;
        let limit = broker.call_timeout.0;
        let opened = async {
            let channel = match topology {
                Some(settings) => topology::ensure(&connection, settings, broker.declare).await?,
                None => call(limit, "opening a channel", connection.create_channel()).await?,
            };
            with_confirms(channel, limit).await
        };
        match opened.await {
            Ok(channel) => Ok(Publisher { connection, channel, call_timeout: limit }),
            Err(error) => {
                close(&connection, limit).await;
                Err(error)
            }
        }
    }

    /// Continues on a new channel of its connection, after RabbitMQ has closed the channel.
    pub async fn reopen(&mut self) -> Result<(), BrokerError> {
        let limit = self.call_timeout;
        let channel = call(limit, "opening a channel", self.connection.create_channel()).await?;
        self.channel = with_confirms(channel, limit).await?;
        Ok(())
    }

    /// Publishes the messages and waits for all confirms; the results are in the order of the messages. While the broker
    /// blocks publishers (a memory or disk alarm) it keeps waiting and calls `on_blocked` every `poll` for as long as that
    /// returns true: lapin can neither write to nor close such a connection, and a new one would be blocked as well.
    ///
    /// # Errors
    /// With the results that are known. Before the publisher is used again, it needs [`Publisher::reopen`].
    pub async fn publish(
        &mut self,
        messages: &mut [&mut Outgoing],
        poll: Duration,
        on_blocked: impl Fn() -> bool,
    ) -> Result<Vec<PublishResult>, Unfinished> {
        let max_header_bytes = match self.connection.configuration().frame_max() as usize {
            0 => usize::MAX,
            frame => frame.saturating_sub(FRAME_OVERHEAD),
        };
        for message in messages.iter_mut() {
            fit_headers(message, max_header_bytes);
        }
        let mut answers = Answers { confirms: Vec::with_capacity(messages.len()), known: Vec::new() };
        let ended = self.send_and_wait(messages, &mut answers, poll, on_blocked).await;
        let known = answers.into_known(messages.len());
        match ended {
            Ok(()) if known.iter().all(Option::is_some) => {
                Ok(match_returns(messages, known.into_iter().flatten().collect()))
            }
            ended => {
                let error = ended.err().unwrap_or(BrokerError::ConnectionLost);
                Err(Unfinished { error, results: known_results(known) })
            }
        }
    }

    async fn send_and_wait(
        &self,
        messages: &[&mut Outgoing],
        answers: &mut Answers,
        poll: Duration,
        on_blocked: impl Fn() -> bool,
    ) -> Result<(), BrokerError> {
        let mut waiting = pin!(async {
            let mut failure = None;
            for message in messages {
                match self.send(message).await {
                    Ok(confirm) => answers.confirms.push(confirm),
                    // The channel has ended. Why, the confirms say, which all are answered now.
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            answers.wait(failure).await.map_or(Ok(()), |error| Err(BrokerError::from_topology_request(&error)))
        });
        let mut deadline = Instant::now() + self.call_timeout;
        loop {
            match timeout(poll.min(self.call_timeout), &mut waiting).await {
                Ok(ended) => return ended,
                Err(_) if self.connection.status().blocked() => {
                    if !on_blocked() {
                        return Err(BrokerError::Timeout("confirming a publish; it blocks publishers".into()));
                    }
                    deadline = Instant::now() + self.call_timeout;
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(BrokerError::Timeout("confirming a publish".into()));
                }
                Err(_) => {}
            }
        }
    }

    async fn send(&self, message: &Outgoing) -> lapin::Result<lapin::PublisherConfirm> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let (exchange, key) = (message.exchange.clone(), message.routing_key.clone());
        self.channel.basic_publish(exchange, key, options, &message.body, message.published_properties()).await
    }

    /// Whether an exchange exists. A publish to one that does not would close the channel.
    ///
    /// # Errors
    /// The broker does not answer, or does not permit the question.
    pub async fn exchange_exists(&self, name: &str) -> Result<bool, BrokerError> {
        if name.is_empty() {
            return Ok(true);
        }
        let limit = self.call_timeout;
        let channel = call(limit, "opening a channel", self.connection.create_channel()).await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let request =
            channel.exchange_declare(name.into(), lapin::ExchangeKind::Direct, options, FieldTable::default());
        match call_topology(limit, "looking up an exchange", request).await {
            Ok(()) => {
                call(limit, "closing a channel", channel.close(200, "closing".into())).await?;
                Ok(true)
            }
            Err(error) if error.refusal() == Some(RefusalKind::NotFound) => Ok(false),
            Err(error) if error.refusal() == Some(RefusalKind::AccessRefused) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of this suffix of a queue for as long as the publisher lives; false if another connection holds it.
    ///
    /// # Errors
    /// The broker does not answer, or the user may not configure `<queue><suffix>`.
    pub async fn try_lock(&self, queue: &str, suffix: &str) -> Result<bool, BrokerError> {
        try_lock(&self.connection, &lock_name(queue, suffix), self.call_timeout).await
    }

    /// A connection that the broker blocks is dropped: it cannot be closed.
    pub async fn close(self) {
        if !self.connection.status().blocked() {
            close(&self.connection, self.call_timeout).await;
        }
    }
}

/// The return key of a returned message. Of its headers the frame filter leaves the short ones of our own.
fn returned_key(properties: &BasicProperties) -> Option<String> {
    let none = FieldTable::default();
    return_key(properties, properties.headers().as_ref().unwrap_or(&none).inner())
}

/// The results where some are not known. A return is attached to the next confirm: if none of those that came has one, none of
/// their messages was returned. Otherwise it is not known which was.
fn known_results(known: Vec<Option<Confirmation>>) -> Vec<Option<PublishResult>> {
    let has_return = |answer: &Confirmation| matches!(answer, Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)));
    let any_returned = known.iter().flatten().any(has_return);
    let result = |answer| match answer {
        Some(_) if any_returned => None,
        Some(Confirmation::Ack(_)) => Some(PublishResult::Confirmed),
        Some(Confirmation::Nack(_)) => Some(PublishResult::Nacked),
        _ => None,
    };
    known.into_iter().map(result).collect()
}

/// Combines confirms and returns. Where several messages share address and key of one that was returned, it is not known which
/// of them it was: none of them counts as confirmed.
fn match_returns(messages: &[&mut Outgoing], confirmations: Vec<Confirmation>) -> Vec<PublishResult> {
    let mut returned: HashSet<(ShortString, ShortString, Option<String>)> = HashSet::new();
    let mut results = Vec::with_capacity(messages.len());
    for confirmation in confirmations {
        results.push(if confirmation.is_ack() { PublishResult::Confirmed } else { PublishResult::Nacked });
        let address = |delivery: lapin::message::Delivery| {
            let key = returned_key(&delivery.properties);
            (delivery.exchange, delivery.routing_key, key)
        };
        returned.extend(confirmation.take_message().map(|message| address(message.delivery)));
    }
    let address = |message: &&mut Outgoing| {
        let key = Some(message.return_key.clone()).filter(|key| !key.is_empty());
        (message.exchange.clone(), message.routing_key.clone(), key)
    };
    let sent: HashSet<_> = if returned.is_empty() { HashSet::new() } else { messages.iter().map(address).collect() };
    let any_unmatched = !returned.is_subset(&sent);
    for (message, result) in messages.iter().zip(&mut results).filter(|_| !returned.is_empty()) {
        if any_unmatched || returned.contains(&address(message)) {
            *result = PublishResult::Returned;
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_confirmed_before_the_channel_ends_stays_known() {
        let known = vec![Some(Confirmation::Ack(None)), None, Some(Confirmation::Nack(None))];
        assert_eq!(known_results(known), [Some(PublishResult::Confirmed), None, Some(PublishResult::Nacked)]);
    }
}
