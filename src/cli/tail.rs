//! Owns `ticketlog tail`: prints what is being stored.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::mongodb::{self, Failure, Store};
use ticketlog_config::RouteSettings;
use ticketlog_config::system::now_millis;
use ticketlog_contract::dead_letter::BodyCondition;
use ticketlog_contract::{Decoder, Message, Printed, findings_of_clock};

use super::terminal::{note, print_line};
use super::{CommandError, exit};

/// Flags of `ticketlog tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one JSON document a line, as it was sent, until it is interrupted. `_id`, `ingested_at` and values of types that JSON
does not have, which only other programs store, are printed as extended JSON; a key such as `$oid` in an event is an ordinary key.
It needs a replica set, and a login that may find and follow changes: the role ticketlogReader has both.

Examples:
  ticketlog tail --where user_id=42
  ticketlog tail --since 10min --where status=failed | jq .
  ticketlog tail --where uuid=6fe2… --limit 1          waits for one event
  ticketlog tail --suspect                             what publishers probably did not mean"
)]
pub(super) struct TailArgs {
    /// Only documents with this value, such as `user_id=42` or `ticket_details.route=7`. Of several, all must hold.
    #[arg(long = "where", value_name = "PATH=VALUE", value_parser = BodyCondition::parse)]
    conditions: Vec<BodyCondition>,
    /// Only documents that are probably mistakes, as far as they show it: a time in seconds, a misspelt field. Notes say what is found.
    #[arg(long)]
    suspect: bool,
    /// Begin this long ago, such as `10min`, as far as MongoDB's log reaches back.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// End after this many documents.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl TailArgs {
    pub fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        super::block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::select! {
                printed = self.print(settings) => printed.map(|()| 0),
                _ = interrupt.recv() => Ok(0),
            }
        })
    }

    async fn print(&self, settings: &RouteSettings) -> Result<(), CommandError> {
        mongodb::check_settings(&settings.store)?;
        let store = Store::open(settings, 1, None).await?;
        let mut watch = store.watch(self.since).await.map_err(|failure| self.explained(failure))?;
        note(format_args!("following {}.{}", settings.store.database, settings.collection));
        let mut decoder = Decoder::new(Arc::new(settings.rules()));
        let mut printed = 0;
        while self.limit.is_none_or(|limit| printed < limit) {
            let Some(document) = watch.next().await.map_err(|failure| self.explained(failure))? else {
                return Err(CommandError::text(exit::UNAVAILABLE, "the collection was dropped or renamed"));
            };
            let Ok(document) = Document::try_from(document) else {
                note("a document was stored that is not valid BSON; it is left out");
                continue;
            };
            let findings = if self.suspect { findings(&mut decoder, &document) } else { Vec::new() };
            let document = Bson::Document(document);
            let is_wanted = !self.suspect || !findings.is_empty();
            if is_wanted && self.conditions.iter().all(|condition| condition.matches(&document)) {
                print_line(Printed(&document))?;
                findings.iter().for_each(note);
                printed += 1;
            }
        }
        Ok(())
    }

    /// What the codes of a change stream mean.
    fn explained(&self, failure: Failure) -> CommandError {
        let text = match failure.code {
            Some(40_573) => "MongoDB is not a replica set; `tail` needs one (change streams)",
            Some(286) => "MongoDB's log does not reach back that far; give a shorter --since",
            Some(13) => "the login may not follow changes; it needs the actions find and changeStream (deploy/mongodb)",
            _ => return failure.into(),
        };
        CommandError::text(if failure.code == Some(13) { exit::NO_PERMISSION } else { exit::UNAVAILABLE }, text)
    }
}

/// What is found in a document, as far as it shows it: the properties of its message are not stored.
fn findings(decoder: &mut Decoder, document: &Document) -> Vec<String> {
    let fields = document.iter().filter(|(name, _)| !matches!(name.as_str(), "_id" | "ingested_at"));
    let body = Bson::Document(fields.map(|(name, value)| (name.clone(), value.clone())).collect());
    let body = Printed(&body).to_string();
    let now = now_millis();
    let timestamp = u64::try_from(now / 1000).ok();
    let message = Message { body: body.as_bytes(), message_id: Some("stored"), timestamp, ..Message::default() };
    let Ok(event) = decoder.decode(&message, || [0; 12]) else { return Vec::new() };
    let found = event.findings.and(findings_of_clock(event.time, None, now as f64));
    found.iter().map(|kind| format!("{}: {}", kind.as_str(), decoder.explain(&event, kind))).collect()
}
