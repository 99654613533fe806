//! Which requests may carry the token: those to a listed origin, over TLS or to this machine.
//!
//! The protection space of a token "cannot extend" past its server (RFC 9110 §11.5), so an
//! origin is scheme, host and port, compared whole. Plain http is taken for loopback only
//! (RFC 6750 §5.3 wants TLS everywhere else).

use reqwest::Url;
use url::{Host, Position};

/// One scheme, host and port that may receive the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// As it begins a URL.
    text: String,
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Parses what the program listed, as in `https://api.example.com`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shown = shown(text);
        let url = Url::parse(text).map_err(|e| {
            format!("{shown} is no origin ({e}): write it like https://api.example.com")
        })?;
        secure(&url).map_err(|e| format!("the origin {shown} {e}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an origin has no user name or password: leave them out".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "{shown} is more than an origin: leave out what follows the host and port"
            ));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("{shown} is no origin: it has no host"));
        };
        let text = url[..Position::BeforePath].to_owned();
        Ok(Self { text, scheme: url.scheme().to_owned(), host: host.to_owned(), port })
    }

    pub(crate) fn covers(&self, url: &Url) -> bool {
        // The usual way in one comparison. A user name may be in between, which is of no matter.
        url[..Position::BeforePath] == self.text
            || url.port_or_known_default() == Some(self.port)
                && url.scheme() == self.scheme
                && url.host_str() == Some(&self.host)
    }
}

/// A URL in a message, unless it may hold a password.
pub(crate) fn shown(text: &str) -> String {
    if text.contains('@') { "(not shown, as it has an @)".to_owned() } else { format!("{text:?}") }
}

/// Whether a secret may go to `url`: https, or http to this machine.
pub(crate) fn secure(url: &Url) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        "http" => Err("must be https: plain http would show the token to everybody on the way"),
        _ => Err("must be https"),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        // RFC 6761 §6.3: resolvers keep this name, and those below it, on the machine; only the
        // bare name is sure enough.
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_scheme_host_and_port_is_covered() {
        let origin = Origin::parse("https://api.example.com").unwrap();
        for (url, covered) in [
            ("https://api.example.com", true),
            ("https://api.example.com:443/a?b#c", true),
            ("https://API.example.com/", true),
            ("https://user:pw@api.example.com/", true),
            ("http://api.example.com/", false),
            ("http://api.example.com:443/", false),
            ("https://api.example.com:444/", false),
            ("https://api.example.com.evil.example/", false),
            ("https://evil.example/https://api.example.com/", false),
            ("https://api.example.com@evil.example/", false),
            ("https://sub.api.example.com/", false),
            ("https://example.com/", false),
            ("https://api.example.com./", false),
            ("wss://api.example.com/", false),
            ("data:text/plain,api.example.com", false),
        ] {
            assert_eq!(origin.covers(&Url::parse(url).unwrap()), covered, "{url}");
        }
        let base = Url::parse("https://api.example.com/a/b").unwrap();
        assert!(!origin.covers(&base.join("//evil.example/c").unwrap()));
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for (text, ok) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:80", true),
            ("http://localhost:3000", true),
            ("http://api.example.com", false),
            ("http://192.168.1.4", false),
            ("http://localhost.example.com", false),
            ("http://0.0.0.0", false),
            ("ftp://127.0.0.1", false),
            ("https://api.example.com/", true),
            ("https://api.example.com/v1", false),
            ("https://api.example.com?x", false),
            ("https://me@api.example.com", false),
            ("api.example.com", false),
            ("//api.example.com", false),
            ("", false),
        ] {
            assert_eq!(Origin::parse(text).is_ok(), ok, "{text}");
        }
        let why = |url: &str| secure(&Url::parse(url).unwrap()).unwrap_err();
        assert!(why("http://api.example.com").contains("to everybody on the way"));
        assert_eq!(why("ftp://127.0.0.1"), "must be https");
    }
}
