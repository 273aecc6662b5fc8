#!/usr/bin/env bash
# Takes pictures of the dashboards for the documentation, with Chromium: docs/images/NAME.png. Needs a Grafana that shows them, with
# something to see; node, npm and chromium (CHROMIUM names it); pngquant makes the files smaller.
# usage: screenshots.sh [PAGE]   the address of a dashboard's page; {name} and {uid} stand for those of each dashboard
#                                [default: http://127.0.0.1:3000/d/{uid}?kiosk&theme=dark&from=now-15m&to=now, that of the compose file]
#   GRAFANA_LOGIN=USER:PASSWORD  a login for it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
page=${1:-http://127.0.0.1:3000/d/{uid\}?kiosk&theme=dark&from=now-15m&to=now}
work=target/screenshots; mkdir -p "$work"
[ -d "$work/node_modules/playwright-core" ] || npm install --prefix "$work" --no-package-lock --no-audit --no-fund --silent playwright-core@1
cat >"$work/take.mjs" <<'J'
import { basename } from "node:path";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [template, ...files] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
const login = process.env.GRAFANA_LOGIN;
const headers = login ? { Authorization: `Basic ${Buffer.from(login).toString("base64")}` } : {};
for (const file of files) {
  const [name, { uid }] = [basename(file, ".json"), JSON.parse(readFileSync(file))];
  const page = await browser.newPage({ viewport: { width: 1616, height: 900 }, deviceScaleFactor: 0.75, extraHTTPHeaders: headers });
  const answer = await page.goto(template.replaceAll("{name}", name).replaceAll("{uid}", uid), { waitUntil: "load", timeout: 120_000 });
  if (!answer.ok()) { throw new Error(`${page.url()}: ${answer.status()}`); }
  // Panels are drawn when their queries have answered, which no event tells.
  await page.waitForTimeout(10_000);
  await page.screenshot({ path: `docs/images/${name}.png`, fullPage: true });
  console.log(`docs/images/${name}.png`);
  await page.close();
}
await browser.close();
J
node "$work/take.mjs" "$page" deploy/grafana/dashboards/*.json
! command -v pngquant >/dev/null || pngquant --force --ext .png 64 docs/images/{overview,pipeline,dependencies,dead-letters}.png
