//! What the search field of every page asks for.

use crate::Search;
use ticketlog_contract::Wanted;

use super::query::Fields;

/// Most documents and dead letters of a page.
const LIMIT: usize = 20;

/// By what an event is found: the value of the field, and what people read.
pub(super) const BY: [(&str, &str); 4] =
    [("uuid", "uuid"), ("message_id", "message_id"), ("id", "_id or dl-id"), ("user", "user_id")];

/// What somebody looks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sought {
    /// One of [`BY`].
    pub by: &'static str,
    pub text: String,
    pub with_bodies: bool,
}

impl Sought {
    /// # Errors
    /// What was expected.
    pub fn read(fields: &Fields) -> Result<Sought, String> {
        let by = fields.get("find_by").unwrap_or_default();
        let Some((by, _)) = BY.into_iter().find(|(name, _)| *name == by) else {
            return Err("find_by: expected uuid, message_id, id or user".to_owned());
        };
        let text = fields.get("find").ok_or("find: it is empty")?.trim().to_owned();
        let sought = Sought { by, text, with_bodies: fields.get("bodies").is_some() };
        sought.search(None).map(|_| sought)
    }

    /// # Errors
    /// An id has another form.
    pub fn search(&self, publisher: Option<&str>) -> Result<Search, String> {
        let search = Search { publisher: publisher.map(str::to_owned), limit: LIMIT, ..Search::default() };
        let text = &self.text;
        Ok(match self.by {
            "message_id" => Search { message_id: Some(text.clone()), ..search },
            "user" => Search { user: Some(Wanted::id(text)), ..search },
            "id" => {
                let id = text.parse().map_err(|_| "find: expected 24 hexadecimal digits".to_owned())?;
                Search { id: Some(id), ..search }
            }
            _ => Search { uuid: Search::uuids(text), ..search },
        })
    }

    /// In words, such as `uuid 6fe2…`.
    pub fn describe(&self) -> String {
        let by = BY.into_iter().find(|(name, _)| *name == self.by).map_or(self.by, |(_, shown)| shown);
        format!("{by} {}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_has_a_kind_and_a_text() {
        let read = |form: &str| Sought::read(&Fields::parse(form.as_bytes()));
        let sought = read("find_by=user&find=+42+&bodies=1").unwrap();
        assert_eq!((sought.describe().as_str(), sought.with_bodies), ("user_id 42", true));
        assert_eq!(sought.search(Some("shop")).unwrap().publisher.as_deref(), Some("shop"));
        for wrong in ["find_by=user&find=+", "find=42", "find_by=x&find=42", "find_by=id&find=42"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
