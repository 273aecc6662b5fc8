//! The logins of deploy/, with the shipped files: each is enough for its task, and what it may not do names the login that may.

use bson::{Document, doc};

use crate::harness::{CommandOutput, DEADLINE, access_control, eventually};

/// `ticketlog setup` needs the administrators' logins, and says so with any other.
#[tokio::test]
async fn the_shipped_administrators_login_can_run_setup() {
    let broker = access_control::broker_with_logins();
    let (store, client) = access_control::store().await;
    access_control::roles(&client, "cache", "bytemark_tickets_log").await;
    let broker_of = |user: &str| broker.uri().replace("guest:guest", &format!("{user}:{user}-secret"));
    let store_of = |role: &str| access_control::as_user(&store, role, "cache");
    let worker = [("BROKER__URI", broker_of("ticketlog")), ("STORE__URI", store_of("ticketlogWorker"))];
    let run = |arguments: &[&str], operator: &[(&str, String)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let settings = worker.iter().chain(operator).map(|(key, value)| (format!("TICKETLOG_{key}"), value));
        let output = command.env_remove("RUST_MIN_STACK").args(arguments).envs(settings).output().unwrap();
        CommandOutput::from(output)
    };
    let operator =
        |user: &str, role: &str| [("OPERATOR__BROKER_URI", broker_of(user)), ("OPERATOR__STORE_URI", store_of(role))];
    let as_worker = run(&["setup"], &[]);
    assert!(as_worker.code == Some(77) && as_worker.err.contains("ticketlog-admin"), "{as_worker:?}");
    assert!(as_worker.err.contains("uses the logins of broker.uri for RabbitMQ"), "{as_worker:?}");
    let as_reader = run(&["setup"], &operator("ticketlog-admin", "ticketlogReader"));
    assert!(as_reader.code == Some(77) && as_reader.err.contains("ticketlogSetup"), "{as_reader:?}");
    assert!(as_reader.err.contains("the user of operator.store_uri is not authorized (code 13)"), "{as_reader:?}");
    let route = ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config/ticket-refresh-log.toml")];
    for arguments in [&["setup"][..], &["setup", route[0], route[1]]] {
        let output = run(arguments, &operator("ticketlog-admin", "ticketlogSetup"));
        assert_eq!((output.code, output.err.as_str()), (Some(0), ""), "{output:?}");
    }
    let collection = client.database("cache").collection::<Document>("bytemark_ticket_refresh_log");
    assert_eq!(collection.list_index_names().await.unwrap().len(), 5);
    // What setup declares is what deploy/ imports: RabbitMQ would keep and `check` would report a difference.
    access_control::import(&broker, "definitions.json");
    let desk = operator("ticketlog-desk", "ticketlogEraser");
    let check = run(&["check", "--operator"], &desk);
    assert!(check.code == Some(0), "{check:?}");
    let stats = run(&["dead", "stats", "--json"], &desk);
    assert_eq!(stats.code, Some(0), "{stats:?}");
    let refused = run(&["check", "--operator"], &operator("tickets-publisher", "ticketlogReader"));
    let advice = "use the operators' login of deploy/rabbitmq (operator.broker_uri)";
    assert!(refused.code == Some(69) && refused.out.contains(advice), "{refused:?}");
}

#[tokio::test]
async fn the_shipped_permissions_are_enough_for_worker_operator_and_publisher() {
    let broker = access_control::broker_with_topology();
    let database = "permissions";
    let (store, client) = access_control::store().await;
    access_control::roles(&client, database, "log").await;
    let worker_store = access_control::as_user(&store, "ticketlogWorker", database);
    let login = |user: &str| broker.uri().replace("guest:guest", &format!("{user}:{user}-secret"));
    let command = |user: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let settings = [("STORE__DATABASE", database), ("STORE__COLLECTION", "log"), ("BROKER__DECLARE", "false")];
        for (key, value) in settings.into_iter().chain([
            ("BROKER__URI", login(user).as_str()),
            ("STORE__URI", &worker_store),
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("DEAD_LETTER__OPERATORS", "ticketlog-desk"),
            ("DEAD_LETTER__RECEIPTS", "bytemark.tickets.receipts"),
        ]) {
            command.env(format!("TICKETLOG_{key}"), value);
        }
        command.env_remove("RUST_MIN_STACK").args(arguments);
        command
    };
    let output = |user: &str, arguments: &[&str]| CommandOutput::from(command(user, arguments).output().unwrap());
    let worker = crate::harness::Worker::start(command("ticketlog", &[])).await;
    worker.wait_until_ready().await;
    let published = output("tickets-publisher", &["publish", "--generate", "500", "--malformed", "4", "--seed", "5"]);
    assert_eq!(published.code, Some(0), "{published:?}");
    eventually("everything has an outcome", DEADLINE, async || {
        worker.settled("stored") + worker.settled("dead_lettered") == 500
    })
    .await;
    eventually("receipts are sent", DEADLINE, async || {
        worker.metrics()["ticketlog_receipts_total{outcome=\"sent\"}"] as u64 == worker.settled("dead_lettered")
    })
    .await;
    let collection = client.database(database).collection::<Document>("log");
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), worker.settled("stored"));
    eventually("the indexes exist", DEADLINE, async || collection.list_index_names().await.unwrap().len() == 5).await;
    let stats = output("ticketlog-desk", &["dead", "stats", "--json"]);
    assert_eq!(stats.code, Some(0), "{stats:?}");
    let dead = worker.settled("dead_lettered");
    let replay = output(
        "ticketlog-desk",
        &["dead", "replay", "--yes", "--limit", "3", "--follow", "--status", &format!("http://{}", worker.address())],
    );
    assert_eq!(replay.code, Some(65), "{replay:?}");
    eventually("the replayed messages are dead letters again", DEADLINE, async || {
        worker.settled("dead_lettered") == dead + 3
    })
    .await;
    eventually("queue depths are exported", DEADLINE, async || {
        worker.metrics()["ticketlog_queue_messages{role=\"dead_letter\"}"] == dead as f64
    })
    .await;
    let report = output("ticketlog", &["check"]);
    assert_eq!(report.code, Some(0), "{report:?}");
    // What each user may not do.
    assert_eq!(output("ticketlog", &["publish", "--generate", "1"]).code, Some(77));
    assert_eq!(output("ticketlog", &["dead", "stats"]).code, Some(77));
    assert_eq!(output("tickets-publisher", &["dead", "stats"]).code, Some(77));
    let rejected = output("tickets-publisher", &["check"]);
    assert_eq!(rejected.code, Some(69), "{rejected:?}");
    assert!(rejected.out.contains("fail  broker.queue") && rejected.out.contains("may not read"), "{}", rejected.out);
}
