//! The refresh transaction: the one place where a refresh token is sent.
//!
//! It runs on the session's own thread, once for everybody who waits (see `flight`), and to its
//! end whoever goes away meanwhile. The order is what the promises rest on:
//!
//! ```text
//! gate → process lock → read the record → look again: is a refresh still needed?
//!      → mark → exchange (→ once more, at once, if its answer was lost)
//!      → journal → look again: is it still this login? → save → publish → unlock
//! ```
//!
//! **Lock order: gate, process lock, store.** After each of them, look again before acting.

mod bound;
pub(crate) use bound::within;
mod flight;
pub(crate) use flight::{Joined, Landing, SingleFlight};
mod journal;
pub(crate) use journal::Journal;
mod mark;
pub(crate) use mark::Mark;
mod storm;
pub(crate) use storm::{Place, Storm};
mod trace;
pub(crate) use trace::Trace;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::OwnedMutexGuard;
use tokio::time;

use crate::endpoint::{Outcome, RefreshError};
use crate::error::Error;
use crate::event::{Event, LogoutReason};
use crate::lock::Held;
use crate::session::{Core, Entered};
use crate::store::Record;
use crate::token::{Birth, Freshness, Identity, Moment, RefreshToken, TokenResponse, Tokens};

/// What only one transaction at a time may touch: a refresh, a login or a logout.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    mark: Mark,
    http: Option<reqwest::Client>,
}

/// The gate and the process lock, in this order.
#[derive(Debug)]
pub(crate) struct Locked {
    gate: OwnedMutexGuard<Gate>,
    _process: Held,
}

impl Locked {
    pub(crate) async fn wait(core: &Core, limit: Duration) -> Result<Self, Error> {
        let gate = within(limit, Arc::clone(&core.gate).lock_owned()).await.ok_or_else(|| {
            let message = "another refresh of this session has not ended yet";
            Error::refresh(RefreshError::not_sent(message))
        })?;
        let process = core.lock.acquire().await?;
        Ok(Self { gate, _process: process })
    }

    /// The client for token requests, made at the first one.
    pub(crate) fn http(&mut self) -> Result<reqwest::Client, RefreshError> {
        if let Some(http) = &self.gate.http {
            return Ok(http.clone());
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            // reqwest re-sends refused HTTP/2 streams by itself; we count what is sent.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            // A kept connection may be dead: then nobody could tell whether the token was sent.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(self.gate.http.insert(http).clone())
    }
}

/// What a transaction came to, if it did not fail.
#[must_use]
pub(crate) enum Refreshed {
    /// The store had newer tokens: nothing was sent.
    Adopted(Arc<Tokens>),
    New(Arc<Tokens>),
    /// New tokens that are nowhere but in memory: [`Unsaved::keep_saving`] goes on.
    Unsaved(Arc<Tokens>, Unsaved),
}

/// Replaces `refused` by newer tokens of the same login.
pub(crate) async fn transaction(core: &Arc<Core>, refused: &Tokens) -> Result<Refreshed, Error> {
    let mut locked = Locked::wait(core, LOCK_WAIT).await?;

    // Look again: the store may hold newer tokens, another login or none.
    core.read_store().await?;
    let current = core.tokens_of(refused.epoch)?;
    if current.supersede(refused) && current.freshness_at(Moment::now()) != Freshness::Expired {
        return Ok(Refreshed::Adopted(current));
    }
    let Some(refresh_token) = &current.refresh else {
        return Err(Error::login_required());
    };

    // From here on the program's end waits: what is sent may be spent.
    let Some(entered) = core.thread.enter() else {
        return Err(Error::internal("the session is closing", None));
    };
    let unanswered_before = locked.gate.mark.set(&current);
    let answer = exchange(core, &mut locked, refresh_token).await;
    let replayed = answer.replayed;
    match answer.result {
        Ok(response) => {
            locked.gate.mark.clear();
            let birth = if replayed { Birth::ReplayedRefresh } else { Birth::Refresh };
            let identity = Identity {
                login: current.login.clone(),
                epoch: current.epoch,
                generation: current.generation + 1,
                birth,
            };
            let now = Moment::now();
            let tokens = Tokens::received(&response, Some(&current), identity, now);
            commit(core, locked, entered, Arc::new(tokens)).await
        }
        Err(error) => {
            match error.outcome() {
                // Known not to be spent by this transaction: an older question stays open.
                Outcome::NotSent | Outcome::Busy(_) if !replayed && !unanswered_before => {
                    locked.gate.mark.clear();
                }
                Outcome::Rejected => {
                    locked.gate.mark.clear();
                    return rejected(core, &current, replayed || unanswered_before).await;
                }
                _ => {}
            }
            Err(Error::refresh(error))
        }
    }
}

struct Answer {
    result: Result<TokenResponse, RefreshError>,
    /// Sent twice, as the first answer was lost.
    replayed: bool,
}

/// Sends the refresh token, and once more if the answer is lost: at once and under the same
/// lock, since a server that lets a spent token be repeated does so for a short while only.
async fn exchange(core: &Core, locked: &mut Locked, token: &RefreshToken) -> Answer {
    let http = match locked.http() {
        Ok(http) => http,
        Err(error) => {
            return Answer { result: Err(error), replayed: false };
        }
    };
    let attempt = async |limit| {
        let result = match within(limit, core.endpoint.refresh(&http, token)).await {
            Some(result) => result,
            None => Err(RefreshError::no_answer(format!(
                "the token endpoint gave no answer within {} seconds",
                limit.as_secs()
            ))),
        };
        result.and_then(|response| match response.check() {
            Ok(()) => Ok(response),
            Err(why) => Err(RefreshError::unexpected(why)),
        })
    };
    let first = attempt(EXCHANGE).await;
    match first {
        Err(error) if error.outcome() == Outcome::NoAnswer => {
            Answer { result: attempt(REPLAY).await, replayed: true }
        }
        result => Answer { result, replayed: false },
    }
}

/// The server refuses the refresh token for good: the session's end, unless the store has news.
async fn rejected(
    core: &Arc<Core>,
    current: &Tokens,
    maybe_spent: bool,
) -> Result<Refreshed, Error> {
    // Look again: the login may be over already, or have newer tokens.
    core.read_store().await?;
    let newest = core.tokens_of(current.epoch)?;
    if newest.supersede(current) {
        return Ok(Refreshed::Adopted(newest));
    }
    let expired = current.refresh_expires_at.is_some_and(|end| end <= SystemTime::now());
    let reason = match (maybe_spent, expired) {
        (true, _) => LogoutReason::RotationLost,
        (false, true) => LogoutReason::RefreshTokenExpired,
        (false, false) => LogoutReason::Revoked,
    };
    core.end(current.epoch, reason);
    // If this fails, the record counts for nothing here, and once more for nothing at the server.
    let _ = core.store.call(|store| store.clear()).await;
    Err(core.state.logged_out())
}

/// Makes the answer durable, then known.
async fn commit(
    core: &Arc<Core>,
    mut locked: Locked,
    entered: Entered,
    tokens: Arc<Tokens>,
) -> Result<Refreshed, Error> {
    core.journal.write(&tokens);
    // Look again: a logout that came meanwhile wins.
    if let Err(over) = core.tokens_of(tokens.epoch) {
        core.settle_logout(&mut locked, tokens.refresh.clone()).await;
        return Err(over);
    }
    let record = Record::of(&tokens, &core.pin);
    let saved = core.store.call(move |store| store.save(&record)).await;
    let Ok(published) = core.state.advance(tokens.epoch, &tokens) else {
        core.settle_logout(&mut locked, tokens.refresh.clone()).await;
        return Err(core.state.logged_out());
    };
    match saved {
        Ok(()) => Ok(Refreshed::New(published)),
        Err(error) => {
            core.emit(Event::PersistFailed(error));
            entered.give_up_soon();
            let unsaved = Unsaved { locked, _entered: entered, tokens };
            Ok(Refreshed::Unsaved(published, unsaved))
        }
    }
}

/// New tokens that no store has yet, and the locks that keep everybody from going on without.
pub(crate) struct Unsaved {
    locked: Locked,
    _entered: Entered,
    tokens: Arc<Tokens>,
}

impl Unsaved {
    /// Saves until it succeeds or the login is over.
    pub(crate) async fn keep_saving(mut self, core: &Arc<Core>) {
        let mut pause = SAVE_AGAIN_MIN;
        loop {
            time::sleep(pause).await;
            pause = (pause * 2).min(SAVE_AGAIN_MAX);
            if core.tokens_of(self.tokens.epoch).is_err() {
                return core.settle_logout(&mut self.locked, None).await;
            }
            let record = Record::of(&self.tokens, &core.pin);
            if core.store.call(move |store| store.save(&record)).await.is_ok() {
                core.emit(Event::Persisted);
                // Once more: the logout may have come during the save.
                if core.tokens_of(self.tokens.epoch).is_err() {
                    core.settle_logout(&mut self.locked, None).await;
                }
                return;
            }
        }
    }
}

/// Local networks answer in milliseconds, a satellite in one second. Shorter than [`EXCHANGE`],
/// so that "could not connect" always means "not sent".
const CONNECT: Duration = Duration::from_secs(5);

/// Giving up on an answer may cost the session, and real servers have taken 20 s.
const EXCHANGE: Duration = Duration::from_secs(30);

/// The replay of a lost exchange: the server was reachable a moment ago.
const REPLAY: Duration = Duration::from_secs(10);

/// One whole transaction of somebody else (exchange, replay, store), and half of another.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(65);

const SAVE_AGAIN_MIN: Duration = Duration::from_millis(200);
const SAVE_AGAIN_MAX: Duration = Duration::from_secs(5);
