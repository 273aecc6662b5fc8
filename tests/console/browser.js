// Uses the console in a real browser, as an operator would: read, filter, find one, edit one, edit many, replay, a console that is killed,
// two people at once. Every page is checked by axe-core, at two widths and in both colour schemes; no page may ask another host,
// print an error on its console, or run a dead letter. With SCREENSHOTS=DIR pictures are written there.
"use strict";
const assert = require("node:assert");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const { MongoClient } = require("mongodb");
const { chromium } = require("playwright-core");

const axe = fs.readFileSync(require.resolve("axe-core"), "utf8");
const count = Number(process.env.COUNT);
const { TICKETLOG_BIN: program, STATE_DIR: state, CONSOLE_LISTEN: listen } = process.env;
const base = `http://${listen}`;
const screenshots = process.env.SCREENSHOTS;
let child;

async function startConsole() {
  const log = fs.openSync(`${state}.log`, "a");
  child = spawn(program, ["console", "--listen", listen, "--allow", "replay,edit,purge", "--state-dir", state, "--trust-queue"],
    { stdio: ["ignore", log, log] });
  for (let tries = 0; tries < 200; tries += 1) {
    try {
      if ((await fetch(`${base}/livez`)).ok) { return; }
    } catch { /* not yet */ }
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error("the console does not start");
}

async function killConsole() {
  const ended = new Promise((done) => child.once("exit", done));
  child.kill("SIGKILL");
  await ended;
}

async function watchedPage(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on("dialog", (dialog) => { throw new Error(`a dead letter opened a dialog: ${dialog.message()}`); });
  page.on("pageerror", (error) => { throw error; });
  page.on("console", (message) => {
    // While a console is killed, its pages cannot be updated.
    if (message.type() === "error" && !/ERR_CONNECTION|ERR_INCOMPLETE/.test(message.text())) { throw new Error(message.text()); }
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith("data:")) { throw new Error(`asks ${request.url()}`); }
  });
  return page;
}

async function check(page, name) {
  assert.strictEqual(await page.evaluate("window.harmed"), undefined, `${name}: a dead letter ran`);
  const session = await page.context().newCDPSession(page);
  const expression = `${axe};axe.run().then(found => JSON.stringify(found.violations.map(one => [one.id, one.nodes[0].html])))`;
  const { result } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  assert.strictEqual(result.value, "[]", `${name}: ${result.value}`);
  const tooWide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
  assert.ok(!await page.evaluate(tooWide), `${name} is wider than the window`);
  if (screenshots) { await page.screenshot({ path: `${screenshots}/${name}.png` }); }
}

const number = async (page, selector) => Number((await page.textContent(selector)).replace(/[^0-9]/g, ""));

async function read(page) {
  await page.goto(`${base}/`);
  await page.waitForSelector("text=1 of 1 worker is ready");
  assert.strictEqual(await number(page, ".tile .value"), count);
  await check(page, "console-now");
  await page.click("text=Dead letters >> nth=0");
  await page.waitForSelector("text=causes");
  await check(page, "console-groups");
  await page.selectOption("#reason", "invalid_field");
  await page.click("button:has-text('Filter')");
  assert.match(page.url(), /reason=invalid_field/);
  assert.strictEqual(await number(page, "main p strong"), count / 4);
  await page.click("text=List them");
  await page.waitForSelector("text=page 1 of");
  await check(page, "console-list");
  await page.fill("#text", "window.harmed");
  await page.click("button:has-text('Filter')");
  await page.click("tbody a >> nth=0");
  await page.waitForSelector("pre.body");
  await check(page, "hostile");
}

async function findOne(page) {
  await page.goto(`${base}/dead-letters`);
  await page.selectOption("[name=find_by]", "message_id");
  await page.fill("[name=find]", "m-0");
  await page.click("button:has-text('Find')");
  await page.waitForSelector("text=dead-lettered, in");
  await check(page, "console-find");
  const body = '"user_id":"n0"';
  assert.ok(!(await page.innerText("main")).includes(body), "a body is shown without a click");
  await page.click("button:has-text('Show the bodies')");
  await page.waitForFunction((body) => document.querySelector("main").innerText.includes(body), body);
  await page.click("text=Show this dead letter");
  await page.waitForSelector("pre.body");
  await page.selectOption("[name=find_by]", "uuid");
  await page.fill("[name=find]", "nothing");
  await page.click("button:has-text('Find')");
  await page.waitForSelector("text=not found: ");
  await check(page, "not-found");
}

async function editOne(page) {
  await page.goto(`${base}/dead-letters/list?reason=invalid_field&text=yesterday`);
  await page.goto(`${base}/dead-letters/list?reason=invalid_field&field=timestamp`);
  await page.click("tbody a >> nth=0");
  await page.waitForSelector("text=The worker would reject this");
  await page.fill("#body", '{"user_id": 4711, "status": "edited by hand"}');
  await page.waitForSelector("text=The worker would store this");
  await check(page, "console-dead-letter");
  await page.click("text=Forecast the replay");
  await page.click("button:has-text('Replay 1')");
  await page.waitForSelector("text=1 stored");
}

async function editMany(page) {
  await page.goto(`${base}/dead-letters?reason=not_an_object`);
  await page.click("text=Edit and replay…");
  assert.strictEqual(await page.inputValue("#expression"), ".[0]");
  await page.click("text=Show before and after");
  await page.waitForSelector("text=The first 10");
  await check(page, "console-forecast");
  const all = count / 12;
  assert.strictEqual(await number(page, "button:has-text('Replay')"), all);
  await page.click("button:has-text('Replay')");
  await page.waitForFunction((all) => document.body.innerText.includes(`${all} stored`), all);
  await check(page, "console-replay");
}

async function replayWhileKilled(page) {
  await page.goto(`${base}/dead-letters?reason=invalid_id`);
  await page.click("text=Edit and replay…");
  await page.click("text=Show before and after");
  await page.waitForSelector("text=The first 10");
  await page.fill("#rate", "50");
  await page.click("button:has-text('Replay')");
  await page.waitForFunction(() => Number(document.querySelector("progress")?.value) >= 20);
  await killConsole();
  await startConsole();
  await page.goto(`${base}/history`);
  await page.waitForSelector("text=interrupted");
  await check(page, "console-history");
  await page.goto(`${base}/dead-letters?reason=invalid_id`);
  await page.click("text=Edit and replay…");
  await page.click("text=Show before and after");
  await page.waitForSelector("text=The first 10");
  await page.click("button:has-text('Replay')");
  await page.waitForSelector("text=replayed in");
}

async function twoPeople(browser, page) {
  await page.goto(`${base}/dead-letters?reason=empty_body`);
  await page.click("text=Replay…");
  await page.click("button:has-text('Forecast')");
  await page.waitForSelector("text=would be dead-lettered again");
  await page.fill("#rate", "20");
  assert.strictEqual(await page.inputValue("#stop_after"), "100");
  await page.fill("#stop_after", "");
  await page.uncheck("input[name=skip_rejected]");
  await page.click("button:has-text('Replay')");
  await page.waitForSelector("progress");
  const other = await watchedPage(browser, { colorScheme: "dark" });
  await other.goto(`${base}/dead-letters`);
  await other.waitForSelector("text=is replaying, since");
  await check(other, "console-dark");
  await other.click("text=Show progress");
  await other.click("button:has-text('Stop')");
  await page.waitForSelector("text=replayed in");
  await other.context().close();
}

async function narrow(browser) {
  const page = await watchedPage(browser, { viewport: { width: 390, height: 844 } });
  for (const path of ["/", "/dead-letters", "/dead-letters/list?reason=invalid_field", "/history", "/act?action=edit", "/act?action=purge"]) {
    await page.goto(base + path);
    await check(page, path === "/dead-letters" ? "console-narrow" : "narrow");
  }
  await page.context().close();
}

(async () => {
  const store = await MongoClient.connect(process.env.TICKETLOG_STORE__URI);
  const documents = store.db(process.env.TICKETLOG_STORE__DATABASE).collection(process.env.TICKETLOG_STORE__COLLECTION);
  await startConsole();
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox"] });
  try {
    const page = await watchedPage(browser, {});
    await read(page);
    await findOne(page);
    await editOne(page);
    await editMany(page);
    await replayWhileKilled(page);
    await twoPeople(browser, page);
    await narrow(browser);
    const stored = 1 + count / 12 + count / 12;
    for (let tries = 0; await documents.countDocuments() !== stored && tries < 100; tries += 1) {
      await new Promise((done) => setTimeout(done, 100));
    }
    assert.strictEqual(await documents.countDocuments(), stored);
    // Nothing else has changed: all others are still dead letters.
    let dead;
    for (let tries = 0; tries < 100; tries += 1) {
      await page.goto(`${base}/`);
      dead = await number(page, ".tile .value");
      if (dead === count - stored) { break; }
      await new Promise((done) => setTimeout(done, 200));
    }
    assert.strictEqual(dead, count - stored);
    console.log(`console test: ${count} dead letters, ${stored} edited and stored once each, ${dead} as they were`);
  } finally {
    await browser.close();
    await killConsole();
    await store.close();
  }
})().catch((error) => { console.error(error); process.exit(1); });
