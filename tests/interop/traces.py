"""Waits for the traces of the two events of each publisher, traced.js and traced.py, in the collector's lines, checks them, and prints
them as trees."""

import json
import sys
import time

PRODUCER, CONSUMER = 4, 5


def read():
    with open(sys.argv[1]) as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def published(spans):
    """The spans whose context the messages carried. The instrumentation of pika has two for a message, one in the other."""
    producers = (span for span in spans if span["service"] != "ticketlog" and span["kind"] == PRODUCER)
    return [span for span in producers if any(child["service"] == "ticketlog" for child in children(spans, span))]


def children(spans, parent):
    found = (span for span in spans if span["parent"] == parent["id"] and span["trace"] == parent["trace"])
    return sorted(found, key=lambda span: span["start"])


def show(spans, span, depth=0):
    outcome = span["attributes"].get("ticketlog.outcome", "")
    print(f"  {'  ' * depth}{span['service']}: {span['name']} {(span['end'] - span['start']) / 1e6:.1f} ms {outcome}".rstrip())
    for child in children(spans, span):
        show(spans, child, depth + 1)


def check(spans, root):
    [process] = children(spans, root)
    assert process["kind"] == CONSUMER and process["service"] == "ticketlog", process
    attributes, names = process["attributes"], [span["name"] for span in children(spans, process)]
    if attributes["ticketlog.outcome"] == "stored":
        assert names == ["decode"] and len(attributes["ticketlog.document_id"]) == 24, (names, attributes)
        [batch] = [span for span in spans if span["id"] in process["links"]]
        assert root["id"] in batch["links"] and batch["name"] == "insert bytemark_tickets_log", batch
    else:
        assert names[0] == "decode" and names[1].startswith("publish ") and len(names) == 2, names
        assert len(attributes["ticketlog.dead_letter_id"]) == 24, attributes
    return attributes["ticketlog.outcome"]


for _ in range(100):
    all_spans = read()
    roots = published(all_spans)
    if len(roots) == 4:
        break
    time.sleep(0.1)
outcomes = sorted((root["service"], check(all_spans, root)) for root in roots)
assert outcomes == [(service, outcome) for service in ["pika", "unknown_service:node"] for outcome in ["dead_lettered", "stored"]], outcomes
print("traces from OpenTelemetry's instrumentations of amqplib and pika to the outcome:")
for root in roots:
    show(all_spans, root)
