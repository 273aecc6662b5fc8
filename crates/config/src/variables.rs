//! Owns which environment variables are meant for this program though they are no settings, so that a mistyped one is not ignored in
//! silence.

use toml::{Table, Value};

const PREFIX: &str = "TICKETLOG_";
/// Most edits between an unknown name and a suggestion for it.
const MAX_SUGGESTION_DISTANCE: usize = 3;

/// What follows the prefix in the variables of the project's scripts, Compose file and tests, and how such names begin or end.
const SCRIPTS: [&str; 7] =
    ["BIN", "CHAOS_TABLE", "CONSOLE_TOKENS_FILE", "GRAFANA_PASSWORD", "IMAGE", "RABBITMQ_PASSWORD", "WRITE_DOCS"];
const SCRIPT_PREFIXES: [&str; 6] = ["DEMO_", "LOCAL_", "SERVICES", "TEST_", "TRY_", "WORLD"];
const IMAGE_SUFFIX: &str = "_IMAGE";

/// What a variable means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is a setting, or stands for a flag, or has nothing to do with this program.
    Known,
    /// It means nothing, but is nearly this one.
    Mistyped(String),
    /// It has our prefix and means nothing.
    Unknown,
}

/// The variables that this program reads.
pub(super) struct Variables(Vec<String>);

impl Variables {
    /// Those of the settings with these defaults, and others.
    pub fn new(defaults: &Table, others: &[String]) -> Self {
        let sections = defaults.iter().filter_map(|(section, table)| Some((section, table.as_table()?)));
        let of = |(section, table): (&String, &Table)| -> Vec<String> {
            let name = |(key, _): (&String, &Value)| format!("{PREFIX}{section}__{key}").to_uppercase();
            table.iter().map(name).collect()
        };
        Variables(sections.flat_map(of).chain(others.iter().cloned()).collect())
    }

    /// What this one means. Names with a double underscore are read as settings anyway, and reported there.
    pub fn meaning(&self, name: &str) -> Meaning {
        let upper = name.to_uppercase();
        let Some(rest) = upper.strip_prefix(PREFIX) else { return Meaning::Known };
        let is_read = name.starts_with(PREFIX) && rest.contains("__");
        if is_read || is_of_a_script(rest) || is_of_kubernetes(rest) || self.0.iter().any(|known| known == name) {
            return Meaning::Known;
        }
        nearest(&upper, self.0.iter()).map_or(Meaning::Unknown, |nearest| Meaning::Mistyped(nearest.clone()))
    }
}

fn is_of_a_script(rest: &str) -> bool {
    let begins = || SCRIPT_PREFIXES.iter().any(|prefix| rest.starts_with(prefix));
    SCRIPTS.contains(&rest) || rest.ends_with(IMAGE_SUFFIX) || begins()
}

/// Kubernetes sets variables for each service of the namespace (its page "Service", "Environment variables"), also for one that is called
/// ticketlog or ticketlog-console: `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_<name>`, `…_PORT`, `…_PORT_<number>_TCP` and so on.
fn is_of_kubernetes(rest: &str) -> bool {
    let is_part = |name: &str| rest == name || rest.ends_with(&format!("_{name}"));
    let number_follows = |(_, after): (&str, &str)| after.starts_with(|first: char| first.is_ascii_digit());
    is_part("SERVICE_HOST")
        || is_part("PORT")
        || is_part("SERVICE_PORT")
        || rest.contains("SERVICE_PORT_")
        || rest.split_once("PORT_").is_some_and(number_follows)
}

/// The known name that is nearest to a mistyped one.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let distances = known.map(|other| (strsim::levenshtein(name, other), other));
    let near = distances.filter(|(distance, _)| *distance <= MAX_SUGGESTION_DISTANCE);
    near.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}
