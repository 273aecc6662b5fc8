//! Tests of the decoder: the document that a message becomes, or the reason for which it is rejected.

use std::sync::Arc;

use bson::{Bson, Document, doc};
use strum::VariantArray as _;

use super::*;

fn decode_with(rules: Rules, message: &Message) -> Result<Event, Rejection> {
    Decoder::new(Arc::new(rules)).decode(message, || [9; 12])
}

fn decode(body: impl AsRef<[u8]>) -> Result<Event, Rejection> {
    decode_with(Rules::default(), &Message { body: body.as_ref(), ..Message::default() })
}

fn document(event: &Event) -> Document {
    Document::from_reader(event.document.as_bytes()).unwrap()
}

/// The stored document without its `_id`.
fn stored(body: impl AsRef<[u8]>) -> Document {
    let mut document = document(&decode(body).unwrap());
    document.remove("_id").unwrap();
    document
}

fn reason(body: impl AsRef<[u8]>) -> Reason {
    decode(body).unwrap_err().reason
}

fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("{}1{}", open.repeat(levels), close.repeat(levels))
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn bodies_that_are_not_json_objects_are_rejected_with_their_reason() {
    use Reason::*;
    let table: &[(&[u8], Reason)] = &[
        (b"", EmptyBody),
        (b" \n", InvalidJson),
        (b"{\"a\":1", InvalidJson),
        (b"{\"a\":1}{}", InvalidJson),
        (b"{\"a\":1,}", InvalidJson),
        (b"{\"a\":1}//", InvalidJson),
        (b"{\"a\":NaN}", InvalidJson),
        (b"{\"a\":01}", InvalidJson),
        (b"{\"a\":+1}", InvalidJson),
        (b"{\"a\":.5}", InvalidJson),
        (b"{\"a\":1e400}", InvalidJson),
        (b"{\"a\":-1e400}", InvalidJson),
        (b"{\"a\":\"\\ud80\"}", InvalidJson),
        (b"{\"a\":\"\n\"}", InvalidJson),
        (b"{a:1}", InvalidJson),
        (b"{1:1}", InvalidJson),
        (b"[1,", InvalidJson),
        (b"{\"a\":\"\xff\"}", InvalidUtf8),
        (b"{\"a\":\"\xc0\x80\"}", InvalidUtf8),
        (b"\xff\xfe{\0}\0", InvalidUtf8),
        (b"{\0}\0", InvalidUtf8),
        (b"\0{\0}", InvalidUtf8),
        (b"null", NotAnObject),
        (b"true", NotAnObject),
        (b"42", NotAnObject),
        (b"-1.5", NotAnObject),
        (b"\"x\"", NotAnObject),
        (b"[]", NotAnObject),
        (b"[{}]", NotAnObject),
        (b"{\"a\\u0000b\":1}", InvalidFieldName),
        (b"{\"a\":{\"\\u0000\":1}}", InvalidFieldName),
        (b"{\"_id\":\"zz\"}", InvalidId),
        (b"{\"_id\":5}", InvalidId),
        (b"{\"_id\":[1]}", InvalidId),
        (b"{\"_id\":{\"$oid\":\"65f000000000000000000001\"}}", InvalidId),
        (b"{\"_id\":\"\"}", InvalidId),
    ];
    for (body, expected) in table {
        assert_eq!(reason(body), *expected, "{:?}", String::from_utf8_lossy(body));
    }
}

/// One message for each reason of the decoder.
#[test]
#[allow(clippy::too_many_lines)] // a table
fn every_reason_of_the_decoder_has_a_message() {
    let mut rules = Rules { max_bytes: 100, max_depth: 2, ..Rules::default() };
    rules.fields[1].required = true;
    rules.addresses = Some(RouteAddresses { routing_keys: vec!["a.*".to_owned()], queues: vec!["a".to_owned()] });
    let unreadable = Rejection::new(Reason::InvalidProperty, "not UTF-8: message_id");
    let expected = Message {
        address: Some(Address { exchange: "x", routing_key: "a.b" }),
        body: b"{\"timestamp\":1}",
        ..Message::default()
    };
    let body = |body| Message { body, ..expected };
    let long = [b' '; 101];
    let table = [
        (Reason::InvalidProperty, Message { unreadable: Some(&unreadable), address: None, ..body(b"") }),
        (
            Reason::UnexpectedRoutingKey,
            Message { address: Some(Address { exchange: "x", routing_key: "b" }), ..body(b"") },
        ),
        (Reason::EmptyBody, body(b"")),
        (Reason::InvalidUtf8, body(b"\xff")),
        (Reason::InvalidJson, body(b"{")),
        (Reason::NotAnObject, body(b"[]")),
        (Reason::TooLarge, body(&long)),
        (Reason::TooDeep, body(b"{\"a\":[[]]}")),
        (Reason::InvalidField, body(b"{\"user_id\":[]}")),
        (Reason::MissingField, body(b"{}")),
        (Reason::InvalidFieldName, body(b"{\"\\u0000\":1}")),
        (Reason::InvalidId, body(b"{\"_id\":1}")),
        (Reason::UnsupportedEncoding, Message { content_encoding: Some("br"), ..expected }),
    ];
    for (reason, message) in &table {
        assert_eq!(decode_with(rules.clone(), message).unwrap_err().reason, *reason, "{message:?}");
    }
    let tested = table.map(|(reason, _)| reason);
    let of_the_decoder = Reason::VARIANTS.iter().filter(|reason| reason.stage() == Stage::Decode);
    assert_eq!(of_the_decoder.copied().collect::<Vec<_>>(), tested);
    for address in [expected.address, Some(Address { exchange: "", routing_key: "a" }), None] {
        assert!(decode_with(rules.clone(), &Message { address, ..expected }).is_ok(), "{address:?}");
    }
    let only_route = Rules { addresses: None, ..rules };
    assert!(decode_with(only_route, &Message { address: table[1].1.address, ..expected }).is_ok());
}

#[test]
fn lone_surrogates_become_replacement_characters() {
    assert_eq!(stored(r#"{"a":"\ud83d","\ude00":"\ud83d\ude00"}"#), doc! {"a": "\u{fffd}", "\u{fffd}": "\u{1f600}"});
    assert_eq!(reason(br#"{"a":"\ud83d",}"#), Reason::InvalidJson);
}

#[test]
fn a_populated_document_is_cast_to_its_id() {
    assert_eq!(stored(r#"{"user_id":{"_id":42,"name":"x"}}"#), doc! {"user_id": 42});
    assert_eq!(stored(r#"{"user_id":{"_id":"42"},"uuid":{"_id":"u"}}"#), doc! {"user_id": 42, "uuid": "u"});
    assert_eq!(stored(r#"{"user_id":{"_id":null},"timestamp":{"_id":true}}"#), doc! {"user_id": null, "timestamp": 1});
    for body in
        [r#"{"uuid":{"_id":42}}"#, r#"{"uuid":{"_id":""}}"#, r#"{"user_id":{"_id":{"_id":42}}}"#, r#"{"user_id":{}}"#]
    {
        assert_eq!(reason(body.as_bytes()), Reason::InvalidField, "{body}");
    }
}

#[test]
fn a_byte_order_mark_is_removed() {
    assert_eq!(stored("\u{feff}{\"a\":1}"), doc! {"a": 1});
}

#[test]
fn numbers_keep_their_exact_value_and_get_the_documented_type() {
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let table: &[(&str, Bson)] = &[
        ("0", Bson::Int32(0)),
        ("-0", Bson::Double(-0.0)),
        ("1", Bson::Int32(1)),
        ("1.0", Bson::Double(1.0)),
        ("2147483647", Bson::Int32(i32::MAX)),
        ("2147483648", Bson::Int64(1 << 31)),
        ("-2147483648", Bson::Int32(i32::MIN)),
        ("-2147483649", Bson::Int64(-2147483649)),
        ("9007199254740993", Bson::Int64(9007199254740993)),
        ("9223372036854775807", Bson::Int64(i64::MAX)),
        ("-9223372036854775808", Bson::Int64(i64::MIN)),
        ("9223372036854775808", decimal("9223372036854775808")),
        ("18446744073709551615", decimal("18446744073709551615")),
        ("18446744073709551616", Bson::Double(18446744073709551616.0)),
        ("-9223372036854775809", Bson::Double(-9223372036854775808.0)),
        ("1e30", Bson::Double(1e30)),
        ("1000000000000000000000000000000", Bson::Double(1e30)),
        ("1e-400", Bson::Double(0.0)),
        ("0.1", Bson::Double(0.1)),
        ("2.2250738585072014e-308", Bson::Double(2.2250738585072014e-308)),
        ("9007199254740993.0", Bson::Double(9007199254740992.0)),
    ];
    for (text, value) in table {
        assert_eq!(stored(format!("{{\"a\":{text}}}")), doc! {"a": value.clone()}, "{text}");
        assert_eq!(stored(format!("{{\"a\":[{text}]}}")), doc! {"a": [value.clone()]}, "{text}");
    }
    let negative_zero = stored("{\"a\":-0}").get_f64("a").unwrap();
    assert!(negative_zero.is_sign_negative());
}

#[test]
fn keys_and_extended_json_are_stored_literally() {
    for body in [
        r#"{"":1,"a.b":2,"$set":{"x":1},"$where":"1","__proto__":{"a":1},"constructor":"c","id":7}"#,
        r#"{"a":{"$oid":"65f000000000000000000001"},"b":{"$date":5},"c":{"$numberLong":"x"}}"#,
        r#"{"a":{"$timestamp":{"t":0,"i":0}},"b":{"$code":"x"},"c":{"$binary":{"base64":"AA==","subType":"00"}}}"#,
        r#"{"a":[],"b":{},"c":[[],{}],"d":null,"e":[true,false]}"#,
    ] {
        let expected: serde_json::Value = serde_json::from_str(body).unwrap();
        let event = decode(body).unwrap();
        let mut read: serde_json::Value = serde_json::to_value(document(&event)).unwrap();
        read.as_object_mut().unwrap().remove("_id");
        assert_eq!(read, expected);
    }
    assert_eq!(stored("{\"a\":\"x\\u0000y\"}"), doc! {"a": "x\0y"});
}

#[test]
fn the_last_of_repeated_keys_wins_in_the_place_of_the_first() {
    assert_eq!(stored(r#"{"a":1,"b":2,"a":{"c":3},"d":4}"#), doc! {"a": {"c": 3}, "b": 2, "d": 4});
    assert_eq!(stored(r#"{"n":{"x":1,"y":[1],"x":2,"x":"z"}}"#), doc! {"n": {"x": "z", "y": [1]}});
    assert_eq!(stored(r#"{"user_id":"abc","user_id":"5"}"#), doc! {"user_id": 5});
    assert_eq!(reason(r#"{"user_id":5,"user_id":"abc"}"#), Reason::InvalidField);
    let first = decode(r#"{"_id":"zz","uuid":"u","_id":null}"#).unwrap();
    assert_eq!(first.identity, Identity::Uuid);
    let keys: Vec<String> = stored(r#"{"a":1,"b":2,"c":3,"a":9}"#).keys().cloned().collect();
    assert_eq!(keys, ["a", "b", "c"]);
}

#[test]
fn a_hundred_thousand_keys_of_which_half_are_repeated_are_decoded() {
    let members: Vec<String> = (0..100_000).map(|n| format!("\"k{}\":{n}", n % 50_000)).collect();
    let document = stored(format!("{{{}}}", members.join(",")));
    assert_eq!(document.len(), 50_000);
    assert_eq!(document.get_i32("k0").unwrap(), 50_000);
    assert_eq!(document.get_i32("k49999").unwrap(), 99_999);
}

#[test]
fn depth_is_bounded_without_stack_growth() {
    for (open, close) in [("{\"a\":", "}"), ("[", "]"), ("{\"a\":[", "]}")] {
        let per = open.matches(['{', '[']).count();
        let inner = |levels: usize| format!("{{\"r\":{}}}", nested(open, close, levels / per));
        assert!(decode(inner(62)).is_ok(), "{open}");
        assert_eq!(reason(inner(64 + 2)), Reason::TooDeep, "{open}");
        assert_eq!(reason(inner(100_000)), Reason::TooDeep, "{open}");
        assert_eq!(reason(open.repeat(100_000)), Reason::TooDeep, "{open}");
    }
    assert!(decode(nested("{\"a\":", "}", 64)).is_ok());
    assert_eq!(reason(nested("{\"a\":", "}", 65)), Reason::TooDeep);
    assert_eq!(reason(nested("[", "]", 64)), Reason::NotAnObject);
}

#[test]
fn size_is_bounded_before_parsing_and_as_bson() {
    let rules = |max_bytes| Rules { max_bytes, ..Rules::default() };
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(92));
    let message = Message { body: body.as_bytes(), ..Message::default() };
    assert!(decode_with(rules(100), &message).is_ok());
    assert_eq!(decode_with(rules(99), &message).unwrap_err().reason, Reason::TooLarge);
    let digits = format!("{{\"a\":[{}1]}}", "1,".repeat(2_000_000));
    let message = Message { body: digits.as_bytes(), ..Message::default() };
    assert_eq!(decode_with(rules(16 << 20), &message).unwrap_err().reason, Reason::TooLarge);
    let root = format!("[{}1]", "1,".repeat(2_000_000));
    let message = Message { body: root.as_bytes(), ..Message::default() };
    assert_eq!(decode_with(rules(16 << 20), &message).unwrap_err().reason, Reason::NotAnObject);
}

#[test]
fn number_fields_are_cast_as_mongoose_casts_them() {
    let table: &[(&str, Bson)] = &[
        ("5", Bson::Int32(5)),
        ("1.5", Bson::Double(1.5)),
        ("\"12345\"", Bson::Int32(12345)),
        ("\" 12 \"", Bson::Int32(12)),
        ("\"0x1f\"", Bson::Int32(31)),
        ("\"1e3\"", Bson::Int32(1000)),
        ("\"1.25\"", Bson::Double(1.25)),
        ("\"1700000000000\"", Bson::Int64(1_700_000_000_000)),
        ("\"1e21\"", Bson::Double(1e21)),
        ("\"   \"", Bson::Int32(0)),
        ("\"\"", Bson::Null),
        ("true", Bson::Int32(1)),
        ("false", Bson::Int32(0)),
        ("null", Bson::Null),
    ];
    for (sent, expected) in table {
        for field in ["user_id", "timestamp"] {
            assert_eq!(stored(format!("{{\"{field}\":{sent}}}")), doc! {field: expected.clone()}, "{sent}");
        }
    }
    for sent in ["\"abc\"", "[5]", "{}", "[]", "\"Infinity\"", "\"2024-01-01\"", "\"1e999\"", "{\"a\":1}"] {
        let rejection = decode(format!("{{\"timestamp\":{sent}}}")).unwrap_err();
        assert_eq!((rejection.reason, rejection.field.as_deref()), (Reason::InvalidField, Some("timestamp")), "{sent}");
    }
}

#[test]
fn string_fields_are_cast_as_mongoose_casts_them() {
    for (sent, expected) in [
        ("\"x\"", "x"),
        ("\"\"", ""),
        ("5", "5"),
        ("1.5", "1.5"),
        ("1e21", "1e+21"),
        ("-0", "0"),
        ("1.0", "1"),
        ("12345678901234567890", "12345678901234567000"),
        ("true", "true"),
        ("false", "false"),
    ] {
        assert_eq!(stored(format!("{{\"status\":{sent}}}")), doc! {"status": expected}, "{sent}");
    }
    assert_eq!(stored("{\"uuid\":null}"), doc! {"uuid": Bson::Null});
    for sent in ["[1]", "{}", "{\"a\":\"b\"}"] {
        assert_eq!(reason(format!("{{\"uuid\":{sent}}}")), Reason::InvalidField, "{sent}");
    }
}

#[test]
fn a_message_without_a_required_field_or_with_the_reserved_one_is_rejected() {
    let mut rules = Rules::default();
    rules.fields[0].required = true;
    for body in ["{}", "{\"user_id\":null}", "{\"user_id\":\"\"}"] {
        let rejection =
            decode_with(rules.clone(), &Message { body: body.as_bytes(), ..Message::default() }).unwrap_err();
        assert_eq!((rejection.reason, rejection.field.as_deref()), (Reason::MissingField, Some("user_id")), "{body}");
    }
    let stamped = Rules { add_ingested_at: true, ..Rules::default() };
    let message = Message { body: b"{\"ingested_at\":1}", ..Message::default() };
    assert_eq!(decode_with(stamped, &message).unwrap_err().reason, Reason::InvalidField);
    assert_eq!(stored("{\"ingested_at\":1}"), doc! {"ingested_at": 1});
}

#[test]
fn the_identity_comes_from_the_body_the_message_id_or_the_uuid() {
    let id = |body: &str, message_id: Option<&str>, timestamp: Option<u64>| {
        let message = Message { body: body.as_bytes(), message_id, timestamp, ..Message::default() };
        let event = decode_with(Rules::default(), &message).unwrap();
        assert_eq!(document(&event).get_object_id("_id").unwrap().bytes(), event.id);
        assert_eq!(document(&event).keys().next().unwrap(), "_id");
        (event.identity, event.id)
    };
    let (identity, given) = id(r#"{"a":1,"_id":"65F000000000000000000001"}"#, Some("m"), None);
    assert_eq!((identity, given[0], given[11]), (Identity::Body, 0x65, 1));
    assert_eq!(id("{\"uuid\":\"u\"}", Some("m"), None).0, Identity::MessageId);
    assert_eq!(id("{\"uuid\":\"u\"}", Some(""), None).0, Identity::Uuid);
    for body in ["{\"uuid\":\"\"}", "{\"uuid\":5}", "{}", "{\"uuid\":null,\"_id\":null}"] {
        assert_eq!(id(body, None, None), (Identity::None, [9; 12]), "{body}");
    }
    let (_, with_time) = id(r#"{"uuid":"u","timestamp":"1700000000123"}"#, None, Some(1));
    assert_eq!(with_time[..4], 1_700_000_000u32.to_be_bytes());
    let (_, by_property) = id(r#"{"uuid":"u"}"#, None, Some(1_700_000_000));
    assert_eq!(by_property[..4], 1_700_000_000u32.to_be_bytes());
    assert_ne!(id("{\"uuid\":\"u\",\"a\":1}", None, None).1, id("{\"uuid\":\"u\",\"a\":2}", None, None).1);
}

#[test]
fn details_name_the_fault_and_hold_no_value() {
    let describe = |body: &str| {
        let rejection = decode(body).unwrap_err();
        format!("{} {:?}: {}", rejection.reason.as_str(), rejection.field, rejection.detail)
    };
    let canary = "canary-value";
    let all = [
        describe(&format!("{{\"user_id\":\"{canary}\"}}")),
        describe(&format!("{{\"status\":[\"{canary}\"]}}")),
        describe(&format!("{{\"_id\":\"{canary}\"}}")),
        describe(&format!("{{\"a\":\"{canary}\" \"b\"")),
        describe(&format!("{{\"{canary}\\u0000\":1}}")),
        describe(&nested("{\"canary-value\":", "}", 65)),
        describe(&format!("[\"{canary}\"]")),
        describe(&format!("\"{canary}\"")),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    invalid_field Some("user_id"): user_id expects a Number, found a string that is not a number
    invalid_field Some("status"): status expects a String, found an array
    invalid_id Some("_id"): _id must be null or a string of 24 hexadecimal digits
    invalid_json None: expected `,` or `}` at line 1 column 21
    invalid_field_name None: a key contains NUL, at line 1 column 21
    too_deep None: nested deeper than event.max_depth = 64, at line 1 column 1025
    not_an_object None: the root is an array; send one message for each event
    not_an_object None: the root is not a JSON object
    "#);
    assert!(all.iter().all(|line| !line.contains(canary)));
}
