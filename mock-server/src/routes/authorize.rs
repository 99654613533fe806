//! The login page (RFC 6749 §4.1.1, RFC 7636, RFC 8252, RFC 9207).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use form_urlencoded::Serializer;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{Method, StatusCode, Uri};

use super::Received;
use super::token::parameters;
use crate::answer::Answer;
use crate::config::ResponseIss;
use crate::page;
use crate::state::Shared;

/// `GET /authorize` shows the page, `POST /authorize` takes what the person says.
pub(super) fn authorize(shared: &Shared, request: &Received) -> Answer {
    let sent = match request.head.method {
        Method::GET => request.head.uri.query().unwrap_or_default().as_bytes(),
        Method::POST => &request.body,
        _ => return Answer::method_not_allowed("GET, POST"),
    };
    let Ok(sent) = parameters(sent) else {
        return wrong("a parameter is repeated");
    };
    let said = |name: &str| sent.get(name).map_or("", String::as_str);
    // Who it would go back to has to be known before anything goes back.
    if !is_loopback(said("redirect_uri")) {
        return wrong("redirect_uri is not plain http to a loopback address");
    }
    let known = shared.config.client.as_ref().is_none_or(|client| client.id == said("client_id"));
    if said("client_id").is_empty() || !known {
        return wrong("there is no such client");
    }
    let fault = if said("response_type") != "code" {
        Some("unsupported_response_type")
    } else if said("code_challenge").is_empty() || said("code_challenge_method") != "S256" {
        Some("invalid_request")
    } else {
        None
    };
    if let Some(error) = fault {
        return back(shared, &sent, &[("error", error)]).noting(error);
    }
    if request.head.method == Method::GET {
        let hidden: Vec<_> = PASSED_ON.iter().map(|name| (*name, said(name))).collect();
        return page::decision(&format!("Log in to {}", said("client_id")), "", &hidden);
    }
    match (said("decision"), said("username")) {
        ("allow", user) if !user.is_empty() => {
            let mut state = shared.lock();
            let (client, redirect_uri) = (said("client_id"), said("redirect_uri"));
            let challenge = said("code_challenge");
            let now = Instant::now();
            let code = state.pending.issue_code(user, client, redirect_uri, challenge, now);
            state.counters.codes += 1;
            drop(state);
            back(shared, &sent, &[("code", &code)]).noting(format!("{user:?} has allowed it"))
        }
        _ => back(shared, &sent, &[("error", "access_denied")]).noting("denied"),
    }
}

/// By the person's browser, with what it is to bring.
fn back(shared: &Shared, sent: &HashMap<String, String>, brings: &[(&str, &str)]) -> Answer {
    let redirect_uri = &sent["redirect_uri"];
    let mut query = Serializer::new(String::new());
    query.extend_pairs(brings);
    if let Some(state) = sent.get("state") {
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

fn wrong(why: &str) -> Answer {
    let body = format!("<p>{}</p>", page::escape(why));
    page::page(StatusCode::BAD_REQUEST, "This login can't go on", &body).noting(why)
}

/// RFC 8252 §7.3: any port, and no name.
fn is_loopback(uri: &str) -> bool {
    let Ok(uri) = uri.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    uri.scheme_str() == Some("http") && ip.is_ok_and(|ip| ip.is_loopback())
}

/// What the form brings back.
const PASSED_ON: [&str; 7] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "scope",
    "code_challenge",
    "code_challenge_method",
];
