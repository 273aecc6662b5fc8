//! Owns the blocks that the benchmarks write into `docs/develop/performance.md`: one for each part, between its markers.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::programs::root;

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

/// What a reader wants to know first: the worker beside the best bare pipe and a worker in Node. Parts add rows.
#[derive(Default)]
pub struct Headlines {
    rows: Vec<String>,
    /// The parts that cannot be measured here; their tables are older.
    skipped: Vec<&'static str>,
}

impl Headlines {
    pub fn row(&mut self, name: &str, [worker, pipe, node]: [String; 3]) {
        self.rows.push(format!("{name:<52}{worker:>10}{pipe:>16}{node:>10}").trim_end().to_owned());
    }

    pub fn skip(&mut self, part: &'static str, reason: &str) {
        println!("{part}: {reason}; nothing measured");
        self.skipped.push(part);
    }

    pub fn write(&self, provenance: &str, minutes: f64) {
        let mut block = Block::default();
        block.line(provenance);
        block.line(&format!("{:<52}{:>10}{:>16}{:>10}", "", "ticketlog", "best bare pipe", "Node"));
        self.rows.iter().for_each(|row| block.line(row));
        let skipped: String = self.skipped.iter().map(|part| format!(", without {part}")).collect();
        block.line(&format!("all tables of this page were measured in one run of {minutes:.0} minutes{skipped}"));
        block.write("summary");
    }
}

pub fn docs() -> PathBuf {
    root().join("docs/develop")
}

/// The date, the versions of the programs, the commit, and the number of cores.
pub fn provenance(mongodb: &str, rabbitmq: &str) -> String {
    let date = std::process::Command::new("date").arg("+%Y-%m-%d").output().unwrap();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let version = env!("CARGO_PKG_VERSION");
    let commit = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(root())
        .output();
    let commit = commit.map(|git| String::from_utf8_lossy(&git.stdout).trim().to_owned()).unwrap_or_default();
    let date = String::from_utf8_lossy(&date.stdout);
    format!(
        "{}, ticketlog {version} ({commit}), RabbitMQ {rabbitmq}, MongoDB {mongodb}, {cores} cores shared by all",
        date.trim()
    )
}
