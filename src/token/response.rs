//! A token response (RFC 6749 §5.1): strict about what is used, forgiving about how it is said.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::endpoint::ServerMetadata;
use crate::error::Error;
use crate::token::{LIFETIME_MAX, Secret, id_token};

/// What a server answers to a login or a refresh (RFC 6749 §5.1).
///
/// Give it to [`Session::log_in`](crate::Session::log_in), or return it from a
/// [`TokenEndpoint`](crate::TokenEndpoint):
///
/// ```
/// use std::time::Duration;
/// use reqwest_reauth::TokenResponse;
///
/// let by_hand = TokenResponse::new("access").refresh_token("refresh").expires_in(Duration::from_secs(300));
/// let from_server = TokenResponse::from_json(br#"{"access_token":"access","token_type":"bearer","expires_in":"300"}"#)?;
/// # Ok::<(), reqwest_reauth::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenResponse {
    pub(crate) access_token: Secret,
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) refresh_expires_in: Option<Duration>,
    pub(crate) scope: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) server: Option<Arc<ServerMetadata>>,
    /// Why the access token can't be used, whatever it is.
    unusable: Option<&'static str>,
}

impl TokenResponse {
    /// A response with nothing but a bearer token.
    pub fn new(access_token: impl Into<String>) -> Self {
        Self {
            access_token: Secret::new(access_token),
            refresh_token: None,
            expires_in: None,
            refresh_expires_in: None,
            scope: None,
            subject: None,
            server: None,
            unusable: None,
        }
    }

    /// The refresh token. Without one, a refresh keeps the one before (RFC 6749 §6), and a login
    /// has none: its first 401 comes back marked [`LoginRequired`](crate::LoginRequired). An empty
    /// one is none.
    pub fn refresh_token(mut self, token: impl Into<String>) -> Self {
        self.refresh_token = Some(Secret::new(token)).filter(|token| !token.expose().is_empty());
        self
    }

    /// How long the access token lives, from now. Zero counts as unknown: then only a 401 leads
    /// to a refresh.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = usable(lifetime);
        self
    }

    /// How long the refresh token lives, from now. Default: unknown.
    pub fn refresh_expires_in(mut self, lifetime: Duration) -> Self {
        self.refresh_expires_in = usable(lifetime);
        self
    }

    /// The scope that was granted (RFC 6749 §3.3). Default: what was asked for.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Whose tokens they are: any text that is the same at each login of this account, and at no
    /// other's. It decides whether requests that waited for a person to
    /// [log in again](crate::SessionBuilder::login) go on. Default: issuer and subject of the ID
    /// token, if there is one (OpenID Connect Core §2), else unknown.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// The server that issued them: kept with the tokens, whose refresh token goes nowhere else.
    /// Default: that of the session's endpoint.
    pub fn server(mut self, server: ServerMetadata) -> Self {
        self.server = Some(Arc::new(server));
        self
    }

    /// Reads the JSON body of a token response.
    ///
    /// `token_type` may have any case or be absent; `expires_in` (seconds) may be a number or a
    /// string, and counts as unknown when absent, zero, negative or unreadable; the refresh
    /// token's lifetime is `refresh_expires_in` or `refresh_token_expires_in`. Other fields are
    /// ignored (RFC 6749 §5.1). UTF-16, in which programs keep text in Windows' Credential
    /// Manager, is understood too.
    ///
    /// # Errors
    /// The body isn't JSON, has no `access_token`, has one that no header can carry, or has a
    /// `token_type` other than `Bearer`. The message never repeats the body.
    pub fn from_json(body: &[u8]) -> Result<Self, Error> {
        Self::parse(body).map_err(Error::configuration)
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let response = Self::read(body)?;
        response.check()?;
        Ok(response)
    }

    /// As [`parse`](Self::parse); but an access token that can't be used is left to
    /// [`check`](Self::check), as the refresh token may have been rotated all the same.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let utf8 = utf16_as_utf8(body);
        let body = utf8.as_ref().map_or(body, |text| text.as_slice());
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err("the token response is not a JSON object".to_owned());
        }
        let wire: Wire = serde_json::from_slice(body).map_err(|e| match e.classify() {
            // Never the error's own text: it may quote the value.
            serde_json::error::Category::Data => NO_ACCESS_TOKEN.to_owned(),
            _ => "the token response is not JSON".to_owned(),
        })?;
        let is_other = |kind: &String| !kind.eq_ignore_ascii_case("bearer");
        Ok(Self {
            unusable: match (&wire.access_token, &wire.token_type) {
                (None, _) => Some(NO_ACCESS_TOKEN),
                (_, Some(kind)) if is_other(kind) => Some(OTHER_TYPE),
                _ => None,
            },
            access_token: wire
                .access_token
                .map_or_else(|| Secret::new(""), SecretField::into_secret),
            refresh_token: wire
                .refresh_token
                .filter(|token| !token.0.is_empty())
                .map(SecretField::into_secret),
            expires_in: wire.expires_in.as_ref().and_then(seconds),
            refresh_expires_in: (wire.refresh_expires_in.as_ref().and_then(seconds))
                .or_else(|| wire.refresh_token_expires_in.as_ref().and_then(seconds)),
            scope: wire.scope.as_ref().and_then(Value::as_str).map(str::to_owned),
            subject: wire.id_token.and_then(|token| id_token::subject(&token.0)),
            server: None,
        })
    }

    /// Whether the access token can be sent at all.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(why) = self.unusable {
            return Err(why.to_owned());
        }
        let token = self.access_token.expose();
        if token.is_empty() {
            return Err("the access token is empty".to_owned());
        }
        // RFC 6750 §2.1 allows fewer characters; servers allow more. A header decides.
        if token.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
            return Err("the access token has characters that no header can carry".to_owned());
        }
        Ok(())
    }

    /// `Bearer …` (RFC 6750 §2.1), marked sensitive. Only for a response that passed `check`.
    pub(crate) fn header(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", self.access_token.expose()));
        let bare = || HeaderValue::from_static("Bearer");
        let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| bare());
        value.set_sensitive(true);
        value
    }
}

fn utf16_as_utf8(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let units = bytes.starts_with(b"{\0").then(|| bytes.chunks_exact(2))?;
    let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let text: Option<String> = char::decode_utf16(units).map(Result::ok).collect();
    text.map(|text| Zeroizing::new(text.into_bytes()))
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    access_token: Option<SecretField>,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<Value>,
    #[serde(default)]
    refresh_token: Option<SecretField>,
    #[serde(default)]
    refresh_expires_in: Option<Value>,
    #[serde(default)]
    refresh_token_expires_in: Option<Value>,
    #[serde(default)]
    scope: Option<Value>,
    #[serde(default, deserialize_with = "text")]
    id_token: Option<SecretField>,
}

/// Wiped if an error on a later field drops it.
#[derive(Deserialize)]
#[serde(transparent)]
struct SecretField(String);

impl SecretField {
    fn into_secret(mut self) -> Secret {
        Secret::new(std::mem::take(&mut self.0))
    }
}

impl Drop for SecretField {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What isn't text is ignored, as if it weren't there.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretField>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(Some(SecretField(text))),
        _ => Ok(None),
    }
}

fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // A NaN or a negative number is none; the cap comes first, as a Duration panics on more.
    (seconds > 0.0)
        .then(|| Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64())))
        .and_then(usable)
}

const NO_ACCESS_TOKEN: &str =
    "the token response has no access_token, or a field of the wrong type";
const OTHER_TYPE: &str = "the token response has a token_type other than Bearer";

fn usable(lifetime: Duration) -> Option<Duration> {
    (!lifetime.is_zero()).then(|| lifetime.min(LIFETIME_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_in_is_read_however_it_is_written() {
        let ten_years = Some(LIFETIME_MAX);
        let rows: &[(&str, Option<Duration>)] = &[
            ("3600", Some(Duration::from_secs(3600))),
            ("\"3600\"", Some(Duration::from_secs(3600))),
            ("\" 3600 \"", Some(Duration::from_secs(3600))),
            ("3600.5", Some(Duration::from_millis(3_600_500))),
            ("1e3", Some(Duration::from_secs(1000))),
            ("0", None),
            ("\"0\"", None),
            ("-1", None),
            ("\"-3600\"", None),
            ("null", None),
            ("\"soon\"", None),
            ("\"\"", None),
            ("\"NaN\"", None),
            ("\"inf\"", ten_years),
            ("true", None),
            ("[3600]", None),
            ("{}", None),
            ("9223372036854775807", ten_years),
            ("18446744073709551615", ten_years),
            ("1e300", ten_years),
            ("1e-30", None),
        ];
        for (text, expected) in rows {
            let body = format!(r#"{{"access_token":"a","expires_in":{text}}}"#);
            let response = TokenResponse::parse(body.as_bytes()).unwrap();
            assert_eq!(response.expires_in, *expected, "expires_in: {text}");
        }
        assert_eq!(TokenResponse::parse(br#"{"access_token":"a"}"#).unwrap().expires_in, None);
    }

    #[test]
    fn token_type_may_have_any_case_or_be_absent_and_nothing_else() {
        for kind in [r#""Bearer""#, r#""bearer""#, r#""BEARER""#, "null"] {
            let body = format!(r#"{{"access_token":"a","token_type":{kind}}}"#);
            assert!(TokenResponse::parse(body.as_bytes()).is_ok(), "{kind}");
        }
        for kind in ["mac", "DPoP", "", "bearer "] {
            let body = format!(r#"{{"access_token":"a","token_type":"{kind}"}}"#);
            let error = TokenResponse::parse(body.as_bytes()).unwrap_err();
            assert_eq!(error, "the token response has a token_type other than Bearer");
        }
    }

    #[test]
    fn an_empty_refresh_token_is_none() {
        assert!(
            TokenResponse::new("a").refresh_token("r").refresh_token("").refresh_token.is_none()
        );
        let answer = br#"{"access_token":"a","refresh_token":""}"#;
        assert!(TokenResponse::parse(answer).unwrap().refresh_token.is_none());
    }

    #[test]
    fn unknown_fields_are_ignored_and_both_names_of_the_refresh_lifetime_are_known() {
        for name in ["refresh_expires_in", "refresh_token_expires_in"] {
            let body = format!(
                r#"{{"access_token":"a","refresh_token":"r","{name}":"1800","id_token":"x","n":[1]}}"#
            );
            let response = TokenResponse::parse(body.as_bytes()).unwrap();
            assert_eq!(response.refresh_expires_in, Some(Duration::from_secs(1800)));
            assert_eq!(response.refresh_token.unwrap().expose(), "r");
        }
    }

    #[test]
    fn a_body_that_is_not_a_token_response_is_refused_without_repeating_it() {
        let rows: &[(&[u8], &str)] = &[
            (b"", "not a JSON object"),
            (b"<html>canary</html>", "not a JSON object"),
            (br#"{"access_token":"canary""#, "not JSON"),
            (br#"{"token":"canary"}"#, "no access_token"),
            (br#"{"access_token":["canary"]}"#, "no access_token"),
            (br#"{"access_token":""}"#, "empty"),
            (br#"{"access_token":"can\u0000ary"}"#, "no header"),
            (br#"{"access_token":"can\r\nary"}"#, "no header"),
            ("{\"access_token\":\"canäry\"}".as_bytes(), "no header"),
            (b"\"canary\"", "not a JSON object"),
            (b"[\"canary\"]", "not a JSON object"),
        ];
        for (body, expected) in rows {
            let error = TokenResponse::parse(body).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn the_header_is_bearer_and_sensitive() {
        let header = TokenResponse::new("abc").header();
        assert_eq!(header, "Bearer abc");
        assert!(header.is_sensitive());
    }
}
