//! What the handles of a session share: its parts, and the moves that involve several of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use tokio::sync::broadcast;

use crate::endpoint::TokenEndpoint;
use crate::error::Error;
use crate::event::{Event, LogoutReason};
use crate::lock::ProcessLock;
use crate::origin::Origin;
use crate::refresh::{
    Gate, Joined, Journal, Landing, Place, Refreshed, SingleFlight, Storm, Trace, transaction,
};
use crate::session::logout::Revoking;
use crate::session::state::{Phase, State};
use crate::session::thread::SessionThread;
use crate::store::{Pin, StoreThread};
use crate::token::{Freshness, Moment, Tokens};

pub(crate) struct Core {
    pub(crate) service: String,
    pub(crate) account: String,
    pub(crate) origins: Vec<Origin>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) on_logout: Option<OnLogout>,
    pub(crate) endpoint: Box<dyn TokenEndpoint>,
    pub(crate) pin: Pin,
    pub(crate) store: StoreThread,
    pub(crate) state: State,
    pub(crate) thread: SessionThread,
    pub(crate) gate: Arc<tokio::sync::Mutex<Gate>>,
    pub(crate) lock: ProcessLock,
    pub(crate) journal: Journal,
    pub(crate) trace: Trace,
    pub(crate) storm: Storm,
    pub(crate) refreshing: SingleFlight<Arc<Tokens>>,
    pub(crate) reading: SingleFlight<()>,
    pub(crate) events: broadcast::Sender<Event>,
    /// How often the user has logged out: a login that was under way then must not win.
    pub(crate) logouts: AtomicU64,
    pub(crate) revoking: Mutex<Revoking>,
    pub(crate) last_look: Mutex<Option<Instant>>,
}

pub(crate) type OnLogout = Arc<dyn Fn(LogoutReason) + Send + Sync>;

/// What to do about a 401.
#[must_use]
pub(crate) enum Recovery {
    Replay(Arc<Tokens>),
    /// Another refresh would not help now.
    Withheld(Duration),
    /// There is nothing to refresh with.
    LoginRequired,
}

impl Core {
    /// The tokens to send a request with. Waits only where the access token is known to be of
    /// no use, or the store was never read.
    pub(crate) async fn current(self: &Arc<Self>) -> Result<Arc<Tokens>, Error> {
        match self.ready() {
            Some(tokens) => Ok(tokens),
            // Boxed: the usual way stays small.
            None => Box::pin(self.current_after_waiting()).await,
        }
    }

    /// The usual way: no lock, no I/O, no allocation.
    fn ready(self: &Arc<Self>) -> Option<Arc<Tokens>> {
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

    async fn current_after_waiting(self: &Arc<Self>) -> Result<Arc<Tokens>, Error> {
        self.thread.guard()?;
        let started_in = match &*self.state.get() {
            snapshot if snapshot.is_logged_out() => None,
            snapshot => Some(snapshot.epoch),
        };
        self.know().await?;
        let tokens = self.state.tokens().ok_or_else(|| self.state.logged_out())?;
        if started_in.is_some_and(|epoch| epoch != tokens.epoch) {
            // A login made while this request waited is not the one that it started under.
            return Err(self.state.logged_out());
        }
        if tokens.freshness_at(Moment::now()) == Freshness::Expired && tokens.refresh.is_some() {
            return self.refresh(&tokens, Why::Expired).await;
        }
        match self.refreshing.under_way() {
            Some(refresh) if tokens.refused.load(Ordering::Relaxed) => refresh.wait().await,
            _ => Ok(tokens),
        }
    }

    /// What to do about a 401 on `refused`. The place is unknown where it was not over HTTP.
    pub(crate) async fn recover(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        place: Option<Place>,
    ) -> Result<Recovery, Error> {
        self.thread.guard()?;
        if self.newer_than(refused).is_none() && self.refreshing.under_way().is_none() {
            let obstacle = || match &refused.refresh {
                None => Some(Recovery::LoginRequired),
                Some(_) => {
                    (self.storm.withheld_at(Instant::now(), refused, place)).map(Recovery::Withheld)
                }
            };
            if obstacle().is_some() {
                // Another process may have what we may not fetch. No news is no reason to fail.
                let _ = self.look_again().await;
            }
            if self.newer_than(refused).is_none()
                && let Some(obstacle) = obstacle()
            {
                return Ok(obstacle);
            }
        }
        self.refresh(refused, Why::Refused(place)).await.map(Recovery::Replay)
    }

    /// Tokens of the same login that are newer than `refused`: known already, or from a refresh
    /// that everybody shares.
    async fn refresh(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        why: Why,
    ) -> Result<Arc<Tokens>, Error> {
        loop {
            let joined = self.refreshing.join(
                || self.newer_than(refused),
                |landing| self.start_refresh(refused, why, landing),
            );
            let tokens = match joined {
                Joined::Already(tokens) => tokens?,
                Joined::Waiting(refresh) => refresh.wait().await?,
            };
            // A refresh of older tokens may have just landed with the ones refused here.
            if tokens.supersede(refused) {
                return Ok(tokens);
            }
        }
    }

    /// Refreshes in the background, unless that is under way or has just failed.
    fn refresh_ahead(self: &Arc<Self>, tokens: &Arc<Tokens>) {
        if tokens.refresh.is_some() {
            // Nobody waits for it.
            drop(self.refreshing.join(
                || self.newer_than(tokens),
                |landing| self.start_refresh(tokens, Why::Ahead, landing),
            ));
        }
    }

    /// What makes a refresh of `refused` needless, or senseless for now.
    fn newer_than(&self, refused: &Tokens) -> Option<Result<Arc<Tokens>, Error>> {
        let current = match self.tokens_of(refused.epoch) {
            Ok(current) => current,
            Err(over) => return Some(Err(over)),
        };
        if current.supersede(refused) && current.freshness_at(Moment::now()) != Freshness::Expired {
            return Some(Ok(current));
        }
        self.storm.cooling_at(Instant::now(), &current).map(Err)
    }

    fn start_refresh(
        self: &Arc<Self>,
        refused: &Arc<Tokens>,
        why: Why,
        landing: Landing<Arc<Tokens>>,
    ) {
        if let Why::Refused(_) = why {
            refused.refused.store(true, Ordering::Relaxed);
        }
        let (core, of) = (Arc::clone(self), Arc::clone(refused));
        let started = self.thread.spawn(async move {
            let (inner, refused) = (Arc::clone(&core), Arc::clone(&of));
            // A task of its own, so that a panic in the endpoint's code is a result too.
            let task = tokio::spawn(async move { transaction(&inner, &refused).await });
            let result = task.await.unwrap_or_else(|e| Err(panicked(e)));
            core.conclude(&of, why, result, landing).await;
        });
        if started.is_err() {
            // The landing, dropped, has told everybody.
            refused.refused.store(false, Ordering::Relaxed);
        }
    }

    /// Tells everybody what a refresh came to.
    async fn conclude(
        self: &Arc<Self>,
        refused: &Tokens,
        why: Why,
        result: Result<Refreshed, Error>,
        landing: Landing<Arc<Tokens>>,
    ) {
        let now = Instant::now();
        let (result, unsaved) = match result {
            Ok(Refreshed::Adopted(tokens)) => (Ok(tokens), None),
            Ok(Refreshed::New(tokens)) => (Ok(tokens), None),
            Ok(Refreshed::Unsaved(tokens, unsaved)) => (Ok(tokens), Some(unsaved)),
            Err(error) if error.is_logged_out() || error.is_login_required() => (Err(error), None),
            Err(error) => {
                let current = self.state.tokens();
                let failed = current.as_deref().filter(|t| t.epoch == refused.epoch);
                (Err(self.storm.failed_at(now, failed.unwrap_or(refused), error)), None)
            }
        };
        match &result {
            Ok(_) => {
                self.storm.calm();
                if let Why::Refused(place) = why {
                    self.storm.refreshed_at(now, refused, place);
                }
                self.trace.refreshed();
                self.emit(Event::Refreshed);
            }
            Err(error) if error.is_logged_out() => {}
            Err(error) => {
                self.trace.failed(error);
                self.emit(Event::RefreshFailed(error.clone()));
            }
        }
        refused.refused.store(false, Ordering::Relaxed);
        landing.land(result);
        if let Some(unsaved) = unsaved {
            unsaved.keep_saving(self).await;
        }
    }

    /// The current tokens, if the login of `epoch` is still the current one.
    pub(crate) fn tokens_of(&self, epoch: u64) -> Result<Arc<Tokens>, Error> {
        (self.state.tokens())
            .filter(|tokens| tokens.epoch == epoch)
            .ok_or_else(|| self.state.logged_out())
    }

    /// After a login took the place of what was before.
    pub(crate) fn begin(&self, ended: Option<LogoutReason>) {
        self.storm.forget();
        let reason = ended.unwrap_or(LogoutReason::Requested);
        self.refreshing.abandon(Error::logged_out(Some(reason)));
        if let Some(reason) = ended {
            self.tell_logout(reason);
        }
        self.emit(Event::LoggedIn);
    }

    /// Ends the session of `epoch`, if it is still going on, and tells everybody.
    pub(crate) fn end(&self, epoch: u64, reason: LogoutReason) {
        if self.state.end(epoch, reason).is_ok() {
            self.tell_logout(reason);
        }
    }

    pub(crate) fn tell_logout(&self, reason: LogoutReason) {
        self.emit(Event::LoggedOut(reason));
        if let Some(on_logout) = self.on_logout.clone() {
            self.thread.hook(move || on_logout(reason));
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        // An error: nobody listens.
        let _ = self.events.send(event);
    }
}

/// Why a refresh is asked for.
#[derive(Clone, Copy, Debug)]
enum Why {
    Ahead,
    Expired,
    Refused(Option<Place>),
}

fn panicked(error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        Error::internal("the token endpoint's code panicked: see its message", None)
    } else {
        Error::internal("the session was closed", None)
    }
}
