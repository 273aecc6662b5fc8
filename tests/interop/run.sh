#!/usr/bin/env bash
# Tests the worker with other clients: amqplib and pika publish, Mongoose reads, and its own documents are compared; the
# formats of the contract are tried. Run by `make interop`, which starts the servers. The packages for Node and Python are installed in target/interop.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/target/interop; mkdir -p "$work"
cp "$root"/tests/interop/*.js* "$root"/tests/interop/*.py "$work/"
if ! (cd "$work" && npm ls >/dev/null 2>&1); then
  (cd "$work" && npm install --no-package-lock --no-audit --no-fund --loglevel=error)
fi
if [ ! -d "$work/python/pika" ] || [ ! -d "$work/python/aio_pika" ] || [ ! -d "$work/python/opentelemetry/instrumentation/pika" ]; then
  python3 -m pip install -q --root-user-action ignore --upgrade --target "$work/python" pika==1.3.2 aio-pika==10.2.1 \
    opentelemetry-exporter-otlp-proto-http==1.45.1 opentelemetry-instrumentation-pika==0.66b1
fi
# The instrumentation of OpenTelemetry needs an older amqplib than the one that publishers install today.
mkdir -p "$work/publishers"; cp "$root/examples/publish/publisher.mjs" "$work/publishers/"
[ -d "$work/publishers/node_modules/amqplib" ] || npm install --prefix "$work/publishers" --no-audit --no-fund --loglevel=error amqplib@2.3.1
"$root/tests/interop/contract.sh"
"$root/tests/interop/publishers.sh"
export CORPUS_NOW; CORPUS_NOW=$(date +%s%3N)
name=interop_$$
export TICKETLOG_BROKER__EXCHANGE=$name TICKETLOG_BROKER__QUEUE=$name.q TICKETLOG_DEAD_LETTER__EXCHANGE=$name.dlx \
  TICKETLOG_DEAD_LETTER__QUEUE=$name.dead TICKETLOG_DEAD_LETTER__PARKED_QUEUE=$name.parked TICKETLOG_STORE__DATABASE=$name \
  TICKETLOG_STORE__COLLECTION=bytemark_tickets_log TICKETLOG_HTTP__LISTEN=127.0.0.1:${TICKETLOG_INTEROP_PORT:-19470}
"$root/target/debug/ticketlog" setup >/dev/null
node "$work/publish.js"
PYTHONPATH=$work/python python3 "$work/publish.py"
export TICKETLOG_TELEMETRY__OTLP=http://127.0.0.1:${TICKETLOG_INTEROP_COLLECTOR_PORT:-14318}
PYTHONPATH=$work/python python3 "$work/collector.py" "${TICKETLOG_TELEMETRY__OTLP##*:}" >"$work/spans.ndjson" & collector=$!
"$root/target/debug/ticketlog" run 2>"$work/worker.log" & worker=$!
trap 'kill $worker $collector 2>/dev/null || true; wait $worker || true' EXIT
wanted=$(($(cd "$work" && node -p 'require("./corpus").length') + 50))
for _ in $(seq 300); do
  settled=$(python3 - <<P
import urllib.request
try:
    lines = urllib.request.urlopen("http://$TICKETLOG_HTTP__LISTEN/metrics", timeout=5).read().decode().splitlines()
    print(int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("ticketlog_messages_settled_total"))))
except OSError:
    print(0)
P
  )
  [ "$settled" -ge "$wanted" ] && break; sleep 0.1
done
[ "$settled" -eq "$wanted" ] || { echo "settled $settled of $wanted" >&2; cat "$work/worker.log" >&2; exit 1; }
node "$work/read.js"
export OTEL_EXPORTER_OTLP_ENDPOINT=$TICKETLOG_TELEMETRY__OTLP
node "$work/traced.js"
OTEL_SERVICE_NAME=pika PYTHONPATH=$work/python python3 "$work/traced.py"
python3 "$work/traces.py" "$work/spans.ndjson"
