//! A console's token for one publisher (`publisher = "shop"`): on every page and by every action, nothing of others is seen or changed.

use std::path::Path;

use lapin::BasicProperties;
use url::form_urlencoded;

use crate::harness::{Answer, Console, DEADLINE, TestEnv, eventually};

const SHOP: &str = "Authorization: Bearer shop-0123456789abcdef";
const ALL: &str = "Authorization: Bearer anna-0123456789abcdef";

/// Two dead letters of `shop`, three of `other`, one of nobody; each is an array of one event.
async fn with_dead_letters() -> TestEnv {
    let env = TestEnv::new().await;
    let dead_letter = |(publisher, n): (&str, i32)| {
        let headers = env.headers(&format!("{publisher}-{n}"), "not_an_object", n);
        let properties = BasicProperties::default().with_message_id(format!("of-{publisher}-{n}").into());
        let named = if publisher == "nobody" { properties } else { properties.with_app_id(publisher.into()) };
        (format!("[{{\"n\":{n},\"text\":\"BODY-OF-{publisher}\"}}]").into_bytes(), named.with_headers(headers))
    };
    let all = [("other", 1), ("shop", 2), ("other", 3), ("nobody", 4), ("shop", 5), ("other", 6)];
    env.publish_dead_letters(all.map(dead_letter)).await;
    env
}

async fn console(env: &TestEnv, directory: &Path) -> Console {
    let tokens = directory.join("tokens.toml");
    let roles = "roles = [\"view\", \"edit\", \"replay\", \"purge\"]";
    let text = format!(
        "anna = {{ token = \"anna-0123456789abcdef\", {roles} }}\n\
         team = {{ token = \"shop-0123456789abcdef\", {roles}, publisher = \"shop\" }}\n"
    );
    std::fs::write(&tokens, text).unwrap();
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let state = directory.join("state");
    let allowed = ["--allow", "edit,replay,purge", "--state-dir", state.to_str().unwrap()];
    env.console(&[&["--tokens", tokens.to_str().unwrap()][..], &allowed].concat()).await
}

fn get(console: &Console, who: &str, path: &str) -> Answer {
    console.request(path, &[who], None)
}

fn post(console: &Console, who: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    console.request(path, &[who], Some(&form))
}

/// Starts a job, and waits until its page says so; the path of the page, and the page.
async fn job(console: &Console, who: &str, path: &str, fields: &[(&str, &str)], expected: &str) -> (String, Answer) {
    let answer = post(console, who, path, fields);
    let job = answer.header("location").unwrap_or_else(|| panic!("no job: {answer:?}")).to_owned();
    let mut page = get(console, who, &job);
    eventually(&format!("the page of the job says {expected:?}"), DEADLINE, async || {
        page = get(console, who, &job);
        page.body.contains(expected)
    })
    .await;
    (job, page)
}

/// Asserts that nothing of another publisher is in an answer.
fn assert_own(answer: &Answer) {
    for foreign in ["other-", "nobody-", "BODY-OF-other", "BODY-OF-nobody", "6 dead", "of 6", "6</strong>"] {
        assert!(!answer.body.contains(foreign), "{foreign}: {answer:?}");
    }
}

#[tokio::test]
async fn a_limited_token_sees_only_its_own_dead_letters() {
    let env = with_dead_letters().await;
    let directory = tempfile::tempdir().unwrap();
    let console = console(&env, directory.path()).await;
    let start = get(&console, SHOP, "/");
    assert_eq!((start.status, start.header("location")), (303, Some("/dead-letters")));
    for path in ["/now", "/history", "/metrics", "/no-such-page", "/dead-letters/"] {
        assert_eq!(get(&console, SHOP, path).status, 403, "{path}");
    }
    let groups = get(&console, SHOP, "/dead-letters");
    assert!(groups.status == 200 && groups.body.contains("2 dead letters"), "{groups:?}");
    assert!(!groups.body.contains("/history") && !groups.body.contains("in the queue"), "{groups:?}");
    assert_own(&groups);
    // The other one has read the queue, and its pages are in memory.
    assert!(get(&console, ALL, "/dead-letters").body.contains("6 dead letters"));
    assert!(get(&console, ALL, "/dead-letter?id=other-1").body.contains("BODY-OF-other"));
    let list = get(&console, SHOP, "/dead-letters/list");
    assert!(list.body.contains("shop-2") && list.body.contains("shop-5"), "{list:?}");
    assert_own(&list);
    for query in ["reason=not_an_object", "text=BODY", "text=o", "routing_key=%23", "fingerprint=0000000000000001"] {
        for path in ["/dead-letters", "/dead-letters/list", "/export"] {
            assert_own(&get(&console, SHOP, &format!("{path}?{query}")));
        }
    }
    for path in ["/dead-letters", "/dead-letters/list", "/dead-letter", "/export", "/act"] {
        let answer = get(&console, SHOP, &format!("{path}?publisher=other&id=other-1&action=purge"));
        assert_eq!(answer.status, 403, "{path}");
        assert!(!answer.body.contains("BODY"), "{answer:?}");
    }
    let hidden = get(&console, SHOP, "/dead-letters/list?id=other-1");
    assert!(hidden.body.contains("0 dead letters") && !hidden.body.contains("of-other"), "{hidden:?}");
    let own = get(&console, SHOP, "/dead-letter?id=shop-2");
    assert!(own.body.contains("BODY-OF-shop") && !own.body.contains("of the queue"), "{own:?}");
    assert_own(&own);
    let missing = get(&console, SHOP, "/dead-letter?id=missing");
    for id in ["other-1", "other-3", "nobody-4"] {
        let answer = get(&console, SHOP, &format!("/dead-letter?id={id}"));
        assert_eq!((answer.status, &answer.body), (404, &missing.body), "{id}: as if there were none");
    }
    let export = get(&console, SHOP, "/export");
    assert_eq!(export.body.matches("ticketlog-dead-letter/1").count(), 2);
    assert_own(&export);
    let hidden = get(&console, SHOP, "/export?id=other-1&id=nobody-4");
    assert_eq!(hidden.body.matches("ticketlog-dead-letter/1").count(), 0);
    for action in ["replay", "edit", "park", "purge"] {
        let page = get(&console, SHOP, &format!("/act?action={action}"));
        assert!(page.body.contains("2 dead letters"), "{action}: {page:?}");
        assert_own(&page);
    }
    // In a browser, with a session.
    let login = console.request("/login", &[], Some("token=shop-0123456789abcdef"));
    let cookie = format!("Cookie: {}", login.header("set-cookie").unwrap().split(';').next().unwrap());
    assert_eq!(console.request("/history", &[&cookie], None).status, 403);
    let page = console.request("/dead-letters", &[&cookie], None);
    assert!(page.body.contains("team, for shop") && page.body.contains("2 dead letters"), "{page:?}");
    env.clean().await;
}

#[tokio::test]
async fn a_limited_token_changes_only_its_own_dead_letters() {
    let env = with_dead_letters().await;
    let directory = tempfile::tempdir().unwrap();
    let console = console(&env, directory.path()).await;
    let depths = async || [env.depth(&env.dead_letter_queue()).await, env.depth(&env.parked_queue()).await];
    // Jobs of others do not exist.
    let (theirs, _) = job(&console, ALL, "/forecast", &[("expression", ".[0]")], "6</strong> would be accepted").await;
    let forecast = theirs.rsplit('/').next().unwrap();
    for path in [theirs.clone(), format!("{theirs}/events")] {
        assert_eq!(get(&console, SHOP, &path).status, 404, "{path}");
    }
    assert_eq!(post(&console, SHOP, &format!("{theirs}/stop"), &[]).status, 404);
    assert_eq!(post(&console, SHOP, "/replay", &[("forecast", forecast)]).status, 404);
    for path in ["/forecast", "/park", "/unpark", "/purge", "/read", "/validate"] {
        let fields = [("publisher", "other"), ("confirm", &env.dead_letter_queue()), ("body", "{}")];
        assert_eq!(post(&console, SHOP, path, &fields).status, 403, "{path}");
    }
    let read = post(&console, SHOP, "/read", &[]);
    let read = read.header("location").unwrap().to_owned();
    eventually("it is read", DEADLINE, async || {
        let page = get(&console, SHOP, &read);
        assert_own(&page);
        page.body.contains("The queue was read")
    })
    .await;
    let (_, none) = job(&console, SHOP, "/read", &[("id", "other-1")], "not in the queue any more").await;
    assert!(!none.body.contains("BODY-OF"), "{none:?}");
    // Park and unpark.
    job(&console, SHOP, "/park", &[("id", "other-1"), ("id", "nobody-4")], "Back").await;
    assert_eq!(depths().await, [6, 0]);
    let (_, page) = job(&console, SHOP, "/park", &[], "Back").await;
    assert_own(&page);
    eventually("its own are parked", DEADLINE, async || depths().await == [4, 2]).await;
    job(&console, ALL, "/park", &[("id", "other-1")], "Back").await;
    eventually("another one as well", DEADLINE, async || depths().await == [3, 3]).await;
    let parked = get(&console, SHOP, "/dead-letters/list?queue=parked");
    assert_own(&parked);
    job(&console, SHOP, "/unpark", &[("queue", "parked")], "Back").await;
    eventually("its own are back", DEADLINE, async || depths().await == [5, 1]).await;
    // Forecast, edit and replay.
    let fields = [("expression", ".[0]")];
    let (mine, page) = job(&console, SHOP, "/forecast", &fields, "2</strong> would be accepted").await;
    assert!(page.body.contains("BODY-OF-shop"), "{page:?}");
    assert_own(&page);
    assert!(get(&console, ALL, &mine).status == 200);
    let forecast = mine.rsplit('/').next().unwrap();
    job(&console, SHOP, "/replay", &[("forecast", forecast)], "replayed").await;
    eventually("its own are replayed", DEADLINE, async || {
        depths().await == [3, 1] && env.depth(&env.queue()).await == 2
    })
    .await;
    // Delete.
    let confirm = env.dead_letter_queue();
    job(&console, SHOP, "/purge", &[("confirm", &confirm)], "0 dead letters deleted").await;
    job(&console, SHOP, "/purge", &[("confirm", &confirm), ("id", "other-3")], "0 dead letters deleted").await;
    assert_eq!(depths().await, [3, 1]);
    job(&console, ALL, "/purge", &[("confirm", &confirm)], "3 dead letters deleted").await;
    env.clean().await;
}

#[tokio::test]
async fn a_limited_token_finds_only_its_own() {
    let env = with_dead_letters().await;
    env.collection.insert_one(bson::doc! { "uuid": "of-other-1", "text": "BODY-OF-other" }).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let console = console(&env, directory.path()).await;
    let find = async |who: &str, by: &str, text: &str, expected: &str| {
        job(&console, who, "/find", &[("find_by", by), ("find", text)], expected).await.1
    };
    let own = find(SHOP, "message_id", "of-shop-2", "dl-id shop-2").await;
    assert!(own.body.contains("Show the bodies") && !own.body.contains("BODY") && !own.body.contains("wait for"));
    assert_own(&own);
    for (by, text) in [("message_id", "of-other-1"), ("uuid", "of-other-1"), ("message_id", "nothing")] {
        let none = find(SHOP, by, text, "Not found among the dead letters of shop").await;
        assert!(!none.body.contains("MongoDB") && !none.body.contains("undecided"));
    }
    let undecided = find(SHOP, "uuid", "nothing", "may be it").await;
    assert!(undecided.body.contains("shop that could be searched and read."), "{undecided:?}");
    assert_own(&undecided);
    let found = find(ALL, "message_id", "of-other-1", "dl-id other-1").await;
    assert!(found.body.contains("documents do not have the message_id"), "{found:?}");
    let stored = find(ALL, "uuid", "of-other-1", "stored in log").await;
    assert!(!stored.body.contains("BODY") && stored.body.contains("6 dead letters may be it"), "{stored:?}");
    let fields = [("find_by", "uuid"), ("find", "of-other-1"), ("bodies", "1")];
    let (page, bodies) = job(&console, ALL, "/find", &fields, "BODY-OF-other").await;
    assert!(!bodies.body.contains("Show the bodies"));
    assert_eq!(get(&console, SHOP, &page).status, 404, "a search of somebody else");
    assert_eq!(post(&console, ALL, "/find", &[("find_by", "id"), ("find", "12")]).status, 400);
    env.channel.queue_delete(env.parked_queue().into(), Default::default()).await.unwrap();
    let half = find(SHOP, "message_id", "nothing", "could not be searched: queue").await;
    assert!(half.body.contains("shop that could be searched and read."), "{half:?}");
    assert_eq!(env.depth(&env.dead_letter_queue()).await, 6);
    env.clean().await;
}
