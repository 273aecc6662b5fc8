//! `ticketlog erase`: its flags, its question and what it prints.

mod counts;

use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use crate::mongodb::{self, Failure, Store};
use ticketlog_config::RouteSettings;
use ticketlog_contract::Wanted;
use ticketlog_desk::{Source, UserSearch};
use ticketlog_rabbitmq::QueueDepths;
use ticketlog_rabbitmq::report::Report;

use super::dead::{AuditArgs, BrowseArgs};
use super::terminal::{after_printing, confirm, note, print_line};
use super::terminal_report::TerminalReport;
use super::{CommandError, exit};
use counts::Counts;

/// What is said of an erasure that has ended.
const OUT_OF_REACH: &str = "out of reach: MongoDB's oplog, until it has rolled over (`ticketlog tail --since` can still show what was \
                            erased), backups of MongoDB, and files of `dead export` and `dead purge`";

/// Flags of `ticketlog erase`.
#[derive(Debug, Args)]
#[command(
    after_help = "Counts first: the documents of the user, and the dead letters, parked ones too, that a worker with these settings would store
under that user_id. Then it asks, deletes the dead letters and the documents, without a backup, reads again, and says what is left. It
needs a login at MongoDB that may find and remove (operator.store_uri, with the role ticketlogEraser), and the login of operators at
RabbitMQ (operator.broker_uri).

Numbers are compared exactly. What may be anybody's stays and is listed: dead letters that the decoder cannot read (see them with
`ticketlog dead show`), and numbers above 2^53 that the cast of a text or a double has rounded.

Not erased: events that wait in the queue of the workers (it says how many; run it again later), files of `dead export` and of
`dead purge`, backups of MongoDB, its oplog until that has rolled over (`ticketlog tail --since` can still show the events), and for
up to 15 minutes what a console holds in memory.

Exit code 75: new data of the user has arrived meanwhile; run it again.

Examples:
  ticketlog erase --user 42 --dry-run
  ticketlog erase --user 42 --audit-file /var/log/ticketlog/erasures.ndjson"
)]
pub(super) struct EraseArgs {
    /// The user_id: a text; and also a number, if it is written in plain digits.
    #[arg(long, value_name = "ID", allow_negative_numbers = true, value_parser = NonEmptyStringValueParser::new())]
    user: String,
    /// Only count.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for the user_id again.
    #[arg(long)]
    yes: bool,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    audit: AuditArgs,
    #[command(flatten, next_help_heading = "Queue")]
    browse: BrowseArgs,
}

/// What one route has stored.
struct Target<'a> {
    settings: &'a RouteSettings,
    store: Store,
}

fn of_store(settings: &RouteSettings, failure: Failure) -> CommandError {
    CommandError::of_store(&failure, settings.store.uri_setting)
}

impl EraseArgs {
    pub fn run(&self, routes: &[RouteSettings]) -> Result<u8, CommandError> {
        super::block_on(async {
            let user = Wanted::id(&self.user);
            let mut targets = Vec::new();
            for settings in routes {
                mongodb::check_settings(&settings.store)?;
                let store = Store::open(settings, 1, None).await.map_err(|failure| of_store(settings, failure))?;
                targets.push(Target { settings, store });
            }
            self.note_collections(routes);
            let found = self.count(&targets, &user).await?;
            found.note_undecided();
            if self.dry_run {
                self.print("found", &found, None)?;
                return Ok(0);
            }
            if !self.yes {
                let question = format!("erase {} for ever; type the user_id to confirm:", found.to_text());
                if !confirm(&question, &[&self.user], "--yes")? {
                    return Err(CommandError::usage("the user_id does not match; nothing was erased"));
                }
            }
            let _logging = routes.first().and_then(AuditArgs::log);
            self.erase_from(&targets, &user).await
        })
    }

    /// Says what it searches, and what --route leaves out.
    fn note_collections(&self, routes: &[RouteSettings]) {
        let Some(first) = routes.first().filter(|settings| settings.has_several_routes()) else { return };
        let collections: Vec<_> = routes.iter().map(|settings| settings.collection.as_str()).collect();
        note(format_args!("collections: {}", collections.join(", ")));
        if routes.len() <= first.other_routes.len() {
            note(
                "--route (or TICKETLOG_ONLY_ROUTE) leaves the collections of other routes out: what they hold of the user stays",
            );
        }
    }

    fn sources(&self, settings: &RouteSettings) -> [Source; 2] {
        [&settings.dead_letter_queue, &settings.parked_queue]
            .map(|queue| Source { queue: queue.clone(), browse: self.browse.options() })
    }

    /// What there is of the user.
    async fn count(&self, targets: &[Target<'_>], user: &Wanted) -> Result<Counts, CommandError> {
        let (mut found, report) = (Counts::default(), TerminalReport::of_unknown_total("read") as Arc<dyn Report>);
        for target in targets {
            let documents =
                target.store.count_of_user(user).await.map_err(|failure| of_store(target.settings, failure))?;
            found.documents += documents.found;
            found.undecided_documents += documents.undecided;
            let search = UserSearch::new(target.settings, user);
            let [dead, parked] = self.sources(target.settings);
            found.dead.add(search.find(&dead, &report).await?);
            found.parked.add(search.find(&parked, &report).await?);
            let waiting = QueueDepths::default().read(&target.settings.broker, &target.settings.queues()).await?;
            let waiting = waiting.map(|counts| u64::from(counts.ready));
            found.waiting = found.waiting.zip(waiting).map(|(all, waiting)| all + waiting);
        }
        Ok(found)
    }

    /// Erases until all is gone, it fails, or the operator stops it. What was erased is printed in each case.
    async fn erase_from(&self, targets: &[Target<'_>], user: &Wanted) -> Result<u8, CommandError> {
        let report: Arc<dyn Report> = TerminalReport::of_unknown_total("read").stopped_by_interrupt();
        let mut erased = Counts::default();
        let mut ended = Ok(());
        for target in targets {
            if ended.is_ok() && !report.is_stopped() {
                ended = self.erase(target, user, &report, &mut erased).await;
            }
        }
        if ended.is_err() || report.is_stopped() {
            let printed = self.print("erased", &erased, None);
            let why = if report.is_stopped() { "it was stopped" } else { "it failed" };
            note(format_args!("{why}, and what is left was not counted; run it again"));
            return after_printing(ended.map(|()| exit::INTERRUPTED), printed);
        }
        let left = match self.count(targets, user).await {
            Ok(left) => left,
            Err(error) => {
                let printed = self.print("erased", &erased, None);
                note("what is left could not be counted; run it again");
                return after_printing(Err(error), printed);
            }
        };
        let code = if left.is_empty() { 0 } else { exit::TEMPORARY };
        after_printing(Ok(code), self.print("erased", &erased, Some(&left)))
    }

    /// Erases what one route has, and adds it to `erased`.
    async fn erase(
        &self,
        target: &Target<'_>,
        user: &Wanted,
        report: &Arc<dyn Report>,
        erased: &mut Counts,
    ) -> Result<(), CommandError> {
        // Neither the log nor the audit file names the erased user.
        let collection = &target.settings.collection;
        let subject = json!({ "action": "erase", "collection": collection, "filter": { "where": ["user_id"] } });
        let audit = self.audit.begin(subject)?;
        let mut here = Counts::default();
        let ended = self.erase_all(target, user, report, &mut here).await;
        let mut outcome = here.erased_json();
        if let (true, Some(outcome)) = (report.is_stopped(), outcome.as_object_mut()) {
            outcome.insert("stopped".to_owned(), true.into());
        }
        audit.end(outcome, ended.is_err() && !report.is_stopped());
        erased.add(here);
        ended
    }

    /// The dead letters first: a replay between the two would store their events again.
    async fn erase_all(
        &self,
        target: &Target<'_>,
        user: &Wanted,
        report: &Arc<dyn Report>,
        erased: &mut Counts,
    ) -> Result<(), CommandError> {
        let search = UserSearch::new(target.settings, user);
        let [dead, parked] = self.sources(target.settings);
        for (source, dead_letters) in [(dead, &mut erased.dead), (parked, &mut erased.parked)] {
            search.delete(&source, report, dead_letters).await?;
        }
        while !report.is_stopped()
            && let Some(deleted) =
                target.store.delete_some_of_user(user).await.map_err(|failure| of_store(target.settings, failure))?
        {
            if deleted == 0 {
                let text = "MongoDB finds documents of the user and deletes none of them; see its log";
                return Err(CommandError::text(exit::SOFTWARE, text));
            }
            erased.documents += deleted;
        }
        Ok(())
    }

    fn print(&self, what: &str, counts: &Counts, left: Option<&Counts>) -> Result<(), CommandError> {
        if self.json {
            let mut json = counts.erased_json();
            match (json.as_object_mut(), left) {
                (Some(json), Some(left)) => drop(json.insert("left".to_owned(), left.to_json())),
                (Some(_), None) if what == "found" => json = counts.to_json(),
                _ => {}
            }
            return print_line(json);
        }
        print_line(format_args!("{what}: {}", counts.to_text()))?;
        left.map_or(Ok(()), |left| {
            note(OUT_OF_REACH);
            print_line(left.left_text())
        })
    }
}
