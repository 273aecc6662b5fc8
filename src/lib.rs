//! ticketlog reads ticket operations from RabbitMQ and stores each of them once in MongoDB.
//!
//! The modules, from the bottom up. A module uses only modules above it in this table:
//!
//! | module | owns | does IO |
//! |---|---|---|
//! | [`event`] | what a message means: decoding, casting, identity, the reasons for a rejection | no |
//! | [`dead_letter`] | dead letters: headers, filters, statistics, archive format, display | no |
//! | [`finding`] | one line of `ticketlog check` | no |
//! | [`report`] | how a long operation tells a person what it does | no |
//! | [`system`] | host name and clock | reads them |
//! | [`http_client`] | connecting over HTTP and HTTPS, GET requests | yes |
//! | [`http_server`] | serving HTTP/1 with bounds | yes |
//! | [`config`] | the settings, their layers and their validation | reads files |
//! | [`rabbitmq`] | everything about RabbitMQ; the only module that names lapin | yes |
//! | [`mongodb`] | everything about MongoDB; the only module that names its driver | yes |
//! | [`observe`] | health, metrics, traces, status, HTTP endpoints, logging, systemd | yes |
//! | [`worker`] | the flow: supervisor, session loop, batches, writes, dead letters | through the above |
//! | [`desk`] | the operations on dead letters: reading, forecasting, replaying, parking, purging | through the above |
//! | [`console`] | the desk in a browser | through the above |
//! | [`cli`] | the command line: one file a command | yes |

pub mod cli;
pub mod config;
pub mod console;
pub mod dead_letter;
pub mod desk;
pub mod event;
pub mod finding;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod http_client;
pub mod http_server;
pub mod mongodb;
pub mod observe;
pub mod rabbitmq;
pub mod report;
pub mod system;
pub mod worker;
