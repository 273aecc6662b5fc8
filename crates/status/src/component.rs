//! The components that readiness depends on.

use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

/// What readiness depends on. The names are those of `/readyz`, `/status` and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumString, IntoStaticStr, VariantArray, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Component {
    /// RabbitMQ: consuming.
    Broker,
    /// MongoDB: answering.
    Store,
    /// Documents: MongoDB rejects none for a reason that the worker does not know.
    Document,
    /// Dead letters: they can be published, as far as is known.
    DeadLetter,
    /// The circuit breaker: closed.
    Breaker,
    /// Consuming: not paused by an operator.
    Consumer,
}

impl Component {
    /// The name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
