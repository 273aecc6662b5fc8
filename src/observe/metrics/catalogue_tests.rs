//! Writes the catalogue of metrics as a page, and checks names and helps.

use super::*;

/// The catalogue as `docs/operate/metrics.md`.
fn markdown() -> String {
    let mut page = include_str!("metrics.head.md").to_owned();
    for (title, metrics) in catalogue() {
        page += &format!("\n## {title}\n\n| metric | kind | labels | what |\n|---|---|---|---|\n");
        for metric in metrics {
            let kind = match metric.kind {
                Kind::Counter => "counter".to_owned(),
                Kind::Gauge => "gauge".to_owned(),
                Kind::Histogram(bounds) => {
                    format!("histogram, {} to {} in {}", bounds[0], bounds[bounds.len() - 1], bounds.len())
                }
            };
            let publisher = if metric.by_publisher { "; `publisher`" } else { "" };
            let labels = match metric.label {
                None => String::new(),
                Some(("version", _)) => "`version`".to_owned(),
                Some((name, values)) => {
                    format!(
                        "`{name}`: {}",
                        values().iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
                    )
                }
            };
            page += &format!("| `{}` | {kind} | {labels}{publisher} | {} |\n", metric.name, metric.help);
        }
    }
    page
}

/// `make docs` writes the page.
#[test]
fn the_page_is_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operate/metrics.md");
    if std::env::var_os("TICKETLOG_WRITE_DOCS").is_some() {
        std::fs::write(path, markdown()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == markdown(), "docs/operate/metrics.md is out of date; run `make docs`");
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    for metric in catalogue().into_iter().flat_map(|(_, metrics)| metrics) {
        let name = metric.name;
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(metric.unit == Some(Unit::Seconds), name.ends_with("_seconds"), "{name}");
        assert!(metric.help.len() > 10 && !metric.help.ends_with('.'), "{name}");
        assert!(metric.values().len() <= 25, "{name} has too many series");
    }
}
