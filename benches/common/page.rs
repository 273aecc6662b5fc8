//! Owns what the benchmarks write into `docs/performance.md`: one block for each part, between its marks.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Prints as it goes, and remembers.
#[derive(Default)]
pub struct Block {
    text: String,
}

impl Block {
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        writeln!(self.text, "{line}").unwrap();
    }

    /// Replaces the block `name` of the page. What changes from day to day stands in front.
    pub fn write(&self, name: &str) {
        let path = docs().join("performance.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
        let (before, rest) = page.split_once(&open).unwrap_or_else(|| panic!("the page has no {open}"));
        let (_, after) = rest.split_once(&close).unwrap();
        std::fs::write(path, format!("{before}{open}```text\n{}```\n{close}{after}", self.text)).unwrap();
    }
}

pub fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"))
}

/// When and with what.
pub fn provenance(mongodb: &str, rabbitmq: &str) -> String {
    let date = std::process::Command::new("date").arg("+%Y-%m-%d").output().unwrap();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let version = env!("CARGO_PKG_VERSION");
    let date = String::from_utf8_lossy(&date.stdout);
    format!("{}, ticketlog {version}, RabbitMQ {rabbitmq}, MongoDB {mongodb}, {cores} cores shared by all", date.trim())
}
