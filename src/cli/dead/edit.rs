//! Owns `--edit`: a body piped through a command of the operator's. Must not know what the command does.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the command may take for one message.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body that `sh -c command` makes of `body`. A newline at its end is taken off, unless the body had one.
///
/// # Errors
/// Why this message is not edited: the command fails, says nothing, or does not end.
pub(super) fn edit(command: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = shell.spawn().map_err(|error| format!("sh cannot be started: {error}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (written, read) = std::thread::scope(|scope| {
        // A command may stop reading whenever it likes; its exit code tells how it went.
        let writer = scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(body)));
        let reader = scope.spawn(move || {
            let mut out = Vec::new();
            stdout.map(|mut stdout| stdout.read_to_end(&mut out).map(|_| out))
        });
        let ended = wait(&mut child);
        drop(writer.join());
        (ended, reader.join().ok().flatten())
    });
    written?;
    let mut edited = read.and_then(Result::ok).ok_or("the command's output cannot be read")?;
    if edited.last() == Some(&b'\n') && body.last() != Some(&b'\n') {
        edited.pop();
    }
    if edited.is_empty() { Err("the command wrote nothing".to_owned()) } else { Ok(edited) }
}

// This runs on a thread for blocking work: nothing else waits for it.
#[allow(clippy::disallowed_methods)]
fn wait(child: &mut std::process::Child) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the command ended with {status}")),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the command did not end within {} seconds", PATIENCE.as_secs()));
            }
            Err(error) => return Err(format!("the command is lost: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_makes_the_body_or_says_why_not() {
        assert_eq!(edit("tr a b", b"aXa").unwrap(), b"bXb");
        assert_eq!(edit("echo new", b"old").unwrap(), b"new");
        assert_eq!(edit("cat", b"line\n").unwrap(), b"line\n");
        let large = vec![b'x'; 1 << 20];
        assert_eq!(edit("cat", &large).unwrap(), large);
        assert_eq!(edit("exit 3", b"x").unwrap_err(), "the command ended with exit status: 3");
        assert_eq!(edit("true", &large).unwrap_err(), "the command wrote nothing");
    }
}
