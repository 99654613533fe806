//! What the parsers promise of any input: the fuzz targets and the property tests both ask here.

#[cfg(feature = "login")]
mod login;
#[cfg(feature = "login")]
pub use login::{device_authorization, redirect};
#[cfg(test)]
mod made_up;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::challenge::{self, Challenge};
use crate::endpoint::{Outcome, RefreshError, ServerMetadata, classify};
use crate::refresh::{JournalKey, Mark, Trace, imported, journal};
use crate::store::{Brief, Notes, Pin, Record};
use crate::token::{LIFETIME_MAX, LoginId, Moment, TokenResponse};

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

/// The body of a token response: what is taken from it can be used, and a refresh token is found
/// whatever is beside it.
pub fn token_response(input: &[u8]) {
    if let Ok(Value::Object(fields)) = serde_json::from_slice(input) {
        let found = TokenResponse::read(input).map(|response| response.refresh_token);
        let found = found.expect("an object").map(|token| token.expose().to_owned());
        let told = fields.get("refresh_token").and_then(Value::as_str);
        assert_eq!(found.as_deref(), told.filter(|token| !token.is_empty()));
    }
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
    let (pin, now) = (pin(), Moment::now());
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
    assert_eq!(error.outcome(), Outcome::Busy);
    let wait = error.retry_after();
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
            // One with a number beyond all bounds can't be read as a whole.
            if let Ok(json) = serde_json::from_slice::<Value>(body) {
                assert_eq!(json["error"], "invalid_grant");
            }
        }
        Err(_) => {}
    }
}

/// What a server says of itself: it is the issuer that was asked, and no secret goes where others
/// could read it.
pub fn metadata(input: &[u8]) {
    let Ok(metadata) = ServerMetadata::read(ISSUER, input) else {
        return;
    };
    assert_eq!(metadata.issuer(), Some(ISSUER));
    let others = [
        metadata.authorization_endpoint(),
        metadata.revocation_endpoint(),
        metadata.device_authorization_endpoint(),
    ];
    for url in others.into_iter().flatten().chain([metadata.token_endpoint()]) {
        let stays_here =
            ["127.0.0.1", "[::1]", "localhost"].contains(&url.host_str().unwrap_or(""));
        assert!(url.scheme() == "https" || url.scheme() == "http" && stays_here, "{url}");
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    }
    // As it is kept with the tokens.
    let kept = serde_json::to_vec(&metadata).unwrap_or_default();
    assert_eq!(ServerMetadata::read(ISSUER, &kept), Ok(metadata));
}

/// The claims of an ID token: whose it is, or nobody's.
pub fn claims(input: &[u8]) {
    let claims = URL_SAFE_NO_PAD.encode(input);
    let answer = format!(r#"{{"access_token":"a","id_token":"e30.{claims}.x"}}"#);
    let subject = TokenResponse::parse(answer.as_bytes()).map(|response| response.subject);
    let claims: Value = serde_json::from_slice(input).unwrap_or_default();
    let said = |name: &str| claims[name].as_str().map(str::to_owned);
    if let Ok(Some(subject)) = subject
        && let (Some(issuer), Some(who)) = (said("iss"), said("sub"))
    {
        assert_eq!(subject, format!("{issuer} {who}"));
    }
}

/// What lies beside the lock, whoever wrote it: a mark that can't be read may stand for the token
/// that is to be sent, and nobody who has not the key puts tokens into the journal.
pub fn notes(input: &[u8]) {
    let (login, refresh) = (LoginId("l".to_owned()), Some("hash".to_owned()));
    let key = JournalKey::from_hex(&"5".repeat(64));
    let brief = Brief { login, generation: 7, refresh, key: key.clone() };
    let notes = Notes::new(None);
    for kind in ["mark", "trace", "journal", "imported"] {
        notes.write(kind, input).expect("in memory");
    }
    let is_json = serde_json::from_slice::<Value>(input).is_ok();
    let mark = Mark::of(&notes, &brief).expect("in memory");
    assert!(mark.is_some() || is_json);
    let newer = journal::newer(&notes, &key.expect("a key"), &brief).expect("in memory");
    assert!(newer.is_none());
    let _ = (Trace::says_logged_in(&notes), Trace::failure_of(&notes, &brief));
    let _ = imported::is_noted(&notes, "token");
}

fn pin() -> Pin {
    Pin("https://id.example.com/token client".to_owned())
}

const ISSUER: &str = "https://id.example.com";

fn lines(name: HeaderName, input: &[u8]) -> HeaderMap {
    let lines = input.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::made_up::{Field, input, object};
    use super::*;

    const NUMBER: &[&str] = &["300", "\"300\"", "0", "-1", "1e999", "null", ""];
    const TIME: &[&str] = &["1", "0", "18446744073709551615"];
    const TEXT: &[&str] = &["\"a b\"", "\"\"", "\"\\u0000\"", "7", "null", ""];
    const TOKENS: &[Field] = &[
        ("access_token", &["\"at\"", "\"at\"", "\"at\"", "\"a\\nb\"", "\"\"", "7", ""]),
        ("refresh_token", &["\"rt\"", "\"\"", "7", "null", ""]),
        ("token_type", &["\"Bearer\"", "\"bearer\"", "", "\"mac\"", "7"]),
        ("expires_in", NUMBER),
        ("refresh_expires_in", NUMBER),
        ("scope", TEXT),
        ("id_token", TEXT),
        ("error", &["", "", "\"invalid_grant\"", "\"other\"", "7"]),
    ];
    const RECORD: &[Field] = &[
        ("version", &["1", "1", "1", "1", "2", "\"1\""]),
        ("login", &["\"l\"", "\"l\"", "\"l\"", "7"]),
        ("generation", &["0", "7", "18446744073709551614", "18446744073709551615"]),
        ("replayed", &["false", "true"]),
        ("access_token", &["\"at\"", "\"at\"", "\"a\\nb\""]),
        ("refresh_token", &["\"rt\"", "null", ""]),
        ("logged_in_at", &["1", "0", ""]),
        ("received_at", TIME),
        ("expires_at", TIME),
        ("refresh_expires_at", &["1", "null", ""]),
        ("subject", &["\"a b\"", "null", ""]),
        ("issued_by", &[PIN, PIN, PIN, "\"another\""]),
    ];
    const PIN: &str = "\"https://id.example.com/token client\"";
    const METADATA: &[Field] = &[
        ("issuer", &[SAID, SAID, SAID, "\"https://id.example.com/\"", ""]),
        ("token_endpoint", &[URL, URL, LOCAL, "\"http://id.example.com/\"", "\"https://a@b.c/\""]),
        ("revocation_endpoint", &[URL, LOCAL, "\"https://id.example.com/#a\"", "null", ""]),
        ("authorization_endpoint", &[URL, "\"urn:a\"", "\"http://id.example.com/\"", ""]),
        ("device_authorization_endpoint", &[URL, URL, "7", ""]),
        ("authorization_response_iss_parameter_supported", &["true", "false", "null", "7", ""]),
    ];
    const SAID: &str = "\"https://id.example.com\"";
    const URL: &str = "\"https://id.example.com/a?b=c\"";
    const LOCAL: &str = "\"http://[::1]:8011/token\"";

    #[test]
    fn a_fair_share_of_what_is_made_up_is_read() {
        let mut runner = TestRunner::deterministic();
        let mut read = |fields, is_read: fn(&[u8]) -> bool| {
            let inputs = (0..1000).map(|_| object(fields).new_tree(&mut runner).unwrap().current());
            inputs.filter(|input| is_read(input)).count()
        };
        let shares = [
            read(TOKENS, |input| TokenResponse::parse(input).is_ok()),
            read(RECORD, |input| Record::from_bytes(input).read(&pin(), 0, Moment::now()).is_ok()),
            read(METADATA, |input| ServerMetadata::read(ISSUER, input).is_ok()),
        ];
        assert!(shares.iter().all(|share| (50..950).contains(share)), "{shares:?} of 1000");
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
            challenge(&input);
        }

        #[test]
        fn any_body_is_read_and_what_it_brings_can_be_used(
            salad in input(JSON), object in object(TOKENS)
        ) {
            token_response(&salad);
            token_response(&object);
        }

        #[test]
        fn any_record_is_read_and_what_is_read_can_be_saved(
            salad in input(JSON), object in object(RECORD)
        ) {
            record(&salad);
            record(&object);
        }

        #[test]
        fn any_metadata_is_of_the_issuer_and_names_no_place_that_others_can_read(
            object in object(METADATA)
        ) {
            metadata(&object);
        }

        #[test]
        fn any_claims_are_of_somebody_or_nobody(
            salad in input(JSON), object in object(&[("iss", TEXT), ("sub", TEXT)])
        ) {
            claims(&salad);
            claims(&object);
        }

        #[test]
        fn any_note_is_read_and_nobody_without_the_key_writes_the_journal(
            salad in input(JSON)
        ) {
            notes(&salad);
        }

        #[test]
        fn any_retry_after_is_an_hour_at_most(input in input(RETRY_AFTER)) {
            retry_after(&input);
        }

        #[test]
        fn any_answer_is_classified_and_only_invalid_grant_rejects(
            status in 100..600u16, salad in input(JSON), object in object(TOKENS)
        ) {
            for body in [salad, object] {
                answer(&[&status.to_be_bytes()[..], &body].concat());
            }
        }

        #[test]
        fn a_whole_record_survives_any_tokens(access in "[!-~]{1,40}", refresh in ".{0,40}") {
            let json = serde_json::json!({ "access_token": access, "refresh_token": refresh });
            record(json.to_string().as_bytes());
        }
    }
}
