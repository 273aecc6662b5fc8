//! Owns `ticketlog config`.

use std::io::Write as _;

use clap::Args;
use serde_json::json;

use ticketlog_config::{DEFAULT, EffectiveSetting, Loaded};

use super::CommandError;

/// Flags of `ticketlog config`.
#[derive(Debug, Args)]
pub(super) struct ShowConfigArgs {
    /// Print the annotated defaults instead: a file to start from.
    #[arg(long)]
    default: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "default")]
    json: bool,
}

impl ShowConfigArgs {
    pub fn run(&self, load: impl FnOnce() -> Result<Loaded, CommandError>) -> Result<u8, CommandError> {
        let mut out = std::io::stdout().lock();
        if self.default {
            out.write_all(DEFAULT.as_bytes())?;
            return Ok(0);
        }
        let effective = load()?.effective;
        let text = if self.json { as_json(&effective) } else { as_toml(&effective) };
        out.write_all(text.as_bytes())?;
        Ok(0)
    }
}

/// TOML, each setting with its source.
fn as_toml(effective: &[EffectiveSetting]) -> String {
    let mut text = String::new();
    let mut section = "";
    for entry in effective {
        if entry.section != section {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{}]\n", entry.section));
            section = &entry.section;
        }
        text.push_str(&format!("{} = {}  # {}\n", entry.key, entry.value, entry.source));
    }
    text
}

fn as_json(effective: &[EffectiveSetting]) -> String {
    let entries: Vec<_> = effective
        .iter()
        .map(|entry| json!({ "key": format!("{}.{}", entry.section, entry.key), "value": entry.value, "source": entry.source.to_string() }))
        .collect();
    format!("{:#}\n", json!(entries))
}
