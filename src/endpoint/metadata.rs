//! What an authorization server says of itself, under its issuer (RFC 8414, OpenID Connect
//! Discovery).

use std::time::Duration;

use ::http::StatusCode;
use ::http::header::ACCEPT;
use reqwest::{Client, Url};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::endpoint::{RefreshError, http};
use crate::origin::{secure, shown};
use crate::refresh::within;

/// Where an authorization server takes which request, as it says itself (RFC 8414 §2) or as the
/// program was told.
///
/// Kept with the tokens of a login, so that their refresh token goes nowhere else. An endpoint that
/// is no URL, or one that nothing secret may go to, counts as not said, but for the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    pub(crate) token_endpoint: Url,
    #[serde(default, deserialize_with = "if_usable", skip_serializing_if = "Option::is_none")]
    pub(crate) authorization_endpoint: Option<Url>,
    #[serde(default, deserialize_with = "if_usable", skip_serializing_if = "Option::is_none")]
    pub(crate) revocation_endpoint: Option<Url>,
    #[serde(default, deserialize_with = "if_usable", skip_serializing_if = "Option::is_none")]
    pub(crate) device_authorization_endpoint: Option<Url>,
    #[serde(default, deserialize_with = "unless_null")]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

impl ServerMetadata {
    /// The issuer (RFC 8414 §2), exactly as the server says it. `None` where only endpoints are
    /// known.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Where tokens are issued and refreshed.
    pub fn token_endpoint(&self) -> &Url {
        &self.token_endpoint
    }

    /// Where a person logs in, in a browser.
    pub fn authorization_endpoint(&self) -> Option<&Url> {
        self.authorization_endpoint.as_ref()
    }

    /// Where tokens are revoked (RFC 7009).
    pub fn revocation_endpoint(&self) -> Option<&Url> {
        self.revocation_endpoint.as_ref()
    }

    /// Where a login on another device begins (RFC 8628).
    pub fn device_authorization_endpoint(&self) -> Option<&Url> {
        self.device_authorization_endpoint.as_ref()
    }

    /// Reads the metadata of `issuer`.
    ///
    /// # Errors
    /// It is of another issuer (RFC 8414 §3.3), or its token endpoint is one that nothing secret may
    /// go to.
    pub(crate) fn read(issuer: &str, body: &[u8]) -> Result<Self, String> {
        let metadata: Self =
            serde_json::from_slice(body).map_err(|e| format!("it can't be read ({e})"))?;
        if metadata.issuer() != Some(issuer) {
            let said = metadata.issuer().unwrap_or_default();
            // Some answer so for all their tenants, and nobody's tokens are of such an issuer.
            let advice = match said.contains('{') {
                true => "give the issuer of your tenant, or the endpoints with OAuth2Endpoint::new",
                false => "give exactly that",
            };
            return Err(format!("it says that the issuer is {}: {advice}", shown(said)));
        }
        metadata.check()?;
        Ok(metadata)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        check_endpoint(&self.token_endpoint).map_err(|why| format!("its token_endpoint {why}"))
    }

    /// Asks the server: where RFC 8414 §3 has it first, then where OpenID Connect has it.
    pub(crate) async fn discover(client: &Client, issuer: &str) -> Result<Self, RefreshError> {
        let mut worst: Option<Refusal> = None;
        for url in well_known(issuer).map_err(RefreshError::misconfigured)? {
            let refusal = match within(DISCOVERY, ask(client, issuer, &url)).await {
                Some(Ok(metadata)) => return Ok(metadata),
                Some(Err(refusal)) => refusal,
                None => {
                    let late = format!("no answer in time from {url}");
                    Refusal::ForNow(RefreshError::not_sent(late))
                }
            };
            // Nobody there: the other place is no better.
            let is_last = matches!(refusal, Refusal::Unreachable(_));
            if worst.as_ref().is_none_or(|worst| worst.weight() < refusal.weight()) {
                worst = Some(refusal);
            }
            if is_last {
                break;
            }
        }
        let problem = match worst {
            Some(Refusal::Unreachable(error) | Refusal::ForNow(error)) => return Err(error),
            Some(Refusal::Missing(why) | Refusal::Unread(why) | Refusal::Wrong(why)) => why,
            None => String::new(),
        };
        Err(RefreshError::misconfigured(format!(
            "the issuer {} can't be used: {problem}",
            shown(issuer)
        )))
    }
}

/// One that is of no use spoils only what needs it: a login, or telling the server of a logout.
fn if_usable<'de, D: Deserializer<'de>>(endpoint: D) -> Result<Option<Url>, D::Error> {
    let said = Value::deserialize(endpoint)?;
    let url = said.as_str().and_then(|text| Url::parse(text).ok());
    Ok(url.filter(|url| check_endpoint(url).is_ok()))
}

fn unless_null<'de, D: Deserializer<'de>>(is_so: D) -> Result<bool, D::Error> {
    Option::deserialize(is_so).map(Option::unwrap_or_default)
}

enum Refusal {
    Unreachable(RefreshError),
    ForNow(RefreshError),
    Missing(String),
    /// Something is there, and is no metadata.
    Unread(String),
    Wrong(String),
}

impl Refusal {
    /// What is wrong says most. What fails for now says more than a page that may be there for
    /// every path, or than nothing, though it may do so for good: a proxy that lets only one of the
    /// two places through.
    fn weight(&self) -> u8 {
        match self {
            Self::Missing(_) => 0,
            Self::Unread(_) => 1,
            Self::Unreachable(_) | Self::ForNow(_) => 2,
            Self::Wrong(_) => 3,
        }
    }
}

async fn ask(client: &Client, issuer: &str, url: &Url) -> Result<ServerMetadata, Refusal> {
    // No token was in it.
    let unread = || RefreshError::not_sent("the authorization server's metadata can't be read now");
    let for_now = |error: RefreshError| Refusal::ForNow(unread().with_source(error));
    let client = http::client_for(client, url).map_err(for_now)?;
    let request = client.get(url.clone()).header(ACCEPT, "application/json");
    let response = request.send().await.map_err(|error| match error.is_connect() {
        true => Refusal::Unreachable(unread().with_source(error)),
        false => Refusal::ForNow(unread().with_source(error)),
    })?;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(for_now(RefreshError::not_sent(format!("{url} answered {status}"))));
    }
    if status != StatusCode::OK {
        return Err(Refusal::Missing(format!("{url} answered {status}")));
    }
    let body = http::whole_body("the authorization server", response).await.map_err(for_now)?;
    ServerMetadata::read(issuer, &body).map_err(|why| {
        let why = format!("{url}: {why}");
        // Otherwise it may be a page that answers everything.
        let said: Option<Value> = serde_json::from_slice(&body).ok();
        match said.is_some_and(|said| said.get("issuer").is_some()) {
            true => Refusal::Wrong(why),
            false => Refusal::Unread(why),
        }
    })
}

/// The two places of an issuer's metadata.
fn well_known(issuer: &str) -> Result<[Url; 2], String> {
    let url = check_issuer(issuer)?;
    let path = url.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = url.clone();
        url.set_path(&path);
        url
    };
    Ok([
        // Between the host and the path (RFC 8414 §3.1), and after it.
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("{path}/.well-known/openid-configuration")),
    ])
}

/// RFC 8414 §2: an https URL without query and fragment.
pub(crate) fn check_issuer(issuer: &str) -> Result<Url, String> {
    let url = Url::parse(issuer).map_err(|e| format!("is no URL: {e}"))?;
    check_endpoint(&url)?;
    if url.query().is_some() {
        return Err("must not have a query".to_owned());
    }
    Ok(url)
}

/// Whether secrets may go to `url` (RFC 6749 §3.2).
pub(crate) fn check_endpoint(url: &Url) -> Result<(), String> {
    secure(url)?;
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    // Credentials belong where they are not shown.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password: see client_secret".to_owned());
    }
    Ok(())
}

/// A small document, and somebody may be waiting.
const DISCOVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_path_goes_between_host_and_path_or_behind_it() {
        let rows = [
            (
                "https://id.example.com",
                "https://id.example.com/.well-known/oauth-authorization-server",
                "https://id.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com/",
                "https://id.example.com/.well-known/oauth-authorization-server",
                "https://id.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com:8443/realms/main",
                "https://id.example.com:8443/.well-known/oauth-authorization-server/realms/main",
                "https://id.example.com:8443/realms/main/.well-known/openid-configuration",
            ),
        ];
        for (issuer, oauth, oidc) in rows {
            assert_eq!(well_known(issuer).unwrap().map(String::from), [oauth, oidc]);
        }
    }

    #[test]
    fn an_issuer_is_an_https_url_without_query_and_fragment() {
        for issuer in [
            "id.example.com",
            "http://id.example.com",
            "https://id.example.com?tenant=1",
            "https://id.example.com#a",
            "https://me:secret@id.example.com",
        ] {
            assert!(well_known(issuer).is_err(), "{issuer}");
        }
        assert!(well_known("http://127.0.0.1:8080").is_ok());
    }

    #[test]
    fn metadata_counts_only_for_the_very_same_issuer_and_with_endpoints_that_are_secure() {
        let issuer = "https://id.example.com";
        let read = |issuer_said: &str, token: &str, authorization: &str| {
            let body = serde_json::json!({
                "issuer": issuer_said,
                "token_endpoint": token,
                "authorization_endpoint": authorization,
                "response_types_supported": ["code"],
            });
            ServerMetadata::read(issuer, body.to_string().as_bytes())
        };
        let (token, login) = ("https://other.example.com/token", "https://id.example.com/login");
        let metadata = read(issuer, token, login).unwrap();
        assert_eq!(metadata.token_endpoint().as_str(), token);
        assert_eq!(metadata.revocation_endpoint(), None);
        assert!(!metadata.authorization_response_iss_parameter_supported);
        let kept = serde_json::to_vec(&metadata).unwrap();
        assert_eq!(ServerMetadata::read(issuer, &kept).unwrap(), metadata);

        let slash = read("https://id.example.com/", token, login).unwrap_err();
        assert!(slash.contains("give exactly that"), "{slash}");
        let tenants = read("https://id.example.com/{tenantid}/v2.0", token, login).unwrap_err();
        assert!(tenants.contains("the issuer of your tenant"), "{tenants}");
        assert!(!tenants.contains("exactly that"), "{tenants}");
        assert!(read("https://evil.example.com", token, login).is_err());
        assert!(read(issuer, "http://id.example.com/token", login).is_err());
        assert!(ServerMetadata::read(issuer, b"<html>").is_err());
        assert!(ServerMetadata::read(issuer, b"[]").is_err());
    }

    #[test]
    fn what_a_login_may_do_without_counts_as_not_said_where_it_is_of_no_use() {
        let issuer = "https://id.example.com";
        let endpoints = |url: Value| {
            let body = serde_json::json!({
                "issuer": issuer,
                "token_endpoint": "https://id.example.com/token",
                "authorization_endpoint": url,
                "revocation_endpoint": url,
                "device_authorization_endpoint": url,
                "authorization_response_iss_parameter_supported": null,
            });
            let metadata = ServerMetadata::read(issuer, body.to_string().as_bytes()).unwrap();
            assert!(!metadata.authorization_response_iss_parameter_supported);
            let endpoints = [
                metadata.authorization_endpoint(),
                metadata.revocation_endpoint(),
                metadata.device_authorization_endpoint(),
            ];
            endpoints.map(|endpoint| endpoint.map(Url::to_string))
        };
        for of_no_use in [
            Value::Null,
            7.into(),
            "".into(),
            "/login".into(),
            "http://id.example.com/login".into(),
            "https://me:secret@id.example.com/login".into(),
            "https://id.example.com/login#a".into(),
        ] {
            assert_eq!(endpoints(of_no_use.clone()), [const { None }; 3], "{of_no_use}");
        }
        let of_use = "https://id.example.com/login";
        assert_eq!(endpoints(of_use.into()), [(); 3].map(|()| Some(of_use.to_owned())));
    }
}
