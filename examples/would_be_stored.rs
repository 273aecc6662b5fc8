//! What a publisher can know before it publishes: would the worker store this event? Asks the worker's own decoder.
//!
//! usage: would_be_stored [ROUTING_KEY] < events.ndjson

#![allow(clippy::print_stdout)]

use std::io::{BufRead as _, stdin};
use std::process::ExitCode;

use ticketlog_contract::{Address, Decoder, Message, RouteAddresses, Rules};

fn main() -> std::io::Result<ExitCode> {
    // As the settings of the worker say: limits, the fields that are cast, and which routing keys its route takes.
    let addresses = RouteAddresses { routing_keys: vec!["ticket.#".to_owned()], queues: Vec::new() };
    let mut worker = Decoder::new(Rules { addresses: Some(addresses), ..Rules::default() }.into());
    let routing_key = std::env::args().nth(1).unwrap_or_else(|| "ticket.purchase".to_owned());
    let address = Some(Address { exchange: "bytemark.tickets", routing_key: &routing_key });
    let mut all_are_stored = true;
    for line in stdin().lock().split(b'\n') {
        let message = Message { body: &line?, address, message_id: Some("3f1c"), ..Message::default() };
        match worker.decode(&message, || [0; 12]) {
            Ok(event) => println!("stored: {}", event.to_bson()),
            Err(rejection) => {
                all_are_stored = false;
                println!("rejected: {}: {}", rejection.reason_and_field(), rejection.detail);
            }
        }
    }
    Ok(if all_are_stored { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
