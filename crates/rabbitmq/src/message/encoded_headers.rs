//! The headers of a message as AMQP encodes them. A parsed table takes up to twenty times as many bytes, so headers are kept like
//! this, and only what is needed is parsed.

use std::collections::BTreeMap;

use lapin::types::generation::gen_field_table;
use lapin::types::parsing::parse_value;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::super::connection::table;

/// Headers by name.
pub(super) type Headers = BTreeMap<ShortString, AMQPValue>;

/// Bytes of the length before an encoded table.
const LENGTH: usize = 4;

/// The fields of a table without the length before them (AMQP 0-9-1, section 4.2.5.5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EncodedHeaders(Box<[u8]>);

impl EncodedHeaders {
    pub fn encode(headers: Headers) -> Self {
        let table = FieldTable::from(headers);
        let encoded = gen_field_table(&table)(Vec::new().into());
        let bytes = encoded.map(|written| written.into_inner().0).unwrap_or_default();
        EncodedHeaders(bytes.get(LENGTH..).unwrap_or_default().into())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a header. Of several with one name the last counts, as in lapin.
    pub fn get(&self, name: &str) -> Option<AMQPValue> {
        let (_, value) = table::entries(&self.0).filter(|(found, _)| *found == name.as_bytes()).last()?;
        parsed(value)
    }

    /// Name and encoded length of each header.
    pub fn lengths(&self) -> impl Iterator<Item = (&[u8], usize)> {
        table::entries(&self.0).map(|(name, value)| (name, 1 + name.len() + value.len()))
    }

    /// The headers whose names `keep` accepts, parsed.
    pub fn decode(&self, keep: impl Fn(&str) -> bool) -> Headers {
        let entry = |(name, value)| {
            let name = std::str::from_utf8(name).ok().filter(|name| keep(name))?;
            Some((ShortString::try_new(name).ok()?, parsed(value)?))
        };
        table::entries(&self.0).filter_map(entry).collect()
    }
}

impl From<Vec<u8>> for EncodedHeaders {
    fn from(table: Vec<u8>) -> Self {
        EncodedHeaders(table.into())
    }
}

/// Recursive: a connection delivers headers of at most 60 levels.
fn parsed(value: &[u8]) -> Option<AMQPValue> {
    parse_value(value).ok().map(|(_, value)| value)
}
