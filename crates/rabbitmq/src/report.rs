//! How a long operation tells a person what it does, and learns that it shall stop.

/// Where an operation reports to.
pub trait Report: Send + Sync {
    /// A sentence that the operator should read.
    fn note(&self, text: &str);
    /// The number of messages to process, once it is known.
    fn set_total(&self, total: u64);
    /// The number of messages processed so far.
    fn set_done(&self, done: u64);
    /// Whether the operation shall end early, gracefully.
    fn is_stopped(&self) -> bool;
}
