// The formats of `ticketlog contract`, with the libraries of Node: random events for its JSON Schema, ajv, the parser of AsyncAPI.
const fs = require("fs")
const lines = (file) => fs.readFileSync(file, "utf8").trimEnd().split("\n")

// Raw JSON, or nearly: what no library would write is here as well.
const NUMBERS = ["0", "-0", "1", "42", "2.75", "1e3", "1796040000000", "1796040000", "9007199254740993", "18446744073709551615",
  "1e-400", "1.7976931348623157e308", "1.797693134862315807e308", "1.7976931348623159e308", "-1.7976931348623159e308", "1e309", "1e400",
  "-1e400", "9".repeat(308), "9".repeat(309), "9".repeat(400), "NaN", "Infinity", "-Infinity"]
const TEXTS = ["", " ", "success", "42", "-7.25", "007", " 12 ", "42\n", "1e5", "1e400", "0x1f", "9".repeat(15), "9".repeat(16), "9".repeat(400),
  "abc", "true", "Infinity", "undefined", "٤٢", "a\u0000b", "😀", "\ud83d", "a".repeat(24), "a".repeat(24) + "\n", "A1".repeat(12), "a".repeat(25),
  "g".repeat(24), "2026-11-28T10:00:00Z"].map((text) => JSON.stringify(text))
const KEYS = ["", "a", "b.c", "$d", "__proto__", "constructor", "operation_type", "k\n", "\ud83d", "a\u0000b", "\u0000", "userId", "Status", "USER_ID"]
const FIELDS = ["user_id", "timestamp", "uuid", "status", "n", "details", "_id", "ingested_at"]
const FINE = { user_id: ["42", '"42"', "9007199254740991", "null"], timestamp: ["1796040000000", "1796040000000.5"], uuid: ['"3f1c"'], n: ["1", '"1"'],
  status: ['"success"', '"failed"'], details: ["{}", "true", '[{"a":1}]'], _id: ["null", '"0123456789abcdefABCDEF01"'], ingested_at: ["1"] }

let state = Number(process.env.SEED || 30)
function below(count) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * count)
}
const pick = (list) => list[below(list.length)]
const object = (members) => `{${[...members].map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(",")}}`

function value(depth) {
  const kind = below(depth > 4 ? 3 : 5)
  if (kind === 0) return below(2) ? pick(["true", "false", "null"]) : pick(NUMBERS)
  if (kind < 3) return below(4) ? pick(TEXTS) : pick(["1", "2.5"])
  const several = Array.from({ length: below(4) }, () => value(depth + 1))
  return kind === 3 ? `[${several.join(",")}]` : object(new Map(several.map((each) => [below(9) ? pick(KEYS.slice(0, 9)) : pick(KEYS), each])))
}

function event() {
  const members = new Map()
  const strangeness = below(4)
  for (const field of FIELDS) {
    const rare = field === "_id" || field === "ingested_at"
    if (below(10) < (rare ? 1 : 9)) members.set(field, below(10) < strangeness ? value(0) : pick(FINE[field]))
  }
  for (let count = below(3); count > 0; count--) members.set(below(9) ? pick(KEYS.slice(0, 9)) : pick(KEYS), value(1))
  return object(members)
}

const commands = {
  events: (count) => { for (let n = 0; n < count; n++) console.log(event()) },

  // What matches the schema would be stored; what matches the strict one, without findings.
  ajv(schema, events, outcomes) {
    const problems = []
    const log = (text) => problems.push(text)
    const Ajv = require("ajv/dist/2020").default
    const parsedSchema = JSON.parse(fs.readFileSync(schema, "utf8"))
    const isStrict = parsedSchema.$id.endsWith(":strict")
    const validate = new Ajv({ strict: true, logger: { log, warn: log, error: log } }).compile(parsedSchema)
    const settled = lines(outcomes).map((line) => JSON.parse(line))
    let matching = 0
    lines(events).forEach((line, at) => {
      let parsed
      try { parsed = JSON.parse(line) } catch { return }
      if (!validate(parsed)) return
      matching++
      const { outcome, reason, detail, findings } = settled[at]
      if (outcome !== "stored") problems.push(`${line} matches, but ${reason}: ${detail}`)
      // The identity may be in the properties of the message.
      const kinds = (findings || []).map(({ kind }) => kind).filter((kind) => kind !== "no_identity")
      if (isStrict && kinds.length > 0) problems.push(`${line} matches strictly, but ${kinds}`)
    })
    report("ajv", matching, problems)
  },

  // The document is valid, and so are its examples.
  async asyncapi(file) {
    const { Parser } = require("@asyncapi/parser")
    const { document, diagnostics } = await new Parser().parse(fs.readFileSync(file, "utf8"))
    const problems = diagnostics.filter(({ severity }) => severity < 2).map(({ path, message }) => `${path.join(".")}: ${message}`)
    const operations = document ? document.operations().all() : []
    for (const operation of operations) {
      const { mandatory } = operation.bindings().get("amqp").value()
      if (mandatory !== true || operation.messages().all().some((message) => message.examples().isEmpty())) problems.push(operation.id())
    }
    if (operations.length === 0) problems.push("no operation")
    report("AsyncAPI, operations", operations.length, problems)
  },
}

function report(what, count, problems) {
  console.log(`${what}: ${count} match, ${problems.length} problems`)
  problems.slice(0, 10).forEach((problem) => console.error(problem))
  if (problems.length > 0 || count === 0) process.exit(1)
}

const [command, ...files] = process.argv.slice(2)
Promise.resolve(commands[command](...files)).catch((error) => { console.error(error); process.exit(1) })
