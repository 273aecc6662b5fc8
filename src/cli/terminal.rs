//! Owns what is printed: results on standard output, remarks and questions on standard error. A reader that is gone is no
//! panic. Must not know what is said.

use std::fmt::Display;
use std::io::{BufRead as _, BufWriter, IsTerminal as _, Write, stderr, stdin, stdout};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::Fault;

/// A line of the result.
///
/// # Errors
/// Nobody reads it.
pub(super) fn say(line: impl Display) -> Result<(), Fault> {
    Ok(writeln!(stdout(), "{line}")?)
}

/// A remark beside it; lost where nobody reads it.
pub(super) fn note(remark: impl Display) {
    let _ = writeln!(stderr(), "ticketlog: {remark}");
}

/// Asks a person to type `wanted`; `otherwise` is the flag that spares the question.
///
/// # Errors
/// There is no terminal to ask at.
pub(super) fn confirm(question: &str, wanted: &str, otherwise: &str) -> Result<bool, Fault> {
    if !stdin().is_terminal() {
        return Err(Fault::usage(format!("there is nobody to ask: give {otherwise}, or run it in a terminal")));
    }
    write!(stderr(), "{question} ")?;
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == wanted)
}

/// Lines on their way to a writer that may be slow: written on a thread beside, so that heartbeats go on meanwhile.
pub(super) struct Lines {
    sender: mpsc::Sender<String>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Lines {
    /// To any writer.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        let (sender, mut lines) = mpsc::channel::<String>(64);
        let thread = std::thread::spawn(move || {
            let mut out = BufWriter::new(out);
            while let Some(line) = lines.blocking_recv() {
                writeln!(out, "{line}")?;
                if lines.is_empty() {
                    out.flush()?;
                }
            }
            out.flush()
        });
        Lines { sender, thread }
    }

    /// Hands over a line; waits while too many wait already.
    ///
    /// # Errors
    /// Nobody takes them any more; [`Lines::end`] says why.
    pub async fn line(&self, line: String) -> Result<(), Fault> {
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        Ok(self.sender.send(line).await.map_err(|_| gone())?)
    }

    /// Waits until all are written.
    ///
    /// # Errors
    /// What writing them met.
    pub async fn end(self) -> Result<(), Fault> {
        drop(self.sender);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        match joined {
            Ok(Ok(written)) => Ok(written?),
            _ => Err(std::io::Error::other("the writer is lost").into()),
        }
    }
}
