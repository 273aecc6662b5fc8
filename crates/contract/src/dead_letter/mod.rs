//! Owns the headers of dead letters, and what `ticketlog dead` does with them: selecting, counting, archiving, showing. Pure.
//!
//! | module | owns |
//! |---|---|
//! | `headers` | the `dl-` headers, as the worker and a replay write them |
//! | `receipt` | what the publisher of a dead letter is told |
//! | `record` | reading them, or else RabbitMQ's `x-death` |
//! | `filter` | which dead letters a command selects |
//! | `groups` | statistics by cause |
//! | `same_ids` | which dead letters have the same id |
//! | `archive` | a dead letter as a line of NDJSON |
//! | `render` | showing a body, safe for a terminal |

mod archive;
mod filter;
mod groups;
mod headers;
mod receipt;
mod record;
mod render;
mod same_ids;

pub use archive::{ArchiveError, ArchivedMessage};
pub use filter::{BodyCondition, DeadLetterFields, Filter};
pub use groups::{Group, Groups, HISTORY_POINTS, bounded};
pub use headers::{
    FIRST_ID, HeaderValue, ID, Origin, PREFIX, REPLAYS, ReplayMark, USER_ID, fingerprint, headers, one_line,
};
pub use receipt::{Receipt, receipt};
pub use record::{Cause, DeadLetterRecord, XDeath};
pub use render::{escape, fault_offset, indent_json, render_hex, render_text, terminal_safe};
pub use same_ids::SameIds;
