//! Tests of the layers together.

use std::io::Write;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use ticketlog_contract::Rules;

pub(super) fn with_file(text: &str) -> Result<RouteSettings, String> {
    with_file_bytes(text.as_bytes())
}

fn with_file_bytes(text: &[u8]) -> Result<RouteSettings, String> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text).unwrap();
    let sources = Sources { files: vec![file.path().to_owned()], ..Sources::default() };
    load(&sources)
        .map(|mut loaded| loaded.routes.remove(0))
        .map_err(|error| error.to_string().replace(file.path().to_str().unwrap(), "FILE"))
}

pub(super) fn with_env(variables: &[(&str, &str)]) -> Result<RouteSettings, String> {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { environment, ..Sources::default() })
        .map(|mut loaded| loaded.routes.remove(0))
        .map_err(|error| error.to_string())
}

#[test]
fn the_database_of_the_uri_is_used_unless_one_is_set() {
    let database = |text: &str| load_text("f", text).unwrap().settings.store.database.clone();
    assert_eq!(database("[store]\nuri = \"mongodb://127.0.0.1/tickets\"\n"), "tickets");
    assert_eq!(database("[store]\nuri = \"mongodb://127.0.0.1/admin\"\n"), "cache");
    assert_eq!(database("[store]\nuri = \"mongodb://127.0.0.1/tickets\"\ndatabase = \"other\"\n"), "other");
}

#[test]
fn the_defaults_are_valid_and_give_the_default_rules() {
    let settings = load(&Sources::default()).unwrap().routes.remove(0);
    let mut fields = settings.rules().fields;
    let mut expected = Rules::default().fields;
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(fields, expected);
    assert_eq!(settings.rules().max_bytes, Rules::default().max_bytes);
    assert_eq!(settings.rules().max_depth, Rules::default().max_depth);
}

#[test]
fn the_example_configuration_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/ticket-refresh-log.toml");
    let routes = load(&Sources { files: vec![path.into()], ..Sources::default() }).unwrap().routes;
    let route = routes.iter().find(|route| route.name == "ticket_refresh").unwrap();
    assert_eq!(route.collection, "bytemark_ticket_refresh_log");
}

#[test]
fn later_layers_win() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(
        b"[broker]\nprefetch = 4000\nqueue = \"file\"\nrouting_keys = [\"a\"]\n[batch]\nmax_bytes = 1000000\n",
    )
    .unwrap();
    let sources = Sources {
        files: vec![file.path().to_owned()],
        environment: vec![
            ("TICKETLOG_BROKER__QUEUE".into(), "12345678".into()),
            ("TICKETLOG_BROKER__ROUTING_KEYS".into(), "x.#, y.*".into()),
            ("TICKETLOG_BROKER__DECLARE".into(), "false".into()),
            ("TICKETLOG_DEAD_LETTER__MAX_RATIO".into(), "1.0".into()),
            ("TICKETLOG_EVENT__FIELDS".into(), "{ n = { type = \"number\", required = true } }".into()),
            ("TICKETLOG_PORT".into(), "tcp://10.0.0.1:80".into()),
        ],
        flags: vec![("--prefetch".into(), "broker".into(), "prefetch".into(), "4200".into())],
        ..Sources::default()
    };
    let loaded = load(&sources).unwrap();
    let settings = &loaded.routes[0];
    let prefetch = loaded.effective.iter().find(|entry| entry.key == "prefetch").unwrap();
    assert_eq!(prefetch.source, Source::Flag("--prefetch".into()));
    assert_eq!((settings.broker.prefetch, settings.queue.as_str()), (4200, "12345678"));
    assert_eq!(settings.routing_keys, ["x.#", "y.*"]);
    assert!(!settings.broker.declare);
    assert_eq!(settings.batch.max_bytes, Size(1_000_000));
    assert_eq!(settings.rules().fields.len(), 1);
    assert!(settings.rules().fields[0].required);
}

#[test]
fn a_secret_can_come_from_a_file_and_is_not_shown() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"amqps://u:s3cret@h:5672/v\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = with_env(&[("TICKETLOG_BROKER__URI_FILE", path)]).unwrap();
    assert_eq!(settings.broker.uri.expose_secret(), "amqps://u:s3cret@h:5672/v");
    assert!(!format!("{settings:?}").contains("s3cret"));
    assert_eq!(redacted("amqp://u:s3cret@h:5672/v"), "amqp://u:***@h:5672/v");
    assert_eq!(redacted("mongodb://u:p@ss@h/d?authSource=admin&x=s3"), "mongodb://u:***@h/d?authSource=***&***");
    assert_eq!(redacted("amqp://h"), "amqp://h");
    assert_eq!(redacted("s3cret"), "***");
    file.as_file().set_len(0).unwrap();
    std::fs::write(file.path(), "a long s3cret key\n").unwrap();
    let environment = [("TICKETLOG_EVENT__MASK_KEY_FILE", path), ("TICKETLOG_EVENT__MASK", "card, payment.card")];
    let rules = with_env(&environment).unwrap().rules();
    assert_eq!((rules.mask_key.0.as_slice(), rules.hidden_fields.len()), (&b"a long s3cret key"[..], 2));
}

#[test]
fn the_uri_of_a_cluster_gives_an_address_for_each_node() {
    assert_eq!(
        broker_addresses("amqps://u:p@a:1,b:2, c/v?x=1"),
        ["amqps://u:p@a:1/v?x=1", "amqps://u:p@b:2/v?x=1", "amqps://u:p@c/v?x=1"]
    );
    assert_eq!(broker_addresses("amqp://h"), ["amqp://h"]);
}

#[test]
fn what_is_no_path_of_a_field_cannot_be_hidden() {
    let fault = |path: &str| {
        let error = load_text("f", &format!("[event]\ndrop = [{path:?}]\nmask_key = \"0123456789abcdef\"\n")).err()?;
        Some(error.to_string())
    };
    for path in [
        "items.0.card",
        "0",
        "payment.*",
        "*",
        "items[].card",
        "items[0].card",
        "$.x",
        "$",
        "a.$.b",
        "/payment/card",
        " card",
    ]
    .into_iter()
    .chain(["card ", "a. b", "_id", "_id.x", "", ".", "a.", "\"card\"", "'card'", "[\"card\"", "a\\.b"])
    {
        let error = fault(path).unwrap_or_else(|| panic!("{path} is accepted"));
        assert!(error.starts_with("f, line 2: event.drop has ") && error.contains(&format!("{path:?}")), "{error}");
    }
    for path in ["card", "payment.card", "x2.card3", "$oid", "a-b.c_d", "größe", "it's", "a b", "@type"] {
        assert_eq!(fault(path), None, "{path}");
    }
    insta::assert_snapshot!(fault("items.0.card").unwrap(), @r#"f, line 2: event.drop has "items.0.card", which has a number; the elements of an array have none here: items.card means each of them"#);
    insta::assert_snapshot!(fault("payment.*").unwrap(), @r#"f, line 2: event.drop has "payment.*", which is a pattern; write the names of the keys with dots, such as items.card, which also means each object in an array"#);
}

#[test]
fn a_list_in_the_form_of_toml_is_a_list_in_every_layer() {
    let lists = |text: &str| -> Vec<Vec<String>> {
        let key = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment =
            ["TICKETLOG_EVENT__DROP", "TICKETLOG_BROKER__ROUTING_KEYS", "TICKETLOG_DEAD_LETTER__OPERATORS"];
        let mask_key = key("TICKETLOG_EVENT__MASK_KEY", "0123456789abcdef");
        let environment = environment.iter().map(|name| key(name, text)).chain([mask_key.clone()]).collect();
        let flag = |section: &str, key: &str| ("--set".to_owned(), section.to_owned(), key.to_owned(), text.to_owned());
        let flags = vec![flag("event", "drop"), flag("broker", "routing_keys"), flag("dead_letter", "operators")];
        let from_environment = load(&Sources { environment, ..Sources::default() }).unwrap().routes;
        let from_flags = load(&Sources { flags, environment: vec![mask_key], ..Sources::default() }).unwrap().routes;
        [&from_environment[0], &from_flags[0]]
            .into_iter()
            .flat_map(|settings| [&settings.event.drop, &settings.routing_keys, &settings.dead_letter.operators])
            .cloned()
            .collect()
    };
    for text in ["a.b,c", " a.b, c ", "['a.b', \"c\"]", " [ \"a.b\",\n\"c\", ] ", "\"a.b\",\"c\"", "'a.b', 'c'"] {
        assert!(lists(text).iter().all(|list| list == &["a.b", "c"]), "{text}: {:?}", lists(text));
    }
    insta::assert_snapshot!(with_env(&[("TICKETLOG_EVENT__DROP", "[\"a.b\"")]).unwrap_err(), @r#"environment variable TICKETLOG_EVENT__DROP: event.drop has a wrong value: invalid type: string "[\"a.b\"", expected a list such as a,b or ["a", "b"]"#);
    insta::assert_snapshot!(with_env(&[("TICKETLOG_BROKER__ROUTING_KEYS", "[1]")]).unwrap_err(), @"environment variable TICKETLOG_BROKER__ROUTING_KEYS: broker.routing_keys has a wrong value: invalid type: integer `1`, expected a string");
}

#[test]
fn a_variable_that_is_no_setting_is_named() {
    let loaded = |names: &[&str]| {
        let environment = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let other_variables = vec!["TICKETLOG_CONFIG".to_owned(), "TICKETLOG_CONSOLE_ALLOW".to_owned()];
        load(&Sources { environment, other_variables, ..Sources::default() }).map_err(|error| error.to_string())
    };
    let mistyped = [
        "TICKETLOG_EVENT_DROP",
        "TICKETLOG_DEAD_LETTER_MAX_RATIO",
        "TICKETLOG_BROKER_URI_FILE",
        "TICKETLOG_STOREURI",
        "TICKETLOG_CONFIGS",
        "ticketlog_store__uri",
    ];
    let errors: Vec<_> = mistyped.iter().map(|name| loaded(&[name]).unwrap_err()).collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    environment variable TICKETLOG_EVENT_DROP: is not a setting; did you mean TICKETLOG_EVENT__DROP?
    environment variable TICKETLOG_DEAD_LETTER_MAX_RATIO: is not a setting; did you mean TICKETLOG_DEAD_LETTER__MAX_RATIO?
    environment variable TICKETLOG_BROKER_URI_FILE: is not a setting; did you mean TICKETLOG_BROKER__URI_FILE?
    environment variable TICKETLOG_STOREURI: is not a setting; did you mean TICKETLOG_STORE__URI?
    environment variable TICKETLOG_CONFIGS: is not a setting; did you mean TICKETLOG_CONFIG?
    environment variable ticketlog_store__uri: is not a setting; did you mean TICKETLOG_STORE__URI?
    ");
    let ignored = loaded(&["TICKETLOG_MONGODB_URI", "TICKETLOG_", "TICKETLOGGER", "PATH"]).unwrap().ignored_variables;
    assert_eq!(ignored, ["TICKETLOG_MONGODB_URI", "TICKETLOG_"]);
    // Other uses of such names: flags, the scripts of this project, and the services of Kubernetes.
    let known = [
        "TICKETLOG_CONFIG",
        "TICKETLOG_CONSOLE_ALLOW",
        "TICKETLOG_SERVICES",
        "TICKETLOG_RABBITMQ_PASSWORD",
        "TICKETLOG_SERVICE_HOST",
        "TICKETLOG_SERVICE_PORT",
        "TICKETLOG_SERVICE_PORT_METRICS",
        "TICKETLOG_PORT",
        "TICKETLOG_PORT_9464_TCP",
        "TICKETLOG_PORT_9464_TCP_ADDR",
        "TICKETLOG_CONSOLE_SERVICE_HOST",
        "TICKETLOG_CONSOLE_PORT_9465_TCP_PROTO",
    ];
    assert!(loaded(&known).unwrap().ignored_variables.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The default file with replaced bytes, removed lines and repeated lines gives settings, or errors that name the file.
    #[test]
    fn no_file_causes_a_panic(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        lines in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4),
    ) {
        let mut text: Vec<String> = include_str!("../../../config/default.toml").lines().map(str::to_owned).collect();
        for (at, twice) in lines {
            let at = at.index(text.len());
            if twice { text.insert(at, text[at].clone()) } else { drop(text.remove(at)) }
        }
        let mut text = text.join("\n").into_bytes();
        for (at, byte) in bytes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Err(errors) = with_file_bytes(&text) {
            prop_assert!(errors.contains("FILE"), "{}", errors);
        }
    }

    #[test]
    fn no_environment_causes_a_panic(section in "[A-Z_]{1,12}", key in "[A-Z_]{1,20}", value in any::<String>()) {
        let _ = with_env(&[(&format!("TICKETLOG_{section}__{key}"), &value)]);
        for key in ["BROKER__URI", "STORE__URI", "BROKER__PREFETCH", "EVENT__FIELDS", "BATCH__LINGER", "HTTP__LISTEN"] {
            let _ = with_env(&[(&format!("TICKETLOG_{key}"), &value)]);
        }
    }
}

#[test]
fn traces_go_to_the_path_that_otlp_prescribes() {
    let url = |otlp: &str| {
        let settings = with_env(&[("TICKETLOG_TELEMETRY__OTLP", otlp)]).unwrap();
        settings.telemetry.traces_url().map(|url| url.to_string())
    };
    assert_eq!(url(""), None);
    assert_eq!(url("http://c:4318").as_deref(), Some("http://c:4318/v1/traces"));
    assert_eq!(url("https://c/otlp/").as_deref(), Some("https://c/otlp/v1/traces"));
    assert_eq!(url("http://c:4318/v1/traces").as_deref(), Some("http://c:4318/v1/traces"));
}

#[test]
fn the_mask_key_is_not_shown() {
    let loaded = load_text("t.toml", "[event]\nmask_key = \"a long key://one\"\n").unwrap();
    assert!(loaded.effective.iter().all(|setting| !setting.value.to_string().contains("a long key")));
}

#[test]
fn operators_commands_use_logins_of_their_own_where_these_are_set() {
    let text = "[broker]\nuri = \"amqp://worker@localhost\"\n[operator]\nbroker_uri = \"amqp://desk@localhost\"\n";
    let worker = load_text("f", text).unwrap().routes.swap_remove(0);
    assert_eq!(worker.broker.uri.expose_secret(), "amqp://worker@localhost");
    let (store, operator) = (worker.store.uri.expose_secret().to_owned(), worker.into_operator());
    let (broker, setting) = (operator.broker.uri.expose_secret(), operator.broker.uri_setting);
    assert_eq!((broker, setting), ("amqp://desk@localhost", "operator.broker_uri"));
    assert_eq!((operator.store.uri.expose_secret(), operator.store.uri_setting), (store.as_str(), "store.uri"));
    let operator = "[operator]\nstore_uri = \"mongodb://localhost/tickets\"\n";
    assert_eq!(load_text("f", operator).unwrap().settings.store.database, "tickets");
    // It never moves a worker, which has a URI of its own.
    let both = format!("[store]\nuri = \"mongodb://127.0.0.1\"\n{operator}");
    assert_eq!(load_text("f", &both).unwrap().settings.store.database, "cache");
    insta::assert_snapshot!(load_text("f", "[operator]\nbroker_uri = \"amqp://broker.example\"\n").unwrap_err(), @"f, line 2: operator.broker_uri is not encrypted to broker.example, another machine: passwords and events could be read on the network. Use amqps://, or set broker.allow_plaintext = true if the network is trusted");
}

#[test]
fn a_secret_is_given_once_in_each_layer() {
    let directory = tempfile::tempdir().unwrap();
    let [file, empty] = ["uri", "empty"].map(|name| directory.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&file, "amqp://localhost/of.file").unwrap();
    std::fs::write(&empty, "\n").unwrap();
    let (uri, uri_file) = ("TICKETLOG_BROKER__URI", "TICKETLOG_BROKER__URI_FILE");
    let twice = with_env(&[(uri, "amqp://localhost/of.text"), (uri_file, &file)]).unwrap_err();
    insta::assert_snapshot!(twice, @"environment variable TICKETLOG_BROKER__URI_FILE: broker.uri_file and broker.uri (environment variable TICKETLOG_BROKER__URI) are both set; remove one of the two");
    let once = with_env(&[(uri, "amqp://localhost/of.text"), (uri_file, "")]).unwrap();
    assert_eq!(once.broker.uri.expose_secret(), "amqp://localhost/of.text");
    let empty = with_env(&[("TICKETLOG_OPERATOR__BROKER_URI_FILE", &empty)]).unwrap_err().to_string();
    assert!(empty.contains("operator.broker_uri_file names") && empty.contains("which is empty"), "{empty}");
    // A layer replaces what is below it.
    let flags = vec![["--set", "broker", "uri", "amqp://localhost/of.flag"].map(str::to_owned).into()];
    let environment = vec![(uri_file.to_owned(), file)];
    let broker = load(&Sources { environment, flags, ..Sources::default() }).unwrap().settings.broker.clone();
    assert_eq!((broker.uri.expose_secret(), broker.uri_file.as_str()), ("amqp://localhost/of.flag", ""));
}
