//! Who exchanges a refresh token for new tokens.
//!
//! [`TokenEndpoint`] is the seam. [`OAuth2Endpoint`] is RFC 6749 §6; a server with its own route
//! takes a dozen lines, see `examples/custom_endpoint.rs`. An endpoint sends one request per
//! call and says what became of it; when to call, how long to wait and whether to send again is
//! decided by the refresh transaction alone.

pub(crate) mod answer;
#[cfg(any(test, fuzzing))]
pub(crate) use answer::classify;
mod http;
mod metadata;
pub use metadata::ServerMetadata;
mod oauth2;
pub use oauth2::OAuth2Endpoint;
pub(crate) use oauth2::header;
mod secret;
pub use secret::ClientSecret;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use async_trait::async_trait;
use reqwest::Client;

use crate::token::{RefreshToken, TokenResponse};

/// Exchanges refresh tokens at one authorization server, for one client.
///
/// Implement it with [`async_trait`](https://docs.rs/async-trait). The methods run on the
/// session's own thread and may be called again with the same token after an answer was lost.
/// They must not use a client that has this session's middleware: such a call gets an error.
#[async_trait]
pub trait TokenEndpoint: Send + Sync + 'static {
    /// Names the server and the client: a stored refresh token is sent to no endpoint with
    /// another name. The token endpoint's URL and the client id make a good one.
    fn id(&self) -> String;

    /// Exchanges `token` for new tokens: one request, sent with `http`.
    ///
    /// `http` is made for this: no redirects, no hidden retries, no bearer token, a fresh
    /// connection each time, the system's proxy. It connects within 5 seconds and has no other
    /// time limit; the session waits 30 seconds for this method, and calls it once more beside
    /// where [`reuse_grace`](Self::reuse_grace) says so.
    ///
    /// # Errors
    /// What became of the request; it decides what happens to the session. `?` on a
    /// [`reqwest::Error`] gets it right, and [`RefreshError::answered`] reads any other answer as
    /// an OAuth server's.
    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError>;

    /// Makes ready for a request: the place for whatever may take a person, such as reading a
    /// client secret from the keychain. Called before each refresh, before anything is locked or
    /// sent; the session waits 2 minutes for it. Default: nothing.
    ///
    /// # Errors
    /// The refresh fails, and nothing was sent: see [`RefreshError::not_sent`].
    async fn prepare(&self) -> Result<(), RefreshError> {
        Ok(())
    }

    /// Revokes `token` at the server (RFC 7009). `false` where the server can't, which is the
    /// default.
    ///
    /// # Errors
    /// The token may live on. The user is logged out all the same.
    async fn revoke(&self, http: &Client, token: &RefreshToken) -> Result<bool, RefreshError> {
        let _ = (http, token);
        Ok(false)
    }

    /// How long the server lets a spent refresh token be repeated, where that is known. Then the
    /// session waits half as long for an answer before it sends the token once more, instead of
    /// 30 seconds. Less than 2 seconds count as unknown. Default: unknown.
    fn reuse_grace(&self) -> Option<Duration> {
        None
    }

    /// Tells at [`build`](crate::SessionBuilder::build) what is wrong with the settings, such as
    /// a URL that doesn't parse. Default: nothing.
    ///
    /// # Errors
    /// A sentence for the programmer.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What became of a refresh that brought no tokens.
///
/// The constructors are the possible outcomes; choose by what the server may have *done*, since
/// a refresh token that it has spent must not be sent again as if nothing had happened.
#[derive(Debug)]
pub struct RefreshError {
    outcome: Outcome,
    message: String,
    /// What the server asked for.
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The refresh token never left this machine.
    NotSent,
    /// It was sent, and no whole answer came: it may be spent.
    NoAnswer,
    /// The server refused it for good (`invalid_grant`).
    Rejected,
    /// The server declined to look at it for now.
    Busy,
    /// The server refused the request, not the token.
    Misconfigured,
    /// A refusal for no known reason: the token may be spent.
    Unreadable,
    /// An answer that means nothing known: the token may be spent.
    Unexpected,
}

impl RefreshError {
    /// The request never left this machine: no network, no name, no connection. The refresh
    /// token is as good as before.
    pub fn not_sent(message: impl Into<String>) -> Self {
        Self::new(Outcome::NotSent, message)
    }

    /// The request was sent, and no whole answer came. The session sends it once more at once,
    /// as the server may have spent the refresh token.
    pub fn no_answer(message: impl Into<String>) -> Self {
        Self::new(Outcome::NoAnswer, message)
    }

    /// The server says that this refresh token is invalid, expired or revoked (`invalid_grant`,
    /// RFC 6749 §5.2). **This alone ends the session.**
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(Outcome::Rejected, message)
    }

    /// The server is too busy and has not looked at the token (429, or 503 with `Retry-After`).
    pub fn busy(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self::new(Outcome::Busy, message).with_wait(retry_after)
    }

    /// The request was refused for a reason that the program has to put right, such as
    /// `invalid_client`. The tokens are kept.
    pub fn misconfigured(message: impl Into<String>) -> Self {
        Self::new(Outcome::Misconfigured, message)
    }

    /// The answer means nothing known. The tokens are kept and the error is transient.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(Outcome::Unexpected, message)
    }

    /// A refusal for no known reason: transient, but the third in a row means that a login is
    /// [required](crate::Error::is_login_required). The tokens are kept.
    pub(crate) fn unreadable(message: impl Into<String>) -> Self {
        Self::new(Outcome::Unreadable, message)
    }

    /// Reads a whole answer without tokens as RFC 6749 §5.2 and RFC 9110 have it.
    ///
    /// `invalid_grant` in a JSON body is [`rejected`](Self::rejected); 500, 502, 503 and 504 are
    /// [`no_answer`](Self::no_answer); 429, and 503 with `Retry-After`, are [`busy`](Self::busy);
    /// the other error codes of RFC 6749 §5.2, RFC 8707's `invalid_target`, redirects, 404, 405 and
    /// 410 are [`misconfigured`](Self::misconfigured); anything else is
    /// [`unexpected`](Self::unexpected). What `Retry-After` asks for is waited after all that are
    /// transient; after `no_answer`, once the token was sent once more. The third 4xx in a row
    /// without an error code, or answer with one that nobody knows, and without `Retry-After`,
    /// makes a login [required](crate::Error::is_login_required).
    pub fn answered(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        answer::refusal(TOKEN_ENDPOINT, status, headers, body, &[])
    }

    /// Adds the cause. It must not hold a token.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// As long as the server has asked for, within bounds.
    fn with_wait(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        self
    }

    /// With `wait`, where the server has not asked for another one.
    pub(crate) fn or_with_wait(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = self.retry_after.or(wait);
        self
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) fn configuration_hint(&self) -> Option<&'static str> {
        (self.outcome == Outcome::Misconfigured)
            .then_some("the token endpoint refuses this program's request")
    }

    /// What became of a request to `what`.
    pub(crate) fn of(what: &str, error: reqwest::Error) -> Self {
        if let Some(status) = error.status() {
            answer::refusal(what, status, &HeaderMap::new(), b"", &[])
        } else if error.is_builder() {
            Self::misconfigured("the refresh request could not be made").with_source(error)
        } else if error.is_connect() && is_about_tls(&error) {
            Self::not_sent(format!("{what}'s {UNTRUSTED}")).with_source(error)
        } else if error.is_connect() {
            Self::not_sent(format!("could not connect to {what}")).with_source(error)
        } else if is_whole(&error) {
            // Without the source: serde's errors quote the values they stumble over.
            Self::unexpected(format!("{what}'s answer is not of the expected form"))
        } else {
            Self::no_answer(format!("{what} gave no whole answer")).with_source(error)
        }
    }

    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), retry_after: None, source: None }
    }
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for RefreshError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Tells "never sent" from "sent, no answer".
///
/// The client's connect time-out is shorter than the wait for the exchange, so what failed to
/// connect has certainly not sent the token, and everything else may have. A whole answer of an
/// unexpected form, or with an error status, is told apart; but only its body could say
/// `invalid_grant`, so read that with [`RefreshError::answered`] rather than
/// `error_for_status`.
impl From<reqwest::Error> for RefreshError {
    fn from(error: reqwest::Error) -> Self {
        Self::of(TOKEN_ENDPOINT, error)
    }
}

/// Whether the answer came whole and only could not be read.
fn is_whole(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<serde_json::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether connecting failed because the server's certificate was not accepted. TLS libraries
/// have error types of their own; what they have in common is the word.
fn is_about_tls(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.source().is_none() {
            return error.to_string().to_lowercase().contains("certificate");
        }
        source = error.source();
    }
    false
}

const TOKEN_ENDPOINT: &str = "the token endpoint";

const UNTRUSTED: &str = "TLS certificate is not accepted here: a company's own root certificate is \
    added with .token_client(…)";

/// A server that asks for more than an hour is misconfigured; the user should not wait a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
