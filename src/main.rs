//! The program: everything is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Messages are made by one thread and dropped by another, which this allocator does at a lower price than the system's
/// (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ticketlog::cli::main()
}
