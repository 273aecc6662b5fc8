//! Owns what is done with the two server URIs as texts: several broker addresses in one, and hiding the password.
//! Must not open anything.

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

/// The URI with its password, and all of its query but the names, replaced by `***`.
pub fn redacted(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return "***".to_owned() };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let shown = match rest.rsplit_once('@') {
        Some((user, hosts)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{hosts}"),
            None => format!("{user}@{hosts}"),
        },
        None => rest.to_owned(),
    };
    let names = query.map(|query| {
        let hide = |pair: &str| format!("{}=***", pair.split_once('=').map_or(pair, |(name, _)| name));
        format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{shown}{}", names.unwrap_or_default())
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
