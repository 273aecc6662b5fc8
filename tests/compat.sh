#!/usr/bin/env bash
# `make compat`: runs the integration tests on every version of RabbitMQ that deploy/local/services.sh can provide, and writes
# the results into docs/develop/reliability.md, between its markers.
set -euo pipefail
cd "$(dirname "$0")/.."
table=$(mktemp) failed=
echo '| RabbitMQ | integration tests | passed | date |' >"$table"
echo '|---|---|---|---|' >>"$table"
for version in ${RABBITMQ:-3.10 4.0 4.3}; do
  log=$(mktemp)
  export RABBITMQ=$version TICKETLOG_SERVICES=native
  # shellcheck disable=SC2016
  deploy/local/services.sh run bash -c '
    python3 - "$TICKETLOG_BROKER__URI" <<P
import re, socket, sys
host, port = re.search(r"@([^:]+):(\d+)", sys.argv[1]).groups()
with socket.create_connection((host, int(port)), timeout=10) as server:
    server.sendall(b"AMQP\0\0\x09\x01")
    print("version", re.search(rb"\x07versionS\0\0\0.([0-9.]+)", server.recv(4096)).group(1).decode())
P
    cargo nextest run --test it --retries 0' 2>&1 | tee "$log" || failed=1
  exact=$(sed -n 's/^version //p' "$log")
  summary=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -E 'tests? run:' | tail -n 1)
  run=$(grep -oE '[0-9]+ tests? run' <<<"$summary" | grep -oE '[0-9]+') passed=$(grep -oE '[0-9]+ passed' <<<"$summary" | grep -oE '[0-9]+')
  echo "| $exact | $run | $passed | $(date -u +%F) |" >>"$table"
  rm -f "$log"
done
python3 - docs/develop/reliability.md "$table" <<'P'
import re, sys
path, table = sys.argv[1:]
text = open(path).read()
marked = re.compile(r"(<!-- compat -->\n).*?(<!-- end compat -->)", re.S)
open(path, "w").write(marked.sub(lambda marks: marks.group(1) + open(table).read() + marks.group(2), text))
P
cat "$table"; rm -f "$table"
[ -z "$failed" ]
