#!/bin/sh
# Measures the time and the peak memory of `ticketlog find` with 1,000,000 documents and 20,000 dead letters, and what the audit costs of
# parking 20,000. Usage: deploy/local/services.sh run benches/find.sh [PROGRAM] [EVENTS]   (needs GNU time and curl)
set -eu
program=${1:-target/release/ticketlog}
events=${2:-1020000}
state=$(mktemp -d)
export TICKETLOG_STORE__DATABASE=find_bench TICKETLOG_BROKER__EXCHANGE=find.bench TICKETLOG_BROKER__QUEUE=find.bench.q \
  TICKETLOG_DEAD_LETTER__EXCHANGE=find.bench.dlx TICKETLOG_DEAD_LETTER__QUEUE=find.bench.dead \
  TICKETLOG_DEAD_LETTER__PARKED_QUEUE=find.bench.parked TICKETLOG_HTTP__LISTEN=127.0.0.1:19465 TICKETLOG_LOG__FILTER=error
"$program" run & worker=$!
trap 'kill "$worker" 2>/dev/null || true; rm -rf "$state"' EXIT
until curl -fs http://127.0.0.1:19465/readyz > "$state/ready"; do sleep 0.2; done
dead=$((events / 51))
"$program" publish --generate $((events - dead)) --seed 1
"$program" publish --generate "$dead" --malformed 100 --seed 2
printf '%s\n' '{"uuid":"find-me","user_id":7,"timestamp":1795316400000}' '{"uuid":"find-me-dead","user_id":[7]}' | "$program" publish
settled() {
  curl -fs http://127.0.0.1:19465/metrics |
    awk '/^ticketlog_messages_settled_total.*outcome="(stored|dead_lettered|duplicate)"/ { n += $2 } END { print n + 0 }'
}
until [ "$(settled)" -ge $((events + 2)) ]; do sleep 1; done
curl -fs http://127.0.0.1:19465/metrics | grep '^ticketlog_messages_settled_total'
measure() {
  echo "ticketlog $*"
  code=0
  command time -f '  %e s, peak %M KiB' "$program" "$@" > "$state/out" 2> "$state/err" || code=$?
  tail -n 1 "$state/err"
  echo "  exit code $code; $(wc -l < "$state/out") lines"
}
for by in "--uuid find-me" "--uuid find-me-dead" "--uuid nothing" "--user 7" "--message-id nothing" "--uuid find-me --no-dead-letters" \
  "--user 7 --no-dead-letters"; do
  # shellcheck disable=SC2086
  measure find $by
done
measure dead park --audit-file "$state/audit.ndjson"
echo "  audit file: $(wc -c < "$state/audit.ndjson") bytes, $(wc -l < "$state/audit.ndjson") lines"
measure find --uuid find-me-dead --audit "$state/audit.ndjson"
measure dead unpark
