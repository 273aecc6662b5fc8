//! Owns the JSON form of AMQP properties and headers, exact in both directions, for export, import and `--json`.
//!
//! Plain JSON stands for the usual types: text for a long string, an integer for a signed 64-bit one, a number with a
//! fraction or exponent for a double, true and false, null for void, arrays, objects for tables. Every other type is an
//! object `{"amqp": TYPE, "value": …}`, and so is a table with a key `amqp`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldTable, LongString, ShortString};
use serde_json::{Map, Value, json};

/// The headers as a JSON object.
pub(super) fn headers_to_json(headers: &FieldTable) -> Map<String, Value> {
    headers.inner().iter().map(|(name, value)| (name.to_string(), value_to_json(value))).collect()
}

/// Recursive: a connection delivers headers of at most 60 levels.
fn value_to_json(value: &AMQPValue) -> Value {
    let tagged = |kind: &str, value: Value| json!({ "amqp": kind, "value": value });
    match value {
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::LongLongInt(number) => json!(number),
        AMQPValue::Void => Value::Null,
        AMQPValue::Double(number) if number.is_finite() => json!(number),
        AMQPValue::Double(number) => tagged("double_bits", json!(number.to_bits())),
        AMQPValue::Float(number) => tagged("float_bits", json!(number.to_bits())),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => json!(text),
            Err(_) => tagged("long_string", json!(BASE64.encode(text.as_bytes()))),
        },
        AMQPValue::FieldArray(values) => Value::Array(values.as_slice().iter().map(value_to_json).collect()),
        AMQPValue::FieldTable(fields) => {
            let fields = headers_to_json(fields);
            if fields.contains_key("amqp") { tagged("table", Value::Object(fields)) } else { Value::Object(fields) }
        }
        AMQPValue::ShortShortInt(number) => tagged("i8", json!(number)),
        AMQPValue::ShortShortUInt(number) => tagged("u8", json!(number)),
        AMQPValue::ShortInt(number) => tagged("i16", json!(number)),
        AMQPValue::ShortUInt(number) => tagged("u16", json!(number)),
        AMQPValue::LongInt(number) => tagged("i32", json!(number)),
        AMQPValue::LongUInt(number) => tagged("u32", json!(number)),
        AMQPValue::Timestamp(seconds) => tagged("timestamp", json!(seconds)),
        AMQPValue::DecimalValue(decimal) => tagged("decimal", json!([decimal.scale, decimal.value])),
        AMQPValue::ShortString(text) => tagged("short_string", json!(text.as_str())),
        AMQPValue::ByteArray(bytes) => tagged("byte_array", json!(BASE64.encode(bytes.as_slice()))),
    }
}

/// The reverse of [`headers_to_json`].
///
/// # Errors
/// Which header is not valid.
pub(super) fn headers_from_json(headers: &Map<String, Value>) -> Result<FieldTable, String> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = value_from_json(value).ok_or_else(|| format!("header {name:?} is not an AMQP value"))?;
        table.insert(short_string(name)?, value);
    }
    Ok(table)
}

fn short_string(text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text)
        .map_err(|_| format!("{:?}… is longer than 255 bytes", text.chars().take(20).collect::<String>()))
}

fn value_from_json(value: &Value) -> Option<AMQPValue> {
    Some(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => AMQPValue::LongLongInt(number),
            None if number.is_f64() => AMQPValue::Double(number.as_f64()?),
            None => return None,
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(values) => {
            AMQPValue::FieldArray(values.iter().map(value_from_json).collect::<Option<Vec<_>>>()?.into())
        }
        Value::Object(fields) => match fields.get("amqp") {
            None => AMQPValue::FieldTable(headers_from_json(fields).ok()?),
            Some(kind) if fields.len() == 2 => value_from_tagged(kind.as_str()?, fields.get("value")?)?,
            Some(_) => return None,
        },
    })
}

/// The value of a tagged object `{"amqp": kind, "value": value}`.
fn value_from_tagged(kind: &str, value: &Value) -> Option<AMQPValue> {
    let bytes = || BASE64.decode(value.as_str()?).ok();
    let unsigned = value.as_u64();
    let signed = value.as_i64();
    Some(match kind {
        "i8" => AMQPValue::ShortShortInt(signed?.try_into().ok()?),
        "u8" => AMQPValue::ShortShortUInt(unsigned?.try_into().ok()?),
        "i16" => AMQPValue::ShortInt(signed?.try_into().ok()?),
        "u16" => AMQPValue::ShortUInt(unsigned?.try_into().ok()?),
        "i32" => AMQPValue::LongInt(signed?.try_into().ok()?),
        "u32" => AMQPValue::LongUInt(unsigned?.try_into().ok()?),
        "timestamp" => AMQPValue::Timestamp(unsigned?),
        "float_bits" => AMQPValue::Float(f32::from_bits(unsigned?.try_into().ok()?)),
        "double_bits" => AMQPValue::Double(f64::from_bits(unsigned?)),
        "decimal" => {
            let [scale, value] = value.as_array()?.as_slice() else { return None };
            let (scale, value) = (scale.as_u64()?.try_into().ok()?, value.as_u64()?.try_into().ok()?);
            AMQPValue::DecimalValue(DecimalValue { scale, value })
        }
        // Of older archives. No message has it: RabbitMQ does not know the type of a short string in a table.
        "short_string" => AMQPValue::LongString(value.as_str()?.into()),
        "long_string" => AMQPValue::LongString(LongString::from(bytes()?)),
        "byte_array" => AMQPValue::ByteArray(ByteArray::from(bytes()?)),
        "table" => AMQPValue::FieldTable(headers_from_json(value.as_object()?).ok()?),
        _ => return None,
    })
}

/// Calls a macro for every property of the basic class that is text: JSON name, getter, setter.
macro_rules! for_each_text_property {
    ($each:ident) => {
        $each!("content_type", content_type, with_content_type);
        $each!("content_encoding", content_encoding, with_content_encoding);
        $each!("correlation_id", correlation_id, with_correlation_id);
        $each!("reply_to", reply_to, with_reply_to);
        $each!("expiration", expiration, with_expiration);
        $each!("message_id", message_id, with_message_id);
        $each!("type", kind, with_type);
        $each!("user_id", user_id, with_user_id);
        $each!("app_id", app_id, with_app_id);
        $each!("cluster_id", cluster_id, with_cluster_id);
    };
}
pub(super) use for_each_text_property;

/// Sets a property that is text; other names change nothing.
pub(super) fn set_text_property(properties: &mut BasicProperties, name: &str, text: String) {
    macro_rules! text {
        ($name:literal, $get:ident, $with:ident) => {
            if name == $name {
                *properties = std::mem::take(properties).$with(text.into());
                return;
            }
        };
    }
    for_each_text_property!(text);
}

/// The properties that are set, without the headers.
pub(super) fn properties_to_json(properties: &BasicProperties) -> Map<String, Value> {
    let mut map = Map::new();
    macro_rules! text {
        ($name:literal, $get:ident, $with:ident) => {
            if let Some(text) = properties.$get() {
                map.insert($name.to_owned(), json!(text.as_str()));
            }
        };
    }
    for_each_text_property!(text);
    for (name, number) in [
        ("delivery_mode", properties.delivery_mode().map(u64::from)),
        ("priority", properties.priority().map(u64::from)),
        ("timestamp", *properties.timestamp()),
    ] {
        if let Some(number) = number {
            map.insert(name.to_owned(), json!(number));
        }
    }
    map
}

/// The reverse of [`properties_to_json`].
///
/// # Errors
/// Which property is unknown or has an invalid value.
pub(super) fn properties_from_json(map: &Map<String, Value>) -> Result<BasicProperties, String> {
    let mut properties = BasicProperties::default();
    for (name, value) in map {
        let invalid = || format!("property {name:?} cannot be {value}");
        macro_rules! text {
            ($name:literal, $get:ident, $with:ident) => {
                if name == $name {
                    properties = properties.$with(short_string(value.as_str().ok_or_else(invalid)?)?);
                    continue;
                }
            };
        }
        for_each_text_property!(text);
        let number = value.as_u64().ok_or_else(invalid);
        let byte = || value.as_u64().and_then(|number| u8::try_from(number).ok()).ok_or_else(invalid);
        properties = match name.as_str() {
            "delivery_mode" => properties.with_delivery_mode(byte()?),
            "priority" => properties.with_priority(byte()?),
            "timestamp" => properties.with_timestamp(number?),
            _ => return Err(format!("there is no AMQP property {name:?}")),
        };
    }
    Ok(properties)
}

/// Asserts that any JSON, read as headers or as properties, is rejected or survives a round trip.
pub fn check_round_trip(map: &Map<String, Value>) {
    if let Ok(properties) = properties_from_json(map) {
        assert_eq!(properties_from_json(&properties_to_json(&properties)), Ok(properties), "properties differ");
    }
    // Compared as text, because NaN != NaN.
    if let Ok(headers) = headers_from_json(map) {
        let again = headers_from_json(&headers_to_json(&headers)).map(|again| format!("{again:?}"));
        assert_eq!(again, Ok(format!("{headers:?}")), "headers differ");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf() -> impl Strategy<Value = AMQPValue> {
        prop_oneof![
            any::<bool>().prop_map(AMQPValue::Boolean),
            any::<i8>().prop_map(AMQPValue::ShortShortInt),
            any::<u8>().prop_map(AMQPValue::ShortShortUInt),
            any::<i16>().prop_map(AMQPValue::ShortInt),
            any::<u16>().prop_map(AMQPValue::ShortUInt),
            any::<i32>().prop_map(AMQPValue::LongInt),
            any::<u32>().prop_map(AMQPValue::LongUInt),
            any::<i64>().prop_map(AMQPValue::LongLongInt),
            any::<u32>().prop_map(|bits| AMQPValue::Float(f32::from_bits(bits))),
            any::<u64>().prop_map(|bits| AMQPValue::Double(f64::from_bits(bits))),
            any::<(u8, u32)>().prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
            any::<u64>().prop_map(AMQPValue::Timestamp),
            ".{0,40}".prop_map(|text| AMQPValue::LongString(text.as_str().into())),
            any::<Vec<u8>>().prop_map(|bytes| AMQPValue::LongString(bytes.into())),
            any::<Vec<u8>>().prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
            Just(AMQPValue::Void),
        ]
    }

    fn fields(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
        let name = prop_oneof![Just("amqp".to_owned()), Just("value".to_owned()), ".{0,20}"];
        proptest::collection::btree_map(name.prop_map(ShortString::from), value, 0..5).prop_map(FieldTable::from)
    }

    fn any_value() -> impl Strategy<Value = AMQPValue> {
        leaf().prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(|values| AMQPValue::FieldArray(values.into())),
                fields(inner).prop_map(AMQPValue::FieldTable),
            ]
        })
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop_oneof!["u8", "i32", "decimal", "long_string", "table", "double_bits", ".{0,20}"].prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let name = prop_oneof![Just("amqp".to_owned()), Just("value".to_owned()), ".{0,9}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_rejected_or_survives_a_round_trip(value in any_json()) {
            let Value::Object(map) = value else { return Ok(()) };
            check_round_trip(&map);
        }

        #[test]
        fn headers_survive_a_round_trip(headers in fields(any_value())) {
            let line = serde_json::to_string(&headers_to_json(&headers)).unwrap();
            let back = headers_from_json(&serde_json::from_str(&line).unwrap()).unwrap();
            // Compared as text, because NaN != NaN.
            prop_assert_eq!(format!("{:?}", back), format!("{:?}", headers));
        }
    }

    #[test]
    fn properties_survive_a_round_trip() {
        let all = BasicProperties::default()
            .with_content_type("a".into())
            .with_content_encoding("b".into())
            .with_delivery_mode(2)
            .with_priority(255)
            .with_correlation_id("c".into())
            .with_reply_to("d".into())
            .with_expiration("1".into())
            .with_message_id("e".into())
            .with_timestamp(u64::MAX)
            .with_type("f".into())
            .with_user_id("g".into())
            .with_app_id("h".into())
            .with_cluster_id("i".into());
        assert_eq!(properties_from_json(&properties_to_json(&all)).unwrap(), all);
        let error_of = |text: &str| properties_from_json(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert_eq!(error_of(r#"{"priority":256}"#), "property \"priority\" cannot be 256");
        assert_eq!(error_of(r#"{"colour":"red"}"#), "there is no AMQP property \"colour\"");
        assert_eq!(error_of(r#"{"type":5}"#), "property \"type\" cannot be 5");
    }

    #[test]
    fn faults_in_headers_are_named() {
        let invalid = headers_from_json(&serde_json::from_str(r#"{"h":{"amqp":"u8","value":300}}"#).unwrap());
        assert_eq!(invalid.unwrap_err(), "header \"h\" is not an AMQP value");
    }
}
