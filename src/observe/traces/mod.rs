//! Owns the traces of messages: spans by OpenTelemetry's conventions, exported by OTLP over HTTP if `telemetry.otlp` is set. Off, a
//! span costs one atomic load.
//!
//! | module | owns |
//! |---|---|
//! | `spans` | which spans there are, and what they say |
//! | `export` | the queue of ended spans and their export |

mod export;
mod spans;

pub use export::{SpanExport, install};
pub use spans::{BatchSpan, MessageSpan, ReplaySpan};
