//! Owns which site a request is for and which one it comes from: host names as `--host`, `Host` and `Origin` write them.

use std::str::FromStr;

use axum::http::header::{HOST, HeaderMap, HeaderName, ORIGIN, REFERER};
use url::Url;

/// The names of a console without `--host`.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// A host name and a port. Case, a dot at the end and the default ports of HTTP and HTTPS make no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    name: String,
    port: Option<u16>,
}

impl Authority {
    /// Of a URL such as the value of `Origin`; `None` if it has no host, such as `null`.
    fn of_url(url: &str) -> Option<Authority> {
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let name = url.host_str()?.trim_end_matches('.').to_owned();
        (!name.is_empty()).then(|| Authority { name, port: url.port().filter(|port| ![80, 443].contains(port)) })
    }
}

impl FromStr for Authority {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |c: char| !c.is_whitespace() && !c.is_control() && !"/\\@?#".contains(c);
        let url = text.chars().all(is_name).then(|| format!("https://{text}/"));
        url.and_then(|url| Authority::of_url(&url))
            .ok_or("expected a host name such as desk.example, with its port if that is not the usual one")
    }
}

/// The value of a header that decides something; `None` if it is missing, is not text, or is there twice.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// The names of a console, which are those of `--host`, or else of loopback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a>(pub &'a [Authority]);

impl Site<'_> {
    fn host(self, headers: &HeaderMap) -> Option<Authority> {
        text(headers, &HOST)?.parse().ok()
    }

    /// Whether the request is for this site. The port is not compared: a proxy may leave it out.
    pub fn is_host(self, headers: &HeaderMap) -> bool {
        let Some(host) = self.host(headers) else { return false };
        match self.0 {
            [] => LOOPBACK.contains(&host.name.as_str()),
            hosts => hosts.iter().any(|own| own.name == host.name),
        }
    }

    /// Whether a URL is of this site: of a name of `--host`, or of the host that the request is for.
    fn is_own_url(self, url: &str, headers: &HeaderMap) -> bool {
        let Some(authority) = Authority::of_url(url) else { return false };
        self.0.contains(&authority) || self.host(headers) == Some(authority)
    }

    /// Whether another site has caused the request, as far as the browser says. Those older than 2023 do not always send
    /// `Sec-Fetch-Site`; programs send nothing of all this.
    pub fn is_caused_by_another(self, headers: &HeaderMap) -> bool {
        if headers.contains_key(SEC_FETCH_SITE) {
            return !matches!(text(headers, &SEC_FETCH_SITE), Some("same-origin" | "none"));
        }
        [ORIGIN, REFERER].iter().flat_map(|name| headers.get_all(name)).any(|url| {
            let url = url.to_str().unwrap_or_default();
            !self.is_own_url(url, headers)
        })
    }

    /// Whether the request is a link on another site that a person has followed.
    pub fn is_link(self, headers: &HeaderMap) -> bool {
        let dest = text(headers, &SEC_FETCH_DEST);
        dest == Some("document") || !headers.contains_key(SEC_FETCH_SITE) && dest.is_none()
    }

    /// Whether a form comes from a page of this site. Programs that say nothing have a token.
    pub fn is_own_form(self, headers: &HeaderMap) -> bool {
        let is_own =
            |origin: &axum::http::HeaderValue| origin.to_str().is_ok_and(|origin| self.is_own_url(origin, headers));
        let has_own_origin = headers.get_all(ORIGIN).iter().all(is_own);
        let is_own_fetch = !headers.contains_key(SEC_FETCH_SITE) || !self.is_caused_by_another(headers);
        has_own_origin && is_own_fetch
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn hosts(names: &[&str]) -> Vec<Authority> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn host_names_are_compared_as_browsers_do() {
        let same = |a: &str, b: &str| a.parse::<Authority>().unwrap() == b.parse::<Authority>().unwrap();
        for other in ["Desk.EXAMPLE", "desk.example:443", "desk.example:80", "desk.example."] {
            assert!(same("desk.example", other), "{other}");
        }
        assert!(same("bücher.example", "xn--bcher-kva.example") && same("[::1]:1", "[0:0:0:0:0:0:0:1]:1"));
        assert!(!same("desk.example", "desk.example:8443") && !same("desk.example", "desk.example.evil"));
        for wrong in ["", ".", "https://desk.example", "a/b", "a b", "a@desk.example", ":9465", "a:x", "a?b", "a\tb"] {
            assert!(wrong.parse::<Authority>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_names_of_the_console_are_admitted() {
        let admits = |names: &[&str], host| Site(&hosts(names)).is_host(&headers(&[("host", host)]));
        for host in ["localhost", "LOCALHOST:9465", "127.0.0.1:1", "[::1]:9465"] {
            assert!(admits(&[], host) && !admits(&["desk.example"], host), "{host}");
        }
        for host in ["desk.example", "Desk.Example:443", "desk.example:9465", "desk.example."] {
            assert!(admits(&["DESK.example:8443"], host) && !admits(&[], host), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "desk.example@evil.example", "", "evil.example/desk.example"]
        {
            assert!(!admits(&["desk.example"], host) && !admits(&[], host), "{host}");
        }
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert!(!Site(&[]).is_host(&twice) && !Site(&[]).is_host(&HeaderMap::new()));
    }

    #[test]
    fn only_forms_of_this_site_are_admitted() {
        let own = hosts(&["desk.example", "desk.example:8443"]);
        let admits = |host, origin| Site(&own).is_own_form(&headers(&[("host", host), ("origin", origin)]));
        for origin in
            ["https://desk.example", "https://DESK.example:443", "http://desk.example:80", "https://desk.example:8443"]
        {
            assert!(admits("desk.example", origin) && admits("DESK.EXAMPLE:80", origin), "{origin}");
        }
        assert!(admits("desk.example:9465", "http://desk.example:9465"), "the origin is the host");
        for origin in
            ["https://desk.example:9000", "https://evil.example", "https://desk.example.evil", "null", "file://", ""]
        {
            assert!(!admits("desk.example", origin), "{origin}");
        }
        let host = ("host", "127.0.0.1:9465");
        let admits = |lines: &[_]| Site(&[]).is_own_form(&headers(&[&[host], lines].concat()));
        assert!(
            admits(&[]) && admits(&[("origin", "http://127.0.0.1:9465")]) && !admits(&[("origin", "http://127.0.0.1")])
        );
        assert!(!admits(&[("sec-fetch-site", "cross-site")]) && !admits(&[("sec-fetch-site", "same-site")]));
        assert!(!admits(&[("origin", "http://127.0.0.1:9465"), ("origin", "http://evil.example")]));
        assert!(admits(&[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9465")]));
    }

    #[test]
    fn a_link_on_another_site_is_told_from_an_image_and_from_a_program() {
        let host = ("host", "localhost:9465");
        let asked = |lines: &[_]| {
            let (headers, site) = (headers(&[&[host], lines].concat()), Site(&[]));
            (site.is_caused_by_another(&headers), site.is_link(&headers))
        };
        assert!(
            !asked(&[]).0
                && !asked(&[("sec-fetch-site", "none")]).0
                && !asked(&[("referer", "http://localhost:9465/")]).0
        );
        assert_eq!(asked(&[("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "document")]), (true, true));
        assert_eq!(asked(&[("sec-fetch-site", "same-site"), ("sec-fetch-dest", "image")]), (true, false));
        assert_eq!(asked(&[("sec-fetch-site", "cross-site")]), (true, false));
        assert_eq!(asked(&[("referer", "https://wiki.example/page")]), (true, true), "an old browser");
    }
}
