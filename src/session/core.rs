//! What the handles of a session share: its parts, and the moves that involve several of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use reqwest::{ClientBuilder, Response};
use tokio::sync::{Notify, broadcast};

use crate::endpoint::TokenEndpoint;
use crate::error::Error;
use crate::event::{Event, LogoutReason};
use crate::lock::ProcessLock;
use crate::origin::Origin;
use crate::refresh::{Gate, Place, SingleFlight, Storm};
use crate::session::logout::Farewells;
use crate::session::prompt::{Prompt, Started};
use crate::session::refreshing::Why;
use crate::session::state::{Phase, State};
use crate::session::thread::SessionThread;
use crate::session::{Counters, GivenBack};
use crate::store::{Pin, StoreThread};
use crate::token::{Freshness, LoginId, Moment, Tokens};

pub(crate) struct Core {
    pub(crate) service: String,
    pub(crate) account: String,
    pub(crate) origins: Vec<Origin>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) on_logout: Option<OnLogout>,
    pub(crate) token_client: Option<TokenClient>,
    pub(crate) unauthorized: Option<Unauthorized>,
    pub(crate) endpoint: Box<dyn TokenEndpoint>,
    pub(crate) pin: Pin,
    pub(crate) store: StoreThread,
    pub(crate) state: State,
    pub(crate) thread: SessionThread,
    pub(crate) gate: Arc<tokio::sync::Mutex<Gate>>,
    pub(crate) lock: ProcessLock,
    pub(crate) storm: Storm,
    pub(crate) refreshing: SingleFlight<Arc<Tokens>>,
    pub(crate) reading: SingleFlight<()>,
    /// How a person is asked to log in again, if the program has said so.
    pub(crate) prompt: Option<Prompt>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) counters: Counters,
    /// How often the user has logged out: a login that was under way then must not win.
    pub(crate) logouts: AtomicU64,
    /// Logins of ours that have not begun, or never will: whoever reads one back from the store
    /// must not take it for somebody else's.
    pub(crate) unborn: Mutex<VecDeque<LoginId>>,
    /// Logins that were told as failed, and may be in the store.
    pub(crate) failed: Mutex<Vec<GivenBack>>,
    pub(crate) farewells: Mutex<Farewells>,
    /// Wakes a transaction that waits for a store that fails.
    pub(crate) logged_out: Notify,
    /// Why the locks may be held for long: a store that fails or hangs.
    pub(crate) trouble: Mutex<Option<Error>>,
    pub(crate) last_look: Mutex<Option<Instant>>,
}

pub(crate) type OnLogout = Arc<dyn Fn(LogoutReason) + Send + Sync>;
pub(crate) type TokenClient = Box<dyn Fn(ClientBuilder) -> ClientBuilder + Send + Sync>;
pub(crate) type Unauthorized = Box<dyn Fn(&Response) -> bool + Send + Sync>;

/// What to do about a 401.
#[must_use]
pub(crate) enum Recovery {
    Replay(Arc<Tokens>),
    /// Another refresh would not help now.
    Withheld(Duration),
    /// There is nothing to refresh with, or the token endpoint won't say why it refuses.
    LoginRequired(Error),
}

impl Core {
    /// The tokens to send a request with.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<Tokens>, Error> {
        match self.ready() {
            Some(tokens) => Ok(tokens),
            // Boxed: the usual way stays small.
            None => Box::pin(self.current_after_waiting()).await,
        }
    }

    /// The usual way to the tokens of [`current`](Self::current): no lock, no I/O, no allocation.
    /// `None` where the access token is known to be of no use, or the store was never read.
    pub(crate) fn ready(self: &Arc<Self>) -> Option<Arc<Tokens>> {
        let snapshot = self.state.get();
        let Phase::LoggedIn(tokens) = &snapshot.phase else {
            return None;
        };
        if tokens.refused.load(Ordering::Relaxed) {
            return None;
        }
        match tokens.freshness_at(Moment::now()) {
            Freshness::Fresh => {}
            Freshness::Leeway => self.refresh_ahead(tokens),
            Freshness::Expired => return None,
        }
        Some(Arc::clone(tokens))
    }

    /// Where none are [`ready`](Self::ready).
    pub(crate) async fn current_after_waiting(self: &Arc<Self>) -> Result<Arc<Tokens>, Error> {
        self.thread.guard()?;
        let at_first = self.state.now();
        self.know().await?;
        let started = Started::of(&at_first, &self.state.now());
        match self.current_of(&started).await {
            Err(error) => self.or_log_in(&started, error).await,
            tokens => tokens,
        }
    }

    async fn current_of(self: &Arc<Self>, started: &Started) -> Result<Arc<Tokens>, Error> {
        // A login made while this request waited is not the one that it started under.
        let tokens = self.tokens_of(started.epoch)?;
        if tokens.freshness_at(Moment::now()) == Freshness::Expired && tokens.refresh.is_some() {
            return self.refresh(&tokens, Why::Expired).await;
        }
        if tokens.refused.load(Ordering::Relaxed)
            && let Some(refresh) = self.refreshing.under_way(tokens.epoch)
        {
            return match refresh.wait().await {
                // Not valid elsewhere, it may be so where this request goes: let the server say.
                Err(error) if !error.is_logged_out() => self.tokens_of(tokens.epoch),
                result => result,
            };
        }
        if tokens.freshness_at(Moment::now()) == Freshness::Leeway {
            self.refresh_ahead(&tokens);
        }
        Ok(tokens)
    }

    /// What to do about a 401 on `refused`. The place is unknown where it was not over HTTP.
    pub(crate) async fn recover(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        place: Option<Place>,
    ) -> Result<Recovery, Error> {
        self.thread.guard()?;
        let error = match self.recover_by_itself(refused, place).await {
            Ok(Recovery::LoginRequired(error)) | Err(error) => error,
            recovery => return recovery,
        };
        match self.or_log_in(&Started::with(refused), error).await {
            Err(error) if error.asks_for_login() => Ok(Recovery::LoginRequired(error)),
            result => result.map(Recovery::Replay),
        }
    }

    /// Without a person.
    async fn recover_by_itself(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        place: Option<Place>,
    ) -> Result<Recovery, Error> {
        // What has brought these may still be landing. It is not the refresh that they would share,
        // and the next one is not begun without a look at what holds it back.
        let landing = self.refreshing.under_way_before(refused.version());
        if let Some(landing) = landing.filter(|_| self.newer_than(refused).is_none()) {
            let _ = landing.wait().await?;
        }
        let is_open = || {
            self.newer_than(refused).is_none() && self.refreshing.under_way(refused.epoch).is_none()
        };
        let obstacle = || match &refused.refresh {
            None => Some(Recovery::LoginRequired(Error::login_required())),
            // Explained by its expiry; the next request would refresh it anyway.
            Some(_) if refused.freshness_at(Moment::now()) == Freshness::Expired => None,
            Some(_) => {
                self.storm.withheld_at(Moment::now(), refused, place).map(Recovery::Withheld)
            }
        };
        if is_open() && obstacle().is_some() {
            // Another process may have what we may not fetch. No news is no reason to fail.
            let _ = self.look_again().await;
            if is_open()
                && let Some(obstacle) = obstacle()
            {
                self.note_withheld(&obstacle);
                return Ok(obstacle);
            }
        }
        if let Some(place) = place.filter(|_| self.newer_than(refused).is_none()) {
            self.storm.tries(refused, place);
        }
        self.refresh(refused, Why::Refused(place)).await.map(Recovery::Replay)
    }

    /// The current tokens, if the login of `epoch` is still the current one.
    pub(crate) fn tokens_of(&self, epoch: u64) -> Result<Arc<Tokens>, Error> {
        (self.state.tokens())
            .filter(|tokens| tokens.epoch == epoch)
            .ok_or_else(|| self.state.logged_out())
    }

    /// After the login of `epoch` took the place of what was before.
    pub(crate) fn begin(&self, epoch: u64, ended: LogoutReason) {
        let error = Error::logged_out(Some(ended));
        self.refreshing.abandon_before(epoch, error.clone());
        self.ask_no_more(epoch, error);
        self.emit(Event::LoggedIn);
    }

    /// Ends the session of `epoch`, if it is still going on, and tells everybody.
    pub(crate) fn end(&self, epoch: u64, reason: LogoutReason) {
        if self.state.end(epoch, reason).is_ok() {
            self.ask_no_more(epoch + 1, Error::logged_out(Some(reason)));
            self.tell_logout(reason);
        }
    }

    /// Why the locks may be held for long.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<Error>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::Method;
    use tokio::time::timeout;

    use super::*;
    use crate::endpoint::OAuth2Endpoint;
    use crate::refresh::Joined;
    use crate::session::Session;
    use crate::store::MemoryStore;
    use crate::token::{Birth, Identity, TokenResponse};

    /// A session that is logged in, its tokens, and later ones of the same login.
    pub(in crate::session) async fn with_next(
        generation: u64,
        lifetime: Option<Duration>,
    ) -> (Session, Arc<Tokens>, Tokens) {
        // Nobody is there: a refresh would fail.
        let endpoint = OAuth2Endpoint::new("http://127.0.0.1:9/token", "client");
        let builder = Session::builder("test", endpoint).origin("https://api.example");
        let session = builder.store(MemoryStore::new()).build().unwrap();
        session.log_in(TokenResponse::new("at").refresh_token("rt")).await.unwrap();
        let before = session.core().state.tokens().unwrap();
        let (login, epoch) = (before.login.clone(), before.epoch);
        let identity = Identity { login, epoch, generation, birth: Birth::Refresh, key: None };
        let mut response = TokenResponse::new("at2").refresh_token("rt2");
        response.expires_in = lifetime;
        let next = Tokens::received(&response, Some(&before), identity, Moment::now());
        (session, before, next)
    }

    #[tokio::test]
    async fn a_401_on_tokens_that_are_still_landing_begins_no_refresh_unasked() {
        let (session, before, brought) = with_next(1, None).await;
        let core = session.core();
        let (mut landing, place) = (None, Place::new(0, &Method::GET, "/always"));
        let _waiting: Joined<(), _> =
            core.refreshing.join(before.version(), || None, |begun| landing = Some(begun));

        let brought = core.state.advance(before.epoch, &Arc::new(brought)).unwrap();
        let mut recovery = Box::pin(core.recover(&brought, Some(place)));
        assert!(timeout(Duration::ZERO, &mut recovery).await.is_err());
        landing.unwrap().land(Ok(Arc::clone(&brought)));
        assert!(matches!(recovery.await, Ok(Recovery::Withheld(_))));
        assert!(core.refreshing.under_way(brought.epoch).is_none());
    }
}
