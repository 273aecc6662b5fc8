//! What is wrong with the addresses of servers, told without showing a credential.

use url::Url;

use super::uri;

pub(super) const NO_HTTP_ADDRESS: &str = "must be an address such as http://rabbitmq:15672, or empty";

/// What is wrong with `broker.uri`, without showing it. A host is named only if the URI could be parsed: it may be a piece
/// of a password otherwise.
pub(super) fn broker_uri_fault(uri: &str, allow_plaintext: bool) -> Option<String> {
    let host = || uri::unencrypted_broker_host(uri).filter(|_| !allow_plaintext);
    let fault = uri::broker_fault(uri).map(str::to_owned);
    fault.or_else(|| Some(unencrypted(&host()?, "amqps://", "broker.allow_plaintext")))
}

/// The same of `store.uri`.
pub(super) fn store_uri_fault(uri: &str, allow_plaintext: bool) -> Option<String> {
    let host = || uri::unencrypted_store_host(uri).filter(|_| !allow_plaintext);
    let fault = uri::store_fault(uri).map(str::to_owned);
    fault.or_else(|| Some(unencrypted(&host()?, "?tls=true", "store.allow_plaintext")))
}

/// What is wrong with an address of the management API.
pub(super) fn management_fault(url: &Url, allow_plaintext: bool) -> Option<String> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Some(NO_HTTP_ADDRESS.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must have no user name and password: those of broker.uri are used".to_owned());
    }
    let host = url.host_str().filter(|host| url.scheme() == "http" && !uri::is_local(host) && !allow_plaintext)?;
    Some(unencrypted(host, "https://", "broker.allow_plaintext"))
}

pub(super) fn otlp_fault(address: &str) -> Option<&'static str> {
    let Some(url) = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    else {
        return Some(
            "must be the address of a collector that takes OTLP over HTTP, such as http://collector:4318, or empty",
        );
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    (!is_plain)
        .then_some("must have no user name, password and query: OTEL_EXPORTER_OTLP_HEADERS can hold a credential")
}

fn unencrypted(host: &str, encrypted: &str, allow: &str) -> String {
    format!(
        "is not encrypted to {host}, another machine: passwords and events could be read on the network. Use \
         {encrypted}, or set {allow} = true if the network is trusted"
    )
}
