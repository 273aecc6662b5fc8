//! Every kind of nasty message through the real broker and the real store, with good messages all around: exact
//! outcomes, the books balanced, the process alive. The table of the decoder itself is in `src/event/decode_tests.rs`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use bson::{Bson, Document, doc};
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};

use crate::harness::{Bed, Sent};

/// What a message becomes: a document (with this value under `v`, where one is named), or a dead letter.
enum Becomes {
    Stored,
    Holding(Bson),
    /// The whole document, but for its `_id`.
    Whole(Document),
    Dead(&'static str),
}
use Becomes::{Dead, Holding, Stored, Whole};

struct Row {
    name: String,
    sent: Sent,
    becomes: Becomes,
}

fn row(name: impl Into<String>, body: impl Into<Vec<u8>>, becomes: Becomes) -> Row {
    Row { name: name.into(), sent: Sent::body(body), becomes }
}

fn encoded(name: &str, encoding: &str, body: Vec<u8>, becomes: Becomes) -> Row {
    let sent = Sent::body(body).with(|properties| properties.with_content_encoding(encoding.into()));
    Row { name: name.to_owned(), sent, becomes }
}

fn headed(name: &str, value: AMQPValue, body: &str, becomes: Becomes) -> Row {
    let headers = BTreeMap::from([("h".into(), value)]);
    Row {
        name: name.to_owned(),
        sent: Sent::body(body).with(|properties| properties.with_headers(headers.into())),
        becomes,
    }
}

fn nested(open: &str, levels: usize, close: &str) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

fn broken() -> Vec<Row> {
    let dead: [(&str, &[u8], &'static str); 37] = [
        ("empty", b"", "empty_body"),
        ("blank", b" \r\n\t", "invalid_json"),
        ("truncated", b"{\"a\":[1,{\"b\":", "invalid_json"),
        ("two", b"{\"a\":1}{\"a\":2}", "invalid_json"),
        ("comma", b"{\"a\":1,}", "invalid_json"),
        ("comment", b"{\"a\":1/*x*/}", "invalid_json"),
        ("garbage", b"{\"a\":1} x", "invalid_json"),
        ("nan", b"{\"a\":NaN}", "invalid_json"),
        ("leading zero", b"{\"a\":01}", "invalid_json"),
        ("plus", b"{\"a\":+1}", "invalid_json"),
        ("point", b"{\"a\":.5}", "invalid_json"),
        ("1e400", b"{\"a\":1e400}", "invalid_json"),
        ("lone surrogate", b"{\"a\":\"\\ud800\"}", "invalid_json"),
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
    dead.into_iter().map(|(name, body, reason)| row(name, body, Dead(reason))).collect()
}

fn sound() -> Vec<Row> {
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
        .map(|(value, stored)| row(format!("value {value}"), format!("{{\"v\":{value}}}"), Holding(stored)))
        .collect();
    rows.extend([
        row("no field", "{}", Stored),
        row("byte order mark", "\u{feff}{\"v\":1}", Holding(Bson::Int32(1))),
        row(
            "top-level operators",
            r#"{"$set":{"a":1},"$where":"1","":0,"a.b":1,"__proto__":{},"constructor":2,"id":3}"#,
            Whole(doc! {"$set": {"a": 1}, "$where": "1", "": 0, "a.b": 1, "__proto__": {}, "constructor": 2, "id": 3}),
        ),
        row(
            "an $oid and nothing else",
            r#"{"$oid":"65f000000000000000000001"}"#,
            Whole(doc! {"$oid": "65f000000000000000000001"}),
        ),
        row("a $date and nothing else", r#"{"$date":5}"#, Whole(doc! {"$date": 5})),
        row("a $numberLong and nothing else", r#"{"$numberLong":"x"}"#, Whole(doc! {"$numberLong": "x"})),
        row("repeated", r#"{"v":1,"x":2,"v":3}"#, Holding(Bson::Int32(3))),
        row("id", r#"{"_id":"65f0000000000000000000aa","v":1}"#, Holding(Bson::Int32(1))),
        row("null id", r#"{"_id":null,"v":1}"#, Holding(Bson::Int32(1))),
        row("depth 64", nested("{\"a\":", 64, "}"), Stored),
        row("depth 64, arrays", format!("{{\"a\":{}}}", nested("[", 63, "]")), Stored),
        row("depth 64, mixed", nested("{\"a\":[", 32, "]}"), Stored),
    ]);
    for (content_type, v) in [("text/xml", 1), ("application/json; charset=latin1", 2)] {
        let sent = Sent::body(format!("{{\"v\":\"ü{v}\"}}"))
            .with(|properties| properties.with_content_type(content_type.into()));
        rows.push(Row { name: content_type.to_owned(), sent, becomes: Holding(Bson::String(format!("ü{v}"))) });
    }
    rows
}

fn large() -> Vec<Row> {
    let text = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let many: Vec<String> = (0..100_000).map(|n| format!("\"k{}\":{n}", n % 60_000)).collect();
    let limit = 8 << 20;
    vec![
        row("at the limit", text(limit), Stored),
        row("over the limit", text(limit + 1), Dead("too_large")),
        row("17 MiB", text(17 << 20), Dead("too_large")),
        row("100 MiB", text(100 << 20), Dead("too_large")),
        row("BSON over 16 MiB", format!("{{\"a\":[{}1]}}", "1,".repeat(2_000_000)), Dead("too_large")),
        row("a million elements", format!("{{\"a\":[{}1]}}", "1,".repeat(999_999)), Stored),
        row("a key of 1 MiB", format!("{{\"{}\":1}}", "k".repeat(1 << 20)), Stored),
        row("100,000 keys", format!("{{{}}}", many.join(",")), Stored),
        row("depth 65", nested("{\"a\":", 65, "}"), Dead("too_deep")),
        row("depth 65, arrays", format!("{{\"a\":{}}}", nested("[", 64, "]")), Dead("too_deep")),
        row("depth 66, mixed", nested("{\"a\":[", 33, "]}"), Dead("too_deep")),
        row("depth 200,000, mixed", nested("{\"a\":[", 100_000, "]}"), Dead("too_deep")),
        row("open arrays 100,000", format!("{{\"a\":{}", "[".repeat(100_000)), Dead("too_deep")),
        row("depth 100,000", nested("{\"a\":", 100_000, "}"), Dead("too_deep")),
        row("open depth 100,000", "[{\"a\":".repeat(100_000), Dead("too_deep")),
        row("arrays 100,000", format!("{{\"a\":{}}}", nested("[", 100_000, "]")), Dead("too_deep")),
    ]
}

fn packed() -> Vec<Row> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let event = b"{\"v\":\"packed\"}";
    let packed = || Holding(Bson::String("packed".into()));
    vec![
        encoded("gzip", "gzip", gzip(event), packed()),
        encoded("zstd", "zstd", zstd::encode_all(&event[..], 3).unwrap(), packed()),
        encoded("gzip bomb", "gzip", gzip(&vec![b' '; 100 << 20]), Dead("too_large")),
        encoded("gzip of nothing", "gzip", gzip(b""), Dead("empty_body")),
        encoded("no gzip", "gzip", event.to_vec(), Dead("unsupported_encoding")),
        encoded("br", "br", event.to_vec(), Dead("unsupported_encoding")),
        encoded("identity", "identity", event.to_vec(), packed()),
        row("gzip without saying so", gzip(event), Dead("invalid_utf8")),
    ]
}

fn with_headers() -> Vec<Row> {
    let mut deep = AMQPValue::Void;
    for _ in 0..20_000 {
        deep = AMQPValue::FieldArray(FieldArray::from(vec![deep]));
    }
    let all = FieldArray::from(vec![
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
        // A short string has the letter of a 16-bit integer at RabbitMQ, and cannot be sent.
    ]);
    let flat = AMQPValue::LongString("x".repeat(100 << 10).into());
    let full = AMQPValue::LongString("x".repeat((128 << 10) - 200).into());
    vec![
        headed("every type of header", AMQPValue::FieldArray(all.clone()), "{\"v\":1}", Holding(Bson::Int32(1))),
        headed("every type of header, bad", AMQPValue::FieldArray(all), "{", Dead("invalid_json")),
        headed("100 KiB of headers", flat.clone(), "{\"v\":1}", Holding(Bson::Int32(1))),
        headed("100 KiB of headers, bad", flat, "{", Dead("invalid_json")),
        headed("headers that fill a frame, bad", full, "{", Dead("invalid_json")),
        headed("headers nested 20,000 deep", deep.clone(), "{\"v\":1}", Holding(Bson::Int32(1))),
        headed("headers nested 20,000 deep, bad", deep, "{", Dead("invalid_json")),
    ]
}

/// Publishes every row between good messages, and compares each outcome.
async fn through(rows: Vec<Row>) {
    let bed = Bed::new().await;
    let mut worker = bed.worker().await;
    for (n, row) in (0..).zip(&rows) {
        bed.publish_all((3 * n..3 * n + 3).map(Sent::numbered)).await;
        let (id, number) = (row.name.clone(), n);
        let sent = row.sent.clone().with(|properties| {
            properties.with_correlation_id(number.to_string().as_str().into()).with_message_id(id.as_str().into())
        });
        bed.publish(&sent).await;
    }
    let count = rows.len();
    worker.has_settled(4 * count as u64).await;
    let expected_dead = rows.iter().filter(|row| matches!(row.becomes, Dead(_))).count();
    let dead: HashMap<usize, (String, Vec<u8>, bool)> = bed
        .dead(expected_dead)
        .await
        .into_iter()
        .map(|dead| {
            let number: usize = dead.properties.correlation_id().as_ref().unwrap().as_str().parse().unwrap();
            let own = dead.properties.headers().as_ref().and_then(|headers| headers.inner().get("h").cloned());
            let sent: &Sent = &rows[number].sent;
            let original = sent.properties.headers().as_ref().and_then(|headers| headers.inner().get("h").cloned());
            // Only what leaves no room for ours is dropped, and that is said.
            let full = rows[number].name.contains("fill a frame");
            let kept = if full { dead.headers.contains_key("dl-headers-dropped") } else { own == original };
            (number, (dead.reason().to_owned(), dead.body, kept))
        })
        .collect();
    let documents = bed.documents().await;
    let numbered = documents.iter().filter(|document| document.contains_key("n")).count();
    assert_eq!(numbered, 3 * count, "every good neighbour is stored");
    assert_eq!(documents.len() - numbered, count - expected_dead);
    let mut values: Vec<String> =
        documents.iter().filter_map(|document| Some(format!("{:?}", document.get("v")?))).collect();
    let mut expected: Vec<String> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let became = dead.get(&number);
        match &row.becomes {
            Dead(reason) => assert!(
                became.is_some_and(|(why, body, kept)| why == reason && *body == row.sent.body && *kept),
                "{}: {:?}",
                row.name,
                became.map(|(why, _, kept)| (why, kept))
            ),
            Holding(value) => {
                assert!(became.is_none(), "{}: {became:?}", row.name);
                expected.push(format!("{value:?}"));
            }
            Whole(whole) => {
                let rest = |document: &Document| {
                    document.iter().skip(1).map(|(name, value)| (name.clone(), value.clone())).collect::<Document>()
                };
                assert!(
                    became.is_none() && documents.iter().any(|document| rest(document) == *whole),
                    "{}: {became:?}",
                    row.name
                );
            }
            Stored => assert!(became.is_none(), "{}: {became:?}", row.name),
        }
    }
    // As text, which tells 1 from 1.0 and -0 from 0; each as often as it was sent.
    values.sort();
    expected.sort();
    assert_eq!(values, expected);
    assert_eq!(worker.stop().await.code(), Some(0), "alive to the end");
    bed.clean().await;
}

/// Four fields, each as everything that JSON offers: what Mongoose makes of it, or nothing where it refuses.
#[tokio::test]
async fn every_known_field_is_cast() {
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
    let bed = Bed::new().await;
    let worker = bed.worker_with(&[("EVENT__FIELDS", "{ user_id = { type = \"number\" }, timestamp = { type = \"number\" }, uuid = { type = \"string\" }, status = { type = \"string\" }, must = { type = \"any\", required = true } }")]).await;
    let mut expected = Vec::new();
    for (field, numeric) in [("user_id", true), ("timestamp", true), ("uuid", false), ("status", false)] {
        for value in values {
            bed.publish(&Sent::body(format!("{{\"must\":\"{field} {}\",\"{field}\":{value}}}", expected.len()))).await;
            expected.push((field, if numeric { as_number(value) } else { as_string(value) }));
        }
    }
    bed.publish_all(["{\"user_id\":1}", "{}"].map(Sent::body)).await;
    worker.has_settled(expected.len() as u64 + 2).await;
    let documents = bed.documents().await;
    for (at, (field, value)) in expected.iter().enumerate() {
        let must = format!("{field} {at}");
        let found = documents.iter().find(|document| document.get_str("must").ok() == Some(&must));
        assert_eq!(found.and_then(|document| document.get(field)), value.as_ref(), "{must}");
    }
    let dead = bed.dead(2 + expected.iter().filter(|(_, value)| value.is_none()).count()).await;
    assert_eq!(
        dead.iter().filter(|dead| dead.reason() == "missing_field" && dead.headers["dl-field"] == "must").count(),
        2
    );
    assert_eq!(dead.iter().filter(|dead| dead.reason() == "invalid_field").count(), dead.len() - 2);
    bed.clean().await;
}

#[tokio::test]
async fn malformed_messages() {
    through(broken()).await;
}

#[tokio::test]
async fn odd_but_sound_messages() {
    through(sound()).await;
}

#[tokio::test]
async fn large_and_deep_messages() {
    through(large()).await;
}

#[tokio::test]
async fn compressed_messages() {
    through(packed()).await;
}

/// lapin writes such headers recursively as well, so that the publisher needs the stack that the worker gives itself
/// (`.cargo/config.toml`).
#[test]
fn messages_with_headers() {
    let body = || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(through(with_headers()))
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(body).unwrap().join().unwrap();
}
