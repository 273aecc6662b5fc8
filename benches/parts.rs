//! The cost of the parts without IO: decoding with casts and identity, batching, settlement. Run it with
//! `cargo bench --bench parts`. At the end it prints the time of the decoder relative to JSON to raw BSON, the
//! least that any worker must do.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use criterion::{Criterion, Throughput};
use serde_json::json;
use ticketlog::worker::batcher::{BatchLimits, Batcher, Flow};
use ticketlog_contract::{Decoder, Message, Rules};
use ticketlog_rabbitmq::Settlement;

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

fn decoding(criterion: &mut Criterion) {
    for size in [200, 2 << 10, 20 << 10] {
        let body = event(size);
        let mut group = criterion.benchmark_group(format!("{} bytes", body.len()));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("JSON to raw BSON", |bencher| bencher.iter(|| to_bson(black_box(&body))));
        let mut decoder = Decoder::new(Arc::new(Rules::default()));
        group.bench_function("decode, cast, identify", |bencher| {
            bencher.iter(|| decode(&mut decoder, black_box(&body)))
        });
        group.finish();
    }
}

/// The decoder with and without findings, of an event in which nothing is found and of one in which much is.
fn findings(criterion: &mut Criterion) {
    for (name, body) in [("fine event", event(200)), ("suspect event", suspect_event())] {
        let mut group = criterion.benchmark_group(name);
        let mut with = Decoder::new(Arc::default());
        let mut without = Decoder::without_findings(Arc::default());
        group.bench_function("decode", |bencher| bencher.iter(|| decode(&mut without, black_box(&body))));
        group.bench_function("decode, findings", |bencher| bencher.iter(|| decode(&mut with, black_box(&body))));
        group.finish();
    }
}

fn bookkeeping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1000 events");
    group.throughput(Throughput::Elements(1000));
    let limits = BatchLimits { max_events: 1000, max_bytes: 8 << 20, linger: Duration::from_millis(5) };
    let now = Instant::now();
    let mut batcher = Batcher::new(limits);
    group.bench_function("batch", |bencher| {
        bencher.iter(|| {
            (0..1000_u64).for_each(|event| batcher.push(event, 300, now));
            black_box(batcher.take(now, Flow::default())).unwrap().0.len()
        })
    });
    let mut settlement = Settlement::default();
    let mut tag = 0;
    group.bench_function("settle, two batches out of order", |bencher| {
        bencher.iter(|| {
            let first = tag + 1;
            for _ in 0..1000 {
                tag += 1;
                assert!(settlement.receive(tag, tag));
            }
            (first + 500..=tag).chain(first..first + 500).for_each(|tag| settlement.settle(tag));
            black_box(settlement.take_prefix())
        })
    });
    group.finish();
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

/// Prints medians of many short turns, so that other load on the machine affects both alike.
fn print_ratios() {
    let median = |ratio: &mut dyn FnMut() -> f64| {
        let mut ratios: Vec<f64> = (0..101).map(|_| ratio()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[50]
    };
    for size in [200, 2 << 10, 20 << 10] {
        let body = event(size);
        let mut decoder = Decoder::new(Arc::new(Rules::default()));
        let ratio = median(&mut || nanos_per_call(|| decode(&mut decoder, &body)) / nanos_per_call(|| to_bson(&body)));
        println!("{} bytes: decode, cast, identify / JSON to raw BSON: {ratio:.2}", body.len());
    }
    for (name, body) in [("fine", event(200)), ("fine", event(2 << 10)), ("suspect", suspect_event())] {
        let (mut with, mut without) = (Decoder::new(Arc::default()), Decoder::without_findings(Arc::default()));
        let ratio = median(&mut || {
            nanos_per_call(|| decode(&mut with, &body)) / nanos_per_call(|| decode(&mut without, &body))
        });
        println!("{} bytes, {name}: with findings / without: {ratio:.3}", body.len());
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decoding(&mut criterion);
    findings(&mut criterion);
    bookkeeping(&mut criterion);
    criterion.final_summary();
    print_ratios();
}
