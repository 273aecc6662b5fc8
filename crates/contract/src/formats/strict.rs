//! What `--strict` adds to a contract: what is stored, and is a mistake all the same. The formats take it from here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(super) use super::super::lint::PLACEHOLDERS;
use super::super::lint::{EARLIEST, LATEST, MAX_SAFE_INTEGER};
use super::super::{Field, FieldKind};

/// The smallest and the largest value of a number.
pub struct Bounds(pub Value, pub Value);

impl Bounds {
    /// All numbers that can be stored.
    pub fn of_doubles() -> Self {
        Bounds(json!(f64::MIN), json!(f64::MAX))
    }

    /// 2001 to 2100 in milliseconds since 1970: other units are outside. Or the integers that are exact in JavaScript.
    pub fn of(field: &Field) -> Self {
        if is_time(field) {
            Bounds(json!(EARLIEST as i64), json!(LATEST as i64))
        } else {
            Bounds(json!(-MAX_SAFE_INTEGER as i64), json!(MAX_SAFE_INTEGER as i64))
        }
    }
}

/// Whether the field is the time of the event. Of a text, a schema could not tell whether it is within the bounds.
pub fn is_time(field: &Field) -> bool {
    field.name == "timestamp" && field.kind == FieldKind::Number
}

pub fn is_required(field: &Field, strict: bool) -> bool {
    field.required || strict && is_time(field)
}

/// Names that are a misspelt field, each with the right one: in another case, or with other separators between its words.
pub fn lookalikes(fields: &[Field]) -> Vec<(String, &str)> {
    let is_known = |name: &String| name == "_id" || fields.iter().any(|field| field.name == *name);
    let all = fields.iter().flat_map(|field| variants(&field.name).into_iter().map(|name| (name, field.name.as_str())));
    all.filter(|(name, _)| !name.is_empty() && !is_known(name)).collect()
}

fn variants(name: &str) -> BTreeSet<String> {
    let words = words(name);
    let pascal: String = words.iter().map(|word| capitalized(word)).collect();
    let camel: String =
        words.iter().take(1).cloned().chain(words.iter().skip(1).map(|word| capitalized(word))).collect();
    let with_upper_id = |name: &str| name.strip_suffix("Id").map(|stem| format!("{stem}ID"));
    let upper = |separator: &str| words.join(separator).to_uppercase();
    let mut all = BTreeSet::from([words.join("_"), words.join("-"), words.concat(), upper("_"), upper("")]);
    all.extend(with_upper_id(&pascal).into_iter().chain(with_upper_id(&camel)).chain([pascal, camel]));
    all
}

/// The words of a name in lower case: `user_id` and `userId` are `user`, `id`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in name.chars() {
        let begins = !before.is_alphanumeric() || before.is_lowercase() && c.is_uppercase();
        match words.last_mut().filter(|_| !begins) {
            Some(word) if c.is_alphanumeric() => word.extend(c.to_lowercase()),
            None if c.is_alphanumeric() => words.push(c.to_lowercase().collect()),
            _ => {}
        }
        before = c;
    }
    words
}

/// With the first character in upper case.
pub fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::super::Rules;
    use super::*;

    #[test]
    fn misspelt_names_are_those_in_another_case_or_with_other_separators() {
        let fields = Rules::default().fields;
        let names: Vec<_> = lookalikes(&fields).into_iter().map(|(name, field)| format!("{name}:{field}")).collect();
        insta::assert_snapshot!(names.join(" "), @"USERID:user_id USER_ID:user_id UserID:user_id UserId:user_id user-id:user_id userID:user_id userId:user_id userid:user_id TIMESTAMP:timestamp Timestamp:timestamp UUID:uuid Uuid:uuid STATUS:status Status:status");
        assert_eq!(words("HTTPStatus__Code-2"), ["httpstatus", "code", "2"]);
        assert!(variants("userId").contains("user_id") && variants("--").contains(""));
    }
}
