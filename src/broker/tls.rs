//! Owns what TLS to the broker is made of: files in PEM, read at every connection, so that they can be renewed.
//! Must not know what is sent.

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};

use crate::config::Broker;

use super::BrokerError;

/// Reads the files that the settings name.
///
/// # Errors
/// `Certificate`, with the setting and what is wrong with its file.
pub(super) fn read(settings: &Broker) -> Result<OwnedTLSConfig, BrokerError> {
    let cert_chain = match settings.tls_ca.as_str() {
        "" => None,
        path => Some(pem("broker.tls_ca", path, "CERTIFICATE")?),
    };
    let identity = match settings.tls_certificate.as_str() {
        "" => None,
        path => Some(OwnedIdentity::PKCS8 {
            pem: pem("broker.tls_certificate", path, "CERTIFICATE")?.into_bytes(),
            key: pem("broker.tls_key", &settings.tls_key, "PRIVATE KEY")?.into_bytes(),
        }),
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

fn pem(key: &str, path: &str, holds: &str) -> Result<String, BrokerError> {
    let wrong = |what: &str| BrokerError::Certificate(format!("{key} = {path:?} {what}"));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    if text.contains(&format!("{holds}-----")) { Ok(text) } else { Err(wrong(&format!("holds no {holds} in PEM"))) }
}
