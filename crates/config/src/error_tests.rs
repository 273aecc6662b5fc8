//! Tests of the error for each invalid setting.

use super::tests::{with_env, with_file};
use super::*;

#[test]
#[allow(clippy::too_many_lines)] // a table
fn errors_name_file_line_key_and_fix() {
    let errors: Vec<String> = [
        "[broker]\n\nprefech = 5\n",
        "[brokers]\nprefetch = 5\n",
        "prefetch = 5\n",
        "[broker]\nprefetch = \"many\"\n",
        "[broker]\nprefetch = 70000\n",
        "[broker]\nprefetch = 500\n",
        "[broker]\nqueue_type = \"stream\"\n",
        "[broker]\nuri = \"amqp://u:s3cret@\"\n",
        "[broker]\nuri = \"http://u:s3cret@h\"\n",
        "[broker]\nuri = [\"amqp://u:s3cret@h\"]\n",
        "[store]\nuri = \"s3cret\"\n",
        "[batch]\nlinger = 5\n",
        "[batch]\nlinger = \"5 parsecs\"\n",
        "[batch]\nmax_bytes = \"64MiB\"\n",
        "[store]\nretention = \"forever\"\n",
        "[store]\nwrite_timeout = \"30s\"\n",
        "[retry]\nrequeue_after = \"30min\"\n",
        "[event]\nmax_bytes = \"64MiB\"\n",
        "[event.fields]\nuser_id = { type = \"integer\" }\n",
        "[event.fields]\n_id = { type = \"string\" }\n",
        "[dead_letter]\nmax_ratio = 0.0\n",
        "[broker]\nqueue = \"x\nprefetch = 1",
        "[http]\nlisten = \"everywhere\"\n",
        "[log]\nfilter = \"info,[\"\n",
        "[telemetry]\notlp = \"collector:4318\"\n",
        "[event]\ndrop = [\"a..b\"]\n",
        "[event]\ndrop = [\"card\"]\n",
        "[write]\nmax_rate = 13\n",
        "[event]\nmask = [\"user_id\"]\nmask_key = \"0123456789abcdef\"\n",
        "[event]\nmask = [\"card\"]\nmask_key = \"s3cret\"\n",
        "[broker]\nshards = 65\n",
        "[broker]\nshards = 5\n",
        "[broker]\nqueue = \"q\"\nshards = 2\n[dead_letter]\nqueue = \"q.2\"\n",
        "[telemetry]\notlp = \"http://u:s3cret@collector:4318\"\n",
        "[dead_letter]\nreceipts = \"bytemark.tickets\"\n",
    ]
    .into_iter()
    .map(|text| with_file(text).unwrap_err())
    .collect();
    assert!(!errors.join("").contains("s3cret"));
    insta::assert_snapshot!(errors.join("\n"), @r#"
    FILE, line 3: broker.prefech is an unknown setting; did you mean prefetch?
    FILE, line 2: [brokers] is an unknown section; did you mean broker?
    FILE, line 1: prefetch is outside a section; put it under one, such as [broker]
    FILE, line 2: broker.prefetch has a wrong value: invalid type: string "many", expected a whole number, at most 65535
    FILE, line 2: broker.prefetch has a wrong value: invalid value: integer `70000`, expected a whole number, at most 65535
    FILE, line 2: broker.prefetch 500 is less than the writers need: batch.max_events * (write.concurrency + 1) = 4000; raise it, or lower batch.max_events or write.concurrency
    FILE, line 2: broker.queue_type has a wrong value: unknown variant `stream`, expected `quorum` or `classic`
    FILE, line 2: broker.uri is not a URI; write amqp://user:password@host:5672/%2f
    FILE, line 2: broker.uri must begin with amqp:// or amqps://
    FILE, line 2: broker.uri must be a string
    FILE, line 2: store.uri must begin with mongodb:// or mongodb+srv://
    FILE, line 2: batch.linger has a wrong value: expected a duration such as "250ms", "10s" or "5min"
    FILE, line 2: batch.linger has a wrong value: expected a duration such as "250ms", "10s" or "5min"
    FILE, line 2: batch.max_bytes must be 1 byte to 15MiB, so that a batch fits into one command
    FILE, line 2: store.retention has a wrong value: expected "off" or a duration such as "90days"
    FILE, line 2: shutdown.timeout must be a quarter longer than store.write_timeout = 30s, so that a write in flight can complete; raise it, or lower store.write_timeout
    FILE, line 2: retry.requeue_after must be longer than store.write_timeout = 15s, and at most 25min
    FILE, line 2: event.max_bytes must be 1 byte to 16MiB
    FILE, line 2: broker.prefetch_bytes is less than event.max_bytes = 64.0 MiB; raise it
    FILE, line 1: event.fields has a wrong value: unknown variant `integer`, expected one of `number`, `string`, `any`
    FILE, line 1: event.fields has a field name that is not allowed: empty, _id, or with a NUL
    FILE, line 2: dead_letter.max_ratio must be above 0 and at most 1
    FILE, line 2: not valid TOML: invalid basic string, expected `"`
    FILE, line 2: http.listen has a wrong value: expected an address such as "127.0.0.1:9464"
    FILE, line 2: log.filter is not a valid filter; write for instance "info", or "warn,ticketlog::worker=info"
    FILE, line 2: telemetry.otlp must be the address of a collector that takes OTLP over HTTP, such as http://collector:4318, or empty
    FILE, line 2: event.drop has "a..b", which is empty, or has an empty part or a NUL
    FILE, line 2: event.mask_key must have at least 16 bytes if event.drop or event.mask names fields: masks, and the _id, which depends on the whole message, could be guessed without it
    FILE, line 2: event.mask_key must have at least 16 bytes if event.drop or event.mask names fields: masks, and the _id, which depends on the whole message, could be guessed without it
    FILE, line 2: write.max_rate must be 0 or at least 2 * broker.prefetch / retry.requeue_after = 14, so that what is in flight is written in time; raise it, or lower broker.prefetch
    FILE, line 2: event.mask has user_id, which event.fields makes a number; a mask is a text. Drop it instead
    FILE, line 3: event.mask_key must have at least 16 bytes if event.drop or event.mask names fields: masks, and the _id, which depends on the whole message, could be guessed without it
    FILE, line 2: broker.shards must be 1 to 64
    FILE, line 2: broker.prefetch_bytes is less than event.max_bytes * broker.shards = 40.0 MiB; raise it
    FILE, line 2: broker.queue is also a dead-letter queue; use another queue
    FILE, line 2: telemetry.otlp must have no user name, password and query: OTEL_EXPORTER_OTLP_HEADERS can hold a credential
    FILE, line 2: dead_letter.receipts is also broker.exchange or dead_letter.exchange; use another exchange
    "#);
    insta::assert_snapshot!(with_env(&[("TICKETLOG_BROKER__PREFECH", "5")]).unwrap_err(), @"environment variable TICKETLOG_BROKER__PREFECH: broker.prefech is an unknown setting; did you mean prefetch?");
    insta::assert_snapshot!(with_env(&[("TICKETLOG_BROKER__URI_FILE", "/no/such/file")]).unwrap_err(), @"environment variable TICKETLOG_BROKER__URI_FILE: broker.uri_file names /no/such/file, which cannot be read: No such file or directory (os error 2)");
    let all = "[broker]\nprefech = 1\nprefetch = \"x\"\n[batch]\nlinger = \"2min\"\n[log]\nfilter = \"[\"\n";
    let keys = ["broker.prefech", "broker.prefetch", "batch.linger", "log.filter"];
    let text = with_file(all).unwrap_err();
    assert_eq!(text.lines().count(), keys.len(), "all faults are reported at once: {text}");
    assert!(keys.iter().all(|key| text.contains(key)), "{text}");
    let missing = load(&Sources { files: vec!["/no/such.toml".into()], ..Sources::default() }).unwrap_err();
    insta::assert_snapshot!(missing.to_string(), @"/no/such.toml: cannot be read: No such file or directory (os error 2)");
}
