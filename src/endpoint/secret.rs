//! The client's secret: given, or asked for at each refresh.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::endpoint::RefreshError;
use crate::token::Secret;

/// The secret of a confidential client (RFC 6749 §2.3.1), for
/// [`OAuth2Endpoint`](super::OAuth2Endpoint).
///
/// Made from a string, or asked for when it is needed:
///
/// ```
/// use reqwest_reauth::{ClientSecret, OAuth2Endpoint};
///
/// let secret = || std::env::var("MY_CLIENT_SECRET").map_err(|_| "set MY_CLIENT_SECRET".to_owned());
/// let endpoint = OAuth2Endpoint::new("https://id.example.com/token", "my-cli")
///     .client_secret(ClientSecret::ask(secret));
/// ```
#[derive(Clone)]
pub struct ClientSecret(Source);

#[derive(Clone)]
enum Source {
    Given(Secret),
    Asked(Arc<Asked>),
}

struct Asked {
    ask: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// One that hangs is not asked again.
    is_asking: AtomicBool,
    last: Mutex<Option<Secret>>,
}

impl ClientSecret {
    /// A secret that `ask` gives, for instance out of the keychain: called once for each refresh
    /// and each login, on a thread of its own, so that it may block and ask a person, for up to 2
    /// minutes. It must not use the session. A logout asks too where nothing was asked before, and
    /// waits no longer than for the server, 5 seconds: it is then not revoked there.
    ///
    /// Where it fails, nothing is sent, and the refresh or login fails as
    /// [transient](crate::Error::is_transient) with what it says, which must not hold the secret.
    pub fn ask(ask: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        let (is_asking, last) = (AtomicBool::new(false), Mutex::new(None));
        Self(Source::Asked(Arc::new(Asked { ask: Box::new(ask), is_asking, last })))
    }

    /// Asks anew, where it is asked for.
    pub(crate) async fn prepare(&self) -> Result<(), RefreshError> {
        match &self.0 {
            Source::Given(_) => Ok(()),
            Source::Asked(asked) => asked.ask().await.map(|_| ()),
        }
    }

    /// The secret, as it was given last.
    pub(crate) async fn get(&self) -> Result<Secret, RefreshError> {
        match &self.0 {
            Source::Given(secret) => Ok(secret.clone()),
            Source::Asked(asked) => {
                let last = asked.last().clone();
                match last {
                    Some(secret) => Ok(secret),
                    None => asked.ask().await,
                }
            }
        }
    }
}

impl Asked {
    async fn ask(self: &Arc<Self>) -> Result<Secret, RefreshError> {
        let failed = |why: &str| {
            RefreshError::not_sent(format!("the client's secret could not be had: {why}"))
        };
        if self.is_asking.swap(true, Ordering::SeqCst) {
            return Err(failed("it is still being asked for"));
        }
        let (reply, answer) = oneshot::channel();
        let asked = Arc::clone(self);
        let started =
            std::thread::Builder::new().name("reauth-secret".to_owned()).spawn(move || {
                let _asking = Asking(&asked);
                // Wiped, also where nobody waits any more.
                let _ = reply.send((asked.ask)().map(Secret::new));
            });
        if started.is_err() {
            self.is_asking.store(false, Ordering::SeqCst);
            return Err(failed("no thread could be started"));
        }
        match answer.await {
            Ok(Ok(secret)) => {
                *self.last() = Some(secret.clone());
                Ok(secret)
            }
            Ok(Err(why)) => Err(failed(&why)),
            Err(_panicked) => Err(failed("the program's code panicked: see its message")),
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Secret>> {
        // It is replaced in one step.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends with the asking, however that does.
struct Asking<'a>(&'a Asked);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.is_asking.store(false, Ordering::SeqCst);
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
