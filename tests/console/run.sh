#!/usr/bin/env bash
# Tests the console in Chromium, with 2,400 dead letters of a Node publisher. Run by `make console-test`, which starts the
# servers. The packages for Node are installed in target/console-test; Chromium must be installed (CHROMIUM names it).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/target/console-test; mkdir -p "$work"
cp "$root"/tests/console/*.js* "$work/"
[ -d "$work/node_modules/playwright-core" ] || (cd "$work" && npm install --no-package-lock --no-audit --no-fund --silent)
name=console_$$
export COUNT=2400 TICKETLOG_BIN=$root/target/debug/ticketlog STATE_DIR=$work/$name CONSOLE_LISTEN=127.0.0.1:${CONSOLE_PORT:-19472}
export TICKETLOG_BROKER__EXCHANGE=$name TICKETLOG_BROKER__QUEUE=$name.q TICKETLOG_DEAD_LETTER__EXCHANGE=$name.dlx \
  TICKETLOG_DEAD_LETTER__QUEUE=$name.dead TICKETLOG_DEAD_LETTER__PARKED_QUEUE=$name.parked TICKETLOG_STORE__DATABASE=$name \
  TICKETLOG_STORE__COLLECTION=bytemark_tickets_log TICKETLOG_HTTP__LISTEN=127.0.0.1:${TICKETLOG_INTEROP_PORT:-19471}
"$TICKETLOG_BIN" setup >/dev/null
"$TICKETLOG_BIN" run 2>"$work/worker.log" & worker=$!
trap 'kill $worker 2>/dev/null || true; wait $worker || true; rm -rf "$STATE_DIR" "$STATE_DIR.log"' EXIT
node "$work/publish.js" "$COUNT"
for _ in $(seq 100); do [ "$("$TICKETLOG_BIN" status --json | grep -c '"dead_letters":2400.0')" -eq 1 ] && break; sleep 0.2; done
node "$work/browser.js"
