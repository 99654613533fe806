//! The login page (RFC 6749 §4.1.1, RFC 7636, RFC 8252, RFC 9207).

use std::net::SocketAddr;
use std::time::Instant;

use form_urlencoded::Serializer;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{Method, StatusCode, Uri};

use super::Received;
use super::token::MAY_REPEAT;
use crate::answer::Answer;
use crate::code::is_challenge;
use crate::config::ResponseIss;
use crate::page::{self, escape};
use crate::state::Shared;

/// `GET /authorize` shows the page, `POST /authorize` takes what the person says.
pub(super) fn authorize(shared: &Shared, request: &Received) -> Answer {
    let asked = match request.head.method {
        Method::GET => Asked::parse(request.head.uri.query().unwrap_or_default().as_bytes()),
        Method::POST => Asked::parse(&request.body),
        _ => return Answer::method_not_allowed("GET, POST"),
    };
    let (client_id, redirect_uri) = (asked.said("client_id"), asked.said("redirect_uri"));
    // Who it would go back to has to be known before anything goes back.
    if !is_loopback(redirect_uri) {
        return page::error("redirect_uri is not plain http to a loopback address");
    }
    let is_known = shared.config.client.as_ref().is_none_or(|client| client.id == client_id);
    if client_id.is_empty() || !is_known {
        return page::error("there is no such client");
    }
    if let Err((error, why)) = asked.check() {
        let brings = [("error", error), ("error_description", why)];
        return back(shared, &asked, &brings).noting(format!("{error}: {why}"));
    }
    if request.head.method == Method::GET {
        return page::decision(&format!("Log in to {client_id}"), &asked.hidden_fields());
    }
    match (asked.said("decision"), asked.said("username")) {
        ("allow", "") => page::error("the user name is missing"),
        ("allow", user) => {
            let code = {
                let (mut state, challenge) = (shared.lock(), asked.said("code_challenge"));
                state.counters.codes += 1;
                state.codes.issue(user, client_id, redirect_uri, challenge, Instant::now())
            };
            back(shared, &asked, &[("code", &code)]).noting(format!("{user:?} has allowed it"))
        }
        ("deny", _) => back(shared, &asked, &[("error", "access_denied")]).noting("denied"),
        _ => page::error("decision is neither allow nor deny"),
    }
}

/// The parameters of the page, or the fields of its form. An empty one counts as absent, and is
/// not here (RFC 6749 §3.1).
struct Asked(Vec<(String, String)>);

impl Asked {
    fn parse(encoded: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(encoded).into_owned();
        Self(pairs.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// Empty as well if it is there more than once.
    fn said(&self, name: &str) -> &str {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => value,
            _ => "",
        }
    }

    /// The error of RFC 6749 §4.1.2.1, and why.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.0.iter().any(|(name, _)| name != MAY_REPEAT && self.said(name).is_empty()) {
            return Err(("invalid_request", "a parameter is repeated"));
        }
        match self.said("response_type") {
            "code" => {}
            "" => return Err(("invalid_request", "response_type is missing")),
            _ => return Err(("unsupported_response_type", "response_type is not code")),
        }
        // Without a method it would be "plain" (RFC 7636 §4.3).
        if self.said("code_challenge_method") != "S256" {
            return Err(("invalid_request", "code_challenge_method is not S256"));
        }
        if !is_challenge(self.said("code_challenge")) {
            return Err(("invalid_request", "code_challenge is no hash of S256"));
        }
        Ok(())
    }

    /// Everything that was asked, for the form to bring back.
    fn hidden_fields(&self) -> String {
        let asked = self.0.iter().filter(|(name, _)| name != "username" && name != "decision");
        let hidden = |(name, value): &(String, String)| {
            let (name, value) = (escape(name), escape(value));
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
        };
        asked.map(hidden).collect()
    }
}

/// By the person's browser, with what it is to bring.
fn back(shared: &Shared, asked: &Asked, brings: &[(&str, &str)]) -> Answer {
    let (redirect_uri, state) = (asked.said("redirect_uri"), asked.said("state"));
    let mut query = Serializer::new(String::new());
    query.extend_pairs(brings);
    if !state.is_empty() {
        query.append_pair("state", state);
    }
    match &shared.config.response_iss {
        ResponseIss::Right => {
            query.append_pair("iss", &shared.issuer());
        }
        ResponseIss::Value(iss) => {
            query.append_pair("iss", iss);
        }
        ResponseIss::Absent | ResponseIss::Missing => {}
    }
    let mark = if redirect_uri.contains('?') { '&' } else { '?' };
    Answer::new(StatusCode::SEE_OTHER)
        .with(LOCATION, &format!("{redirect_uri}{mark}{}", query.finish()))
        .with(CACHE_CONTROL, "no-store")
}

/// RFC 8252 §7.3: any port, and no name. RFC 6749 §3.1.2: no fragment, which `Uri` would overlook.
fn is_loopback(uri: &str) -> bool {
    let is_clean = uri.is_ascii() && !uri.contains('#') && uri.parse::<Uri>().is_ok();
    let Some(rest) = uri.strip_prefix("http://").filter(|_| is_clean) else { return false };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let addr = host.parse::<SocketAddr>().or_else(|_| format!("{host}:80").parse());
    addr.is_ok_and(|addr| addr.ip().is_loopback())
}
