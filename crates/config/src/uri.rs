//! Owns the server URIs as texts: splitting them into addresses, hiding passwords, finding hosts that would be reached without TLS.

use std::net::IpAddr;

use url::Url;

/// The addresses in a broker URI, each as a URI of its own: `amqp://user:secret@a:5672,b:5672/vhost` gives two, and so does
/// a list of whole URIs.
pub fn broker_addresses(uri: &str) -> Vec<String> {
    whole_uris(uri).into_iter().flat_map(addresses_of).collect()
}

/// The URIs of a list such as `amqp://a/v,amqp://b/v`.
fn whole_uris(uri: &str) -> Vec<&str> {
    let mut uris = Vec::new();
    let mut rest = uri;
    while let Some(at) =
        [",amqp://", ",amqps://", ", amqp://", ", amqps://"].iter().filter_map(|next| rest.find(next)).min()
        && let Some((first, others)) = rest.split_at_checked(at)
    {
        uris.push(first);
        rest = others.trim_start_matches([',', ' ']);
    }
    uris.push(rest);
    uris
}

fn addresses_of(uri: &str) -> Vec<String> {
    let Some((scheme, rest)) = uri.split_once("://") else { return vec![uri.to_owned()] };
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(split).unwrap_or((rest, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts.split(',').map(|host| format!("{scheme}://{user}{}{path}", host.trim())).collect()
}

/// Query options whose names are shown. Anything else may be a part of a password that was not percent-encoded.
const SHOWN_OPTIONS: [&str; 14] = [
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

/// The URI with `***` in place of the password and of the query, except for the names of common options.
pub fn redacted(uri: &str) -> String {
    whole_uris(uri).into_iter().map(redacted_uri).collect::<Vec<_>>().join(",")
}

fn redacted_uri(uri: &str) -> String {
    if uri.is_empty() {
        return String::new();
    }
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
            Some((name, _)) if SHOWN_OPTIONS.contains(&name) => format!("{name}=***"),
            _ => "***".to_owned(),
        };
        format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{}{hosts}{}", user.unwrap_or_default(), hidden.unwrap_or_default())
}

/// The database that a store URI names, unless it is one of MongoDB's own, which is named to log in there.
pub fn store_database(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let (_, path) = rest.split('?').next()?.split_once('/')?;
    let own = ["", "admin", "config", "local"].contains(&path);
    (!own && !path.contains(['%', '/', '@'])).then_some(path)
}

/// The first host of a broker URI that is another machine and would be reached without TLS.
pub fn unencrypted_broker_host(uri: &str) -> Option<String> {
    let unencrypted = |address: &String| {
        let url = Url::parse(address).ok()?;
        let host = url.host_str()?.to_owned();
        (url.scheme() == "amqp" && !is_local(&host)).then_some(host)
    };
    broker_addresses(uri).iter().find_map(unencrypted)
}

/// The hosts of a valid store URI, with their ports.
pub fn store_hosts(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let has_port = |host: &str| host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = |host: &str| match scheme == "mongodb+srv" || has_port(host) {
        true => host.to_owned(),
        false => format!("{host}:27017"),
    };
    hosts.split(',').map(with_port).collect::<Vec<_>>().join(", ")
}

/// The first host of a store URI that is another machine and would be reached without TLS.
pub fn unencrypted_store_host(uri: &str) -> Option<String> {
    // `mongodb+srv` means TLS unless it says otherwise (MongoDB's connection string specification).
    let (scheme, rest) = uri.split_once("://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let sets_tls_to = |value: &str| {
        query
            .split('&')
            .any(|pair| ["tls", "ssl"].iter().any(|name| pair.eq_ignore_ascii_case(&format!("{name}={value}"))))
    };
    if sets_tls_to("true") || (scheme == "mongodb+srv" && !sets_tls_to("false")) {
        return None;
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let name = |host: &str| match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address.to_owned(),
        None => host.split(':').next().unwrap_or_default().to_owned(),
    };
    hosts.split(',').map(name).find(|host| !is_local(host))
}

/// Whether a host is this machine: a loopback address, or a socket in the file system.
pub(super) fn is_local(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    let address: Option<IpAddr> = bare.parse().ok();
    address.is_some_and(|address| address.is_loopback())
        || bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with("%2f")
        || bare.to_ascii_lowercase().ends_with(".sock")
}

/// The fault of a URI whose user name or password is not percent-encoded: what follows would be taken for its host.
const NOT_ENCODED: &str = "has an @ after its host; percent-encode the user name, the password and the path (/ as %2F, @ as %40, ? as %3F, # as %23)";

/// Whether an `@` follows the authority, which ends at the first of `/?#` (RFC 3986, section 3.2).
fn is_ambiguous(uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.find(['/', '?', '#']).and_then(|end| rest.get(end..)).is_some_and(|after| after.contains('@'))
}

/// What is wrong with a broker URI, without showing it.
pub(super) fn broker_fault(uri: &str) -> Option<&'static str> {
    if whole_uris(uri).into_iter().any(is_ambiguous) {
        return Some(NOT_ENCODED);
    }
    for address in broker_addresses(uri) {
        let Ok(url) = Url::parse(&address) else {
            return Some("is not a URI; write amqp://user:password@host:5672/%2f");
        };
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Some("must begin with amqp:// or amqps://");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Some("names no host");
        }
    }
    None
}

/// What is wrong with a store URI, without showing it.
pub(super) fn store_fault(uri: &str) -> Option<&'static str> {
    match uri.split_once("://") {
        Some(("mongodb" | "mongodb+srv", _)) if is_ambiguous(uri) => Some(NOT_ENCODED),
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

    proptest! {
        /// Nothing that is printed about a URI holds a part of its password, encoded or not.
        #[test]
        fn no_message_shows_a_part_of_a_password(
            scheme in "amqp|mongodb",
            password in "[A-Z]{4,8}[@/?#,:&=%][A-Z]{4,8}([@/?#,:][A-Z]{4,8})?",
        ) {
            let uri = format!("{scheme}://app:{password}@host/");
            let parts: Vec<&str> = password.split(|c: char| !c.is_ascii_uppercase()).collect();
            let fault = if scheme == "amqp" { broker_fault(&uri) } else { store_fault(&uri) };
            let host = if scheme == "amqp" { unencrypted_broker_host(&uri) } else { unencrypted_store_host(&uri) };
            let printed = [Some(redacted(&uri)), fault.map(str::to_owned), host.filter(|_| fault.is_none())];
            for text in printed.into_iter().flatten() {
                prop_assert!(parts.iter().all(|part| !text.to_ascii_uppercase().contains(part)), "{}", text);
            }
        }
    }

    #[test]
    fn the_database_of_a_store_uri_is_found() {
        for (uri, database) in [
            ("mongodb://u:p@a:1,b:2/tickets?replicaSet=rs0", Some("tickets")),
            ("mongodb+srv://u:p@a/tickets", Some("tickets")),
            ("mongodb://a", None),
            ("mongodb://a/?tls=true", None),
            ("mongodb://a/admin?tls=true", None),
            ("tickets", None),
        ] {
            assert_eq!(store_database(uri), database, "{uri}");
        }
    }

    #[test]
    fn the_hosts_of_a_store_uri_have_ports() {
        for (uri, hosts) in [
            ("mongodb://u:p@a:1,b/tickets?replicaSet=rs0", "a:1, b:27017"),
            ("mongodb://[::1]:5,127.0.0.1?tls=true", "[::1]:5, 127.0.0.1:27017"),
            ("mongodb+srv://u:p@cluster.example/x", "cluster.example"),
        ] {
            assert_eq!(store_hosts(uri), hosts, "{uri}");
        }
    }

    #[test]
    fn a_list_of_whole_uris_is_a_list_of_addresses() {
        let list = "amqp://u:secret@a/v,amqps://u:secret@b:1/w, amqp://c,d/x";
        assert_eq!(
            broker_addresses(list),
            ["amqp://u:secret@a/v", "amqps://u:secret@b:1/w", "amqp://c/x", "amqp://d/x"]
        );
        assert_eq!(redacted(list), "amqp://u:***@a/v,amqps://u:***@b:1/w,amqp://c,d/x");
        assert_eq!(broker_fault(list), None);
        assert_eq!(broker_fault("amqp://app:Tr@veller/9@host/"), Some(NOT_ENCODED));
    }

    #[test]
    fn hosts_of_other_machines_without_tls_are_found() {
        for (uri, host) in [
            ("amqp://u:p@127.0.0.1:5672/%2f", None),
            ("amqp://localhost", None),
            ("amqp://[::1]:5672", None),
            ("amqps://broker.example", None),
            ("amqp://u:p@broker.example:5672/v", Some("broker.example")),
            ("amqp://127.0.0.1,10.0.0.5:5673/v", Some("10.0.0.5")),
        ] {
            assert_eq!(unencrypted_broker_host(uri).as_deref(), host, "{uri}");
        }
        for (uri, host) in [
            ("mongodb://127.0.0.1:27017,[::1]:27018/?replicaSet=rs0", None),
            ("mongodb://u:p@db.example/?tls=true", None),
            ("mongodb://u:p@db.example/?replicaSet=r&SSL=true", None),
            ("mongodb+srv://db.example", None),
            ("mongodb://%2Ftmp%2Fmongodb-27017.sock", None),
            ("mongodb+srv://db.example/?tls=false", Some("db.example")),
            ("mongodb://u:p@localhost:1,db.example:2/x", Some("db.example")),
        ] {
            assert_eq!(unencrypted_store_host(uri).as_deref(), host, "{uri}");
        }
    }
}
