"""Publishes the two events of traced.js with pika under OpenTelemetry's instrumentation."""

import json
import os

import pika
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.pika import PikaInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
PikaInstrumentor().instrument()

connection = pika.BlockingConnection(pika.URLParameters(os.environ["TICKETLOG_BROKER__URI"]))
channel = connection.channel()
channel.confirm_delivery()
for event in [{"user_id": 43, "status": "traced"}, {"user_id": "nobody"}]:
    channel.basic_publish(os.environ["TICKETLOG_BROKER__EXCHANGE"], "ticket.purchase", json.dumps(event).encode(), mandatory=True)
connection.close()
provider.shutdown()
