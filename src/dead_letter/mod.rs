//! Owns the headers of dead letters, and what `ticketlog dead` does with them: selecting, counting, archiving, showing. Pure.
//! Must not know how a message is published.
//!
//! | module | owns |
//! |---|---|
//! | `headers` | the `dl-` headers, as the worker and a replay write them |
//! | `record` | reading them, or else RabbitMQ's `x-death` |
//! | `filter` | which dead letters a command selects |
//! | `copies` | which dead letters are copies of one |
//! | `groups` | statistics by cause |
//! | `archive` | a dead letter as a line of NDJSON |
//! | `render` | showing a body, safe for a terminal |

mod archive;
mod copies;
mod filter;
mod groups;
mod headers;
mod record;
mod render;

pub use archive::{ArchiveError, ArchivedMessage};
pub use copies::{Copies, Met};
pub use filter::{BodyCondition, Filter, LetterFields};
pub use groups::{Group, Groups};
pub use headers::{
    COPY_ID, FIRST_ID, HeaderValue, ID, LetterIds, Origin, PREFIX, REPLAYS, ReplayMark, USER_ID, fingerprint, headers,
};
pub use record::{Cause, DeadLetterRecord, XDeath};
pub use render::{escape, fault_offset, indent_json, render_hex, render_text, terminal_safe_json};
