//! Finding one event: what is stored of it, its dead letters, and who did what with them. Changes nothing.
//!
//! | module | owns |
//! |---|---|
//! | `search` | what is known of the event, and which dead letters it may be |
//! | `trail` | what audit files say of it |
//! | `entry` | what happened to it, and when |
//! | `story` | the answer |

mod entry;
mod search;
mod story;
mod trail;

use std::path::PathBuf;
use std::sync::Arc;

use bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use futures_util::future::BoxFuture;

use ticketlog_config::RouteSettings;
use ticketlog_config::format::counted;
use ticketlog_contract::same_event;
use ticketlog_rabbitmq::report::Report;
use ticketlog_rabbitmq::{BrokerError, BrowseError, BrowseOptions, QueueDepths, RefusalKind, messages_by_management};

use super::{DeadLetter, DeadLetterReader, DeskError, Run, Source};
use entry::{FoundDeadLetter, Stored, What};
use search::{Match, Matcher};
use trail::Known;

pub use entry::Entry;
pub use search::{Expected, Search};
pub use story::{Exactly, Gap, GapKind, Story};

/// Most dead letters that are named because the decoder cannot read them.
const MAX_NAMED: usize = 5;

/// The documents of a route that a search selects.
#[derive(Debug, Default)]
pub struct Documents {
    pub found: Vec<RawDocumentBuf>,
    /// Whether there are more than the limit.
    pub has_more: bool,
    /// Why not all was searched, if so.
    pub gap: Option<Gap>,
}

/// Asks MongoDB, which this crate does not know; without an index only if the flag permits a scan. Returns why it was not searched, if it
/// was not.
pub type FindDocuments = fn(RouteSettings, Search, bool) -> BoxFuture<'static, Result<Documents, Gap>>;

/// Where to look for an event.
pub struct Find<'a> {
    pub search: &'a Search,
    /// Or why documents are left out.
    pub documents: Result<FindDocuments, String>,
    /// Whether all documents may be read if no index serves the search.
    pub scan: bool,
    /// How queues are browsed; `None` if dead letters are left out.
    pub browse: Option<BrowseOptions>,
    pub audit_files: &'a [PathBuf],
    /// Whether the bodies are part of the answer.
    pub with_bodies: bool,
}

impl Find<'_> {
    /// Looks for it in the logs of all these routes. Messages move from the workers' queue to the dead letters, and by a replay to
    /// MongoDB: so the places are searched in this order. One that somebody parks or unparks meanwhile may slip through.
    ///
    /// # Errors
    /// An audit file cannot be read, or the operator stops it. A server that does not answer is a gap of the story.
    pub async fn run(&self, routes: &[RouteSettings], report: &Arc<dyn Report>) -> Result<Story, DeskError> {
        let mut story = Story::default();
        let mut known = self.known();
        let is_reachable = self.count_waiting(routes, &mut story).await;
        story.searched[1] = is_reachable && self.browse.is_some();
        for settings in routes.iter().filter(|_| is_reachable) {
            self.find_dead_letters(Run { settings, report }, &mut story, &mut known).await?;
        }
        story.searched[1] &= story.undecided == 0;
        self.find_documents(routes, &mut story, &mut known).await;
        let files = self.audit_files.to_vec();
        let trail = tokio::task::spawn_blocking(move || trail::read(&files, &mut known)).await;
        let trail = trail.map_err(std::io::Error::other)??;
        let touches = trail.touches.into_iter();
        story.entries.extend(touches.map(|touch| Entry { time: touch.time, what: What::Touched(touch) }));
        if trail.erasures > 0 {
            story.notes.push(format!(
                "{} in the audit files deleted {}: they do not say whose, and it may have been among them",
                counted(trail.erasures, "erasure"),
                counted(trail.erased, "event")
            ));
        }
        story.entries = entry::in_order(std::mem::take(&mut story.entries));
        Ok(story)
    }

    fn known(&self) -> Known {
        let ids = self.search.id.map(|id| id.to_hex());
        Known { dead_letters: ids.iter().cloned().collect(), documents: ids.into_iter().collect() }
    }

    /// Counts what waits for the workers. Whether RabbitMQ answers; if not, that is said once.
    async fn count_waiting(&self, routes: &[RouteSettings], story: &mut Story) -> bool {
        let Some(first) = routes.first() else { return false };
        if self.browse.is_none() {
            let why = "left out by --no-dead-letters".to_owned();
            story.gaps.push(Gap { place: "dead letters".to_owned(), why, kind: GapKind::LeftOut });
        }
        let queues: Vec<Vec<String>> = routes.iter().map(RouteSettings::queues).collect();
        match QueueDepths::default().read_each(&first.broker, &queues).await {
            Ok(counts) => {
                // From RabbitMQ 4.2.6 on, operators may not look up the queues of the workers; and nobody sees there what workers hold.
                let counts = counts.into_iter().map(|counts| counts.map(|counts| u64::from(counts.ready)));
                let ready: Option<u64> = counts.sum();
                let named = self.browse.as_ref().and_then(|browse| browse.management.as_ref());
                let with_held = messages_by_management(&first.broker, queues.iter().flatten(), named).await;
                story.waiting = with_held.max(ready);
                story.are_held_counted = with_held.is_some();
                self.browse.is_some()
            }
            Err(error) => {
                story.gaps.push(gap("RabbitMQ", &error.into()));
                false
            }
        }
    }

    async fn find_dead_letters(&self, run: Run<'_>, story: &mut Story, known: &mut Known) -> Result<(), DeskError> {
        let Some(browse) = &self.browse else { return Ok(()) };
        let settings = run.settings;
        for (queue, is_parked) in [(&settings.dead_letter_queue, false), (&settings.parked_queue, true)] {
            let source = Source { queue: queue.clone(), browse: browse.clone() };
            match self.read_queue(run, source, is_parked, story, known).await {
                Ok(()) => {}
                Err(DeskError::Stopped) => return Err(DeskError::Stopped),
                Err(error) => {
                    story.searched[1] = false;
                    story.gaps.push(gap(&format!("queue {queue}"), &error));
                }
            }
        }
        Ok(())
    }

    async fn read_queue(
        &self,
        run: Run<'_>,
        source: Source,
        is_parked: bool,
        story: &mut Story,
        known: &mut Known,
    ) -> Result<(), DeskError> {
        let queue = source.queue.clone();
        let (rules, mut matcher) = (run.settings.rules(), Matcher::new(self.search, run.settings));
        let reader = DeadLetterReader::open(run, &source.into()).await?;
        let mut found = 0_usize;
        let add = |dead_letter: DeadLetter| {
            let is_by_text = match matcher.compare(&dead_letter) {
                Match::No => return,
                Match::Undecided(reason) => {
                    story.undecided += 1;
                    if story.named.len() < MAX_NAMED {
                        story.named.push([queue.clone(), dead_letter.id, reason]);
                    }
                    return;
                }
                Match::ByText => true,
                Match::Yes => false,
            };
            found += 1;
            if found <= self.search.limit {
                let one = FoundDeadLetter::new(&rules, &queue, is_parked, &dead_letter, self.with_bodies);
                let ids = [Some(&one.id), one.first_id.as_ref()].into_iter().flatten();
                known.dead_letters.extend(ids.filter(|id| !id.is_empty()).cloned());
                let what = What::DeadLettered(Box::new(FoundDeadLetter { is_by_text, ..one }));
                story.entries.push(Entry { time: dead_letter.record.time, what });
            }
        };
        let read = reader.read_all(add).await;
        if found > self.search.limit {
            story.notes.push(format!("{} of {found} in {queue} are shown (--limit)", self.search.limit));
        }
        read?;
        if run.report.is_stopped() { Err(DeskError::Stopped) } else { Ok(()) }
    }

    async fn find_documents(&self, routes: &[RouteSettings], story: &mut Story, known: &mut Known) {
        story.searched[0] = !routes.is_empty();
        for settings in routes {
            let expected = self.search.expected(settings);
            if let Some(Expected::Document { id, .. }) = &expected {
                known.documents.insert(id.to_hex());
            }
            let gap = match self.documents_of(settings, expected.as_ref()).await {
                Ok(mut documents) => {
                    let gap = documents.gap.take();
                    self.add_documents(settings, expected.as_ref(), documents, story, known);
                    gap
                }
                Err(gap) => {
                    story.exactly.extend(expected.and_then(|expected| exactly(settings, &expected, None)));
                    Some(gap)
                }
            };
            if let Some(gap) = gap {
                story.searched[0] = false;
                let is_down = gap.kind == GapKind::Unavailable;
                story.gaps.push(gap);
                // The other collections are on the same servers.
                if is_down {
                    break;
                }
            }
        }
    }

    /// The document that has the `_id` of the body, whatever else is known; and those that have all that is known.
    async fn documents_of(&self, settings: &RouteSettings, expected: Option<&Expected>) -> Result<Documents, Gap> {
        let left_out = |why: &str| Gap {
            place: format!("collection {}", settings.collection),
            why: why.to_owned(),
            kind: GapKind::LeftOut,
        };
        let find = self.documents.as_ref().map_err(|why| left_out(why))?;
        let search = self.search.of_documents(expected);
        let mut all = Documents::default();
        if let Some(Expected::Document { id, .. }) = expected {
            let by_id = Search { id: Some(*id), limit: 1, ..Search::default() };
            all = find(settings.clone(), by_id, self.scan).await?;
        } else if !search.selects_documents() {
            return Err(left_out("documents do not have the message_id; add --uuid, or the body with --with-body"));
        }
        if search.selects_documents() {
            match find(settings.clone(), search, self.scan).await {
                Ok(more) => {
                    let is_new =
                        |document: &RawDocumentBuf| all.found.iter().all(|found| id_of(found) != id_of(document));
                    let new: Vec<_> = more.found.into_iter().filter(is_new).collect();
                    all = Documents { found: [all.found, new].concat(), ..more };
                }
                Err(gap) => all.gap = Some(gap),
            }
        }
        Ok(all)
    }

    fn add_documents(
        &self,
        settings: &RouteSettings,
        expected: Option<&Expected>,
        documents: Documents,
        story: &mut Story,
        known: &mut Known,
    ) {
        story.exactly.extend(expected.and_then(|expected| exactly(settings, expected, Some(&documents.found))));
        for document in &documents.found {
            let is_rounded = self.search.is_rounded(document);
            let stored = Stored { is_rounded, ..Stored::new(settings, document, self.with_bodies) };
            known.documents.insert(stored.id.clone());
            story.entries.push(Entry { time: stored.ingested_at.or(stored.event_time), what: What::Stored(stored) });
        }
        if documents.has_more {
            let (limit, collection) = (self.search.limit, &settings.collection);
            story.notes.push(format!("{collection} has more than these {limit} documents (--limit, --since)"));
        }
    }
}

fn id_of(document: &RawDocument) -> Option<RawBsonRef<'_>> {
    document.get("_id").ok().flatten()
}

/// Whether exactly the message that was given is stored; `None` if no more is known of it than that it was looked for.
fn exactly(settings: &RouteSettings, expected: &Expected, found: Option<&[RawDocumentBuf]>) -> Option<Exactly> {
    let collection = settings.collection.clone();
    let (id, is_stored, text) = match expected {
        Expected::NoIdentity => {
            let text = "it has neither message_id nor uuid: its _id is a fresh one each time, and cannot be computed";
            (None, None, text.to_owned())
        }
        Expected::Rejected(why) => (None, None, format!("a worker does not store it in {collection}: {why}")),
        Expected::Document { id, document, doubt } => {
            let stored = found
                .map(|found| found.iter().find(|stored| stored.get_object_id("_id").is_ok_and(|stored| stored == *id)));
            let is_same = stored.map(|stored| stored.map(|stored| same_event(stored.as_bytes(), document.as_bytes())));
            let what = match is_same {
                None => "and whether it is stored is not known".to_owned(),
                Some(None) => {
                    format!("which is not stored{}", doubt.iter().map(|why| format!("; {why}")).collect::<String>())
                }
                Some(Some(true)) => "and exactly this event is stored".to_owned(),
                Some(Some(false)) => "under which another event is stored".to_owned(),
            };
            let text = format!("a worker gives it the _id {id} in {collection}, {what}");
            let is_stored = match is_same {
                Some(None) if doubt.is_some() => None,
                same => same.map(|same| same == Some(true)),
            };
            (Some(id.to_hex()), is_stored, text)
        }
    };
    Some(Exactly { collection, id, is_stored, text })
}

/// Why RabbitMQ, or one of its queues, was not searched.
fn gap(place: &str, error: &DeskError) -> Gap {
    let is_refused = match error {
        DeskError::Browse(BrowseError::NoPermission { .. }) => true,
        DeskError::Browse(BrowseError::Broker(error)) => match error {
            BrokerError::Authentication(_) | BrokerError::VirtualHost(_) => true,
            BrokerError::Refused(refusal) => refusal.kind == RefusalKind::AccessRefused,
            _ => false,
        },
        _ => false,
    };
    let kind = if is_refused { GapKind::NoPermission } else { GapKind::Unavailable };
    Gap { place: place.to_owned(), why: error.to_string(), kind }
}
