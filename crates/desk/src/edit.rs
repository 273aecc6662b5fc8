//! Edits bodies. Expressions run in a process of their own, with a deadline and little memory: one that never ends harms nothing
//! else.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::DeskError;
use super::expression::Expression;
use super::memory_limit;

/// How long an expression may take for one body.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest expression in bytes; errors are shorter.
const MAX_EXPRESSION: usize = 64 << 10;
/// After this many failures of the process in a row the expression is not tried for further bodies: it is the expression, not a few
/// bodies, that is at fault, and each failure takes up to `DEADLINE`.
const MAX_FAILURES: u32 = 20;
/// Why the process has ended by itself.
const ENDED: &str = "the expression ended its process: it needs too much memory, nests too deep, or halts";
/// The program that this process runs, also when its file was replaced or deleted in the meantime (proc(5)). The process that
/// evaluates is of the same version then.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// The hidden command that evaluates.
const COMMAND: &str = "evaluate";

/// How bodies are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// By an expression in jq's language.
    Expression(String),
    /// Each becomes this body.
    Body(Vec<u8>),
}

/// Applies an edit to bodies.
pub(super) struct Editor {
    edit: Edit,
    max_bytes: usize,
    process: Option<Child>,
    /// Failures of the process in a row.
    failures: u32,
}

impl Editor {
    /// For new bodies of at most `max_bytes`.
    ///
    /// # Errors
    /// The expression is wrong.
    pub async fn new(edit: Edit, max_bytes: usize) -> Result<Editor, DeskError> {
        let process = match &edit {
            Edit::Body(_) => None,
            Edit::Expression(text) => Some(start(text).await.map_err(DeskError::Usage)?),
        };
        Ok(Editor { edit, max_bytes, process, failures: 0 })
    }

    /// The new body.
    ///
    /// # Errors
    /// The expression fails for this body, takes too long, or makes too large a body.
    pub async fn apply(&mut self, body: &[u8]) -> Result<Vec<u8>, String> {
        let edited = match &self.edit {
            Edit::Body(edited) => edited.clone(),
            Edit::Expression(text) => {
                if self.failures >= MAX_FAILURES {
                    return Err(format!("not tried: the expression failed so {MAX_FAILURES} times in a row"));
                }
                let process = match &mut self.process {
                    Some(process) => process,
                    None => self.process.insert(start(text).await?),
                };
                let answer = timeout(DEADLINE, ask(process, body, self.max_bytes)).await;
                // After a failure of the process nothing more is asked of it: it is killed when it is dropped.
                let Ok(Ok(answer)) = answer else {
                    self.process = None;
                    self.failures += 1;
                    return Err(match answer {
                        Err(_) => format!("the expression did not end within {} seconds", DEADLINE.as_secs()),
                        _ => ENDED.to_owned(),
                    });
                };
                self.failures = 0;
                answer?
            }
        };
        match edited.len() {
            0 => Err("the new body is empty".to_owned()),
            len if len > self.max_bytes => Err(too_large(self.max_bytes)),
            _ => Ok(edited),
        }
    }
}

fn too_large(max_bytes: usize) -> String {
    format!("the new body has more than {max_bytes} bytes")
}

/// Starts the process, which compiles the expression: one that nests too deep ends only that process. It has no environment, so
/// that an expression cannot read secrets in it.
async fn start(expression: &str) -> Result<Child, String> {
    if expression.len() > MAX_EXPRESSION {
        return Err(format!("the expression has more than {MAX_EXPRESSION} bytes"));
    }
    let failed = |error: std::io::Error| format!("the process for expressions cannot be started: {error}");
    let mut command = Command::new(OWN_PROGRAM);
    command
        .arg0("ticketlog")
        .arg(COMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // In a process group of its own, so that an interrupt of a terminal stops the operation, and not the expression under it.
    let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
    match timeout(DEADLINE, ask(&mut child, expression.as_bytes(), MAX_EXPRESSION)).await {
        Ok(Ok(Ok(_))) => Ok(child),
        Ok(Ok(Err(error))) => Err(error),
        _ => Err(ENDED.to_owned()),
    }
}

async fn send(child: &mut Child, bytes: &[u8]) -> std::io::Result<()> {
    let stdin = child.stdin.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
    stdin.write_all(&(bytes.len() as u64).to_be_bytes()).await?;
    stdin.write_all(bytes).await?;
    stdin.flush().await
}

/// Sends a body, and returns the answer: a new body of at most `max_bytes`, or an error.
async fn ask(child: &mut Child, body: &[u8], max_bytes: usize) -> std::io::Result<Result<Vec<u8>, String>> {
    send(child, body).await?;
    let stdout = child.stdout.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let is_edited = stdout.read_u8().await? == 1;
    let length = stdout.read_u64().await?;
    if length > max_bytes.max(MAX_EXPRESSION) as u64 {
        // The rest is read and dropped, so that the process can be asked again.
        tokio::io::copy(&mut stdout.take(length), &mut tokio::io::sink()).await?;
        return Ok(Err(too_large(max_bytes)));
    }
    let mut answer = Vec::new();
    stdout.take(length).read_to_end(&mut answer).await?;
    if answer.len() as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(if is_edited { Ok(answer) } else { Err(String::from_utf8_lossy(&answer).into_owned()) })
}

/// The process that evaluates: reads an expression and bodies from standard input, and writes a new body or an error for
/// each. Returns when its input ends.
///
/// # Errors
/// Standard input or output.
pub fn serve_expressions() -> std::io::Result<()> {
    let memory = Some(memory_limit::address_space());
    setrlimit(Resource::As, Rlimit { current: memory, maximum: memory })?;
    // It ends with the process that has started it, also while it evaluates.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let Some(text) = receive()? else { return Ok(()) };
    let expression = match Expression::compile(&String::from_utf8_lossy(&text)) {
        Ok(expression) => expression,
        Err(error) => return answer(Err(error)),
    };
    answer(Ok(Vec::new()))?;
    while let Some(body) = receive()? {
        answer(expression.apply(&body))?;
    }
    Ok(())
}

fn answer(result: Result<Vec<u8>, String>) -> std::io::Result<()> {
    let (is_edited, bytes) = match result {
        Ok(body) => (1, body),
        Err(error) => (0, error.into_bytes()),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&[is_edited])?;
    out.write_all(&(bytes.len() as u64).to_be_bytes())?;
    out.write_all(&bytes)?;
    out.flush()
}

fn receive() -> std::io::Result<Option<Vec<u8>>> {
    let mut input = std::io::stdin().lock();
    let mut length = [0; 8];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut bytes = Vec::new();
    input.take(u64::from_be_bytes(length)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
