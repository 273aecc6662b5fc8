//! Owns `ticketlog health`: asks the worker of this configuration, for container health checks. Must not know what makes it
//! healthy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use crate::config::Settings;
use crate::http_client;

use super::terminal::print_line;
use super::{CommandError, exit};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Flags of `ticketlog health`.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// Ask whether it is ready (/readyz: consuming, and MongoDB answers) instead of whether it is alive (/livez).
    #[arg(long)]
    ready: bool,
}

impl HealthArgs {
    pub(super) fn run(&self, settings: &Settings) -> Result<u8, CommandError> {
        let path = if self.ready { "readyz" } else { "livez" };
        let address = reachable(settings.http.listen);
        let url = format!("http://{address}/{path}");
        let url = Url::parse(&url).map_err(|error| CommandError::new(exit::SOFTWARE, error))?;
        match super::runtime()?.block_on(http_client::get(&url, None, None, TIMEOUT)) {
            Some((status, body)) => {
                print_line(String::from_utf8_lossy(&body).trim_end())?;
                Ok(if status == 200 { 0 } else { exit::NOT_WELL })
            }
            None => Err(CommandError::text(exit::NOT_WELL, format!("no worker answers at {address} (http.listen)"))),
        }
    }
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
