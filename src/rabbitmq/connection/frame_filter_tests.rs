//! Owns the tests of the frame filter: frames are encoded here and read with lapin's own parser.

use lapin::protocol::basic::parse_properties;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::invalid_text::{InvalidText, InvalidTexts};
use super::{FrameFilter, check_frame_filter, filtered};

/// A header value: its type code and its encoding, or nested fields.
#[derive(Debug, Clone)]
enum Value {
    Plain(u8, Vec<u8>),
    Long(u8, Vec<u8>),
    Array(Vec<Value>),
    Table(Vec<(Vec<u8>, Value)>),
}

#[derive(Debug, Clone)]
struct Message {
    routing_key: Vec<u8>,
    message_id: Vec<u8>,
    app_id: Vec<u8>,
    headers: Vec<(Vec<u8>, Value)>,
    body: Vec<u8>,
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn value(value: &Value) -> Vec<u8> {
    match value {
        Value::Plain(code, bytes) => [&[*code], bytes.as_slice()].concat(),
        Value::Long(code, bytes) => [vec![*code], long(bytes)].concat(),
        Value::Array(values) => [vec![b'A'], long(&values.iter().flat_map(self::value).collect::<Vec<u8>>())].concat(),
        Value::Table(entries) => [vec![b'F'], long(&fields(entries))].concat(),
    }
}

fn fields(entries: &[(Vec<u8>, Value)]) -> Vec<u8> {
    entries.iter().flat_map(|(name, entry)| [short(name), value(entry)].concat()).collect()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 1], long(payload).as_slice(), &[0xCE]].concat()
}

fn header_payload(message: &Message) -> Vec<u8> {
    let (headers, message_id, app_id) = (1 << 13, 1 << 7, 1 << 3);
    let flags: u16 = headers | 1 << 12 | message_id | 1 << 6 | app_id;
    let mut payload = [&60u16.to_be_bytes(), &[0, 0][..], &(message.body.len() as u64).to_be_bytes()].concat();
    payload.extend(flags.to_be_bytes());
    payload.extend(long(&fields(&message.headers)));
    payload.push(2); // delivery_mode
    payload.extend(short(&message.message_id));
    payload.extend(u64::MAX.to_be_bytes()); // timestamp
    payload.extend(short(&message.app_id));
    payload
}

/// `basic.deliver`, the content header and the body.
fn encoded(tag: u64, message: &Message) -> Vec<u8> {
    let key = short(&message.routing_key);
    let method =
        [&[0, 60, 0, 60], short(b"consumer").as_slice(), &tag.to_be_bytes(), &[0], &short(b"exchange"), &key].concat();
    [frame(1, &method), frame(2, &header_payload(message)), frame(3, &message.body)].concat()
}

/// The sizes of the pieces that end at `ends`.
fn sizes(length: usize, ends: &[Index]) -> Vec<usize> {
    let mut ends: Vec<usize> = ends.iter().map(|end| end.index(length + 1)).collect();
    ends.sort_unstable();
    ends.iter().scan(0, |last, end| Some(end - std::mem::replace(last, *end))).collect()
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![".{0,20}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..30)]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Plain(b'V', vec![])),
        any::<[u8; 1]>()
            .prop_flat_map(|bytes| "[tbB]".prop_map(move |c| Value::Plain(c.as_bytes()[0], bytes.to_vec()))),
        any::<[u8; 2]>()
            .prop_flat_map(|bytes| "[suU]".prop_map(move |c| Value::Plain(c.as_bytes()[0], bytes.to_vec()))),
        any::<[u8; 4]>()
            .prop_flat_map(|bytes| "[Iif]".prop_map(move |c| Value::Plain(c.as_bytes()[0], bytes.to_vec()))),
        any::<[u8; 5]>().prop_map(|bytes| Value::Plain(b'D', bytes.to_vec())),
        any::<[u8; 8]>()
            .prop_flat_map(|bytes| "[lLdT]".prop_map(move |c| Value::Plain(c.as_bytes()[0], bytes.to_vec()))),
        texts().prop_flat_map(|text| "[Sx]".prop_map(move |c| Value::Long(c.as_bytes()[0], text.clone()))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((texts(), inner), 0..4).prop_map(Value::Table),
        ]
    })
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let headers = proptest::collection::vec((texts(), values()), 0..5);
    let message =
        (texts(), texts(), texts(), headers, texts()).prop_map(|(routing_key, message_id, app_id, headers, body)| {
            Message { routing_key, message_id, app_id, headers, body }
        });
    proptest::collection::vec(message, 1..5)
}

/// The texts of a message that are not UTF-8, in the order of the frames.
fn invalid_texts(message: &Message) -> Vec<InvalidText> {
    fn names(entry: &Value, found: &mut Vec<Vec<u8>>) {
        match entry {
            Value::Array(values) => values.iter().for_each(|value| names(value, found)),
            Value::Table(entries) => all_names(entries, found),
            _ => {}
        }
    }
    fn all_names(entries: &[(Vec<u8>, Value)], found: &mut Vec<Vec<u8>>) {
        for (name, entry) in entries {
            found.push(name.clone());
            names(entry, found);
        }
    }
    let mut headers = Vec::new();
    all_names(&message.headers, &mut headers);
    let mut all = vec![("routing_key", message.routing_key.clone())];
    all.extend(headers.into_iter().map(|name| ("header_name", name)));
    all.extend([("message_id", message.message_id.clone()), ("app_id", message.app_id.clone())]);
    let invalid = all.into_iter().filter(|(_, bytes)| std::str::from_utf8(bytes).is_err());
    invalid.map(|(location, bytes)| InvalidText { location, bytes }).collect()
}

proptest! {
    #[test]
    fn lapin_reads_every_message_and_the_original_bytes_are_kept(messages in messages(), ends: Vec<Index>) {
        let found = InvalidTexts::default();
        let mut filter = FrameFilter::new(found.clone());
        let bytes: Vec<u8> = (1..).zip(&messages).flat_map(|(tag, message)| encoded(tag, message)).collect();
        let received = filtered(&mut filter, &bytes, sizes(bytes.len(), &ends));
        prop_assert_eq!(received.len(), bytes.len());
        let mut at = 0;
        for (tag, message) in (1..).zip(&messages) {
            let original = encoded(tag, message);
            let now = &received[at..at + original.len()];
            at += original.len();
            let invalid = invalid_texts(message);
            prop_assert_eq!(now == original, invalid.is_empty(), "exactly the invalid messages change");
            prop_assert_eq!(found.take(1, tag), invalid);
            let body = frame(3, &message.body);
            prop_assert!(now.ends_with(&body));
            let header = &now[now.len() - body.len() - header_payload(message).len() - 1..now.len() - body.len() - 1];
            let (rest, properties) = parse_properties(&header[12..]).unwrap();
            prop_assert!(rest.is_empty());
            if let Ok(id) = std::str::from_utf8(&message.message_id) {
                prop_assert_eq!(properties.message_id().as_ref().unwrap().as_str(), id);
            }
        }
    }

    #[test]
    fn damaged_frames_are_filtered_alike_in_any_pieces(messages in messages(), damage: Vec<(Index, u8)>) {
        let mut bytes: Vec<u8> = (1..).zip(&messages).flat_map(|(tag, message)| encoded(tag, message)).collect();
        damage.into_iter().for_each(|(at, byte)| *at.get_mut(&mut bytes) = byte);
        check_frame_filter(&bytes);
    }
}

#[test]
fn headers_nested_too_deep_become_bytes() {
    let mut deep = Value::Plain(b'V', vec![]);
    for _ in 0..3_000 {
        deep = Value::Array(vec![deep]);
    }
    let plain = Message { routing_key: vec![], message_id: vec![], app_id: vec![], headers: vec![], body: vec![] };
    let message = Message { headers: vec![(b"h".to_vec(), deep)], ..plain };
    let mut payload = encoded(1, &message);
    let found = InvalidTexts::default();
    assert_eq!(FrameFilter::new(found.clone()).filter(&mut payload), payload.len());
    let header = &payload[payload.len() - 8 - header_payload(&message).len() - 1..payload.len() - 9];
    let (_, properties) = parse_properties(&header[12..]).unwrap();
    let mut value = properties.headers().as_ref().unwrap().inner().get("h").unwrap();
    let mut levels = 1;
    while let lapin::types::AMQPValue::FieldArray(values) = value {
        levels += 1;
        value = &values.as_slice()[0];
    }
    assert!(matches!(value, lapin::types::AMQPValue::ByteArray(_)) && levels == 60, "{levels}");
    assert_eq!(found.take(1, 1), []);
}

#[test]
fn different_names_of_headers_stay_different() {
    let plain = Message { routing_key: vec![], message_id: vec![], app_id: vec![], headers: vec![], body: vec![] };
    let names = [&b"a\xe9"[..], b"a\xe8", b"a\xe9\xe8", b"a"];
    let headers = names.map(|name| (name.to_vec(), Value::Plain(b'V', vec![]))).to_vec();
    let message = Message { headers, ..plain };
    let mut bytes = encoded(1, &message);
    FrameFilter::new(InvalidTexts::default()).filter(&mut bytes);
    let header = &bytes[bytes.len() - 8 - header_payload(&message).len() - 1..];
    let (_, properties) = parse_properties(&header[12..]).unwrap();
    let read: Vec<&str> = properties.headers().as_ref().unwrap().inner().keys().map(|name| name.as_str()).collect();
    assert_eq!(read, ["a", "a0", "a1?", "a?"]);
}

#[test]
fn a_reply_text_that_is_cut_within_a_character_is_made_readable() {
    let close = |text: &[u8]| frame(1, &[&[0, 20, 0, 40, 1, 148], short(text).as_slice(), &[0, 60, 0, 40]].concat());
    let mut cut = close(b"NOT_FOUND - no exchange 'caf\xc3");
    FrameFilter::new(InvalidTexts::default()).filter(&mut cut);
    assert_eq!(cut, close(b"NOT_FOUND - no exchange 'caf?"));
}

#[test]
fn escaped_texts_stay_different() {
    let escaped = |bytes: &[u8]| InvalidText { location: "message_id", bytes: bytes.to_vec() }.escaped();
    assert_eq!(escaped(b"caf\xe9").as_deref(), Some("caf\\xE9"));
    assert_eq!(escaped(b"caf\xe8!").as_deref(), Some("caf\\xE8!"));
    assert_eq!(escaped(&[0xff; 200]), None);
}
