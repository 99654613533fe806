//! Logins on another device (RFC 8628).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;

use super::Received;
use super::token::{
    authenticate, form, invalid_request, logged_in, parameters, presented, success,
};
use crate::answer::Answer;
use crate::device::{Decision, Poll};
use crate::page::{self, escape};
use crate::state::Shared;

/// `POST /device_authorization`.
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
    let Some((client_id, _)) = presented(request, &form) else {
        return invalid_request("client_id is missing");
    };
    let (ttl, said) = (shared.config.device_ttl, shared.config.device_interval);
    let interval = said.unwrap_or(INTERVAL);
    let mut state = shared.lock();
    let device = state.devices.begin(&client_id, ttl, interval, Instant::now());
    let uri = format!("{}/device", shared.issuer());
    let mut answer = json!({
        "device_code": device.device_code,
        "user_code": device.user_code,
        "verification_uri": uri,
        "verification_uri_complete": format!("{uri}?user_code={}", device.user_code),
        "expires_in": whole_seconds(ttl),
    });
    if let Some(interval) = said {
        answer["interval"] = json!(whole_seconds(interval));
    }
    Answer::json(StatusCode::OK, &answer).uncached().noting("a device waits for a person")
}

/// `GET /device` shows the page, `POST /device` takes what the person says.
pub(super) fn page(shared: &Shared, request: &Received) -> Answer {
    match request.head.method {
        Method::GET => {
            let code = request.query("user_code").unwrap_or_default();
            let field = format!(
                "<label for=\"user_code\">Code on the other device</label>\n\
                 <input id=\"user_code\" name=\"user_code\" value=\"{}\" autocomplete=\"off\" \
                 autocapitalize=\"characters\" spellcheck=\"false\" required>\n",
                escape(&code)
            );
            page::decision("Log in on another device", &field)
        }
        Method::POST => decide(shared, request),
        _ => Answer::method_not_allowed("GET, POST"),
    }
}

fn decide(shared: &Shared, request: &Received) -> Answer {
    let sent = match parameters(&request.body) {
        Ok(sent) => sent,
        Err(why) => return page::error(why),
    };
    let said = |name: &str| sent.get(name).map_or("", String::as_str);
    let decision = match (said("decision"), said("username")) {
        ("allow", "") => return page::error("the user name is missing"),
        ("allow", user) => Decision::Allowed(user.to_owned()),
        ("deny", _) => Decision::Denied,
        _ => return page::error("decision is neither allow nor deny"),
    };
    let title = match decision {
        Decision::Allowed(_) => "The other device is logged in",
        Decision::Denied => "The other device is not logged in",
    };
    if !shared.lock().devices.decide(said("user_code"), decision, Instant::now()) {
        return page::error("no device waits with that code");
    }
    page::page(StatusCode::OK, title, "<p>You can close this window.</p>")
}

/// `POST /token` with `grant_type=urn:ietf:params:oauth:grant-type:device_code`.
pub(super) fn poll(shared: &Shared, request: &Received, form: &HashMap<String, String>) -> Answer {
    let Some(code) = form.get("device_code") else {
        return invalid_request("device_code is missing");
    };
    let (client_id, _) = presented(request, form).unwrap_or_default();
    let polled = {
        let mut state = shared.lock();
        state.counters.device_polls += 1;
        state.devices.poll(code, &client_id, Instant::now())
    };
    let refused = |error, why| Answer::oauth_error(StatusCode::BAD_REQUEST, error, why);
    match polled {
        Poll::Unknown => refused("invalid_grant", "the device code is unknown to this client"),
        Poll::Pending => refused("authorization_pending", "the person has not decided yet"),
        Poll::SlowDown => refused("slow_down", "wait five seconds longer from now on"),
        Poll::Expired => refused("expired_token", "the device code is over"),
        Poll::Denied => refused("access_denied", "the person has said no"),
        Poll::Allowed(user) => {
            let context = shared.context(&request.head.headers);
            let issued = shared.log_in(&user, Some(context));
            success(&issued).noting(logged_in(&user, &issued))
        }
    }
}

/// Rounded up: who waits as long as is said is never too soon.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// What a client takes where nothing is said (RFC 8628 §3.2).
const INTERVAL: Duration = Duration::from_secs(5);
