//! Owns `ticketlog dead import`: puts archived dead letters back into a queue, all complete lines of a file or none. Must not
//! know how they are published.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::config::RouteSettings;
use crate::dead_letter::ArchivedMessage;
use crate::desk::dead_letters;
use crate::rabbitmq::{BatchPublisher, Outgoing, Publisher, Rate};

use super::super::source::{InputMessage, read_messages};
use super::super::terminal::{note, print_line};
use super::super::terminal_report::TerminalReport;
use super::super::{CommandError, exit};
use super::selection::{AuditArgs, parse_name};

/// Most invalid lines that are printed.
const MAX_PRINTED: usize = 20;
/// Most lines read ahead of publishing.
const READ_AHEAD: usize = 64;

/// Flags of `ticketlog dead import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A file that `dead export` or `dead purge` wrote.
    file: PathBuf,
    /// The queue to put them into [default: dead_letter.queue].
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    queue: Option<String>,
    #[command(flatten)]
    audit: AuditArgs,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl ImportArgs {
    pub async fn run(&self, settings: &RouteSettings) -> Result<u8, CommandError> {
        if self.file == Path::new("-") || !self.file.is_file() {
            let text = format!("{} is not a regular file; import reads the file twice", self.file.display());
            return Err(CommandError::text(exit::NO_INPUT, text));
        }
        let queue = self.queue.as_deref().unwrap_or(&settings.dead_letter_queue);
        let is_ours = [&settings.dead_letter_queue, &settings.parked_queue].iter().any(|own| *own == queue);
        let exchange = if is_ours { &settings.dead_letter.exchange } else { "" };
        let Checked { total, cut_off } = check_all_lines(&self.file, exchange, queue)?;
        let subject = json!({ "action": "import", "queue": queue, "file": self.file.display().to_string() });
        let (audit, _logging) = self.audit.begin(settings, subject)?;
        let publisher = Publisher::open_without_topology(&settings.broker, "dead letter import").await?;
        let mut publisher =
            BatchPublisher::new(&settings.broker, publisher, self.rate, TerminalReport::new(Some(total), "imported"));
        let sent = self.send(&mut publisher, exchange, queue).await;
        let (counts, _) = publisher.close().await;
        let (imported, refused) = (counts.confirmed(), counts.returned + counts.refused);
        audit.end(json!({ "imported": imported, "refused": refused }), sent.is_err());
        if let Err(error) = sent {
            note(format_args!(
                "{imported} of {total} lines were imported before the failure. Importing the file again is safe for \
                 messages with an identity or a dl-id: they are stored once"
            ));
            return Err(error);
        }
        self.print(queue, imported, refused, cut_off.as_deref())?;
        if refused > 0 {
            let text = format!(
                "{refused} lines were refused; check that queue {queue} exists, is bound to exchange {exchange:?}, and is \
                 not full"
            );
            return Err(CommandError::text(exit::UNAVAILABLE, text));
        }
        Ok(if cut_off.is_some() { exit::DATA } else { 0 })
    }

    fn print(&self, queue: &str, imported: u64, refused: u64, cut_off: Option<&str>) -> Result<(), CommandError> {
        if let Some(cut_off) = cut_off {
            note(format_args!(
                "{cut_off}; all lines before it are imported. A purge deletes only what it has written completely"
            ));
        }
        if self.json {
            print_line(json!({ "imported": imported, "refused": refused, "queue": queue, "cut_off": cut_off }))
        } else {
            print_line(format_args!("{} imported into {queue}", dead_letters(imported)))
        }
    }

    /// Publishes every complete line. Only a few lines are read ahead, so that a file of any size takes little memory.
    async fn send(&self, publisher: &mut BatchPublisher<()>, exchange: &str, queue: &str) -> Result<(), CommandError> {
        let (sender, mut inputs) = tokio::sync::mpsc::channel(READ_AHEAD);
        let file = self.file.clone();
        let reader = tokio::task::spawn_blocking(move || {
            let send = |input| sender.blocking_send(input).map_err(|_| CommandError::text(exit::SOFTWARE, "stopped"));
            read_messages(&[file], false, send)
        });
        while let Some(input) = inputs.recv().await {
            match parse(&input, exchange, queue) {
                Ok(message) => drop(publisher.push(message, ()).await?),
                Err(_) if !input.has_end => {}
                Err(text) => return Err(CommandError::text(exit::DATA, text)),
            }
        }
        reader.await.map_err(|_| CommandError::text(exit::SOFTWARE, "reading the file was aborted"))??;
        publisher.flush().await?;
        Ok(())
    }
}

fn parse(input: &InputMessage, exchange: &str, queue: &str) -> Result<Outgoing, String> {
    let at_line = |text: String| format!("{}:{}: {text}", input.file, input.line);
    let archived = ArchivedMessage::from_line(&input.body).map_err(|error| at_line(error.to_string()))?;
    Outgoing::from_archive(archived, exchange, queue).map_err(at_line)
}

/// What is in a file.
struct Checked {
    /// Number of complete lines.
    total: u64,
    /// The last line, if it has no end and is not valid: a full disk or a crash has cut it off.
    cut_off: Option<String>,
}

/// Checks every line, before any is published.
fn check_all_lines(file: &Path, exchange: &str, queue: &str) -> Result<Checked, CommandError> {
    let (mut lines, mut invalid, mut cut_off) = (0, 0usize, None);
    read_messages(&[file.to_owned()], false, |input| {
        match parse(&input, exchange, queue) {
            Err(_) if !input.has_end => {
                let bytes = input.body.len();
                cut_off = Some(format!("{}:{}: this line is cut off after {bytes} bytes", input.file, input.line));
                return Ok(());
            }
            Err(text) => {
                invalid += 1;
                if invalid <= MAX_PRINTED {
                    note(&text);
                }
            }
            Ok(_) => {}
        }
        lines += 1;
        Ok(())
    })?;
    if invalid > 0 {
        let text = format!("{invalid} of {lines} lines are not valid; nothing was imported");
        return Err(CommandError::text(exit::DATA, text));
    }
    Ok(Checked { total: lines, cut_off })
}
