//! Where the tokens of a session come from: a person who logs in, in the browser of this machine
//! or on another device.
//!
//! The grants are those of native programs (RFC 8252, RFC 8628). Token requests are the endpoint's
//! own, so that a login authenticates and understands the server as every later refresh does.

mod browser;
pub use browser::BrowserLogin;
mod device;
pub use device::{DeviceLogin, DeviceProgress, DevicePrompt};
#[cfg(any(test, fuzzing))]
pub(crate) use {browser::read_redirect, device::read_device_authorization};
mod loopback;
mod page;
mod trouble;

use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use crate::endpoint::{OAuth2Endpoint, Outcome, RefreshError, ServerMetadata, TokenEndpoint};
use crate::error::{Error, Unfinished};
use crate::refresh::{client, prepare, within};
use crate::token::TokenResponse;

/// What every login asks the server for, and with what.
#[derive(Debug)]
struct Request {
    endpoint: OAuth2Endpoint,
    scopes: Vec<String>,
    params: Vec<(String, String)>,
    client: ClientBuilder,
}

impl Request {
    fn new(endpoint: &OAuth2Endpoint) -> Self {
        let client = Client::builder();
        Self { endpoint: endpoint.clone(), scopes: Vec::new(), params: Vec::new(), client }
    }

    fn add_scope(&mut self, scope: &str) {
        self.scopes.extend(scope.split_whitespace().map(str::to_owned));
    }

    /// What the token request says again (RFC 8707 §2.2).
    fn resources(&self) -> impl Iterator<Item = (&str, &str)> {
        let params = self.params.iter().filter(|(name, _)| name == "resource");
        params.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The client to send with, and where to.
    async fn begin(&mut self) -> Result<(Client, ServerMetadata), Error> {
        self.endpoint.check().map_err(Error::configuration)?;
        let builder = std::mem::take(&mut self.client);
        let http = client(builder).build().map_err(|e| failed(e.into()))?;
        prepare(&self.endpoint).await.map_err(failed)?;
        let server = self.endpoint.server(&http, None).await.map_err(failed)?;
        Ok((http, server))
    }
}

/// Whether asking again later, with nothing changed, may help.
fn is_for_now(error: &RefreshError) -> bool {
    matches!(error.outcome(), Outcome::NotSent | Outcome::NoAnswer | Outcome::Busy)
        || error.retry_after().is_some()
}

/// What a token request's failure means where there is no session yet.
fn failed(error: RefreshError) -> Error {
    if is_for_now(&error) || error.outcome() == Outcome::Misconfigured {
        return Error::server(error);
    }
    unfinished("the authorization server gave no tokens", error)
}

fn unfinished(what: &str, error: RefreshError) -> Error {
    Error::unfinished(Unfinished::Failed(what.to_owned()), Some(error.into()))
}

/// Whether they can be sent at all: a login has no earlier ones to go on with, as a refresh has.
fn usable(tokens: TokenResponse) -> Result<TokenResponse, Error> {
    match tokens.check() {
        Ok(()) => Ok(tokens),
        Err(why) => {
            let what = "the authorization server gave tokens that can't be used";
            Err(unfinished(what, RefreshError::unexpected(why)))
        }
    }
}

/// An answer, or none within the time that it may take.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, RefreshError>>,
) -> Result<T, RefreshError> {
    within(EXCHANGE, answer).await.unwrap_or_else(|| {
        let what = "the authorization server gave no answer within the time allowed";
        Err(RefreshError::no_answer(what))
    })
}

fn has_no(server: &ServerMetadata, what: &str, setter: &str) -> Error {
    let who = server.issuer().unwrap_or("the authorization server");
    Error::configuration(format!(
        "{who} names no {what} endpoint that can be used: give it with .{setter}(…)"
    ))
}

/// How a server says that the person said no: RFC 6749 §4.1.2.1, then Entra ID and OpenAM of a code
/// on another device, and LinkedIn in the browser.
pub(crate) const DENIED: &[&str] = &[
    "access_denied",
    "authorization_declined",
    "user_cancelled_authorize",
    "user_cancelled_login",
];

/// As long as a refresh may take.
const EXCHANGE: Duration = Duration::from_secs(30);
