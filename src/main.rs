//! The `ticketlog` program. Everything is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// lapin's IO thread allocates messages and the worker's thread frees them, which jemalloc does at a lower cost than the
/// system's allocator (docs/develop/performance.md).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ticketlog::cli::commands::main()
}
