//! Owns what the process shows to operators: health, metrics, status, the HTTP endpoints, the log, systemd notifications.

pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod status;
pub mod systemd;
pub mod traces;
