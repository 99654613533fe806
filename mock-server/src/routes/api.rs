//! The protected API: says what arrived, if the token is good.

use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::Received;
use crate::answer::Answer;
use crate::grant::Refusal;
use crate::state::Shared;

/// `ANY /api/…`.
pub(super) fn api(shared: &Shared, request: &Received) -> Answer {
    match request.path() {
        "/api/redirect" => return redirect(request),
        "/api/challenge" => return challenge(request),
        "/api/no-challenge" => return Answer::new(StatusCode::UNAUTHORIZED),
        _ => {}
    }
    let token = match bearer(&request.head.headers) {
        Ok(token) => token,
        Err(answer) => return *answer,
    };
    let (user, note) = match accept(shared, request, token) {
        Ok(accepted) => accepted,
        Err(answer) => return *answer,
    };
    match request.path() {
        "/api/insufficient-scope" => Answer::challenge(
            StatusCode::FORBIDDEN,
            "Bearer realm=\"mock\", error=\"insufficient_scope\", scope=\"admin\"",
        ),
        "/api/step-up" => Answer::challenge(
            StatusCode::UNAUTHORIZED,
            "Bearer realm=\"mock\", error=\"insufficient_user_authentication\", acr_values=\"high\"",
        ),
        path => {
            let mut answer = match path.strip_prefix("/api/status/") {
                Some(status) => with_status(status),
                None => Answer::json(StatusCode::OK, &echo(&user, request)),
            };
            if path == "/api/slow" {
                let ms = request.query("ms").and_then(|ms| ms.parse().ok());
                answer.delay = Duration::from_millis(ms.unwrap_or_default());
            }
            answer
        }
    }
    .noting(note)
}

fn redirect(request: &Received) -> Answer {
    match request.query("to") {
        Some(to) => Answer::new(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, &to),
        None => Answer::text(StatusCode::BAD_REQUEST, "say where: ?to=URL\n"),
    }
}

/// Several values give several headers, as a proxy would add one.
fn challenge(request: &Received) -> Answer {
    let query = request.head.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "value")
        .fold(Answer::new(StatusCode::UNAUTHORIZED), |answer, (_, value)| {
            answer.with(WWW_AUTHENTICATE, &value)
        })
}

fn bearer(headers: &HeaderMap) -> Result<&str, Box<Answer>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok());
    let token = value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    if values.next().is_some() {
        let challenge = "Bearer realm=\"mock\", error=\"invalid_request\", error_description=\"more than one Authorization header\"";
        return Err(Box::new(
            Answer::challenge(StatusCode::BAD_REQUEST, challenge)
                .noting("more than one Authorization header"),
        ));
    }
    // RFC 6750 §3.1: no error code for a request without authentication.
    token.ok_or_else(|| {
        let answer = Answer::challenge(StatusCode::UNAUTHORIZED, "Bearer realm=\"mock\"");
        Box::new(answer.noting("no token"))
    })
}

/// The user along with what the log says.
fn accept(
    shared: &Shared,
    request: &Received,
    token: &str,
) -> Result<(String, String), Box<Answer>> {
    let context = shared.context(&request.head.headers);
    let mut state = shared.lock();
    let accepted = state.grants.accept(token, &context, Instant::now());
    state.counters.context_mismatches += u64::from(matches!(accepted, Err(Refusal::OtherContext)));
    let refused = state.refused_paths.contains(request.path());
    let description = match accepted {
        Ok(_) if refused => "the token is refused at this path",
        Ok((user, family, generation)) => {
            let note = format!("{user:?}, family {family}, generation {generation}");
            return Ok((user, note));
        }
        Err(refusal) => refusal.description(),
    };
    let note = match state.grants.find(token) {
        Some((family, generation)) => {
            format!("{description}: family {family}, generation {generation}")
        }
        None => description.to_owned(),
    };
    let challenge = format!(
        "Bearer realm=\"mock\", error=\"invalid_token\", error_description=\"{description}\""
    );
    Err(Box::new(Answer::challenge(StatusCode::UNAUTHORIZED, &challenge).noting(note)))
}

fn with_status(status: &str) -> Answer {
    let status = status.parse().ok().filter(|n| (200..600).contains(n));
    match status.and_then(|n| StatusCode::from_u16(n).ok()) {
        Some(status) => Answer::new(status),
        None => Answer::text(StatusCode::NOT_FOUND, "not the status of an answer\n"),
    }
}

fn echo(user: &str, request: &Received) -> Value {
    let body = &request.body;
    let text = (body.len() <= ECHOED).then(|| String::from_utf8_lossy(body));
    json!({
        "user": user,
        "method": request.head.method.as_str(),
        "path": request.path(),
        "query": request.head.uri.query(),
        "body_len": body.len(),
        "body_hash": format!("{:016x}", fnv(body)),
        "body": text,
        "headers": headers(&request.head.headers),
    })
}

fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let names = headers.keys().filter(|name| *name != AUTHORIZATION);
    let joined = |name| {
        let values = headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    names.map(|name| (name.to_string(), joined(name).into())).collect()
}

/// FNV-1a of 64 bits: tells bodies apart, and takes three lines in any language.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A larger body is told by its hash.
const ECHOED: usize = 64 * 1024;
