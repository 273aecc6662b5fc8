//! Owns the flow of messages from RabbitMQ to MongoDB. Must not name a driver.
//!
//! | module | owns |
//! |---|---|
//! | `supervisor` | the life of the process: wait for the store, open a session, run it, start again |
//! | `session` | the life of a session: one task, one loop |
//! | `decode` | a delivery becomes an event or a rejection |
//! | `batcher` | when a batch closes |
//! | `write`, `batch_progress` | a batch on its way into the store, and the outcome of each document |
//! | `dead_letters` | rejected messages until their dead letters are confirmed |
//! | `receipts` | what publishers are told of their dead letters |
//! | `breaker` | when rejected messages are held instead of dead-lettered |
//! | `pace` | a limit of events a second |
//! | `probes` | checks beside the flow: an idle store, its clock, queue depths |
//! | `backoff` | the delays between attempts |
//! | `steering` | what an operator asks of the flow: pause, resume, other settings |
//! | `causes` | which causes of dead letters were seen before |
//! | `context` | what all parts share: settings, store, health, counters |

pub mod backoff;
mod batch_progress;
pub mod batcher;
mod breaker;
mod causes;
mod context;
mod dead_letters;
mod decode;
mod pace;
mod probes;
mod receipts;
mod session;
#[cfg(test)]
mod simulation_tests;
mod steering;
mod supervisor;
mod write;

pub use causes::KnownCauses;
pub use context::{TrustedUsers, WorkerContext};
pub use steering::Steering;
pub use supervisor::run;
