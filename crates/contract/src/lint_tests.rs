//! How good the findings are: messages as real clients send them by mistake, and fine ones. Each mistaken one must be found as what it is.

use std::sync::Arc;

use super::FindingKind::{self, *};
use super::*;

/// A message that is fine but for its body.
fn message(body: &str) -> Message<'_> {
    Message {
        body: body.as_bytes(),
        message_id: Some("3f1c"),
        timestamp: Some(1_796_011_941),
        app_id: Some("shop"),
        ..Message::default()
    }
}

fn found(message: &Message) -> Findings {
    let mut decoder = Decoder::new(Arc::new(Rules::default()));
    let event = decoder
        .decode(message, || [9; 12])
        .unwrap_or_else(|rejection| panic!("{}: {}", String::from_utf8_lossy(message.body), rejection.detail));
    event.findings
}

/// Mistakes in the body.
const MISTAKEN: [(FindingKind, &str); 66] = [
    // time.time(), System.currentTimeMillis() / 1000, PHP's time(), Go's Unix(), Ruby's Time.now.to_f
    (TimestampUnit, r#"{"user_id":42,"timestamp":1796011941,"uuid":"a","status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":1796011941.123,"uuid":"a","status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":1796011941.123456789,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":"1796011941","status":"ok"}"#),
    // Go's UnixMicro and UnixNano, Python's time_ns()
    (TimestampUnit, r#"{"user_id":42,"timestamp":1796011941123456,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":1796011941123456789,"status":"ok"}"#),
    // DateTime.UtcNow.Ticks, ToFileTime, ToOADate
    (TimestampUnit, r#"{"user_id":42,"timestamp":639316087411234567,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":134404855411234567,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":46356.5133,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":"2026","status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":2026,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":20261130,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":20261130123221,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":0,"status":"ok"}"#),
    (TimestampUnit, r#"{"user_id":42,"timestamp":-62135596800000,"status":"ok"}"#),
    // performance.now()
    (TimestampUnit, r#"{"user_id":42,"timestamp":83412.7,"status":"ok"}"#),
    (FieldName, r#"{"userId":42,"timestamp":1796011941123,"uuid":"a","status":"ok"}"#),
    (FieldName, r#"{"UserId":42,"Timestamp":1796011941123,"Uuid":"a","Status":"ok"}"#),
    (FieldName, r#"{"userID":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"userid":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user-id":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user id":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"USER_ID":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"usr_id":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"uesr_id":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user_id ":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{" user_id":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, "{\"\u{feff}user_id\":42,\"timestamp\":1796011941123,\"status\":\"ok\"}"),
    (FieldName, r#"{"uid":42,"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user":{"id":42,"name":"x"},"timestamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user_id":42,"timestamp":1796011941123,"staus":"ok"}"#),
    (FieldName, r#"{"user_id":42,"timestamp":1796011941123,"Status":"ok"}"#),
    (FieldName, r#"{"user_id":42,"timestmap":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user_id":42,"timeStamp":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user_id":42,"@timestamp":"2026-11-30T12:32:21Z","status":"ok"}"#),
    (FieldName, r#"{"user_id":42,"timestamp_ms":1796011941123,"status":"ok"}"#),
    (FieldName, r#"{"user_id":null,"userId":42,"timestamp":1796011941123,"status":"ok"}"#),
    (
        Envelope,
        r#"{"specversion":"1.0","id":"a","source":"/shop","type":"ticket.buy","time":"2026-11-30T12:32:21Z","datacontenttype":"application/json","data":{"user_id":42,"timestamp":1796011941123,"status":"ok"}}"#,
    ),
    (
        Envelope,
        r#"{"specversion":"1.0","id":"a","source":"/shop","type":"ticket.buy","data_base64":"eyJ1c2VyX2lkIjo0Mn0="}"#,
    ),
    (
        Envelope,
        r#"{"before":null,"after":{"user_id":42,"status":"ok"},"source":{"db":"shop","table":"tickets"},"op":"c","ts_ms":1796011941123}"#,
    ),
    (
        Envelope,
        r#"{"schema":{"type":"struct","fields":[]},"payload":{"user_id":42,"timestamp":1796011941123,"status":"ok"}}"#,
    ),
    (
        Envelope,
        r#"{"messageId":"a","conversationId":"b","messageType":["urn:message:Shop:TicketBought"],"message":{"userId":42,"status":"ok"},"sentTime":"2026-11-30T12:32:21Z","headers":{},"host":{"machineName":"h"}}"#,
    ),
    (Envelope, r#"{"pattern":"ticket.buy","data":{"user_id":42,"timestamp":1796011941123,"status":"ok"}}"#),
    (Envelope, r#"{"pattern":{"cmd":"buy"},"data":[1,2],"id":"a"}"#),
    (
        Envelope,
        r#"{"uuid":"a","displayName":"App\\Jobs\\Buy","job":"Illuminate\\Queue\\CallQueuedHandler@call","maxTries":null,"data":{"commandName":"App\\Jobs\\Buy","command":"O:12:\"App\\Jobs\\Buy\":0:{}"}}"#,
    ),
    (
        Envelope,
        r#"{"Type":"Notification","MessageId":"a","TopicArn":"arn:aws:sns:eu-central-1:1:t","Message":"{\"user_id\":42}","Timestamp":"2026-11-30T12:32:21.123Z","SignatureVersion":"1"}"#,
    ),
    (Envelope, r#"{"data":{"type":"tickets","id":"1","attributes":{"user_id":42,"status":"ok"}}}"#),
    (
        Envelope,
        r#"{"events":[{"user_id":42,"timestamp":1796011941123,"status":"ok"},{"user_id":43,"timestamp":1796011941124,"status":"ok"}]}"#,
    ),
    (Envelope, r#"{"items":[]}"#),
    (Envelope, r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3"}]}"#),
    (
        Envelope,
        r#"{"message":{"data":"eyJ1c2VyX2lkIjo0Mn0=","messageId":"1"},"subscription":"projects/p/subscriptions/s"}"#,
    ),
    (Envelope, r#"{"jsonrpc":"2.0","method":"buy","params":{"user_id":42,"status":"ok"},"id":1}"#),
    (Envelope, r#"{"event":"ticket.buy","payload":"{\"user_id\":42,\"status\":\"ok\"}"}"#),
    (Envelope, r#"{"timestamp":1796011941123,"uuid":"a","body":{"user_id":42,"status":"ok"}}"#),
    (BlankNumber, r#"{"user_id":" ","timestamp":1796011941123,"status":"ok"}"#),
    (BlankNumber, r#"{"user_id":"\n","timestamp":1796011941123,"status":"ok"}"#),
    (BooleanValue, r#"{"user_id":true,"timestamp":1796011941123,"status":"ok"}"#),
    (BooleanValue, r#"{"user_id":42,"timestamp":1796011941123,"status":true}"#),
    (NumberNotation, r#"{"user_id":"5e10","timestamp":1796011941123,"status":"ok"}"#),
    (NumberNotation, r#"{"user_id":"0x1f","timestamp":1796011941123,"status":"ok"}"#),
    (NumberNotation, r#"{"user_id":"000042","timestamp":1796011941123,"status":"ok"}"#),
    (UnsafeInteger, r#"{"user_id":"9007199254740993","timestamp":1796011941123,"status":"ok"}"#),
    (UnsafeInteger, r#"{"user_id":1234567890123456789,"timestamp":1796011941123,"status":"ok"}"#),
    (UnsafeInteger, r#"{"user_id":18446744073709551615,"timestamp":1796011941123,"status":"ok"}"#),
    (PlaceholderText, r#"{"user_id":42,"timestamp":1796011941123,"uuid":"undefined","status":"ok"}"#),
    (PlaceholderText, r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":"[object Object]"}"#),
];

/// Bodies in which nothing is wrong.
const FINE: [&str; 60] = [
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"2f1c9a1e-7a59-4a53-8f0e-6b1d4c2e9f10","status":"success","operation_type":"purchase","ticket_details":{"route":"Red Line","fare":2.75}}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":"42","timestamp":"1796011941123","uuid":"a","status":"ok"}"#,
    r#"{"user_id":42.0,"timestamp":1796011941123.0,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":1,"timestamp":1.796011941123e12,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":0,"timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":-7,"timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":9007199254740991,"timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":"-7","timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":" 42 ","timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":"0","timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":"0.5","timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":null,"timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":"","timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":{"_id":42},"timestamp":1796011941123,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":42,"timestamp":1000000000000,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":42,"timestamp":978307200000,"uuid":"a","status":"ok"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":""}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":null}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":"null and void"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":"UNDEFINED"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":200}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":12345,"status":"ok"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a"}"#,
    r#"{"user_id":42,"timestamp":1796011941123}"#,
    r#"{"user_id":42,"status":"ok"}"#,
    r#"{"user_id":42}"#,
    r#"{"status":"ok","timestamp":1796011941123}"#,
    r#"{"timestamp":1796011941123,"uuid":"a","operation_type":"login"}"#,
    r#"{"timestamp":1796011941123,"operation_type":"heartbeat","gate":{"id":7,"open":true}}"#,
    r#"{"timestamp":1796011941123,"operation_type":"refund","ticket_details":{"status":"used","fare":2.75}}"#,
    r#"{"user_id":42,"userId":42,"timestamp":1796011941123,"status":"ok"}"#,
    r#"{"user_id":42,"user":{"name":"Anna"},"timestamp":1796011941123,"status":"ok"}"#,
    r#"{"user_id":42,"username":"anna","user_name":"Anna","timestamp":1796011941123}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"state":"paid"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status_code":200}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"order_status":"paid"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","created_at":"2026-11-30T12:32:21Z"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","time":1796011941}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","timezone":"Europe/Berlin"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","id":7,"_id":"65f000000000000000000001"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","data":{"seat":"12A"}}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","payload":{"user_id":43,"status":"ok"}}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","events":[{"user_id":43}]}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","type":"ticket.buy","specversion":"1.0"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","pattern":"zigzag","data":1}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","job":"driver","message":"hello"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","before":{"status":"new"},"after":{"status":"ok"}}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","tags":[],"legs":[{"from":"A","to":"B"}]}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","order_id":1234567890123456789}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","paid":true,"zone":"007"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","note":" ","ref":"undefined"}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","a.b":1,"$set":{"x":1},"":2}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"Grüße 😀","uuid":"ß"}"#,
    r#"{"user_id":41,"user_id":42,"timestamp":1796011941123,"status":"ok"}"#,
    r#"{"user_id":" ","user_id":42,"timestamp":1796011941,"timestamp":1796011941123}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"status":"ok","ttl":60,"total":1,"unit":"EUR","seat":2,"stats":{}}"#,
    r#"{"user_id":42,"timestamp":1796011941123,"uuid":"a","status":"ok","uids":[1,2],"guid":"x"}"#,
    r#"{"user_id":42,"timestamp":1790000000000,"uuid":"a","status":"ok","details":{"details":{"details":{}}}}"#,
];

#[test]
fn every_mistaken_body_is_found_and_no_fine_one() {
    let missed = MISTAKEN.iter().filter(|(kind, body)| !found(&message(body)).contains(*kind));
    let missed: Vec<_> = missed.map(|(kind, body)| format!("{} {body}", kind.as_str())).collect();
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    let flagged = FINE.iter().map(|body| (body, found(&message(body)))).filter(|(_, found)| !found.is_empty());
    let flagged: Vec<_> =
        flagged.map(|(body, found)| format!("{:?} {body}", found.iter().collect::<Vec<_>>())).collect();
    assert!(flagged.is_empty(), "fine, and found:\n{}", flagged.join("\n"));
}

#[test]
fn mistakes_in_the_properties_are_found() {
    let body = r#"{"user_id":42,"timestamp":1796011941123,"status":"ok"}"#;
    let untimed = r#"{"user_id":42,"status":"ok"}"#;
    let fine = message(body);
    let only = |kind: FindingKind| Findings::from(kind);
    for (expected, message) in [
        (only(NoIdentity), Message { message_id: None, ..fine }),
        (only(NoIdentity), Message { message_id: Some(""), ..fine }),
        (only(NoAppId), Message { app_id: Some(""), ..fine }),
        (only(NoTime), Message { timestamp: None, ..message(untimed) }),
        (only(NoTime), Message { timestamp: None, ..message(r#"{"user_id":42,"timestamp":null}"#) }),
        (only(PropertyTimestampUnit), Message { timestamp: Some(1_796_011_941_123), ..fine }),
        (only(PropertyTimestampUnit), Message { timestamp: Some(0), ..fine }),
        (Findings::default(), Message { timestamp: None, app_id: None, ..fine }),
        (Findings::default(), message(untimed)),
        (Findings::default(), Message { message_id: None, ..message(r#"{"user_id":42,"uuid":"a"}"#) }),
    ] {
        assert_eq!(found(&message), expected, "{message:?}");
    }
}

#[test]
fn what_is_found_follows_the_settings_and_not_what_is_hidden() {
    let hidden_fields = vec![HiddenField { path: "user_id".to_owned(), treatment: Treatment::Drop }];
    let rules = Rules { hidden_fields, mask_key: MaskKey(b"0123456789abcdef".to_vec()), ..Rules::default() };
    let fine = message(r#"{"user_id":42,"timestamp":1796011941123,"uid":7}"#);
    assert!(Decoder::new(rules.into()).decode(&fine, || [9; 12]).unwrap().findings.is_empty());
    // Nothing is configured: every shape is as good as another.
    let rules = Rules { fields: Vec::new(), ..Rules::default() };
    let cloud_event = message(r#"{"specversion":"1.0","type":"x","data":{"userId":true}}"#);
    assert!(Decoder::new(rules.into()).decode(&cloud_event, || [9; 12]).unwrap().findings.is_empty());
}

#[test]
fn the_explanation_shows_what_is_wrong() {
    let explained = |body: &str, kind: FindingKind| {
        let mut decoder = Decoder::new(Arc::new(Rules::default()));
        let event = decoder.decode(&message(body), || [9; 12]).unwrap();
        let text = decoder.explain(&event, kind);
        text.split_once("; ").map_or(text.clone(), |(shown, _)| shown.to_owned())
    };
    assert_eq!(
        explained(r#"{"timestamp":1796011941}"#, TimestampUnit),
        "1796011941 is 1970-01-21 (seconds instead of milliseconds?)"
    );
    assert_eq!(explained(r#"{"userId":42}"#, FieldName), "\"userId\" looks like user_id");
    assert_eq!(explained(r#"{"user_id":" "}"#, BlankNumber), "user_id");
    assert!(explained(r#"{"user_id":1}"#, NoAppId).starts_with("the message does not say which program"));
}
