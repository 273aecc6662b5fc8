#!/usr/bin/env bash
# Tests the examples for publishers (examples/publish), as they are: over TLS, with a restart of RabbitMQ in the middle, with a
# routing key that no queue is bound for, and with an exchange that does not exist. Run by tests/interop/run.sh, which has
# installed their packages in target/interop; needs TICKETLOG_STORE__URI.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/target/interop services=$root/deploy/local/services.sh
events=2000 # for each client, over some seconds, so that the restart hits all of them
run=$(mktemp -d); port=$((24000 + RANDOM % 900 * 4))
mkdir -p "$run/rabbitmq"; tls=$run/rabbitmq/tls.pem
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
  -addext basicConstraints=critical,CA:FALSE -keyout "$tls.key" -out "$tls" 2>/dev/null
printf '%s\n' "listeners.ssl.default = 127.0.0.1:$((port + 3))" "ssl_options.certfile = $tls" "ssl_options.keyfile = $tls.key" \
  "ssl_options.cacertfile = $tls" 'ssl_options.verify = verify_none' >"$run/rabbitmq/extra.conf"
exec 7> >("$services" rabbitmq "$run/rabbitmq" "$port" >"$run/server.log" 2>&1); server=$!
worker=
finish() { [ -z "$worker" ] || { kill "$worker" && wait "$worker"; } || true; exec 7>&-; wait "$server" || true; rm -rf "$run"; }
trap finish EXIT
until grep -q '^ready' "$run/server.log"; do kill -0 "$server"; sleep 0.2; done

name=publishers_$$
export TICKETLOG_BROKER__EXCHANGE=$name TICKETLOG_BROKER__QUEUE=$name.q TICKETLOG_DEAD_LETTER__EXCHANGE=$name.dlx \
  TICKETLOG_DEAD_LETTER__QUEUE=$name.dead TICKETLOG_DEAD_LETTER__PARKED_QUEUE=$name.parked TICKETLOG_STORE__DATABASE=$name \
  TICKETLOG_STORE__COLLECTION=bytemark_tickets_log TICKETLOG_HTTP__LISTEN=127.0.0.1:${TICKETLOG_INTEROP_PORT:-19470} \
  TICKETLOG_BROKER__URI=amqp://guest:guest@127.0.0.1:$port/%2f
"$root/target/debug/ticketlog" setup >/dev/null
"$root/target/debug/ticketlog" run 2>"$run/worker.log" & worker=$!

export RABBITMQ_URL=amqps://guest:guest@127.0.0.1:$((port + 3))/%2f RABBITMQ_CA=$tls EXCHANGE=$name APP_ID=interop
export PYTHONPATH=$work/python
client() { # NAME [ROUTING_KEY]
  case $1 in
    node) node "$work/publishers/publisher.mjs" "${@:2}" ;;
    pika) python3 "$root/examples/publish/publisher_pika.py" "${@:2}" ;;
    aio_pika) python3 "$root/examples/publish/publisher_aio_pika.py" "${@:2}" ;;
    lapin) "$root/target/debug/publisher" "${@:2}" ;;
  esac
}
generate() { # NAME COUNT PAUSE: events with different uuids
  python3 -c '
import json, sys, time
for n in range(int(sys.argv[2])):
    print(json.dumps({"user_id": n % 7, "timestamp": int(time.time() * 1000), "uuid": f"{sys.argv[1]}-{n}", "status": "success"}), flush=True)
    time.sleep(float(sys.argv[3]))' "$@"
}
is() { [ "$2" = "$3" ] || { echo "$1: $2, expected $3" >&2; tail -n 3 "$run"/*.err >&2; exit 1; }; }

clients=(node pika aio_pika lapin) running=()
for c in "${clients[@]}"; do
  (generate "$c" $events 0.0015 | client "$c" >"$run/$c.out" 2>"$run/$c.err") & running+=("$!")
done
sleep 1.5
"$services" ctl "$run/rabbitmq" "$port" stop_app >/dev/null; "$services" ctl "$run/rabbitmq" "$port" start_app >/dev/null
for at in "${running[@]}"; do wait "$at" || { tail -n 5 "$run"/*.err >&2; exit 1; }; done
for c in "${clients[@]}"; do
  is "$c" "$(tr -d ' ' <"$run/$c.out")" "{\"confirmed\":$events,\"failed\":0}"
  grep -q 'trying again' "$run/$c.err" || { echo "$c did not notice the restart" >&2; exit 1; }
done
node "$work/stored.js" $((events * ${#clients[@]}))
for c in "${clients[@]}"; do
  for lost in "$name unbound.key" "$name.missing ticket.purchase"; do
    read -r exchange key <<<"$lost"; status=0
    generate "lost-$c" 3 0 | EXCHANGE=$exchange client "$c" "$key" >"$run/$c.out" 2>"$run/$c.err" || status=$?
    is "$c, $lost" "$(tr -d ' ' <"$run/$c.out") $status $(grep -c 'not published' "$run/$c.err")" '{"confirmed":0,"failed":3} 1 3'
  done
done
echo "examples for publishers: ${clients[*]}: $events events each over a restart of RabbitMQ, each stored once; an unbound routing" \
  "key and a missing exchange are an error for each event"
