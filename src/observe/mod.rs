//! Owns what the process shows to operators: health, metrics, status, the HTTP endpoints, the log, systemd notifications.
//! Must not know the flow: the worker reports to these modules.

pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod status;
pub mod systemd;
pub mod traces;
