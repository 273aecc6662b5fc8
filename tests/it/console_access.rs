//! The console and people who mean it no good, or are many: idle connections, links on other sites, downloads that wait, rates that
//! are none; and an upgrade under a running console.

use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;

use lapin::BasicProperties;

use crate::harness::{Answer, Console, DEADLINE, TestEnv, eventually};

/// Publishes dead letters with bodies of about this many bytes, each an array of one event.
async fn with_dead_letters(count: i32, bytes: usize) -> TestEnv {
    let env = TestEnv::new().await;
    let dead_letter = |n: i32| {
        let headers = env.headers(&format!("id-{n}"), "not_an_object", n);
        let body = format!("[{{\"n\":{n},\"text\":\"{}\"}}]", "x".repeat(bytes));
        (body.into_bytes(), BasicProperties::default().with_message_id(format!("m-{n}").into()).with_headers(headers))
    };
    env.publish_dead_letters((0..count).map(dead_letter)).await;
    env
}

fn with_roles(directory: &Path) -> [&str; 4] {
    ["--allow", "replay,edit,purge", "--state-dir", directory.to_str().unwrap()]
}

fn export_request(console: &Console, header: &str) -> String {
    format!("GET /export HTTP/1.1\r\nHost: {}\r\n{header}Connection: close\r\n\r\n", console.address())
}

#[tokio::test]
async fn idle_connections_without_login_do_not_cut_off_an_export() {
    // More than the buffers of a connection hold.
    let env = with_dead_letters(600, 50_000).await;
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens.toml");
    std::fs::write(&tokens, "anna = { token = \"anna-0123456789abcdef\", roles = [\"view\"] }\n").unwrap();
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let console = env.console(&["--tokens", tokens.to_str().unwrap()]).await;
    let bearer = "Authorization: bearer anna-0123456789abcdef\r\n";
    let mut export = console.send(export_request(&console, bearer).as_bytes());
    let mut begin = [0; 1000];
    export.read_exact(&mut begin).unwrap();
    // Idle ones, and ones that send the beginning of a form for ever.
    let idle: Vec<TcpStream> = (0..70).map(|_| TcpStream::connect(console.address()).unwrap()).collect();
    let login = format!("POST /login HTTP/1.1\r\nHost: {}\r\nContent-Length: 60000\r\n\r\ntoken=", console.address());
    let slow: Vec<TcpStream> = (0..70).map(|_| console.send(login.as_bytes())).collect();
    let answer = console.request("/dead-letters", &[bearer.trim()], None);
    assert!(answer.status == 200, "others are served, too: {answer:?}");
    let rest = Answer::read(export);
    let text = String::from_utf8_lossy(&begin).into_owned() + &rest.head + &rest.body;
    assert_eq!(text.matches("ticketlog-dead-letter/1").count(), 600);
    drop((idle, slow));
    env.clean().await;
}

#[tokio::test]
async fn a_link_on_another_site_does_not_read_the_queue() {
    let env = with_dead_letters(3, 10).await;
    let directory = tempfile::tempdir().unwrap();
    let console = env.console(&with_roles(directory.path())).await;
    let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
    let old_browser = ["Referer: https://wiki.example/", "Accept: text/html"];
    for headers in [&link[..], &old_browser] {
        for path in ["/dead-letters", "/dead-letters/list", "/dead-letter?id=id-1", "/dead-letters?queue=parked"] {
            let answer = console.request(path, headers, None);
            assert!(answer.status == 200 && answer.body.contains("Read the queue</button>"), "{path}: {answer:?}");
            assert!(!answer.body.contains("id-1</"), "{path}: {answer:?}");
        }
        assert_eq!(console.request("/export", headers, None).status, 403);
    }
    let now = console.request("/", &link, None);
    assert!(!now.body.contains("reading the queue") && !now.body.contains("looking"), "{now:?}");
    // The form of that page opens the dead letter.
    let page = console.request("/dead-letter?id=id-1", &link, None);
    let form = format!("csrf={}&id={}", page.hidden("csrf"), page.hidden("id"));
    let job = console.request("/read", &["Sec-Fetch-Site: same-origin"], Some(&form));
    let job = job.header("location").unwrap().to_owned();
    eventually("it is read", DEADLINE, async || console.get(&job).body.contains("Show it")).await;
    let dead_letter = console.request("/dead-letter?id=id-1", &link, None);
    assert!(
        dead_letter.status == 200 && dead_letter.body.contains("not_an_object"),
        "what is known is shown: {dead_letter:?}"
    );
    // A person who types the address, or follows a link of the console, need not be asked.
    for site in ["none", "same-origin"] {
        let answer = console.request("/dead-letters", &[&format!("Sec-Fetch-Site: {site}")], None);
        assert!(answer.body.contains("3 dead letters"), "{site}: {answer:?}");
    }
    env.clean().await;
}

#[tokio::test]
async fn downloads_that_wait_have_a_limit_and_end_with_who_waits() {
    let env = with_dead_letters(50, 10).await;
    let directory = tempfile::tempdir().unwrap();
    let console = env.console(&with_roles(directory.path())).await;
    let (forecast, _) = console.job("/forecast", &[("expression", ".[0]")], "50</strong> would be accepted").await;
    let forecast = forecast.rsplit('/').next().unwrap();
    for rate in ["1e-30", "0", "-1", "inf", "NaN", "1e300", "x"] {
        let answer = console.post("/replay", &[("forecast", forecast), ("rate", rate)]);
        assert!(answer.status == 400 && answer.body.contains("messages a second"), "{rate}: {answer:?}");
    }
    let (replay, _) = console.job("/replay", &[("forecast", forecast), ("rate", "0.5/s")], "of 50").await;
    let download = || console.send(export_request(&console, "").as_bytes());
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| download()).collect();
    for stream in &mut waiting {
        // The head of the answer comes at once.
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let refused = Answer::read(download());
    assert!(refused.status == 429 && refused.body.contains("Too many downloads"), "{refused:?}");
    drop(waiting);
    eventually("one who goes makes room", DEADLINE, async || {
        let mut head = [0; 12];
        download().read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 200"
    })
    .await;
    console.job(&format!("{replay}/stop"), &[], "the rest is in the queue as it was").await;
    eventually("a download works again", DEADLINE, async || {
        console.get("/export").body.contains("ticketlog-dead-letter/1")
    })
    .await;
    env.clean().await;
}

#[tokio::test]
async fn after_an_upgrade_a_running_console_still_edits() {
    let env = with_dead_letters(3, 10).await;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("ticketlog");
    std::fs::copy(env!("CARGO_BIN_EXE_ticketlog"), &program).unwrap();
    let state = directory.path().join("state");
    let console = env.console_of(program.to_str().unwrap(), &with_roles(&state)).await;
    // As dpkg does: another file takes the name.
    let newer = directory.path().join("newer");
    std::fs::write(&newer, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::rename(&newer, &program).unwrap();
    console.job("/forecast", &[("expression", ".[0]")], "3</strong> would be accepted").await;
    std::fs::remove_file(&program).unwrap();
    console.job("/forecast", &[("expression", ".[0] | .n += 1")], "3</strong> would be accepted").await;
    env.clean().await;
}
