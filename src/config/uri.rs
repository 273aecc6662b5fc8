//! Owns what is done with the two server URIs as texts: several broker addresses in one, and hiding the password.
//! Must not open anything.

use std::net::IpAddr;

use url::Url;

/// The addresses in a broker URI, each as a URI of its own: `amqp://user:secret@a:5672,b:5672/vhost` gives two.
pub fn broker_addresses(uri: &str) -> Vec<String> {
    let Some((scheme, rest)) = uri.split_once("://") else { return vec![uri.to_owned()] };
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(split).unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts.split(',').map(|host| format!("{scheme}://{user}{}{path}", host.trim())).collect()
}

/// Options whose names are worth showing; a piece of a password that was not percent-encoded must not pass for one.
const OPTIONS: [&str; 14] = [
    "appName",
    "authMechanism",
    "authSource",
    "auth_mechanism",
    "connectTimeoutMS",
    "connection_timeout",
    "directConnection",
    "heartbeat",
    "replicaSet",
    "serverSelectionTimeoutMS",
    "ssl",
    "tls",
    "tlsCAFile",
    "tlsCertificateKeyFile",
];

/// The URI with its password, and all of its query but the names of common options, replaced by `***`.
pub fn redacted(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return "***".to_owned() };
    // Whatever stands before the last `@` may be a part of the password.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.contains('?')) {
        return format!("{scheme}://***");
    }
    let user = user.map(|user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:***@"),
        None => format!("{user}@"),
    });
    let (hosts, query) = match rest.split_once('?') {
        Some((hosts, query)) => (hosts, Some(query)),
        None => (rest, None),
    };
    let hidden = query.map(|query| {
        let hide = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if OPTIONS.contains(&name) => format!("{name}=***"),
            _ => "***".to_owned(),
        };
        format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{}{hosts}{}", user.unwrap_or_default(), hidden.unwrap_or_default())
}

/// The first host of a broker URI that is another machine and would be talked to without TLS.
pub fn broker_in_the_open(uri: &str) -> Option<String> {
    let open = |address: &String| {
        let url = Url::parse(address).ok()?;
        let host = url.host_str()?.to_owned();
        (url.scheme() == "amqp" && !is_here(&host)).then_some(host)
    };
    broker_addresses(uri).iter().find_map(open)
}

/// The same of a store URI.
pub fn store_in_the_open(uri: &str) -> Option<String> {
    // `mongodb+srv` means TLS unless it says otherwise (MongoDB's connection string specification).
    let (scheme, rest) = uri.split_once("://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let says = |value: &str| {
        query
            .split('&')
            .any(|pair| ["tls", "ssl"].iter().any(|name| pair.eq_ignore_ascii_case(&format!("{name}={value}"))))
    };
    if says("true") || (scheme == "mongodb+srv" && !says("false")) {
        return None;
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let name = |host: &str| match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address.to_owned(),
        None => host.split(':').next().unwrap_or_default().to_owned(),
    };
    hosts.split(',').map(name).find(|host| !is_here(host))
}

/// Whether a host is this machine: a loopback address, or a socket in the file system.
fn is_here(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    let address: Option<IpAddr> = bare.parse().ok();
    address.is_some_and(|address| address.is_loopback())
        || bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with("%2f")
        || bare.to_ascii_lowercase().ends_with(".sock")
}

/// What is wrong with a broker URI, without repeating it.
pub(super) fn broker_fault(uri: &str) -> Option<&'static str> {
    for address in broker_addresses(uri) {
        let Ok(url) = Url::parse(&address) else { return Some("is no URI; write amqp://user:password@host:5672/%2f") };
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Some("must begin with amqp:// or amqps://");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Some("names no host");
        }
    }
    None
}

/// What is wrong with a store URI, without repeating it.
pub(super) fn store_fault(uri: &str) -> Option<&'static str> {
    match uri.split_once("://") {
        Some(("mongodb" | "mongodb+srv", rest)) if !rest.is_empty() && !rest.starts_with(['/', '?']) => None,
        Some(("mongodb" | "mongodb+srv", _)) => Some("names no host"),
        _ => Some("must begin with mongodb:// or mongodb+srv://"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_password_is_never_shown(
            scheme in "amqps?|mongodb(\\+srv)?",
            user in "[a-z%0-9]{0,8}",
            password in "[A-Z0-9!$%&*+,;=:._~@/?-]{4,20}",
            hosts in "[a-z]{1,8}(:[0-9]{2,5})?(,[a-z]{1,8})?",
            path in "(/[a-z%0-9]{0,8})?",
            option in "(\\?[a-z]{1,10}=[a-z]{1,5})?",
        ) {
            let shown = redacted(&format!("{scheme}://{user}:{password}@{hosts}{path}{option}"));
            prop_assert!(!shown.contains(&password), "{}", shown);
            let tail = format!("@{hosts}{path}");
            prop_assert!(password.contains('?') || shown.contains(&tail), "{}", shown);
            let secret = redacted(&format!("{scheme}://{hosts}{path}?password={password}&tlsCertificateKeyFilePassword={password}"));
            prop_assert!(!secret.contains(&password), "{}", secret);
        }
    }

    #[test]
    fn what_would_travel_in_the_open_is_known() {
        for (uri, open) in [
            ("amqp://u:p@127.0.0.1:5672/%2f", None),
            ("amqp://localhost", None),
            ("amqp://[::1]:5672", None),
            ("amqps://broker.example", None),
            ("amqp://u:p@broker.example:5672/v", Some("broker.example")),
            ("amqp://127.0.0.1,10.0.0.5:5673/v", Some("10.0.0.5")),
        ] {
            assert_eq!(broker_in_the_open(uri).as_deref(), open, "{uri}");
        }
        for (uri, open) in [
            ("mongodb://127.0.0.1:27017,[::1]:27018/?replicaSet=rs0", None),
            ("mongodb://u:p@db.example/?tls=true", None),
            ("mongodb://u:p@db.example/?replicaSet=r&SSL=true", None),
            ("mongodb+srv://db.example", None),
            ("mongodb://%2Ftmp%2Fmongodb-27017.sock", None),
            ("mongodb+srv://db.example/?tls=false", Some("db.example")),
            ("mongodb://u:p@localhost:1,db.example:2/x", Some("db.example")),
        ] {
            assert_eq!(store_in_the_open(uri).as_deref(), open, "{uri}");
        }
    }
}
