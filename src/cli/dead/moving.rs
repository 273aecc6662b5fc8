//! Owns `ticketlog dead park` and `unpark`: dead letters from one queue to the other, as they are.

use clap::Args;
use serde_json::json;

use crate::config::Settings;

use super::super::{Fault, publish};
use super::audit::Audit;
use super::carrying::Carrying;
use super::scan::{Found, Scan};
use super::{Audited, Selection, Target, TrustFlags, count, say};

/// Flags of `ticketlog dead park`.
#[derive(Debug, Args)]
pub(super) struct Park {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
}

/// Flags of `ticketlog dead unpark`.
#[derive(Debug, Args)]
pub(super) struct Unpark {
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    audited: Audited,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s", value_parser = publish::rate)]
    rate: Option<f64>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Park {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        self.common.carry(settings, &self.target, &settings.dead_letter.parked_queue, "park").await
    }
}

impl Unpark {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let target = Target { queue: None, parked: true, trust: self.trust.clone() };
        self.common.carry(settings, &target, &settings.dead_letter.queue, "unpark").await
    }
}

impl Common {
    async fn carry(&self, settings: &Settings, from: &Target, to: &str, action: &str) -> Result<u8, Fault> {
        if from.queue(settings) == to {
            return Err(Fault::usage(format!("they are in {to} already")));
        }
        let audit = Audit::begin(settings, &self.audited, action, from.queue(settings), &self.selection)?;
        let mut scan = Scan::open(settings, from, Some(&self.selection)).await?;
        scan.paced(self.rate);
        let mut carrying = Carrying::new(settings, scan, self.rate, "moved").await?;
        let exchange = &settings.dead_letter.exchange;
        let fresh = action == "unpark";
        let carried = async {
            while let Some(Found { delivery, record, ticket, .. }) = carrying.scan.next().await? {
                carrying.take(delivery.moved(&record, exchange, to, fresh), ticket, ()).await?;
            }
            Ok(())
        }
        .await;
        let (carried, ended) = carrying.finish(carried).await;
        let moved = carried.count(&());
        let stranded: u64 = carried.stranded.values().sum();
        audit.end(json!({ "moved": moved, "stayed": stranded }), ended.is_err());
        if self.json {
            say(json!({ "moved": moved, "stayed": stranded, "to": to }))?;
        } else {
            say(format_args!("{} moved from {} to {to}", count(moved, "dead letter"), from.queue(settings)))?;
        }
        ended?;
        Ok(carried.code())
    }
}
