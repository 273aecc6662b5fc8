#!/usr/bin/env bash
# Shows the main job. Run by `make demo`, which starts the servers; ends by itself. On servers that are named in the
# environment, its queues (ticketlog.demo…) and its database (ticketlog_demo) stay, for inspection.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ticketlog=${TICKETLOG_BIN:-target/debug/ticketlog}
http=127.0.0.1:${TICKETLOG_DEMO_PORT:-9464}
events=${TICKETLOG_DEMO_EVENTS:-5000}
export TICKETLOG_BROKER__EXCHANGE=ticketlog.demo TICKETLOG_BROKER__QUEUE=ticketlog.demo.log TICKETLOG_STORE__DATABASE=ticketlog_demo \
  TICKETLOG_DEAD_LETTER__EXCHANGE=ticketlog.demo.dlx TICKETLOG_DEAD_LETTER__QUEUE=ticketlog.demo.log.dead \
  TICKETLOG_DEAD_LETTER__PARKED_QUEUE=ticketlog.demo.log.parked
log=$(mktemp)
worker=
clean_up() {
  local status=$?
  [ -z "$worker" ] || kill "$worker" 2>/dev/null || true
  rm -f "$log"
  exit $status
}
trap clean_up EXIT
bold='' plain=''; [ ! -t 1 ] || { bold=$'\033[1m' plain=$'\033[0m'; }
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
get() {
  if command -v curl >/dev/null; then curl -sf -m 5 "http://$http/$1"
  else python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode(), end="")' "http://$http/$1" 2>/dev/null; fi
}
command -v curl >/dev/null || command -v python3 >/dev/null || { echo 'the demo needs curl or python3; install one of them' >&2; exit 69; }
value() { awk -v name="$1" '$1 == name { print $2; found = 1 } END { if (!found) print 0 }'; }

say "1. Exchanges, queues and indexes (ticketlog setup)"
"$ticketlog" setup

say "2. The worker starts (ticketlog run)"
"$ticketlog" run --set "http.listen=$http" --set log.format=text 2>"$log" & worker=$!
for _ in $(seq 300); do get readyz >/dev/null && break; kill -0 "$worker" 2>/dev/null || { cat "$log" >&2; exit 1; }; sleep 0.1; done
get readyz; echo "metrics: http://$http/metrics while it runs"

say "3. Publish $events ticket operations, of which two in a hundred are malformed (ticketlog publish)"
"$ticketlog" publish --generate "$events" --malformed 2 --seed "${TICKETLOG_DEMO_SEED:-$RANDOM}" --at now
for _ in $(seq 600); do
  metrics=$(get metrics)
  settled=$(awk '/^ticketlog_messages_settled_total/ { sum += $2 } END { print sum }' <<<"$metrics")
  [ "$settled" -ge "$events" ] && break; sleep 0.1
done

say "4. Their outcomes (from /metrics)"
awk '/^ticketlog_messages_(settled|received)_total|^ticketlog_messages_in_flight/ { printf "  %-62s %8d\n", $1, $2 }' <<<"$metrics"

say "5. The dead letters, by reason"
awk '/^ticketlog_dead_letters_total/ && $2 > 0 { split($1, part, "\""); printf "  %-24s %6d\n", part[2], $2 }' <<<"$metrics" | sort -k2 -rn

say "6. The last operations of the busiest user, as a reader of the log queries them"
"$(dirname "$ticketlog")/last_operations"

say "7. SIGTERM: the worker writes and settles what is in flight, and ends"
kill "$worker"; wait "$worker" && worker=; tail -n 2 "$log"
[ "$settled" -ge "$events" ] || { echo "only $settled of $events events were settled" >&2; exit 1; }
cat <<'T'

Next:
  make up                       servers that keep running; then: ticketlog run, ticketlog publish --generate 1000
  ticketlog config --default    every setting, explained
  README.md                     publishing from Node, Python and Rust; reading through Mongoose
T
