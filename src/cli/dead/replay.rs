//! Owns `ticketlog dead replay`: what would become of each dead letter, and sending it on its way again.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stdin};
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use clap::Args;
use serde_json::{Value, json};
use url::Url;

use crate::broker::{self, Delivery, Replaying};
use crate::config::Settings;
use crate::dead_letter::Record;
use crate::event::{self, Decoder, Message};

use super::super::{Fault, publish};
use super::audit::Audit;
use super::carrying::{Carried, Carrying};
use super::edit::edit;
use super::scan::{Found, Scan, message};
use super::{Audited, Selection, Target, confirm, count, follow, note, say};

/// Flags of `ticketlog dead replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    audited: Audited,
    /// Only say what would become of them, by today's decoder and settings.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Straight into this queue, past exchanges: other services that listen to the exchange do not see them again.
    #[arg(long, value_name = "NAME", value_parser = super::name)]
    to_queue: Option<String>,
    /// Pipe each body through this shell command, such as `jq -c '.user_id |= tonumber'`. Where it fails, the message
    /// stays. The body is decompressed before. A changed body is another event: it gets another `_id`.
    #[arg(long, value_name = "COMMAND")]
    edit: Option<String>,
    /// Leave those where they are that today's decoder still refuses.
    #[arg(long)]
    skip_bad: bool,
    /// Most messages a second, such as `500` or `500/s`.
    #[arg(long, value_name = "N/s", value_parser = publish::rate)]
    rate: Option<f64>,
    /// Wait until the workers have told what became of each.
    #[arg(long)]
    follow: bool,
    /// Where a worker shows its state, for --follow; repeatable. By default http.listen.
    #[arg(long, value_name = "URL", value_parser = super::address)]
    status: Vec<Url>,
    /// How long --follow waits for news.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    follow_timeout: Duration,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// What becomes of a dead letter.
enum Fate {
    /// Today's decoder takes it; with its new body, if it is edited.
    Accepted(Option<Vec<u8>>),
    /// It would die again of this.
    Refused(Option<Vec<u8>>, String),
    /// It was replayed often enough.
    Parked,
    /// The command failed.
    Unedited(String),
}

/// What would become of all.
#[derive(Debug, Default)]
struct Forecast {
    accepted: u64,
    refused: BTreeMap<String, u64>,
    parked: u64,
    unedited: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Replayed,
    Parked,
}

impl Replay {
    pub async fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        if self.target.queue(settings) == settings.dead_letter.parked_queue {
            return Err(Fault::usage("parked ones are not replayed: `ticketlog dead unpark` brings them back first"));
        }
        let mut limit = self.selection.limit;
        if !self.yes && !self.dry_run && !stdin().is_terminal() {
            return Err(Fault::usage("there is nobody to ask: give --yes, or --dry-run"));
        }
        if !self.yes {
            let forecast = self.forecast(settings).await?;
            if self.dry_run {
                forecast.print(self.json)?;
                return Ok(0);
            }
            note(format_args!("{}", forecast.text().trim_end()));
            if forecast.total() == 0 {
                return Ok(0);
            }
            if !confirm("type yes to replay them:", "yes", "--yes, or --dry-run")? {
                return Err(Fault::usage("nothing was replayed"));
            }
            // What has died since is not meant.
            limit = Some(u32::try_from(forecast.total()).unwrap_or(u32::MAX));
        }
        self.replay(settings, limit).await
    }

    async fn forecast(&self, settings: &Settings) -> Result<Forecast, Fault> {
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        let mut decoder = Decoder::new(Arc::new(settings.rules()));
        let mut forecast = Forecast::default();
        let walked = async {
            while let Some(Found { delivery, record, .. }) = scan.next().await? {
                match self.fate(settings, &mut decoder, &delivery, &record).await {
                    Fate::Accepted(_) => forecast.accepted += 1,
                    Fate::Refused(_, cause) => *forecast.refused.entry(cause).or_default() += 1,
                    Fate::Parked => forecast.parked += 1,
                    Fate::Unedited(why) => *forecast.unedited.entry(why).or_default() += 1,
                }
            }
            Ok(())
        }
        .await;
        scan.close(walked).await?;
        Ok(forecast)
    }

    async fn fate(&self, settings: &Settings, decoder: &mut Decoder, delivery: &Delivery, record: &Record) -> Fate {
        if record.replays >= i64::from(settings.dead_letter.max_replays) {
            return Fate::Parked;
        }
        let edited = match &self.edit {
            None => None,
            Some(command) => {
                let plain = event::plain(&message(delivery), decoder.rules());
                let body = plain.map_or_else(|_| delivery.body.clone(), |plain| plain.into_owned());
                let (command, most) = (command.clone(), settings.event.max_bytes.bytes());
                match tokio::task::spawn_blocking(move || edit(&command, body, most)).await {
                    Ok(Ok(body)) => Some(body),
                    Ok(Err(why)) => return Fate::Unedited(why),
                    Err(_) => return Fate::Unedited("the command was lost".to_owned()),
                }
            }
        };
        let original = message(delivery);
        let message = match &edited {
            Some(body) => Message { body, content_encoding: None, ..original },
            None => original,
        };
        match decoder.decode(&message, || [0; 12]) {
            Ok(_) => Fate::Accepted(edited),
            Err(rejection) => Fate::Refused(edited, rejection.cause()),
        }
    }

    async fn replay(&self, settings: &Settings, limit: Option<u32>) -> Result<u8, Fault> {
        let replay = ObjectId::new().to_hex();
        let queue = self.target.queue(settings);
        let audit = Audit::begin_as(settings, &self.audited, self.subject(queue, &replay))?;
        let mut scan = Scan::open(settings, &self.target, Some(&self.selection)).await?;
        scan.at_most(limit);
        scan.paced(self.rate);
        let mut carrying = Carrying::new(settings, scan, self.rate, "replayed").await?;
        let mut left = Forecast::default();
        let carried = self.carry(settings, &mut carrying, &replay, &mut left).await;
        let (carried, ended) = carrying.finish(carried).await;
        let replayed = carried.count(&What::Replayed);
        let summary = self.summary(&replay, &carried, &left);
        audit.end(summary.clone(), ended.is_err());
        if !self.json {
            say(format_args!("replay {replay}: {}", self.text(&carried, &left)))?;
        }
        if self.json && (ended.is_err() || !self.follow || replayed == 0) {
            say(&summary)?;
        }
        ended?;
        let code = if left.unedited.is_empty() { carried.code() } else { carried.code().max(65) };
        if !self.follow || replayed == 0 {
            return Ok(code);
        }
        let followed = self.follow_it(settings, &replay, replayed, summary).await?;
        Ok(if code == 0 { followed } else { code })
    }

    /// For the audit line.
    fn subject(&self, queue: &str, replay: &str) -> Value {
        let mut subject = super::audit::subject("replay", queue, &self.selection);
        if let Value::Object(subject) = &mut subject {
            subject.insert("replay_id".to_owned(), json!(replay));
            subject.insert("to_queue".to_owned(), json!(self.to_queue));
            subject.insert("edited".to_owned(), json!(self.edit.is_some()));
        }
        subject
    }

    async fn follow_it(&self, settings: &Settings, replay: &str, replayed: u64, summary: Value) -> Result<u8, Fault> {
        match follow::follow(settings, &self.status, replay, replayed, self.follow_timeout).await {
            Ok(outcome) => {
                outcome.print(self.json.then_some(summary))?;
                Ok(outcome.code())
            }
            Err(fault) => {
                if self.json {
                    say(&summary)?;
                }
                Err(fault)
            }
        }
    }

    async fn carry(
        &self,
        settings: &Settings,
        carrying: &mut Carrying<What>,
        replay: &str,
        left: &mut Forecast,
    ) -> Result<(), Fault> {
        let mut decoder = Decoder::new(Arc::new(settings.rules()));
        let replaying =
            Replaying { id: replay.to_owned(), login: broker::login(&settings.broker), to: self.to_queue.clone() };
        let dead = &settings.dead_letter;
        while let Some(Found { delivery, record, ticket, .. }) = carrying.scan.next().await? {
            let edited = match self.fate(settings, &mut decoder, &delivery, &record).await {
                Fate::Parked => {
                    let parked = delivery.moved(&record, &dead.exchange, &dead.parked_queue, false);
                    carrying.take(parked, ticket, What::Parked).await?;
                    continue;
                }
                Fate::Unedited(why) => {
                    *left.unedited.entry(why).or_default() += 1;
                    continue;
                }
                Fate::Refused(_, cause) if self.skip_bad => {
                    *left.refused.entry(cause).or_default() += 1;
                    continue;
                }
                Fate::Accepted(edited) | Fate::Refused(edited, _) => edited,
            };
            match delivery.replayed(&record, &replaying, edited) {
                Some(outgoing) => carrying.take(outgoing, ticket, What::Replayed).await?,
                None => carrying.strand("an exchange or routing key of more than 255 bytes".to_owned()),
            }
        }
        Ok(())
    }

    fn summary(&self, replay: &str, carried: &Carried<What>, left: &Forecast) -> Value {
        json!({
            "replay_id": replay, "replayed": carried.count(&What::Replayed), "parked": carried.count(&What::Parked),
            "stranded": carried.stranded, "skipped": left.refused, "edit_failed": left.unedited,
            "seconds": carried.took.as_secs_f64(), "bytes": carried.tally.bytes,
        })
    }

    fn text(&self, carried: &Carried<What>, left: &Forecast) -> String {
        let seconds = carried.took.as_secs_f64();
        let mut text = format!("{} replayed in {seconds:.1} s", count(carried.count(&What::Replayed), "dead letter"));
        let parked = carried.count(&What::Parked);
        if parked > 0 {
            text.push_str(&format!("; {parked} parked, replayed often enough"));
        }
        for (what, causes) in [("skipped, still bad", &left.refused), ("not edited", &left.unedited)] {
            for (cause, number) in causes {
                text.push_str(&format!("; {number} {what} ({cause})"));
            }
        }
        text
    }
}

impl Forecast {
    /// Those that a replay would take along.
    fn total(&self) -> u64 {
        self.accepted + self.parked + self.refused.values().sum::<u64>() + self.unedited.values().sum::<u64>()
    }

    fn text(&self) -> String {
        let mut text = format!("{}:\n", count(self.total(), "dead letter"));
        text.push_str(&format!("{:>8}  the decoder takes now; the store has the last word\n", self.accepted));
        for (cause, number) in &self.refused {
            text.push_str(&format!("{number:>8}  would be dead again: {cause}\n"));
        }
        if self.parked > 0 {
            text.push_str(&format!("{:>8}  would be parked: replayed dead_letter.max_replays times\n", self.parked));
        }
        for (why, number) in &self.unedited {
            text.push_str(&format!("{number:>8}  would stay: {why}\n"));
        }
        text
    }

    fn print(&self, json: bool) -> Result<(), Fault> {
        if json {
            let Forecast { accepted, refused, parked, unedited } = self;
            say(json!({ "accepted": accepted, "dead_again": refused, "parked": parked, "edit_failed": unedited }))?;
        } else {
            say(self.text().trim_end())?;
            note("nothing was changed");
        }
        Ok(())
    }
}
