//! Owns parking: moving dead letters between the dead-letter queue and the parked queue. Must not know how they are moved.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::RouteSettings;
use crate::rabbitmq::Rate;
use crate::report::Report;

use super::reader::{LetterReader, SelectedLetter};
use super::transfer::{Transfer, TransferReport};
use super::{DeskError, Selection, Source};

/// What to move, and where.
#[derive(Debug, Clone)]
pub struct Park {
    /// The queue that they leave.
    pub source: Source,
    /// Which of them.
    pub selection: Selection,
    /// The queue that they go to.
    pub to: String,
    /// Whether their replay count starts at 0 again.
    pub reset_replays: bool,
    /// Most messages a second.
    pub rate: Option<Rate>,
}

/// What was moved.
pub type ParkReport = TransferReport<()>;

impl Park {
    /// From `source` into the parked queue; or from the parked queue back into the dead-letter queue, with a replay count of 0.
    ///
    /// # Errors
    /// They are there already.
    pub fn new(settings: &RouteSettings, source: Source, selection: Selection, back: bool) -> Result<Park, DeskError> {
        let to = if back { &settings.dead_letter_queue } else { &settings.parked_queue }.clone();
        if source.queue == to {
            return Err(DeskError::Usage(format!("these dead letters are in {to} already")));
        }
        Ok(Park { source, selection, to, reset_replays: back, rate: None })
    }

    /// Moves those that are in the queue when this begins. Returns what was moved, and how it ended.
    ///
    /// # Errors
    /// The queue cannot be opened; nothing was moved.
    pub async fn run(
        &self,
        settings: &RouteSettings,
        report: &Arc<dyn Report>,
    ) -> Result<(ParkReport, Result<(), DeskError>), DeskError> {
        let reader = LetterReader::open_to_remove(settings, &self.source, &self.selection, report).await?;
        let mut transfer = Transfer::new(settings, reader, self.rate, report).await?;
        let exchange = &settings.dead_letter.exchange;
        let sent = async {
            while let Some(SelectedLetter { delivery, record, handle, .. }) = transfer.next().await? {
                transfer.send(delivery.copy_to(&record, exchange, &self.to, self.reset_replays), handle, ()).await?;
            }
            Ok(())
        }
        .await;
        Ok(transfer.finish(sent).await)
    }

    /// The outcome, for the audit.
    pub fn outcome(report: &ParkReport) -> Value {
        let stopped = report.interrupted.then_some(true);
        json!({ "moved": report.moved(&()), "stayed": report.undeliverable(), "stopped": stopped })
    }
}
