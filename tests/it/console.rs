//! `ticketlog console` over HTTP, with real servers: who may do what, hostile dead letters, and that every operation does what
//! `ticketlog dead` does. `make console-test` uses a real browser.

use std::path::Path;

use lapin::BasicProperties;

use crate::harness::{DEADLINE, TestEnv, eventually};

const HOSTILE: &str = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>";

/// Publishes dead letters whose bodies are arrays with one event, and one with hostile texts everywhere.
async fn with_dead_letters(count: i32) -> TestEnv {
    let env = TestEnv::new().await;
    let array = |n: i32| {
        let headers = env.headers(&format!("id-{n}"), "not_an_object", n);
        let body = format!("[{{\"n\":{n},\"user_id\":{},\"text\":\"operation {n}\",\"status\":\"success\"}}]", n % 97);
        (body.into_bytes(), BasicProperties::default().with_message_id(format!("m-{n}").into()).with_headers(headers))
    };
    env.publish_dead_letters((0..count).map(array)).await;
    let mut headers = env.headers(HOSTILE, "too_deep", 5).inner().clone();
    for name in ["dl-detail", "dl-routing-key", "dl-field", "dl-worker", "x-<b>"] {
        headers.insert(name.into(), lapin::types::AMQPValue::LongString(HOSTILE.into()));
    }
    let hostile = BasicProperties::default().with_message_id(HOSTILE.into()).with_app_id(HOSTILE.into());
    let body = format!("{{\"{}\":1}}", HOSTILE.replace('"', "'")).into_bytes();
    env.publish_dead_letters([(body, hostile.with_headers(headers.into()))]).await;
    env
}

fn all_roles(directory: &Path) -> [&str; 4] {
    ["--allow", "replay,edit,purge", "--state-dir", directory.to_str().unwrap()]
}

#[tokio::test]
async fn it_shows_hostile_dead_letters_harmlessly_and_changes_nothing_unless_allowed() {
    let env = with_dead_letters(30).await;
    let console = env.console(&[]).await;
    let id = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect::<String>();
    for path in [
        "/",
        "/dead-letters",
        "/dead-letters/list",
        &format!("/dead-letter?id={id}"),
        &format!("/dead-letters?text={id}"),
        "/history",
    ] {
        let answer = console.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.body.contains("<script>alert") && !answer.body.contains("<img"), "{path}: {}", answer.body);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    let groups = console.get("/dead-letters").body;
    assert!(groups.contains("31 dead letters") && groups.contains("&lt;script&gt;alert(1)"), "{groups}");
    assert!(!groups.contains("Replay…") && groups.contains("Export"), "{groups}");
    for (path, fields) in [
        ("/forecast", vec![]),
        ("/forecast", vec![("expression", ".")]),
        ("/park", vec![]),
        ("/unpark", vec![("queue", "parked")]),
        ("/purge", vec![("confirm", env.dead_letter_queue().leak() as &str)]),
        ("/validate", vec![("body", "{}")]),
    ] {
        let answer = console.post(path, &fields);
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    for (path, status) in [
        ("/dead-letters?reason=nothing", 400),
        ("/dead-letter?id=unknown", 200),
        ("/jobs/../history", 404),
        ("/static/../../etc/passwd", 404),
        ("/static/%2e%2e%2fCargo.toml", 404),
        ("/jobs/unknown", 404),
        ("/dead-letter", 400),
    ] {
        let answer = console.get(path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 31);
    let export = console.get("/export?reason=not_an_object");
    assert_eq!(export.body.matches("ticketlog-dead-letter/1").count(), 30, "{export:?}");
    assert!(!console.log().contains("alert(1)") && !console.log().contains("operation 1"), "{}", console.log());
    env.clean().await;
}

#[tokio::test]
async fn only_requests_of_its_own_pages_are_admitted() {
    let env = with_dead_letters(1).await;
    let directory = tempfile::tempdir().unwrap();
    let console = env.console(&all_roles(directory.path())).await;
    let csrf = console.get("/dead-letters").hidden("csrf");
    let form = format!("csrf={csrf}");
    let origin = format!("Origin: http://{}", console.address());
    for (headers, body, status) in [
        // DNS rebinding.
        (vec!["Host: evil.example"], None, 421),
        (vec!["Host: 127.0.0.1.evil.example"], None, 421),
        // Forms of other sites, and forms without the token.
        (vec!["Origin: http://evil.example"], Some(form.as_str()), 403),
        (vec!["Origin: null"], Some(form.as_str()), 403),
        (vec!["Sec-Fetch-Site: cross-site"], Some(form.as_str()), 403),
        (vec![], Some(""), 403),
        (vec![], Some("csrf=0"), 403),
        (vec![origin.as_str(), "Sec-Fetch-Site: same-origin"], Some(form.as_str()), 303),
    ] {
        let answer = console.request(if body.is_some() { "/park" } else { "/dead-letters" }, &headers, body);
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
    assert_eq!(console.get("/park").status, 405);
    let image = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"];
    assert_eq!(console.request("/dead-letters", &image, None).status, 403);
    // A selection that is blank or mistyped would be everything.
    for fields in [("id", ""), ("ids", "a"), ("reason", " ")] {
        assert_eq!(console.post("/park", &[fields]).status, 400, "{fields:?}");
    }
    assert_eq!(console.post("/forecast", &[("expression", " ")]).status, 400);
    let deep = console.post("/forecast", &[("expression", &"[".repeat(60_000))]);
    assert!(deep.status == 422 && deep.body.contains("nests too deep"), "{deep:?}");
    env.clean().await;
}

#[tokio::test]
async fn a_token_gives_its_roles_and_no_more() {
    let env = with_dead_letters(3).await;
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens.toml");
    let text = "anna = { token = \"anna-0123456789abcdef\", roles = [\"view\", \"replay\", \"purge\"] }\n\
                otto = { token = \"otto-0123456789abcdef\", roles = [\"view\"] }\n";
    std::fs::write(&tokens, text).unwrap();
    let mode = |mode| std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o600);
    let state = directory.path().join("state");
    let arguments = ["--tokens", tokens.to_str().unwrap(), "--allow", "replay", "--state-dir", state.to_str().unwrap()];
    let console = env.console(&arguments).await;
    let to_login = console.request("/dead-letters", &["Accept: text/html"], None);
    assert_eq!((to_login.status, to_login.header("location")), (303, Some("/login")));
    assert_eq!(["/dead-letters", "/livez", "/readyz"].map(|path| console.get(path).status), [401, 200, 200]);
    assert_eq!(console.request("/login", &[], Some("token=wrong")).status, 401);
    let log_in = |token: &str| {
        let answer = console.request("/login", &[], Some(&format!("token={token}")));
        let cookie = answer.header("set-cookie").unwrap().to_owned();
        assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
        format!("Cookie: {}", cookie.split(';').next().unwrap())
    };
    let (anna, otto) = (log_in("anna-0123456789abcdef"), log_in("otto-0123456789abcdef"));
    let page = console.request("/dead-letters", &[&anna], None);
    assert!(page.body.contains("Replay…") && !page.body.contains("Delete…"), "{page:?}");
    let as_otto = console.request("/dead-letters", &[&otto], None);
    assert!(as_otto.status == 200 && !as_otto.body.contains("Replay…"), "{as_otto:?}");
    let form = format!("csrf={}", page.hidden("csrf"));
    assert_eq!(console.request("/park", &[&otto], Some(&form)).status, 403, "a token of another session");
    let own = format!("csrf={}", as_otto.hidden("csrf"));
    assert_eq!(console.request("/park", &[&otto], Some(&own)).status, 403, "no such role");
    let confirm = format!("{form}&confirm={}", env.dead_letter_queue());
    assert_eq!(console.request("/purge", &[&anna], Some(&confirm)).status, 403, "the console does not allow it");
    let bearer = ["Authorization: Bearer anna-0123456789abcdef"];
    assert_eq!(console.request("/park", &bearer, Some("")).status, 303, "a program needs no form");
    env.wait_for_depth(&env.parked_queue(), 4).await;
    // A token that is revoked while the console runs ends its sessions.
    std::fs::write(&tokens, text.lines().next().unwrap()).unwrap();
    let logins = [&anna, &otto].map(|cookie| console.request("/dead-letters", &[cookie], None).status);
    assert_eq!(logins, [200, 401]);
    assert_eq!(console.request("/logout", &[&anna], Some(&form)).status, 303);
    assert_eq!(console.request("/dead-letters", &[&anna], None).status, 401);
    assert!(!console.log().contains("0123456789abcdef"), "{}", console.log());
    env.clean().await;
}

#[tokio::test]
async fn a_console_without_its_queue_is_alive_and_not_ready() {
    let env = with_dead_letters(1).await;
    let console = env.console(&["--set", "dead_letter.queue=nobody-has-declared-this"]).await;
    let ready = console.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("queue is missing"), "{ready:?}");
    assert_eq!(console.get("/livez").status, 200);
    let health = |flags: &[&str]| {
        let url = format!("http://{}", console.address());
        let output = env.operator_command().args(["health", "--url", &url]).args(flags).output().unwrap();
        output.status.code()
    };
    assert_eq!([health(&[]), health(&["--ready"])], [Some(0), Some(1)]);
    env.clean().await;
}

#[tokio::test]
async fn what_an_expression_corrects_is_stored_and_the_rest_stays() {
    let env = with_dead_letters(40).await;
    let worker = env.worker().await;
    let directory = tempfile::tempdir().unwrap();
    let address = format!("http://{}", worker.address());
    let console = env.console(&[&all_roles(directory.path())[..], &["--worker", &address]].concat()).await;
    console.get("/dead-letters");
    let wrong = console.post("/forecast", &[("expression", ".[0")]);
    assert!(wrong.status == 422 && wrong.body.contains("wrong at character 4"), "{wrong:?}");
    let expression = "if .[0].n < 10 then error(\"too small\") else .[0] end";
    let fields = [("reason", "not_an_object"), ("expression", expression)];
    let (job, forecast) = console.job("/forecast", &fields, "The first 10").await;
    let text = &forecast.body;
    assert!(text.contains("<strong>30</strong> would be accepted") && text.contains("too small"), "{text}");
    let job = job.rsplit('/').next().unwrap();
    let (_, replayed) = console.job("/replay", &[("forecast", job)], "30</strong> stored").await;
    assert!(replayed.body.contains("import"), "the originals are kept: {}", replayed.body);
    let query = replayed.body.split("ObjectId(&quot;").skip(1).map(|rest| rest.split('&').next().unwrap());
    let ids: Vec<_> = query.map(|id| bson::oid::ObjectId::parse_str(id).unwrap()).collect();
    let found = env.collection.count_documents(bson::doc! { "_id": { "$in": &ids } }).await.unwrap();
    assert_eq!((ids.len(), found), (30, 30), "{}", replayed.body);
    assert_eq!((env.count().await, env.depth(&env.dead_letter_queue()).await), (30, 11));
    let one = [("id", "id-3"), ("body", "{\"n\":3,\r\n\"user_id\":5}")];
    let valid = console.post("/validate", &one);
    assert!(valid.body.contains("The worker would store this"), "{valid:?}");
    let (job, _) = console.job("/forecast", &one, "Replay 1").await;
    console.job("/replay", &[("forecast", job.rsplit('/').next().unwrap())], "1</strong> stored").await;
    assert_eq!(env.count().await, 31);
    let now = console.get("/").body;
    assert!(now.contains("Ledger: 31 received = 31 stored + 0 stored before"), "{now}");
    let history = console.get("/history").body;
    assert!(history.matches("<strong class=\"good\">done</strong>").count() == 2, "{history}");
    let mut originals = 0;
    for file in std::fs::read_dir(directory.path()).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        originals += text.matches("ticketlog-dead-letter/1").count();
    }
    assert_eq!(originals, 31);
    env.clean().await;
}

#[tokio::test]
async fn dead_letters_are_parked_and_deleted_with_a_backup_and_come_back() {
    let env = with_dead_letters(20).await;
    let directory = tempfile::tempdir().unwrap();
    let console = env.console(&all_roles(directory.path())).await;
    console.job("/park", &[("reason", "too_deep")], "1 dead letter moved").await;
    console.get("/dead-letters?queue=parked");
    let refused = console.post("/forecast", &[("queue", "parked")]);
    assert!(refused.status == 400 && refused.body.contains("unpark them first"), "{refused:?}");
    console.job("/unpark", &[("queue", "parked")], "1 dead letter moved").await;
    env.wait_for_depth(&env.dead_letter_queue(), 21).await;
    // Whatever arrives meanwhile, no more are deleted than the page shows.
    console.job("/read", &[], "21 dead letters").await;
    let asked = console.get("/act?action=purge&reason=not_an_object").body;
    assert!(asked.contains("20 dead letters") && asked.contains("value=\"20\""), "{asked}");
    let wrong = console.post("/purge", &[("confirm", "another")]);
    assert!(wrong.status == 422 && wrong.body.contains("Nothing was deleted"), "{wrong:?}");
    let queue = env.dead_letter_queue();
    let fields = [("reason", "not_an_object"), ("limit", "15"), ("confirm", queue.as_str())];
    console.job("/purge", &fields, "15 dead letters deleted").await;
    env.wait_for_depth(&queue, 6).await;
    let files = std::fs::read_dir(directory.path()).unwrap().flatten().map(|file| file.path());
    let backup = files.into_iter().find(|path| !path.ends_with("history.ndjson")).unwrap();
    env.dead_command_succeeds(&["import", backup.to_str().unwrap()]).await;
    env.wait_for_depth(&queue, 21).await;
    eventually("the list shows the change", DEADLINE, async || {
        console.post("/read", &[]);
        console.get("/dead-letters").body.contains("21 dead letters")
    })
    .await;
    env.clean().await;
}

#[tokio::test]
async fn a_console_killed_in_the_middle_of_a_replay_loses_nothing() {
    let env = with_dead_letters(200).await;
    let worker = env.worker().await;
    let directory = tempfile::tempdir().unwrap();
    let arguments = all_roles(directory.path());
    let mut console = env.console(&arguments).await;
    let fields = [("reason", "not_an_object"), ("expression", ".[0]")];
    let (job, _) = console.job("/forecast", &fields, "200</strong> would be accepted").await;
    let fields = [("forecast", job.rsplit('/').next().unwrap()), ("rate", "100")];
    console.post("/replay", &fields);
    eventually("some are replayed", DEADLINE, async || env.count().await >= 40).await;
    console.kill();
    env.dead_command_succeeds(&["stats"]).await;
    let again = env.console(&arguments).await;
    let history = again.get("/history").body;
    assert!(history.contains("interrupted: its end is not known"), "{history}");
    let fields = [("reason", "not_an_object"), ("expression", ".[0]")];
    let (job, _) = again.job("/forecast", &fields, "would be accepted").await;
    again.job("/replay", &[("forecast", job.rsplit('/').next().unwrap())], "replayed in").await;
    eventually("all are stored", DEADLINE, async || env.count().await == 200).await;
    env.assert_exactly(200).await;
    env.wait_for_depth(&env.dead_letter_queue(), 1).await;
    drop(worker);
    env.clean().await;
}

#[tokio::test]
async fn whoever_waits_sees_who_is_first_and_both_can_be_stopped() {
    let env = with_dead_letters(100).await;
    let directory = tempfile::tempdir().unwrap();
    let console = env.console(&all_roles(directory.path())).await;
    let fields = [("reason", "not_an_object"), ("expression", ".[0]")];
    let (forecast, _) = console.job("/forecast", &fields, "100</strong> would be accepted").await;
    let fields = [("forecast", forecast.rsplit('/').next().unwrap()), ("rate", "5")];
    let (replay, _) = console.job("/replay", &fields, "of 100").await;
    let again = console.post("/replay", &fields);
    assert_eq!(again.header("location"), Some(replay.as_str()), "a second press joins the replay: {again:?}");
    let (read, waiting) = console.job("/read", &[], "Waiting: ").await;
    assert!(waiting.body.contains("is replaying") && waiting.body.contains("Stop"), "{waiting:?}");
    console.job(&format!("{read}/stop"), &[], "It failed: </strong>it was stopped").await;
    assert!(console.get(&replay).body.contains("of 100"), "the replay goes on");
    eventually("some are replayed", DEADLINE, async || env.depth(&env.queue()).await > 0).await;
    console.job(&format!("{replay}/stop"), &[], "the rest is in the queue as it was").await;
    let stopped = console.get(&replay).body;
    assert!(stopped.contains("replayed in"), "{stopped}");
    let history = console.get("/history").body;
    assert_eq!(history.matches("\"What\">replay ").count(), 1, "{history}");
    let left = env.depth(&env.dead_letter_queue()).await;
    assert!((2..101).contains(&left), "{left} left");
    console.post("/read", &[]);
    eventually("the list shows what is left", DEADLINE, async || {
        console.get("/dead-letters").body.contains(&format!("{left} dead letters"))
    })
    .await;
    env.clean().await;
}
