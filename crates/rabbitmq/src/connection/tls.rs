//! Owns the TLS settings of connections to RabbitMQ: PEM files, read at every connection so that they can be renewed.

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};

use ticketlog_config::BrokerSettings;

use super::super::error::BrokerError;

/// Reads the files that the settings name.
///
/// # Errors
/// `Certificate`, with the setting and what is wrong with its file.
pub(super) fn read_files(settings: &BrokerSettings) -> Result<OwnedTLSConfig, BrokerError> {
    let cert_chain = match settings.tls_ca.as_str() {
        "" => None,
        path => Some(read_pem("broker.tls_ca", path, "CERTIFICATE")?),
    };
    let identity = match settings.tls_certificate.as_str() {
        "" => None,
        path => Some(OwnedIdentity::PKCS8 {
            pem: read_pem("broker.tls_certificate", path, "CERTIFICATE")?.into_bytes(),
            key: read_pem("broker.tls_key", &settings.tls_key, "PRIVATE KEY")?.into_bytes(),
        }),
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

fn read_pem(setting: &str, path: &str, block: &str) -> Result<String, BrokerError> {
    let error = |problem: &str| BrokerError::Certificate(format!("{setting} = {path:?} {problem}"));
    let text = std::fs::read_to_string(path).map_err(|cause| error(&format!("cannot be read: {cause}")))?;
    if text.contains(&format!("{block}-----")) { Ok(text) } else { Err(error(&format!("holds no {block} in PEM"))) }
}
