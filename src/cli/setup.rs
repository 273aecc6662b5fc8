//! Owns `ticketlog setup`. Must not know what it declares.

use crate::broker;
use crate::config::Settings;
use crate::store::{self, IndexReport, Store};

use super::Fault;
use super::terminal::say;

pub(super) fn run(settings: &Settings) -> Result<u8, Fault> {
    super::runtime()?.block_on(async {
        broker::setup(settings).await?;
        say("broker: exchanges, queues and bindings are there")?;
        let store = Store::open(&settings.store, 1).await?;
        store.probe().await?;
        for report in store::ensure_indexes(&store, settings.store.retention.0).await? {
            match report {
                IndexReport::Ready(name) => say(format_args!("store: index {name} is there"))?,
                IndexReport::Differs(name) => {
                    say(format_args!("store: index {name} differs from what is wanted and stays as it is"))?
                }
            }
        }
        Ok(0)
    })
}
