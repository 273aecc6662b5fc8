//! Owns the tests of the frame filter: frames are encoded here and read with lapin's own parser.

use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use lapin::types::AMQPValue;
use lapin::types::parsing::parse_field_table;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::super::message::EncodedHeaders;
use super::super::incoming::{HeadersFault, IncomingMessages, Unparsed};
use super::super::invalid_text::InvalidText;
use super::{FrameFilter, check_frame_filter, filtered};

/// A header value: its type code and its encoding, or nested fields.
#[derive(Debug, Clone)]
enum Value {
    Plain(u8, Vec<u8>),
    Long(u8, Vec<u8>),
    Array(Vec<Value>),
    Table(Vec<(Vec<u8>, Value)>),
}

#[derive(Debug, Clone, Default)]
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

/// The payload of the content header; `table` are the encoded fields of the headers, if it has headers.
fn header_payload(message: &Message, table: Option<&[u8]>) -> Vec<u8> {
    let (headers, message_id, app_id) = (1 << 13, 1 << 7, 1 << 3);
    let flags: u16 = if table.is_some() { headers } else { 0 } | 1 << 12 | message_id | 1 << 6 | app_id;
    let mut payload = [&60u16.to_be_bytes(), &[0, 0][..], &(message.body.len() as u64).to_be_bytes()].concat();
    payload.extend(flags.to_be_bytes());
    payload.extend(table.map(long).unwrap_or_default());
    payload.push(2); // delivery_mode
    payload.extend(short(&message.message_id));
    payload.extend(u64::MAX.to_be_bytes()); // timestamp
    payload.extend(short(&message.app_id));
    payload
}

/// `basic.deliver`, the content header and the body.
fn encoded(tag: u64, message: &Message) -> Vec<u8> {
    with_table(tag, message, Some(&fields(&message.headers)))
}

fn with_table(tag: u64, message: &Message, table: Option<&[u8]>) -> Vec<u8> {
    let key = short(&message.routing_key);
    let method =
        [&[0, 60, 0, 60], short(b"consumer").as_slice(), &tag.to_be_bytes(), &[0], &short(b"exchange"), &key].concat();
    [frame(1, &method), frame(2, &header_payload(message, table)), frame(3, &message.body)].concat()
}

/// `basic.return`, the content header and the body.
fn returned(message: &Message, table: &[u8]) -> Vec<u8> {
    let method = [&[0, 60, 0, 50, 1, 56], short(b"NO_ROUTE").as_slice(), &short(b"x"), &short(b"k")].concat();
    [frame(1, &method), frame(2, &header_payload(message, Some(table))), frame(3, &message.body)].concat()
}

/// What a filter lets pass of these frames, in one piece.
fn passed(filter: &mut FrameFilter, mut bytes: Vec<u8>) -> Vec<u8> {
    let length = filter.filter(&mut bytes);
    bytes.truncate(length);
    bytes
}

/// The properties in the content header, which is the second frame.
fn properties(frames: &[u8]) -> BasicProperties {
    let length = |at: usize| u32::from_be_bytes(frames[at + 3..at + 7].try_into().unwrap()) as usize;
    let (start, end) = (length(0) + 8, length(0) + 8 + 7 + length(length(0) + 8));
    let (rest, properties) = parse_properties(&frames[start + 7 + 12..end]).unwrap();
    assert!(rest.is_empty() && frames[end] == 0xCE);
    properties
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
    fn lapin_reads_every_message_and_nothing_of_it_is_lost(messages in messages(), ends: Vec<Index>) {
        let incoming = IncomingMessages::default();
        let mut filter = FrameFilter::new(incoming.clone());
        let bytes: Vec<u8> = (1..).zip(&messages).flat_map(|(tag, message)| encoded(tag, message)).collect();
        let received = filtered(&mut filter, &bytes, sizes(bytes.len(), &ends));
        let mut rest = received.as_slice();
        for (tag, message) in (1..).zip(&messages) {
            let expected = with_table(tag, message, None);
            let (now, after) = rest.split_at(expected.len());
            rest = after;
            let unparsed = incoming.take(1, tag);
            prop_assert_eq!(&unparsed.invalid_texts, &invalid_texts(message));
            let are_texts_valid = unparsed.invalid_texts.iter().all(|text| text.location == "header_name");
            prop_assert_eq!(now == expected, are_texts_valid, "exactly the invalid texts change");
            if let Ok(id) = std::str::from_utf8(&message.message_id) {
                let properties = properties(now);
                prop_assert_eq!(properties.message_id().as_ref().unwrap().as_str(), id);
            }
            let headers = EncodedHeaders::from(unparsed.headers).decode(|_| true);
            let table = long(&fields(&message.headers));
            if let Ok((_, table)) = parse_field_table(table.as_slice()) {
                // As text, because NaN != NaN.
                prop_assert_eq!(format!("{headers:?}"), format!("{:?}", table.inner()));
                prop_assert_eq!(format!("{:?}", EncodedHeaders::encode(headers.clone()).decode(|_| true)), format!("{headers:?}"));
            }
        }
        prop_assert!(rest.is_empty());
        let (last, message) = (incoming.last().unwrap(), messages.last().unwrap());
        prop_assert_eq!((last.delivery_tag, last.body_bytes), (messages.len() as u64, Some(message.body.len() as u64)));
        for (read, sent) in [(&last.routing_key, &message.routing_key), (&last.message_id, &message.message_id)] {
            let is_replaced = std::str::from_utf8(sent).is_err();
            prop_assert!(read == sent || (is_replaced && read.len() == sent.len()), "{read:?} of {sent:?}");
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
    let message = Message { headers: vec![(b"h".to_vec(), deep)], ..Message::default() };
    let incoming = IncomingMessages::default();
    passed(&mut FrameFilter::new(incoming.clone()), encoded(1, &message));
    let unparsed = incoming.take(1, 1);
    assert_eq!((unparsed.invalid_texts, unparsed.fault), (vec![], None));
    let mut value = EncodedHeaders::from(unparsed.headers).get("h").unwrap();
    let mut levels = 1;
    while let AMQPValue::FieldArray(values) = value {
        levels += 1;
        value = values.as_slice()[0].clone();
    }
    assert!(matches!(value, AMQPValue::ByteArray(_)) && levels == 60, "{levels}");
}

#[test]
fn different_names_of_headers_stay_different() {
    let names = [&b"a\xe9"[..], b"a\xe8", b"a\xe9\xe8", b"a"];
    let headers = names.map(|name| (name.to_vec(), Value::Plain(b'V', vec![]))).to_vec();
    let incoming = IncomingMessages::default();
    passed(&mut FrameFilter::new(incoming.clone()), encoded(1, &Message { headers, ..Message::default() }));
    let headers = EncodedHeaders::from(incoming.take(1, 1).headers).decode(|_| true);
    let read: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(read, ["a", "a0", "a1?", "a?"]);
}

/// A message whose encoded headers have about this many bytes.
fn with_headers_of(bytes: usize) -> Message {
    let header = |n: usize| (n.to_string().into_bytes(), Value::Long(b'S', vec![b'x'; 60_000]));
    let headers = (0..bytes / 60_000).map(header).collect();
    Message { headers, message_id: b"m".to_vec(), body: b"{}".to_vec(), ..Message::default() }
}

#[test]
fn headers_of_any_size_arrive_in_a_small_frame() {
    for bytes in [130_000, 1 << 20, 15 << 20] {
        let message = with_headers_of(bytes);
        let all = [encoded(1, &message), encoded(2, &Message::default())].concat();
        for size in [all.len(), 64 << 10, 7] {
            let incoming = IncomingMessages::default();
            let mut filter = FrameFilter::new(incoming.clone());
            let received = filtered(&mut filter, &all, std::iter::repeat_n(size, all.len() / size));
            assert!(received.len() < 300, "{}", received.len());
            assert_eq!(properties(&received).message_id().as_ref().unwrap().as_str(), "m");
            assert_eq!(incoming.take(1, 1).headers, fields(&message.headers));
        }
    }
}

#[test]
fn headers_beyond_the_limit_are_dropped_before_they_take_memory() {
    let message = with_headers_of(17 << 20);
    let all = [encoded(1, &message), encoded(2, &with_headers_of(60_000))].concat();
    for size in [64 << 10, all.len()] {
        let incoming = IncomingMessages::default();
        let mut filter = FrameFilter::new(incoming.clone());
        let (mut received, mut largest) = (Vec::new(), 0);
        for piece in all.chunks(size) {
            received.extend(filtered(&mut filter, piece, []));
            largest = largest.max(filter.held.capacity());
        }
        assert!(largest < 1 << 20, "{largest} bytes were held");
        assert_eq!(properties(&received).message_id().as_ref().unwrap().as_str(), "m");
        let fault = Some(HeadersFault::TooLarge(fields(&message.headers).len()));
        assert_eq!(incoming.take(1, 1), Unparsed { fault, ..Unparsed::default() });
        assert_eq!(incoming.take(1, 2).headers.len(), 60_000 + 1 + 1 + 1 + 4);
    }
}

#[test]
fn headers_that_are_not_encoded_as_amqp_says_end_no_session() {
    let message = Message { message_id: b"m".to_vec(), ..Message::default() };
    for table in [&b"\x01a?"[..], b"\x05a", b"\x01aS\xff\xff\xff\xff", b"\x01aF\0\0\0\x02\x09a"] {
        let incoming = IncomingMessages::default();
        let received = passed(&mut FrameFilter::new(incoming.clone()), with_table(1, &message, Some(table)));
        assert_eq!(received, with_table(1, &message, None));
        assert_eq!(incoming.take(1, 1), Unparsed { fault: Some(HeadersFault::Malformed), ..Unparsed::default() });
    }
}

#[test]
fn a_returned_message_keeps_the_headers_that_identify_it() {
    let text = |text: &str| Value::Long(b'S', text.as_bytes().to_vec());
    let all = [("big", text(&"x".repeat(200_000))), ("dl-cc", text(&"x".repeat(900))), ("dl-id", text("0a"))];
    let headers = all.map(|(name, value)| (name.as_bytes().to_vec(), value)).to_vec();
    let incoming = IncomingMessages::default();
    let received = passed(&mut FrameFilter::new(incoming.clone()), returned(&Message::default(), &fields(&headers)));
    let kept = properties(&received).headers().clone().unwrap();
    assert_eq!(kept.inner().keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["dl-id"]);
    assert_eq!(incoming.take(1, 0), Unparsed::default());
}

#[test]
fn a_reply_text_that_is_cut_within_a_character_is_made_readable() {
    let close = |text: &[u8]| frame(1, &[&[0, 20, 0, 40, 1, 148], short(text).as_slice(), &[0, 60, 0, 40]].concat());
    let mut cut = close(b"NOT_FOUND - no exchange 'caf\xc3");
    FrameFilter::new(IncomingMessages::default()).filter(&mut cut);
    assert_eq!(cut, close(b"NOT_FOUND - no exchange 'caf?"));
}

#[test]
fn escaped_texts_stay_different() {
    let escaped = |bytes: &[u8]| InvalidText { location: "message_id", bytes: bytes.to_vec() }.escaped();
    assert_eq!(escaped(b"caf\xe9").as_deref(), Some("caf\\xE9"));
    assert_eq!(escaped(b"caf\xe8!").as_deref(), Some("caf\\xE8!"));
    assert_eq!(escaped(&[0xff; 200]), None);
}
