//! ticketlog: reads ticket operations from RabbitMQ and stores each of them once in MongoDB.
//!
//! The map of the crate, from the inside out:
//!
//! | module | owns | may do IO |
//! |---|---|---|
//! | [`event`] | what a message means: decode, cast, identify, or refuse | no |
//! | [`batch`] | when a batch closes | no |
//! | [`dead_letter`] | what a dead letter says, and what the desk makes of it | no |
//! | [`retry`] | the delay before the next attempt | no |
//! | [`config`] | the settings and their layers | reads its files |
//! | [`metrics`], [`telemetry`], [`health`], [`http`] | what is shown of all this | yes |
//! | [`broker`] | RabbitMQ; the only place that names lapin | yes |
//! | [`store`] | MongoDB; the only place that names its driver | yes |
//! | [`supervision`] | what systemd is told | its socket |
//! | [`host`] | the name of this machine | reads it |
//! | [`recent`] | the latest dead letters and replays | no |
//! | [`finding`] | one line of `ticketlog check` | no |
//! | [`fetch`] | a GET over plain HTTP, for the desk | yes |
//! | [`pipeline`] | the flow between them | through them |
//! | [`cli`] | one file a command | yes |

pub mod batch;
pub mod broker;
pub mod cli;
pub mod config;
pub mod dead_letter;
pub mod event;
pub mod fetch;
pub mod finding;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod health;
pub mod host;
pub mod http;
pub mod metrics;
pub mod pipeline;
pub mod recent;
pub mod retry;
pub mod store;
pub mod supervision;
pub mod telemetry;
