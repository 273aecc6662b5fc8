//! Owns the stack that commands run on which read messages from the broker. Must not know what they do.

use super::Fault;
use crate::telemetry;

/// Stack of every thread in bytes; address space, not memory. lapin reads and writes headers recursively: 9 KB of them,
/// nested 1,500 deep, would overflow the usual 2 MiB and end the process, and the message would come back every time.
/// A frame of 128 KiB holds at most 26,000 levels, for which this is enough in debug builds, too.
const STACK: &str = "268435456";

/// Runs on a thread of its own, because the main thread's stack is the system's affair.
///
/// # Errors
/// What `work` says.
pub(super) fn deep(work: impl FnOnce() -> Result<u8, Fault> + Send + 'static) -> Result<u8, Fault> {
    telemetry::exit_on_panic();
    let running = std::thread::Builder::new().name("ticketlog".to_owned()).spawn(work)?;
    running.join().unwrap_or(Ok(u8::try_from(telemetry::PANIC_EXIT).unwrap_or(1)))
}

/// To be called before anything is read that can be read only once. Replaces the process by itself with a larger default stack, which the standard library reads from the environment
/// once, before the first thread. Where that is not possible it runs with what there is.
pub(super) fn again() {
    use std::os::unix::process::CommandExt as _;
    if std::env::var_os("RUST_MIN_STACK").is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let _ =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).env("RUST_MIN_STACK", STACK).exec();
    }
}
