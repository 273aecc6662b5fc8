//! Owns taking dead letters from a queue to somewhere else: published and confirmed first, acknowledged then. What cannot
//! be delivered stays. Must not know where they go or why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::broker::{Confirmed, Outgoing, Publisher, Ticket};
use crate::config::Settings;

use super::super::Fault;
use super::super::carrier::{Carrier, Tally, progress};
use super::scan::Scan;
use super::{count, note};

/// Addresses told of that nothing takes.
const TOLD: usize = 20;

/// Messages on their way from a queue. `T` says what for.
pub(super) struct Carrying<T> {
    pub scan: Scan,
    carrier: Carrier<(Ticket, T, String)>,
    /// Whether an exchange is there, by name.
    exchanges: BTreeMap<String, bool>,
    /// Messages that had nowhere to go, by address.
    pub stranded: BTreeMap<String, u64>,
    /// What arrived.
    pub arrived: BTreeMap<T, u64>,
}

impl<T: Ord + Copy> Carrying<T> {
    /// Ready to carry what `scan` finds, at most `pace` messages a second. From now on an interrupt ends it in good order.
    pub async fn new(settings: &Settings, scan: Scan, pace: Option<f64>, done: &str) -> Result<Self, Fault> {
        let publisher = match Publisher::plain(&settings.broker, "desk publisher").await {
            Ok(publisher) => publisher,
            Err(error) => return scan.close(Err(error.into())).await,
        };
        let bar = progress(Some(scan.total()), done);
        let interrupted = Arc::clone(&scan.stop);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if interrupted.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                note("stopping; a second interrupt ends it at once, still losing nothing");
            }
        });
        let (exchanges, stranded, arrived) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let carrier = Carrier::new(settings, publisher, pace, bar).of_many();
        Ok(Carrying { scan, carrier, exchanges, stranded, arrived })
    }

    /// Notes a message that cannot be sent anywhere; it stays.
    pub fn strand(&mut self, why: String) {
        *self.stranded.entry(why).or_default() += 1;
    }

    /// Takes a message along.
    pub async fn take(&mut self, outgoing: Outgoing, ticket: Ticket, what: T) -> Result<(), Fault> {
        let exchange = outgoing.exchange();
        let address = format!("exchange {exchange:?}, routing key {:?}", outgoing.routing_key());
        if !self.exchanges.contains_key(exchange) {
            let there = self.carrier.exchange_exists(exchange).await?;
            self.exchanges.insert(exchange.to_owned(), there);
        }
        if self.exchanges.get(exchange) == Some(&false) {
            self.strand(address);
            return Ok(());
        }
        let done = self.carrier.push(outgoing, (ticket, what, address)).await?;
        self.settle(done).await
    }

    async fn settle(&mut self, done: Vec<((Ticket, T, String), Confirmed)>) -> Result<(), Fault> {
        let mut tickets = Vec::new();
        for ((ticket, what, address), confirmed) in done {
            if confirmed == Confirmed::Stored {
                tickets.push(ticket);
                *self.arrived.entry(what).or_default() += 1;
            } else {
                self.strand(address);
            }
        }
        Ok(self.scan.desk.settle(tickets).await?)
    }

    /// Publishes the rest, gives back what stays, closes both connections. `carried` is how it went so far. Tells what
    /// came of it, and how it ended.
    pub async fn finish(mut self, carried: Result<(), Fault>) -> (Carried<T>, Result<(), Fault>) {
        let flushed = match carried {
            Ok(()) => match self.carrier.flush().await {
                Ok(done) => self.settle(done).await,
                Err(fault) => Err(fault),
            },
            Err(fault) => Err(fault),
        };
        let interrupted = self.scan.stop.load(Ordering::Relaxed);
        let (tally, took) = self.carrier.close().await;
        if flushed.is_err() {
            let arrived: u64 = self.arrived.values().sum();
            let arrived = count(arrived, "dead letter");
            note(format_args!(
                "{arrived} arrived before it failed; the last of them may be in the queue still. Do it again"
            ));
        }
        let ended = self.scan.close(flushed).await;
        (Carried { tally, took, arrived: self.arrived, stranded: self.stranded, interrupted }, ended)
    }
}

/// What came of it.
pub(super) struct Carried<T> {
    pub tally: Tally,
    pub took: Duration,
    pub arrived: BTreeMap<T, u64>,
    pub stranded: BTreeMap<String, u64>,
    pub interrupted: bool,
}

impl<T: Ord> Carried<T> {
    /// How many of a kind arrived.
    pub fn count(&self, what: &T) -> u64 {
        self.arrived.get(what).copied().unwrap_or(0)
    }

    /// Says what stayed, and makes an exit code of it.
    pub fn code(&self) -> u8 {
        for (address, messages) in self.stranded.iter().take(TOLD) {
            note(format_args!(
                "{} stayed: nothing takes {address}; is a queue bound, and not full? --to-queue replays past it",
                count(*messages, "dead letter")
            ));
        }
        if self.stranded.len() > TOLD {
            note(format_args!("and so for {} more addresses", self.stranded.len() - TOLD));
        }
        match (self.stranded.is_empty(), self.interrupted) {
            (false, _) => 69,
            (true, true) => 130,
            (true, false) => 0,
        }
    }
}
