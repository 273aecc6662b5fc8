//! The operations on dead letters: reading them without changing the queue, forecasting, replaying, parking, purging, exporting,
//! importing. The command line and the console read the input, call these, and show the outcome.
//!
//! | module | owns |
//! |---|---|
//! | `selection` | which queue, and which of its dead letters |
//! | `operation` | what all operations have in common: audit, outcome, failure |
//! | `reader` | reading the selected dead letters, and removing them |
//! | `transfer` | moving them elsewhere: confirmed there before they leave |
//! | `edit`, `expression` | editing a body |
//! | `forecast` | what would become of them |
//! | `replay`, `park`, `purge`, `export`, `import` | the operations |
//! | `field_search` | which dead letters have a value in a field |
//! | `erase` | finding the dead letters of one user |
//! | `find` | finding one event, wherever it is |
//! | `follow` | what became of a replay, as the workers tell |
//! | `stop_after` | ending a replay when too many are dead-lettered again |
//! | `audit` | who did what, when, with what outcome |
//! | `archive_file` | the files that they are saved in |
//! | `console` | the same in a browser |

mod archive_file;
mod audit;
pub mod console;
mod edit;
mod erase;
mod error;
mod export;
mod expression;
mod field_search;
mod find;
mod follow;
mod forecast;
mod import;
mod memory_limit;
mod operation;
mod park;
mod purge;
mod reader;
mod replay;
mod selection;
mod stop_after;
mod transfer;

pub use audit::{Audit, Touched, operator};
pub use edit::{Edit, serve_expressions};
pub use erase::{Undecided, UserDeadLetters, UserSearch};
pub use error::DeskError;
pub use export::{Export, ExportTo, LineSink};
pub use find::{Documents, Entry, Exactly, Expected, Find, FindDocuments, Gap, GapKind, Search, Story};
pub use follow::{Follow, Followed};
pub use forecast::{Forecast, Sample, replayed_message};
pub use import::Import;
pub use operation::{Done, Operation, Outcome, Progress, run};
pub use park::Park;
pub use purge::Purge;
pub use reader::{DeadLetter, DeadLetterReader, Run, readable_body};
pub use replay::{Replay, StartSpan};
pub use selection::{Selection, Source};
pub use stop_after::{EndedEarly, StopAfter};
pub use transfer::ReplaySpan;
