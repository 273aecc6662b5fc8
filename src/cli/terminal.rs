//! Owns what is printed: results on standard output, remarks and questions on standard error. A reader that is gone is no
//! panic. Must not know what is said.

use std::fmt::Display;
use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin, stdout};

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
