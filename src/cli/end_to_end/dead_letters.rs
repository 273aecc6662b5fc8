//! The dead letters of smoke tests: found by their mark, and deleted by their ids, with the desk's own operations.

use std::sync::Arc;

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::Filter;
use ticketlog_desk::{
    self as desk, Audit, DeadLetter, DeadLetterReader, DeskError, Operation as _, Purge, Run, Selection, Source,
};
use ticketlog_rabbitmq::report::Report;

use super::super::dead::AuditArgs;
use super::EndToEndArgs;
use super::event::{MarkedEvent, NAME, Shape};

/// Without --dead-letter, a queue that holds more is not read.
const MAX_READ: u32 = 1000;

/// Nobody reads what an operation reports on its way: the check says what it found.
struct Silent;

impl Report for Silent {
    fn note(&self, _: &str) {}
    fn set_total(&self, _: u64) {}
    fn set_done(&self, _: u64) {}
    fn is_stopped(&self) -> bool {
        false
    }
}

/// The dead-letter queue of a route.
pub(super) struct DeadLetters<'a> {
    settings: &'a RouteSettings,
    source: Source,
    audit: &'a AuditArgs,
    /// A queue that holds more is not read.
    max: u32,
    report: Arc<dyn Report>,
}

impl<'a> DeadLetters<'a> {
    pub fn new(settings: &'a RouteSettings, source: Source, args: &'a EndToEndArgs) -> Self {
        let max = if args.dead_letter { u32::MAX } else { MAX_READ };
        DeadLetters { settings, source, audit: &args.audit, max, report: Arc::new(Silent) }
    }

    /// Whether a dead letter could be deleted, as far as that is up to the audit file.
    pub fn check_audit(&self) -> Result<(), DeskError> {
        Audit::check(self.audit.audit_file.as_deref())
    }

    fn run(&self) -> Run<'_> {
        Run { settings: self.settings, report: &self.report }
    }

    /// The dead letters that are exactly what becomes of a marked event: of this one, or of any. Empty if the queue
    /// is too long to be read.
    pub async fn find(&self, of: Option<MarkedEvent>, shape: &Shape) -> Result<Vec<DeadLetter>, DeskError> {
        let message_ids = of.iter().map(|event| event.message_id()).collect();
        let filter = Filter { publishers: vec![NAME.to_owned()], message_ids, ..Filter::default() };
        let selection = Selection { source: self.source.clone(), filter, limit: None };
        let reader = DeadLetterReader::open(self.run(), &selection).await?;
        if reader.total() > self.max {
            return reader.close(Ok(Vec::new())).await;
        }
        let mut found = Vec::new();
        let add = |dead_letter| found.extend(is_of_smoke_test(&dead_letter, shape).then_some(dead_letter));
        reader.read_all(add).await?;
        Ok(found)
    }

    /// Deletes these from the queue, and no others: by id, `message_id` and publisher. Returns how many.
    pub async fn delete(&self, found: &[DeadLetter]) -> Result<u64, DeskError> {
        let filter = Filter {
            ids: found.iter().map(|dead_letter| dead_letter.id.clone()).collect(),
            message_ids: found.iter().filter_map(|it| it.delivery.message_id().map(str::to_owned)).collect(),
            publishers: vec![NAME.to_owned()],
            ..Filter::default()
        };
        let selection = Selection { source: self.source.clone(), filter, limit: None };
        let purge = Purge { selection, backup: None };
        let audit = Audit::begin(self.audit.audit_file.as_deref(), &desk::operator(), purge.subject())?;
        let done = desk::run(&purge, audit, self.run()).await;
        done.ended.map(|()| done.outcome.count)
    }
}

fn is_of_smoke_test(dead_letter: &DeadLetter, shape: &Shape) -> bool {
    let delivery = &dead_letter.delivery;
    let event = delivery.message_id().and_then(MarkedEvent::of_message_id);
    event.is_some_and(|event| delivery.body == event.malformed_body() || delivery.body == shape.body(event))
}
