//! Owns reading messages from files: NDJSON, one message a line, or a whole file a message. Bytes, not text: what is
//! malformed must come through as it is.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::PathBuf;

use super::Fault;

/// One message and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The file's name, or `-`.
    pub file: String,
    /// From 1; a whole file is line 1.
    pub number: usize,
    /// Without the line's end.
    pub body: Vec<u8>,
}

/// Calls `each` for every message of the files, or of standard input where there are none. Empty lines are skipped.
///
/// # Errors
/// A file that cannot be read; whatever `each` says.
pub(super) fn lines(
    files: &[PathBuf],
    whole: bool,
    mut each: impl FnMut(Line) -> Result<(), Fault>,
) -> Result<(), Fault> {
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

fn unreadable(name: &str, error: &std::io::Error) -> Fault {
    Fault::new(66, anyhow::Error::msg(format!("{name} cannot be read: {error}")))
}

fn read(
    name: &str,
    mut input: Box<dyn BufRead>,
    whole: bool,
    each: &mut impl FnMut(Line) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let line = |number, body| Line { file: name.to_owned(), number, body };
    if whole {
        let mut body = Vec::new();
        input.read_to_end(&mut body).map_err(|error| unreadable(name, &error))?;
        return each(line(1, body));
    }
    for number in 1.. {
        let mut body = Vec::new();
        if input.read_until(b'\n', &mut body).map_err(|error| unreadable(name, &error))? == 0 {
            break;
        }
        while matches!(body.last(), Some(b'\n' | b'\r')) {
            body.pop();
        }
        if !body.is_empty() {
            each(line(number, body))?;
        }
    }
    Ok(())
}
