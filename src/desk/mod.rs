//! Owns the operations on dead letters: reading them without changing the queue, forecasting, replaying, parking, purging,
//! exporting. The command line and the console use them alike. Must not know terminals, pages or exit codes.
//!
//! | module | owns |
//! |---|---|
//! | `selection` | which queue, and which of its dead letters |
//! | `reader` | reading the selected dead letters |
//! | `transfer` | moving them elsewhere: confirmed there before they leave |
//! | `edit`, `expression` | mending a body |
//! | `forecast` | what would become of them |
//! | `replay`, `park`, `purge`, `export` | the operations |
//! | `erase` | finding the dead letters of one user |
//! | `outcomes` | what became of a replay, as the workers tell |
//! | `audit` | who did what, when, with what outcome |
//! | `archive_file` | the files that they are saved in |
//! | `format` | how ages, times and counts are written |

mod archive_file;
mod audit;
mod edit;
mod erase;
mod error;
mod export;
mod expression;
mod forecast;
mod format;
mod outcomes;
mod park;
mod purge;
mod reader;
mod replay;
mod selection;
mod transfer;

pub use archive_file::{create_file, sync_directory};
pub use audit::{Audit, operator};
pub use edit::{Edit, serve_expressions};
pub use erase::{Undecided, UserLetters, UserSearch};
pub use error::DeskError;
pub use export::export;
pub use forecast::{Forecast, Sample, replayed_message};
pub use format::{age, counted, dead_letters, rfc3339};
pub use outcomes::{Outcomes, ask_workers};
pub use park::{Park, ParkReport};
pub use purge::Purge;
pub use reader::{LetterReader, SelectedLetter, readable_body};
pub use replay::{Replay, ReplayReport};
pub use selection::{Selection, Source};
pub use transfer::TransferReport;
