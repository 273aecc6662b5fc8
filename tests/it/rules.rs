//! The rules of the house, as far as a machine can hold them: who may name which driver, who may import whom, how long
//! a file may be. Function length, panics and unsafe code are clippy's (see `Cargo.toml` and `clippy.toml`).

use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        walk(&root.join(folder), &mut paths);
    }
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn offenders(pattern: &str, allowed: &[&str]) -> Vec<String> {
    let product = sources().into_iter().filter(|(name, _)| name.starts_with("src/"));
    product
        .filter(|(name, text)| text.contains(pattern) && !allowed.iter().any(|allowed| name.starts_with(allowed)))
        .map(|(name, _)| name)
        .collect()
}

const NONE: [String; 0] = [];

#[test]
fn drivers_are_named_only_where_they_belong() {
    assert_eq!(offenders("lapin::", &["src/broker/"]), NONE);
    assert_eq!(offenders("mongodb::", &["src/store/"]), NONE);
    assert_eq!(offenders("use backoff", &["src/retry.rs"]), NONE);
    assert_eq!(offenders("PrometheusBuilder", &["src/metrics/"]), NONE);
}

#[test]
fn the_pure_parts_import_nothing_that_does_io() {
    for (name, text) in sources() {
        let pure = ["src/event/", "src/dead_letter/", "src/batch.rs", "src/finding.rs"]
            .iter()
            .any(|pure| name.starts_with(pure));
        if pure {
            for other in [
                "crate::broker",
                "crate::store",
                "crate::pipeline",
                "crate::http",
                "crate::cli",
                "crate::metrics",
                "tokio",
                "std::fs",
                "std::net",
            ] {
                assert!(!text.contains(other), "{name} names {other}");
            }
        }
        if name.starts_with("src/broker/") {
            assert!(!text.contains("crate::store") && !text.contains("crate::pipeline"), "{name}");
        }
        if name.starts_with("src/store/") {
            assert!(!text.contains("crate::broker") && !text.contains("crate::pipeline"), "{name}");
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
