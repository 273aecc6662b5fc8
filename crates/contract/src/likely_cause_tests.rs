//! What rejected bodies are recognised as, one row for each cause, as real clients make them; and that no two causes are counted as one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use strum::VariantArray as _;

use super::LikelyCause::*;
use super::dead_letter::{Cause, fault_offset, fingerprint};
use super::*;

fn rejected(body: &[u8]) -> Rejection {
    let message = Message { body, ..Message::default() };
    let decoded = Decoder::new(Arc::new(Rules::default())).decode(&message, || [9; 12]);
    decoded.expect_err(&String::from_utf8_lossy(body))
}

fn utf_16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

/// Rejected bodies with their causes; the first row of each cause stands for it.
#[allow(clippy::too_many_lines)] // a table
fn table() -> Vec<(LikelyCause, Vec<u8>)> {
    let event = r#"{"user_id":42,"status":"ok"}"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(event.as_bytes()).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(event.as_bytes()).unwrap();
    let text = |cause: LikelyCause, text: &str| (cause, text.as_bytes().to_vec());
    let bytes = |cause: LikelyCause, bytes: &[u8]| (cause, bytes.to_vec());
    vec![
        text(NotANumber, r#"{"user_id":42,"fare":NaN}"#),
        text(NotANumber, r#"{"fare": -Infinity}"#),
        text(NotANumber, r#"{"fares":[1.5,nan]}"#),
        text(NotANumber, r#"{"fare": Infinity, "user_id": 42}"#),
        text(PythonDict, "{'user_id': 42, 'status': None}"),
        text(PythonDict, r#"{"user_id": 42, "paid": True}"#),
        text(PythonDict, "[{'user_id': 42}]"),
        text(PythonBytes, "b'{\"user_id\": 42}'"),
        text(HtmlEscapes, "{&quot;user_id&quot;:42}"),
        text(HtmlEscapes, "{ &#34;user_id&#34;:42}"),
        text(Xml, "<?xml version=\"1.0\"?><event/>"),
        text(Xml, "<html><body>502 Bad Gateway</body></html>"),
        text(FormData, "user_id=42&status=ok&note=a%20b"),
        text(FormData, "user_id=42"),
        text(Base64, "eyJ1c2VyX2lkIjo0Mn0="),
        text(Base64, "\"eyJ1c2VyX2lkIjo0Mn0=\""),
        text(PhpSerialized, "a:1:{s:7:\"user_id\";i:42;}"),
        text(PhpSerialized, "O:8:\"stdClass\":1:{s:7:\"user_id\";i:42;}"),
        text(ObjectText, "[object Object]"),
        text(ObjectText, "\"[object Object]\""),
        text(TrailingNul, "{\"user_id\":42}\0"),
        text(TrailingNul, "{\"user_id\":42}\0\0\0\0"),
        text(EncodedTwice, r#""{\"user_id\":42}""#),
        text(EncodedTwice, r#""\"{\\\"user_id\\\":42}\"""#),
        text(Array, r#"[{"user_id":42},{"user_id":43}]"#),
        text(Array, "[]"),
        text(SeveralObjects, "{\"user_id\":42}\n{\"user_id\":43}"),
        text(SeveralObjects, "{\"user_id\":42}{\"user_id\":43}"),
        text(CutOff, r#"{"user_id":42,"status":"o"#),
        text(CutOff, "{"),
        text(UnquotedKey, "{user_id: 42, status: 'ok'}"),
        text(PlainText, "user_id: 42"),
        text(PlainText, "None"),
        text(DateText, r#"{"timestamp":"2026-11-30T12:32:21.123Z"}"#),
        text(DateText, r#"{"timestamp":"2026-11-30"}"#),
        text(DateText, r#"{"timestamp":"2026-11-30 12:32:21.123456+00:00"}"#),
        text(DateText, r#"{"timestamp":"Mon Nov 30 2026 12:32:21 GMT+0100 (CET)"}"#),
        text(DateText, r#"{"timestamp":"Mon, 30 Nov 2026 12:32:21 GMT"}"#),
        text(DateText, r#"{"timestamp":"30.11.2026"}"#),
        text(DateText, r#"{"timestamp":"11/30/2026 12:32 PM"}"#),
        text(ExtendedJson, r#"{"user_id":{"$numberLong":"42"}}"#),
        text(ExtendedJson, r#"{"timestamp":{"$date":"2026-11-30T12:32:21Z"}}"#),
        text(ExtendedJson, r#"{"_id":{"$oid":"65f000000000000000000001"}}"#),
        (Gzip, gzip.finish().unwrap()),
        (Zlib, zlib.finish().unwrap()),
        (Zstd, zstd::encode_all(event.as_bytes(), 3).unwrap()),
        bytes(MessagePack, b"\x82\xa7user_id\x2a\xa6status\xa2ok"),
        bytes(MessagePack, b"\x91\x81\xa7user_id\xcd\x01\x00"),
        bytes(Pickle, b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94\x8c\x07user_id\x94K*s."),
        bytes(Pickle, b"\x80\x02}q\0X\x07\0\0\0user_idq\x01K*s."),
        bytes(Pickle, b"(dp0\nVuser_id\np1\nI42\ns."),
        bytes(JavaObject, b"\xac\xed\x00\x05sr\x00\x11java.util.HashMap"),
        bytes(Protobuf, b"\x08\x2a\x12\x02ok"),
        bytes(Protobuf, b"\n\x03abc\x10\xe8\x07\x19\0\0\0\0\0\0\xf0\x3f"),
        bytes(Avro, b"Obj\x01\x04\x14avro.codec\x08null"),
        bytes(Avro, b"\0\0\0\0\x07\x54\x04ok"),
        bytes(Avro, b"\0\0\0\0\x07{\"user_id\":42}"),
        bytes(Avro, b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08\x54"),
        (Bson, bson::serialize_to_vec(&bson::doc! { "user_id": 42, "status": "ok" }).unwrap()),
        (Utf16, [&[0xff, 0xfe][..], &utf_16(event, u16::to_le_bytes)].concat()),
        (Utf16, [&[0xfe, 0xff][..], &utf_16(event, u16::to_be_bytes)].concat()),
        (Utf16, utf_16(event, u16::to_le_bytes)),
        (Utf16, utf_16(event, u16::to_be_bytes)),
        (Utf16, event.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()),
        (Utf16, event.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect()),
        bytes(Latin1, b"{\"user_id\":42,\"stop\":\"S\xfcd\"}"),
        bytes(Amqp10Value, b"\0\x53\x77\xa1\x02{}"),
        bytes(Amqp10Value, b"\0\x53\x77\xc1\x10\x04\xa1\x07user_id\x54\x2a"),
    ]
}

#[test]
fn every_cause_is_recognised() {
    let table = table();
    for (cause, body) in &table {
        let rejection = rejected(body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!(LikelyCause::of_detail(&rejection.detail), Some(*cause), "{shown}: {}", rejection.detail);
        assert!(rejection.detail.len() <= 512 && !rejection.detail.contains("42"), "{}", rejection.detail);
        let fault = fault_offset(&shown, &rejection.detail, rejection.field.as_deref());
        assert!(fault.is_none_or(|fault| fault <= shown.len()), "{shown}");
    }
    let missing = LikelyCause::VARIANTS.iter().find(|cause| !table.iter().any(|(of_row, _)| of_row == *cause));
    assert_eq!(missing, None, "each cause has a row");
}

#[test]
fn no_two_causes_share_a_fingerprint() {
    let mut causes: BTreeMap<String, Vec<LikelyCause>> = BTreeMap::new();
    for (cause, body) in table() {
        let of_fingerprint = causes.entry(fingerprint(&rejected(&body))).or_default();
        if !of_fingerprint.contains(&cause) {
            of_fingerprint.push(cause);
        }
    }
    let joined: Vec<_> = causes.values().filter(|causes| causes.len() > 1).collect();
    assert!(joined.is_empty(), "{joined:?}");
}

#[test]
fn the_advice_comes_from_the_detail() {
    for cause in LikelyCause::VARIANTS {
        assert!(cause.meaning().ends_with('.') && cause.remedy().ends_with('.'), "{cause:?}");
        assert_eq!(
            LikelyCause::of_detail(cause.detail()),
            Some(*cause),
            "the detail of another cause is a part of this one"
        );
    }
    let python = rejected(b"{'user_id': 42}");
    let advice = Cause::Reason(python.reason).explanation_of(&python.detail);
    assert_eq!(advice, [PythonDict.meaning(), PythonDict.remedy()]);
    let other = Cause::Reason(Reason::InvalidJson);
    assert_eq!(other.explanation_of("expected `,` or `}` at line 1 column 2"), other.explanation());
}

#[test]
fn faults_without_a_known_cause_keep_the_words_of_the_parser() {
    for (body, detail) in [
        (&b"{\"user_id\":42,}"[..], "trailing comma at line 1 column 15"),
        (b"{\"user_id\":42} x", "trailing characters at line 1 column 16"),
        (b"42", "the root is not a JSON object"),
        (b"\"hello\"", "the root is not a JSON object"),
        (b"{\"user_id\":\"forty-two\"}", "user_id expects a Number, found a string that is not a number"),
        (
            b"{\"user_id\":\"550e8400-e29b-41d4-a716-446655440000\"}",
            "user_id expects a Number, found a string that is not a number",
        ),
        (b"{\"user_id\":{\"id\":42}}", "user_id expects a Number, found an object"),
        (b"{\"a\":\"\xff\"", "not UTF-8 from byte 6 on"),
    ] {
        assert_eq!(rejected(body).detail, detail, "{}", String::from_utf8_lossy(body));
    }
}

/// What a publisher sends decides neither how much memory the worker takes nor how deep its stack becomes.
#[test]
fn long_and_deep_bodies_are_recognised_at_no_cost() {
    let nested = [&[0x91; 1 << 20][..], b"\x81\xa7user_id\x01"].concat();
    assert_ne!(LikelyCause::of_detail(&rejected(&nested).detail), Some(MessagePack));
    let long = format!("{{\"user_id\":\"{}\"}}", "2026 01 01 ".repeat(1 << 19));
    assert_eq!(rejected(long.as_bytes()).detail, "user_id expects a Number, found a string that is not a number");
    let zone = r#"{"timestamp":"Mon Nov 30 2026 12:32:21 GMT+0100 (Central European Standard Time)"}"#;
    assert_eq!(LikelyCause::of_detail(&rejected(zone.as_bytes()).detail), Some(DateText));
}
