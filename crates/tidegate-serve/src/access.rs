//! Who may ask: the Host and Origin checks of every request.
//!
//! Cookies and "localhost" ignore ports, so a page of any other program on this machine can send
//! requests here; and a foreign name that resolves to 127.0.0.1 (DNS rebinding) makes a foreign
//! page look like ours. Only these two checks keep both out. Letting a foreign page in gives it
//! all readings; refusing one of ours shows an empty page and an event that says why.

use crate::text::plain;
use axum::http::{HeaderMap, HeaderName, Method, Uri, header};
use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// Longest header value repeated in a refusal, in characters.
const MAX_SHOWN: usize = 120;
/// Refusals reported in one second; more are refused all the same, and counted.
const MAX_REPORTS_PER_SECOND: u32 = 10;

const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SEC_FETCH_MODE: &str = "sec-fetch-mode";

/// Names under which the server may be reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Host names besides localhost, `name` or `name:port`. Without a port, a name stands for the
    /// server's own port and for the standard ports of a proxy in front of it.
    pub allowed_hosts: Vec<String>,
}

/// What was foreign about a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The Host header.
    Host,
    /// The Origin header, or another site's page by the browser's own word (Sec-Fetch-Site).
    Origin,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What was foreign.
    pub foreign: Foreign,
    /// The header's value, cleaned and cut.
    pub value: String,
    /// What was asked for, cleaned and cut.
    pub path: String,
    /// Who asked.
    pub peer: SocketAddr,
    /// How many refusals went unreported before this one.
    pub left_out: u32,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            value,
            path,
            peer,
            left_out,
            ..
        } = self;
        match self.foreign {
            Foreign::Host => write!(f, "{peer} asked for {path} under the host name {value:?}")?,
            Foreign::Origin => write!(f, "a page of {value:?} asked for {path} from {peer}")?,
        }
        if *left_out > 0 {
            write!(f, " (and {left_out} more like it)")?;
        }
        Ok(())
    }
}

/// The names and origins that one listener answers to.
#[derive(Debug)]
pub(crate) struct Doors {
    hosts: HashSet<String>,
    origins: HashSet<String>,
}

impl Doors {
    /// The doors of the listener at `port`, for pages served at `page_ports`.
    pub(crate) fn new(access: &Access, port: u16, page_ports: &[u16]) -> Self {
        let hosts = authorities(access, port).collect();
        let mut origins = HashSet::new();
        for authority in page_ports.iter().flat_map(|port| authorities(access, *port)) {
            origins.insert(format!("https://{authority}"));
            origins.insert(format!("http://{authority}"));
        }
        Self { hosts, origins }
    }

    /// Checks a request; on refusal says what was foreign, and its value.
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), (Foreign, String)> {
        let host = one(headers, &header::HOST)
            .map_err(|value| (Foreign::Host, value))?
            .unwrap_or_default();
        if !self.hosts.contains(&host) {
            return Err((Foreign::Host, host));
        }
        // RFC 9112 §3.2.2: the target's own authority overrides the Host header.
        if let Some(authority) = uri
            .authority()
            .map(|authority| authority.as_str().to_ascii_lowercase())
            && !self.hosts.contains(&authority)
        {
            return Err((Foreign::Host, authority));
        }
        match one(headers, &header::ORIGIN).map_err(|value| (Foreign::Origin, value))? {
            Some(origin) if self.origins.contains(&origin) => Ok(()),
            Some(origin) => Err((Foreign::Origin, origin)),
            None if embedded_elsewhere(method, headers) => {
                let referrer = one(headers, &header::REFERER).ok().flatten();
                Err((
                    Foreign::Origin,
                    referrer.unwrap_or_else(|| "another site".to_owned()),
                ))
            }
            None => Ok(()),
        }
    }
}

/// Bounds how many refusals are reported.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    second: AtomicI64,
    in_second: AtomicU32,
    left_out: AtomicU32,
}

impl Reports {
    /// Whether to report a refusal at `now_s`, and how many went unreported before it.
    ///
    /// Racing callers may report a few more than the bound; none is lost from the count.
    pub(crate) fn take(&self, now_s: i64) -> Option<u32> {
        if self.second.swap(now_s, Ordering::Relaxed) != now_s {
            self.in_second.store(0, Ordering::Relaxed);
        }
        if self.in_second.fetch_add(1, Ordering::Relaxed) >= MAX_REPORTS_PER_SECOND {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

/// A value fit for a report.
pub(crate) fn shown(value: &str) -> String {
    plain(value, MAX_SHOWN)
}

/// Every way to write an allowed name with this port, in lower case.
fn authorities(access: &Access, port: u16) -> impl Iterator<Item = String> + '_ {
    let local = LOCAL_NAMES
        .into_iter()
        .flat_map(move |name| with_port(name, port));
    let configured = access.allowed_hosts.iter().flat_map(move |name| {
        let name = name.to_ascii_lowercase();
        if has_port(&name) {
            return vec![name];
        }
        let mut all = with_port(&name, port);
        all.push(name);
        all
    });
    local.chain(configured)
}

/// Browsers leave the standard port out.
fn with_port(name: &str, port: u16) -> Vec<String> {
    let mut all = vec![format!("{name}:{port}")];
    if port == 80 {
        all.push(name.to_owned());
    }
    all
}

fn has_port(name: &str) -> bool {
    let after_address = name.rsplit_once(']').map_or(name, |(_, rest)| rest);
    after_address.contains(':')
}

/// The header's only value in lower case; `Err` when it stands twice or is not text.
fn one(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    if values.next().is_some() || value.to_str().is_err() {
        return Err(text);
    }
    Ok(Some(text))
}

/// Whether the browser says that a page of another site, or of another port, embeds this request.
/// A link that leads here is a navigation, and fine.
fn embedded_elsewhere(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| {
        headers
            .get(name)
            .is_some_and(|found| found.as_bytes() == value.as_bytes())
    };
    let elsewhere = is(SEC_FETCH_SITE, "cross-site") || is(SEC_FETCH_SITE, "same-site");
    elsewhere && !(is(SEC_FETCH_MODE, "navigate") && method == Method::GET)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> Doors {
        let access = Access {
            allowed_hosts: vec!["Water.Example".into(), "proxy.example:9000".into()],
        };
        Doors::new(&access, 8765, &[8000, 8765])
    }

    fn check(lines: &[(&str, &str)]) -> Result<(), (Foreign, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        doors().check(&Method::GET, &Uri::from_static("/"), &headers)
    }

    fn refused(foreign: Foreign, value: &str) -> Result<(), (Foreign, String)> {
        Err((foreign, value.to_owned()))
    }

    #[test]
    fn own_names_with_the_own_port_are_let_in_and_others_not() {
        for host in [
            "localhost:8765",
            "127.0.0.1:8765",
            "[::1]:8765",
            "LOCALHOST:8765",
            "water.example",
            "water.example:8765",
            "proxy.example:9000",
        ] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "localhost",
            "localhost:8000",
            "evil.example:8765",
            "localhost.evil.example:8765",
            "proxy.example",
            "127.0.0.2:8765",
            "",
        ] {
            assert_eq!(check(&[("host", host)]), refused(Foreign::Host, host), "{host}");
        }
        assert_eq!(check(&[]), refused(Foreign::Host, ""));
        let twice = [("host", "localhost:8765"), ("host", "evil.example")];
        assert_eq!(check(&twice), refused(Foreign::Host, "localhost:8765"));
    }

    #[test]
    fn absolute_target_counts_as_host() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost:8765".parse().unwrap());
        let ours = Uri::from_static("http://localhost:8765/");
        assert_eq!(doors().check(&Method::GET, &ours, &headers), Ok(()));
        let foreign = Uri::from_static("http://evil.example/");
        assert_eq!(
            doors().check(&Method::GET, &foreign, &headers),
            refused(Foreign::Host, "evil.example")
        );
    }

    #[test]
    fn origins_of_our_pages_are_let_in_and_those_of_other_ports_not() {
        for origin in [
            "http://localhost:8000",
            "http://127.0.0.1:8765",
            "https://water.example",
        ] {
            assert_eq!(
                check(&[("host", "localhost:8765"), ("origin", origin)]),
                Ok(()),
                "{origin}"
            );
        }
        for origin in [
            "http://localhost:3000",
            "http://localhost",
            "null",
            "http://evil.example",
            "file://",
        ] {
            let outcome = check(&[("host", "localhost:8765"), ("origin", origin)]);
            assert_eq!(outcome, refused(Foreign::Origin, origin), "{origin}");
        }
    }

    #[test]
    fn embedding_from_another_port_is_refused_and_a_link_is_not() {
        let from = |site, mode| {
            check(&[
                ("host", "localhost:8765"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
            ])
        };
        assert_eq!(from("same-origin", "no-cors"), Ok(()));
        assert_eq!(from("cross-site", "navigate"), Ok(()));
        assert_eq!(
            from("same-site", "no-cors"),
            refused(Foreign::Origin, "another site")
        );
    }

    #[test]
    fn reports_are_bounded_and_the_rest_is_counted() {
        let reports = Reports::default();
        let reported = (0..100).filter(|_| reports.take(7).is_some()).count();
        assert_eq!(reported, 10);
        assert_eq!(reports.take(8), Some(90));
        assert_eq!(reports.take(8), Some(0));
    }
}
