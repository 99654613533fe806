//! What the parsers of logins promise of any input.

use std::error::Error as StdError;
use std::time::Duration;

use super::ISSUER;
use crate::endpoint::ServerMetadata;
use crate::error::Error;
use crate::login::{DENIED, read_device_authorization, read_redirect};

/// What a browser brings, as a query: a code where it has the login's own state, is from its issuer
/// and says nothing else, and only there.
pub fn redirect(input: &[u8]) {
    let query: Vec<(String, String)> = form_urlencoded::parse(input).into_owned().collect();
    let said = |name: &str| {
        let named = query.iter().filter(|(key, value)| key == name && !value.is_empty());
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let (codes, issuers, errors) = (said("code"), said("iss"), said("error"));
    for (server, is_from_there) in [(known(), issuers == [ISSUER]), (unknown(), issuers.len() <= 1)]
    {
        let Some(result) = read_redirect(&query, STATE, &server) else {
            assert_ne!(said("state"), [STATE]);
            continue;
        };
        assert_eq!(said("state"), [STATE]);
        let is_no = matches!(errors[..], [error] if DENIED.contains(&error));
        let is_denied = is_from_there && codes.len() <= 1 && is_no;
        let is_granted = is_from_there && codes.len() == 1 && errors.is_empty();
        match result {
            Ok(code) => assert!(is_granted && codes == [code]),
            Err(error) => {
                assert_eq!((error.is_denied(), is_granted), (is_denied, false));
                shows_lines(&error);
            }
        }
    }
}

/// The answer that begins a login on another device: a person is shown a line and a web page, and
/// nobody asks or waits without end.
pub fn device_authorization(input: &[u8]) {
    let (prompt, code, interval) = match read_device_authorization(input) {
        Ok(asked) => asked,
        Err(error) => return shows_lines(&error),
    };
    is_a_line(&prompt.to_string());
    assert!(!prompt.user_code().is_empty() && !code.is_empty());
    for page in [Some(prompt.verification_uri()), prompt.verification_uri_complete()] {
        assert!(page.is_none_or(|page| page.starts_with("https:") || page.starts_with("http:")));
    }
    assert!(interval >= Duration::from_secs(1));
    assert!(prompt.expires_in() <= Duration::from_secs(24 * 3600));
    let _ = prompt.qr_code();
}

fn is_a_line(text: &str) {
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

/// A person may see what it came from, too.
fn shows_lines(error: &Error) {
    let mut next: Option<&dyn StdError> = Some(error);
    while let Some(error) = next {
        is_a_line(&error.to_string());
        next = error.source();
    }
}

/// A server that was found by its issuer, and says that in every answer.
fn known() -> ServerMetadata {
    let metadata = serde_json::json!({
        "issuer": ISSUER,
        "token_endpoint": "https://id.example.com/token",
        "authorization_response_iss_parameter_supported": true,
    });
    ServerMetadata::read(ISSUER, metadata.to_string().as_bytes()).expect("metadata")
}

/// One of which only the endpoints are known.
fn unknown() -> ServerMetadata {
    ServerMetadata {
        issuer: None,
        authorization_response_iss_parameter_supported: false,
        ..known()
    }
}

const STATE: &str = "s";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::super::made_up::{Field, object, query};
    use super::*;

    const REDIRECT: &[Field] = &[
        ("state", &["s", "s", "s", "s", "t", "S", ""]),
        ("iss", &[ISS, ISS, ISS, "https://id.example.com/", ""]),
        ("code", &["c", "c", "%00", ""]),
        ("error", &["", "", "", "", "", "access_denied", NO, "server_error", "a%0Ab", "a"]),
        // Not a field, but one that comes twice.
        ("", &["", "", "", "&state=s", "&iss=a", "&code=d", "&error=&error=a", "&code=&code="]),
    ];
    const ISS: &str = "https%3A%2F%2Fid.example.com";
    const NO: &str = "user_cancelled_login";
    const DEVICE: &[Field] = &[
        ("device_code", &["\"d\"", "\"d\"", "\"d\"", "\"\"", "7"]),
        ("user_code", &["\"WDJB-MJHT\"", "\"a b\"", "\"\\u001b[2J\"", "\"\"", ""]),
        ("verification_uri", &[PAGE, PAGE, "\"http://[::1]:8/\"", "\"file:///a\"", ""]),
        ("verification_url", &[PAGE, "\"javascript:a\"", "", "", ""]),
        ("verification_uri_complete", &[PAGE, "\"javascript:a\"", "\"\"", "null", ""]),
        ("expires_in", &["600", "600", "0", "18446744073709551615", "\"600\"", "-1", "\"NaN\""]),
        ("interval", &["5", "0", "null", "18446744073709551615", "\"5\"", ""]),
    ];
    const PAGE: &str = "\"https://id.example.com/device?a=b\"";

    #[test]
    fn a_fair_share_of_what_is_made_up_is_read() {
        let mut runner = TestRunner::deterministic();
        let devices = (0..1000).map(|_| object(DEVICE).new_tree(&mut runner).unwrap().current());
        let devices = devices.filter(|input| read_device_authorization(input).is_ok()).count();
        let queries = (0..1000).map(|_| query(REDIRECT).new_tree(&mut runner).unwrap().current());
        let queries = queries.filter(|input| {
            let query: Vec<_> = form_urlencoded::parse(input).into_owned().collect();
            matches!(read_redirect(&query, STATE, &known()), Some(Ok(_)))
        });
        let shares = [devices, queries.count()];
        assert!(shares.iter().all(|share| (50..950).contains(share)), "{shares:?} of 1000");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_query_is_read_and_a_code_is_the_logins_own(query in query(REDIRECT)) {
            redirect(&query);
        }

        #[test]
        fn any_device_authorization_is_read_and_can_be_shown(object in object(DEVICE)) {
            device_authorization(&object);
        }
    }
}
