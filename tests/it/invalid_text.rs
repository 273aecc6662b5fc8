//! Owns the tests with messages whose properties, header names or routing keys are not UTF-8, which lapin cannot read.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::harness::{TestEnv, TestMessage, first_of};

/// What stands in a text for `NOT_UTF8` until it is on its way.
const MARK: &str = "~~";
const NOT_UTF8: [u8; 2] = [0xE9, 0xE8];

/// A client whose texts are not UTF-8 where lapin is given `MARK`. It ends with the test.
async fn channel_of_marked_texts(uri: &str) -> (Connection, Channel) {
    let mut url = url::Url::parse(first_of(uri)).unwrap();
    let target = format!("127.0.0.1:{}", url.port().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let broker = TcpStream::connect(target).unwrap();
        let (mut from, mut to) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        replace_marks(client, broker)
    });
    let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

fn replace_marks(mut client: TcpStream, mut broker: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let piece = &mut buffer[..count];
        while let Some(at) = piece.windows(2).position(|window| window == MARK.as_bytes()) {
            piece[at..at + 2].copy_from_slice(&NOT_UTF8);
        }
        if broker.write_all(piece).is_err() {
            break;
        }
    }
    let _ = broker.shutdown(std::net::Shutdown::Both);
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &str, properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
    assert!(sent.await.unwrap().await.unwrap().is_ack());
}

fn headers(name: &str) -> FieldTable {
    let nested = FieldTable::from(std::collections::BTreeMap::from([(name.into(), AMQPValue::Boolean(true))]));
    let fields = [("kept".into(), AMQPValue::LongString("k".into())), ("nested".into(), AMQPValue::FieldTable(nested))];
    std::collections::BTreeMap::from(fields).into()
}

#[tokio::test]
async fn a_message_that_is_not_utf8_is_dead_lettered_and_its_neighbours_are_stored() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let (_connection, channel) = channel_of_marked_texts(&env.broker_uri).await;
    let plain = BasicProperties::default;
    let bad = [
        ("ticket.a", plain().with_message_id("caf~~".into()).with_app_id("~~".into())),
        ("ticket.a", plain().with_headers(headers("n~~"))),
        ("ticket.k~~", plain().with_content_type("application/json".into())),
        ("ticket.a", plain().with_correlation_id("~~".into()).with_reply_to("~~".into()).with_type("~~".into())),
    ];
    for (n, (key, properties)) in (0..).zip(&bad) {
        env.publish(&TestMessage::numbered(n)).await;
        publish(&channel, &env.name, key, &format!("{{\"bad\":{n}}}"), properties.clone()).await;
    }
    env.publish(&TestMessage::numbered(4)).await;
    worker.wait_until_settled(9).await;
    env.assert_exactly(5).await;
    assert_eq!(worker.metrics().get("ticketlog_dead_letters_total{reason=\"invalid_property\"}"), Some(&4.0));
    let ends = worker.metrics().into_iter().filter(|(name, count)| name.contains("session_ends") && *count > 0.0);
    assert_eq!(ends.count(), 0, "no session ended");

    let listed = env.dead_command_succeeds(&["list", "--json", "--reason", "invalid_property"]).await.json();
    let details: Vec<_> = listed.iter().map(|dead_letter| dead_letter["detail"].as_str().unwrap()).collect();
    let kinds = ["message_id, app_id", "header_name", "routing_key", "correlation_id, reply_to, type"];
    assert_eq!(details, kinds.map(|kind| format!("not UTF-8: {kind}")));
    let shown = env.dead_command_succeeds(&["show", "@1", "--json"]).await.json();
    assert_eq!(shown[0]["headers"]["dl-original-bytes"], "message_id=Y2Fm6eg= app_id=6eg=");
    assert_eq!(shown[0]["properties"]["message_id"], "caf\\xE9\\xE8");
    assert_eq!(
        env.dead_command_succeeds(&["show", "@3", "--json"]).await.json()[0]["headers"]["dl-routing-key"],
        "ticket.k\\xE9\\xE8"
    );
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    worker.wait_until_settled(13).await;
    assert_eq!(env.count().await, 9, "what a replay sends is UTF-8, and can be stored");
    env.clean().await;
}

#[tokio::test]
async fn a_message_with_many_names_that_are_not_utf8_is_dead_lettered() {
    let env = TestEnv::new().await;
    let worker = env.worker().await;
    let (_connection, channel) = channel_of_marked_texts(&env.broker_uri).await;
    let many: FieldTable = (0..3000)
        .map(|n| (format!("{n}~~{}", "-".repeat(20)).into(), AMQPValue::Void))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into();
    publish(&channel, &env.name, "ticket.a", "{}", BasicProperties::default().with_headers(many)).await;
    env.publish(&TestMessage::numbered(0)).await;
    worker.wait_until_settled(2).await;
    let dead = env.take_dead_letters(1).await.pop().unwrap();
    assert_eq!(dead.reason(), "invalid_property");
    let original = &dead.headers["dl-original-bytes"];
    assert!(original.len() < 7000 && original.ends_with(" more"), "{original}");
    env.assert_exactly(1).await;
    env.clean().await;
}

#[tokio::test]
async fn the_commands_for_dead_letters_read_messages_that_are_not_utf8() {
    let env = TestEnv::new().await;
    let (_connection, channel) = channel_of_marked_texts(&env.broker_uri).await;
    let queue = env.dead_letter_queue();
    for n in 0..6 {
        let id = if n % 2 == 0 { format!("good{n}") } else { format!("bad{n}~~") };
        let properties = BasicProperties::default().with_message_id(id.as_str().into()).with_headers(env.headers(
            &format!("id-{n}"),
            "invalid_json",
            n,
        ));
        publish(&channel, "", &queue, &format!("{{\"n\":{n}}}"), properties).await;
    }
    env.wait_for_depth(&queue, 6).await;
    let listed = env.dead_command_succeeds(&["list", "--json"]).await.json();
    assert_eq!(listed.len(), 6);
    let exported = env.dead_command_succeeds(&["export"]).await.json();
    let original = |n: usize| exported[n]["headers"]["dl-original-bytes"].as_str().map(str::to_owned);
    assert_eq!((original(0), original(1).as_deref()), (None, Some("message_id=YmFkMeno")));
    env.dead_command_succeeds(&["stats"]).await;
    env.dead_command_succeeds(&["park", "--limit", "2"]).await;
    env.dead_command_succeeds(&["unpark"]).await;
    env.dead_command_succeeds(&["purge", "--yes", "--no-backup", "--limit", "2"]).await;
    let _worker = env.worker().await;
    env.dead_command_succeeds(&["replay", "--yes"]).await;
    crate::harness::eventually("all are stored", crate::harness::DEADLINE, async || env.count().await == 4).await;
    assert_eq!(env.depth(&queue).await, 0);
    env.clean().await;
}
