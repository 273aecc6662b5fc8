//! Owns `--edit`: pipes a body through a shell command of the operator. Must not know what the command does.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::dead_letter::escape;

/// How long the command may take for one message.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most characters of what the command says about its failure.
const MAX_MESSAGE: usize = 200;

/// The output of `sh -c command` for `body`, at most `max_bytes`. A newline at the end is removed, unless the body ends in
/// one.
///
/// # Errors
/// The command fails, writes nothing or too much, or does not end in time.
pub(super) fn edit(command: &str, body: Vec<u8>, max_bytes: usize) -> Result<Vec<u8>, String> {
    let ends_in_newline = body.last() == Some(&b'\n');
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own, so that everything that the command starts can be killed with it.
    let mut child = shell.process_group(0).spawn().map_err(|error| format!("sh cannot be started: {error}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // The command may stop reading early, so this error is ignored; the exit code decides.
    std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&body)));
    let (sender, read) = mpsc::channel();
    std::thread::spawn(move || {
        let mut out = Vec::new();
        let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let done = stdout.map(|stdout| stdout.take(limit).read_to_end(&mut out));
        sender.send(done.is_some_and(|done| done.is_ok()).then_some(out))
    });
    let message = std::thread::spawn(move || stderr.map(first_line).unwrap_or_default());
    let deadline = Instant::now() + TIMEOUT;
    let read = read.recv_timeout(TIMEOUT);
    let too_large = matches!(&read, Ok(Some(out)) if out.len() > max_bytes);
    let ended = if too_large {
        Err(format!("the command wrote more than {max_bytes} bytes"))
    } else {
        wait(&mut child, deadline)
    };
    // Also after success: the command may have left something running.
    kill_group(&mut child);
    let message = message.join().unwrap_or_default();
    ended.map_err(|error| if message.is_empty() { error } else { format!("{error}: {message}") })?;
    let mut edited = read.ok().flatten().ok_or("the command's output cannot be read")?;
    if edited.last() == Some(&b'\n') && !ends_in_newline {
        edited.pop();
    }
    if edited.is_empty() { Err("the command wrote nothing".to_owned()) } else { Ok(edited) }
}

/// The first line that the command writes to standard error, at most `MAX_MESSAGE` characters, safe for a terminal. Reads on,
/// so that the command does not wait.
fn first_line(mut stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = stderr.by_ref().take(4096).read_to_end(&mut text);
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    let text = String::from_utf8_lossy(&text);
    escape(text.lines().next().unwrap_or_default()).chars().take(MAX_MESSAGE).collect()
}

// Runs on a thread for blocking calls.
#[allow(clippy::disallowed_methods)]
fn wait(child: &mut Child, deadline: Instant) -> Result<(), String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the command ended with {status}")),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => return Err(format!("the command did not end within {} seconds", TIMEOUT.as_secs())),
            Err(error) => return Err(format!("the command cannot be waited for: {error}")),
        }
    }
}

/// Kills the shell and everything that it started.
fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_output_is_the_body_or_there_is_an_error() {
        let edit = |command, body: &[u8]| edit(command, body.to_vec(), 1 << 20);
        assert_eq!(edit("tr a b", b"aXa").unwrap(), b"bXb");
        assert_eq!(edit("echo new", b"old").unwrap(), b"new");
        assert_eq!(edit("cat", b"line\n").unwrap(), b"line\n");
        let large = vec![b'x'; 1 << 20];
        assert_eq!(edit("cat", &large).unwrap(), large);
        let mark = std::process::id().to_string();
        let leaves_a_process = format!("sh -c 'sleep 60 # {mark}' >/dev/null & echo {mark}");
        assert_eq!(super::edit(&leaves_a_process, b"x".to_vec(), 1 << 20).unwrap(), mark.as_bytes());
        let left = format!("sleep 60 # {mark}");
        let is_left = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let mut commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
            commands.any(|command| String::from_utf8_lossy(&command).contains(&left))
        };
        // It was killed, but a process takes a moment to end.
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_left() {
            assert!(Instant::now() < deadline, "the command left a process behind");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(edit("exit 3", b"x").unwrap_err(), "the command ended with exit status: 3");
        assert_eq!(edit("echo why >&2; exit 3", b"x").unwrap_err(), "the command ended with exit status: 3: why");
        assert_eq!(edit("true", &large).unwrap_err(), "the command wrote nothing");
        assert_eq!(edit("yes & yes", b"x").unwrap_err(), "the command wrote more than 1048576 bytes");
    }
}
