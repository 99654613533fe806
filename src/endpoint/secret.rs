//! The client's secret: given, or asked for at each refresh.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use tokio::sync::watch;

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
    /// The question that has no answer yet: whoever comes waits for it, and one that hangs is not
    /// asked again.
    open: Mutex<Option<watch::Receiver<Answer>>>,
    last: Mutex<Option<Secret>>,
}

type Answer = Option<Result<Secret, String>>;

impl ClientSecret {
    /// A secret that `ask` gives, for instance out of the keychain: called once for each refresh
    /// and each login, on a thread of its own, so that it may block and ask a person, for up to 2
    /// minutes. Another session or login of the endpoint that needs it meanwhile waits for the same
    /// answer. A logout asks too where nothing was asked before, and waits no longer than for the
    /// server, 5 seconds: it is then not revoked there. It must not use a session of the endpoint.
    ///
    /// Where it fails, nothing is sent, and the refresh or login fails as
    /// [transient](crate::Error::is_transient) with what it says, which must not hold the secret.
    pub fn ask(ask: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        let (open, last) = (Mutex::new(None), Mutex::new(None));
        Self(Source::Asked(Arc::new(Asked { ask: Box::new(ask), open, last })))
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
                let last = lock(&asked.last).clone();
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
        let question = self.question();
        let mut answer = question.map_err(|_| failed("no thread could be started"))?;
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(secret))) => Ok(secret.clone()),
            Ok(Some(Err(why))) => Err(failed(why)),
            _ => Err(failed("the program's code panicked: see its message")),
        }
    }

    /// Joins the question that is open, or asks a new one.
    fn question(self: &Arc<Self>) -> io::Result<watch::Receiver<Answer>> {
        let mut open = lock(&self.open);
        if let Some(question) = &*open {
            return Ok(question.clone());
        }
        let (reply, answer) = watch::channel(None);
        let asked = Arc::clone(self);
        std::thread::Builder::new().name("reauth-secret".to_owned()).spawn(move || {
            let given = {
                let _open = Open(&asked);
                let given = (asked.ask)().map(Secret::new);
                if let Ok(secret) = &given {
                    *lock(&asked.last) = Some(secret.clone());
                }
                given
            };
            // The question is over: who has its answer, and asks again, asks anew.
            reply.send_replace(Some(given));
        })?;
        *open = Some(answer.clone());
        Ok(answer)
    }
}

/// Ends with the question, however that does.
struct Open<'a>(&'a Asked);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *lock(&self.0.open) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in it is replaced in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_get_the_same_answer_whatever_it_is_and_the_next_question_is_a_new_one() {
        let (asked, both_wait) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let secret = {
            let (asked, both_wait) = (Arc::clone(&asked), Arc::clone(&both_wait));
            ClientSecret::ask(move || {
                both_wait.wait();
                match asked.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("the keychain is locked".to_owned()),
                    1 => panic!("of the test"),
                    _ => Ok("s&cret".to_owned()),
                }
            })
        };
        let ends = [Some("the keychain is locked"), Some("panicked: see its message"), None];
        for (times, end) in (1..).zip(ends) {
            let released = async {
                both_wait.wait();
            };
            // Each is polled before the next one.
            let (first, second, ()) = tokio::join!(secret.prepare(), secret.prepare(), released);
            for result in [first, second] {
                let why = result.err().map(|error| error.to_string());
                assert_eq!(why.is_some(), end.is_some());
                assert!(why.unwrap_or_default().ends_with(end.unwrap_or_default()));
            }
            assert_eq!(asked.load(Ordering::SeqCst), times);
        }
        assert_eq!(secret.get().await.unwrap().expose(), "s&cret");
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_asked_once_however_many_give_up() {
        let (asked, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let secret = {
            let (asked, hangs) = (Arc::clone(&asked), Arc::clone(&hangs));
            ClientSecret::ask(move || {
                asked.fetch_add(1, Ordering::SeqCst);
                hangs.wait();
                Ok("s&cret".to_owned())
            })
        };
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(120), secret.prepare()).await.is_err());
        }
        let released = async {
            hangs.wait();
        };
        let (result, ()) = tokio::join!(secret.prepare(), released);
        assert!(result.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
