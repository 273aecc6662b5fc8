//! Owns JSON in both directions: a body read as the decoder reads it, but kept as it was sent; and a document as it is printed.

use std::fmt;

use bson::Bson;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use super::decode::utf8_text;
use super::replace_lone_surrogates;

/// A decompressed body as JSON, with the decoder's numbers and its treatment of lone surrogates, and without casts. `None` if it is not JSON.
pub fn read_json(body: &[u8]) -> Option<Bson> {
    let text = utf8_text(body).ok()?;
    let read = serde_json::from_str(text).or_else(|error| match replace_lone_surrogates(text) {
        Some(replaced) => serde_json::from_str(&replaced),
        None => Err(error),
    });
    read.ok().map(to_bson)
}

/// Unlike the conversion of the `bson` crate it takes no key for extended JSON. Recursive: serde_json reads at most 128 levels.
fn to_bson(value: Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(value),
        Value::String(text) => Bson::String(text),
        Value::Array(values) => values.into_iter().map(to_bson).collect::<Vec<_>>().into(),
        Value::Object(members) => {
            Bson::Document(members.into_iter().map(|(key, value)| (key, to_bson(value))).collect())
        }
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Bson::Int64(number),
            (None, Some(_)) => number.to_string().parse().map_or(Bson::Null, Bson::Decimal128),
            (None, None) => number.as_f64().map_or(Bson::Null, Bson::Double),
        },
    }
}

/// A value as JSON text, in its order: what came from JSON as it was sent, keys with `$` too. Types that JSON does not have are written
/// as relaxed extended JSON. In a document of a worker these are `_id` and `ingested_at` alone.
pub struct Printed<'a>(pub &'a Bson);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Bson::Document(document) => {
                let mut map = serializer.serialize_map(Some(document.len()))?;
                document.iter().try_for_each(|(key, value)| map.serialize_entry(key, &Printed(value)))?;
                map.end()
            }
            Bson::Array(values) => serializer.collect_seq(values.iter().map(Printed)),
            // What the decoder makes of an integer above i64.
            Bson::Decimal128(number) if number.to_string().parse::<u64>().is_ok() => {
                number.to_string().parse().unwrap_or(0u64).serialize(serializer)
            }
            other => other.clone().into_relaxed_extjson().serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::{DateTime, Document, Timestamp, doc};
    use proptest::prelude::*;

    use super::super::{Decoder, Message, Rules};
    use super::*;

    fn print(document: Document) -> String {
        Printed(&Bson::Document(document)).to_string()
    }

    #[test]
    fn a_document_is_printed_as_it_was_sent() {
        for keys in [
            r#"{"$oid":"zz"}"#,
            r#"{"$oid":"507f1f77bcf86cd799439011"}"#,
            r#"{"$date":5}"#,
            r#"{"$numberLong":"x"}"#,
            r#"{"$numberDecimal":"x"}"#,
            r#"{"$numberDouble":1}"#,
            r#"{"$binary":{"base64":"%","subType":"00"}}"#,
            r#"{"$regularExpression":1}"#,
            r#"{"$timestamp":{"t":1,"i":1}}"#,
            r#"{"$uuid":"x"}"#,
            r#"{"$minKey":1}"#,
            r#"{"$symbol":"x"}"#,
            r#"[18446744073709551615,-0.0,42.0,1e23,0.1,-5,"\u009b","",{"b":1,"a":{}}]"#,
        ] {
            let message = format!("{{\"z\":1,\"d\":{keys}}}");
            let message = Message { body: message.as_bytes(), ..Message::default() };
            let event = Decoder::new(Rules::default().into()).decode(&message, || [7; 12]).unwrap();
            let printed = print(Document::from_reader(event.document.as_bytes()).unwrap());
            let keys = keys.replace("\\u009b", "\u{9b}").replace("1e23", "1e+23");
            let expected = format!("{{\"_id\":{{\"$oid\":\"{}\"}},\"z\":1,\"d\":{keys}}}", "07".repeat(12));
            assert_eq!(printed.replace("1e23", "1e+23"), expected);
        }
    }

    #[test]
    fn types_of_others_are_extended_json() {
        let document = doc! { "t": DateTime::from_millis(0), "n": f64::NAN, "s": Timestamp { time: 1, increment: 2 }, "d": "1.5".parse::<bson::Decimal128>().unwrap() };
        insta::assert_snapshot!(print(document), @r#"{"t":{"$date":"1970-01-01T00:00:00Z"},"n":{"$numberDouble":"NaN"},"s":{"$timestamp":{"i":2,"t":1}},"d":{"$numberDecimal":"1.5"}}"#);
    }

    #[test]
    fn a_body_is_read_as_the_decoder_reads_it() {
        let body = "\u{feff}{\"a\":\"\\ud83d\",\"n\":42.0,\"u\":18446744073709551615,\"u\":1,\"d\":{\"$oid\":\"zz\"}}";
        let read = read_json(body.as_bytes()).unwrap();
        assert_eq!(read, Bson::from(doc! { "a": "\u{fffd}", "d": { "$oid": "zz" }, "n": 42.0, "u": 1i64 }));
        assert!(read_json(b"{").is_none() && read_json(b"").is_none() && read_json(b"\xff").is_none());
        assert_eq!(read_json(b"[1]"), Some(Bson::from(vec![1i64])));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_what_was_sent(text: String, key in "[$a-z.]{0,9}", numbers in prop::collection::vec(any::<i64>(), 0..4)) {
            let sent = serde_json::json!({ "a": { &key: text, "n": numbers } });
            let read = read_json(sent.to_string().as_bytes()).unwrap();
            let printed = Printed(&read).to_string();
            prop_assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), sent);
        }
    }
}
