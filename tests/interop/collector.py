"""A collector of traces: takes OTLP over HTTP with protobuf on a port of this machine, and prints each span as a line of JSON."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def attributes(pairs):
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in pairs}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while not chunks or chunks[-1]:
            chunks.append(self.rfile.read(int(self.rfile.readline(), 16)))
            self.rfile.readline()
        return b"".join(chunks)

    def do_POST(self):
        request = ExportTraceServiceRequest.FromString(self.body())
        for resource in request.resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                line = {
                    "service": attributes(resource.resource.attributes).get("service.name"), "name": span.name, "kind": span.kind,
                    "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                    "links": [link.span_id.hex() for link in span.links], "attributes": attributes(span.attributes),
                    "start": span.start_time_unix_nano, "end": span.end_time_unix_nano,
                }
                print(json.dumps(line), flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
