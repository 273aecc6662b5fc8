//! `ticketlog find`: its flags, and how it prints the story of an event.

mod stored;

use std::path::PathBuf;
use std::sync::Arc;

use bson::oid::ObjectId;
use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use clap::{ArgGroup, Args};

use ticketlog_config::RouteSettings;
use ticketlog_config::{format, system};
use ticketlog_contract::Wanted;
use ticketlog_desk::{Find, GapKind, Search, Story};
use ticketlog_rabbitmq::report::Report;

use super::dead::BrowseArgs;
use super::source::read_messages;
use super::terminal::{after_printing, note, print_line, wrapped};
use super::terminal_report::TerminalReport;
use super::{CommandError, exit};
pub(super) use stored::find_documents;

/// The environment variable for the audit file of those who change something; this command reads it.
const AUDIT_FILE: &str = "TICKETLOG_AUDIT_FILE";

/// Flags of `ticketlog find`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("known").required(true).multiple(true),
    after_help = "Looks in the dead-letter and the parked queue of every route, in MongoDB, and in audit files, and tells in order of time what
became of the event: stored, dead-lettered, edited and replayed by whom, parked, deleted. It says how many messages wait for the workers,
which nobody can search. All that is given must hold; documents do not have the message_id. With --with-body, the document with its _id
is found whatever else is given.

MongoDB is asked only through the indexes of the readers' queries, unless --scan permits more. Reading a queue costs a delivery of each of
its messages, and others wait meanwhile; --no-dead-letters leaves the queues out. Nothing is changed. It needs a login at MongoDB that may
find (operator.store_uri, with the role ticketlogReader or ticketlogEraser), and the login of operators at RabbitMQ (operator.broker_uri).

Exit codes:
  0   found
  1   not found
  64  no index serves the query: pass --scan
  69  a server does not answer, and it was not found where it could be searched
  77  likewise, because a login may not

Examples:
  ticketlog find --uuid 6fe2b0de-4f7c-4a10-a64b-3bd5cbf6ef0a
  ticketlog find --user 42 --since 2h
  ticketlog find --message-id m-17 --with-body event.json
  ticketlog find --id 6553f100457456dcb02e5a3f --audit /var/log/ticketlog/audit.ndjson"
)]
pub(super) struct FindArgs {
    /// By the `uuid` in the body; a UUID in lower and in upper case.
    #[arg(long, value_name = "UUID", group = "known", value_parser = NonEmptyStringValueParser::new())]
    uuid: Option<String>,
    /// By the AMQP message_id: dead letters; with --with-body also the document.
    #[arg(long, value_name = "ID", group = "known", value_parser = NonEmptyStringValueParser::new())]
    message_id: Option<String>,
    /// By the `_id` of a document, or the `dl-id` of a dead letter.
    #[arg(long, value_name = "OBJECTID", group = "known", conflicts_with = "with_body")]
    id: Option<ObjectId>,
    /// By the user_id: a text; and also a number, if it is written in plain digits.
    #[arg(long, value_name = "ID", group = "known", allow_negative_numbers = true, value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// The body as it was published, not compressed (`-`: standard input): computes the `_id` that a worker gives it, and says whether
    /// exactly this event is stored.
    #[arg(long, value_name = "FILE", group = "known")]
    with_body: Option<PathBuf>,
    /// Only with a `timestamp`, or dead-lettered, since a time: `2026-11-22T03:00+01:00`, `03:00` of today (UTC), or a duration ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    since: Option<i64>,
    /// At most this many documents of a route, and dead letters of a queue.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    /// Read all documents if no index serves the query: for at most ten minutes.
    #[arg(long)]
    scan: bool,
    /// Do not read the queues of dead letters.
    #[arg(long)]
    no_dead_letters: bool,
    /// Audit files (--audit-file of other commands, or history.ndjson of the console), for who did what [default: the file of
    /// TICKETLOG_AUDIT_FILE, if it exists].
    #[arg(long, value_name = "FILE", num_args = 1..)]
    audit: Vec<PathBuf>,
    /// Print the document and the bodies, without what the settings hide.
    #[arg(long)]
    body: bool,
    /// Print the story as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Queue")]
    browse: BrowseArgs,
}

fn parse_past(text: &str) -> Result<i64, String> {
    format::parse_past(text, system::now_millis())
}

impl FindArgs {
    pub fn run(&self, routes: &[RouteSettings]) -> Result<u8, CommandError> {
        super::block_on(async {
            let search = self.search()?;
            let audit_files = self.audit_files();
            let browse = (!self.no_dead_letters).then(|| self.browse.options());
            let report: Arc<dyn Report> = TerminalReport::of_unknown_total("read").stopped_by_interrupt();
            if browse.is_some() {
                note("reads the queues of dead letters, a delivery of each; --no-dead-letters leaves them out");
            }
            let find = Find {
                search: &search,
                documents: Ok(find_documents),
                scan: self.scan,
                browse,
                audit_files: &audit_files,
                with_bodies: self.body,
            };
            let story = find.run(routes, &report).await?;
            drop(report);
            after_printing(Ok(exit_code(&story)), self.print(&story))
        })
    }

    fn search(&self) -> Result<Search, CommandError> {
        let mut body = None;
        if let Some(path) = &self.with_body {
            read_messages(std::slice::from_ref(path), true, |message| {
                body = Some(message.body);
                Ok(())
            })?;
        }
        Ok(Search {
            uuid: self.uuid.as_deref().map(Search::uuids).unwrap_or_default(),
            message_id: self.message_id.clone(),
            id: self.id,
            user: self.user.as_deref().map(Wanted::id),
            since: self.since,
            body,
            publisher: None,
            limit: self.limit,
        })
    }

    fn audit_files(&self) -> Vec<PathBuf> {
        if !self.audit.is_empty() {
            return self.audit.clone();
        }
        let usual = std::env::var_os(AUDIT_FILE).map(PathBuf::from);
        usual.into_iter().filter(|path| path.exists()).collect()
    }

    fn print(&self, story: &Story) -> Result<(), CommandError> {
        if self.json {
            return print_line(story.to_json());
        }
        story.to_lines().iter().try_for_each(|line| print_line(wrapped(line, 4)))
    }
}

/// Where it was found, whatever else could not be searched; or why that is not known.
fn exit_code(story: &Story) -> u8 {
    match story.failure() {
        _ if story.is_found() => 0,
        None | Some(GapKind::LeftOut) => exit::NOT_FOUND,
        Some(GapKind::NoIndex) => exit::USAGE,
        Some(GapKind::NoPermission) => exit::NO_PERMISSION,
        Some(GapKind::Unavailable) => exit::UNAVAILABLE,
    }
}
