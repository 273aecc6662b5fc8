//! What would the worker do with this message? The worker itself, `validate`, `shadow` and the forecast of a replay give one answer.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use crate::harness::{DEADLINE, TestEnv, Worker, eventually};

/// How many messages have each outcome: `stored`, or the reason for which they are dead-lettered, and the field.
type Answer = BTreeMap<String, u64>;

struct Message {
    routing_key: &'static str,
    body: Vec<u8>,
    encoding: Option<&'static str>,
    expected: &'static str,
}

fn messages() -> Vec<Message> {
    let message =
        |body: &[u8], expected| Message { routing_key: "refresh.ok", body: body.to_vec(), encoding: None, expected };
    let encoded = |body, encoding, expected| Message { encoding: Some(encoding), ..message(body, expected) };
    let addressed = |routing_key, expected| Message { routing_key, ..message(b"{\"n\":3}", expected) };
    vec![
        message(b"{\"n\":1}", "stored"),
        message(b"{\"n\":\"2\"}", "stored"),
        addressed("refresh", "stored"),
        addressed("ticket.buy", "unexpected_routing_key"),
        addressed("left.over", "unexpected_routing_key"),
        message(b"", "empty_body"),
        message(b"{\"n\":1,\"a\":\"\xff\"}", "invalid_utf8"),
        message(b"{\"n\":1", "invalid_json"),
        message(b"[1]", "not_an_object"),
        message(format!("{{\"n\":1,\"a\":\"{}\"}}", "x".repeat(1000)).as_bytes(), "too_large"),
        message(b"{\"n\":1,\"a\":{\"b\":[1]}}", "too_deep"),
        message(b"{\"n\":\"x\"}", "invalid_field n"),
        message(b"{\"m\":1}", "missing_field n"),
        message(b"{\"n\":1,\"\\u0000\":2}", "invalid_field_name"),
        message(b"{\"n\":1,\"_id\":5}", "invalid_id _id"),
        encoded(b"{\"n\":1}", "br", "unsupported_encoding"),
        encoded(b"{\"n\":1}", "identity", "stored"),
        // A routing key of another route matters more than the body.
        Message { routing_key: "ticket.buy", ..message(b"[1]", "unexpected_routing_key") },
    ]
}

fn command(env: &TestEnv) -> Command {
    let mut command = env.command();
    let queue = format!("{}.refresh", env.name);
    let fields = "{ n = { type = \"number\", required = true } }";
    let route =
        format!("{{ queue = {queue:?}, routing_keys = [\"refresh.#\"], collection = \"refresh\", fields = {fields} }}");
    command.env("TICKETLOG_ROUTE__REFRESH", route);
    command.env("TICKETLOG_EVENT__MAX_BYTES", "1000").env("TICKETLOG_EVENT__MAX_DEPTH", "2");
    command
}

/// The lines of JSON that a command prints.
fn lines(command: &mut Command) -> Vec<Value> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn outcome(line: &Value) -> String {
    match (line["reason"].as_str(), line["field"].as_str()) {
        (Some(reason), Some(field)) => format!("{reason} {field}"),
        (Some(reason), None) => reason.to_owned(),
        (None, _) => "stored".to_owned(),
    }
}

fn counted(outcomes: impl IntoIterator<Item = String>) -> Answer {
    let mut answer = Answer::new();
    outcomes.into_iter().for_each(|outcome| *answer.entry(outcome).or_default() += 1);
    answer
}

fn answer_of_validate(env: &TestEnv, messages: &[Message]) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("message");
    counted(messages.iter().map(|message| {
        std::fs::write(&file, &message.body).unwrap();
        let mut validate = command(env);
        validate.args(["validate", "--route", "refresh", "--whole", "--json", "--routing-key", message.routing_key]);
        validate.args(message.encoding.map(|encoding| format!("--content-encoding={encoding}"))).arg(&file);
        let [line] = &lines(&mut validate)[..] else { panic!("one message, one line") };
        outcome(line)
    }))
}

/// Each reaches the queue of the route, whatever its routing key, by `CC`.
async fn publish(env: &TestEnv, messages: &[Message]) {
    for Message { routing_key, body, encoding, .. } in messages {
        let copy = AMQPValue::FieldArray(vec![AMQPValue::LongString("refresh.cc".into())].into());
        let headers = FieldTable::from(BTreeMap::from([("CC".into(), copy)]));
        let mut properties = BasicProperties::default().with_headers(headers);
        if let Some(encoding) = encoding {
            properties = properties.with_content_encoding((*encoding).into());
        }
        let (exchange, key) = (env.name.as_str().into(), (*routing_key).into());
        let publish = env.channel.basic_publish(exchange, key, BasicPublishOptions::default(), body, properties);
        assert!(publish.await.unwrap().await.unwrap().is_ack());
    }
}

#[tokio::test]
async fn worker_validate_shadow_and_forecast_say_the_same_of_each_message() {
    let env = TestEnv::new().await;
    assert!(command(&env).arg("setup").output().unwrap().status.success());
    // Nothing consumes the queue of the `main` route, which gets a copy of what has its routing key.
    let mut worker = Worker::start({
        let mut run = command(&env);
        run.args(["--route", "refresh"]);
        run
    })
    .await;
    worker.wait_until_ready().await;
    let messages = messages();
    let expected = counted(messages.iter().map(|message| message.expected.to_owned()));
    assert_eq!(answer_of_validate(&env, &messages), expected, "validate");

    let log = tempfile::NamedTempFile::new().unwrap();
    let mut shadow = command(&env);
    let limit = messages.len().to_string();
    shadow.args(["shadow", "--route", "refresh", "--trust-bindings", "--for", "60s", "--json", "--limit", &limit]);
    shadow.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.reopen().unwrap());
    let shadow = shadow.spawn().unwrap();
    eventually("the shadow reads copies", DEADLINE, async || {
        std::fs::read_to_string(log.path()).unwrap().contains("reading copies")
    })
    .await;
    publish(&env, &messages).await;
    let output = tokio::task::spawn_blocking(|| shadow.wait_with_output()).await.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let refused = report["would_be_refused"].as_array().unwrap().iter();
    let refused = refused.map(|group| (group["cause"].as_str().unwrap().to_owned(), group["count"].as_u64().unwrap()));
    let stored = ("stored".to_owned(), report["would_be_stored"].as_u64().unwrap());
    assert_eq!(refused.chain([stored]).collect::<Answer>(), expected, "shadow");

    let dead_letters = format!("{}.refresh.dead", env.name);
    let rejected = messages.len() as u32 - expected["stored"] as u32;
    env.wait_for_depth(&dead_letters, rejected).await;
    let documents = env.client.database(&env.name).collection::<bson::Document>("refresh");
    eventually("the others are stored", DEADLINE, async || {
        documents.count_documents(bson::doc! {}).await.unwrap() == expected["stored"]
    })
    .await;
    let listed = lines(command(&env).args(["dead", "list", "--route", "refresh", "--json"]));
    let dead = counted(listed.iter().map(outcome));
    let only_dead = Answer::from_iter(expected.clone().into_iter().filter(|(outcome, _)| outcome != "stored"));
    assert_eq!(dead, only_dead, "worker");

    // RabbitMQ takes a replay whose key is of the `main` route there: the key is not at fault, and the body is judged by the rules of this one.
    let forecast = &lines(command(&env).args(["dead", "replay", "--route", "refresh", "--dry-run", "--json"]))[0];
    let mut again = only_dead;
    again.insert("unexpected_routing_key".to_owned(), 1);
    again.insert("not_an_object".to_owned(), 2);
    assert_eq!(serde_json::from_value::<Answer>(forecast["dead_lettered_again"].clone()).unwrap(), again, "forecast");
    assert_eq!(forecast["accepted"], 1, "{forecast}");

    assert_eq!(worker.stop().await.code(), Some(0));
    for suffix in ["", ".dead", ".parked"] {
        let queue = format!("{}.refresh{suffix}", env.name);
        env.channel.queue_delete(queue.into(), Default::default()).await.unwrap();
    }
    env.clean().await;
}
