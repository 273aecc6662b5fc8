//! Owns `ticketlog erase`: its flags, its question and what it prints. Must not know how documents or dead letters are deleted.

use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::dead_letter::{BodyCondition, Filter};
use crate::desk::{self, Purge, Selection, Source, UserLetters};
use crate::mongodb::Store;
use crate::observe::logging;
use crate::report::Report;

use super::CommandError;
use super::dead::{AuditArgs, BrowseArgs};
use super::terminal::{confirm, note, print_line};
use super::terminal_report::TerminalReport;

/// Flags of `ticketlog erase`.
#[derive(Debug, Args)]
#[command(
    after_help = "Counts first: the documents of the user, and the dead and parked letters whose bodies have that user_id. Then it asks, and
deletes the letters and the documents, without a backup. It needs a login at MongoDB that may find and remove (the role
ticketlogEraser), and the login of operators at RabbitMQ.

Not erased: events that wait in the queue of the workers (run it again later), dead letters whose bodies are not JSON (it says
how many there are), and files of `dead export` and of backups.

Examples:
  ticketlog erase --user 42 --dry-run
  ticketlog erase --user 42 --audit-file /var/log/ticketlog/erasures.ndjson"
)]
pub(super) struct EraseArgs {
    /// The user_id, as a number or as text.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
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

/// Counts, of what is found or of what was erased.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    documents: u64,
    dead: UserLetters,
    parked: UserLetters,
}

impl Counts {
    fn add(&mut self, more: Counts) {
        self.documents += more.documents;
        self.dead.found += more.dead.found;
        self.parked.found += more.parked.found;
    }

    fn to_json(self) -> Value {
        json!({ "documents": self.documents, "dead_letters": self.dead.found, "parked": self.parked.found })
    }

    fn to_text(self) -> String {
        let (documents, dead, parked) = (self.documents, self.dead.found, self.parked.found);
        format!("{documents} documents, {} and {parked} parked", desk::dead_letters(dead))
    }
}

/// What one route has stored.
struct Target<'a> {
    settings: &'a Settings,
    store: Store,
}

impl EraseArgs {
    pub fn run(&self, routes: &[Settings]) -> Result<u8, CommandError> {
        super::block_on(async {
            let condition = BodyCondition::parse(&format!("user_id={}", self.user)).map_err(CommandError::usage)?;
            let mut targets = Vec::new();
            for settings in routes {
                targets.push(Target { settings, store: Store::open(&settings.store, 1, None).await? });
            }
            self.note_collections(routes);
            let mut found = Counts::default();
            for target in &targets {
                self.count(target, &condition, &mut found).await?;
            }
            let unreadable = found.dead.unreadable + found.parked.unreadable;
            if unreadable > 0 {
                let letters = desk::dead_letters(unreadable);
                note(format_args!(
                    "{letters} cannot be searched: their bodies are not JSON. `ticketlog dead list` shows them"
                ));
            }
            if self.dry_run {
                self.print("found", found)?;
                return Ok(0);
            }
            if !self.yes {
                let question = format!("erase {} for ever; type the user_id to confirm:", found.to_text());
                if !confirm(&question, &[&self.user], "--yes")? {
                    return Err(CommandError::usage("the user_id does not match; nothing was erased"));
                }
            }
            // The audit lines count here; an invalid log filter is reported by `run`.
            let _logging = routes.first().and_then(|settings| logging::install(&settings.log).ok());
            let mut erased = Counts::default();
            for target in &targets {
                self.erase(target, &condition, &mut erased).await?;
            }
            self.print("erased", erased)?;
            Ok(0)
        })
    }

    /// Says where it looks, and what --route leaves out.
    fn note_collections(&self, routes: &[Settings]) {
        let Some(first) = routes.first().filter(|settings| settings.has_several_routes()) else { return };
        let collections: Vec<_> = routes.iter().map(|settings| settings.store.collection.as_str()).collect();
        note(format_args!("collections: {}", collections.join(", ")));
        if routes.len() <= first.route.len() {
            note(
                "--route (or TICKETLOG_ONLY_ROUTE) leaves the collections of other routes out: what they hold of the user stays",
            );
        }
    }

    fn sources(&self, settings: &Settings) -> [Source; 2] {
        [&settings.dead_letter.queue, &settings.dead_letter.parked_queue]
            .map(|queue| Source { queue: queue.clone(), browse: self.browse.options() })
    }

    async fn count(
        &self,
        target: &Target<'_>,
        condition: &BodyCondition,
        found: &mut Counts,
    ) -> Result<(), CommandError> {
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "read");
        found.documents += target.store.count_of_user(&self.user).await?;
        let [dead, parked] = self.sources(target.settings);
        for (source, letters) in [(dead, &mut found.dead), (parked, &mut found.parked)] {
            let more = desk::find_user_letters(target.settings, &source, condition, &report).await?;
            letters.found += more.found;
            letters.unreadable += more.unreadable;
        }
        Ok(())
    }

    /// Erases what one route has, and adds it to `erased`.
    async fn erase(
        &self,
        target: &Target<'_>,
        condition: &BodyCondition,
        erased: &mut Counts,
    ) -> Result<(), CommandError> {
        // Who was erased stands neither in the log nor in the file.
        let collection = &target.settings.store.collection;
        let subject = json!({ "action": "erase", "collection": collection, "filter": { "where": ["user_id"] } });
        let audit = self.audit.begin_logged(subject)?;
        let mut here = Counts::default();
        let ended = self.erase_all(target, condition, &mut here).await;
        audit.end(here.to_json(), ended.is_err());
        erased.add(here);
        if ended.is_err() {
            note(format_args!("{} erased before the failure; run it again", erased.to_text()));
        }
        ended
    }

    /// The letters first: a replay between the two would store their events again.
    async fn erase_all(
        &self,
        target: &Target<'_>,
        condition: &BodyCondition,
        erased: &mut Counts,
    ) -> Result<(), CommandError> {
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "erased");
        let filter = Filter { conditions: vec![condition.clone()], ..Filter::default() };
        let [dead, parked] = self.sources(target.settings);
        for (source, letters) in [(dead, &mut erased.dead), (parked, &mut erased.parked)] {
            let purge = Purge { source, selection: Selection { filter: filter.clone(), limit: None }, backup: None };
            let (count, ended) = purge.run(target.settings, &report).await;
            letters.found = count;
            ended?;
        }
        erased.documents = target.store.delete_of_user(&self.user).await?;
        Ok(())
    }

    fn print(&self, what: &str, counts: Counts) -> Result<(), CommandError> {
        if self.json { print_line(counts.to_json()) } else { print_line(format_args!("{what}: {}", counts.to_text())) }
    }
}
