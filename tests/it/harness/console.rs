//! Owns a running `ticketlog console`, and a browser without a window: requests, forms, redirects.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use url::form_urlencoded;

use super::{DEADLINE, TestEnv, eventually, program};

/// A console process; killed when dropped.
pub struct Console {
    child: Child,
    log: tempfile::NamedTempFile,
    address: String,
}

/// An answer of the console.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends a request to an HTTP server.
pub fn send(address: &str, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request).unwrap();
    stream
}

impl Answer {
    /// Reads until the connection ends.
    pub fn read(mut stream: TcpStream) -> Answer {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the first hidden field of this name.
    pub fn hidden(&self, name: &str) -> String {
        let after = self.body.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap_or_default();
        after.split('"').next().unwrap_or_default().to_owned()
    }
}

impl TestEnv {
    /// `ticketlog console` with these arguments.
    pub async fn console(&self, arguments: &[&str]) -> Console {
        self.console_of(&program(), arguments).await
    }

    /// The same of another copy of the program.
    pub async fn console_of(&self, program: &str, arguments: &[&str]) -> Console {
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = || std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let mut command = Command::new(program);
        command.envs(self.operator_command().get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["console", "--listen", "127.0.0.1:0"]).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().unwrap();
        let mut console = Console { child, log, address: String::new() };
        eventually("the console starts", DEADLINE, async || {
            let log = console.log();
            let address = log.split("the console is at http://").nth(1).and_then(|rest| rest.split('/').next());
            console.address = address.unwrap_or_default().to_owned();
            !console.address.is_empty()
        })
        .await;
        console
    }
}

impl Console {
    /// Everything it printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request with further header lines; `body` makes it a POST.
    pub fn request(&self, path: &str, headers: &[&str], body: Option<&str>) -> Answer {
        let has_host = headers.iter().any(|header| header.starts_with("Host:"));
        let host = if has_host { String::new() } else { format!("Host: {}\r\n", self.address) };
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let (method, form) = match body {
            None => ("GET", String::new()),
            Some(body) => {
                let kind = "Content-Type: application/x-www-form-urlencoded";
                ("POST", format!("{kind}\r\nContent-Length: {}\r\n", body.len()))
            }
        };
        let body = body.unwrap_or_default();
        let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}{form}Connection: close\r\n\r\n{body}");
        Answer::read(self.send(request.as_bytes()))
    }

    /// Sends a request as it is, and returns the connection with the answer to come.
    pub fn send(&self, request: &[u8]) -> TcpStream {
        send(&self.address, request)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request(path, &[], None)
    }

    /// Sends a form of this session.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.get("/dead-letters").hidden("csrf");
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("csrf", &csrf).extend_pairs(fields);
        self.request(path, &[], Some(&form.finish()))
    }

    /// Sends a form that starts a job, and waits until the page of the job contains `expected`.
    pub async fn job(&self, path: &str, fields: &[(&str, &str)], expected: &str) -> (String, Answer) {
        let answer = self.post(path, fields);
        let job = answer.header("location").unwrap_or_else(|| panic!("no job: {answer:?}")).to_owned();
        let mut page = self.get(&job);
        eventually(&format!("the page of the job says {expected:?}"), DEADLINE, async || {
            page = self.get(&job);
            page.body.contains(expected)
        })
        .await;
        (job, page)
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.kill();
    }
}
