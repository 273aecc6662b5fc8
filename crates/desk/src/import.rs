//! Importing: puts archived dead letters back into a queue, all complete lines of a file or none.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use ticketlog_config::RouteSettings;
use ticketlog_contract::dead_letter::{self, ArchivedMessage};
use ticketlog_rabbitmq::report::Report;
use ticketlog_rabbitmq::{BatchPublisher, Outgoing, PublishResult, Publisher, Rate, Results};

use super::{DeskError, Operation, Outcome, Progress, Run, Touched};
use ticketlog_config::format::dead_letters;

/// Longest line in bytes. 128 MiB, RabbitMQ's default limit for a message before 4.0, take at most six times that.
const MAX_LINE: u64 = 1 << 30;
/// Most invalid lines that are named in notes.
const MAX_NAMED: u64 = 20;

/// What to import, and where to.
#[derive(Debug, Clone)]
pub struct Import {
    /// A file that an export or a purge wrote.
    pub file: PathBuf,
    /// The queue to put them into.
    pub queue: String,
    /// Most messages a second.
    pub rate: Option<Rate>,
}

impl Import {
    fn exchange<'a>(&self, settings: &'a RouteSettings) -> &'a str {
        let is_ours = [&settings.dead_letter_queue, &settings.parked_queue].contains(&&self.queue);
        if is_ours { &settings.dead_letter.exchange } else { "" }
    }

    /// The message, and its `dl-id` if it has one.
    fn parse(&self, line: &[u8], exchange: &str) -> Result<(Outgoing, Option<String>), String> {
        let archived = ArchivedMessage::from_line(line.trim_ascii_end()).map_err(|error| error.to_string())?;
        let id = archived.headers.get(dead_letter::ID).and_then(Value::as_str).map(str::to_owned);
        Ok((Outgoing::from_archive(archived, exchange, &self.queue)?, id))
    }

    fn unreadable(&self, error: std::io::Error) -> DeskError {
        DeskError::NoInput(format!("{} cannot be read: {error}", self.file.display()))
    }

    /// With its end; empty at the end of the file.
    async fn next_line(&self, reader: &mut BufReader<File>, number: u64) -> Result<Vec<u8>, DeskError> {
        let mut line = Vec::new();
        let read = reader.take(MAX_LINE + 1).read_until(b'\n', &mut line).await;
        if read.map_err(|error| self.unreadable(error))? as u64 > MAX_LINE {
            let file = self.file.display();
            let text = format!(
                "{file}:{number}: the line is longer than 1 GiB; is the file one of `dead export` or `dead purge`?"
            );
            return Err(DeskError::Invalid(text));
        }
        Ok(line)
    }

    /// Checks every line, and publishes it if there is a publisher. Returns the number of complete lines.
    async fn read(
        &self,
        mut publisher: Option<&mut BatchPublisher<Option<String>>>,
        (exchange, report): (&str, &dyn Report),
        progress: &mut Progress,
    ) -> Result<u64, DeskError> {
        let file = self.file.display();
        let mut reader = BufReader::new(File::open(&self.file).await.map_err(|error| self.unreadable(error))?);
        let (mut number, mut count, mut invalid) = (0_u64, 0, 0);
        loop {
            number += 1;
            let line = self.next_line(&mut reader, number).await?;
            if line.is_empty() || report.is_stopped() {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match (self.parse(&line, exchange), &mut publisher) {
                (Ok(message), Some(publisher)) => publish(publisher, Some(message), progress).await?,
                (Ok(_), None) => {}
                // Without its end, the line may be cut off.
                (Err(_), _) if !line.ends_with(b"\n") => {
                    let bytes = line.len();
                    progress.outcome.cut_off =
                        Some(format!("{file}:{number}: this line is cut off after {bytes} bytes"));
                    break;
                }
                (Err(text), _) => {
                    invalid += 1;
                    if invalid <= MAX_NAMED {
                        report.note(&format!("{file}:{number}: {text}"));
                    }
                }
            }
            count += 1;
        }
        match (invalid, publisher) {
            (0, _) => Ok(count),
            (_, None) => {
                Err(DeskError::Invalid(format!("{invalid} of {count} lines are not valid; nothing was imported")))
            }
            (_, Some(_)) => Err(DeskError::Invalid("the file has changed meanwhile".to_owned())),
        }
    }
}

/// Publishes a message with its `dl-id`, or what is left of the batch; and names what RabbitMQ has confirmed.
async fn publish(
    publisher: &mut BatchPublisher<Option<String>>,
    message: Option<(Outgoing, Option<String>)>,
    progress: &mut Progress,
) -> Result<(), DeskError> {
    let mut results = Results::new();
    let published = match message {
        Some((message, id)) => publisher.push(message, id, &mut results).await,
        None => publisher.flush(&mut results).await,
    };
    let confirmed = results.into_iter().filter(|(_, result)| *result == PublishResult::Confirmed);
    confirmed.filter_map(|(id, _)| id).for_each(|id| progress.name(Touched::Imported, &id, None));
    Ok(published?)
}

impl Operation for Import {
    const COUNTED: &'static str = "imported";
    const UNDELIVERABLE: &'static str = "refused";

    fn subject(&self) -> Value {
        json!({ "action": "import", "queue": self.queue, "file": self.file.display().to_string() })
    }

    async fn perform(&self, run: Run<'_>, progress: &mut Progress) -> Result<(), DeskError> {
        let Run { settings, report } = run;
        let why = match std::fs::metadata(&self.file) {
            Ok(found) if found.is_file() => None,
            Ok(_) => Some("is not a regular file; import reads the file twice".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        if let Some(why) = why {
            return Err(DeskError::NoInput(format!("{} {why}", self.file.display())));
        }
        let exchange = self.exchange(settings);
        let total = self.read(None, (exchange, &**report), progress).await?;
        report.set_total(total);
        let publisher = Publisher::open_without_topology(&settings.broker, "dead letter import").await?;
        let publisher = BatchPublisher::new(publisher, self.rate, Arc::clone(report));
        // A message that this RabbitMQ does not take, such as one that is too large, keeps no others from coming back.
        let mut publisher = publisher.tolerant_of_messages();
        let sent = match self.read(Some(&mut publisher), (exchange, &**report), progress).await {
            Ok(_) => publish(&mut publisher, None, progress).await,
            Err(error) => Err(error),
        };
        let (counts, _) = publisher.close().await;
        let outcome = &mut progress.outcome;
        outcome.count = counts.confirmed();
        if counts.published > outcome.count {
            outcome.add_undeliverable(exchange.to_owned(), counts.published - outcome.count);
        }
        if sent.is_err() {
            report.note(&format!(
                "{} of {total} lines were imported before the failure. Importing the file again is safe for messages with an \
                 identity or a dl-id: they are stored once",
                outcome.count
            ));
        }
        sent
    }

    fn to_json(&self, outcome: &Outcome) -> Value {
        let refused = outcome.undeliverable.values().sum::<u64>();
        json!({ "imported": outcome.count, "refused": refused, "queue": self.queue, "cut_off": outcome.cut_off })
    }

    fn to_text(&self, outcome: &Outcome) -> String {
        format!("{} imported into {}", dead_letters(outcome.count), self.queue)
    }

    fn undeliverable_note(&self, exchange: &str, count: u64) -> String {
        let queue = &self.queue;
        format!(
            "{count} lines were refused; check that queue {queue} exists, is bound to exchange {exchange:?}, and is not full"
        )
    }
}
