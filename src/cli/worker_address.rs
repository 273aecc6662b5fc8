//! Owns the HTTP addresses of workers on command lines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::Url;

use ticketlog_config::Settings;

/// The worker of this configuration, at `http.listen`.
pub(super) fn own_worker(settings: &Settings) -> Url {
    let mut url: Url = "http://127.0.0.1/".parse().unwrap_or_else(|_| unreachable!("a valid URL"));
    let address = reachable(settings.http.listen);
    let _ = url.set_ip_host(address.ip());
    let _ = url.set_port(Some(address.port()));
    url
}

/// The address at which a listener on all addresses can be reached from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The address of an HTTP service.
pub(super) fn parse_http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "expected an address such as http://127.0.0.1:9464".to_owned())
}
