#!/usr/bin/env bash
# Tests the formats of `ticketlog contract` with the tools of publishers: 12,000 random events against its JSON Schema (ajv, Python's
# jsonschema), its types (tsc --strict), its AsyncAPI document. Run by `make interop`; needs no servers. Packages are in target/interop.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ticketlog=$root/target/debug/ticketlog
work=$root/target/interop/contract; mkdir -p "$work"
cp "$root/tests/interop/contract.js" "$root/tests/interop/contract.py" "$work/"
cd "$work"; echo "{ \"private\": true }" >package.json # or npm installs into the folder above
[ -d node_modules/@asyncapi/parser ] || npm install --no-audit --no-fund --loglevel=error ajv@8.20.0 @asyncapi/parser@3.6.6 typescript@5.9.3
[ -d python/jsonschema ] ||
  python3 -m pip install -q --root-user-action ignore --upgrade --target python jsonschema==4.26.0
: >defaults.toml
cat >other.toml <<'TOML'
[store]
retention = "30days"
[event]
max_bytes = "1MiB"
[event.fields]
user_id = { type = "number", required = true }
timestamp = { type = "number" }
uuid = { type = "string", required = true }
details = { type = "any", required = true }
status = { type = "any" }
[route.refresh-2]
queue = "refresh.log"
routing_keys = ["ticket_refresh.#", "again.*.late"]
collection = "refresh_log"
fields = { n = { type = "number", required = true } }
TOML
node contract.js events 12000 >events.ndjson
for config in defaults other; do
  code=0; "$ticketlog" validate --json --route main --config $config.toml events.ndjson >outcomes.ndjson || code=$?
  [ $code -eq 65 ] || { echo "validate: exit code $code" >&2; exit 1; }
  for strict in "" --strict; do
    echo "$config.toml $strict"
    "$ticketlog" contract --format json-schema --route main --config $config.toml ${strict:+"$strict"} >schema.json
    node contract.js ajv schema.json events.ndjson outcomes.ndjson
    PYTHONPATH=python python3 contract.py schema.json events.ndjson outcomes.ndjson
    "$ticketlog" contract --format asyncapi --config $config.toml ${strict:+"$strict"} >asyncapi.json
    node contract.js asyncapi asyncapi.json
    "$ticketlog" contract --format typescript --config $config.toml ${strict:+"$strict"} >"$config$strict.ts"
  done
done

# The README's own event has the type, misspelt and wrong ones do not.
event=$(sed -n '/^```json$/,/^```$/{/^```/d;p;/^$/q}' "$root/README.md" | sed '/"_id"/,$d')
cat >events.ts <<TS
import type { MainEvent as Plain } from "./defaults"
import type { MainEvent as Strict } from "./defaults--strict"
import type { MainEvent as Required, Refresh2Event } from "./other"
export const plain: Plain = $event
export const strict: Strict = $event
export const other: [Required, Refresh2Event] = [{ user_id: 1, uuid: "u", details: {} }, { n: "1" }]
// @ts-expect-error
export const misspelt: Strict = { userId: 42 }
// @ts-expect-error
export const beside: Strict = { ...strict, userId: 42 }
// @ts-expect-error
export const boolean: Plain = { user_id: true }
// @ts-expect-error
export const withoutDetails: Required = { user_id: 1, uuid: "u" }
// @ts-expect-error
export const reserved: Required = { ...other[0], ingested_at: 1 }
TS
cat >tsconfig.json <<'JSON'
{ "compilerOptions": { "strict": true, "exactOptionalPropertyTypes": true, "noEmit": true, "target": "es2022", "types": [] },
  "include": ["*.ts"] }
JSON
node_modules/.bin/tsc -p .
echo 'TypeScript: accepted and rejected as expected'
