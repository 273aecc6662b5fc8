//! The rules of the code that neither the walls between the crates nor clippy hold: which module of `src` may name which
//! library, which modules it may import, how long a file may be.

use std::path::{Path, PathBuf};

/// The modules of `src`, from the bottom up. Each may import only those before it in this list.
const LAYERS: [&str; 4] = ["mongodb", "observe", "worker", "cli"];

/// Modules without IO.
const PURE: [&str; 8] = [
    "crates/contract/src/",
    "crates/desk/src/find/entry.rs",
    "crates/desk/src/find/search.rs",
    "crates/desk/src/find/story.rs",
    "crates/rabbitmq/src/consumer/prefetch.rs",
    "src/worker/batcher.rs",
    "src/worker/batch_progress.rs",
    "src/worker/breaker.rs",
];

fn sources() -> Vec<(String, String)> {
    files(&["src", "crates", "tests", "benches"], &["rs"])
}

/// The files of these folders with one of these extensions, and their texts.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| walk(&root.join(folder), &mut paths));
    let is_meant = |path: &PathBuf| path.extension().is_some_and(|it| extensions.contains(&it.to_str().unwrap()));
    paths.retain(is_meant);
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The files of `src` that contain `pattern`, except those whose path starts with one of `allowed`.
fn offenders(pattern: &str, allowed: &[&str]) -> Vec<String> {
    let files = sources().into_iter().filter(|(name, _)| name.starts_with("src/"));
    files
        .filter(|(name, text)| text.contains(pattern) && !allowed.iter().any(|allowed| name.starts_with(allowed)))
        .map(|(name, _)| name)
        .collect()
}

const NONE: [String; 0] = [];

#[test]
fn drivers_are_named_only_in_their_module() {
    assert_eq!(offenders("opentelemetry", &["src/observe/traces/"]), NONE);
    assert_eq!(offenders(" ::mongodb::", &["src/mongodb/"]), NONE);
    assert_eq!(offenders("use mongodb::", &[]), NONE, "write ::mongodb for the driver, crate::mongodb for the module");
    assert_eq!(offenders(" ::backoff::", &["src/worker/backoff.rs"]), NONE);
    assert_eq!(offenders("PrometheusBuilder", &["src/observe/metrics/"]), NONE);
}

#[test]
fn modules_import_only_what_is_below_them() {
    for (name, text) in sources() {
        let Some(path) = name.strip_prefix("src/") else { continue };
        let module = path.split(['/', '.']).next().unwrap();
        let Some(layer) = LAYERS.iter().position(|layer| *layer == module) else { continue };
        for imported in imported_modules(&text) {
            assert!(!LAYERS[layer + 1..].contains(&imported), "{name} imports {imported}, which is above it");
        }
        // The two adapters never import each other.
        assert!(module != "mongodb" || !text.contains("ticketlog_rabbitmq"), "{name}");
    }
}

/// The top-level modules named by `crate::module` and by `crate::{module, module::item}`.
fn imported_modules(text: &str) -> Vec<&str> {
    let imports = text.split("crate::").skip(1).flat_map(|after| match after.strip_prefix('{') {
        Some(group) => group.split('}').next().unwrap_or_default().split(',').collect::<Vec<_>>(),
        None => vec![after],
    });
    let first_name = |path| str::trim_start(path).split(|c: char| !c.is_alphanumeric() && c != '_').next();
    imports.filter_map(first_name).collect()
}

#[test]
fn both_ways_to_name_a_module_are_found() {
    let text = "use crate::{worker::Session, cli};\nuse crate::observe;\ncrate::mongodb::check()";
    assert_eq!(imported_modules(text), ["worker", "cli", "observe", "mongodb"]);
}

#[test]
fn pure_modules_do_no_io() {
    for (name, text) in sources() {
        if PURE.iter().any(|pure| name.starts_with(pure)) {
            for io in ["tokio::", "std::fs", "std::net", "SystemTime::now"] {
                assert!(!text.contains(io), "{name} names {io}");
            }
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_own() {
    for (name, text) in sources() {
        assert!(text.lines().count() <= 400, "{name} has {} lines", text.lines().count());
        assert!(text.starts_with("//!"), "{name} does not say what it owns");
    }
}

/// Words that were said here for what the field calls otherwise, with what to say.
const WORDS: [(&str, &str); 5] = [
    (r"(?i)\bmend(s|ed|ing)?\b", "edit"),
    (r"(?i)\b(dead|died|dies) again\b", "dead-lettered again"),
    (r"\bof ours\b", "our"),
    (r"(?i)\bpaused already\b", "already paused"),
    (r"(?i)\bletters?\b", "dead letter"),
];

#[test]
fn one_word_for_one_thing() {
    let folders = ["src", "crates", "tests", "benches", "docs", "deploy", "config", "examples"];
    let mut files = files(&folders, &["rs", "md", "js", "mjs", "py", "sh", "toml", "yml", "yaml", "service", "conf"]);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "docker-compose.yml"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        files.push((name.to_owned(), text));
    }
    // Decisions may name what was; and where letters are letters.
    files.retain(|(name, _)| !["/adr/", "lookalike.rs", "code_rules.rs"].iter().any(|part| name.contains(part)));
    let is_meant = r"(?i)(dead[\s-]+((//[/!]?|#)\s*)?|capital )letters?|letters(,| and) (digits|dots)";
    let is_meant = regex::Regex::new(is_meant).unwrap();
    let words = WORDS.map(|(pattern, say)| (regex::Regex::new(pattern).unwrap(), say));
    let mut found = Vec::new();
    for (file, text) in files {
        let text = is_meant.replace_all(&text, |found: &regex::Captures| "\n".repeat(found[0].matches('\n').count()));
        for (at, line) in text.lines().enumerate() {
            let wrong = words.iter().filter(|(word, _)| word.is_match(line));
            found.extend(wrong.map(|(_, say)| format!("{file}:{}: say {say:?}", at + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
