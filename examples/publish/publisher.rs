//! Publishes ticket events with lapin so that none is lost: each is confirmed, or reported as not published. After a lost
//! connection the same bytes are sent again; ticketlog stores them once.
//!
//! usage: publisher [ROUTING_KEY] < events.ndjson      (one event a line)
//! environment: `RABBITMQ_URL` (`amqps://user:password@host:5671/%2f`), `RABBITMQ_CA` (file, if the CA is not a public
//!              one), `EXCHANGE` (`bytemark.tickets`), `APP_ID` (`ticket-shop`)

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::HashMap;
use std::error::Error;
use std::io::BufRead as _;
use std::process::ExitCode;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind};

/// Waiting for each confirm is twenty times slower.
const WINDOW: usize = 200;

struct Event {
    uuid: String,
    body: Vec<u8>,
}

struct Publisher {
    url: String,
    tls: OwnedTLSConfig,
    exchange: String,
    app_id: String,
    routing_key: String,
    open: Option<(Connection, Channel)>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let ca = std::env::var("RABBITMQ_CA").ok().map(std::fs::read_to_string).transpose()?;
    let mut publisher = Publisher {
        url: std::env::var("RABBITMQ_URL")?,
        tls: OwnedTLSConfig { identity: None, cert_chain: ca },
        exchange: variable("EXCHANGE", "bytemark.tickets"),
        app_id: variable("APP_ID", "ticket-shop"),
        routing_key: std::env::args().nth(1).unwrap_or_else(|| "ticket.purchase".to_owned()),
        open: None,
    };
    let (mut confirmed, mut failed) = (0, 0);
    let mut lines = std::io::stdin().lock().split(b'\n');
    loop {
        let window: Vec<Event> = lines.by_ref().take(WINDOW).map(read_event).collect::<Result<_, _>>()?;
        if window.is_empty() {
            break;
        }
        let not_published = publisher.publish(&window).await;
        failed += not_published.len();
        confirmed += window.len() - not_published.len();
        for (uuid, why) in window.iter().filter_map(|event| not_published.get_key_value(&event.uuid)) {
            eprintln!("not published: {uuid}: {why}");
        }
    }
    println!(r#"{{"confirmed":{confirmed},"failed":{failed}}}"#);
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read_event(line: std::io::Result<Vec<u8>>) -> Result<Event, Box<dyn Error>> {
    let body = line?;
    let event: serde_json::Value = serde_json::from_slice(&body)?;
    let uuid = event.get("uuid").and_then(|uuid| uuid.as_str()).ok_or("an event without a uuid")?.to_owned();
    Ok(Event { uuid, body })
}

impl Publisher {
    /// Publishes events with different uuids, and waits for all confirms. Returns those that no queue took, and why.
    async fn publish(&mut self, window: &[Event]) -> HashMap<String, String> {
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match self.try_to_publish(window).await {
                Ok(not_published) => return not_published,
                Err(error) => error,
            };
            self.open = None;
            if let Some(why) = permanent(&error) {
                return window.iter().map(|event| (event.uuid.clone(), why.clone())).collect();
            }
            // What was confirmed is not known for certain: the whole window is sent again, byte for byte.
            eprintln!("RabbitMQ: {error}; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn try_to_publish(&mut self, window: &[Event]) -> lapin::Result<HashMap<String, String>> {
        if self.open.is_none() {
            self.open = Some(self.connect().await?);
        }
        let Some((_, channel)) = &self.open else { return Ok(HashMap::new()) };
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let mut confirms = Vec::new();
        for event in window {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type("application/json".into())
                .with_message_id(event.uuid.as_str().into())
                .with_app_id(self.app_id.as_str().into());
            let (exchange, key) = (self.exchange.as_str().into(), self.routing_key.as_str().into());
            confirms.push(channel.basic_publish(exchange, key, options, &event.body, properties).await?);
        }
        let mut not_published = HashMap::new();
        for (event, confirm) in window.iter().zip(confirms) {
            let (returned, refused) = match confirm.await? {
                Confirmation::Ack(returned) => (returned, false),
                Confirmation::Nack(returned) => (returned, true),
                Confirmation::NotRequested => (None, true),
            };
            if refused {
                not_published.insert(event.uuid.clone(), "refused by RabbitMQ (a full queue?)".to_owned());
            }
            // lapin may attach a returned message to the confirm of another one: its own id says which it is.
            if let Some(id) = returned.and_then(|message| message.properties.message_id().clone()) {
                let why = "returned by RabbitMQ: no queue is bound for this routing key".to_owned();
                not_published.insert(id.to_string(), why);
            }
        }
        Ok(not_published)
    }

    async fn connect(&self) -> lapin::Result<(Connection, Channel)> {
        let properties = ConnectionProperties::default().with_connection_name(self.app_id.as_str().into());
        let connection = Connection::connect_with_config(
            &self.url,
            properties,
            self.tls.clone(),
            lapin::runtime::default_runtime()?,
        )
        .await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((connection, channel))
    }
}

/// Access refused, or no such exchange: sending again does not help.
fn permanent(error: &lapin::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ProtocolError(error) if [403, 404].contains(&error.get_id()) => {
            Some(error.get_message().to_string())
        }
        _ => None,
    }
}
