#!/usr/bin/env bash
# `make worlds`: runs the integration tests again where the world differs from this machine, and writes the results into
# docs/develop/reliability.md, between its markers. What differs is applied in tests/it/harness/world.rs; tests that make no sense in a
# world are listed, with reasons, in .config/nextest.toml.
#
# usage: worlds.sh [clocks] [logins] [delay] [cluster]     all four by default
set -euo pipefail
cd "$(dirname "$0")/.."
services=deploy/local/services.sh
[ $# -gt 0 ] || set -- clocks logins delay cluster
table=$(mktemp) failed=

declare -A description=(
  [clocks]='every worker'"'"'s clock a minute behind, that of all other commands a minute ahead'
  [logins]='the logins of `deploy/` with the least privileges for worker and operator, over TLS'
  [delay]='20 ms of round trip to both servers'
  [cluster]='RabbitMQ as a cluster of three nodes'
)

# The users of deploy/rabbitmq/permissions.json, with the patterns changed for the names that tests use.
create_logins() {
  python3 - deploy/rabbitmq/permissions.json <<'P' |
import json, sys
definitions = json.load(open(sys.argv[1]))
names = [("bytemark\\.tickets\\.log\\.", "t[0-9a-f]+\\."), ("log\\.", ""), ("bytemark\\.tickets\\.log", "t[0-9a-f]+\\.q"),
         ("bytemark\\.tickets", "t[0-9a-f]+")]
for permission in definitions["permissions"]:
    patterns = [permission[key] for key in ("configure", "write", "read")]
    for old, new in names:
        patterns = [pattern.replace(old, new) for pattern in patterns]
    print(permission["user"], *patterns)
P
  while read -r user configure write read; do
    # shellcheck disable=SC2086
    "$services" ctl $TICKETLOG_LOCAL_RABBITMQ add_user "$user" secret
    # shellcheck disable=SC2086
    "$services" ctl $TICKETLOG_LOCAL_RABBITMQ set_permissions "$user" "$configure" "$write" "$read"
  done
}

run_tests() { # in the environment of services.sh
  [ "$TICKETLOG_TEST_WORLD" != logins ] || create_logins
  # One attempt: a second one hides what only this world shows.
  env -u TICKETLOG_LOCAL_LOGINS -u TICKETLOG_LOCAL_CLUSTER -u WORLD_STEP cargo nextest run --profile "world-$TICKETLOG_TEST_WORLD" --test it --retries 0 "${filter[@]}"
}

if [ "${WORLD_STEP:-}" = tests ]; then
  filter=(); [ -z "${FILTER:-}" ] || filter=(-E "$FILTER")
  run_tests; exit
fi
for world in "$@"; do
  log=$(mktemp)
  export TICKETLOG_TEST_WORLD=$world TICKETLOG_SERVICES=native WORLD_STEP=tests
  unset TICKETLOG_LOCAL_LOGINS TICKETLOG_LOCAL_CLUSTER
  [ "$world" != logins ] || export TICKETLOG_LOCAL_LOGINS=1
  [ "$world" != cluster ] || export TICKETLOG_LOCAL_CLUSTER=1
  "$services" run "$0" 2>&1 | tee "$log" || failed=1
  summary=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -E 'tests? run:' | tail -n 1)
  count() { grep -oE "[0-9]+ $1" <<<"$summary" | grep -oE '[0-9]+' || echo 0; }
  echo "| ${description[$world]} | $(count 'tests? run') | $(count passed) | $(count skipped) | $(date -u +%F) |" >>"$table"
  rm -f "$log"
done
[ -n "${FILTER:-}" ] || python3 - docs/develop/reliability.md "$table" <<'P'
import re, sys
path, table = sys.argv[1:]
text, rows = open(path).read(), open(table).read()
marked = re.search(r"<!-- worlds -->\n(.*?)<!-- end worlds -->", text, re.S)
worlds = {row.split("|")[1]: row for row in (marked.group(1) + rows).splitlines(True) if not row.startswith(("| what", "|---"))}
head = "| what differs | integration tests | passed | left out | date |\n|---|---|---|---|---|\n"
open(path, "w").write(text[: marked.start(1)] + head + "".join(worlds.values()) + text[marked.end(1):])
P
cat "$table"; rm -f "$table"
[ -z "$failed" ]
