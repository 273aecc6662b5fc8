//! The tables of the docs that are generated from the code, and the names in the docs. `make docs` writes the tables.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use regex::Regex;
use strum::VariantArray as _;
use ticketlog::cli::commands::Cli;
use ticketlog_config as config;
use ticketlog_contract::Reason;
use ticketlog_contract::dead_letter::Cause;

const END: &str = "<!-- end of what `make docs` writes -->";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Checks that a document has these tables between their markers; or writes them.
fn check_tables(file: &str, tables: &[(&str, String)]) {
    let before = std::fs::read_to_string(path(file)).unwrap();
    let mut text = before.clone();
    for (name, table) in tables {
        let begin = format!("<!-- `make docs` writes the table of {name} -->\n");
        let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{file} has no marker {begin}"));
        let (_, tail) = rest.split_once(END).unwrap_or_else(|| panic!("{file} has no end of {name}"));
        text = format!("{head}{begin}{table}{END}{tail}");
    }
    if std::env::var_os("TICKETLOG_WRITE_DOCS").is_some() {
        std::fs::write(path(file), text).unwrap();
    } else {
        assert!(text == before, "{file} is out of date; run `make docs`");
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escaped = rows.map(|row| row.into_iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>());
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    format!("\n{}|{}\n{}\n", line(&head), "---|".repeat(head.len()), escaped.map(|row| line(&row)).collect::<String>())
}

#[test]
fn the_reasons_of_the_event_contract_are_those_of_the_code() {
    let rows =
        Reason::VARIANTS.iter().map(|reason| vec![format!("`{}`", reason.as_str()), reason.meaning().to_owned()]);
    check_tables("docs/publish/contract.md", &[("reasons", table(&["`dl-reason`", "when"], rows))]);
}

#[test]
fn the_reasons_and_commands_of_dead_letters_are_those_of_the_code() {
    let reasons = Cause::names().into_iter().map(|name| {
        let cause = Cause::parse(name).unwrap();
        let [fault, remedy] = cause.explanation();
        let edit = cause.edit().map(|edit| format!(" `--edit '{edit}'`")).unwrap_or_default();
        vec![format!("`{name}`"), fault.to_owned(), format!("{remedy}{edit}")]
    });
    let cli = Cli::command();
    let dead = cli.find_subcommand("dead").unwrap();
    let commands = dead.get_subcommands().map(|command| vec![format!("`{}`", usage(command)), explanation(command)]);
    let tables = [
        ("reasons", table(&["reason", "what went wrong", "what to do"], reasons)),
        ("commands", table(&["command", "what it does"], commands)),
    ];
    check_tables("docs/operate/dead-letters.md", &tables);
}

/// `dead export [FILE]`.
fn usage(command: &Command) -> String {
    let argument = |argument: &clap::Arg| {
        let name = argument.get_value_names().unwrap_or_default().join(" ");
        if argument.is_required_set() { format!(" {name}") } else { format!(" [{name}]") }
    };
    format!("dead {}{}", command.get_name(), command.get_positionals().map(argument).collect::<String>())
}

/// Its help, in one paragraph.
fn explanation(command: &Command) -> String {
    let help = command.get_long_about().or(command.get_about()).unwrap().to_string();
    // clap takes the full stop from a help of one sentence.
    format!("{}.", help.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.'))
}

/// The documents for users and developers, with their names; decision records may name what no longer exists.
fn documents() -> Vec<(String, String)> {
    let folders = ["docs", "docs/publish", "docs/operate", "docs/operate/runbooks", "docs/develop"];
    let files =
        folders.iter().flat_map(|name| std::fs::read_dir(path(name)).unwrap().map(|entry| entry.unwrap().path()));
    let files = files.chain(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(path));
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.map(|file| (file.display().to_string(), std::fs::read_to_string(file).unwrap())).collect()
}

#[test]
fn relative_links_in_the_docs_lead_to_files() {
    let link = Regex::new(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)").unwrap();
    let mut found = 0;
    for (file, text) in documents() {
        for [target] in link.captures_iter(&text).map(|link| link.extract().1) {
            let target_path = Path::new(&file).parent().unwrap().join(target);
            assert!(target_path.exists(), "{file} links to {target}, which does not exist");
            found += 1;
        }
    }
    assert!(found > 100, "{found}");
}

#[test]
fn the_page_about_metrics_names_every_number_of_status() {
    let page = std::fs::read_to_string(path("docs/operate/metrics.md")).unwrap();
    let numbers = serde_json::to_value(ticketlog_status::RouteNumbers::default()).unwrap();
    for name in numbers.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{name}`")), "docs/operate/metrics.md does not name {name}");
    }
}

#[test]
fn the_docs_name_only_settings_that_exist() {
    let defaults: toml::Table = config::DEFAULT.parse().unwrap();
    let name = Regex::new(r"`([a-z_]+)\.([a-z_]+)(?: = [^`]*)?`").unwrap();
    let mut found = 0;
    for (file, text) in documents() {
        for [section, key] in name.captures_iter(&text).map(|name| name.extract().1) {
            let Some(settings) = defaults.get(section).and_then(|section| section.as_table()) else { continue };
            assert!(key == "rs" || settings.contains_key(key), "{file} names {section}.{key}, which is not a setting");
            found += 1;
        }
    }
    assert!(found > 50, "{found}");
}

#[test]
fn the_docs_name_only_metrics_that_exist() {
    let page = std::fs::read_to_string(path("docs/operate/metrics.md")).unwrap();
    let name = Regex::new(r"\b(ticketlog_[a-z_]*[a-z])\b([*/.]?)").unwrap();
    let suffix = Regex::new("_(bucket|sum|count)$").unwrap();
    for (file, text) in documents() {
        // A name that goes on is a pattern, or that of a file.
        for [found, _] in name.captures_iter(&text).map(|found| found.extract().1).filter(|[_, more]| more.is_empty()) {
            let metric = suffix.replace(found, "");
            let is_crate = metric.strip_prefix("ticketlog_").is_some_and(|name| path("crates").join(name).exists());
            if is_crate {
                continue;
            }
            assert!(
                page.contains(&format!("| `{metric}`")),
                "{file} names {metric}, which is not in docs/operate/metrics.md"
            );
        }
    }
}
