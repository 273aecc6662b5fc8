//! Owns exporting dead letters as lines; they stay in the queue. Must not know where the lines go.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::RouteSettings;
use crate::report::Report;

use super::{DeskError, LetterReader, Selection, Source};

/// Hands every selected dead letter to `write`, as a line of the archive format without line end. Returns their number.
///
/// # Errors
/// The queue cannot be read, it was stopped, or an error of `write`.
pub async fn export(
    settings: &RouteSettings,
    source: &Source,
    selection: &Selection,
    report: &Arc<dyn Report>,
    mut write: impl FnMut(String) -> BoxFuture<'static, std::io::Result<()>> + Send,
) -> Result<u64, DeskError> {
    let mut reader = LetterReader::open(settings, source, selection, report).await?;
    let written = async {
        let mut exported = 0;
        while let Some(letter) = reader.next().await? {
            write(letter.delivery.archive(&letter.record, &source.queue).to_line()).await?;
            exported += 1;
            report.set_done(exported);
        }
        Ok(exported)
    }
    .await;
    let exported = reader.close(written).await?;
    if report.is_stopped() { Err(DeskError::Stopped) } else { Ok(exported) }
}
