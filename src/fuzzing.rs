//! What the parsers promise of any input: the fuzz targets and the property tests both ask here.

use std::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::challenge::{self, Challenge};
use crate::endpoint::{Outcome, RefreshError, classify};
use crate::store::{Pin, Record};
use crate::token::{LIFETIME_MAX, Moment, TokenResponse};

/// A 401's challenges, one header line for each line: what no Bearer challenge forbids leads to a
/// refresh, and so does one `invalid_token` among whatever else.
pub fn challenge(input: &[u8]) {
    let mut headers = lines(WWW_AUTHENTICATE, input);
    let verdict = challenge::read(&headers);
    let lower = input.to_ascii_lowercase();
    let mentions = |word: &[u8]| lower.windows(word.len()).any(|window| window == word);
    if !mentions(b"bearer") && !mentions(b"dpop") {
        assert_eq!(verdict, Challenge::Refresh);
    }
    let plain = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
    headers.append(WWW_AUTHENTICATE, plain);
    assert_eq!(challenge::read(&headers), Challenge::Refresh);
}

/// The body of a token response: what is taken from it can be used.
pub fn token_response(input: &[u8]) {
    let Ok(response) = TokenResponse::parse(input) else {
        return;
    };
    assert_eq!(response.check(), Ok(()));
    let header = response.header();
    assert!(header.is_sensitive());
    let token = header.as_bytes().strip_prefix(b"Bearer ").map(<[u8]>::len);
    assert_eq!(token, Some(response.access_token.expose().len()));
    for lifetime in [response.expires_in, response.refresh_expires_in].into_iter().flatten() {
        assert!(!lifetime.is_zero() && lifetime <= LIFETIME_MAX);
    }
}

/// What a store gave: what can be read can be saved, and read again.
pub fn record(input: &[u8]) {
    let (pin, now) = (Pin("https://id.example.com/token client".to_owned()), Moment::now());
    let Ok(tokens) = Record::from_bytes(input).read(&pin, 0, now) else {
        return;
    };
    let again = Record::of(&tokens, &pin).read(&pin, 0, now).map(|again| {
        (again.login, again.generation, again.access.expose().to_owned(), again.refresh.is_some())
    });
    let refresh = tokens.refresh.is_some();
    let tokens = (tokens.login, tokens.generation, tokens.access.expose().to_owned(), refresh);
    assert_eq!(again, Ok(tokens));
}

/// `Retry-After`: an hour at most, and no wait is made up.
pub fn retry_after(input: &[u8]) {
    let headers = lines(RETRY_AFTER, input);
    let error = RefreshError::answered(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
    let Outcome::Busy(wait) = error.outcome() else {
        panic!("429 is busy");
    };
    assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(3600)));
    assert!(wait.is_none() || !headers.is_empty());
}

/// An answer of a token endpoint, its status in the first two bytes: only `invalid_grant` is a
/// rejection, and only 2xx brings tokens.
pub fn answer(input: &[u8]) {
    let Some((status, body)) = input.split_first_chunk() else {
        return;
    };
    let Ok(status) = StatusCode::from_u16(u16::from_be_bytes(*status)) else {
        return;
    };
    match classify(status, &HeaderMap::new(), body, &[]) {
        Ok(_) => assert!(status.is_success()),
        Err(error) if error.outcome() == Outcome::Rejected => {
            assert!(status.is_success() || status.is_client_error());
            let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            assert_eq!(json["error"], "invalid_grant");
        }
        Err(_) => {}
    }
}

fn lines(name: HeaderName, input: &[u8]) -> HeaderMap {
    let lines = input.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::{collection, sample};

    /// Anything, or a salad of the words that a parser looks for.
    fn input(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = sample::select(words).prop_map(|word| word.as_bytes().to_vec());
        let piece = prop_oneof![8 => word, 1 => collection::vec(any::<u8>(), 0..4)];
        let salad = collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat());
        prop_oneof![4 => salad, 1 => collection::vec(any::<u8>(), 0..200)]
    }

    const CHALLENGE: &[&str] = &[
        "Bearer",
        "bearer",
        "DPoP",
        "Basic",
        " ",
        ",",
        "=",
        "\"",
        "\\",
        "\n",
        "\t",
        "error",
        "realm",
        "scope",
        "acr_values",
        "max_age",
        "invalid_token",
        "insufficient_scope",
        "invalid_request",
        "insufficient_user_authentication",
        "abc==",
        "\"a, b\"",
        "\"a\\\"b\"",
    ];
    const JSON: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "true",
        "0",
        "-1",
        "1e999",
        "300",
        "\"300\"",
        "\"access_token\":",
        "\"refresh_token\":",
        "\"token_type\":",
        "\"expires_in\":",
        "\"error\":",
        "\"invalid_grant\"",
        "\"Bearer\"",
        "\"mac\"",
        "\"version\":1",
        "\"login\":",
        "\"generation\":",
        "\"replayed\":false",
        "\"logged_in_at\":",
        "\"received_at\":",
        "\"issued_by\":",
        "\"https://id.example.com/token client\"",
        "\"at\"",
        "\"\\u0000\"",
        "{\0",
        "\0",
    ];
    const RETRY_AFTER: &[&str] = &[
        "0",
        "9",
        "3600",
        " ",
        "-",
        "+",
        ".",
        "\n",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "GMT",
        "Nov",
        "99999999999",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_challenge_is_read_and_only_a_bearer_challenge_forbids(
            input in input(CHALLENGE)
        ) {
            super::challenge(&input);
        }

        #[test]
        fn any_body_is_read_and_what_it_brings_can_be_used(input in input(JSON)) {
            super::token_response(&input);
        }

        #[test]
        fn any_record_is_read_and_what_is_read_can_be_saved(input in input(JSON)) {
            super::record(&input);
        }

        #[test]
        fn any_retry_after_is_an_hour_at_most(input in input(RETRY_AFTER)) {
            super::retry_after(&input);
        }

        #[test]
        fn any_answer_is_classified_and_only_invalid_grant_rejects(
            status in 100..600u16, body in input(JSON)
        ) {
            super::answer(&[&status.to_be_bytes()[..], &body].concat());
        }

        #[test]
        fn a_whole_record_survives_any_tokens(access in "[!-~]{1,40}", refresh in ".{0,40}") {
            let json = serde_json::json!({ "access_token": access, "refresh_token": refresh });
            super::record(json.to_string().as_bytes());
        }
    }
}
