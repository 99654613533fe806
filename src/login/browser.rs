//! A login in the system's browser: the authorization code grant with PKCE (RFC 6749 §4.1,
//! RFC 7636, RFC 8252).

use std::fmt;
use std::thread;
use std::time::Duration;

use oauth2::basic::BasicClient;
use oauth2::{
    AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
};
use reqwest::{Client, ClientBuilder, Url};
use tokio::sync::mpsc;

use super::loopback::{Loopback, Visit};
use super::page::Page;
use super::{DENIED, Request, failed, has_no, in_time, usable};
use crate::endpoint::{OAuth2Endpoint, RefreshError, ServerMetadata};
use crate::error::Error;
use crate::token::TokenResponse;

/// A login in the system's browser, for a person at this machine.
///
/// ```no_run
/// # async fn log_in() -> Result<(), reqwest_reauth::Error> {
/// use reqwest_reauth::{BrowserLogin, OAuth2Endpoint, Session};
///
/// let endpoint = OAuth2Endpoint::at_issuer("https://id.example.com", "my-cli");
/// let login = BrowserLogin::new(&endpoint).scope("offline_access");
/// let session = Session::builder("my-cli", endpoint).origin("https://api.example.com").build()?;
/// session.log_in(login.run(|url| eprintln!("Log in at {url}")).await?).await?;
/// # Ok(())
/// # }
/// ```
///
/// The browser brings its answer to a server on this machine, which listens only while
/// [`run`](Self::run) does, and takes it only with this login's `state` (RFC 6749 §10.12) and from
/// the right issuer (RFC 9207). Dropping `run`'s future ends it all.
#[must_use = "a login begins when it is run"]
pub struct BrowserLogin {
    request: Request,
    redirect_uri: Option<String>,
    timeout: Duration,
    opens: bool,
}

impl BrowserLogin {
    /// A login of the endpoint's client at its server, whose login page is found by the issuer
    /// or given with [`authorization_url`](OAuth2Endpoint::authorization_url).
    pub fn new(endpoint: &OAuth2Endpoint) -> Self {
        let request = Request::new(endpoint);
        Self { request, redirect_uri: None, timeout: PATIENCE, opens: true }
    }

    /// Adds scopes to ask for, with spaces between them (RFC 6749 §3.3). Default: the server's.
    pub fn scope(mut self, scope: impl AsRef<str>) -> Self {
        self.request.add_scope(scope.as_ref());
        self
    }

    /// Adds a parameter to the login page's URL, such as `audience`, `prompt` or `login_hint`.
    /// Default: none. Servers that go by the book give a refresh token for the scope
    /// `offline_access` only with `prompt` as `consent` (OpenID Connect Core §11).
    ///
    /// Each `resource` is in the token request too (RFC 8707 §2.2), and in a refresh where
    /// [`OAuth2Endpoint::param`] says so.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.params.push((name.into(), value.into()));
        self
    }

    /// Where the browser brings its answer, letter by letter as it is registered at the server:
    /// plain http to 127.0.0.1 or \[::1], where port 0 stands for a free one (RFC 8252 §7.3).
    /// Default: `http://127.0.0.1:0/callback`, or the same at \[::1] where there is no IPv4.
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uri = Some(uri.into());
        self
    }

    /// How long the person may take; the exchange for tokens that follows is not cut off by it.
    /// Default: 5 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Opens no browser: the person opens the URL, or the program does. Default: the system's.
    pub fn without_browser(mut self) -> Self {
        self.opens = false;
        self
    }

    /// Changes the client that asks the server, as
    /// [`SessionBuilder::token_client`](crate::SessionBuilder::token_client) does for the session.
    /// Default: reqwest's own.
    pub fn token_client(mut self, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        self.request.client = change(self.request.client);
        self
    }

    /// Opens the login page, waits for the person, and gets the tokens.
    ///
    /// `show` is called once with the page's URL, before a browser is opened: print it, since a
    /// browser may not open (over SSH, forward the redirect URI's port and fix it with
    /// [`redirect_uri`](Self::redirect_uri)). Needs a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// The person or the server said no ([`Error::is_denied`]), nobody came in time
    /// ([`Error::is_timeout`]), the network or server failed for now ([`Error::is_transient`]), a
    /// setting is wrong ([`Error::is_configuration`]), or none of these: the port of the redirect
    /// URI is taken, or an answer is of no use, such as one of another issuer.
    pub async fn run(mut self, show: impl FnOnce(&str)) -> Result<TokenResponse, Error> {
        let (http, server) = self.request.begin().await?;
        let loopback = match &self.redirect_uri {
            Some(uri) => Loopback::at(uri).await?,
            None => Loopback::anywhere().await?,
        };
        let (attempt, url) = Attempt::new(self.request, http, server, &loopback.uri)?;
        show(url.as_str());
        if self.opens {
            // It may take its time to find out that there is none, or last as long as the browser
            // does: nobody waits for it. Where it fails, the person has the URL.
            let open = move || drop(webbrowser::open(url.as_str()));
            let _ = thread::Builder::new().name("reauth-browser".to_owned()).spawn(open);
        }
        let (visits, visited) = mpsc::channel(1);
        loopback.until(visits, attempt.finish(visited, self.timeout)).await
    }
}

impl fmt::Debug for BrowserLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Parameters may hold secrets.
        f.debug_struct("BrowserLogin")
            .field("endpoint", &self.request.endpoint)
            .finish_non_exhaustive()
    }
}

/// What only the one who asked for a code knows of it.
struct Attempt {
    http: Client,
    request: Request,
    server: ServerMetadata,
    redirect_uri: String,
    state: CsrfToken,
    verifier: PkceCodeVerifier,
}

impl Attempt {
    /// With the URL of its login page.
    fn new(
        request: Request,
        http: Client,
        server: ServerMetadata,
        redirect_uri: &RedirectUrl,
    ) -> Result<(Self, Url), Error> {
        let page = server.authorization_endpoint().cloned();
        let page = page.ok_or_else(|| has_no(&server, "authorization", "authorization_url"))?;
        let client = BasicClient::new(ClientId::new(request.endpoint.client_id().to_owned()))
            .set_auth_uri(AuthUrl::from_url(page))
            .set_redirect_uri(redirect_uri.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut login = client
            .authorize_url(CsrfToken::new_random)
            .set_pkce_challenge(challenge)
            .add_scopes(request.scopes.iter().cloned().map(Scope::new));
        for (name, value) in &request.params {
            login = login.add_extra_param(name, value);
        }
        let (url, state) = login.url();
        let redirect_uri = redirect_uri.to_string();
        Ok((Self { http, request, server, redirect_uri, state, verifier }, url))
    }

    async fn finish(
        self,
        mut visited: mpsc::Receiver<Visit>,
        patience: Duration,
    ) -> Result<TokenResponse, Error> {
        // The limit is the person's alone: an exchange that is cut off loses what it was given.
        let visit = tokio::time::timeout(patience, self.visit(&mut visited)).await.ok().flatten();
        let (visit, code) = visit.ok_or_else(Error::login_timed_out)?;
        let result = match code {
            Ok(code) => self.exchange(&code).await,
            Err(error) => Err(error),
        };
        visit.show(match &result {
            Ok(_) => Page::LoggedIn,
            Err(error) if error.is_denied() => Page::Denied,
            Err(_) => Page::Failed,
        });
        result
    }

    /// The first visit of this login, and the code that it brings.
    async fn visit(
        &self,
        visited: &mut mpsc::Receiver<Visit>,
    ) -> Option<(Visit, Result<String, Error>)> {
        loop {
            let visit = visited.recv().await?;
            let code = read_redirect(&visit.query, self.state.secret(), &self.server);
            if let Some(code) = code.map(|code| code.map(str::to_owned)) {
                return Some((visit, code));
            }
            // An earlier login's page, or somebody else's: it must not end this one.
            visit.show(Page::Stale);
        }
    }

    async fn exchange(&self, code: &str) -> Result<TokenResponse, Error> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", self.verifier.secret()),
        ];
        fields.extend(self.request.resources());
        let tokens = self.request.endpoint.token_request(&self.http, &self.server, &fields);
        in_time(tokens).await.map_err(failed).and_then(usable)
    }
}

/// The code that the browser brought, from the right issuer (RFC 6749 §4.1.2, RFC 9207 §2.4).
/// `None` where it is not for the login with that `state`.
pub(crate) fn read_redirect<'a>(
    query: &'a [(String, String)],
    state: &str,
    server: &ServerMetadata,
) -> Option<Result<&'a str, Error>> {
    // What has no value is not said, and nothing may be said twice (RFC 6749 §3.1).
    let said = |name: &str| {
        let mut named = query.iter().filter(|(key, value)| key == name && !value.is_empty());
        match (named.next(), named.next()) {
            (said, None) => Ok(said.map(|(_, value)| value.as_str())),
            (_, Some(_)) => Err(Error::login("the answer says something twice")),
        }
    };
    let is_ours = said("state").ok().flatten() == Some(state);
    is_ours.then(|| {
        let required = server.authorization_response_iss_parameter_supported;
        match (said("iss")?, server.issuer()) {
            (Some(said), Some(ours)) if said != ours => {
                return Err(Error::login("the answer is of another issuer"));
            }
            (None, _) if required => {
                return Err(Error::login("the answer does not say its issuer"));
            }
            _ => {}
        }
        match (said("error")?, said("code")?) {
            (Some(error), _) if DENIED.contains(&error) => Err(Error::denied()),
            (Some(error), _) => Err(refused(error)),
            (None, Some(code)) => Ok(code),
            (None, None) => Err(Error::login("the answer has no code")),
        }
    })
}

/// RFC 6749 §4.1.2.1. What isn't a code of that form is not repeated.
fn refused(error: &str) -> Error {
    let is_code = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match error {
        "temporarily_unavailable" | "server_error" => {
            failed(RefreshError::not_sent(format!("the login page answered {error}")))
        }
        error if error.len() < 50 && error.chars().all(is_code) => {
            let why = RefreshError::misconfigured(format!("the login page answered {error}"));
            failed(why)
        }
        _ => Error::login("the login page answered with an error"),
    }
}

/// A person has to find the password, and the second factor.
const PATIENCE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_login_page_is_told_where_it_is_a_code_and_is_for_now_where_it_says_so() {
        for error in ["temporarily_unavailable", "server_error"] {
            let told = refused(error);
            assert!(told.is_transient() && !told.is_configuration(), "{told:?}");
        }
        for error in ["invalid_scope", "x-2", &"e".repeat(49)] {
            let told = refused(error);
            assert!(told.is_configuration() && !told.is_transient(), "{told:?}");
            assert!(format!("{told:?}").contains(error), "{told:?}");
        }
        for error in ["<b>", "log in at evil.example", &"e".repeat(50)] {
            let told = refused(error);
            assert!(!told.is_configuration() && !told.is_transient(), "{told:?}");
            assert!(!format!("{told:?}").contains(error), "{told:?}");
        }
    }
}
