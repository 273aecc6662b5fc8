//! Owns `ticketlog dead import`: archived dead letters back into a queue, all of a file or nothing.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::broker::{Outgoing, Publisher};
use crate::config::Settings;
use crate::dead_letter::Archived;

use super::super::carrier::{Carrier, progress};
use super::super::source::{self, Line};
use super::super::{Fault, publish};
use super::audit::Audit;
use super::{Audited, count, note, say};

/// Most lines whose faults are told.
const TOLD: usize = 20;

/// Flags of `ticketlog dead import`.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What `dead export` or `dead purge` wrote.
    file: PathBuf,
    /// The queue to put them into; by default dead_letter.queue.
    #[arg(long, value_name = "NAME", value_parser = super::name)]
    queue: Option<String>,
    #[command(flatten)]
    audited: Audited,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s", value_parser = publish::rate)]
    rate: Option<f64>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Import {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        if self.file == Path::new("-") || !self.file.is_file() {
            let text = format!("{} is no file; import reads it twice", self.file.display());
            return Err(Fault::new(66, anyhow::Error::msg(text)));
        }
        let dead = &settings.dead_letter;
        let queue = self.queue.as_deref().unwrap_or(&dead.queue);
        let exchange =
            if [&dead.queue, &dead.parked_queue].iter().any(|own| *own == queue) { &dead.exchange } else { "" };
        let total = check(&self.file, exchange, queue)?;
        let subject = json!({ "action": "import", "queue": queue, "file": self.file.display().to_string() });
        let audit = Audit::begin_as(settings, &self.audited, subject)?;
        let publisher = Publisher::plain(&settings.broker, "desk publisher").await?;
        let mut carrier = Carrier::new(settings, publisher, self.rate, progress(Some(total), "imported"));
        let sent = self.send(&mut carrier, exchange, queue).await;
        let (tally, _) = carrier.close().await;
        let (imported, stayed) = (tally.confirmed(), tally.returned + tally.refused);
        audit.end(json!({ "imported": imported, "refused": stayed }), sent.is_err());
        if let Err(fault) = sent {
            note(format_args!(
                "{imported} of {total} lines were imported before it failed; importing the file again is safe \
                           for what carries an identity or an id: it is stored once"
            ));
            return Err(fault);
        }
        if self.json {
            say(json!({ "imported": imported, "refused": stayed, "queue": queue }))?;
        } else {
            say(format_args!("{} imported into {queue}", count(imported, "dead letter")))?;
        }
        if stayed > 0 {
            let text = format!("{stayed} lines were not taken: is {queue} there, bound to {exchange:?}, and not full?");
            return Err(Fault::new(69, anyhow::Error::msg(text)));
        }
        Ok(0)
    }

    /// The reader runs beside, a window ahead, so that a file of any size takes little memory.
    async fn send(&self, carrier: &mut Carrier<()>, exchange: &str, queue: &str) -> Result<(), Fault> {
        let (sender, mut lines) = tokio::sync::mpsc::channel(64);
        let file = self.file.clone();
        let reader = tokio::task::spawn_blocking(move || {
            source::lines(&[file], false, |line| sender.blocking_send(line).map_err(|_| Fault::usage("stopped")))
        });
        while let Some(line) = lines.recv().await {
            carrier.push(read(&line, exchange, queue).map_err(bad)?, ()).await?;
        }
        reader.await.map_err(|_| Fault::usage("reading ended early"))??;
        carrier.flush().await?;
        Ok(())
    }
}

fn read(line: &Line, exchange: &str, queue: &str) -> Result<Outgoing, String> {
    let at = |text: String| format!("{}:{}: {text}", line.file, line.number);
    let archived = Archived::from_line(&line.body).map_err(|error| at(error.to_string()))?;
    Outgoing::archived(archived, exchange, queue).map_err(at)
}

fn bad(text: String) -> Fault {
    Fault::new(65, anyhow::Error::msg(text))
}

/// Reads every line before the first is sent. How many there are.
fn check(file: &Path, exchange: &str, queue: &str) -> Result<u64, Fault> {
    let (mut lines, mut wrong) = (0, 0usize);
    source::lines(&[file.to_owned()], false, |line| {
        lines += 1;
        if let Err(text) = read(&line, exchange, queue) {
            wrong += 1;
            if wrong <= TOLD {
                note(&text);
            }
        }
        Ok(())
    })?;
    if wrong > 0 {
        return Err(bad(format!("{wrong} of {lines} lines cannot be read; nothing was imported")));
    }
    Ok(lines)
}
