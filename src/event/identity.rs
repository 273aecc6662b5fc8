//! Owns the `_id` of a message with an identity: a pure function of the message, equal in every worker. Must not know where
//! the message comes from, nor read a clock.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// The 12 bytes of the ObjectId for `body` and `token` (the AMQP `message_id`; or else the body's `uuid`; or else the `dl-id`
/// of the dead letter that the message was replayed from).
///
/// With a time: 4 bytes of seconds, big-endian, then 8 bytes of hash. Without: 12 bytes of hash. The hash is XXH3-128
/// of the body, seeded with XXH3-64 of the token; both are fixed by the xxHash specification. A collision cannot lose a
/// message: on a duplicate `_id` the stored document is compared, and if it differs the message is dead-lettered
/// as `identity_conflict`.
pub fn object_id(token: &str, body: &[u8], seconds: Option<u32>) -> [u8; 12] {
    let hash = xxh3_128_with_seed(body, xxh3_64(token.as_bytes())).to_be_bytes();
    let mut id = [0u8; 12];
    match seconds {
        Some(seconds) => {
            id[..4].copy_from_slice(&seconds.to_be_bytes());
            id[4..].copy_from_slice(&hash[..8]);
        }
        None => id.copy_from_slice(&hash[..12]),
    }
    id
}

/// The seconds in the `_id`: from `timestamp` in the body (milliseconds, as `Date.now()` returns), or else from the AMQP
/// property `timestamp` (seconds by AMQP 0-9-1; larger values are read as milliseconds).
///
/// None if neither fits into 32 bits. Depends on the message alone.
pub fn seconds(body_millis: Option<f64>, property: Option<u64>) -> Option<u32> {
    if let Some(millis) = body_millis {
        let seconds = (millis / 1000.0).floor();
        if seconds >= 0.0 && seconds <= f64::from(u32::MAX) {
            return Some(seconds as u32);
        }
    }
    let property = property?;
    u32::try_from(property).or_else(|_| u32::try_from(property / 1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_never_changes() {
        let hex = |id: [u8; 12]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        insta::assert_snapshot!(hex(object_id("m-1", b"{\"a\":1}", Some(1_700_000_000))), @"6553f100457456dcb02e5a3f");
        insta::assert_snapshot!(hex(object_id("m-1", b"{\"a\":1}", None)), @"457456dcb02e5a3fb7b5e6d1");
    }

    #[test]
    fn the_id_depends_on_token_body_and_time() {
        let id = object_id("a", b"{}", Some(1));
        assert_ne!(id, object_id("b", b"{}", Some(1)));
        assert_ne!(id, object_id("a", b"{ }", Some(1)));
        assert_ne!(id, object_id("a", b"{}", Some(2)));
        assert_eq!(id, object_id("a", b"{}", Some(1)));
        assert_eq!(id[..4], [0, 0, 0, 1]);
    }

    #[test]
    fn seconds_come_from_the_body_or_else_from_the_property() {
        assert_eq!(seconds(Some(1_700_000_000_999.0), Some(5)), Some(1_700_000_000));
        assert_eq!(seconds(None, Some(1_700_000_000)), Some(1_700_000_000));
        assert_eq!(seconds(None, Some(1_700_000_000_123)), Some(1_700_000_000));
        assert_eq!(seconds(Some(-1.0), None), None);
        assert_eq!(seconds(Some(f64::MAX), Some(7)), Some(7));
        assert_eq!(seconds(Some(f64::NAN), None), None);
        assert_eq!(seconds(None, Some(u64::MAX)), None);
    }
}
