//! Owns `ticketlog setup`: declares exchanges, queues, collection and indexes.

use crate::mongodb::{self, Failure, IndexReport, Store};
use ticketlog_config::RouteSettings;
use ticketlog_rabbitmq as rabbitmq;

use super::terminal::{after_printing, note, print_line};
use super::{CommandError, exit};

/// The logins of deploy/ that may do it.
const ADMIN: &str =
    "the login ticketlog-admin of deploy/rabbitmq: name it in operator.broker_uri, or in operator.broker_uri_file";
const ROLE: &str = "a login with the role ticketlogSetup of deploy/mongodb: name it in operator.store_uri, or in operator.store_uri_file";

pub(super) fn run(routes: &[RouteSettings]) -> Result<u8, CommandError> {
    super::block_on(async {
        let (mut ended, mut printed) = (Ok(0), Ok(()));
        for settings in routes {
            let mut say = |line: String| {
                if printed.is_ok() {
                    printed = print_line(line);
                }
            };
            match set_up(settings, &mut say).await {
                Ok(true) => {}
                Ok(false) => ended = Ok(exit::UNAVAILABLE),
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            }
        }
        after_printing(ended, printed)
    })
}

/// Sets up one route, also if nobody reads what it says; false if some indexes could not be created.
async fn set_up(settings: &RouteSettings, say: &mut impl FnMut(String)) -> Result<bool, CommandError> {
    if settings.has_several_routes() {
        say(format!("route {}:", settings.name));
    }
    mongodb::check_settings(&settings.store)?;
    rabbitmq::setup(settings).await.map_err(|error| name_login(error.into(), ADMIN))?;
    say("RabbitMQ: the exchanges, queues and bindings exist".to_owned());
    ensure_indexes(settings, say).await
}

/// Adds the login that may do what was refused.
fn name_login(error: CommandError, login: &str) -> CommandError {
    if error.code != exit::NO_PERMISSION {
        return error;
    }
    CommandError::text(error.code, format!("{:#}\n`ticketlog setup` needs {login}", error.error))
}

/// Creates the indexes; false if some could not be created.
async fn ensure_indexes(settings: &RouteSettings, say: &mut impl FnMut(String)) -> Result<bool, CommandError> {
    let uri = settings.store.uri_setting;
    let failed = |failure: Failure| name_login(CommandError::of_store(&failure, uri), ROLE);
    let store = Store::open(settings, 1, None).await.map_err(failed)?;
    store.ping().await.map_err(failed)?;
    let mut complete = true;
    for report in mongodb::ensure_indexes(&store, settings.store.retention.0).await.map_err(failed)? {
        match report {
            IndexReport::Ready(name) => say(format!("MongoDB: index {name} exists")),
            IndexReport::Differs(name) => {
                say(format!("MongoDB: index {name} has other options and stays as it is"));
            }
            IndexReport::Failed(_, failure) if failure.is_permission() => return Err(failed(failure)),
            IndexReport::Failed(name, failure) => {
                let advice = mongodb::index_advice(&failure);
                note(format_args!("MongoDB: index {name} could not be created: {}; {advice}", failure.what(uri)));
                complete = false;
            }
        }
    }
    Ok(complete)
}
