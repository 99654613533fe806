//! What a 401 says: whether a new access token may cure it (RFC 6750 §3.1, RFC 9470 §3).
//!
//! Reads every challenge of every `WWW-Authenticate` line (RFC 9110 §11.6.1), and never fails:
//! what it cannot read counts as said nothing, and a 401 that says nothing is worth a refresh.
//! http-auth, the parser at hand, gives up on token68 and on anything outside the strict grammar,
//! and with it on the challenges that follow.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

/// What to do about a 401.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Challenge {
    /// A new access token may help.
    Refresh,
    /// It won't: the response goes to the caller as it is.
    Final,
    /// The user has to log in more strongly (RFC 9470).
    StepUp(StepUp),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepUp {
    pub(crate) acr_values: Option<String>,
    pub(crate) max_age: Option<u64>,
}

pub(crate) fn read(headers: &HeaderMap) -> Challenge {
    let mut verdict = Challenge::Refresh;
    for line in headers.get_all(WWW_AUTHENTICATE) {
        for params in challenges(line) {
            let find = |name: &str| {
                let found = params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.as_str())
            };
            match find("error") {
                // One challenge that a new token answers is enough.
                Some("invalid_token") => return Challenge::Refresh,
                // A DPoP nonce (RFC 9449 §9) proves nothing about a bearer token.
                Some("invalid_request" | "insufficient_scope" | "use_dpop_nonce")
                    if verdict == Challenge::Refresh =>
                {
                    verdict = Challenge::Final;
                }
                Some("insufficient_user_authentication") => {
                    verdict = Challenge::StepUp(StepUp {
                        acr_values: find("acr_values").map(str::to_owned),
                        max_age: find("max_age").and_then(|age| age.parse().ok()),
                    });
                }
                _ => {}
            }
        }
    }
    verdict
}

/// The parameters of each Bearer or DPoP challenge on one line. Other schemes say nothing about
/// our token.
fn challenges(line: &HeaderValue) -> Vec<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut ours = false;
    for item in items(line.as_bytes()) {
        // `Scheme`, `Scheme token68`, `Scheme key=value` or `key=value`: a scheme starts every
        // item whose first word isn't followed by `=`.
        let mut rest = item;
        let word = take_token(&mut rest);
        let after = trim(rest);
        let (key, value) = match after.first() {
            Some(b'=') => (word, &after[1..]),
            _ => {
                ours = word.eq_ignore_ascii_case(b"bearer") || word.eq_ignore_ascii_case(b"dpop");
                if ours {
                    found.push(Vec::new());
                }
                let mut rest = after;
                let key = take_token(&mut rest);
                match trim(rest).split_first() {
                    Some((b'=', value)) => (key, value),
                    _ => continue,
                }
            }
        };
        if let (true, Some(params)) = (ours && !key.is_empty(), found.last_mut()) {
            params.push((text(key), unquote(trim(value))));
        }
    }
    found
}

/// Splits at the commas that are outside quoted strings.
fn items(line: &[u8]) -> Vec<&[u8]> {
    let (mut items, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                items.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&line[start..]);
    items.into_iter().map(trim).filter(|item| !item.is_empty()).collect()
}

fn take_token<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = (rest.iter())
        .position(|b| b.is_ascii_whitespace() || matches!(b, b'=' | b'"' | b','))
        .unwrap_or(rest.len());
    let (token, tail) = rest.split_at(end);
    *rest = tail;
    token
}

fn unquote(value: &[u8]) -> String {
    let Some((b'"', inner)) = value.split_first() else {
        let mut rest = value;
        return text(take_token(&mut rest));
    };
    let (mut out, mut escaped) = (Vec::with_capacity(inner.len()), false);
    for &byte in inner {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => break,
            _ => {
                out.push(byte);
                escaped = false;
            }
        }
    }
    text(&out)
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_whether_a_refresh_may_help() {
        let step_up = |acr: Option<&str>, max_age| {
            Challenge::StepUp(StepUp { acr_values: acr.map(str::to_owned), max_age })
        };
        let rows: &[(&[&str], Challenge)] = &[
            (&[], Challenge::Refresh),
            (&[""], Challenge::Refresh),
            (&["Bearer"], Challenge::Refresh),
            (&["Bearer realm=\"api\""], Challenge::Refresh),
            (&["Bearer error=\"invalid_token\""], Challenge::Refresh),
            (&["bearer ERROR=invalid_token"], Challenge::Refresh),
            (&["Bearer error=\"invalid_request\""], Challenge::Final),
            (&["BEARER error=insufficient_scope"], Challenge::Final),
            (&["Bearer   error = \"insufficient_scope\""], Challenge::Final),
            (&["Bearer\terror=\"insufficient_scope\""], Challenge::Final),
            (&["Bearer realm=\"a\",error=\"insufficient_scope\""], Challenge::Final),
            (
                &["Bearer realm=\"a, error=\\\"x\\\"\", error=\"insufficient_scope\""],
                Challenge::Final,
            ),
            (&["Bearer realm=\"Bearer error=insufficient_scope\""], Challenge::Refresh),
            (&["Bearer realm=\"a, Bearer error=insufficient_scope\""], Challenge::Refresh),
            (&["Bearer error=\"in\\valid_request\""], Challenge::Final),
            (&["DPoP error=\"use_dpop_nonce\""], Challenge::Final),
            (
                &["Bearer error=\"invalid_token\", DPoP error=\"use_dpop_nonce\""],
                Challenge::Refresh,
            ),
            (&["Bearer error_description=\"error=insufficient_scope\""], Challenge::Refresh),
            // several schemes, several lines
            (&["Basic realm=\"x\", Bearer error=\"insufficient_scope\""], Challenge::Final),
            (&["Basic error=\"insufficient_scope\""], Challenge::Refresh),
            (&["Basic error=\"insufficient_scope\", Bearer"], Challenge::Refresh),
            (&["Bearer realm=\"a\", Basic error=\"insufficient_scope\""], Challenge::Refresh),
            (&["Negotiate YWJj==, Bearer error=\"insufficient_scope\""], Challenge::Final),
            (&["Negotiate, NTLM TlRMTVNTUAAB=, Bearer error=insufficient_scope"], Challenge::Final),
            (&["Negotiate", "Bearer error=\"insufficient_scope\""], Challenge::Final),
            (
                &["Bearer error=\"insufficient_scope\"", "Bearer error=\"invalid_token\""],
                Challenge::Refresh,
            ),
            (&["DPoP algs=\"ES256\", error=\"insufficient_scope\""], Challenge::Final),
            // RFC 9470
            (&["Bearer error=\"insufficient_user_authentication\""], step_up(None, None)),
            (
                &[
                    "Bearer error=\"insufficient_user_authentication\", acr_values=\"a b\", max_age=\"5\"",
                ],
                step_up(Some("a b"), Some(5)),
            ),
            (&["Bearer error=insufficient_user_authentication, max_age=soon"], step_up(None, None)),
            (
                &[
                    r#"Bearer error="insufficient_user_authentication", acr_values="a\"b\\c""#,
                    "Bearer error=insufficient_scope",
                ],
                step_up(Some(r#"a"b\c"#), None),
            ),
            // escapes, inside quotes and outside
            (&[r#"Bearer realm="a\"b, c", error="insufficient_scope""#], Challenge::Final),
            (&[r#"Bearer realm=a\, error="insufficient_scope""#], Challenge::Final),
            // garbage
            (&[",,, ,"], Challenge::Refresh),
            (&["="], Challenge::Refresh),
            (&["=\"", "\"\"\"", "Bearer \"unclosed, error=insufficient_scope"], Challenge::Refresh),
            (&["Bearer error=\"insufficient_scope"], Challenge::Final),
            (&["Bearer ,, error=insufficient_scope"], Challenge::Final),
            (&["error=\"insufficient_scope\""], Challenge::Refresh),
            (&["Bearer error"], Challenge::Refresh),
            (&["Bearer error=\"\\"], Challenge::Refresh),
        ];
        for (lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(read(&headers), *expected, "{lines:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_read_around() {
        let mut headers = HeaderMap::new();
        let line = b"Bearer realm=\"\xff\xfe, \x80\", error=\"insufficient_scope\"";
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line).unwrap());
        assert_eq!(read(&headers), Challenge::Final);
    }

    #[test]
    fn no_line_of_up_to_five_odd_bytes_panics() {
        let odd = b"B=\", \\a\t\xff";
        let mut count = 0u32;
        for length in 0..=5u32 {
            for mut number in 0..(odd.len() as u32).pow(length) {
                let mut line = b"Bearer ".to_vec();
                for _ in 0..length {
                    line.push(odd[number as usize % odd.len()]);
                    number /= odd.len() as u32;
                }
                let mut headers = HeaderMap::new();
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(&line).unwrap());
                assert_eq!(read(&headers), Challenge::Refresh);
                count += 1;
            }
        }
        assert_eq!(count, 1 + 9 + 81 + 729 + 6561 + 59049);
    }
}
