//! Owns what of `store.uri` the driver can use: it refuses options of other clients, and its error texts may hold a part of the URI.

use std::path::Path;

use ::mongodb::options::{ClientOptions, ConnectionString, Tls};
use futures_util::FutureExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use thiserror::Error;

use ticketlog_config::StoreSettings;

/// Options of MongoDB's and of its other clients (Mongoose, Node's driver, pymongo, Java's, older ones) that change nothing for this
/// one: timeouts, the pool, the write concern and reads are set by our own settings.
const IGNORED: [&str; 44] = [
    "acceptableLatencyMS",
    "autoReconnect",
    "auto_reconnect",
    "bufferMaxEntries",
    "connect",
    "domainsEnabled",
    "enableUtf8Validation",
    "family",
    "forceServerObjectId",
    "fsync",
    "guids",
    "ha",
    "haInterval",
    "ignoreUndefined",
    "j",
    "keepAlive",
    "keepAliveInitialDelay",
    "maxLifeTimeMS",
    "maxTimeMS",
    "minHeartbeatFrequencyMS",
    "monitorCommands",
    "noDelay",
    "poolSize",
    "promoteBuffers",
    "promoteLongs",
    "promoteValues",
    "reconnectInterval",
    "reconnectTries",
    "safe",
    "secondaryAcceptableLatencyMS",
    "serializeFunctions",
    "slaveOk",
    "socketTimeoutMS",
    "timeoutMS",
    "tlsDisableCertificateRevocationCheck",
    "tlsDisableOCSPEndpointCheck",
    "tz_aware",
    "useBigInt64",
    "useNewUrlParser",
    "useUnifiedTopology",
    "uuidRepresentation",
    "waitQueueMultiple",
    "waitQueueSize",
    "wtimeout",
];

/// Options of MongoDB's connection strings (manual, "Connection String Options"), and names that its clients had for some of them.
/// Only these names are shown: another may be a part of a password.
const KNOWN: [&str; 61] = [
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "connectTimeoutMS",
    "directConnection",
    "enableOverloadRetargeting",
    "gssapiServiceName",
    "heartbeatFrequencyMS",
    "journal",
    "loadBalanced",
    "localThresholdMS",
    "maxAdaptiveRetries",
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
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "sslAllowInvalidCertificates",
    "sslAllowInvalidHostnames",
    "sslCA",
    "sslCAFile",
    "sslCert",
    "sslCRL",
    "sslKey",
    "sslPass",
    "sslPEMKeyFile",
    "sslValidate",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
    "tlsCAFile",
    "tlsCertificateFile",
    "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword",
    "tlsCRLFile",
    "tlsInsecure",
    "tlsUseSystemCA",
    "w",
    "waitQueueTimeoutMS",
    "wTimeoutMS",
    "zlibCompressionLevel",
];

/// Why `store.uri` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreUriError {
    /// The value of an option, or the option itself.
    #[error("the option {0} or its value cannot be used here, or not with the other options; correct or remove it")]
    Option(&'static str),
    /// A file that an option names.
    #[error("the file {path} of {option} {fault}")]
    File { option: &'static str, path: String, fault: String },
    /// An option that MongoDB does not have.
    #[error(
        "an option after the ? is not one of MongoDB's, or a character before it must be percent-encoded (its name is not \
         shown, because it may be a part of a password)"
    )]
    UnknownOption,
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
    if is_accepted(&uri) {
        return Ok(UsableUri { uri, ignored });
    }
    if ConnectionString::parse(base).is_err() {
        return Err(StoreUriError::Unparsable);
    }
    // The option that is at fault alone, or else the one without which the rest is accepted.
    let alone = |option: &&&str| !is_accepted(&format!("mongodb://host/?{option}"));
    let decisive = |option: &&&str| {
        let others: Vec<&str> = kept.iter().filter(|other| ***other != ***option).copied().collect();
        is_accepted(&format!("{base}?{}", others.join("&")))
    };
    let fault = kept.iter().find(decisive).or_else(|| kept.iter().find(alone));
    Err(fault.and_then(|option| listed(&KNOWN, option)).map_or(StoreUriError::UnknownOption, StoreUriError::Option))
}

/// Whether the driver accepts a URI: each option, and, as far as that needs no DNS, all of them together.
fn is_accepted(uri: &str) -> bool {
    let each = ConnectionString::parse(uri).is_ok();
    let together = || ClientOptions::parse(uri).into_future().now_or_never().is_none_or(|options| options.is_ok());
    each && (uri.starts_with("mongodb+srv:") || together())
}

/// Checks `store.uri`, with the files that it names; returns the options that are left out because they change nothing.
///
/// # Errors
/// What the driver does not accept, or a file that cannot be used.
pub fn check_settings(settings: &StoreSettings) -> Result<Vec<&'static str>, StoreUriError> {
    check(settings.uri.expose_secret())
}

fn check(uri: &str) -> Result<Vec<&'static str>, StoreUriError> {
    let usable = usable(uri)?;
    if let Ok(ConnectionString { tls: Some(Tls::Enabled(tls)), .. }) = ConnectionString::parse(&usable.uri) {
        check_file("tlsCAFile", tls.ca_file_path.as_deref(), false)?;
        check_file("tlsCertificateKeyFile", tls.cert_key_file_path.as_deref(), true)?;
    }
    Ok(usable.ignored)
}

/// Whether a PEM file holds a certificate, and a private key if it needs one.
fn check_file(option: &'static str, path: Option<&Path>, needs_key: bool) -> Result<(), StoreUriError> {
    let Some(path) = path else { return Ok(()) };
    let fault = |fault: String| Err(StoreUriError::File { option, path: path.display().to_string(), fault });
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) => return fault(format!("cannot be read: {error}")),
    };
    if !CertificateDer::pem_slice_iter(&content).any(|certificate| certificate.is_ok()) {
        return fault("holds no certificate in PEM form".to_owned());
    }
    if needs_key && PrivateKeyDer::from_pem_slice(&content).is_err() {
        return fault("holds no private key in PEM form, or one that is encrypted".to_owned());
    }
    Ok(())
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
        for (option, name) in [
            ("socketTimeoutMS=30000", "socketTimeoutMS"),
            ("sockettimeoutms=30000", "socketTimeoutMS"),
            ("j=true", "j"),
            ("uuidRepresentation=standard", "uuidRepresentation"),
            ("slaveOk=true", "slaveOk"),
            ("poolSize=5", "poolSize"),
        ] {
            let uri = format!("mongodb://h/?{option}&tls=true");
            assert_eq!(usable(&uri), Ok(("mongodb://h/?tls=true".to_owned(), vec![name])), "{option}");
        }
        for (uri, option) in [
            ("mongodb://h/?tls=true&sslCA=/x", "sslCA"),
            ("mongodb://h/?tlsCertificateKeyFilePassword=p", "tlsCertificateKeyFilePassword"),
            ("mongodb://h/?maxPoolSize=many", "maxPoolSize"),
            // Options that contradict each other, or the hosts.
            ("mongodb://a,b/?tls=true&directConnection=true", "directConnection"),
            ("mongodb://h/?loadBalanced=true&replicaSet=r", "loadBalanced"),
        ] {
            assert_eq!(usable(uri), Err(StoreUriError::Option(option)), "{uri}");
        }
        assert!(usable("mongodb+srv://db.example/?retryWrites=true").is_ok());
        assert_eq!(usable("mongodb://u:50%@h/"), Err(StoreUriError::Unparsable));
        assert_eq!(usable("mongodb://u:p:q@h/?tls=true"), Err(StoreUriError::Unparsable));
    }
    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let key = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        std::fs::write(path("certificate"), key.cert.pem()).unwrap();
        std::fs::write(path("both"), key.cert.pem() + &key.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("text"), "no certificate").unwrap();
        let check = |option: &str, name: &str| {
            let uri = format!("mongodb://h/?tls=true&{option}={}", path(name));
            super::check(&uri).map_err(|error| error.to_string())
        };
        for (option, name, fault) in [
            ("tlsCAFile", "missing", "cannot be read: No such file or directory (os error 2)"),
            ("tlsCertificateKeyFile", "missing", "cannot be read: No such file or directory (os error 2)"),
            ("tlsCAFile", "text", "holds no certificate in PEM form"),
            ("tlsCertificateKeyFile", "certificate", "holds no private key in PEM form, or one that is encrypted"),
        ] {
            assert_eq!(check(option, name), Err(format!("the file {} of {option} {fault}", path(name))));
        }
        assert_eq!(check("tlsCAFile", "certificate"), Ok(vec![]));
        assert_eq!(check("tlsCertificateKeyFile", "both"), Ok(vec![]));
    }
}
