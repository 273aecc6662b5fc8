//! ticketlog reads ticket operations from RabbitMQ and stores each of them once in MongoDB.
//!
//! Below it are the crates `ticketlog_contract` (what a message means), `ticketlog_config` (settings), `ticketlog_http`,
//! `ticketlog_rabbitmq`, `ticketlog_status` and `ticketlog_desk`. The modules here, from the bottom up; a module uses only
//! modules above it in this table:
//!
//! | module | owns | does IO |
//! |---|---|---|
//! | [`mongodb`] | everything about MongoDB; the only module that names its driver | yes |
//! | [`observe`] | health, metrics, traces, status, HTTP endpoints, logging, systemd | yes |
//! | [`worker`] | the flow: supervisor, session loop, batches, writes, dead letters | through the above |
//! | [`cli`] | the command line: one file a command | yes |

pub mod cli;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod mongodb;
pub mod observe;
pub mod worker;
