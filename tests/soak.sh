#!/usr/bin/env bash
# `make soak HOURS=2`: hours of load with faults on clusters of its own (tests/it/soak). A run of at least an hour writes its table into
# docs/develop/reliability.md; a shorter one only prints it. Ctrl-C ends the load early: the oracle still looks, and the table is written.
#
# in the environment: HOURS             how long, such as 2 or 0.1
#                     TICKETLOG_BIN     the program that runs [default: target/release/ticketlog]
#                     SOAK_SEED         repeats the order of the faults of a run that printed this seed
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
export HOURS=${HOURS:-2} TICKETLOG_BIN=${TICKETLOG_BIN:-$target/release/ticketlog} SOAK_TABLE=$target/soak.table
test=$(cargo test --no-run --test it --message-format json |
  python3 -c 'import json, sys; print(*(it["executable"] for it in map(json.loads, sys.stdin) if it.get("executable") and it["target"]["name"] == "it"))')
rm -f "$SOAK_TABLE"
write_table() {
  [ -e "$SOAK_TABLE" ] || return 0
  cat "$SOAK_TABLE"
  python3 - docs/develop/reliability.md "$SOAK_TABLE" "$HOURS" <<'P'
import re, sys
path, table, hours = sys.argv[1:]
if float(hours) < 1: sys.exit()
text, marked = open(path).read(), re.compile(r"(<!-- soak -->\n).*?(<!-- end soak -->)", re.S)
open(path, "w").write(marked.sub(lambda marks: marks.group(1) + open(table).read() + marks.group(2), text))
P
}
# In a session of its own, so that Ctrl-C does not reach the servers and the workers; it is passed on to the test alone.
RUST_BACKTRACE=0 setsid "$test" --ignored --exact soak::nothing_is_lost_and_nothing_grows --nocapture &
pid=$!
trap 'kill -INT $pid' INT TERM
failed=0
while kill -0 "$pid" 2>/dev/null; do wait "$pid" && failed=0 || failed=$?; done
write_table
exit "$failed"
