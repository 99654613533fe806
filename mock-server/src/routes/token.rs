//! The endpoints of RFC 6749 and RFC 7009, in their own forms.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::json;

use super::{Received, code, device};
use crate::answer::Answer;
use crate::grant::Refreshed;
use crate::issued::Issued;
use crate::state::Shared;

/// `POST /token`.
pub(super) fn token(shared: &Shared, request: &Received) -> Answer {
    if request.head.method != Method::POST {
        return Answer::method_not_allowed("POST");
    }
    if let Some(wait) = shared.over_rate() {
        return too_many(wait);
    }
    let form = match form(request) {
        Ok(form) => form,
        Err(description) => return invalid_request(description),
    };
    if let Err(answer) = authenticate(shared, request, &form) {
        return *answer;
    }
    match form.get("grant_type").map(String::as_str) {
        Some("refresh_token") => refresh(shared, request, &form),
        Some("password") => {
            let Some(user) = form.get("username") else {
                return invalid_request("username is missing");
            };
            let context = shared.context(&request.head.headers);
            let issued = shared.log_in(user, Some(context));
            let note = logged_in(user, &issued);
            success(&issued).noting(note)
        }
        Some("authorization_code") => code::redeem(shared, request, &form),
        Some("urn:ietf:params:oauth:grant-type:device_code") => {
            device::poll(shared, request, &form)
        }
        Some(_) => Answer::oauth_error(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "use refresh_token, password, authorization_code or the device grant",
        ),
        None => invalid_request("grant_type is missing"),
    }
}

fn refresh(shared: &Shared, request: &Received, form: &HashMap<String, String>) -> Answer {
    let Some(token) = form.get("refresh_token") else {
        return invalid_request("refresh_token is missing");
    };
    let refreshed = shared.refresh(token, &shared.context(&request.head.headers));
    let note = outcome(shared, token, &refreshed);
    match refreshed {
        Refreshed::Anew(issued) | Refreshed::Replayed(issued) => success(&issued),
        Refreshed::Refused(refusal) => {
            Answer::oauth_error(StatusCode::BAD_REQUEST, "invalid_grant", refusal.description())
        }
    }
    .noting(note)
}

/// `POST /revoke`: 200 whether or not there was anything to revoke (RFC 7009 §2.2).
pub(super) fn revoke(shared: &Shared, request: &Received) -> Answer {
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
    let Some(token) = form.get("token") else {
        return invalid_request("token is missing");
    };
    let mut state = shared.lock();
    let Some((family, _)) = state.grants.find(token) else {
        return Answer::new(StatusCode::OK).noting("unknown token");
    };
    let revoked = state.grants.revoke(family, Instant::now());
    state.counters.revocations += u64::from(revoked);
    Answer::new(StatusCode::OK).noting(format!("revoked family {family}"))
}

pub(super) fn too_many(wait: Duration) -> Answer {
    // Rounded up, so that there is room when the client comes back.
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    Answer::oauth_error(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_requests",
        "the rate limit is exceeded",
    )
    .with(RETRY_AFTER, &seconds.to_string())
}

/// What the log says about a refresh.
pub(super) fn outcome(shared: &Shared, token: &str, refreshed: &Refreshed) -> String {
    match refreshed {
        Refreshed::Anew(issued) => {
            format!("refreshed family {}, generation {}", issued.family, issued.generation)
        }
        Refreshed::Replayed(issued) => {
            format!("forgave family {}, generation {} again", issued.family, issued.generation)
        }
        Refreshed::Refused(refusal) => {
            let (state, why) = (shared.lock(), refusal.description());
            let Some((family, generation)) = state.grants.find(token) else {
                return format!("refused: {why}");
            };
            let alive = state.grants.family(family).is_some_and(|it| it.alive);
            let end = if alive { "" } else { " (the family is revoked)" };
            format!("refused family {family}, generation {generation}: {why}{end}")
        }
    }
}

pub(super) fn logged_in(user: &str, issued: &Issued) -> String {
    format!("logged {user:?} in, family {}", issued.family)
}

pub(super) fn success(issued: &Issued) -> Answer {
    let mut answer = Answer::new(StatusCode::OK).with(CONTENT_TYPE, "application/json");
    answer.body = issued.json().into();
    answer.uncached()
}

pub(super) fn invalid_request(description: &str) -> Answer {
    Answer::oauth_error(StatusCode::BAD_REQUEST, "invalid_request", description)
}

/// The parameters; RFC 6749 §3.2 forbids to repeat one, and takes an empty one for absent.
pub(super) fn form(request: &Received) -> Result<HashMap<String, String>, &'static str> {
    if !request.content_type_is("application/x-www-form-urlencoded") {
        return Err("the content type is not application/x-www-form-urlencoded");
    }
    parameters(&request.body)
}

pub(super) fn parameters(encoded: &[u8]) -> Result<HashMap<String, String>, &'static str> {
    let mut form = HashMap::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        let may_repeat = name == MAY_REPEAT;
        if form.insert(name.into_owned(), value.into_owned()).is_some() && !may_repeat {
            return Err("a parameter is repeated");
        }
    }
    form.retain(|_, value| !value.is_empty());
    Ok(form)
}

/// Boxed, since an answer is large and rarely an error.
pub(super) fn authenticate(
    shared: &Shared,
    request: &Received,
    form: &HashMap<String, String>,
) -> Result<(), Box<Answer>> {
    let Some(client) = &shared.config.client else {
        return Ok(());
    };
    let in_header = request.head.headers.contains_key(AUTHORIZATION);
    if in_header && form.contains_key("client_secret") {
        let description = "the client authenticated in more than one way";
        return Err(Box::new(invalid_request(description)));
    }
    if presented(request, form) == Some((client.id.clone(), client.secret.clone())) {
        return Ok(());
    }
    shared.lock().counters.client_failures += 1;
    let answer = Answer::json(
        StatusCode::UNAUTHORIZED,
        &json!({"error": "invalid_client", "error_description": "the client is not known by that name and secret"}),
    );
    Err(Box::new(
        answer.uncached().with(WWW_AUTHENTICATE, "Basic realm=\"mock\"").noting("invalid_client"),
    ))
}

/// Who the client says it is, and its secret.
pub(super) fn presented(
    request: &Received,
    form: &HashMap<String, String>,
) -> Option<(String, Option<String>)> {
    if request.head.headers.contains_key(AUTHORIZATION) {
        return basic(request);
    }
    let secret = form.get("client_secret").cloned();
    form.get("client_id").map(|id| (id.clone(), secret))
}

/// HTTP Basic, each part form-encoded as RFC 6749 §2.3.1 has it. An empty secret is none.
fn basic(request: &Received) -> Option<(String, Option<String>)> {
    let value = request.head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let plain = |part: &str| {
        // A bare `=` or `&` would split what is one word here.
        let whole = part.replace('=', "%3D").replace('&', "%26");
        form_urlencoded::parse(whole.as_bytes())
            .next()
            .map_or_else(String::new, |(word, _)| word.into_owned())
    };
    let secret = plain(secret);
    Some((plain(id), (!secret.is_empty()).then_some(secret)))
}

/// RFC 8707 §2: a token may be for several resources.
pub(super) const MAY_REPEAT: &str = "resource";
