//! Owns what of `store.uri` the driver can use: it refuses options of other clients, and its error texts may hold a part of
//! the URI. Pure. Must not know connections.

use ::mongodb::options::ConnectionString;
use secrecy::ExposeSecret as _;
use thiserror::Error;

use crate::config::StoreSettings;

/// Options that other clients accept (Mongoose, Node's driver, pymongo, older drivers) and that change nothing for this one.
const IGNORED: [&str; 18] = [
    "autoReconnect",
    "connect",
    "enableUtf8Validation",
    "family",
    "forceServerObjectId",
    "ignoreUndefined",
    "keepAlive",
    "keepAliveInitialDelay",
    "maxTimeMS",
    "noDelay",
    "timeoutMS",
    "tlsDisableCertificateRevocationCheck",
    "tlsDisableOCSPEndpointCheck",
    "tz_aware",
    "useNewUrlParser",
    "useUnifiedTopology",
    "waitQueueMultiple",
    "wtimeout",
];

/// Options of MongoDB's connection strings (manual, "Connection String Options"). Only these names are shown: another may be
/// a part of a password.
const KNOWN: [&str; 40] = [
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "connectTimeoutMS",
    "directConnection",
    "heartbeatFrequencyMS",
    "journal",
    "loadBalanced",
    "localThresholdMS",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "maxStalenessSeconds",
    "minPoolSize",
    "proxyHost",
    "proxyPassword",
    "proxyPort",
    "proxyUsername",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "socketTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "tlsInsecure",
    "w",
    "wTimeoutMS",
];

/// Why `store.uri` cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StoreUriError {
    /// The value of an option, or the option itself.
    #[error("the option {0} or its value cannot be used here; correct or remove it")]
    Option(&'static str),
    /// An option that MongoDB does not have.
    #[error(
        "an option after the ? is not one of MongoDB's, or a character before it must be percent-encoded (its name is not \
         shown, because it may be a part of a password)"
    )]
    UnknownOption,
    /// Anything else.
    #[error(
        "it cannot be parsed; percent-encode the user name and the password (/ as %2F, @ as %40, : as %3A, % as %25)"
    )]
    Unparsable,
}

/// A URI that the driver accepts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UsableUri {
    pub uri: String,
    /// Options that were left out.
    pub ignored: Vec<&'static str>,
}

/// Leaves out the options that change nothing.
///
/// # Errors
/// What else the driver does not accept.
pub(super) fn usable(uri: &str) -> Result<UsableUri, StoreUriError> {
    let (base, options) = uri.split_once('?').unwrap_or((uri, ""));
    let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
    let listed = |list: &[&'static str], option: &str| {
        list.iter().find(|known| known.eq_ignore_ascii_case(&name(option))).copied()
    };
    let (ignored, kept): (Vec<&str>, Vec<&str>) =
        options.split('&').filter(|option| !option.is_empty()).partition(|option| listed(&IGNORED, option).is_some());
    let uri = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    let ignored = ignored.into_iter().filter_map(|option| listed(&IGNORED, option)).collect();
    if ConnectionString::parse(&uri).is_ok() {
        return Ok(UsableUri { uri, ignored });
    }
    if ConnectionString::parse(base).is_err() {
        return Err(StoreUriError::Unparsable);
    }
    // The option that is at fault alone, or else the one without which the rest is accepted.
    let alone = |option: &&&str| ConnectionString::parse(format!("mongodb://host/?{option}")).is_err();
    let decisive = |option: &&&str| {
        let others: Vec<&str> = kept.iter().filter(|other| ***other != ***option).copied().collect();
        ConnectionString::parse(format!("{base}?{}", others.join("&"))).is_ok()
    };
    let fault = kept.iter().find(decisive).or_else(|| kept.iter().find(alone));
    Err(fault.and_then(|option| listed(&KNOWN, option)).map_or(StoreUriError::UnknownOption, StoreUriError::Option))
}

/// Checks `store.uri`; returns the options that are left out because they change nothing.
///
/// # Errors
/// What the driver does not accept.
pub fn check_settings(settings: &StoreSettings) -> Result<Vec<&'static str>, StoreUriError> {
    usable(settings.uri.expose_secret()).map(|usable| usable.ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_other_clients_are_left_out_and_faults_are_named() {
        let usable = |uri: &str| super::usable(uri).map(|usable| (usable.uri, usable.ignored));
        assert_eq!(usable("mongodb://h/?replicaSet=r"), Ok(("mongodb://h/?replicaSet=r".to_owned(), vec![])));
        assert_eq!(
            usable("mongodb://u:p@h/d?useNewUrlParser=true&w=majority&usetimeout=1"),
            Err(StoreUriError::UnknownOption)
        );
        assert_eq!(
            usable("mongodb://u:p@h/d?useNewUrlParser=true&compressors=zlib,snappy,zstd&TZ_AWARE=true"),
            Ok(("mongodb://u:p@h/d?compressors=zlib,snappy,zstd".to_owned(), vec!["useNewUrlParser", "tz_aware"]))
        );
        assert_eq!(usable("mongodb://h/?retryWrites=maybe&tls=true"), Err(StoreUriError::Option("retryWrites")));
        assert_eq!(usable("mongodb://u:50%@h/"), Err(StoreUriError::Unparsable));
        assert_eq!(usable("mongodb://u:p:q@h/?tls=true"), Err(StoreUriError::Unparsable));
    }
}
