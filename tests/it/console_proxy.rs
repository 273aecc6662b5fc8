//! The console behind a proxy: whom it believes, which host names and origins it admits, and nginx with the configuration of
//! deploy/nginx.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lapin::BasicProperties;

use crate::harness::{Answer, Console, DEADLINE, TestEnv, eventually, send};

const SECRET: &str = "0123456789abcdef0123456789";

async fn with_dead_letter() -> TestEnv {
    let env = TestEnv::new().await;
    let headers = env.headers("id-1", "not_an_object", 1);
    env.publish_dead_letters([(b"[1]".to_vec(), BasicProperties::default().with_headers(headers))]).await;
    env
}

/// A console that believes a proxy with the secret.
async fn proxied_console(env: &TestEnv, directory: &Path, host: &str) -> Console {
    let secret = private_file(directory, "secret", &format!("{SECRET}\n"));
    let arguments = ["--behind-proxy", "--host", host, "--user-header", "X-Forwarded-User", "--proxy-secret", &secret];
    let state = directory.join("state");
    let allowed = ["--allow", "replay", "--state-dir", state.to_str().unwrap()];
    env.console(&[&arguments[..], &allowed].concat()).await
}

fn private_file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_the_proxy_is_believed_and_only_the_hosts_of_the_console() {
    let env = with_dead_letter().await;
    let directory = tempfile::tempdir().unwrap();
    let console = proxied_console(&env, directory.path(), "desk.example").await;
    let secret = format!("X-Ticketlog-Proxy-Secret: {SECRET}");
    let (host, anna) = ("Host: desk.example", "X-Forwarded-User: anna");
    for (lines, status) in [
        // Whoever reaches the port.
        (vec![host, anna], 403),
        (vec![host, anna, "X-Ticketlog-Proxy-Secret: 0123456789abcdef"], 403),
        (vec![host, anna, &secret, "X-Ticketlog-Proxy-Secret: another"], 403),
        // Other host names, also those of loopback.
        (vec!["Host: localhost", anna, &secret], 421),
        (vec!["Host: 127.0.0.1:9465", anna, &secret], 421),
        (vec!["Host: evil.example", anna, &secret], 421),
        // A proxy that lets through what people send, or names nobody.
        (vec![host, anna, "X-Forwarded-User: root", &secret], 400),
        (vec![host, &secret], 401),
        (vec!["Host: DESK.example:443", anna, &secret, "Accept: text/html"], 200),
    ] {
        let answer = console.request("/dead-letters", &lines, None);
        assert_eq!(answer.status, status, "{lines:?}: {answer:?}");
    }
    for path in ["/login", "/static/console.js"] {
        assert_eq!(console.request(path, &[host, anna], None).status, 403, "{path}");
    }
    assert_eq!(console.request("/livez", &[], None).status, 200);
    for (name, shown) in [("Zoë Müller".as_bytes(), "Zoë Müller"), (b"Zo\xeb M\xfcller", "Zoë Müller")] {
        let head = format!("GET /history HTTP/1.1\r\n{host}\r\n{secret}\r\nConnection: close\r\nX-Forwarded-User: ");
        let answer = Answer::read(console.send(&[head.as_bytes(), name, b"\r\n\r\n"].concat()));
        assert!(answer.status == 200 && answer.body.contains(shown), "{answer:?}");
    }
    env.clean().await;
}

#[tokio::test]
async fn a_form_is_admitted_whichever_way_the_proxy_writes_the_host() {
    let env = with_dead_letter().await;
    let directory = tempfile::tempdir().unwrap();
    let console = proxied_console(&env, directory.path(), "desk.example,desk.example:8443").await;
    let secret = format!("X-Ticketlog-Proxy-Secret: {SECRET}");
    let common = ["X-Forwarded-User: anna", secret.as_str()];
    let page = console.request("/dead-letters", &[&common[..], &["Host: desk.example"]].concat(), None);
    let form = format!("csrf={}&reason=too_deep", page.hidden("csrf"));
    for (host, origin, status) in [
        ("desk.example", "https://desk.example", 303),
        ("desk.example:80", "https://desk.example", 303),
        ("Desk.Example:443", "https://desk.example", 303),
        ("desk.example", "https://DESK.example:443", 303),
        ("desk.example", "https://desk.example:8443", 303),
        ("desk.example:8443", "https://desk.example:8443", 303),
        ("desk.example", "https://desk.example:9000", 403),
        ("desk.example", "https://evil.example", 403),
        ("desk.example", "null", 403),
    ] {
        let lines = [format!("Host: {host}"), format!("Origin: {origin}")];
        let lines = [&common[..], &[lines[0].as_str(), &lines[1]]].concat();
        let answer = console.request("/park", &lines, Some(&form));
        assert_eq!(answer.status, status, "{host} {origin}: {answer:?}");
    }
    env.clean().await;
}

/// nginx with the configuration of deploy/nginx, without TLS; killed when dropped.
struct Nginx {
    child: Child,
    address: String,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find_nginx() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join("nginx")).find(|program| program.exists())
}

async fn start_nginx(program: &Path, directory: &Path, console: &str) -> Nginx {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let people = private_file(directory, "people", "anna:{PLAIN}anna-secret\nzoë:{PLAIN}zoe-secret\n");
    let header = format!("proxy_set_header X-Ticketlog-Proxy-Secret \"{SECRET}\";\n");
    let secret = private_file(directory, "secret-header", &header);
    // The files and addresses of this test; TLS is left out.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx/ticketlog-console.conf");
    let server = std::fs::read_to_string(file).unwrap();
    let server: String =
        server.lines().filter(|line| !line.contains("ssl_cert")).map(|line| format!("{line}\n")).collect();
    let mut replaced = server;
    for (from, to) in [
        ("listen 443 ssl;", format!("listen {address};")),
        ("http://127.0.0.1:9465", format!("http://{console}")),
        ("/etc/nginx/ticketlog-people;", format!("{people};")),
        ("include /etc/nginx/ticketlog-proxy-secret;", format!("include {secret};")),
    ] {
        assert!(replaced.contains(from), "{from}");
        replaced = replaced.replace(from, &to);
    }
    let here = directory.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {here}/{name};\n"));
    let configuration = format!(
        "daemon off; master_process off; pid {here}/pid; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{}{replaced}}}\n",
        temporary.concat()
    );
    let configuration = private_file(directory, "nginx.conf", &configuration);
    let log = std::fs::File::create(directory.join("nginx.log")).unwrap();
    let mut command = Command::new(program);
    command.args(["-c", &configuration]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let nginx = Nginx { child: command.spawn().unwrap(), address };
    eventually("nginx listens", DEADLINE, async || std::net::TcpStream::connect(&nginx.address).is_ok()).await;
    nginx
}

/// A request to nginx with the password of a person.
fn ask(nginx: &Nginx, who: &str, request: &str, headers: &[&str], form: &str) -> Answer {
    use base64::Engine as _;
    let login = base64::engine::general_purpose::STANDARD.encode(who);
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = form.len();
    let request = format!(
        "{request} HTTP/1.1\r\nHost: desk.example\r\nAuthorization: Basic {login}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{form}"
    );
    Answer::read(send(&nginx.address, request.as_bytes()))
}

#[tokio::test]
async fn nginx_with_the_shipped_configuration_serves_people_and_forms() {
    let Some(program) = find_nginx() else {
        eprintln!("skipped: there is no nginx here (Debian: nginx-light)");
        return;
    };
    let env = with_dead_letter().await;
    let directory = tempfile::tempdir().unwrap();
    let console = proxied_console(&env, directory.path(), "desk.example").await;
    let nginx = start_nginx(&program, directory.path(), console.address()).await;
    let anna = "anna:anna-secret";
    assert_eq!(ask(&nginx, "anna:wrong", "GET /", &[], "").status, 401);
    // What a person sends in the name of the proxy is replaced.
    let forged = ["X-Forwarded-User: root", "X-Forwarded-User: root", "X-Ticketlog-Proxy-Secret: forged"];
    let page = ask(&nginx, anna, "GET /dead-letters", &forged, "");
    assert!(page.status == 200 && page.body.contains(">anna</span>") && !page.body.contains("root"), "{page:?}");
    let zoe = ask(&nginx, "zoë:zoe-secret", "GET /history", &[], "");
    assert!(zoe.status == 200 && zoe.body.contains(">zoë</span>"), "{zoe:?}");
    let form = format!("csrf={}", page.hidden("csrf"));
    let browser = ["Origin: https://desk.example", "Sec-Fetch-Site: same-origin"];
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let parked = ask(&nginx, anna, "POST /park", &[&browser[..], &[kind]].concat(), &form);
    assert_eq!(parked.status, 303, "{parked:?}");
    let job = parked.header("location").unwrap().to_owned();
    assert!(job.starts_with("/jobs/"), "{job}");
    let events = ask(&nginx, anna, &format!("GET {job}/events"), &[], "");
    assert!(events.status == 200 && events.body.contains("1 dead letter moved"), "{events:?}");
    assert_eq!(ask(&nginx, anna, "POST /park", &["Origin: https://evil.example", kind], &form).status, 403);
    env.wait_for_depth(&env.parked_queue(), 1).await;
    let export = ask(&nginx, anna, "GET /export?queue=parked", &["Sec-Fetch-Site: same-origin"], "");
    assert!(export.status == 200 && export.body.contains("ticketlog-dead-letter/1"), "{export:?}");
    let history = ask(&nginx, anna, "GET /history", &[], "");
    assert!(history.body.contains("anna") && history.body.contains("export"), "{history:?}");
    env.clean().await;
}
