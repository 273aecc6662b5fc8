//! Owns what a supervisor (systemd) is told: ready, how it goes, stopping, and that the loop still turns. Says nothing where
//! nobody asked (`NOTIFY_SOCKET`). Must not know the flow.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::health::Health;

/// How often the state is told where no watchdog asks for more.
const OFTEN: Duration = Duration::from_secs(10);

/// The process lives: it answers over HTTP. Whether it consumes is told by the status; an outage is no failed start.
pub fn begin(health: &Arc<Health>) {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::spawn(keep(Arc::clone(health)));
}

/// The process is ending in good order.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Tells the state, and the watchdog that the process turns. Runs on the flow's own thread: if that hangs, this falls silent.
async fn keep(health: Arc<Health>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let every = sd_notify::watchdog_enabled().map_or(OFTEN, |limit| limit / 3).min(OFTEN);
    loop {
        let troubles = health.troubles();
        let lines: Vec<String> =
            troubles.iter().map(|(part, trouble)| format!("{}: {trouble}", part.as_str())).collect();
        let state = if lines.is_empty() { "consuming".to_owned() } else { lines.join("; ") };
        let _ = sd_notify::notify(&[NotifyState::Status(&state), NotifyState::Watchdog]);
        tokio::time::sleep(every).await;
    }
}
