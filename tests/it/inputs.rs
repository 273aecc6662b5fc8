//! Malformed, unusual, large and compressed messages through real servers, each among valid ones: exact outcomes, a
//! balanced ledger, and a worker that keeps running. The cases of the decoder alone are in `crates/contract/src/decode_tests.rs`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use bson::{Bson, Document, doc};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};

use crate::harness::{TestEnv, TestMessage};

/// What must become of a message.
enum Expected {
    Stored,
    /// A document with this value in field `v`.
    StoredValue(Bson),
    /// Exactly this document, except for its `_id`.
    StoredDocument(Document),
    /// A dead letter with this reason.
    Rejected(&'static str),
}
use Expected::{Rejected, Stored, StoredDocument, StoredValue};

struct Row {
    name: String,
    message: TestMessage,
    expected: Expected,
}

fn row(name: impl Into<String>, body: impl Into<Vec<u8>>, expected: Expected) -> Row {
    Row { name: name.into(), message: TestMessage::body(body), expected }
}

fn encoded(name: &str, encoding: &str, body: Vec<u8>, expected: Expected) -> Row {
    let message = TestMessage::body(body).with(|properties| properties.with_content_encoding(encoding.into()));
    Row { name: name.to_owned(), message, expected }
}

fn with_header(name: &str, value: AMQPValue, body: &str, expected: Expected) -> Row {
    let headers = BTreeMap::from([("h".into(), value)]);
    Row {
        name: name.to_owned(),
        message: TestMessage::body(body).with(|properties| properties.with_headers(headers.into())),
        expected,
    }
}

fn nested(open: &str, levels: usize, close: &str) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

fn malformed() -> Vec<Row> {
    let rejected: [(&str, &[u8], &'static str); 37] = [
        ("empty", b"", "empty_body"),
        ("blank", b" \r\n\t", "invalid_json"),
        ("truncated", b"{\"a\":[1,{\"b\":", "invalid_json"),
        ("two objects", b"{\"a\":1}{\"a\":2}", "invalid_json"),
        ("comma", b"{\"a\":1,}", "invalid_json"),
        ("comment", b"{\"a\":1/*x*/}", "invalid_json"),
        ("garbage", b"{\"a\":1} x", "invalid_json"),
        ("nan", b"{\"a\":NaN}", "invalid_json"),
        ("leading zero", b"{\"a\":01}", "invalid_json"),
        ("plus", b"{\"a\":+1}", "invalid_json"),
        ("point", b"{\"a\":.5}", "invalid_json"),
        ("1e400", b"{\"a\":1e400}", "invalid_json"),
        ("cut escape", b"{\"a\":\"\\ud80\"}", "invalid_json"),
        ("utf-16 le", b"\xff\xfe{\0\"\0a\0\"\0:\x001\0}\0", "invalid_utf8"),
        ("utf-16 be", b"\xfe\xff\0{\0}", "invalid_utf8"),
        ("utf-16 le, no mark", b"{\0}\0", "invalid_utf8"),
        ("utf-16 be, no mark", b"\0{\0}", "invalid_utf8"),
        ("bad byte", b"{\"a\":\"\xff\"}", "invalid_utf8"),
        ("overlong", b"{\"a\":\"\xc0\xaf\"}", "invalid_utf8"),
        ("null", b"null", "not_an_object"),
        ("true", b"true", "not_an_object"),
        ("number", b"42", "not_an_object"),
        ("string", b"\"x\"", "not_an_object"),
        ("array", b"[]", "not_an_object"),
        ("array of object", b"[{}]", "not_an_object"),
        ("nul in key", b"{\"a\\u0000\":1}", "invalid_field_name"),
        ("nul in a nested key", b"{\"a\":[{\"b\\u0000c\":1}]}", "invalid_field_name"),
        ("empty array for a number", b"{\"timestamp\":[]}", "invalid_field"),
        ("id zz", b"{\"_id\":\"zz\"}", "invalid_id"),
        ("id number", b"{\"_id\":5}", "invalid_id"),
        ("id array", b"{\"_id\":[]}", "invalid_id"),
        ("user_id text", b"{\"user_id\":\"abc\"}", "invalid_field"),
        ("user_id infinity", b"{\"user_id\":\"Infinity\"}", "invalid_field"),
        ("user_id array", b"{\"user_id\":[5]}", "invalid_field"),
        ("timestamp date", b"{\"timestamp\":\"2024-01-01\"}", "invalid_field"),
        ("uuid array", b"{\"uuid\":[\"a\"]}", "invalid_field"),
        ("status object", b"{\"status\":{}}", "invalid_field"),
    ];
    rejected.into_iter().map(|(name, body, reason)| row(name, body, Rejected(reason))).collect()
}

fn unusual() -> Vec<Row> {
    let values: [(&str, Bson); 22] = [
        ("2147483648", Bson::Int64(1 << 31)),
        ("9007199254740993", Bson::Int64(9_007_199_254_740_993)),
        ("9223372036854775807", Bson::Int64(i64::MAX)),
        ("9223372036854775808", Bson::Decimal128("9223372036854775808".parse().unwrap())),
        ("18446744073709551615", Bson::Decimal128("18446744073709551615".parse().unwrap())),
        ("18446744073709551616", Bson::Double(18_446_744_073_709_551_616.0)),
        ("1e30", Bson::Double(1e30)),
        ("1000000000000000000000000000000", Bson::Double(1e30)),
        ("-0", Bson::Double(-0.0)),
        ("{\"$code\":\"x\"}", bson::bson!({"$code": "x"})),
        ("1", Bson::Int32(1)),
        ("1.0", Bson::Double(1.0)),
        ("1e-400", Bson::Double(0.0)),
        ("\"x\\u0000y\"", Bson::String("x\0y".into())),
        ("\"\\r\\n\\u001b[31m\\u2028\\u202e\"", Bson::String("\r\n\u{1b}[31m\u{2028}\u{202e}".into())),
        ("\"\\\"}{{<script>' OR 1=1; $(rm)\"", Bson::String("\"}{{<script>' OR 1=1; $(rm)".into())),
        ("{\"$oid\":\"65f000000000000000000001\"}", bson::bson!({"$oid": "65f000000000000000000001"})),
        ("{\"$date\":5}", bson::bson!({"$date": 5})),
        ("{\"$numberLong\":\"x\"}", bson::bson!({"$numberLong": "x"})),
        ("{\"$timestamp\":{\"t\":0,\"i\":0}}", bson::bson!({"$timestamp": {"t": 0, "i": 0}})),
        (
            "{\"\":1,\"a.b\":2,\"$set\":3,\"__proto__\":4,\"constructor\":5,\"id\":6}",
            bson::bson!({"": 1, "a.b": 2, "$set": 3, "__proto__": 4, "constructor": 5, "id": 6}),
        ),
        ("{\"k\":1,\"k\":[2]}", bson::bson!({"k": [2]})),
    ];
    let mut rows: Vec<Row> = values
        .into_iter()
        .map(|(value, stored)| row(format!("value {value}"), format!("{{\"v\":{value}}}"), StoredValue(stored)))
        .collect();
    rows.extend([
        row("no field", "{}", Stored),
        row("byte order mark", "\u{feff}{\"v\":1}", StoredValue(Bson::Int32(1))),
        row(
            "top-level operators",
            r#"{"$set":{"a":1},"$where":"1","":0,"a.b":1,"__proto__":{},"constructor":2,"id":3}"#,
            StoredDocument(
                doc! {"$set": {"a": 1}, "$where": "1", "": 0, "a.b": 1, "__proto__": {}, "constructor": 2, "id": 3},
            ),
        ),
        row(
            "an $oid and nothing else",
            r#"{"$oid":"65f000000000000000000001"}"#,
            StoredDocument(doc! {"$oid": "65f000000000000000000001"}),
        ),
        row("a $date and nothing else", r#"{"$date":5}"#, StoredDocument(doc! {"$date": 5})),
        row("a $numberLong and nothing else", r#"{"$numberLong":"x"}"#, StoredDocument(doc! {"$numberLong": "x"})),
        row("repeated", r#"{"v":1,"x":2,"v":3}"#, StoredValue(Bson::Int32(3))),
        row("id", r#"{"_id":"65f0000000000000000000aa","v":1}"#, StoredValue(Bson::Int32(1))),
        row("null id", r#"{"_id":null,"v":1}"#, StoredValue(Bson::Int32(1))),
        row("depth 64", nested("{\"a\":", 64, "}"), Stored),
        row("depth 64, arrays", format!("{{\"a\":{}}}", nested("[", 63, "]")), Stored),
        row("depth 64, mixed", nested("{\"a\":[", 32, "]}"), Stored),
    ]);
    for (content_type, v) in [("text/xml", 1), ("application/json; charset=latin1", 2)] {
        let message = TestMessage::body(format!("{{\"v\":\"ü{v}\"}}"))
            .with(|properties| properties.with_content_type(content_type.into()));
        rows.push(Row {
            name: content_type.to_owned(), message, expected: StoredValue(Bson::String(format!("ü{v}")))
        });
    }
    rows
}

fn large() -> Vec<Row> {
    let text = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let fields: Vec<String> = (0..100_000).map(|n| format!("\"k{}\":{n}", n % 60_000)).collect();
    let limit = 8 << 20;
    vec![
        row("at the limit", text(limit), Stored),
        row("over the limit", text(limit + 1), Rejected("too_large")),
        // RabbitMQ takes 16 MiB at the most from 4.0 on.
        row("nearly 16 MiB", text((16 << 20) - 1000), Rejected("too_large")),
        row("BSON over 16 MiB", format!("{{\"a\":[{}1]}}", "1,".repeat(2_000_000)), Rejected("too_large")),
        row("a million elements", format!("{{\"a\":[{}1]}}", "1,".repeat(999_999)), Stored),
        row("a key of 1 MiB", format!("{{\"{}\":1}}", "k".repeat(1 << 20)), Stored),
        row("100,000 keys", format!("{{{}}}", fields.join(",")), Stored),
        row("depth 65", nested("{\"a\":", 65, "}"), Rejected("too_deep")),
        row("depth 65, arrays", format!("{{\"a\":{}}}", nested("[", 64, "]")), Rejected("too_deep")),
        row("depth 66, mixed", nested("{\"a\":[", 33, "]}"), Rejected("too_deep")),
        row("depth 200,000, mixed", nested("{\"a\":[", 100_000, "]}"), Rejected("too_deep")),
        row("open arrays 100,000", format!("{{\"a\":{}", "[".repeat(100_000)), Rejected("too_deep")),
        row("depth 100,000", nested("{\"a\":", 100_000, "}"), Rejected("too_deep")),
        row("open depth 100,000", "[{\"a\":".repeat(100_000), Rejected("too_deep")),
        row("arrays 100,000", format!("{{\"a\":{}}}", nested("[", 100_000, "]")), Rejected("too_deep")),
    ]
}

fn compressed() -> Vec<Row> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let event = b"{\"v\":\"packed\"}";
    let packed = || StoredValue(Bson::String("packed".into()));
    vec![
        encoded("gzip", "gzip", gzip(event), packed()),
        encoded("zstd", "zstd", zstd::encode_all(&event[..], 3).unwrap(), packed()),
        encoded("gzip bomb", "gzip", gzip(&vec![b' '; 100 << 20]), Rejected("too_large")),
        encoded("gzip of nothing", "gzip", gzip(b""), Rejected("empty_body")),
        encoded("gzip announced, plain body", "gzip", event.to_vec(), Rejected("unsupported_encoding")),
        encoded("br", "br", event.to_vec(), Rejected("unsupported_encoding")),
        encoded("identity", "identity", event.to_vec(), packed()),
        row("gzip without content-encoding", gzip(event), Rejected("invalid_utf8")),
    ]
}

fn with_headers() -> Vec<Row> {
    let mut deep = AMQPValue::Void;
    for _ in 0..20_000 {
        deep = AMQPValue::FieldArray(FieldArray::from(vec![deep]));
    }
    let every_type = FieldArray::from(vec![
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-1),
        AMQPValue::LongLongInt(1 << 40),
        AMQPValue::Double(1.5),
        AMQPValue::LongString("x".into()),
        AMQPValue::Timestamp(5),
        AMQPValue::ByteArray(vec![0, 255].into()),
        AMQPValue::FieldTable(FieldTable::default()),
        AMQPValue::Void,
        AMQPValue::ShortShortUInt(200),
        AMQPValue::ShortInt(-300),
        AMQPValue::ShortUInt(60_000),
        AMQPValue::LongInt(-70_000),
        AMQPValue::LongUInt(4_000_000_000),
        AMQPValue::Float(0.5),
        AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }),
        // No short string: RabbitMQ reads its type code as that of a 16-bit integer.
    ]);
    let large = AMQPValue::LongString("x".repeat(100 << 10).into());
    let full = AMQPValue::LongString("x".repeat((128 << 10) - 200).into());
    vec![
        with_header(
            "every type of header",
            AMQPValue::FieldArray(every_type.clone()),
            "{\"v\":1}",
            StoredValue(Bson::Int32(1)),
        ),
        with_header("every type of header, bad", AMQPValue::FieldArray(every_type), "{", Rejected("invalid_json")),
        with_header("100 KiB of headers", large.clone(), "{\"v\":1}", StoredValue(Bson::Int32(1))),
        with_header("100 KiB of headers, bad", large, "{", Rejected("invalid_json")),
        with_header("headers that fill a frame, bad", full, "{", Rejected("invalid_json")),
        with_header("headers nested 20,000 deep", deep.clone(), "{\"v\":1}", StoredValue(Bson::Int32(1))),
        with_header("headers nested 20,000 deep, bad", deep, "{", Rejected("invalid_json")),
    ]
}

/// Publishes each row after three valid messages, and compares all outcomes.
async fn assert_outcomes(rows: Vec<Row>) {
    let env = TestEnv::new().await;
    let mut worker = env.worker().await;
    for (n, row) in (0..).zip(&rows) {
        env.publish_all((3 * n..3 * n + 3).map(TestMessage::numbered)).await;
        let message = row.message.clone().with(|properties| {
            properties.with_correlation_id(n.to_string().into()).with_message_id(row.name.as_str().into())
        });
        env.publish(&message).await;
    }
    let count = rows.len();
    worker.wait_until_settled(4 * count as u64).await;
    let expected_dead = rows.iter().filter(|row| matches!(row.expected, Rejected(_))).count();
    let dead: HashMap<usize, (String, Vec<u8>, bool)> = env
        .take_dead_letters(expected_dead)
        .await
        .into_iter()
        .map(|dead| {
            let number: usize = dead.properties.correlation_id().as_ref().unwrap().as_str().parse().unwrap();
            let header = dead.properties.headers().as_ref().and_then(|headers| headers.inner().get("h").cloned());
            let sent = &rows[number].message;
            let original = sent.properties.headers().as_ref().and_then(|headers| headers.inner().get("h").cloned());
            // The worker drops a header only if there is no room for its own headers, and then it says so.
            let kept = match rows[number].name.as_str() {
                name if name.contains("fill a frame") => dead.headers.contains_key("dl-headers-dropped"),
                // Beyond 60 levels they are bytes.
                name if name.contains("deep") => header.is_some(),
                _ => header == original,
            };
            (number, (dead.reason().to_owned(), dead.body, kept))
        })
        .collect();
    let documents = env.documents().await;
    let numbered = documents.iter().filter(|document| document.contains_key("n")).count();
    assert_eq!(numbered, 3 * count, "every valid message is stored");
    assert_eq!(documents.len() - numbered, count - expected_dead);
    let mut values: Vec<String> =
        documents.iter().filter_map(|document| Some(format!("{:?}", document.get("v")?))).collect();
    let mut expected_values: Vec<String> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let dead_letter = dead.get(&number);
        match &row.expected {
            Rejected(reason) => assert!(
                dead_letter.is_some_and(|(why, body, kept)| why == reason && *body == row.message.body && *kept),
                "{}: {:?}",
                row.name,
                dead_letter.map(|(why, _, kept)| (why, kept))
            ),
            StoredValue(value) => {
                assert!(dead_letter.is_none(), "{}: {dead_letter:?}", row.name);
                expected_values.push(format!("{value:?}"));
            }
            StoredDocument(expected) => {
                let without_id = |document: &Document| {
                    document.iter().skip(1).map(|(name, value)| (name.clone(), value.clone())).collect::<Document>()
                };
                assert!(
                    dead_letter.is_none() && documents.iter().any(|document| without_id(document) == *expected),
                    "{}: {dead_letter:?}",
                    row.name
                );
            }
            Stored => assert!(dead_letter.is_none(), "{}: {dead_letter:?}", row.name),
        }
    }
    // Compared as text, because that distinguishes 1 from 1.0 and -0 from 0. Each must occur as often as it was sent.
    values.sort();
    expected_values.sort();
    assert_eq!(values, expected_values);
    assert_eq!(worker.stop().await.code(), Some(0), "the worker ran to the end");
    env.clean().await;
}

/// The configured fields with values of every JSON type: each is cast as Mongoose would cast it, or rejected.
#[tokio::test]
async fn configured_fields_are_cast() {
    let as_number = |value: &str| match value {
        "5" | "\" 5 \"" | "\"0x5\"" => Some(Bson::Int32(5)),
        "\"1e3\"" => Some(Bson::Int32(1000)),
        "1.5" => Some(Bson::Double(1.5)),
        "true" => Some(Bson::Int32(1)),
        "\"\"" | "null" => Some(Bson::Null),
        _ => None,
    };
    let as_string = |value: &str| match value {
        "null" => Some(Bson::Null),
        "[5]" | "{}" => None,
        text => Some(Bson::String(text.trim_matches('"').to_owned())),
    };
    let values =
        ["5", "\" 5 \"", "\"0x5\"", "\"1e3\"", "1.5", "true", "\"\"", "null", "[5]", "{}", "\"abc\"", "\"Infinity\""];
    let env = TestEnv::new().await;
    let worker = env.worker_with(&[("EVENT__FIELDS", "{ user_id = { type = \"number\" }, timestamp = { type = \"number\" }, uuid = { type = \"string\" }, status = { type = \"string\" }, must = { type = \"any\", required = true } }")]).await;
    let mut expected = Vec::new();
    for (field, numeric) in [("user_id", true), ("timestamp", true), ("uuid", false), ("status", false)] {
        for value in values {
            env.publish(&TestMessage::body(format!("{{\"must\":\"{field} {}\",\"{field}\":{value}}}", expected.len())))
                .await;
            expected.push((field, if numeric { as_number(value) } else { as_string(value) }));
        }
    }
    env.publish_all(["{\"user_id\":1}", "{}"].map(TestMessage::body)).await;
    worker.wait_until_settled(expected.len() as u64 + 2).await;
    let documents = env.documents().await;
    for (at, (field, value)) in expected.iter().enumerate() {
        let must = format!("{field} {at}");
        let found = documents.iter().find(|document| document.get_str("must").ok() == Some(&must));
        assert_eq!(found.and_then(|document| document.get(field)), value.as_ref(), "{must}");
    }
    let dead = env.take_dead_letters(2 + expected.iter().filter(|(_, value)| value.is_none()).count()).await;
    assert_eq!(
        dead.iter().filter(|dead| dead.reason() == "missing_field" && dead.headers["dl-field"] == "must").count(),
        2
    );
    assert_eq!(dead.iter().filter(|dead| dead.reason() == "invalid_field").count(), dead.len() - 2);
    env.clean().await;
}

#[tokio::test]
async fn malformed_messages() {
    assert_outcomes(malformed()).await;
}

#[tokio::test]
async fn odd_but_valid_messages() {
    assert_outcomes(unusual()).await;
}

#[tokio::test]
async fn large_and_deep_messages() {
    assert_outcomes(large()).await;
}

#[tokio::test]
async fn compressed_messages() {
    assert_outcomes(compressed()).await;
}

/// lapin writes nested headers recursively, so this test needs a large stack, as do lapin's threads (`.cargo/config.toml`).
#[test]
fn messages_with_headers() {
    let body = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(assert_outcomes(with_headers()))
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(body).unwrap().join().unwrap();
}
