//! Writing BSON (bsonspec.org, version 1.1) into one buffer; the type byte of an element is set last.

use std::collections::BTreeSet;
use std::io::Write as _;

use bson::raw::{RawDocumentBuf, cstr};
use bson::{DateTime, Document};

/// The BSON types of JSON values, and of the `_id`.
const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const OBJECT_ID: u8 = 0x07;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0a;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;
const DECIMAL128: u8 = 0x13;

/// High half of the Decimal128 of an unsigned integer: sign 0, exponent 0 (biased by 6176), IEEE 754-2008 BID.
const DECIMAL128_INTEGER: u64 = 6176 << 49;

/// Bytes in front of the first field: the length of the document, and the element `_id` of type ObjectId.
const PREFIX: usize = 4 + ID_KEY.len() + 12;
const ID_KEY: &[u8] = &[OBJECT_ID, b'_', b'i', b'd', 0];

const INGESTED_AT_KEY: &[u8] = b"\x09ingested_at\0";

/// A growing BSON document whose first element is `_id`.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Starts a document, with room for `_id`.
    pub fn start(&mut self) {
        self.out.clear();
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(ID_KEY);
        self.out.extend_from_slice(&[0; 12]);
    }

    /// Ends the document, sets its `_id` and returns its bytes. The buffer is kept for the next document.
    pub fn finish(&mut self, id: [u8; 12]) -> Vec<u8> {
        if let Some(slot) = self.out.get_mut(PREFIX - 12..PREFIX) {
            slot.copy_from_slice(&id);
        }
        self.close(0);
        self.out.clone()
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// The key that was written last, at this offset.
    pub fn last_key(&self, at: usize) -> &[u8] {
        self.out.get(at + 1..self.out.len() - 1).unwrap_or_default()
    }

    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Frees a buffer that one huge message needed.
    pub fn shrink(&mut self, max: usize) {
        if self.out.capacity() > max {
            self.out = Vec::new();
        }
    }

    /// Starts an element with this key; returns the offset of its type byte.
    pub fn key(&mut self, key: &[u8]) -> usize {
        let at = self.out.len();
        self.out.push(0);
        self.out.extend_from_slice(key);
        self.out.push(0);
        at
    }

    /// Starts an element of an array.
    pub fn index(&mut self, index: usize) -> usize {
        let at = self.out.len();
        self.out.push(0);
        // Writing to memory does not fail.
        let _ = write!(self.out, "{index}\0");
        at
    }

    /// Removes everything from `at` on.
    pub fn truncate(&mut self, at: usize) {
        self.out.truncate(at);
    }

    /// Sets the type byte at `at` and appends the value.
    fn put(&mut self, at: usize, kind: u8, value: &[u8]) {
        if let Some(slot) = self.out.get_mut(at) {
            *slot = kind;
        }
        self.out.extend_from_slice(value);
    }

    pub fn null(&mut self, at: usize) {
        self.put(at, NULL, &[]);
    }

    pub fn boolean(&mut self, at: usize, value: bool) {
        self.put(at, BOOLEAN, &[u8::from(value)]);
    }

    pub fn double(&mut self, at: usize, value: f64) {
        self.put(at, DOUBLE, &value.to_le_bytes());
    }

    /// Int32 if it fits, else Int64.
    pub fn integer(&mut self, at: usize, value: i64) {
        match i32::try_from(value) {
            Ok(small) => self.put(at, INT32, &small.to_le_bytes()),
            Err(_) => self.put(at, INT64, &value.to_le_bytes()),
        }
    }

    /// Int32 or Int64 if it fits, else Decimal128, which is exact.
    pub fn unsigned(&mut self, at: usize, value: u64) {
        match i64::try_from(value) {
            Ok(signed) => self.integer(at, signed),
            Err(_) => {
                self.put(at, DECIMAL128, &value.to_le_bytes());
                self.out.extend_from_slice(&DECIMAL128_INTEGER.to_le_bytes());
            }
        }
    }

    pub fn string(&mut self, at: usize, value: &str) {
        self.put(at, STRING, &length(value.len() + 1));
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(0);
    }

    /// Starts an embedded document; pass the result to [`Writer::close`].
    pub fn open_document(&mut self, at: usize) -> usize {
        self.put(at, DOCUMENT, &[]);
        self.open()
    }

    /// Starts an array; its keys are the decimal indices.
    pub fn open_array(&mut self, at: usize) -> usize {
        self.put(at, ARRAY, &[]);
        self.open()
    }

    fn open(&mut self) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        start
    }

    /// Ends the document or array that starts at `start`.
    pub fn close(&mut self, start: usize) {
        self.out.push(0);
        let bytes = length(self.out.len().saturating_sub(start));
        if let Some(slot) = self.out.get_mut(start..start + 4) {
            slot.copy_from_slice(&bytes);
        }
    }
}

/// A BSON length. Documents are rejected far below `i32::MAX`, so the fallback is never stored.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).unwrap_or(i32::MAX).to_le_bytes()
}

/// Adds `ingested_at` (Date, milliseconds since 1970) as the last field.
pub fn add_ingested_at(document: &mut RawDocumentBuf, millis: i64) {
    document.append(cstr!("ingested_at"), DateTime::from_millis(millis));
}

/// Whether two documents are the same event: equal bytes, except for `ingested_at` at the end.
pub fn same_event(left: &[u8], right: &[u8]) -> bool {
    without_ingested_at(left) == without_ingested_at(right)
}

/// The top-level fields that only one of two events has, or that differ.
pub fn different_fields(left: &[u8], right: &[u8]) -> BTreeSet<String> {
    let [left, right] = [left, right].map(|bytes| Document::from_reader(bytes).unwrap_or_default());
    let keys = left.keys().chain(right.keys()).filter(|key| *key != "ingested_at");
    keys.filter(|key| left.get(key) != right.get(key)).cloned().collect()
}

/// The elements of a document, without `ingested_at` if that is the last.
fn without_ingested_at(document: &[u8]) -> &[u8] {
    let body = document.get(4..document.len().saturating_sub(1)).unwrap_or_default();
    let split = body.len().saturating_sub(INGESTED_AT_KEY.len() + 8);
    match body.get(split..) {
        Some(tail) if tail.starts_with(INGESTED_AT_KEY) => body.get(..split).unwrap_or_default(),
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;

    fn sample(value: i64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.start();
        let at = writer.key(b"a");
        writer.integer(at, value);
        writer.finish([7; 12])
    }

    #[test]
    fn writes_what_the_bson_crate_reads() {
        let document = Document::from_reader(sample(1 << 40).as_slice()).unwrap();
        assert_eq!(document, doc! { "_id": bson::oid::ObjectId::from_bytes([7; 12]), "a": 1i64 << 40 });
    }

    #[test]
    fn ingested_at_is_a_date_and_is_ignored_by_the_comparison() {
        let stamped = |value: i64, millis: i64| {
            let mut document = RawDocumentBuf::from_bytes(sample(value)).unwrap();
            add_ingested_at(&mut document, millis);
            document
        };
        let early = stamped(5, 1_700_000_000_000);
        assert_eq!(early.get_datetime("ingested_at").unwrap().timestamp_millis(), 1_700_000_000_000);
        assert!(same_event(early.as_bytes(), stamped(5, 3).as_bytes()));
        assert!(same_event(early.as_bytes(), &sample(5)));
        assert!(!same_event(early.as_bytes(), stamped(6, 1_700_000_000_000).as_bytes()));
        assert!(!same_event(&sample(5), &sample(6)));
    }
}
