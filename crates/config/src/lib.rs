//! Owns the settings: names, types and defaults (`config/default.toml`), layers, validation.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | the settings of the process |
//! | `route` | the settings of a route |
//! | `layers` | reading a file, the environment, flags |
//! | `load` | merging them |
//! | `validate`, `validate_routes` | bounds and contradictions, collected as `faults` |
//! | `servers` | what is wrong with the address of a server |
//! | `error` | where a setting was given, and what is wrong with it |
//! | `variables` | environment variables that are no settings |
//! | `units`, `uri` | durations, sizes, server URIs |

mod error;
mod faults;
pub mod finding;
pub mod format;
mod layers;
mod load;
mod route;
mod servers;
mod settings;
pub mod system;
mod units;
mod uri;
mod validate;
mod validate_routes;
mod variables;

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors, Source};
pub use load::load_text;
pub use load::{DEFAULT, EffectiveSetting, Loaded, Sources, load};
pub use route::{MAIN_ROUTE, RouteSettings};
pub use settings::{
    BatchSettings, BrokerSettings, DeadLetterSettings, EventSettings, FieldSettings, HttpSettings, LogFormat,
    LogSettings, OperatorSettings, QueueType, RetrySettings, Settings, ShutdownSettings, StoreSettings,
    TelemetrySettings, WriteSettings,
};
pub use units::{HumanDuration, Retention, Size};
pub use uri::{
    broker_addresses, redacted, store_database, store_hosts, unencrypted_broker_host, unencrypted_store_host,
};
