//! Logins on another device (RFC 8628).

use std::time::Instant;

use http::{Method, StatusCode};
use serde_json::json;

use super::Received;
use super::token::{authenticate, form, invalid_request, parameters};
use crate::answer::Answer;
use crate::page::{self, escape};
use crate::pending::Decision;
use crate::state::Shared;

/// `POST /device_authorization`
pub(super) fn begin(shared: &Shared, request: &Received) -> Answer {
    if request.head.method != Method::POST {
        return Answer::method_not_allowed("POST");
    }
    let form = match form(request) {
        Ok(form) => form,
        Err(description) => return invalid_request(description),
    };
    if let Err(answer) = authenticate(shared, request, &form) {
        return *answer;
    }
    let (ttl, said) = (shared.config.device_ttl, shared.config.device_interval);
    let mut state = shared.lock();
    let device = state.pending.begin_device(ttl, said.unwrap_or(INTERVAL), Instant::now());
    let uri = format!("{}/device", shared.issuer());
    let mut answer = json!({
        "device_code": device.device_code,
        "user_code": device.user_code,
        "verification_uri": uri,
        "verification_uri_complete": format!("{uri}?user_code={}", device.user_code),
        "expires_in": ttl.as_millis().div_ceil(1000) as u64,
    });
    if let Some(interval) = said {
        answer["interval"] = json!(interval.as_secs());
    }
    Answer::json(StatusCode::OK, &answer).uncached().noting("a device waits for a person")
}

/// `GET /device` shows the page, `POST /device` takes what the person says.
pub(super) fn page(shared: &Shared, request: &Received) -> Answer {
    if request.head.method == Method::GET {
        let code = request.query("user_code").unwrap_or_default();
        let field = format!(
            "<label for=\"user_code\">Code on the other device</label>\n\
             <input id=\"user_code\" name=\"user_code\" value=\"{}\" required>\n",
            escape(&code)
        );
        return page::decision("Log in on another device", &field, &[]);
    }
    let Some(sent) = parameters(&request.body).ok().filter(|_| request.head.method == Method::POST)
    else {
        return Answer::method_not_allowed("GET, POST");
    };
    let said = |name: &str| sent.get(name).map_or("", String::as_str);
    let decision = match (said("decision"), said("username")) {
        ("allow", user) if !user.is_empty() => Decision::Allowed(user.to_owned()),
        _ => Decision::Denied,
    };
    let is_known = shared.lock().pending.decide(said("user_code"), decision, Instant::now());
    let (status, title) = match is_known {
        true => (StatusCode::OK, "Done: go back to the other device"),
        false => (StatusCode::BAD_REQUEST, "No device waits with that code"),
    };
    page::page(status, title, "")
}

/// What a client takes where nothing is said (RFC 8628 §3.2).
const INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);
