//! Every request over HTTP and HTTPS, bounded in time and size: to workers, to RabbitMQ's management API, to a collector of traces.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::AUTHORIZATION;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use url::{Host, Url};

/// Largest response body that is read, in bytes.
const MAX_BODY: usize = 4 << 20;
/// How long the look-up of a name may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The URLs at each address of their names; see `at_each_address`.
pub async fn at_all_addresses(urls: &[Url]) -> Vec<Url> {
    futures_util::future::join_all(urls.iter().map(at_each_address)).await.concat()
}

/// The URL at each address of its name, such as that of a headless service in Kubernetes; the URL itself if there is one address,
/// or none is found. Of a name with IPv4 and IPv6 addresses only the former count, because they are the same machines.
async fn at_each_address(url: &Url) -> Vec<Url> {
    let (Some(Host::Domain(name)), Some(port), "http") = (url.host(), url.port_or_known_default(), url.scheme()) else {
        return vec![url.clone()];
    };
    let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, port))).await;
    let found: BTreeSet<IpAddr> = found.into_iter().flatten().flatten().map(|address| address.ip()).collect();
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(IpAddr::is_ipv4);
    let addresses = if v4.is_empty() { v6 } else { v4 };
    if addresses.len() < 2 {
        return vec![url.clone()];
    }
    let at = |address| {
        let mut url = url.clone();
        url.set_ip_host(address).ok().map(|()| url)
    };
    addresses.into_iter().filter_map(at).collect()
}

/// Sends requests, over connections that it keeps.
#[derive(Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// `is_https`: whether HTTPS is wanted, which costs reading the system's certificate authorities. `ca_file` names a PEM file with
    /// certificate authorities that are trusted in addition. `None` if it cannot be read.
    pub fn new(is_https: bool, ca_file: Option<&str>) -> Option<Self> {
        let roots = if is_https { trusted_roots(ca_file)? } else { RootCertStore::empty() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Some(HttpClient(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// The status and the body of the response.
    ///
    /// # Errors
    /// There is no complete response of at most 4 MiB within `limit`.
    pub async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<(u16, Bytes), NoResponse> {
        let sent = async {
            let failed = |error| cause(&error).unwrap_or(NoResponse::NotHttp);
            let response = self.0.request(request).await.map_err(failed)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            Ok((status, body.map_err(|_| NoResponse::NotHttp)?.to_bytes()))
        };
        timeout(limit, sent).await.unwrap_or(Err(NoResponse::Timeout))
    }
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoResponse {
    /// Nothing listens at this port.
    #[error("the connection is refused")]
    Refused,
    /// No route, no such host, or the connection broke.
    #[error("no connection")]
    Unreachable,
    /// No TLS session, or the CA file cannot be read.
    #[error("the TLS handshake fails")]
    Tls,
    #[error("no answer in time")]
    Timeout,
    /// Whatever listens there does not speak HTTP.
    #[error("the answer is not a response over HTTP")]
    NotHttp,
}

fn cause(error: &(dyn Error + 'static)) -> Option<NoResponse> {
    if error.is::<rustls::Error>() {
        return Some(NoResponse::Tls);
    }
    let Some(io) = error.downcast_ref::<std::io::Error>() else { return cause(error.source()?) };
    match io.get_ref() {
        _ if io.kind() == ErrorKind::ConnectionRefused => Some(NoResponse::Refused),
        Some(inner) => cause(inner),
        None => Some(NoResponse::Unreachable),
    }
}

/// The status and the body of the response to a GET request. `authorization` is the value of that header; `ca_file` as for
/// [`HttpClient::new`].
///
/// # Errors
/// As for [`HttpClient::send`].
pub async fn get(
    url: &Url,
    authorization: Option<&str>,
    ca_file: Option<&str>,
    limit: Duration,
) -> Result<(u16, Bytes), NoResponse> {
    let client = HttpClient::new(url.scheme() == "https", ca_file).ok_or(NoResponse::Tls)?;
    let mut request = Request::get(url.as_str());
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    client.send(request.body(Full::default()).map_err(|_| NoResponse::NotHttp)?, limit).await
}

/// The system's certificate authorities, read once: reading them blocks.
static SYSTEM_ROOTS: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

fn trusted_roots(ca_file: Option<&str>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(SYSTEM_ROOTS.iter().cloned());
    if let Some(path) = ca_file.filter(|path| !path.is_empty()) {
        for certificate in CertificateDer::pem_file_iter(path).ok()? {
            roots.add(certificate.ok()?).ok()?;
        }
    }
    Some(roots)
}
