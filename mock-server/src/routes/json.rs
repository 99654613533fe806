//! Login and refresh in the JSON style of many home-grown APIs.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Received;
use super::token::{logged_in, outcome, too_many};
use crate::answer::Answer;
use crate::grant::Refreshed;
use crate::state::Shared;

/// `POST /login`.
pub(super) fn log_in(shared: &Shared, request: &Received) -> Answer {
    let user = match member(request, "username") {
        Ok(user) => user,
        Err(answer) => return *answer,
    };
    let context = shared.context(&request.head.headers);
    let issued = shared.log_in(&user, Some(context));
    Answer::json(StatusCode::OK, &issued.camel_json()).uncached().noting(logged_in(&user, &issued))
}

/// `POST /refresh-token`.
pub(super) fn refresh(shared: &Shared, request: &Received) -> Answer {
    if request.head.method == Method::POST
        && let Some(wait) = shared.over_rate()
    {
        return too_many(wait);
    }
    let token = match member(request, "refreshToken") {
        Ok(token) => token,
        Err(answer) => return *answer,
    };
    let refreshed = shared.refresh(&token, &shared.context(&request.head.headers));
    let note = outcome(shared, &token, &refreshed);
    match refreshed {
        Refreshed::Anew(issued) | Refreshed::Replayed(issued) => {
            Answer::json(StatusCode::OK, &issued.camel_json())
        }
        Refreshed::Refused(_) => {
            Answer::json(StatusCode::UNAUTHORIZED, &json!({"error": "refresh_token_invalid"}))
        }
    }
    .uncached()
    .noting(note)
}

/// A string in the body, or the answer that says why there is none.
fn member(request: &Received, name: &str) -> Result<String, Box<Answer>> {
    if request.head.method != Method::POST {
        return Err(Box::new(Answer::method_not_allowed("POST")));
    }
    let body: Option<Value> = request
        .content_type_is("application/json")
        .then(|| serde_json::from_slice(&request.body).ok())
        .flatten();
    let value = body.as_ref().and_then(|body| body.get(name)?.as_str());
    value.map(str::to_owned).ok_or_else(|| {
        let description = format!("send JSON with a string named {name}");
        let error = "invalid_request";
        Box::new(Answer::oauth_error(StatusCode::BAD_REQUEST, error, &description))
    })
}
