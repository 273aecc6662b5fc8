//! Owns `ticketlog health`: asks the worker of this configuration how it is, for container health checks. Must not know
//! what makes it healthy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use crate::config::Settings;
use crate::fetch;

use super::Fault;
use super::terminal::say;

/// How long the worker may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Flags of `ticketlog health`.
#[derive(Debug, clap::Args)]
pub struct Health {
    /// Ask whether it is consuming and the store answers (/readyz), not only whether it lives (/livez).
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub(super) fn run(&self, settings: &Settings) -> Result<u8, Fault> {
        let path = if self.ready { "readyz" } else { "livez" };
        let address = here(settings.http.listen);
        let url = Url::parse(&format!("http://{address}/{path}")).map_err(|error| Fault::new(70, error))?;
        match super::runtime()?.block_on(fetch::get(&url, None, PATIENCE)) {
            Some((status, body)) => {
                say(String::from_utf8_lossy(&body).trim_end())?;
                Ok(u8::from(status != 200))
            }
            None => Err(Fault::new(1, anyhow::anyhow!("no worker answers at {address} (http.listen)"))),
        }
    }
}

/// Where a listener on every address is found from this machine.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
