//! A code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.6).

use std::collections::HashMap;
use std::time::Instant;

use http::StatusCode;

use super::Received;
use super::token::{invalid_request, logged_in, presented, success};
use crate::answer::Answer;
use crate::state::{Shared, State};

/// `POST /token` with `grant_type=authorization_code`.
pub(super) fn redeem(
    shared: &Shared,
    request: &Received,
    form: &HashMap<String, String>,
) -> Answer {
    let said = |name: &str| form.get(name).map_or("", String::as_str);
    if said("code").is_empty() {
        return invalid_request("code is missing");
    }
    let refused = |why| Answer::oauth_error(StatusCode::BAD_REQUEST, "invalid_grant", why);
    let (client_id, _) = presented(request, form).unwrap_or_default();
    let context = shared.context(&request.head.headers);
    let now = Instant::now();

    let mut state = shared.lock();
    let State { codes, grants, counters, .. } = &mut *state;
    let Some(code) = codes.get_mut(said("code")) else {
        return refused("the code is unknown");
    };
    if let Some(family) = code.spent {
        // RFC 6749 §4.1.2: one of the two who had the code has stolen it.
        grants.revoke(family, now);
        return refused("the code is spent");
    }
    if let Err(why) = code.check(&client_id, said("redirect_uri"), said("code_verifier"), now) {
        return refused(why);
    }
    let issued = grants.log_in(&shared.config, &code.user, Some(context), now);
    code.spent = Some(issued.family);
    counters.logins += 1;
    success(&issued).noting(logged_in(&code.user, &issued))
}
