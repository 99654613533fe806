//! A token response (RFC 6749 §5.1): strict about what is used, forgiving about how it is said.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, mem};

use http::HeaderValue;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
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
    /// token's lifetime is `refresh_expires_in` or `refresh_token_expires_in`. A refresh token that
    /// isn't text is none; of what is said twice, the last counts. Other fields are ignored (RFC
    /// 6749 §5.1). UTF-16, in which programs keep text in Windows' Credential Manager, is
    /// understood too.
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
        // Never the error's own text: it may quote the value.
        let wire: Wire = serde_json::from_slice(body)
            .map_err(|_| "the token response is not JSON".to_owned())?;
        let is_bearer = match &wire.token_type.0 {
            Value::Null => true,
            Value::String(kind) => kind.eq_ignore_ascii_case("bearer"),
            _ => false,
        };
        let access_token = wire.access_token.into_secret();
        Ok(Self {
            unusable: match (&access_token, is_bearer) {
                (None, _) => Some(NO_ACCESS_TOKEN),
                (Some(_), false) => Some(OTHER_TYPE),
                (Some(_), true) => None,
            },
            access_token: access_token.unwrap_or_else(|| Secret::new("")),
            refresh_token: (wire.refresh_token.into_secret())
                .filter(|token| !token.expose().is_empty()),
            expires_in: lifetime(&wire.expires_in.0),
            refresh_expires_in: lifetime(&wire.refresh_expires_in.0)
                .or_else(|| lifetime(&wire.refresh_token_expires_in.0)),
            scope: wire.scope.0.as_str().map(str::to_owned),
            subject: wire.id_token.0.as_str().and_then(id_token::subject),
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

/// What is used of a response, whatever it is: a field of the wrong type costs none of the others.
#[derive(Default)]
struct Wire {
    access_token: Field,
    token_type: Field,
    expires_in: Field,
    refresh_token: Field,
    refresh_expires_in: Field,
    refresh_token_expires_in: Field,
    scope: Field,
    id_token: Field,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    AccessToken,
    TokenType,
    ExpiresIn,
    RefreshToken,
    RefreshExpiresIn,
    RefreshTokenExpiresIn,
    Scope,
    IdToken,
    #[serde(other)]
    Other,
}

/// By hand, as a derived one fails where a name is said twice: here the last one counts.
impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for Wire {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token response")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(name) = map.next_key()? {
            let field = match name {
                Name::AccessToken => &mut self.access_token,
                Name::TokenType => &mut self.token_type,
                Name::ExpiresIn => &mut self.expires_in,
                Name::RefreshToken => &mut self.refresh_token,
                Name::RefreshExpiresIn => &mut self.refresh_expires_in,
                Name::RefreshTokenExpiresIn => &mut self.refresh_token_expires_in,
                Name::Scope => &mut self.scope,
                Name::IdToken => &mut self.id_token,
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = map.next_value()?;
        }
        Ok(self)
    }
}

/// Of any type, null where it is absent. Wiped when it is dropped: a token may be in it.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Field(Value);

impl Field {
    /// What isn't text is none.
    fn into_secret(mut self) -> Option<Secret> {
        match &mut self.0 {
            Value::String(text) => Some(Secret::new(mem::take(text))),
            _ => None,
        }
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn lifetime(value: &Value) -> Option<Duration> {
    seconds(value).and_then(usable)
}

/// A number, also as text.
pub(crate) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // A NaN or a negative number is none; the cap comes first, as a Duration panics on more.
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64())))
}

const NO_ACCESS_TOKEN: &str = "the token response has no access_token, or one that is not text";
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
        for kind in [r#""mac""#, r#""DPoP""#, r#""""#, r#""bearer ""#, "7", r#"["bearer"]"#, "{}"] {
            let body = format!(r#"{{"access_token":"a","token_type":{kind}}}"#);
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
    fn a_field_of_the_wrong_type_costs_none_of_the_others_and_of_two_the_last_counts() {
        let rows = [
            (r#"{"access_token":7,"refresh_token":"r"}"#, "", Some("r")),
            (r#"{"access_token":{"a":["b"]},"refresh_token":"r"}"#, "", Some("r")),
            (r#"{"access_token":"a","token_type":{},"refresh_token":"r"}"#, "a", Some("r")),
            (r#"{"access_token":"a","refresh_token":7}"#, "a", None),
            (r#"{"access_token":"a","refresh_token":["r"]}"#, "a", None),
            (
                r#"{"refresh_token":"q","access_token":"b","refresh_token":"r","access_token":"a"}"#,
                "a",
                Some("r"),
            ),
            (r#"{"access_token":"a","access_token":null,"refresh_token":"r"}"#, "", Some("r")),
            (r#"{"access_token":"a","scope":7,"id_token":{},"refresh_token":"r"}"#, "a", Some("r")),
        ];
        for (body, access, refresh) in rows {
            let response = TokenResponse::read(body.as_bytes()).unwrap();
            assert_eq!(response.access_token.expose(), access, "{body}");
            assert_eq!(response.refresh_token.as_ref().map(Secret::expose), refresh, "{body}");
        }
    }

    #[test]
    fn a_field_is_wiped_whatever_it_is() {
        let mut value =
            serde_json::json!({ "a": ["canary", { "b": "canary" }], "c": 7, "d": null });
        wipe(&mut value);
        assert_eq!(value, serde_json::json!({ "a": ["", { "b": "" }], "c": 7, "d": null }));
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
