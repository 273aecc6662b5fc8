//! Receipts on their way to publishers: a bounded queue, and the task that publishes from it. The flow waits for neither, and loses nothing if
//! they fail.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::observe::metrics::{self, ReceiptOutcome};
use ticketlog_contract::dead_letter::Receipt;
use ticketlog_rabbitmq::{BrokerError, ReceiptPublisher};

use super::context::WorkerContext;

/// Most receipts that wait; a further one is dropped.
const MAX_WAITING: usize = 256;
/// Most receipts that are published together.
const MAX_BATCH: usize = 16;
/// The pause after each batch: at most about 500 receipts a second, so that a flood of rejections costs the flow no more than that.
const PAUSE: Duration = Duration::from_millis(30);

/// Where receipts go.
pub struct Receipts(mpsc::Sender<Receipt>);

impl Receipts {
    /// Starts the task; `None` without `dead_letter.receipts`.
    pub fn start(context: &Arc<WorkerContext>) -> Option<Self> {
        if context.settings.dead_letter.receipts.is_empty() {
            return None;
        }
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(context.scope.clone().run(publish_all(Arc::clone(context), waiting)));
        Some(Receipts(sender))
    }

    /// Takes a receipt, and drops it if too many wait.
    pub fn send(&self, receipt: Receipt) {
        if self.0.try_send(receipt).is_err() {
            metrics::receipts(ReceiptOutcome::Dropped, 1);
        }
    }
}

/// Publishes what comes, and connects before, so that the exchange is there to be bound. A failure is logged when it begins and when it ends.
async fn publish_all(context: Arc<WorkerContext>, mut waiting: mpsc::Receiver<Receipt>) {
    let (mut backoff, mut publisher, mut is_failing) = (context.backoff(), None, false);
    let mut batch = Vec::new();
    loop {
        match publish(&context, &mut publisher, &batch).await {
            Ok(()) => {
                metrics::receipts(ReceiptOutcome::Sent, batch.len());
                backoff.reset();
                if std::mem::take(&mut is_failing) {
                    info!("receipts are published again");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                metrics::receipts(ReceiptOutcome::Dropped, batch.len());
                publisher = None;
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(cause = error.label(), "receipts are dropped, dead letters are not affected: {error}");
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
        batch.clear();
        if waiting.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
    }
}

/// Publishes a batch; connects for it if there is no connection.
async fn publish(
    context: &WorkerContext,
    publisher: &mut Option<ReceiptPublisher>,
    batch: &[Receipt],
) -> Result<(), BrokerError> {
    publisher.take_if(|publisher| !publisher.is_open());
    let publisher = match publisher {
        Some(publisher) => publisher,
        None => publisher.insert(ReceiptPublisher::open(&context.settings).await?),
    };
    publisher.publish(batch).await
}
