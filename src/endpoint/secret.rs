//! The client's secret: given, or asked for at each request.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::endpoint::RefreshError;
use crate::token::Secret;

/// The secret of a confidential client (RFC 6749 §2.3.1), for [`OAuth2Endpoint`](super::OAuth2Endpoint).
///
/// Made from a string, or asked for when it is needed:
///
/// ```
/// use reqwest_reauth::{ClientSecret, OAuth2Endpoint};
///
/// let endpoint = OAuth2Endpoint::new("https://id.example.com/token", "my-cli")
///     .client_secret(ClientSecret::ask(|| Ok(std::env::var("MY_CLIENT_SECRET")?)));
/// ```
#[derive(Clone)]
pub struct ClientSecret(Source);

#[derive(Clone)]
enum Source {
    Given(Secret),
    Ask(Arc<Ask>),
}

type Ask = dyn Fn() -> Result<String, Failure> + Send + Sync;
type Failure = Box<dyn StdError + Send + Sync>;

impl ClientSecret {
    /// A secret that `ask` gives, for instance out of the keychain: called for each request to
    /// the server, on a thread of its own, so that it may block. Where it fails, nothing is sent
    /// and the refresh fails as [transient](crate::Error::is_transient), with its error as cause.
    pub fn ask(ask: impl Fn() -> Result<String, Failure> + Send + Sync + 'static) -> Self {
        Self(Source::Ask(Arc::new(ask)))
    }

    pub(crate) async fn get(&self) -> Result<Secret, RefreshError> {
        let ask = match &self.0 {
            Source::Given(secret) => return Ok(secret.clone()),
            Source::Ask(ask) => Arc::clone(ask),
        };
        let (reply, answer) = oneshot::channel();
        let failed = || RefreshError::not_sent("the client's secret could not be had");
        std::thread::Builder::new()
            .name("reauth-secret".to_owned())
            // An error: nobody waits any more.
            .spawn(move || drop(reply.send(ask())))
            .map_err(|error| failed().with_source(error))?;
        match answer.await {
            Ok(Ok(secret)) => Ok(Secret::new(secret)),
            Ok(Err(error)) => Err(failed().with_source(error)),
            Err(_panicked) => Err(failed()),
        }
    }
}

impl<S: Into<String>> From<S> for ClientSecret {
    fn from(secret: S) -> Self {
        Self(Source::Given(Secret::new(secret)))
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}
