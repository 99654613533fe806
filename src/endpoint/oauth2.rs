//! The token endpoint of RFC 6749: refresh (§6) and revocation (RFC 7009).

use std::fmt;
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use async_trait::async_trait;
use form_urlencoded::{Serializer, byte_serialize};
use reqwest::{Client, RequestBuilder, Url};
use zeroize::Zeroizing;

use crate::endpoint::metadata::{check_endpoint, check_issuer};
use crate::endpoint::{
    ClientSecret, RefreshError, ServerMetadata, TOKEN_ENDPOINT, TokenEndpoint, answer, http,
};
use crate::error::Error;
use crate::origin;
use crate::refresh::client;
use crate::token::{RefreshToken, Secret, TokenResponse};

/// The token endpoint of an OAuth 2 server (RFC 6749 §6).
///
/// Wrong settings are told by [`SessionBuilder::build`](crate::SessionBuilder::build).
///
/// ```
/// use reqwest_reauth::OAuth2Endpoint;
///
/// let endpoint = OAuth2Endpoint::new("https://id.example.com/token", "my-cli")
///     .revocation_url("https://id.example.com/revoke")
///     .param("resource", "https://api.example.com");
/// ```
#[derive(Clone)]
pub struct OAuth2Endpoint {
    server: Place,
    revocation_url: Option<Url>,
    authorization_url: Option<Url>,
    device_authorization_url: Option<Url>,
    client_id: String,
    client_auth: ClientAuth,
    rejections: Vec<String>,
    reuse_grace: Option<Duration>,
    params: Vec<(String, String)>,
    headers: HeaderMap,
    /// The first wrong setting: setters can't fail, `check` tells.
    problem: Option<String>,
}

/// How the server is found.
#[derive(Clone, Debug)]
enum Place {
    TokenUrl(Url),
    /// It says itself where its endpoints are.
    Issuer(String),
    /// See the problem.
    Nowhere,
}

#[derive(Clone, Debug)]
enum ClientAuth {
    /// A public client: only its id, in the body.
    None,
    Basic(ClientSecret),
    BasicUnencoded(ClientSecret),
    Body(ClientSecret),
}

impl ClientAuth {
    fn secret(&self) -> Option<&ClientSecret> {
        match self {
            Self::None => None,
            Self::Basic(secret) | Self::BasicUnencoded(secret) | Self::Body(secret) => Some(secret),
        }
    }
}

impl OAuth2Endpoint {
    /// A public client `client_id` at the token endpoint `token_url`, which is https, or http on
    /// this machine.
    pub fn new(token_url: impl AsRef<str>, client_id: impl Into<String>) -> Self {
        let mut problem = None;
        let token_url = secure_url("token", token_url.as_ref(), &mut problem);
        Self::at(token_url.map_or(Place::Nowhere, Place::TokenUrl), client_id.into(), problem)
    }

    /// A public client `client_id` of the server `issuer`, such as `https://id.example.com`, which
    /// says itself where its endpoints are (RFC 8414, OpenID Connect Discovery).
    ///
    /// It is asked at a login, once: what it says is kept with the tokens, whose refresh token
    /// then goes nowhere else, whatever a later answer says. Only tokens that were given to
    /// [`Session::log_in`](crate::Session::log_in) without their
    /// [server](TokenResponse::server) make the first refresh ask. The issuer is compared letter by
    /// letter (RFC 8414 §3.3).
    pub fn at_issuer(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        let issuer = issuer.into();
        let (server, problem) = match check_issuer(&issuer) {
            Ok(_) => (Place::Issuer(issuer), None),
            // Not kept: it may hold a password.
            Err(why) => {
                let problem = format!("the issuer {} {why}", origin::shown(&issuer));
                (Place::Nowhere, Some(problem))
            }
        };
        Self::at(server, client_id.into(), problem)
    }

    fn at(server: Place, client_id: String, problem: Option<String>) -> Self {
        Self {
            server,
            revocation_url: None,
            authorization_url: None,
            device_authorization_url: None,
            client_id,
            client_auth: ClientAuth::None,
            rejections: Vec::new(),
            reuse_grace: None,
            params: Vec::new(),
            headers: HeaderMap::new(),
            problem,
        }
    }

    /// Authenticates with HTTP Basic, id and secret form-encoded first (RFC 6749 §2.3.1).
    /// Default: none.
    pub fn client_secret(mut self, secret: impl Into<ClientSecret>) -> Self {
        self.client_auth = ClientAuth::Basic(secret.into());
        self
    }

    /// Authenticates with HTTP Basic, id and secret as they are, for servers that don't decode
    /// them. Default: none.
    pub fn client_secret_unencoded(mut self, secret: impl Into<ClientSecret>) -> Self {
        self.client_auth = ClientAuth::BasicUnencoded(secret.into());
        self
    }

    /// Authenticates with `client_secret` in the body, for servers that take it only there.
    /// Default: none.
    pub fn client_secret_in_body(mut self, secret: impl Into<ClientSecret>) -> Self {
        self.client_auth = ClientAuth::Body(secret.into());
        self
    }

    /// Takes this error code for `invalid_grant` too: **it ends the session.** For servers that
    /// invent their own, such as `refresh_token_reused`. Default: `invalid_grant` alone.
    pub fn invalid_grant_alias(mut self, code: impl Into<String>) -> Self {
        self.rejections.push(code.into());
        self
    }

    /// How long the server lets a spent refresh token be repeated. Where its answer is lost, the
    /// token is sent once more while that still helps: after half of this time instead of 30
    /// seconds, still listening for the first answer. Less than 2 seconds count as unknown.
    /// Default: unknown.
    pub fn reuse_grace(mut self, grace: Duration) -> Self {
        self.reuse_grace = Some(grace);
        self
    }

    /// Where [`Session::log_out`](crate::Session::log_out) revokes the refresh token (RFC 7009).
    /// Default: where the issuer says, else nowhere.
    pub fn revocation_url(mut self, url: impl AsRef<str>) -> Self {
        self.revocation_url = secure_url("revocation", url.as_ref(), &mut self.problem);
        self
    }

    /// Where a person logs in, in a browser (RFC 6749 §3.1). Default: where the issuer says.
    pub fn authorization_url(mut self, url: impl AsRef<str>) -> Self {
        self.authorization_url = secure_url("authorization", url.as_ref(), &mut self.problem);
        self
    }

    /// Where a login on another device begins (RFC 8628 §3.1). Default: where the issuer says.
    pub fn device_authorization_url(mut self, url: impl AsRef<str>) -> Self {
        let what = "device authorization";
        self.device_authorization_url = secure_url(what, url.as_ref(), &mut self.problem);
        self
    }

    /// Adds a parameter to every refresh request, such as `scope`, `resource` or `audience`.
    /// Default: none.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Adds a header to every request to the server, for one that ties tokens to a device or a
    /// `User-Agent`; see also [`SessionBuilder::header`](crate::SessionBuilder::header). A second
    /// value for a name replaces the first. Default: none.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        match header(name.as_ref(), value.as_ref()) {
            Ok((name, value)) => {
                self.headers.insert(name, value);
            }
            Err(problem) => {
                self.problem.get_or_insert(problem);
            }
        }
        self
    }

    /// Asks `what`, as failures call it.
    pub(crate) async fn post(
        &self,
        http: &Client,
        what: &str,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<(StatusCode, HeaderMap, Zeroizing<Vec<u8>>), RefreshError> {
        let http = http::client_for(http, url)?;
        let request = self.request(&http, url, fields).await?;
        let response = request.send().await.map_err(|e| RefreshError::of(what, e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok((status, headers, http::whole_body(what, response).await?))
    }

    /// Where the server takes which request: as the program says, as was kept with the tokens, or
    /// as the server says now.
    pub(crate) async fn server(
        &self,
        http: &Client,
        kept: Option<&ServerMetadata>,
    ) -> Result<ServerMetadata, RefreshError> {
        let found = match (&self.server, kept) {
            (Place::Nowhere, _) => {
                return Err(RefreshError::misconfigured("there is no token URL"));
            }
            (Place::TokenUrl(url), _) => ServerMetadata {
                issuer: None,
                token_endpoint: url.clone(),
                authorization_endpoint: None,
                revocation_endpoint: None,
                device_authorization_endpoint: None,
                authorization_response_iss_parameter_supported: false,
            },
            (Place::Issuer(issuer), Some(kept)) if kept.issuer() == Some(issuer) => {
                kept.check().map_err(RefreshError::misconfigured)?;
                kept.clone()
            }
            (Place::Issuer(_), Some(_)) => {
                return Err(RefreshError::misconfigured("the tokens are of another issuer"));
            }
            (Place::Issuer(issuer), None) => ServerMetadata::discover(http, issuer).await?,
        };
        let over = |told: &Option<Url>, found| told.clone().or(found);
        Ok(ServerMetadata {
            authorization_endpoint: over(&self.authorization_url, found.authorization_endpoint),
            revocation_endpoint: over(&self.revocation_url, found.revocation_endpoint),
            device_authorization_endpoint: over(
                &self.device_authorization_url,
                found.device_authorization_endpoint,
            ),
            ..found
        })
    }

    /// Where the server takes which request, asked now where it is known by its issuer: to show it,
    /// or to find out what is wrong. Sessions and logins ask by themselves.
    ///
    /// # Errors
    /// The server could not be asked for now ([`Error::is_transient`]), or its answer or the
    /// endpoint's settings are no use ([`Error::is_configuration`]).
    pub async fn discover(&self) -> Result<ServerMetadata, Error> {
        self.check().map_err(Error::configuration)?;
        let found = async {
            let http = client(Client::builder()).build()?;
            self.server(&http, None).await
        };
        found.await.map_err(Error::server)
    }

    /// A token request (RFC 6749 §3.2) of whatever grant.
    pub(crate) async fn token_request(
        &self,
        http: &Client,
        server: &ServerMetadata,
        fields: &[(&str, &str)],
    ) -> Result<TokenResponse, RefreshError> {
        self.token_answer(http, server, fields).await.map_err(|(error, _)| error)
    }

    /// As [`token_request`](Self::token_request), with the error code of a refusal.
    pub(crate) async fn token_answer(
        &self,
        http: &Client,
        server: &ServerMetadata,
        fields: &[(&str, &str)],
    ) -> Result<TokenResponse, (RefreshError, Option<String>)> {
        let answered = self.post(http, TOKEN_ENDPOINT, &server.token_endpoint, fields).await;
        let (status, headers, body) = answered.map_err(|error| (error, None))?;
        let tokens = answer::classify(status, &headers, &body, &self.rejections)
            .map_err(|error| (error, answer::error_code(&body)))?;
        // Only what was found has to be kept.
        Ok(match &self.server {
            Place::Issuer(_) => tokens.server(server.clone()),
            Place::TokenUrl(_) | Place::Nowhere => tokens,
        })
    }

    #[cfg(feature = "login")]
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    async fn request(
        &self,
        http: &Client,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<RequestBuilder, RefreshError> {
        let secret = match self.client_auth.secret() {
            Some(secret) => Some(secret.get().await?),
            None => None,
        };
        let secret = secret.as_ref().map_or("", Secret::expose);
        let mut request = http
            .post(url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        // One allocation, so that no copy of a token is left behind unwiped.
        let mut form = Serializer::new(String::with_capacity(FORM_ROOM));
        form.extend_pairs(fields);
        // Nothing may be said twice (RFC 6749 §3.2).
        let is_named = fields.iter().any(|(name, _)| *name == "client_id");
        if matches!(self.client_auth, ClientAuth::None | ClientAuth::Body(_)) && !is_named {
            form.append_pair("client_id", &self.client_id);
        }
        match &self.client_auth {
            ClientAuth::None => {}
            ClientAuth::Basic(_) => {
                request = request
                    .basic_auth(encode(&self.client_id), Some(&*Zeroizing::new(encode(secret))));
            }
            ClientAuth::BasicUnencoded(_) => {
                request = request.basic_auth(&self.client_id, Some(secret));
            }
            ClientAuth::Body(_) => {
                form.append_pair("client_secret", secret);
            }
        }
        Ok(request.headers(self.headers.clone()).body(form.finish()))
    }
}

#[async_trait]
impl TokenEndpoint for OAuth2Endpoint {
    fn id(&self) -> String {
        let server = match &self.server {
            Place::TokenUrl(url) => url.as_str(),
            Place::Issuer(issuer) => issuer,
            Place::Nowhere => "",
        };
        format!("{server} {}", self.client_id)
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let server = self.server(http, token.server()).await?;
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token.secret())];
        fields.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.token_request(http, &server, &fields).await
    }

    async fn prepare(&self) -> Result<(), RefreshError> {
        match self.client_auth.secret() {
            Some(secret) => secret.prepare().await,
            None => Ok(()),
        }
    }

    async fn revoke(&self, http: &Client, token: &RefreshToken) -> Result<bool, RefreshError> {
        let server = self.server(http, token.server()).await?;
        let Some(url) = &server.revocation_endpoint else {
            return Ok(false);
        };
        let fields = [("token", token.secret()), ("token_type_hint", "refresh_token")];
        let what = "the revocation endpoint";
        let (status, headers, body) = self.post(http, what, url, &fields).await?;
        // RFC 7009 §2.2: 200 also for a token that the server doesn't know.
        if status.is_success() {
            return Ok(true);
        }
        Err(answer::refusal(what, status, &headers, &body, &self.rejections))
    }

    fn reuse_grace(&self) -> Option<Duration> {
        self.reuse_grace
    }

    fn check(&self) -> Result<(), String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if self.client_id.is_empty() {
            return Err("the client id is empty".to_owned());
        }
        Ok(())
    }
}

impl fmt::Debug for OAuth2Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters and headers may hold secrets.
        f.debug_struct("OAuth2Endpoint")
            .field("server", &self.server)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A name and a value as a header, the value marked sensitive.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} is no header name"))?;
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| format!("the value of the header {name:?} has characters it can't carry"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

fn secure_url(what: &str, text: &str, problem: &mut Option<String>) -> Option<Url> {
    match check_url(text) {
        Ok(url) => Some(url),
        Err(why) => {
            problem.get_or_insert(format!("the {what} URL {} {why}", origin::shown(text)));
            None
        }
    }
}

fn check_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is no URL: {e}"))?;
    check_endpoint(&url)?;
    Ok(url)
}

fn encode(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Three bytes for each of the longest tokens that are seen.
const FORM_ROOM: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Outcome;

    fn metadata(issuer: &str, endpoints: &str) -> ServerMetadata {
        let url = |name: &str| format!("{endpoints}/{name}");
        let metadata = serde_json::json!({
            "issuer": issuer,
            "token_endpoint": url("token"),
            "authorization_endpoint": url("authorize"),
            "revocation_endpoint": url("revoke"),
            "device_authorization_endpoint": url("device"),
        });
        ServerMetadata::read(issuer, metadata.to_string().as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn what_was_kept_with_the_tokens_is_used_and_what_the_program_says_goes_over_it() {
        let (http, issuer) = (Client::new(), "https://id.example.com");
        let kept = metadata(issuer, "https://then.example.com");
        let endpoint = OAuth2Endpoint::at_issuer(issuer, "client");
        assert_eq!(endpoint.server(&http, Some(&kept)).await.unwrap(), kept);
        let told = endpoint
            .authorization_url("https://told.example.com/authorize")
            .revocation_url("https://told.example.com/revoke")
            .device_authorization_url("https://told.example.com/device");
        let token_endpoint = kept.token_endpoint.clone();
        let expected =
            ServerMetadata { token_endpoint, ..metadata(issuer, "https://told.example.com") };
        assert_eq!(told.server(&http, Some(&kept)).await.unwrap(), expected);
    }

    #[cfg(feature = "login")]
    #[test]
    fn a_password_in_an_issuer_is_kept_nowhere_and_told_by_nobody() {
        use crate::login::{BrowserLogin, DeviceLogin};
        let endpoint = OAuth2Endpoint::at_issuer("https://me:s3cret@id.example.com", "client");
        let problem = endpoint.check().unwrap_err();
        assert!(problem.contains("must not hold a user name or password"), "{problem}");
        let (browser, device) = (BrowserLogin::new(&endpoint), DeviceLogin::new(&endpoint));
        let shown = format!("{endpoint:?} {browser:?} {device:?} {} {problem}", endpoint.id());
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[tokio::test]
    async fn a_refresh_token_goes_to_no_other_issuer_than_its_own() {
        let kept = metadata("https://other.example.com", "https://other.example.com");
        let endpoint = OAuth2Endpoint::at_issuer("https://id.example.com", "client");
        let error = endpoint.server(&Client::new(), Some(&kept)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Misconfigured);
        assert!(error.to_string().contains("of another issuer"), "{error}");
    }
}
