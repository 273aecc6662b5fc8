//! Owns reading messages from files: NDJSON with one message a line, or one message a file. Reads bytes, not text, because
//! a message need not be UTF-8.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::PathBuf;

use super::{CommandError, exit};

/// One message and where it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputMessage {
    /// The file's name, or `-`.
    pub file: String,
    /// The number of its line, from 1; a whole file is line 1.
    pub line: usize,
    /// Without the line end.
    pub body: Vec<u8>,
}

/// Calls `each` with every message of the files, or of standard input if there are none. Blank lines are skipped.
///
/// # Errors
/// A file that cannot be read, or an error of `each`.
pub(super) fn read_messages(
    files: &[PathBuf],
    whole: bool,
    mut each: impl FnMut(InputMessage) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    if files.is_empty() {
        return read("-", Box::new(stdin().lock()), whole, &mut each);
    }
    for path in files {
        let name = path.display().to_string();
        if name == "-" {
            read("-", Box::new(stdin().lock()), whole, &mut each)?;
            continue;
        }
        let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
        read(&name, Box::new(BufReader::new(file)), whole, &mut each)?;
    }
    Ok(())
}

fn unreadable(name: &str, error: &std::io::Error) -> CommandError {
    CommandError::text(exit::NO_INPUT, format!("{name} cannot be read: {error}"))
}

fn read(
    name: &str,
    mut input: Box<dyn BufRead>,
    whole: bool,
    each: &mut impl FnMut(InputMessage) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let message = |line, body| InputMessage { file: name.to_owned(), line, body };
    if whole {
        let mut body = Vec::new();
        input.read_to_end(&mut body).map_err(|error| unreadable(name, &error))?;
        return each(message(1, body));
    }
    for line in 1.. {
        let mut body = Vec::new();
        if input.read_until(b'\n', &mut body).map_err(|error| unreadable(name, &error))? == 0 {
            break;
        }
        while matches!(body.last(), Some(b'\n' | b'\r')) {
            body.pop();
        }
        if !body.iter().all(u8::is_ascii_whitespace) {
            each(message(line, body))?;
        }
    }
    Ok(())
}
