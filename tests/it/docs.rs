//! The docs: tables that are generated from the code (`make docs` writes them), links, line lengths, and the names that they use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use regex::Regex;
use strum::VariantArray as _;
use ticketlog::cli::commands::Cli;
use ticketlog_config as config;
use ticketlog_contract::dead_letter::Cause;
use ticketlog_contract::{Contract, FindingKind, LikelyCause, Reason};

const END: &str = "<!-- end of what `make docs` writes -->";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Checks that a document has these tables between their markers; or writes them.
fn check_tables(file: &str, tables: &[(&str, String)]) {
    let mut text = std::fs::read_to_string(path(file)).unwrap();
    for (name, table) in tables {
        let begin = format!("<!-- `make docs` writes the table of {name} -->\n");
        let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{file} has no marker {begin}"));
        let (_, tail) = rest.split_once(END).unwrap_or_else(|| panic!("{file} has no end of {name}"));
        text = format!("{head}{begin}{table}{END}{tail}");
    }
    check_file(file, &text);
}

/// Checks that a file has this text; or writes it.
fn check_file(file: &str, text: &str) {
    if std::env::var_os("TICKETLOG_WRITE_DOCS").is_some() {
        std::fs::write(path(file), text).unwrap();
    } else {
        assert!(std::fs::read_to_string(path(file)).unwrap() == text, "{file} is out of date; run `make docs`");
    }
}

#[test]
fn the_schema_of_an_event_is_that_of_the_default_settings() {
    let routes = config::load_text("defaults", "").unwrap().routes;
    let contract = Contract::new(routes.iter().map(config::RouteSettings::contract).collect());
    check_file("docs/publish/event.schema.json", &format!("{:#}\n", contract.routes[0].json_schema(false)));
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escaped = rows.map(|row| row.into_iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>());
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    format!("\n{}|{}\n{}\n", line(&head), "---|".repeat(head.len()), escaped.map(|row| line(&row)).collect::<String>())
}

#[test]
fn the_reasons_for_publishers_are_those_of_the_code() {
    let rows =
        Reason::VARIANTS.iter().map(|reason| vec![format!("`{}`", reason.as_str()), reason.meaning().to_owned()]);
    check_tables("docs/publish/rejected.md", &[("reasons", table(&["`dl-reason`", "when"], rows))]);
}

#[test]
fn the_findings_and_causes_are_those_of_the_code() {
    let capital =
        |text: &str| text.chars().take(1).flat_map(char::to_uppercase).chain(text.chars().skip(1)).collect::<String>();
    let findings = FindingKind::VARIANTS.iter();
    let findings = findings.map(|kind| {
        vec![format!("`{}`", kind.as_str()), kind.meaning().to_owned(), format!("{}.", capital(kind.advice()))]
    });
    let causes = LikelyCause::VARIANTS.iter().map(|cause| vec![cause.meaning().to_owned(), cause.detail().to_owned()]);
    let tables = [
        ("findings", table(&["kind", "when", "why it hurts, and what to send"], findings)),
        ("causes", table(&["what the body is", "what the detail says"], causes)),
    ];
    check_tables("docs/publish/findings.md", &tables);
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
        ("filters", filters(dead.find_subcommand("park").unwrap())),
    ];
    check_tables("docs/operate/dead-letters.md", &tables);
}

/// The flags under the heading that all commands with filters have.
fn filters(command: &Command) -> String {
    let flags = command.get_arguments().filter(|flag| flag.get_help_heading() == Some("Which dead letters"));
    let rows = flags.map(|flag| {
        let value = flag.get_value_names().unwrap_or_default().join(" ");
        vec![format!("`--{} {value}`", flag.get_long().unwrap()), one_paragraph(&flag.get_help().unwrap().to_string())]
    });
    table(&["filter", "which dead letters"], rows)
}

#[test]
fn the_page_of_commands_is_their_help() {
    let cli = Cli::command();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let rows = commands.map(|command| vec![format!("`{}`", command.get_name()), explanation(command)]);
    let codes = cli.get_after_help().unwrap().to_string();
    let codes = codes.split_once('\n').unwrap().1.trim_end();
    let tables = [
        ("commands", table(&["command", "what it does"], rows)),
        ("exit codes", format!("\n```text\n{codes}\n```\n\n")),
    ];
    check_tables("docs/operate/commands.md", &tables);
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
    one_paragraph(&command.get_long_about().or(command.get_about()).unwrap().to_string())
}

fn one_paragraph(help: &str) -> String {
    // clap takes the full stop from a help of one sentence.
    format!("{}.", help.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.'))
}

/// The Markdown files of a folder and its folders.
fn markdown_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            markdown_files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "md") {
            found.push(entry);
        }
    }
}

/// All pages, with their names relative to the root.
fn pages() -> Vec<(String, String)> {
    let mut files = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(path).to_vec();
    files.extend(["deploy/rabbitmq/README.md", "deploy/mongodb/README.md"].map(path));
    markdown_files(&path("docs"), &mut files);
    let name = |file: &Path| file.strip_prefix(path("")).unwrap().display().to_string();
    files.into_iter().map(|file| (name(&file), std::fs::read_to_string(file).unwrap())).collect()
}

/// The pages for users and developers; decision records may name what no longer exists.
fn documents() -> Vec<(String, String)> {
    pages().into_iter().filter(|(file, _)| !file.contains("/adr/")).collect()
}

/// The fragments that lead to the headings of a page, as GitHub and mdBook make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap();
    let headings =
        prose(page).filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchor = |heading: &str| {
        let text = link.replace_all(heading, "$1").to_lowercase();
        let kept =
            text.chars().filter(|dead_letter| dead_letter.is_alphanumeric() || matches!(dead_letter, '-' | '_' | ' '));
        kept.map(|dead_letter| if dead_letter == ' ' { '-' } else { dead_letter }).collect()
    };
    headings.map(anchor).collect()
}

/// The lines outside of fences.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_fence = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        !in_fence && !is_fence
    })
}

#[test]
fn relative_links_in_the_docs_lead_to_files_and_headings() {
    let link = Regex::new(r"\]\(([^)\s#:]*)(?:#([^)\s]*))?\)").unwrap();
    let mut found = 0;
    for (file, text) in pages() {
        for link in link.captures_iter(&text) {
            let target = path(&file).parent().unwrap().join(&link[1]);
            let target = if link[1].is_empty() { path(&file) } else { target };
            // On the site there are no folders.
            assert!(target.is_file(), "{file} links to {}, which is not a file", &link[1]);
            if let (Some(anchor), Ok(page)) = (link.get(2), std::fs::read_to_string(&target)) {
                assert!(
                    anchors(&page).contains(anchor.as_str()),
                    "{file} links to {}, which has no such heading",
                    &link[0]
                );
            }
            found += 1;
        }
    }
    assert!(found > 200, "{found}");
}

#[test]
fn the_console_links_to_pages_that_exist() {
    let link = Regex::new(r#"docs_page\("([^"]+)"\)"#).unwrap();
    let mut found = 0;
    for file in std::fs::read_dir(path("crates/desk/src/console/pages")).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for [page] in link.captures_iter(&source).map(|link| link.extract().1) {
            assert!(path("docs").join(page).is_file(), "the console links to docs/{page}, which does not exist");
            found += 1;
        }
    }
    assert!(found > 0);
}

#[test]
fn the_summary_of_the_site_lists_every_page_once() {
    let summary = std::fs::read_to_string(path("docs/SUMMARY.md")).unwrap();
    for (file, _) in pages() {
        let link = file.strip_prefix("docs/").map_or(format!("](../{file})"), |page| format!("]({page})"));
        let times = usize::from(link != "](SUMMARY.md)");
        assert_eq!(summary.matches(&link).count(), times, "docs/SUMMARY.md: {link}");
    }
}

#[test]
fn prose_is_wrapped_at_120_columns() {
    for (file, text) in pages() {
        for line in prose(&text).filter(|line| !line.trim_start().starts_with(['|', '<'])) {
            let words = line.trim_start().trim_start_matches("- ");
            let can_be_wrapped = words.contains(' ') && !words.starts_with('#');
            assert!(
                line.chars().count() <= 120 || !can_be_wrapped,
                "{file} has a line of more than 120 columns: {line}"
            );
        }
    }
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
fn the_permissions_in_the_docs_are_the_shipped_ones() {
    let shipped = std::fs::read_to_string(path("deploy/rabbitmq/permissions.json")).unwrap();
    let shipped: serde_json::Value = serde_json::from_str(&shipped).unwrap();
    let command = Regex::new(r"set_permissions (\S+) '(.*)' '(.*)' '(.*)'").unwrap();
    let mut found = 0;
    for (file, text) in documents() {
        for [user, configure, write, read] in command.captures_iter(&text).map(|captures| captures.extract().1) {
            let is_it = |login: &&serde_json::Value| login["user"] == user;
            if let Some(login) = shipped["permissions"].as_array().unwrap().iter().find(is_it) {
                assert_eq!(["configure", "write", "read"].map(|key| &login[key]), [configure, write, read], "{file}");
                found += 1;
            }
        }
    }
    assert!(found > 0);
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
