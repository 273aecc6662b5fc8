//! `ticketlog contract`: its formats, what a worker serves, and the promise that what matches the JSON Schema is stored.
//! `make interop` tries the same with ajv, Python's jsonschema, TypeScript and the parser of AsyncAPI.

use std::process::{Command, Output};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use ticketlog_config::load_text;
use ticketlog_contract::{Contract, Decoder, Message};

use crate::harness::TestEnv;

const SETTINGS: &str = r#"
    [broker]
    uri = "amqp://someone:secret-1@127.0.0.1/%2f"
    [store]
    retention = "30days"
    uri = "mongodb://someone:secret-2@127.0.0.1"
    [event]
    drop = ["hidden.card"]
    mask_key = "secret-3-secret-3"
    max_bytes = "1MiB"
    [event.fields]
    user_id = { type = "number", required = true }
    timestamp = { type = "number" }
    uuid = { type = "string", required = true }
    details = { type = "any", required = true }
    [route.refresh-2]
    queue = "refresh.log"
    routing_keys = ["refresh.#", "again.*.late"]
    collection = "refresh_log"
    fields = { n = { type = "number", required = true } }
"#;

/// The contract of settings.
fn contract_of(settings: &str) -> Contract {
    Contract::new(load_text("f", settings).unwrap().routes.iter().map(|route| route.contract()).collect())
}

fn formats(contract: &Contract, strict: bool) -> [String; 5] {
    let schemas: Vec<Value> = contract.routes.iter().map(|route| route.json_schema(strict)).collect();
    let [json, schemas, asyncapi] = [contract.to_json(strict), json!(schemas), contract.asyncapi(strict)];
    [
        json.to_string(),
        schemas.to_string(),
        asyncapi.to_string(),
        contract.typescript(strict),
        contract.markdown(strict),
    ]
}

#[test]
fn every_format_says_where_to_publish_what_and_nothing_secret() {
    let contract = contract_of(SETTINGS);
    for format in [true, false].into_iter().flat_map(|strict| formats(&contract, strict)) {
        for name in ["user_id", "details", "ingested_at"] {
            assert!(format.contains(name), "{name}: {format}");
        }
        assert!(format.contains("refresh-2") || format.contains("Refresh2Event"), "{format}");
        for hidden in ["secret", "hidden", "amqp:", "mongodb:", "refresh_log"] {
            assert!(!format.contains(hidden), "{hidden}: {format}");
        }
    }
    let [json, _, asyncapi, types, page] = formats(&contract, false);
    for name in ["missing_field", "timestamp_unit"] {
        assert!([&json, &asyncapi, &types, &page].iter().all(|format| format.contains(name)), "{name}");
    }
    for routing_key in ["ticket.#", "refresh.#", "again.*.late"] {
        assert!([&asyncapi, &types, &page].iter().all(|format| format.contains(routing_key)), "{routing_key}");
    }
    let operations = contract.asyncapi(false)["operations"].as_object().unwrap().len();
    assert_eq!(operations, 3, "one for each routing key");
    assert_eq!(contract.asyncapi(false)["channels"]["refresh-2.2"]["address"], "again.{words1}.late");
    assert!(types.contains("  user_id: number | string;\n") && !types.contains("userId"), "{types}");
    assert!(contract.typescript(true).contains("  userId?: never;\n"));
}

#[test]
fn the_document_of_a_worker_says_what_its_decoder_does() {
    for settings in ["", SETTINGS] {
        let contract = contract_of(settings);
        let read = Contract::from_json(contract.to_json(true).to_string().as_bytes()).unwrap();
        assert_eq!(read, contract);
        for (route, read) in load_text("f", settings).unwrap().routes.iter().zip(&read.routes) {
            let mut rules = route.rules();
            rules.hidden_fields.clear();
            rules.mask_key = Default::default();
            assert_eq!(read.rules(), rules, "all but what is hidden");
        }
    }
    for (text, problem) in [
        ("nothing", "is not JSON"),
        ("{}", "is not what"),
        (r#"{"contract":2}"#, "does not know"),
        (r#"{"contract":1,"version":"1","routes":[]}"#, "without a route"),
        (r#"{"contract":1,"version":"1","routes":[{}]}"#, "lacks something"),
    ] {
        assert!(Contract::from_json(text.as_bytes()).unwrap_err().contains(problem), "{text}");
    }
}

/// What is wrong in some way, or in none.
const VALUES: [&str; 40] = [
    "0",
    "-0",
    "42",
    "2.75",
    "1e3",
    "1796040000000",
    "1796040000",
    "9007199254740993",
    "1e-400",
    "1.7976931348623157e308",
    "-1.7976931348623157e308",
    "\"\"",
    "\" \"",
    "\"42\"",
    "\"-7.25\"",
    "\"007\"",
    "\" 12 \"",
    "\"42\\n\"",
    "\"1e400\"",
    "\"9999999999999999\"",
    "\"abc\"",
    "\"Infinity\"",
    "\"undefined\"",
    "\"a\\u0000b\"",
    "\"0123456789abcdefABCDEF01\"",
    "\"0123456789abcdefABCDEF01\\n\"",
    "\"0123456789abcdefABCDEF0\"",
    "\"g123456789abcdefABCDEF01\"",
    "true",
    "false",
    "null",
    "{}",
    "[]",
    "{\"_id\":\"x\"}",
    "{\"a\\u0000\":1}",
    "[[{\"\\u0000\":1}]]",
    "{\"a\":{\"b\":[{\"c\\u0000\":null}]}}",
    "{\"$date\":5}",
    "{\"__proto__\":{\"a.b\":1}}",
    "[1,\"42\",null]",
];

/// An event with these fields, most of them as in the example.
fn random_event(random: &mut StdRng, example: &Value, names: &[&str]) -> String {
    let mut members = serde_json::Map::new();
    for name in names {
        let value = match example.get(name) {
            Some(fine) if random.random_bool(0.85) => fine.clone(),
            None if random.random_bool(0.9) => continue,
            _ => serde_json::from_str(VALUES[random.random_range(0..VALUES.len())]).unwrap(),
        };
        members.insert((*name).to_owned(), value);
    }
    Value::Object(members).to_string()
}

/// Decodes random events that match; returns how many there were.
fn try_schema(settings: &str, route: usize, strict: bool) -> usize {
    let contract = contract_of(settings);
    let route = &contract.routes[route];
    let schema = route.json_schema(strict);
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let example = &schema["examples"][0];
    let mut decoder = Decoder::new(route.rules().into());
    let mut names: Vec<&str> = route.fields.iter().map(|field| field.name.as_str()).collect();
    names.extend(["_id", "ingested_at", "userId", "other", "a\u{0}", ""]);
    let mut random = StdRng::seed_from_u64(30);
    let mut stored = 0;
    for _ in 0..10_000 {
        let event = random_event(&mut random, example, &names);
        if validator.is_valid(&serde_json::from_str(&event).unwrap()) {
            let decoded = decoder
                .decode(&Message { body: event.as_bytes(), message_id: Some("m"), ..Message::default() }, || [0; 12]);
            assert!(decoded.is_ok(), "{event} matches, but {decoded:?}");
            let findings = decoded.unwrap().findings;
            assert!(!strict || findings.is_empty(), "{event} matches strictly, but {findings:?}");
            stored += 1;
        }
    }
    assert!(validator.is_valid(example), "{example}");
    assert!(!strict || !validator.is_valid(&json!({ "userId": 42 })), "{schema}");
    stored
}

#[test]
fn what_matches_the_schema_is_stored() {
    for (settings, route) in [("", 0), (SETTINGS, 0), (SETTINGS, 1)] {
        let [plain, strict] = [false, true].map(|strict| try_schema(settings, route, strict));
        assert!(plain > 2000 && strict > 500 && strict < plain, "{settings}: {plain}, {strict}");
    }
}

#[test]
fn the_schema_accepts_the_event_of_the_readme() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let event = readme.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let event = serde_json::from_str(event).unwrap();
    for strict in [false, true] {
        assert!(jsonschema::is_valid(&contract_of("").routes[0].json_schema(strict), &event), "{event}");
    }
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_team_without_the_settings_asks_the_worker() {
    let env = TestEnv::new().await;
    let settings = [("EVENT__FIELDS", "{ n = { type = \"number\", required = true } }"), ("EVENT__MAX_DEPTH", "3")];
    let worker = env.worker_with(&settings).await;
    worker.wait_until_ready().await;
    let (status, served) = worker.get("/contract.json");
    assert_eq!((status, Contract::from_json(served.as_bytes()).unwrap().routes[0].max_depth), (200, 3));

    let address = format!("http://{}", worker.address());
    let ticketlog = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        command.args(arguments).args(["--contract", &address]).output().unwrap()
    };
    let printed: Value = serde_json::from_str(&text(&ticketlog(&["contract"]))).unwrap();
    assert_eq!(printed, serde_json::from_str::<Value>(&served).unwrap(), "the command and the worker say the same");
    assert!(text(&ticketlog(&["contract", "--format", "typescript"])).contains("  n: number | string;\n"));
    assert_eq!(ticketlog(&["contract", "--route", "other"]).status.code(), Some(78));

    let events = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(events.path(), "{\"n\":\"7\"}\n{\"user_id\":\"abc\"}\n{\"n\":1,\"a\":[[[1]]]}\n").unwrap();
    let validated = ticketlog(&["validate", "--json", events.path().to_str().unwrap()]);
    let lines: Vec<Value> =
        validated.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let outcomes: Vec<_> = lines.iter().map(|line| line.get("reason").unwrap_or(&line["outcome"])).collect();
    assert_eq!(outcomes, ["stored", "missing_field", "too_deep"]);
    env.clean().await;
}
