//! The token endpoint of RFC 6749: refresh (§6) and revocation (RFC 7009).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::{Client, RequestBuilder, Response, Url};
use zeroize::Zeroizing;

use crate::endpoint::{ClientSecret, RefreshError, TokenEndpoint, answer};
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
    token_url: Option<Url>,
    revocation_url: Option<Url>,
    client_id: String,
    client_auth: ClientAuth,
    rejections: Vec<String>,
    reuse_grace: Option<Duration>,
    params: Vec<(String, String)>,
    headers: HeaderMap,
    /// The first wrong setting: setters can't fail, `check` tells.
    problem: Option<String>,
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
        Self {
            token_url,
            revocation_url: None,
            client_id: client_id.into(),
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
    /// Default: nowhere.
    pub fn revocation_url(mut self, url: impl AsRef<str>) -> Self {
        self.revocation_url = secure_url("revocation", url.as_ref(), &mut self.problem);
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

    async fn post(
        &self,
        http: &Client,
        url: &Url,
        fields: &[(&str, &str)],
    ) -> Result<(StatusCode, HeaderMap, Zeroizing<Vec<u8>>), RefreshError> {
        let direct;
        let http = match url.scheme() {
            "https" => http,
            // Plain http is for this machine: through a proxy the token would leave it.
            _ => {
                direct = client(Client::builder().no_proxy()).build()?;
                &direct
            }
        };
        let response = self.request(http, url, fields).await?.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok((status, headers, whole_body(response).await?))
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
        match &self.client_auth {
            ClientAuth::None => {
                form.append_pair("client_id", &self.client_id);
            }
            ClientAuth::Basic(_) => {
                request = request
                    .basic_auth(encode(&self.client_id), Some(&*Zeroizing::new(encode(secret))));
            }
            ClientAuth::BasicUnencoded(_) => {
                request = request.basic_auth(&self.client_id, Some(secret));
            }
            ClientAuth::Body(_) => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_secret", secret);
            }
        }
        Ok(request.headers(self.headers.clone()).body(form.finish()))
    }
}

#[async_trait]
impl TokenEndpoint for OAuth2Endpoint {
    fn id(&self) -> String {
        format!("{} {}", self.token_url.as_ref().map_or("", Url::as_str), self.client_id)
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let Some(url) = &self.token_url else {
            return Err(RefreshError::misconfigured("the token URL is no URL"));
        };
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token.secret())];
        fields.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let (status, headers, body) = self.post(http, url, &fields).await?;
        answer::classify(status, &headers, &body, &self.rejections)
    }

    async fn prepare(&self) -> Result<(), RefreshError> {
        match self.client_auth.secret() {
            Some(secret) => secret.prepare().await,
            None => Ok(()),
        }
    }

    async fn revoke(&self, http: &Client, token: &RefreshToken) -> Result<bool, RefreshError> {
        let Some(url) = &self.revocation_url else {
            return Ok(false);
        };
        let fields = [("token", token.secret()), ("token_type_hint", "refresh_token")];
        let (status, headers, body) = self.post(http, url, &fields).await?;
        // RFC 7009 §2.2: 200 also for a token that the server doesn't know.
        if status.is_success() {
            return Ok(true);
        }
        Err(answer::refusal(status, &headers, &body, &self.rejections))
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
            .field("token_url", &self.token_url.as_ref().map(Url::as_str))
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
    origin::secure(&url)?;
    // RFC 6749 §3.2. Credentials belong where they are not shown.
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password: see client_secret".to_owned());
    }
    Ok(url)
}

fn encode(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

async fn whole_body(mut response: Response) -> Result<Zeroizing<Vec<u8>>, RefreshError> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BODY_MAX {
            return Err(RefreshError::unexpected("the token endpoint's answer is over 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Real token responses reach 10 KB; a server that sends more than this is no token endpoint.
const BODY_MAX: usize = 1024 * 1024;

/// Three bytes for each of the longest tokens that are seen.
const FORM_ROOM: usize = 16 * 1024;

/// One allocation for most answers, so that no half-read copy is left behind unwiped.
const BODY_ROOM: usize = 16 * 1024;
