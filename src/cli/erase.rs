//! Owns `ticketlog erase`: its flags, its question and what it prints. Must not know how documents or dead letters are deleted.

use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use crate::config::Settings;
use crate::dead_letter::{BodyCondition, Filter};
use crate::desk::{self, Purge, Selection, Source, UserLetters};
use crate::mongodb::Store;
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
    fn to_json(self) -> Value {
        json!({ "documents": self.documents, "dead_letters": self.dead.found, "parked": self.parked.found })
    }

    fn to_text(self) -> String {
        let (documents, dead, parked) = (self.documents, self.dead.found, self.parked.found);
        format!("{documents} documents, {} and {parked} parked", desk::dead_letters(dead))
    }
}

impl EraseArgs {
    pub fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        super::block_on(async {
            let condition = BodyCondition::parse(&format!("user_id={}", self.user)).map_err(CommandError::usage)?;
            let store = Store::open(&settings.store, 1, None).await?;
            let found = self.count(settings, &store, &condition).await?;
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
            let erased = self.erase(settings, &store, &condition).await?;
            self.print("erased", erased)?;
            Ok(0)
        })
    }

    fn sources(&self, settings: &Settings) -> [Source; 2] {
        [&settings.dead_letter.queue, &settings.dead_letter.parked_queue]
            .map(|queue| Source { queue: queue.clone(), browse: self.browse.options() })
    }

    async fn count(
        &self,
        settings: &Settings,
        store: &Store,
        condition: &BodyCondition,
    ) -> Result<Counts, CommandError> {
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "read");
        let [dead, parked] = self.sources(settings);
        Ok(Counts {
            documents: store.count_of_user(&self.user).await?,
            dead: desk::find_user_letters(settings, &dead, condition, &report).await?,
            parked: desk::find_user_letters(settings, &parked, condition, &report).await?,
        })
    }

    /// The letters first: a replay between the two would store their events again.
    async fn erase(
        &self,
        settings: &Settings,
        store: &Store,
        condition: &BodyCondition,
    ) -> Result<Counts, CommandError> {
        // Who was erased stands neither in the log nor in the file.
        let subject =
            json!({ "action": "erase", "collection": settings.store.collection, "filter": { "where": ["user_id"] } });
        let (audit, _logging) = self.audit.begin(settings, subject)?;
        let mut erased = Counts::default();
        let ended = self.erase_all(settings, store, condition, &mut erased).await;
        audit.end(erased.to_json(), ended.is_err());
        if ended.is_err() {
            note(format_args!("{} erased before the failure; run it again", erased.to_text()));
        }
        ended.map(|()| erased)
    }

    async fn erase_all(
        &self,
        settings: &Settings,
        store: &Store,
        condition: &BodyCondition,
        erased: &mut Counts,
    ) -> Result<(), CommandError> {
        let report: Arc<dyn Report> = TerminalReport::new(Some(0), "erased");
        let filter = Filter { conditions: vec![condition.clone()], ..Filter::default() };
        let [dead, parked] = self.sources(settings);
        for (source, letters) in [(dead, &mut erased.dead), (parked, &mut erased.parked)] {
            let purge = Purge { source, selection: Selection { filter: filter.clone(), limit: None }, backup: None };
            let (count, ended) = purge.run(settings, &report).await;
            letters.found = count;
            ended?;
        }
        erased.documents = store.delete_of_user(&self.user).await?;
        Ok(())
    }

    fn print(&self, what: &str, counts: Counts) -> Result<(), CommandError> {
        if self.json { print_line(counts.to_json()) } else { print_line(format_args!("{what}: {}", counts.to_text())) }
    }
}
