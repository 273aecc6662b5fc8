//! Owns the `_id` of a message with an identity: a pure function of the message, equal in every worker.

use ring::hmac;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::{HiddenField, MaskKey};

/// Makes the `_id`s of one configuration.
#[derive(Debug)]
pub struct IdHash {
    /// None: the hash has no key, because everything that it is made of is stored.
    key: Option<hmac::Key>,
    /// Whether the time is not stored either, and so is not part of the `_id`.
    hides_time: bool,
}

impl IdHash {
    /// With a key if fields are hidden: without it, a reader of the log could try values until the `_id` fits.
    pub fn new(hidden: &[HiddenField], key: &MaskKey) -> Self {
        // Masks are HMAC-SHA-256 of texts that a publisher chooses. With another hash function none of them is part of an `_id`.
        let key = (!hidden.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA512, &key.0));
        IdHash { key, hides_time: hidden.iter().any(|field| field.path == "timestamp") }
    }

    /// The 12 bytes of the ObjectId for `body` and `token` (the AMQP `message_id`; or else the body's `uuid`; or else the
    /// `dl-first-id` of the dead letter that the message was replayed from).
    ///
    /// With a time: 4 bytes of seconds, big-endian, then 8 bytes of hash. Without: 12 bytes of hash. The hash is XXH3-128 of the
    /// body, seeded with XXH3-64 of the token; both are fixed by the xxHash specification. With a key it is HMAC-SHA-512 of the
    /// token's length in 8 bytes, the token and the body. A collision cannot lose a message: on a duplicate `_id` the stored
    /// document is compared, and if it differs the message is dead-lettered as `identity_conflict`.
    pub fn object_id(&self, token: &str, body: &[u8], seconds: Option<u32>) -> [u8; 12] {
        let hash = self.hash(token, body);
        let mut id = [0u8; 12];
        match seconds.filter(|_| !self.hides_time) {
            Some(seconds) => {
                id[..4].copy_from_slice(&seconds.to_be_bytes());
                id[4..].copy_from_slice(&hash[..8]);
            }
            None => id = hash,
        }
        id
    }

    fn hash(&self, token: &str, body: &[u8]) -> [u8; 12] {
        let mut hash = [0u8; 12];
        let Some(key) = &self.key else {
            hash.copy_from_slice(&xxh3_128_with_seed(body, xxh3_64(token.as_bytes())).to_be_bytes()[..12]);
            return hash;
        };
        let mut hmac = hmac::Context::with_key(key);
        hmac.update(&(token.len() as u64).to_be_bytes());
        hmac.update(token.as_bytes());
        hmac.update(body);
        hash.iter_mut().zip(hmac.sign().as_ref()).for_each(|(to, from)| *to = *from);
        hash
    }
}

/// The seconds in the `_id`: from `timestamp` in the body (milliseconds, as `Date.now()` returns), or else from the AMQP
/// property `timestamp` (seconds by AMQP 0-9-1; larger values are read as milliseconds).
///
/// `None` if neither fits into 32 bits. Depends on the message alone.
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
    use super::super::Treatment;
    use super::*;

    fn hash_hiding(path: &str, key: &[u8]) -> IdHash {
        let field = HiddenField { path: path.to_owned(), treatment: Treatment::Drop };
        IdHash::new(&[field], &MaskKey(key.to_vec()))
    }

    fn hash(key: Option<&[u8]>) -> IdHash {
        key.map_or_else(|| IdHash::new(&[], &MaskKey::default()), |key| hash_hiding("card", key))
    }

    #[test]
    fn a_time_that_is_hidden_is_no_part_of_the_id() {
        let hash = hash_hiding("timestamp", b"0123456789abcdef");
        assert_eq!(hash.object_id("a", b"{}", Some(1)), hash.object_id("a", b"{}", None));
    }

    #[test]
    fn the_id_never_changes() {
        let hex = |id: [u8; 12]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (plain, keyed) = (hash(None), hash(Some(b"0123456789abcdef")));
        insta::assert_snapshot!(hex(plain.object_id("m-1", b"{\"a\":1}", Some(1_700_000_000))), @"6553f100457456dcb02e5a3f");
        insta::assert_snapshot!(hex(plain.object_id("m-1", b"{\"a\":1}", None)), @"457456dcb02e5a3fb7b5e6d1");
        // printf '\0\0\0\0\0\0\0\003m-1{"a":1}' | openssl dgst -sha512 -hmac 0123456789abcdef
        insta::assert_snapshot!(hex(keyed.object_id("m-1", b"{\"a\":1}", Some(1_700_000_000))), @"6553f1006f2eec430dbcd78d");
        insta::assert_snapshot!(hex(keyed.object_id("m-1", b"{\"a\":1}", None)), @"6f2eec430dbcd78d28fab707");
    }

    #[test]
    fn the_id_depends_on_token_body_time_and_key() {
        let keys = [None, Some(&b"0123456789abcdef"[..]), Some(&b"0123456789abcdeg"[..])];
        for hash in keys.map(hash) {
            let id = hash.object_id("a", b"{}", Some(1));
            assert_ne!(id, hash.object_id("b", b"{}", Some(1)));
            assert_ne!(id, hash.object_id("a", b"{ }", Some(1)));
            assert_ne!(id, hash.object_id("a", b"{}", Some(2)));
            assert_eq!(id, hash.object_id("a", b"{}", Some(1)));
            assert_eq!(id[..4], [0, 0, 0, 1]);
        }
        let [plain, one, two] = keys.map(|key| hash(key).object_id("a", b"{}", None));
        assert!(plain != one && one != two);
        assert_ne!(hash(keys[1]).object_id("a", b"b{}", None), hash(keys[1]).object_id("ab", b"{}", None));
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
