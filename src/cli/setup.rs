//! Owns `ticketlog setup`. Must not know what it declares.

use crate::mongodb::{self, Failure, IndexReport, Store};
use ticketlog_config::RouteSettings;
use ticketlog_rabbitmq as rabbitmq;

use super::terminal::{note, print_line};
use super::{CommandError, exit};

/// The logins of deploy/ that may do it.
const ADMIN: &str =
    "the login ticketlog-admin of deploy/rabbitmq: name it in operator.broker_uri, or in operator.broker_uri_file";
const ROLE: &str = "a login with the role ticketlogSetup of deploy/mongodb: name it in operator.store_uri, or in operator.store_uri_file";

pub(super) fn run(routes: &[RouteSettings]) -> Result<u8, CommandError> {
    super::block_on(async {
        let mut code = 0;
        for settings in routes {
            if settings.has_several_routes() {
                print_line(format_args!("route {}:", settings.name))?;
            }
            mongodb::check_settings(&settings.store)?;
            rabbitmq::setup(settings).await.map_err(|error| name_login(error.into(), ADMIN))?;
            print_line("RabbitMQ: the exchanges, queues and bindings exist")?;
            code = code.max(ensure_indexes(settings).await?);
        }
        Ok(code)
    })
}

/// Adds the login that may do what was refused.
fn name_login(error: CommandError, login: &str) -> CommandError {
    if error.code != exit::NO_PERMISSION {
        return error;
    }
    CommandError::text(error.code, format!("{:#}\n`ticketlog setup` needs {login}", error.error))
}

/// Creates the indexes, and returns the exit code.
async fn ensure_indexes(settings: &RouteSettings) -> Result<u8, CommandError> {
    let uri = settings.store.uri_setting;
    let failed = |failure: Failure| name_login(CommandError::of_store(&failure, uri), ROLE);
    let store = Store::open(settings, 1, None).await.map_err(failed)?;
    store.ping().await.map_err(failed)?;
    let mut code = 0;
    for report in mongodb::ensure_indexes(&store, settings.store.retention.0).await.map_err(failed)? {
        match report {
            IndexReport::Ready(name) => print_line(format_args!("MongoDB: index {name} exists"))?,
            IndexReport::Differs(name) => {
                print_line(format_args!("MongoDB: index {name} has other options and stays as it is"))?
            }
            IndexReport::Failed(_, failure) if failure.is_permission() => return Err(failed(failure)),
            IndexReport::Failed(name, failure) => {
                let advice = mongodb::index_advice(&failure);
                note(format_args!("MongoDB: index {name} could not be created: {}; {advice}", failure.what(uri)));
                code = exit::UNAVAILABLE;
            }
        }
    }
    Ok(code)
}
