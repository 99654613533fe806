//! A session that ended in the middle of a program's work: the person is asked to log in again,
//! once, and the requests of the same account go on.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::{Error, Source, Unfinished};
use crate::refresh::{Joined, Landing, SingleFlight, within};
use crate::session::Core;
use crate::session::login::Login;
use crate::session::state::{Phase, Snapshot, Whose};
use crate::token::{Freshness, Moment, TokenResponse, Tokens};

/// How a person is asked, and what came of it.
pub(crate) struct Prompt {
    hook: LoginHook,
    wait: Duration,
    flight: SingleFlight<()>,
    /// The epoch in which the person was asked and did not log in, and why. Not asked again.
    failed: Mutex<Option<(u64, Error)>>,
}

pub(crate) type LoginHook = Arc<dyn Fn() -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<TokenResponse, Source>> + Send>>;

impl Prompt {
    pub(crate) fn new(hook: LoginHook, wait: Duration) -> Self {
        Self { hook, wait, flight: SingleFlight::new(), failed: Mutex::new(None) }
    }

    fn failed_in(&self, epoch: u64) -> Option<Error> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(in_epoch, _)| *in_epoch == epoch).map(|(_, error)| error.clone())
    }

    fn set_failed(&self, epoch: u64, error: Error) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, error));
    }
}

/// The session that a request started in: it goes on in a later one of the same account, or in
/// none.
pub(super) struct Started {
    pub(super) epoch: u64,
    /// Of the tokens that it could not go on with.
    generation: u64,
    whose: Whose,
}

impl Started {
    /// `at_first` was known when the request came, `now` after the store was read for it.
    pub(super) fn of(at_first: &Snapshot, now: &Snapshot) -> Self {
        let (epoch, whose) = match at_first.phase {
            Phase::LoggedIn(_) => (at_first.epoch, at_first.whose()),
            Phase::Unknown => (at_first.epoch, now.whose()),
            Phase::LoggedOut(_) => (now.epoch, now.whose()),
        };
        let generation = now.tokens().map_or(0, |tokens| tokens.generation);
        Self { epoch, generation, whose }
    }

    pub(super) fn with(tokens: &Tokens) -> Self {
        let (epoch, generation) = tokens.version();
        Self { epoch, generation, whose: Whose::of(tokens) }
    }

    /// Whether these have come of a refresh since, and it can go on without a person.
    fn is_helped_by(&self, tokens: &Tokens) -> bool {
        let is_newer = tokens.epoch == self.epoch && tokens.generation > self.generation;
        is_newer && tokens.freshness_at(Moment::now()) != Freshness::Expired
    }
}

impl Core {
    /// The tokens to go on with, for a request whose session is over as `error` says: those of a
    /// later login of the same account, which a person is asked for where the program has set how.
    pub(super) async fn or_log_in(
        self: &Arc<Self>,
        started: &Started,
        error: Error,
    ) -> Result<Arc<Tokens>, Error> {
        let is_over = error.is_logged_out() || error.asks_for_login();
        let Some(prompt) = self.prompt.as_ref().filter(|_| is_over) else {
            return Err(error);
        };
        loop {
            // Before the look: what comes after it ends the wait.
            let mut advanced = pin!(self.state.advanced());
            let now = self.state.now();
            match &now.phase {
                _ if started.epoch < now.over_before => return Err(error),
                Phase::LoggedIn(tokens) if tokens.epoch != started.epoch => {
                    let is_same = started.whose.may_be(tokens);
                    return if is_same { Ok(Arc::clone(tokens)) } else { Err(error) };
                }
                Phase::LoggedIn(_) if !error.asks_for_login() => return Err(error),
                // The question stands: its answer is a login like any other.
                Phase::LoggedIn(tokens) if started.is_helped_by(tokens) => {
                    return Ok(Arc::clone(tokens));
                }
                // The hook's own request: what it waited for would be waiting for it.
                _ if self.thread.is_in_login() => return Err(error),
                _ => {}
            }
            let has_moved_on = || self.state.epoch() != now.epoch;
            let joined = prompt.flight.join(
                (now.epoch, 0),
                || match has_moved_on() {
                    true => Some(None),
                    false => prompt.failed_in(now.epoch).map(Some),
                },
                |landing| self.start_to_ask(now.epoch, landing),
            );
            let cause = match joined {
                Joined::Already(None) => continue,
                Joined::Already(Some(cause)) => cause,
                Joined::Waiting(login) => {
                    let mut login = pin!(login.wait());
                    let login = poll_fn(|context| match advanced.as_mut().poll(context) {
                        Poll::Ready(()) => Poll::Ready(None),
                        Poll::Pending => login.as_mut().poll(context).map(Some),
                    });
                    match login.await {
                        Some(Err(cause)) if !has_moved_on() => cause,
                        // Whoever has logged in or out, and how, or what a refresh has brought: it
                        // is in the state by now.
                        _ => continue,
                    }
                }
            };
            return Err(error.because(cause));
        }
    }

    /// What a person would be asked in an epoch before this one is not the question any more.
    pub(super) fn ask_no_more(&self, before: u64, error: Error) {
        if let Some(prompt) = &self.prompt {
            prompt.flight.abandon_before(before, error);
        }
    }

    fn start_to_ask(self: &Arc<Self>, epoch: u64, landing: Landing<()>) {
        if let Err(error) = self.thread.start() {
            return landing.land(Err(error));
        }
        let core = Arc::clone(self);
        let generation = |core: &Self| core.state.tokens().map(|tokens| tokens.generation);
        let asked_for = generation(self);
        // The landing, dropped, tells everybody.
        let _ = self.thread.spawn(async move {
            let result = core.ask(epoch).await;
            if let (Some(prompt), Err(error)) = (&core.prompt, &result)
                && core.state.epoch() == epoch
                // A refresh has answered the question.
                && generation(&core) == asked_for
            {
                core.tell_not_logged_in(error);
                if !error.is_transient() {
                    prompt.set_failed(epoch, error.clone());
                }
            }
            landing.land(result);
        });
    }

    /// On the session's thread; what the program has set runs on one of its own.
    async fn ask(self: &Arc<Self>, epoch: u64) -> Result<(), Error> {
        let over = || Error::logged_out(self.state.logout_reason());
        let prompt = self.prompt.as_ref().ok_or_else(over)?;
        let still_asked = prompt.flight.under_way(epoch).ok_or_else(over)?;
        self.tell_asked();
        let (cancel, cancelled) = oneshot::channel::<()>();
        let hook = Arc::clone(&prompt.hook);
        let answer = self.thread.apart(move || hook(), cancelled)?;
        let core = Arc::clone(self);
        tokio::spawn(async move {
            // Held until there is nothing to ask any more, or the session closes.
            let _cancel = cancel;
            let mut still_asked = pin!(still_asked.wait());
            while timeout(LOOK_INTERVAL, &mut still_asked).await.is_err() {
                core.look_for_news().await;
            }
        });
        let response = match within(prompt.wait, answer).await {
            Some(Ok(Ok(response))) => response,
            Some(Ok(Err(error))) => return Err(unanswered(error)),
            // It has panicked, or was dropped.
            Some(Err(error)) => return Err(error),
            None => return Err(Error::unfinished(Unfinished::TimedOut, None)),
        };
        self.begin_login(response, Login::Again(epoch)).await.map(drop)
    }
}

/// The hook's error: one of ours, wherever it is in it, says what kind it is.
fn unanswered(error: Source) -> Error {
    let found = Error::find(&*error).cloned();
    found.unwrap_or_else(|| {
        let what = "the program's own way to log in again brought no tokens";
        Error::unfinished(Unfinished::Failed(what.to_owned()), Some(error))
    })
}

/// Takes a program's closure as a hook.
pub(super) fn hook<F, E>(hook: impl Fn() -> F + Send + Sync + 'static) -> LoginHook
where
    F: Future<Output = Result<TokenResponse, E>> + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    Arc::new(move || {
        let answer = hook();
        Box::pin(async move { answer.await.map_err(Into::into) })
    })
}

/// A person finds the browser, the password and the second factor, or is not there.
pub(super) const LOGIN_WAIT: Duration = Duration::from_secs(10 * 60);

/// Another program may have asked the same person.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Birth, Identity, LoginId};

    #[test]
    fn only_newer_tokens_of_the_same_session_that_have_not_expired_are_of_help() {
        let tokens = |epoch, generation, lifetime| {
            let (login, birth) = (LoginId("login".to_owned()), Birth::Refresh);
            let identity = Identity { login, epoch, generation, birth, key: None };
            let mut response = TokenResponse::new("at");
            response.expires_in = Some(lifetime);
            Tokens::received(&response, None, identity, Moment::now())
        };
        let hour = Duration::from_secs(3600);
        let started = Started::with(&tokens(1, 1, hour));
        assert!(started.is_helped_by(&tokens(1, 2, hour)));
        assert!(!started.is_helped_by(&tokens(1, 2, Duration::ZERO)));
        assert!(!started.is_helped_by(&tokens(1, 1, hour)));
        assert!(!started.is_helped_by(&tokens(2, 2, hour)));
    }
}
