//! Properties of the decoder over generated messages: `serde_json` decides what is JSON, and a slow, simple model
//! what the document must hold.

use std::sync::Arc;

use bson::Bson;
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

use super::*;

/// The BSON value that a JSON value must become.
fn model(value: &Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(*value),
        Value::Number(number) => model_number(number),
        Value::String(text) => Bson::String(text.clone()),
        Value::Array(values) => Bson::Array(values.iter().map(model).collect()),
        Value::Object(members) => {
            Bson::Document(members.iter().map(|(key, value)| (key.clone(), model(value))).collect())
        }
    }
}

fn model_number(number: &Number) -> Bson {
    if let Some(value) = number.as_i64() {
        i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
    } else if let Some(value) = number.as_u64() {
        Bson::Decimal128(value.to_string().parse().unwrap())
    } else {
        Bson::Double(number.as_f64().unwrap())
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::hash_map("[a-d.$]{0,3}", inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::hash_map("[a-c]{1,2}", json(), 0..30).prop_map(|members| members.into_iter().collect())
}

fn decode(body: &[u8]) -> Result<Event, Rejection> {
    Decoder::new(Arc::new(Rules::default())).decode(&Message { body, ..Message::default() }, || [9; 12])
}

fn stored(event: &Event) -> bson::Document {
    let mut document = bson::Document::from_reader(event.document.as_bytes()).unwrap();
    document.remove("_id").unwrap();
    document
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn objects_become_the_document_of_the_model(members in object()) {
        let body = serde_json::to_vec(&members).unwrap();
        let Bson::Document(expected) = model(&Value::Object(members)) else { unreachable!() };
        prop_assert_eq!(stored(&decode(&body).unwrap()), expected);
    }

    #[test]
    fn repeated_keys_end_as_in_a_map(pairs in prop::collection::vec(("[a-e]{1,2}", json()), 0..60)) {
        let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{:?}:{value}", key)).collect();
        let mut expected = bson::Document::new();
        for (key, value) in &pairs {
            expected.insert(key.clone(), model(value));
        }
        prop_assert_eq!(stored(&decode(format!("{{{}}}", text.join(",")).as_bytes()).unwrap()), expected);
    }

    #[test]
    fn the_decoder_and_serde_json_agree_on_what_is_json(mut body in json().prop_map(|value| value.to_string().into_bytes()), at in any::<usize>(), bit in 0u8..8) {
        if !body.is_empty() {
            let at = at % body.len();
            body[at] ^= 1 << bit;
        }
        let result = decode(&body);
        match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(_)) => if let Err(rejection) = result {
                prop_assert_eq!(rejection.reason, Reason::InvalidFieldName);
            },
            Ok(_) => prop_assert_eq!(result.unwrap_err().reason, Reason::NotAnObject),
            Err(_) => prop_assert!(result.is_err()),
        }
    }

    #[test]
    fn random_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), encoding in prop::option::of("gzip|zstd|br")) {
        let message = Message { body: &body, content_encoding: encoding.as_deref(), ..Message::default() };
        let _ = Decoder::new(Arc::new(Rules::default())).decode(&message, || [9; 12]);
    }

    #[test]
    fn the_same_message_gets_the_same_id(members in object(), token in "[a-z0-9-]{1,40}", time in prop::option::of(any::<u64>())) {
        let body = serde_json::to_vec(&members).unwrap();
        let message = Message { body: &body, message_id: Some(&token), timestamp: time, ..Message::default() };
        let mut decoder = Decoder::new(Arc::new(Rules::default()));
        let first = decoder.decode(&message, || unreachable!()).unwrap();
        prop_assert_eq!(&decoder.decode(&message, || unreachable!()).unwrap(), &first);
        let other = Message { message_id: Some("another token"), ..message };
        prop_assert_ne!(decoder.decode(&other, || unreachable!()).unwrap().id, first.id);
    }
}
