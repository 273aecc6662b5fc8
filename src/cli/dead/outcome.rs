//! Runs an operation on dead letters for a command, prints what it did, and says so with the exit code.

use std::sync::Arc;

use ticketlog_config::RouteSettings;
use ticketlog_desk::{self as desk, DeskError, Done, EndedEarly, Operation, Outcome, Run};
use ticketlog_rabbitmq::report::Report;

use super::super::terminal::{after_printing, note, print_line};
use super::super::terminal_report::TerminalReport;
use super::super::{CommandError, exit};
use super::selection::AuditArgs;

/// Runs an operation: with its audit, a progress bar, and an interrupt that stops it gracefully.
///
/// # Errors
/// The audit file cannot be written; nothing was done.
pub(super) async fn run<O: Operation>(
    operation: &O,
    settings: &RouteSettings,
    audit: &AuditArgs,
) -> Result<Done, CommandError> {
    let audit = audit.begin(operation.subject())?;
    let report: Arc<dyn Report> = TerminalReport::of_unknown_total("dead letters").stopped_by_interrupt();
    Ok(desk::run(operation, audit, Run { settings, report: &report }).await)
}

/// Runs an operation and prints what it did, as a sentence or as JSON. Returns the exit code.
///
/// # Errors
/// Why the operation failed.
pub(super) async fn run_and_print(
    operation: &impl Operation,
    settings: &RouteSettings,
    audit: &AuditArgs,
    json: bool,
) -> Result<u8, CommandError> {
    let _logging = AuditArgs::log(settings);
    print(operation, run(operation, settings, audit).await?, json)
}

/// Prints what an operation did.
///
/// # Errors
/// Why the operation failed.
pub(super) fn print(operation: &impl Operation, done: Done, json: bool) -> Result<u8, CommandError> {
    let Done { outcome, ended } = done;
    let printed = if ended.is_ok() || !outcome.is_empty() {
        print_line(if json { operation.to_json(&outcome).to_string() } else { operation.to_text(&outcome) })
    } else {
        Ok(())
    };
    after_printing(finish(operation, &outcome, ended), printed)
}

/// The notes and the exit code of an outcome that is printed.
///
/// # Errors
/// Why the operation failed.
pub(super) fn finish(
    operation: &impl Operation,
    outcome: &Outcome,
    ended: Result<(), DeskError>,
) -> Result<u8, CommandError> {
    outcome.notes(operation, ended.is_err()).iter().for_each(note);
    ended?;
    Ok(match outcome {
        _ if !outcome.undeliverable.is_empty() => exit::UNAVAILABLE,
        _ if outcome.is_stopped => exit::INTERRUPTED,
        Outcome { ended_early: Some(EndedEarly::NoOutcome(_)), .. } => exit::TEMPORARY,
        _ if outcome.ended_early.is_some() => exit::DATA,
        _ if !outcome.stayed.edit_failed.is_empty() || outcome.cut_off.is_some() => exit::DATA,
        _ => 0,
    })
}
