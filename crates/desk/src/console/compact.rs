//! Texts and ids of dead letters in little memory. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

/// A text by its index.
pub(super) type TextId = u32;

/// Texts that many dead letters share, each once.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: String,
    /// Where each text ends in `all`.
    ends: Vec<u32>,
}

impl Texts {
    /// The text with this index; empty if there is none.
    pub fn get(&self, id: TextId) -> &str {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let at = id as usize;
        self.all.get(at.checked_sub(1).map_or(0, end)..end(at)).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Collects texts.
#[derive(Debug, Default)]
pub(super) struct TextsBuilder {
    texts: Texts,
    by_hash: HashMap<u64, TextId>,
    hasher: RandomState,
}

impl TextsBuilder {
    /// The index of a text, which is added if it is new. Beyond 4 GiB of texts, further ones are empty.
    pub fn add(&mut self, text: &str) -> TextId {
        let hash = self.hasher.hash_one(text);
        if let Some(known) = self.by_hash.get(&hash).filter(|known| self.texts.get(**known) == text) {
            return *known;
        }
        let (Ok(id), Ok(end)) = (TextId::try_from(self.texts.len()), u32::try_from(self.texts.all.len() + text.len()))
        else {
            return TextId::MAX;
        };
        self.texts.all.push_str(text);
        self.texts.ends.push(end);
        self.by_hash.insert(hash, id);
        id
    }

    pub fn finish(mut self) -> Texts {
        self.texts.all.shrink_to_fit();
        self.texts
    }
}

/// An id in 17 bytes: a `dl-id`, which is 12 bytes in hexadecimal digits, a UUID, or any other text by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CompactId {
    DeadLetter([u8; 12]),
    Uuid([u8; 16]),
    /// The index of the text.
    Text([u8; 4]),
}

impl CompactId {
    pub fn new(text: &str, texts: &mut TextsBuilder) -> Self {
        Self::of_bytes(text).unwrap_or_else(|| CompactId::Text(texts.add(text).to_be_bytes()))
    }

    /// Only what is written back as the same text.
    fn of_bytes(text: &str) -> Option<Self> {
        let bytes = u128::from_str_radix(&text.replace('-', ""), 16).ok()?.to_be_bytes();
        let [_, _, _, _, last @ ..] = bytes;
        let none = Texts::default();
        [CompactId::DeadLetter(last), CompactId::Uuid(bytes)].into_iter().find(|id| id.text(&none) == text)
    }

    pub fn text<'a>(&self, texts: &'a Texts) -> Cow<'a, str> {
        match self {
            CompactId::DeadLetter(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
            CompactId::Uuid(bytes) => {
                let id = u128::from_be_bytes(*bytes);
                let [b, c, d] = [80, 64, 48].map(|shift| (id >> shift) & 0xFFFF);
                format!("{:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}", id >> 96, id & 0xFFFF_FFFF_FFFF).into()
            }
            CompactId::Text(id) => texts.get(TextId::from_be_bytes(*id)).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_once() {
        let mut builder = TextsBuilder::default();
        let ids = ["a", "", "långer", "a", ""].map(|text| builder.add(text));
        let texts = builder.finish();
        assert_eq!(ids, [0, 1, 2, 0, 1]);
        assert_eq!((ids.map(|id| texts.get(id)), texts.len()), (["a", "", "långer", "a", ""], 3));
        assert_eq!(texts.get(3), "");
    }

    #[test]
    fn every_id_is_written_back_as_it_was() {
        let (dl_id, uuid) = ("00c0ffee000000000000000f", "0003a0f8-7a59-4a53-8f0e-6b1d4c2e9f10");
        let mut builder = TextsBuilder::default();
        let others = [
            "",
            "+0c0ffee000000000000000f",
            "C0FFEE",
            "0100c0ffee000000000000000f",
            "order-17",
            "0003A0F8-7A59-4A53-8F0E-6B1D4C2E9F10",
            "-",
        ];
        let ids: Vec<_> = [dl_id, uuid].iter().chain(&others).map(|text| CompactId::new(text, &mut builder)).collect();
        let texts = builder.finish();
        let back: Vec<_> = ids.iter().map(|id| id.text(&texts)).collect();
        assert!(back.iter().eq([dl_id, uuid].iter().chain(&others)), "{back:?}");
        assert_eq!(texts.len(), others.len(), "the first two are no texts");
        assert_eq!(size_of::<Option<CompactId>>(), 17);
    }
}
