//! Owns the stack size of commands that read messages from RabbitMQ. Must not know what they do.

use super::CommandError;
use crate::observe::logging;

/// Stack size of every thread in bytes; address space, not memory. lapin parses headers recursively: 9 KB of them, nested
/// 1,500 levels deep, overflow the usual 2 MiB and abort the process, and the message would come back every time. A frame
/// of 128 KiB holds at most 26,000 levels, for which this is enough even in debug builds.
const STACK_BYTES: &str = "268435456";

/// Runs `command` on a thread of its own, because the main thread's stack size is the system's choice.
///
/// # Errors
/// As `command`.
pub(super) fn run_on_large_stack(
    command: impl FnOnce() -> Result<u8, CommandError> + Send + 'static,
) -> Result<u8, CommandError> {
    logging::exit_on_panic();
    let thread = std::thread::Builder::new().name("ticketlog".to_owned()).spawn(command)?;
    thread.join().unwrap_or(Ok(u8::try_from(logging::PANIC_EXIT_CODE).unwrap_or(1)))
}

/// Starts this program again in the same process, with `RUST_MIN_STACK` set: the standard library reads it once, before the
/// first thread. Call it before anything is read that can be read only once. If it fails, the stack keeps its usual size.
pub(super) fn reexec_with_stack() {
    use std::os::unix::process::CommandExt as _;
    if std::env::var_os("RUST_MIN_STACK").is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let mut command = std::process::Command::new(program);
        let _ = command.args(std::env::args_os().skip(1)).env("RUST_MIN_STACK", STACK_BYTES).exec();
    }
}
