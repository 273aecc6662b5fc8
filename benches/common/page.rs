//! Owns the blocks that the benchmarks write into `docs/develop/performance.md`: one for each part, between its markers.

use std::fmt::Write as _;
use std::path::PathBuf;

/// Collects the lines of a block, and prints each at once.
#[derive(Default)]
pub struct Block {
    text: String,
}

impl Block {
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        writeln!(self.text, "{line}").unwrap();
    }

    /// Replaces the block `name` of the page.
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
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/develop"))
}

/// The date, the versions of the programs, and the number of cores.
pub fn provenance(mongodb: &str, rabbitmq: &str) -> String {
    let date = std::process::Command::new("date").arg("+%Y-%m-%d").output().unwrap();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let version = env!("CARGO_PKG_VERSION");
    let date = String::from_utf8_lossy(&date.stdout);
    format!("{}, ticketlog {version}, RabbitMQ {rabbitmq}, MongoDB {mongodb}, {cores} cores shared by all", date.trim())
}
