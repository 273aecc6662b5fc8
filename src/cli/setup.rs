//! Owns `ticketlog setup`. Must not know what it declares.

use crate::mongodb::{self, IndexReport, Store};
use ticketlog_config::RouteSettings;
use ticketlog_rabbitmq as rabbitmq;

use super::terminal::{note, print_line};
use super::{CommandError, exit};

pub(super) fn run(routes: &[RouteSettings]) -> Result<u8, CommandError> {
    super::block_on(async {
        let mut code = 0;
        for settings in routes {
            if settings.has_several_routes() {
                print_line(format_args!("route {}:", settings.name))?;
            }
            mongodb::check_settings(&settings.store)?;
            rabbitmq::setup(settings).await?;
            print_line("RabbitMQ: the exchanges, queues and bindings exist")?;
            if !ensure_indexes(settings).await? {
                code = exit::UNAVAILABLE;
            }
        }
        Ok(code)
    })
}

/// Creates the indexes; false if some could not be created.
async fn ensure_indexes(settings: &RouteSettings) -> Result<bool, CommandError> {
    let store = Store::open(settings, 1, None).await?;
    store.probe().await?;
    let mut complete = true;
    for report in mongodb::ensure_indexes(&store, settings.store.retention.0).await? {
        match report {
            IndexReport::Ready(name) => print_line(format_args!("MongoDB: index {name} exists"))?,
            IndexReport::Differs(name) => {
                print_line(format_args!("MongoDB: index {name} has other options and stays as it is"))?
            }
            IndexReport::Failed(name, failure) => {
                let advice = mongodb::index_advice(&failure);
                note(format_args!("MongoDB: index {name} could not be created: {failure}; {advice}"));
                complete = false;
            }
        }
    }
    Ok(complete)
}
