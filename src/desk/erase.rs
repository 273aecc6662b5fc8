//! Owns finding the dead letters of one user, for their erasure. Must not know how they are deleted, nor documents.

use std::sync::Arc;

use crate::config::Settings;
use crate::dead_letter::BodyCondition;
use crate::report::Report;

use super::reader::{LetterReader, json_body};
use super::{DeskError, Selection, Source};

/// What a queue holds of a user.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct UserLetters {
    /// Dead letters of the user.
    pub found: u64,
    /// Dead letters whose bodies are not JSON: nobody knows whose they are.
    pub unreadable: u64,
}

/// Looks through a queue; nothing is changed.
///
/// # Errors
/// The queue cannot be read.
pub async fn find_user_letters(
    settings: &Settings,
    source: &Source,
    user: &BodyCondition,
    report: &Arc<dyn Report>,
) -> Result<UserLetters, DeskError> {
    let mut reader = LetterReader::open(settings, source, &Selection::default(), report).await?;
    let (mut letters, rules) = (UserLetters::default(), settings.rules());
    let read = async {
        while let Some(letter) = reader.next().await? {
            match json_body(&letter.delivery, &rules) {
                Some(body) => letters.found += u64::from(user.matches(&body)),
                None => letters.unreadable += 1,
            }
        }
        Ok(())
    }
    .await;
    reader.close(read).await?;
    Ok(letters)
}
