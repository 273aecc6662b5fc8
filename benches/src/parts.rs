//! Owns the measurement of the parts without IO: decoding with casts and identity, findings, batching, settlement.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use serde_json::json;
use ticketlog::worker::batcher::{BatchLimits, Batcher, Flow};
use ticketlog_contract::{Decoder, Message};
use ticketlog_rabbitmq::Settlement;

use crate::page::{Block, Headlines};
use crate::programs::median;
use crate::run::Bench;

/// Turns of about ten milliseconds, so that other load on the machine affects both sides of a ratio alike.
const TURNS: usize = 101;
/// Events in a batch, and deliveries in a settlement.
const EVENTS: u64 = 1000;

pub fn measure(bench: &Bench, _: &mut Headlines) {
    let mut block = Block::default();
    block.line(bench.provenance());
    block.line(&format!("medians of {TURNS} turns; ratios: of pairs of turns\n"));
    for size in [200, 2 << 10, 20 << 10] {
        let body = event(size);
        let mut decoder = Decoder::new(Arc::default());
        let [decoding, ratio] = compared(|| decode(&mut decoder, &body), || to_bson(&body));
        block.line(&format!(
            "{:>6} bytes: decode, cast, identify {:>6.2} us; / JSON to raw BSON {ratio:.2}",
            body.len(),
            decoding / 1e3
        ));
    }
    for (name, body) in [("fine", event(200)), ("fine", event(2 << 10)), ("suspect", suspect_event())] {
        let (mut with, mut without) = (Decoder::new(Arc::default()), Decoder::without_findings(Arc::default()));
        let [_, ratio] = compared(|| decode(&mut with, &body), || decode(&mut without, &body));
        block.line(&format!("{:>6} bytes, {name}: with findings / without {ratio:.3}", body.len()));
    }
    block.line(&format!("batching: {:.0} ns an event", batching() / EVENTS as f64));
    block.line(&format!("settlement, two batches out of order: {:.0} ns a delivery", settling() / EVENTS as f64));
    block.write("parts");
}

const TOKEN: &str = "2f1c9a1e-7a59-4a53-8f0e-6b1d4c2e9f10";

/// An event as publishers send it, with as many legs of a journey as it needs to have this many bytes.
fn event(bytes: usize) -> Vec<u8> {
    let leg = |n: usize| json!({"from": format!("Stop {n}"), "to": "Städtisches Theater", "fare": 2.75, "zones": [1, 2, 3], "valid": true});
    let mut legs = Vec::new();
    loop {
        let body = json!({
            "user_id": 104_729, "timestamp": 1_795_367_772_123_u64, "uuid": TOKEN, "status": "success",
            "operation_type": "purchase", "ticket_details": {"route": "Red Line", "fare": 2.75, "currency": "EUR", "legs": legs},
        });
        let text = body.to_string();
        if text.len() >= bytes {
            return text.into_bytes();
        }
        legs.push(leg(legs.len()));
    }
}

fn decode(decoder: &mut Decoder, body: &[u8]) -> usize {
    let message = Message { body, message_id: Some(TOKEN), ..Message::default() };
    decoder.decode(&message, || [0; 12]).unwrap().document.as_bytes().len()
}

/// An event in which something is found: it has no time and no status, and one key is misspelt, so that every check is made.
fn suspect_event() -> Vec<u8> {
    let details = json!({"route": "Red Line", "fare": 2.75, "currency": "EUR", "valid": true, "zones": [1, 2, 3]});
    json!({"usr_id": 104_729, "time": 1_795_367_772_u64, "operation_type": "purchase", "ticket_details": details})
        .to_string()
        .into_bytes()
}

fn to_bson(body: &[u8]) -> usize {
    serde_json::from_slice::<RawDocumentBuf>(body).unwrap().as_bytes().len()
}

/// Nanoseconds for batching this many events.
fn batching() -> f64 {
    let limits = BatchLimits { max_events: EVENTS as usize, max_bytes: 8 << 20, linger: Duration::from_millis(5) };
    let now = Instant::now();
    let mut batcher = Batcher::new(limits);
    let batch = || {
        (0..EVENTS).for_each(|event| batcher.push(event, 300, now));
        batcher.take(now, Flow::default()).unwrap().0.len()
    };
    median_nanos(batch)
}

/// Nanoseconds for settling this many deliveries.
fn settling() -> f64 {
    let mut settlement = Settlement::default();
    let mut tag = 0;
    let settle = || {
        let first = tag + 1;
        for _ in 0..EVENTS {
            tag += 1;
            assert!(settlement.receive(tag, tag));
        }
        (first + EVENTS / 2..=tag).chain(first..first + EVENTS / 2).for_each(|tag| settlement.settle(tag));
        usize::from(settlement.take_prefix().is_some())
    };
    median_nanos(settle)
}

fn median_nanos(mut call: impl FnMut() -> usize) -> f64 {
    median((0..TURNS).map(|_| nanos_per_call(&mut call)).collect())
}

/// Nanoseconds of the first, and their ratio to those of the second, in turn.
fn compared(mut first: impl FnMut() -> usize, mut second: impl FnMut() -> usize) -> [f64; 2] {
    let pairs: Vec<_> = (0..TURNS).map(|_| (nanos_per_call(&mut first), nanos_per_call(&mut second))).collect();
    [median(pairs.iter().map(|pair| pair.0).collect()), median(pairs.iter().map(|pair| pair.0 / pair.1).collect())]
}

/// Nanoseconds for one call, measured over about ten milliseconds.
fn nanos_per_call(mut call: impl FnMut() -> usize) -> f64 {
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < Duration::from_millis(10) {
        for _ in 0..20 {
            black_box(call());
        }
        calls += 20;
    }
    started.elapsed().as_nanos() as f64 / f64::from(calls)
}
