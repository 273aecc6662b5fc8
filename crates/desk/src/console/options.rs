//! Owns the options of the console, and which of them may not go together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::HeaderName;
use url::Url;

use crate::{FindDocuments, StartSpan};
use ticketlog_rabbitmq::BrowseOptions;

use super::access::Role;
use super::site::{Authority, Site};

/// How the console runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it allows besides viewing.
    pub allow: BTreeSet<Role>,
    /// A file with tokens to log in with.
    pub tokens: Option<PathBuf>,
    /// The header in which a proxy names the person who has logged in there.
    pub user_header: Option<HeaderName>,
    /// A file with the secret that the proxy sends with every request.
    pub proxy_secret: Option<PathBuf>,
    /// Whether people reach it through a proxy that ends TLS.
    pub behind_proxy: bool,
    /// Its names in the addresses that people open; without any, those of loopback.
    pub hosts: Vec<Authority>,
    /// The directory of the history, and of the originals of what is changed or deleted.
    pub state_dir: Option<PathBuf>,
    /// The HTTP addresses of workers.
    pub workers: Vec<Url>,
    /// How queues are browsed.
    pub browse: BrowseOptions,
    /// Records replays in the traces of their messages.
    pub start_span: StartSpan,
    /// Asks MongoDB for the documents of an event.
    pub find_documents: Option<FindDocuments>,
    /// Where Grafana is.
    pub grafana: Option<Url>,
    /// Where the documents of this project are.
    pub docs: Option<Url>,
}

impl Options {
    /// The address of a page, named as in the folder `docs`, such as `publish/contract.md`.
    pub fn docs_page(&self, path: &str) -> Option<String> {
        self.docs.as_ref().map(|docs| format!("{}/{path}", docs.as_str().trim_end_matches('/')))
    }

    pub(super) fn site(&self) -> Site<'_> {
        Site(&self.hosts)
    }

    /// # Errors
    /// What is missing, and how to provide it.
    pub fn check(&self) -> Result<(), &'static str> {
        let has_login = self.tokens.is_some() || self.user_header.is_some();
        if !self.allow.is_empty() && self.state_dir.is_none() {
            return Err(
                "--allow needs --state-dir DIR: the history, and the originals of what is changed, are kept there",
            );
        }
        let is_guarded = self.behind_proxy && has_login;
        if !self.listen.ip().is_loopback() && !is_guarded {
            return Err(
                "--listen with an address that other machines reach needs a proxy that ends TLS (--behind-proxy) and \
                        a login (--tokens FILE, or --user-header NAME)",
            );
        }
        if self.user_header.is_some() && !self.behind_proxy {
            return Err("--user-header needs --behind-proxy: without a proxy anybody could send the header");
        }
        if self.user_header.is_some() && self.proxy_secret.is_none() {
            return Err(
                "--user-header needs --proxy-secret FILE: otherwise whoever reaches the port could send the header; the \
                        proxy sends the content of the file as X-Ticketlog-Proxy-Secret",
            );
        }
        if self.proxy_secret.is_some() && !self.behind_proxy {
            return Err("--proxy-secret needs --behind-proxy: only a proxy can send it");
        }
        if self.user_header.is_some() && self.tokens.is_some() {
            return Err("--user-header and --tokens are two ways to log in; choose one");
        }
        if self.behind_proxy && self.hosts.is_empty() {
            return Err("--behind-proxy needs --host NAME: the name in the address that people open");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str) -> Options {
        Options {
            listen: listen.parse().unwrap(),
            allow: BTreeSet::new(),
            tokens: None,
            user_header: None,
            proxy_secret: None,
            behind_proxy: false,
            hosts: Vec::new(),
            state_dir: None,
            workers: Vec::new(),
            browse: BrowseOptions::default(),
            start_span: |_, _, _, _| None,
            find_documents: None,
            grafana: None,
            docs: None,
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let local = options("127.0.0.1:9465");
        let file = || Some(PathBuf::from("f"));
        assert_eq!(local.check(), Ok(()));
        let error = |options: Options| options.check().unwrap_err();
        let allow = BTreeSet::from([Role::Replay]);
        assert!(error(Options { allow: allow.clone(), ..local.clone() }).starts_with("--allow needs --state-dir"));
        assert_eq!(Options { allow, state_dir: file(), ..local.clone() }.check(), Ok(()));
        let open = options("0.0.0.0:9465");
        assert!(error(open.clone()).starts_with("--listen with"));
        let with_tokens = Options { tokens: file(), ..open.clone() };
        assert!(error(with_tokens.clone()).starts_with("--listen with"));
        let proxied = Options { behind_proxy: true, ..with_tokens };
        assert!(error(proxied.clone()).starts_with("--behind-proxy needs --host"));
        assert_eq!(Options { hosts: vec!["desk.example".parse().unwrap()], ..proxied.clone() }.check(), Ok(()));
        let user_header = Some(HeaderName::from_static("x-user"));
        let named = Options { user_header: user_header.clone(), ..local.clone() };
        assert!(error(named.clone()).starts_with("--user-header needs --behind-proxy"));
        let named = Options { behind_proxy: true, hosts: vec!["desk.example".parse().unwrap()], ..named };
        assert!(error(named.clone()).starts_with("--user-header needs --proxy-secret"));
        assert_eq!(Options { proxy_secret: file(), ..named }.check(), Ok(()));
        assert!(error(Options { proxy_secret: file(), ..local }).starts_with("--proxy-secret needs"));
        assert!(error(Options { user_header, proxy_secret: file(), ..proxied }).contains("choose one"));
    }
}
