//! Looks for every event of a run at its end, with a byte and a bit for each instead of a text.

use std::collections::HashMap;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;
use lapin::types::AMQPValue;

use super::Kind;
use crate::harness::{QueuedMessage, TestEnv};

/// Where the events of a run are.
#[derive(Debug, Clone, Default)]
pub struct SoakReport {
    pub published: i32,
    pub valid: u32,
    pub malformed: u32,
    /// Valid events in MongoDB.
    pub stored: u32,
    /// Malformed events that a replay has edited, in MongoDB.
    pub edited: u32,
    /// Malformed events in the dead-letter queue or the parked queue.
    pub dead: u32,
    pub parked: u32,
    /// Still in the source queue.
    pub returned: u32,
    /// Further dead letters with the same `dl-id` as another.
    pub copies: u32,
    pub lost: Vec<i32>,
    pub doubled: Vec<i32>,
    /// What nobody sent, or what differs from what was sent, or is where it should not be.
    pub unexpected: Vec<String>,
}

impl SoakReport {
    /// Looks for events 0 to `published`. Empties the queues.
    pub async fn of(env: &TestEnv, published: i32) -> Self {
        let mut report = SoakReport { published, ..SoakReport::default() };
        let mut stored = vec![0u8; published as usize];
        report.read_documents(env, &mut stored).await;
        let mut ids: HashMap<i32, (u64, &str)> = HashMap::new();
        for message in env.take_all_messages(&env.queue()).await {
            let Some(n) = report.number(&message, "the queue") else { continue };
            report.returned += 1;
            stored[n as usize] = stored[n as usize].saturating_add(1);
        }
        for (queue, name) in [(env.dead_letter_queue(), "dead"), (env.parked_queue(), "parked")] {
            for message in env.take_all_messages(&queue).await {
                let Some(n) = report.number(&message, name) else { continue };
                report.dead_letter(n, &message, name, stored[n as usize] > 0, &mut ids);
            }
        }
        for n in 0..published {
            let times = stored[n as usize];
            match Kind::of(n) {
                Kind::Valid => report.valid += 1,
                _ => report.malformed += 1,
            }
            match times {
                0 if !ids.contains_key(&n) => report.lost.push(n),
                0 | 1 => {}
                _ => report.doubled.push(n),
            }
        }
        report
    }

    async fn read_documents(&mut self, env: &TestEnv, stored: &mut [u8]) {
        let raw = env.collection.clone_with_type::<RawDocumentBuf>();
        let mut documents = raw.find(doc! {}).batch_size(5000).await.unwrap();
        while let Some(document) = documents.try_next().await.unwrap() {
            let n = numbered(&document).filter(|n| (0..stored.len() as i32).contains(n));
            let Some(n) = n.filter(|n| Kind::of(*n) != Kind::Hopeless) else {
                self.unexpected.push(format!("a document: {document:?}"));
                continue;
            };
            stored[n as usize] = stored[n as usize].saturating_add(1);
            if stored[n as usize] == 1 {
                *(if Kind::of(n) == Kind::Valid { &mut self.stored } else { &mut self.edited }) += 1;
            }
        }
    }

    /// The number of a message, if it is as it was sent.
    fn number(&mut self, message: &QueuedMessage, place: &str) -> Option<i32> {
        let id = message.properties.message_id().as_ref();
        let n = id.and_then(|id| id.as_str().strip_prefix("m-")?.parse().ok());
        let n = n.filter(|n| (0..self.published).contains(n) && message.body == super::event(*n).body);
        if n.is_none() {
            self.unexpected.push(format!("in {place}: {id:?}"));
        }
        n
    }

    fn dead_letter(
        &mut self,
        n: i32,
        message: &QueuedMessage,
        place: &'static str,
        is_stored: bool,
        ids: &mut HashMap<i32, (u64, &'static str)>,
    ) {
        let headers = message.properties.headers().clone().unwrap_or_default();
        let id = match headers.inner().get("dl-id") {
            Some(AMQPValue::LongString(id)) => hash(id.as_bytes()),
            _ => 0,
        };
        if Kind::of(n) == Kind::Valid || id == 0 {
            self.unexpected.push(format!("in {place}: {n}, {headers:?}"));
        }
        match ids.insert(n, (id, place)) {
            // A copy of an event that is stored has the same id too: its document has an `_id` of that.
            None if is_stored => self.copies += 1,
            None => *(if place == "dead" { &mut self.dead } else { &mut self.parked }) += 1,
            Some((other, _)) if other == id => self.copies += 1,
            Some(_) => self.doubled.push(n),
        }
    }

    /// Asserts that nothing is lost, nothing is there twice, and there is nothing else.
    pub fn assert_safe(&self) {
        let found = (self.lost.len(), self.doubled.len(), self.unexpected.len(), self.returned);
        assert_eq!(found, (0, 0, 0, 0), "{:?}", self.shortened());
    }

    /// With at most ten of each list.
    fn shortened(&self) -> Self {
        let mut short = self.clone();
        short.lost.truncate(10);
        short.doubled.truncate(10);
        short.unexpected.truncate(10);
        short
    }
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The number of the document, if it equals what `TestMessage::numbered` sent in every field and in their order.
fn numbered(document: &RawDocument) -> Option<i32> {
    let mut fields = document.iter();
    let mut next = || fields.next()?.ok().map(|(name, value)| (name.as_str().to_owned(), value));
    let (RawBsonRef::ObjectId(_), RawBsonRef::Int32(n)) = (named(next()?, "_id")?, named(next()?, "n")?) else {
        return None;
    };
    let is = |field: Option<(String, RawBsonRef<'_>)>, name: &str, value: RawBsonRef<'_>| {
        field.and_then(|field| named(field, name)) == Some(value)
    };
    let text = format!("operation {n}");
    let expected = is(next(), "user_id", RawBsonRef::Int32(n % 97))
        && is(next(), "text", RawBsonRef::String(&text))
        && is(next(), "status", RawBsonRef::String("success"));
    (expected && next().is_none()).then_some(n)
}

fn named<'a>(field: (String, RawBsonRef<'a>), name: &str) -> Option<RawBsonRef<'a>> {
    (field.0 == name).then_some(field.1)
}
