#!/usr/bin/env bash
# Tests the image together with docker-compose.yml; needs a Docker engine. Builds the image, starts everything with its own
# project name, passwords and free ports, publishes 1,000 events of which one in a hundred is malformed, and checks that the
# good ones are stored and the malformed ones are dead letters, also in the console. Always removes everything again, except the
# image ticketlog:try.
#
#   TICKETLOG_IMAGE=NAME               tests this image, and builds none
#   TICKETLOG_TRY_BUILD="FLAGS"        more flags for `docker build`, such as --network host
#   TICKETLOG_RABBITMQ_IMAGE=NAME      instead of the compose file's image; so for MONGODB, PROMETHEUS and GRAFANA
#   TICKETLOG_TRY_WITHOUT="SERVICE…"   leaves out services whose images are not available: grafana, prometheus
# exit code: 0 success, 1 failure, 69 no Docker engine
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec </dev/null
events=1000
project=ticketlog-try-$$
say() { printf 'try: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

if ! command -v docker >/dev/null || ! timeout 10 docker info >/dev/null 2>&1; then say "no Docker engine answers; start Docker"; exit 69; fi
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose() { "${compose[@]}" --profile console --env-file "$own/.env" -p "$project" -f docker-compose.yml "$@"; }
ticketlog() { compose exec -T ticketlog /usr/local/bin/ticketlog "$@"; }

ended() {
  local status=$?
  [ $status -eq 0 ] || compose logs --tail=30 >&2 || true
  compose down -v --remove-orphans >/dev/null 2>&1 || say "could not remove the containers of project $project"
  rm -rf "$own"
  exit $status
}

wait_for() { # WHAT SECONDS COMMAND…: until COMMAND succeeds
  local what=$1 until=$((SECONDS + $2)); shift 2
  until "$@" >"$own/last" 2>&1; do
    [ $SECONDS -lt $until ] || { cat "$own/last" >&2; die "timed out waiting until $what"; }
    sleep 1
  done
  say "$what"
}

healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(compose ps -q "$1")")" = healthy ]; }
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; } # the number of a key in JSON
stored() { compose exec -T mongodb mongosh --quiet cache --eval 'print(db.bytemark_tickets_log.countDocuments())' | tr -d '\r'; }
dead() { ticketlog dead stats 2>/dev/null | sed -n '1s/.*: \([0-9]*\) dead letter.*/\1/p'; }
all_stored() { local count; count=$(stored); echo "$count documents, $((events - malformed)) expected"; [ "$count" = $((events - malformed)) ]; }
all_dead() { local count; count=$(dead); echo "$count dead letters, $malformed expected"; [ "$count" = "$malformed" ]; }
in_console() {
  local address; address=$(compose port console 9465)
  curl -sf -m 5 -H "Host: localhost" -H "Authorization: Bearer $token" "http://$address/dead-letters" | grep -q "$malformed dead letters"
}
scraped() {
  local up; up=$(compose exec -T prometheus promtool query instant http://127.0.0.1:9090 'up{job="ticketlog"}')
  echo "$up"; [[ $up == *'=> 1 '* ]]
}

if [ -z "${TICKETLOG_IMAGE:-}" ]; then
  say "building the image"
  # shellcheck disable=SC2086
  docker build ${TICKETLOG_TRY_BUILD:-} -f deploy/docker/Dockerfile -t ticketlog:try .
fi

services=()
for name in rabbitmq mongodb ticketlog console prometheus grafana; do
  [[ " ${TICKETLOG_TRY_WITHOUT:-} " == *" $name "* ]] || services+=("$name")
done
own=$(mktemp -d)
trap ended EXIT
trap 'exit 130' INT TERM
# The environment would override the file.
for name in $(compgen -e | grep '^TICKETLOG_' | grep -v '^TICKETLOG_\(TRY_\|.*IMAGE$\)'); do unset "$name"; done
{
  for name in RABBITMQ GRAFANA; do echo "TICKETLOG_${name}_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"; done
  # Port 0 stands for any free port.
  for name in HTTP CONSOLE RABBITMQ MANAGEMENT MONGODB PROMETHEUS GRAFANA; do echo "TICKETLOG_${name}_PORT=0"; done
  echo "TICKETLOG_IMAGE=${TICKETLOG_IMAGE:-ticketlog:try}"
  echo "TICKETLOG_CONSOLE_TOKENS_FILE=$own/tokens.toml"
  compgen -e | grep '^TICKETLOG_.*_IMAGE$' | while read -r name; do echo "$name=${!name}"; done
} >"$own/.env"

token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
echo "try = { token = \"$token\", roles = [\"view\"] }" >"$own/tokens.toml"
chmod 600 "$own/tokens.toml"
chown 65532 "$own/tokens.toml" 2>"$own/last" \
  || docker run --rm --user 0 --entrypoint chown -v "$own:/own" "${TICKETLOG_IMAGE:-ticketlog:try}" 65532 /own/tokens.toml

say "starting ${services[*]}"
compose up -d --no-build "${services[@]}"
for name in "${services[@]}"; do wait_for "$name is healthy" 180 healthy "$name"; done
wait_for "the worker is ready" 60 ticketlog health --ready

summary=$(compose run --rm -T ticketlog publish --generate $events --malformed 1 --json)
malformed=$(number malformed <<<"$summary")
[ "$(number confirmed <<<"$summary")" = $events ] || die "not all events were published: $summary"
say "published $events events, $malformed of them malformed"
wait_for "the good events are in MongoDB" 60 all_stored
wait_for "the malformed events are dead letters" 60 all_dead
[[ " ${services[*]} " != *" prometheus "* ]] || wait_for "Prometheus scrapes the worker" 60 scraped
[[ " ${services[*]} " != *" console "* ]] || wait_for "the console shows the dead letters" 60 in_console
worker=$(compose ps -q ticketlog)
compose stop ticketlog
[ "$(docker inspect -f '{{.State.ExitCode}}' "$worker")" = 0 ] || die "the worker did not stop with exit code 0"
say "the worker stopped with exit code 0; all checks passed"
