//! The handle of a session: log in, log out, and what is known in between.

mod builder;
pub use builder::SessionBuilder;
mod core;
pub(crate) use core::{Core, Recovery};
mod given_back;
pub(crate) use given_back::GivenBack;
mod keep_alive;
pub use keep_alive::KeepAlive;
mod login;
mod logout;
pub use logout::Revocation;
mod metrics;
pub(crate) use metrics::Counters;
pub use metrics::Metrics;
mod prompt;
mod reading;
mod refreshing;
mod state;
#[cfg(all(test, shuttle))]
pub(crate) use state::State;
mod status;
pub use status::Status;
mod telling;
pub(crate) use telling::step;
mod thread;
pub(crate) use thread::Entered;

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::endpoint::TokenEndpoint;
use crate::error::Error;
use crate::event::Events;
use crate::middleware::ReauthMiddleware;
use crate::store::{Brief, Odd, Patience};
use crate::token::{AccessToken, Moment, TokenResponse};

/// One logged-in account at one authorization server, shared by everything in the program that
/// talks to its API.
///
/// Cheap to clone; clones, and the [middleware](Self::middleware) made from them, share the
/// session. It may be used from several runtimes. Dropping the last handle waits for a refresh
/// that was already sent, so that its answer is not lost: usually not at all, and at most a
/// minute, or longer with a [slow store](SessionBuilder::store_wait).
/// [`drain`](Self::drain) does the same without blocking.
#[derive(Clone)]
pub struct Session(Arc<Handle>);

/// The last one to go closes the session. What runs on the session's thread holds only the core.
struct Handle {
    core: Arc<Core>,
}

impl Session {
    /// A session of the program `service` (the name under which its tokens are kept), refreshed
    /// by `endpoint`.
    pub fn builder(service: impl Into<String>, endpoint: impl TokenEndpoint) -> SessionBuilder {
        SessionBuilder::new(service.into(), Box::new(endpoint))
    }

    /// The middleware that attaches this session's token, to be given to
    /// [`reqwest_middleware::ClientBuilder::with`]. One session may serve any number of clients.
    ///
    /// The store is read from here on, in the background, if that was not done yet: a program
    /// that sets up its client meanwhile need not wait for it at its first request.
    pub fn middleware(&self) -> ReauthMiddleware {
        self.core().look_ahead();
        ReauthMiddleware::new(self.clone())
    }

    /// Whether somebody is logged in, as far as this machine knows: reads the store if that was
    /// not done yet, and asks no server. Without a refresh token, a login ends with its access token.
    ///
    /// # Errors
    /// The store can't be read, or holds something that isn't a record of this session. Where a login
    /// would put that right, the error is [`is_login_required`](Error::is_login_required).
    pub async fn is_logged_in(&self) -> Result<bool, Error> {
        self.core().store.may_ask_again();
        self.core().know().await?;
        let tokens = self.core().state.tokens();
        Ok(tokens.is_some_and(|tokens| tokens.go_on_at(Moment::now())))
    }

    /// Keeps the tokens of a login, in place of any before. Requests that started earlier never
    /// get them: they fail as logged out.
    ///
    /// Once per login, not at every start: the store keeps the session. The lifetimes in `tokens`
    /// count from now.
    ///
    /// # Errors
    /// The tokens are unusable or could not be stored, or a [`log_out`](Self::log_out) came
    /// meanwhile. Then nothing was stored, and [`Error::tokens`] gives them back.
    pub async fn log_in(&self, tokens: TokenResponse) -> Result<(), Error> {
        let core = Arc::clone(self.core());
        let given = tokens.clone();
        let login = async move { core.log_in(tokens).await };
        self.core().thread.run(login).await.map_err(|error| error.with_tokens(given))
    }

    /// As [`log_in`](Self::log_in), with tokens that another program was issued or that come from
    /// a file, where a program does this at every start: each refresh token is taken once, its
    /// SHA-256 kept beside the lock. `false` where it was taken before, in whatever program: it may
    /// have been spent since, and nothing was changed; whether somebody is still logged in,
    /// [`is_logged_in`](Self::is_logged_in) tells.
    ///
    /// From then on the session refreshes them; the program that they come from must not.
    ///
    /// That a token was taken is known as long as the store and what is beside its lock are kept.
    /// With a [`MemoryStore`](crate::MemoryStore), or the file system of a fresh container, nothing
    /// of it is left at the next start: a refresh token would be taken, and spent, again. Import
    /// access tokens alone there, or keep the store and the
    /// [state directory](SessionBuilder::state_dir).
    ///
    /// # Errors
    /// As for `log_in`.
    pub async fn import(&self, tokens: TokenResponse) -> Result<bool, Error> {
        let core = Arc::clone(self.core());
        let given = tokens.clone();
        let login = async move { core.import(tokens).await };
        self.core().thread.run(login).await.map_err(|error| error.with_tokens(given))
    }

    /// Logs out: no request gets a token from now on, and waiting ones fail as logged out, at
    /// once. Then the store is cleared, and the refresh token revoked at the server if the
    /// endpoint can (RFC 7009), within a few seconds or not at all. Only a person who is asked by
    /// the store, to unlock it or whether to clear it, is waited for.
    ///
    /// # Errors
    /// The store could not be cleared. This session is logged out all the same, and clears it
    /// when it can; a program that starts before that may not be. Or what the store holds is
    /// [not this session's](Error::is_configuration): that stays.
    pub async fn log_out(&self) -> Result<Revocation, Error> {
        let core = Arc::clone(self.core());
        core.thread.guard()?;
        let settled = core.begin_logout();
        // Entered here: what was begun is waited for, even if this future is dropped now.
        let entered = core.thread.enter();
        let finish =
            async move { core.finish_logout(settled, entered, Patience::ForAPerson).await };
        self.core().thread.run(finish).await
    }

    /// An access token for what isn't HTTP: gRPC metadata, a WebSocket, a child process.
    /// Refreshed first if it is known to have expired.
    ///
    /// # Errors
    /// As for a request: [logged out](Error::is_logged_out), or [for now](Error::is_transient).
    pub async fn access_token(&self) -> Result<AccessToken, Error> {
        self.core().current().await.map(AccessToken)
    }

    /// Tells that a server refused `token`, and gives the one to try next: the current one if
    /// that is newer, else from a refresh. Tokens that are refused over and over lead to
    /// [transient](Error::is_transient) errors, not to a refresh each.
    ///
    /// # Errors
    /// As for [`access_token`](Self::access_token), and
    /// [login required](Error::is_login_required) where there is nothing to refresh with. A token
    /// of an earlier login fails as logged out, though somebody may be logged in by now: take a new
    /// one with `access_token`. (With [`login`](SessionBuilder::login) set, the same account's goes
    /// on.)
    pub async fn refused(&self, token: &AccessToken) -> Result<AccessToken, Error> {
        match self.core().recover(&token.0, None).await? {
            Recovery::Replay(tokens) => Ok(AccessToken(tokens)),
            Recovery::Withheld(retry_after) => Err(Error::withheld(retry_after)),
            Recovery::LoginRequired(error) => Err(error),
        }
    }

    /// Refreshes ahead from now on, with no traffic too, until the result is dropped: for programs
    /// that are open all day, and servers whose refresh tokens live hardly longer than the access
    /// tokens. Needs to know a lifetime (`expires_in`, or the refresh token's), and refreshes no
    /// more often than [`min_refresh_interval`](SessionBuilder::min_refresh_interval). Goes on
    /// over failures and suspends; after a logout it reads the store every 30 seconds, for a login
    /// made elsewhere.
    ///
    /// # Errors
    /// The session's thread could not be started.
    pub fn keep_alive(&self) -> Result<KeepAlive, Error> {
        KeepAlive::start(self.clone())
    }

    /// How the session stands, for a person to read.
    ///
    /// # Errors
    /// As for [`is_logged_in`](Self::is_logged_in).
    pub async fn status(&self) -> Result<Status, Error> {
        let core = self.core();
        core.know().await?;
        let tokens = core.state.tokens();
        let tokens = tokens.as_deref();
        let odd = match tokens.map(Brief::of) {
            Some(brief) => core.store.read(move |kept| kept.odd(&brief)).await,
            None => Ok(Odd::default()),
        };
        let (odd, trouble) = match odd {
            // Now it answers, but new tokens may be nowhere else than in memory.
            Ok(odd) => (odd, core.trouble()),
            Err(error) => (Odd::default(), Some(error)),
        };
        let now = Moment::now();
        let cooling = tokens
            .and_then(|tokens| core.storm.cooling_at(now, tokens))
            .and_then(|error| error.retry_after());
        let failure = odd.failure.as_ref();
        let cooling_elsewhere = failure.and_then(|failure| failure.holds(now.wall, now.wall));
        Ok(Status {
            store: core.store.describe(),
            endpoint: core.endpoint.id(),
            account: core.account.clone(),
            has_tokens: tokens.is_some(),
            logged_in: tokens.is_some_and(|tokens| tokens.go_on_at(now)),
            logout_reason: core.state.logout_reason(),
            received_at: tokens.map(|tokens| tokens.received_at).filter(|at| *at != UNIX_EPOCH),
            expires_at: tokens.and_then(|tokens| Some(tokens.expiry.as_ref()?.at.wall)),
            refreshes: tokens.map_or(0, |tokens| tokens.generation),
            has_refresh_token: tokens.is_some_and(|tokens| tokens.refresh.is_some()),
            cooldown: cooling.max(cooling_elsewhere),
            lock: core.lock.path(),
            received_by: tokens
                .map(|tokens| Arc::clone(&tokens.saved_by))
                .filter(|by| !by.is_empty()),
            odd,
            trouble,
        })
    }

    /// What the session has done so far, in this process.
    pub fn metrics(&self) -> Metrics {
        self.core().counters.metrics()
    }

    /// What happens to the session from now on.
    pub fn events(&self) -> Events {
        Events(self.core().events.subscribe())
    }

    /// Waits until nothing is under way that the end of the program would lose: a refresh whose
    /// token was sent, a logout, an `on_logout` hook. Usually not at all, and at most a minute, or
    /// longer with a [slow store](SessionBuilder::store_wait).
    ///
    /// For the end of `main`, and for Ctrl-C.
    pub async fn drain(&self) {
        self.core().thread.drain().await;
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.thread.close();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("service", &self.core().service)
            .field("account", &self.core().account)
            .finish_non_exhaustive()
    }
}
