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
  rm -f "$log" "${published:-}"
  exit $status
}
trap clean_up EXIT
bold='' dim='' plain=''; [ ! -t 1 ] || [ -n "${NO_COLOR:-}" ] || { bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'; }
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
get() {
  if command -v curl >/dev/null; then curl -sf -m 5 "http://$http/$1"
  else python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode(), end="")' "http://$http/$1" 2>/dev/null; fi
}
command -v curl >/dev/null || command -v python3 >/dev/null || { echo 'the demo needs curl or python3; install one of them' >&2; exit 69; }
show() { # prints the command as one types it, and runs it
  local argument words=
  for argument in "$@"; do case $argument in *[\ \"]*) words+=" '$argument'" ;; *) words+=" $argument" ;; esac; done
  printf '%s$ ticketlog%s%s\n' "$dim" "$words" "$plain"; "$ticketlog" "$@"
}
start() {
  "$ticketlog" run --set "http.listen=$http" --set log.format=text 2>>"$log" & worker=$!
  for _ in $(seq 300); do get readyz >/dev/null && return; kill -0 "$worker" 2>/dev/null || { cat "$log" >&2; exit 1; }; sleep 0.1; done
  cat "$log" >&2; exit 1
}
stored() { "$(dirname "$ticketlog")/last_operations" total; }
dead() { "$ticketlog" dead stats --json 2>/dev/null | sed -n 's/.*"count":\([0-9]*\),"newest".*/\1/p'; }
live() { # TEXT: on a terminal one line that changes, else nothing
  [ ! -t 1 ] || printf '\r\033[K  %s' "$1"
}

say "1. Exchanges, queues and indexes"
show setup

say "2. A worker starts"
start; echo "  $(get readyz): http://$http/status"

say "3. $events ticket operations are published, two in a hundred of them malformed. Meanwhile the worker is killed (SIGKILL)"
published=$(mktemp)
"$ticketlog" publish --generate "$events" --rate 2000 --malformed 2 --seed "${TICKETLOG_DEMO_SEED:-$RANDOM}" --at now --json >"$published" 2>/dev/null & publisher=$!
killed=
for _ in $(seq 600); do
  now=$(stored)
  live "$now stored${killed:+, after the crash}"
  if [ -z "$killed" ] && [ "$now" -gt $((events / 3)) ]; then
    kill -KILL "$worker"; wait "$worker" 2>/dev/null || true
    killed=$now; live ""; printf '\r  killed with %s events stored and others in flight; a new worker starts\n' "$now"
    start
  fi
  kill -0 "$publisher" 2>/dev/null || break
  sleep 0.2
done
wait "$publisher"; malformed=$(sed -n 's/.*"malformed":\([0-9]*\).*/\1/p' "$published")
for _ in $(seq 300); do
  [ "$(($(stored) + $(dead)))" -lt "$events" ] || break
  live "$(stored) stored, waiting for the rest"; sleep 0.2
done
live ""

say "4. The books"
good=$(stored) bad=$(dead) sum=
printf '\r  %7d  published, %d of them malformed\n' "$events" "$malformed"
printf -- '- %7d  stored in MongoDB\n- %7d  dead letters\n' "$good" "$bad"
sum=$((events - good - bad)); printf '= %7d  %s\n' "$sum" "$([ "$sum" = 0 ] && echo 'nothing is lost, nothing is stored twice' || echo 'DOES NOT BALANCE')"
if [ "$sum" != 0 ] || [ "$bad" != "$malformed" ]; then echo "the books do not balance" >&2; exit 1; fi

say "5. Why there are dead letters"
show dead stats 2>/dev/null | sed -n '/reason/,/^$/p'

say "6. One of them, with the fault marked"
one=$("$ticketlog" dead list --reason invalid_field --field user_id --json --limit 1 2>/dev/null | sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p')
show dead show "$one" 2>/dev/null | sed -n '1,6p;/^body/,$p'

say "7. It is edited and replayed"
show dead replay --yes --id "$one" --edit '.user_id = 4711' --no-backup --follow --status "http://$http" 2>/dev/null

say "8. What a reader of the log sees"
"$(dirname "$ticketlog")/last_operations" 4711 1
"$(dirname "$ticketlog")/last_operations"

say "9. SIGTERM: the worker writes and settles what is in flight, and ends"
kill "$worker"; wait "$worker" && worker=; tail -n 1 "$log"
cat <<T

Next:
  make up                                  servers that keep running; prints what to export
  $ticketlog run                 a worker for them
  $ticketlog publish --generate 1000
  $ticketlog status              what the worker does
  $ticketlog config --default    every setting, explained
docs/README.md lists all pages: how to publish, read the log, install and operate.
T
