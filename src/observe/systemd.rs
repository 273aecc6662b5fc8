//! Owns the notifications to systemd: ready, status, stopping, watchdog. Does nothing unless `NOTIFY_SOCKET` is set.

use std::time::Duration;

use sd_notify::NotifyState;

use super::http::{RouteState, problem_lines};

/// How often the status is sent, unless the watchdog needs it more often.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Notifies that the process has started: it answers over HTTP. The status says whether it consumes, because an outage is
/// not a failed start.
pub fn notify_ready(routes: Vec<RouteState>) {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::spawn(notify_status(routes));
}

/// Notifies that the process is stopping.
pub fn notify_stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Sends status and watchdog notifications. It runs on the worker's own thread: if that blocks, they stop.
async fn notify_status(routes: Vec<RouteState>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let interval = sd_notify::watchdog_enabled().map_or(STATUS_INTERVAL, |limit| limit / 3).min(STATUS_INTERVAL);
    loop {
        let problems = problem_lines(&routes);
        let status = if problems.is_empty() { "consuming".to_owned() } else { problems.join("; ") };
        let _ = sd_notify::notify(&[NotifyState::Status(&status), NotifyState::Watchdog]);
        tokio::time::sleep(interval).await;
    }
}
