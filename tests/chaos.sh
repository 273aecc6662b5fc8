#!/usr/bin/env bash
# `make chaos`: runs every fault at full length and writes the reports of the oracle into docs/develop/reliability.md, between the
# markers of this version of RabbitMQ. Needs the servers in the environment (deploy/local/services.sh run).
set -euo pipefail
cd "$(dirname "$0")/.."
export TICKETLOG_CHAOS_TABLE=$PWD/target/chaos.table
mkdir -p target; rm -f "$TICKETLOG_CHAOS_TABLE"
cargo nextest run --test it --profile chaos --run-ignored all -E 'test(/^(cluster|outages|connection_faults|dependency_faults|server_faults|dead_letter_faults|security|alerting)::/)'
version() { # of the server at a URI: from the AMQP handshake, or from MongoDB's buildInfo
  python3 - "$1" <<'P'
import re, socket, sys
host, port = re.search(r"(?:@|//)([^/:@,]+):(\d+)", sys.argv[1]).groups()
with socket.create_connection((host, int(port)), timeout=10) as server:
    if sys.argv[1].startswith("amqp"):
        server.sendall(b"AMQP\0\0\x09\x01")
        print("RabbitMQ " + re.search(rb"\x07versionS\0\0\0.([0-9.]+)", server.recv(4096)).group(1).decode())
    else:
        command = b"\x10buildInfo\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0"
        body = b"\0\0\0\0\0" + (len(command) + 5).to_bytes(4, "little") + command + b"\0"
        server.sendall((len(body) + 16).to_bytes(4, "little") + b"\1\0\0\0\0\0\0\0\xdd\7\0\0" + body)
        print("MongoDB " + re.search(rb"\x02version\0....([0-9.]+)", server.recv(65536), re.S).group(1).decode())
P
}
broker=$(version "$TICKETLOG_BROKER__URI")
table=$(mktemp)
{
  printf '%s, %s, ticketlog %s, %s.\n\n' "$broker" "$(version "$TICKETLOG_STORE__URI")" \
    "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" "$(date -u +%F)"
  echo '| fault | attempted | stored | duplicate | dead-lettered | returned | lost | doubled | unexpected |'
  echo '|---|---|---|---|---|---|---|---|---|'
  sort -t' ' -k2n "$TICKETLOG_CHAOS_TABLE"
} >"$table"
python3 - docs/develop/reliability.md "$table" "$broker" <<'P'
import re, sys
path, table, broker = sys.argv[1:]
text = open(path).read()
version = re.escape(re.search(r"\d+\.\d+", broker).group())
marked = re.compile(rf"(<!-- chaos {version} -->\n).*?(<!-- end {version} -->)", re.S)
if not marked.search(text): sys.exit(f"{path} has no markers for {broker}")
open(path, "w").write(marked.sub(lambda marks: marks.group(1) + open(table).read() + marks.group(2), text))
P
cat "$table"; rm -f "$table"
