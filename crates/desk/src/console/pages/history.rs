//! Owns the page of the history.

use maud::{Markup, html};
use serde_json::Value;

use super::super::access::Operator;
use super::super::history::Entry;
use super::super::state::Console;
use super::frame::{Section, page};

/// Most entries on the page.
const MAX_ENTRIES: usize = 200;

/// The page; `None` if the console keeps no history.
pub(in crate::console) fn history_page(console: &Console, operator: &Operator, entries: Option<&[Entry]>) -> Markup {
    let body = html! {
        h1 { "History" }
        @match entries {
            None => p { "This console keeps no history, because it changes nothing. With " code { "--state-dir DIR" } " it does." },
            Some([]) => p { "Nothing was changed with this console so far." },
            Some(entries) => {
                table {
                    thead { tr { th { "When" } th { "Who" } th { "What" } th { "Which" } th { "Outcome" } } }
                    tbody { @for entry in entries.iter().take(MAX_ENTRIES) { (row(console, entry)) } }
                }
                @if entries.len() > MAX_ENTRIES { p class="note" { "Older entries are in the file " code { "history.ndjson" } "." } }
            }
        }
    };
    page(console, operator, Section::History, "History", &body)
}

fn row(console: &Console, entry: &Entry) -> Markup {
    let runs = entry.state == "begun" && !console.jobs.running().is_empty();
    let state = match entry.state.as_str() {
        "begun" if runs => "running or interrupted",
        "begun" => "interrupted: its end is not known",
        other => other,
    };
    html! {
        tr {
            td data-label="When" { time datetime=(entry.began) { (entry.began.get(..19).unwrap_or(&entry.began).replace('T', " ")) } }
            td data-label="Who" { (entry.who) }
            td data-label="What" { (entry.action) " " code { (entry.queue) } }
            td data-label="Which" { (pairs(&entry.filter)) }
            td data-label="Outcome" {
                strong class=(if entry.state == "done" { "good" } else { "bad" }) { (state) } " "
                (pairs(&entry.outcome))
                @if let Some(id) = &entry.replay_id {
                    " " a href={ "/dead-letters?replay_id=" (id) } { "what was dead-lettered again" }
                }
            }
        }
    }
}

/// `replayed 3, parked 1`; without zeros and blanks.
fn pairs(value: &Value) -> String {
    let shown = |value: &Value| match value {
        Value::Null => None,
        Value::Number(number) if number.as_f64() == Some(0.0) => None,
        Value::Number(number) if number.is_f64() => Some(format!("{:.1}", number.as_f64().unwrap_or_default())),
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => {
            let texts = values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            Some(texts.collect::<Vec<_>>().join(" or "))
        }
        other => Some(other.to_string()),
    };
    let fields = value.as_object().into_iter().flatten();
    let texts: Vec<String> =
        fields.filter_map(|(name, value)| Some(format!("{} {}", name.replace('_', " "), shown(value)?))).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zeros_are_left_out() {
        let outcome = json!({ "replayed": 3, "parked": 0, "seconds": 1.25, "backup": null, "reason": ["a", "b"] });
        assert_eq!(pairs(&outcome), "reason a or b, replayed 3, seconds 1.2");
    }
}
