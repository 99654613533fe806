//! What a token endpoint's answer means: the one place where a refresh is classified.
//!
//! | answer | outcome |
//! |---|---|
//! | 2xx with a token response | tokens |
//! | 2xx or 4xx with JSON `"error": "invalid_grant"`, or an alias of it | rejected: ends the session |
//! | 2xx or 4xx with another error code of RFC 6749 §5.2 or RFC 8707 | misconfigured |
//! | 429, and 503 with `Retry-After` | busy |
//! | 500, 502, 503, 504 | no answer: the token may be spent |
//! | 3xx, 404, 405, 410 | misconfigured |
//! | 2xx or another 4xx with a JSON `"error"` that means "later", or a 4xx with `Retry-After` | unexpected |
//! | 2xx or another 4xx with one that nobody knows | unreadable: the third in a row asks for a login |
//! | another 4xx: no body, no JSON or no error code | unreadable |
//! | anything else | unexpected: the token may be spent |

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::endpoint::{RefreshError, TOKEN_ENDPOINT};
use crate::token::TokenResponse;

pub(crate) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    aliases: &[String],
) -> Result<TokenResponse, RefreshError> {
    if !status.is_success() {
        return Err(refusal(TOKEN_ENDPOINT, status, headers, body, aliases));
    }
    let response = TokenResponse::read(body).and_then(|response| match response.check() {
        // A rotated refresh token is worth keeping, whatever came with it.
        Err(why) if response.refresh_token.is_none() || error_code(body).is_some() => Err(why),
        _ => Ok(response),
    });
    response.map_err(|why| {
        // Some servers say no with a 200.
        match error_code(body) {
            Some(_) => refusal(TOKEN_ENDPOINT, status, headers, body, aliases),
            None => RefreshError::unexpected(format!(
                "{TOKEN_ENDPOINT} answered {} without usable tokens: {why}",
                status.as_u16()
            )),
        }
    })
}

/// The answer of `what`; `aliases` are the error codes that mean `invalid_grant` to this server.
pub(crate) fn refusal(
    what: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    aliases: &[String],
) -> RefreshError {
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| {
        let text = value.to_str().ok()?;
        retry_after_at(text, SystemTime::now())
    });
    let code = status.as_u16();
    let error = error_code(body);
    // An error code counts where the server has judged the request: not on the way (5xx).
    if status.is_success() || status.is_client_error() && code != 429 {
        match error.as_deref() {
            Some("invalid_grant") => {
                return RefreshError::rejected(format!("{what} answered invalid_grant"));
            }
            Some(error) if aliases.iter().any(|alias| alias == error) => {
                return RefreshError::rejected(format!("{what} answered {error}"));
            }
            Some(
                error @ ("invalid_client"
                | "unauthorized_client"
                | "invalid_scope"
                | "invalid_request"
                | "unsupported_grant_type"
                | "invalid_target"),
            ) => {
                return RefreshError::misconfigured(format!("{what} answered {code} {error}"));
            }
            _ => {}
        }
    }
    let message = format!("{what} answered {code}");
    let is_later = error.as_deref().is_some_and(|error| LATER.contains(&error));
    match code {
        200..300 if error.is_some() && !is_later && retry_after.is_none() => {
            RefreshError::unreadable(message)
        }
        429 => RefreshError::busy(message, retry_after),
        503 if retry_after.is_some() => RefreshError::busy(message, retry_after),
        500 | 502 | 503 | 504 => RefreshError::no_answer(message).with_wait(retry_after),
        300..400 => RefreshError::misconfigured(format!(
            "{message}, a redirect, which is not followed: give the final URL"
        )),
        404 | 405 | 410 => RefreshError::misconfigured(format!("{message}: check its URL")),
        // Said by a proxy, or of the connection.
        407 | 408 => RefreshError::unexpected(message).with_wait(retry_after),
        // Whatever it means with a wait: not for ever.
        400..500 if !is_later && retry_after.is_none() => RefreshError::unreadable(message),
        _ => RefreshError::unexpected(message).with_wait(retry_after),
    }
}

/// The `error` of an error response (RFC 6749 §5.2).
pub(crate) fn error_code(body: &[u8]) -> Option<String> {
    /// Of that field alone, no copy is made of a token beside it.
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }

    // It would be read from a JSON array too.
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    let refusal = is_object.then(|| serde_json::from_slice::<Refusal>(body).ok())?;
    refusal.map(|refusal| refusal.error)
}

/// Both forms of `Retry-After` (RFC 9110 §10.2.3); a date that has passed is no wait.
fn retry_after_at(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits for a number are a very long wait all the same.
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// They say nothing against the token: a login would not help (RFC 8628 §3.5, RFC 6749 §4.1.2.1).
const LATER: &[&str] = &[
    "authorization_pending",
    "internal_failure",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Outcome;
    use crate::token::Secret;
    use Outcome::{Busy, Misconfigured, NoAnswer, Rejected, Unexpected, Unreadable};

    #[test]
    fn status_body_and_headers_decide_the_outcome() {
        let tokens = r#"{"access_token":"a","token_type":"Bearer"}"#;
        let refused = r#"{"error":"invalid_grant"}"#;
        let refused_long = r#"{"error":"invalid_grant","error_description":"Token is not active"}"#;
        let html = "<html><body>Sign in to the network</body></html>";
        let none = &[][..];
        let after = |value: &'static str| [("retry-after", value)];
        type Row<'a> = (u16, &'a [(&'a str, &'a str)], &'a str, Outcome);
        let rows: &[Row<'_>] = &[
            // a refusal of the token itself
            (400, none, refused, Rejected),
            (400, none, refused_long, Rejected),
            (400, none, " {\n \"error\" : \"invalid_grant\" }\n", Rejected),
            (400, &[("content-type", "text/html")], refused, Rejected),
            (401, none, refused, Rejected),
            (403, none, refused, Rejected),
            (400, &after("5"), refused, Rejected),
            (200, none, refused, Rejected),
            // not one
            (400, none, r#"{"error":"INVALID_GRANT"}"#, Unreadable),
            (400, none, r#"{"error":["invalid_grant"]}"#, Unreadable),
            (400, none, r#"{"error":{"code":"invalid_grant"}}"#, Unreadable),
            (400, none, r#"{"error_description":"invalid_grant"}"#, Unreadable),
            (400, none, r#"["invalid_grant"]"#, Unreadable),
            (400, none, "error=invalid_grant", Unreadable),
            (400, none, "invalid_grant", Unreadable),
            (400, none, r#"{"error":"invalid_grant""#, Unreadable),
            (500, none, refused, NoAnswer),
            (502, none, refused, NoAnswer),
            (503, none, refused, NoAnswer),
            (429, none, refused, Busy),
            (501, none, refused, Unexpected),
            // the program's own settings
            (401, none, r#"{"error":"invalid_client"}"#, Misconfigured),
            (400, none, r#"{"error":"invalid_client"}"#, Misconfigured),
            (400, none, r#"{"error":"unauthorized_client"}"#, Misconfigured),
            (400, none, r#"{"error":"invalid_scope"}"#, Misconfigured),
            (400, none, r#"{"error":"invalid_request"}"#, Misconfigured),
            (400, none, r#"{"error":"unsupported_grant_type"}"#, Misconfigured),
            (400, none, r#"{"error":"invalid_target"}"#, Misconfigured),
            (200, none, r#"{"error":"invalid_client"}"#, Misconfigured),
            (404, none, "", Misconfigured),
            (404, none, html, Misconfigured),
            (405, none, "", Misconfigured),
            (410, none, "", Misconfigured),
            (301, &[("location", "https://elsewhere.example")], "", Misconfigured),
            (302, none, html, Misconfigured),
            (307, none, "", Misconfigured),
            (308, none, "", Misconfigured),
            (304, none, "", Misconfigured),
            // oidc-provider 8: spent, revoked and unknown tokens; a wrong client or secret; a scope
            // beyond the grant; no token; a secret that is not form-encoded; another grant type
            (
                400,
                none,
                r#"{"error":"invalid_grant","error_description":"grant request is invalid"}"#,
                Rejected,
            ),
            (
                401,
                none,
                r#"{"error":"invalid_client","error_description":"client authentication failed"}"#,
                Misconfigured,
            ),
            (
                400,
                none,
                r#"{"error":"invalid_scope","error_description":"refresh token missing requested scope","scope":"admin"}"#,
                Misconfigured,
            ),
            (
                400,
                none,
                r#"{"error":"invalid_request","error_description":"missing required parameter 'refresh_token'"}"#,
                Misconfigured,
            ),
            (
                400,
                none,
                r#"{"error":"invalid_request","error_description":"client_id and client_secret in the authorization header are not properly encoded"}"#,
                Misconfigured,
            ),
            (
                400,
                none,
                r#"{"error":"unsupported_grant_type","error_description":"unsupported grant_type requested"}"#,
                Misconfigured,
            ),
            // Authlib 1.6: spent, revoked and unknown tokens; a wrong secret; an unknown client; a
            // scope beyond the grant; no token; another grant type
            (400, none, r#"{"error": "invalid_grant"}"#, Rejected),
            (
                401,
                none,
                r#"{"error": "invalid_client", "error_description": "The client cannot authenticate with methods: ['client_secret_basic']"}"#,
                Misconfigured,
            ),
            (
                401,
                none,
                r#"{"error": "invalid_client", "error_description": "The client does not exist on this server."}"#,
                Misconfigured,
            ),
            (
                400,
                none,
                r#"{"error": "invalid_scope", "error_description": "The requested scope is invalid, unknown, or malformed."}"#,
                Misconfigured,
            ),
            (
                400,
                none,
                r#"{"error": "invalid_request", "error_description": "Missing 'refresh_token' in request."}"#,
                Misconfigured,
            ),
            (400, none, r#"{"error": "unsupported_grant_type"}"#, Misconfigured),
            // it has asked to wait
            (200, &after("7"), r#"{"error":"rate_limit_exceeded"}"#, Unexpected),
            (400, &after("7"), r#"{"error":"rate_limit_exceeded"}"#, Unexpected),
            (403, &after("7"), html, Unexpected),
            (404, &after("7"), "", Misconfigured),
            (400, none, r#"{"error":"internal_failure"}"#, Unexpected),
            (429, none, "", Busy),
            (429, &after("7"), "", Busy),
            (429, &after(" 7 "), html, Busy),
            (429, &after("0"), "", Busy),
            (429, &after("86400"), "", Busy),
            (429, &after("99999999999999999999999"), "", Busy),
            (429, &after("-5"), "", Busy),
            (429, &after("soon"), "", Busy),
            (429, &after(""), "", Busy),
            (429, &after("Fri, 31 Dec 1999 23:59:59 GMT"), "", Busy),
            (429, &after("Fri, 31 Dec 2100 23:59:59 GMT"), "", Busy),
            (503, &after("30"), html, Busy),
            (503, &after("soon"), html, NoAnswer),
            // the server, or something before it, broke
            (500, none, "", NoAnswer),
            (500, none, html, NoAnswer),
            (502, none, html, NoAnswer),
            (503, none, "", NoAnswer),
            (504, none, html, NoAnswer),
            (504, &after("30"), "", NoAnswer),
            // no word that is understood
            (400, none, "", Unreadable),
            (400, none, html, Unreadable),
            (401, none, "", Unreadable),
            (401, none, html, Unreadable),
            (403, none, html, Unreadable),
            (407, none, "", Unexpected),
            (408, none, "", Unexpected),
            (418, none, "", Unreadable),
            (400, none, r#"{"error":"refresh_token_reused"}"#, Unreadable),
            (400, none, r#"{"error":"interaction_required"}"#, Unreadable),
            (400, none, r#"{"error":{"code":400,"message":"TOKEN_EXPIRED"}}"#, Unreadable),
            (401, none, r#"{"error":"invalid_token"}"#, Unreadable),
            (401, none, r#"{"message":"Unauthorized"}"#, Unreadable),
            (403, none, "null", Unreadable),
            (400, none, tokens, Unreadable),
            (407, none, r#"{"error":"interaction_required"}"#, Unexpected),
            (408, none, r#"{"error":"interaction_required"}"#, Unexpected),
            (429, none, r#"{"error":"interaction_required"}"#, Busy),
            (404, none, r#"{"error":"interaction_required"}"#, Misconfigured),
            (200, none, r#"{"error":"bad_refresh_token"}"#, Unreadable),
            (200, none, r#"{"error":"slow_down"}"#, Unexpected),
            (500, none, tokens, NoAnswer),
            // later
            (400, none, r#"{"error":"slow_down"}"#, Unexpected),
            (400, none, r#"{"error":"authorization_pending"}"#, Unexpected),
            (400, none, r#"{"error":"temporarily_unavailable"}"#, Unexpected),
            (403, none, r#"{"error":"server_error"}"#, Unexpected),
            (501, none, "", Unexpected),
            (599, none, "", Unexpected),
            // a 2xx without tokens
            (200, none, "", Unexpected),
            (200, none, html, Unexpected),
            (204, none, "", Unexpected),
            (200, none, "{}", Unexpected),
            (200, none, "null", Unexpected),
            (200, none, r#"{"access_token":null}"#, Unexpected),
            (200, none, r#"{"access_token":7}"#, Unexpected),
            (200, none, r#"{"access_token":7,"refresh_token":["r"]}"#, Unexpected),
            (
                200,
                none,
                r#"{"access_token":7,"refresh_token":"r","error":"invalid_grant"}"#,
                Rejected,
            ),
            (200, none, r#"{"access_token":"a","token_type":"mac"}"#, Unexpected),
            (200, none, r#"{"access_token":"a"#, Unexpected),
        ];
        assert!(rows.len() >= 60, "{}", rows.len());
        for (status, headers, body, expected) in rows {
            let headers: HeaderMap = (headers.iter())
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            let status = StatusCode::from_u16(*status).unwrap();
            let error = classify(status, &headers, body.as_bytes(), &[]).unwrap_err();
            assert_eq!(error.outcome(), *expected, "{status} {headers:?} {body:?}");
        }
    }

    #[test]
    fn the_wait_that_the_server_asks_for_is_taken_whatever_it_says_up_to_an_hour() {
        let limited = r#"{"error":"rate_limit_exceeded"}"#;
        let rows = [
            (429, "7", "", Some(7)),
            (429, " 7 ", limited, Some(7)),
            (429, "0", "", Some(0)),
            (429, "86400", "", Some(3600)),
            (429, "99999999999999999999999", "", Some(3600)),
            (429, "-5", "", None),
            (429, "soon", "", None),
            (429, "", "", None),
            (429, "Fri, 31 Dec 1999 23:59:59 GMT", "", Some(0)),
            (429, "Fri, 31 Dec 2100 23:59:59 GMT", "", Some(3600)),
            (503, "30", "", Some(30)),
            (503, "soon", "", None),
            (500, "30", "", Some(30)),
            (504, "30", "", Some(30)),
            (400, "7", limited, Some(7)),
            (403, "600", "<html>", Some(600)),
            (403, "86400", "", Some(3600)),
            (408, "7", "", Some(7)),
            (200, "7", limited, Some(7)),
            // It is over.
            (400, "7", r#"{"error":"invalid_grant"}"#, None),
        ];
        for (status, said, body, expected) in rows {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, said.parse().unwrap())]);
            let status = StatusCode::from_u16(status).unwrap();
            let error = classify(status, &headers, body.as_bytes(), &[]).unwrap_err();
            let wait = error.retry_after();
            assert_eq!(wait, expected.map(Duration::from_secs), "{status} {said:?} {body:?}");
        }
    }

    #[test]
    fn an_alias_means_invalid_grant_and_no_more_than_that() {
        let aliases = ["refresh_token_reused".to_owned(), "invalid_client".to_owned()];
        let outcome = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            refusal(TOKEN_ENDPOINT, status, &HeaderMap::new(), body.as_bytes(), &aliases).outcome()
        };
        assert_eq!(outcome(400, r#"{"error":"refresh_token_reused"}"#), Rejected);
        assert_eq!(outcome(401, r#"{"error":"invalid_client"}"#), Rejected, "as was asked for");
        assert_eq!(outcome(400, r#"{"error":"invalid_grant"}"#), Rejected);
        assert_eq!(outcome(400, r#"{"error":"REFRESH_TOKEN_REUSED"}"#), Unreadable);
        assert_eq!(outcome(500, r#"{"error":"refresh_token_reused"}"#), NoAnswer);
        assert_eq!(outcome(429, r#"{"error":"refresh_token_reused"}"#), Busy);
        assert_eq!(outcome(400, r#"{"error":"invalid_scope"}"#), Misconfigured);
    }

    #[test]
    fn any_2xx_with_tokens_is_a_refresh() {
        for status in [200, 201, 202] {
            let status = StatusCode::from_u16(status).unwrap();
            let body = br#"{"access_token":"a","expires_in":"60","error":null}"#;
            let response = classify(status, &HeaderMap::new(), body, &[]).unwrap();
            assert_eq!(response.expires_in, Some(Duration::from_secs(60)));
        }
    }

    #[test]
    fn a_rotated_refresh_token_is_taken_whatever_is_beside_it() {
        for body in [
            r#"{"access_token":7,"refresh_token":"r"}"#,
            r#"{"access_token":{"value":"a"},"refresh_token":"r"}"#,
            r#"{"access_token":"a","token_type":["Bearer"],"refresh_token":"r"}"#,
            r#"{"refresh_token":"r","token_type":"mac","token_type":7,"access_token":"a"}"#,
            r#"{"refresh_token":"q","access_token":"a","access_token":null,"refresh_token":"r"}"#,
        ] {
            let response = classify(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), &[]);
            let response = response.unwrap();
            assert!(response.check().is_err(), "{body}");
            assert_eq!(response.refresh_token.as_ref().map(Secret::expose), Some("r"), "{body}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, expected) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sunday, 06-Nov-94 08:51:37 GMT", Some(120)),
            ("Sun Nov  6 08:51:37 1994", Some(120)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("1.5", None),
            ("+5", None),
            ("never", None),
        ] {
            assert_eq!(retry_after_at(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
