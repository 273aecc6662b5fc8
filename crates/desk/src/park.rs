//! Parking: moving dead letters between the dead-letter queue and the parked queue.

use serde_json::{Value, json};

use ticketlog_config::RouteSettings;
use ticketlog_rabbitmq::Rate;

use super::transfer::{Sent, Transfer};
use super::{DeskError, Operation, Outcome, Progress, Run, Selection, Touched};
use ticketlog_config::format::dead_letters;

/// What to move, and where.
#[derive(Debug, Clone)]
pub struct Park {
    /// Which dead letters.
    pub selection: Selection,
    /// The queue that they go to.
    to: String,
    /// Whether they go back to the dead-letter queue, and their replay count starts at 0 again.
    pub is_back: bool,
    /// Most messages a second.
    pub rate: Option<Rate>,
}

impl Park {
    /// Into the parked queue; or from the parked queue back into the dead-letter queue, with a replay count of 0.
    ///
    /// # Errors
    /// They are there already.
    pub fn new(settings: &RouteSettings, selection: Selection, is_back: bool) -> Result<Park, DeskError> {
        let to = if is_back { &settings.dead_letter_queue } else { &settings.parked_queue }.clone();
        if selection.source.queue == to {
            return Err(DeskError::Usage(format!("these dead letters are in {to} already")));
        }
        Ok(Park { selection, to, is_back, rate: None })
    }
}

impl Operation for Park {
    const COUNTED: &'static str = "moved";
    const UNDELIVERABLE: &'static str = "stayed";

    fn subject(&self) -> Value {
        self.selection.subject(if self.is_back { "unpark" } else { "park" })
    }

    async fn perform(&self, run: Run<'_>, progress: &mut Progress) -> Result<(), DeskError> {
        let mut transfer = Transfer::open(run, &self.selection, self.rate, progress).await?;
        let exchange = &run.settings.dead_letter.exchange;
        let touched = if self.is_back { Touched::Unparked } else { Touched::Parked };
        let sent = async {
            while let Some((dead_letter, ack)) = transfer.next().await? {
                let message = dead_letter.delivery.copy_to(&dead_letter.record, exchange, &self.to, self.is_back);
                transfer.send(message, ack, Sent::new(dead_letter.id, touched)).await?;
            }
            Ok(())
        }
        .await;
        transfer.finish(sent).await
    }

    fn to_json(&self, outcome: &Outcome) -> Value {
        let stayed = outcome.undeliverable.values().sum::<u64>();
        json!({ "moved": outcome.count, "stayed": stayed, "to": self.to })
    }

    fn to_text(&self, outcome: &Outcome) -> String {
        format!("{} moved from {} to {}", dead_letters(outcome.count), self.selection.source.queue, self.to)
    }
}
