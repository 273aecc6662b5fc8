//! Owns printing: results on standard output, notes and questions on standard error. What a terminal would obey or hide is escaped. A
//! closed output is an error, not a panic.

use std::fmt::Display;
use std::io::{BufRead as _, BufWriter, IsTerminal as _, Write, stderr, stdin, stdout};
use std::thread::JoinHandle;

use console::{Term, truncate_str};
use tokio::sync::mpsc;

use ticketlog_config::system;
use ticketlog_contract::dead_letter::{escape, terminal_safe};

use super::CommandError;

/// Prints text or JSON of the result on standard output.
///
/// # Errors
/// Standard output is closed.
pub(super) fn print_line(line: impl Display) -> Result<(), CommandError> {
    Ok(writeln!(stdout(), "{}", terminal_safe(&line.to_string()))?)
}

/// How a command ends that has printed its result, or could not: a closed output does not hide that it failed.
///
/// # Errors
/// The command failed, or its output could not be written.
pub(super) fn after_printing(
    ended: Result<u8, CommandError>,
    printed: Result<(), CommandError>,
) -> Result<u8, CommandError> {
    match (ended, printed) {
        (Ok(code), Ok(())) => Ok(code),
        (Ok(code), Err(error)) if code != 0 && error.is_broken_pipe() => Ok(code),
        // It failed because of the output, which knows why.
        (Err(error), Err(why)) if error.is_broken_pipe() => Err(why),
        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
    }
}

/// Prints a line with our own colours; its other parts are already escaped.
///
/// # Errors
/// Standard output is closed.
pub(super) fn print_coloured(line: impl Display) -> Result<(), CommandError> {
    Ok(writeln!(stdout(), "{line}")?)
}

/// Prints a note or an error on standard error.
pub(super) fn note(text: impl Display) {
    let line = format!("ticketlog: {}", escape(&text.to_string()));
    let columns = columns_of(&Term::stderr());
    let _ = writeln!(stderr(), "{}", columns.map_or(line.clone(), |columns| wrap(&line, columns, 2)));
}

/// Columns of the terminal that standard output is; `None` if it is not a terminal.
pub(super) fn columns() -> Option<usize> {
    columns_of(&Term::stdout())
}

fn columns_of(term: &Term) -> Option<usize> {
    term.is_term().then(|| term.size_checked().map_or(80, |(_, columns)| usize::from(columns).max(20)))
}

/// The line, cut to the width of the terminal.
pub(super) fn fit(line: &str) -> String {
    columns().map_or(line.to_owned(), |columns| truncate_str(line, columns, "…").into_owned())
}

/// The text, wrapped at words to the width of the terminal; further lines are indented.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    columns().map_or(text.to_owned(), |columns| wrap(text, columns, indent))
}

fn wrap(text: &str, columns: usize, indent: usize) -> String {
    let indent = " ".repeat(indent.min(columns / 2));
    let options = textwrap::Options::new(columns).subsequent_indent(&indent).break_words(false);
    textwrap::fill(text, options.word_splitter(textwrap::WordSplitter::NoHyphenation))
}

/// The text in green, if standard output shows colours.
pub(super) fn green(text: &str) -> String {
    coloured(text, 32)
}

/// The text in yellow, likewise.
pub(super) fn yellow(text: &str) -> String {
    coloured(text, 33)
}

/// The text in red, likewise.
pub(super) fn red(text: &str) -> String {
    coloured(text, 31)
}

fn coloured(text: &str, code: u8) -> String {
    if system::has_colours(stdout().is_terminal()) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// # Errors
/// Standard input is not a terminal, so that nobody can answer. `flag` makes the question unnecessary.
pub(super) fn check_can_ask(flag: &str) -> Result<(), CommandError> {
    if stdin().is_terminal() {
        return Ok(());
    }
    Err(CommandError::usage(format!("standard input is not a terminal; pass {flag}")))
}

/// Asks the operator to type one of the `expected` answers; true if they do. `flag` makes the question unnecessary.
///
/// # Errors
/// Standard input is not a terminal.
pub(super) fn confirm(question: &str, expected: &[&str], flag: &str) -> Result<bool, CommandError> {
    check_can_ask(flag)?;
    write!(stderr(), "{} ", terminal_safe(question))?;
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(expected.contains(&answer.trim()))
}

/// Lines that may wait for a slow reader: few, because each can be as long as the largest message.
const READ_AHEAD: usize = 8;

/// Writes lines on a thread of its own, so that a slow reader does not delay heartbeats.
pub(super) struct LineWriter {
    sender: mpsc::Sender<String>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl LineWriter {
    /// Starts the thread that writes to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        let (sender, mut lines) = mpsc::channel::<String>(READ_AHEAD);
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
        LineWriter { sender, thread }
    }

    /// Hands over a line; waits while too many lines are not written yet.
    ///
    /// # Errors
    /// The output is closed; [`LineWriter::finish`] returns why.
    pub fn write(&self, line: String) -> impl Future<Output = std::io::Result<()>> + use<> {
        let sender = self.sender.clone();
        async move { sender.send(line).await.map_err(|_| std::io::ErrorKind::BrokenPipe.into()) }
    }

    /// Waits until all lines are written.
    ///
    /// # Errors
    /// The error of the output.
    pub async fn finish(self) -> Result<(), CommandError> {
        drop(self.sender);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        match joined {
            Ok(Ok(written)) => Ok(written?),
            _ => Err(std::io::Error::other("the thread that writes the output panicked").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit;
    use super::*;

    #[test]
    fn a_closed_output_hides_no_failure() {
        let closed = || CommandError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let full = || CommandError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let failed = || CommandError::text(exit::UNAVAILABLE, "it failed");
        let code = |ended, printed| match after_printing(ended, printed) {
            Ok(code) => code,
            // As `main` does.
            Err(error) if error.is_broken_pipe() => 0,
            Err(error) => error.code,
        };
        assert_eq!((code(Ok(0), Ok(())), code(Ok(0), Err(closed())), code(Err(closed()), Ok(()))), (0, 0, 0));
        assert_eq!((code(Ok(exit::DATA), Ok(())), code(Ok(exit::DATA), Err(closed()))), (exit::DATA, exit::DATA));
        assert_eq!(code(Err(failed()), Err(closed())), exit::UNAVAILABLE);
        assert_eq!((code(Ok(0), Err(full())), code(Err(closed()), Err(full()))), (exit::IO, exit::IO));
    }
}
