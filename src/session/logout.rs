//! The end of a session by the user's wish: local first and for sure, the server after.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::{Known, Locked, Undo, within};
use crate::session::Core;
use crate::session::state::Over;
use crate::session::thread::Entered;
use crate::store::{Kept, Patience, Record, Unreadable};
use crate::token::{LoginId, Moment, RefreshToken, TokenResponse, Tokens};

/// What [`Session::log_out`](crate::Session::log_out) did at the server. On this machine the
/// user is logged out, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Revocation {
    /// There was nothing to revoke, or the endpoint can't.
    #[default]
    Nothing,
    /// The server has revoked the refresh token (RFC 7009).
    Revoked,
    /// A refresh or the store is in the way: the revocation, and the clearing of the store,
    /// follow as soon as it is not. [`Session::drain`](crate::Session::drain) waits for it.
    Pending,
    /// The server could not be reached, or refused: it may think that the session lives on.
    Failed,
}

/// Logins that were logged out here, and still have to leave the store and the server.
#[derive(Debug, Default)]
pub(crate) struct Farewells {
    due: Vec<Farewell>,
    /// How often some were settled, and what the last of them came to.
    settled: u64,
    last: Revocation,
}

#[derive(Debug)]
struct Farewell {
    over: Over,
    /// Whether the server is to be told. Not for tokens that were given back.
    revoke: bool,
    /// To be revoked, with its generation: the newest one that is known.
    token: Option<(u64, RefreshToken)>,
    /// The generation that was revoked.
    revoked: Option<u64>,
    /// What came of that.
    revocation: Revocation,
}

impl Farewell {
    fn of(over: Over, revoke: bool) -> Self {
        Self { over, revoke, token: None, revoked: None, revocation: Revocation::Nothing }
    }

    /// Whether it is a login that the user has ended: then nothing is to be left of it.
    fn is_by_the_user(&self) -> bool {
        self.revoke && !matches!(self.over, Over::Nobody)
    }

    fn bring(&mut self, tokens: &Tokens) {
        let known = self.token.as_ref().map(|(known, _)| *known).max(self.revoked);
        let newer = known.is_none_or(|known| known < tokens.generation);
        if let Some(token) = tokens.refresh.clone().filter(|_| newer && self.revoke) {
            self.token = Some((tokens.generation, token));
        }
    }
}

impl Core {
    /// Logs out in memory: from here on no request gets a token, and none that waits. The result
    /// is for [`finish_logout`](Self::finish_logout).
    pub(crate) fn begin_logout(&self) -> u64 {
        // Who logs out is there to unlock the store.
        self.store.may_ask_again();
        let settled = self.farewells().settled;
        self.logouts.fetch_add(1, Ordering::SeqCst);
        let (over, tokens) = self.state.log_out(SystemTime::now());
        let logged_out = Error::logged_out(Some(LogoutReason::Requested));
        let epoch = self.state.epoch();
        self.refreshing.abandon_before(epoch, logged_out.clone());
        self.ask_no_more(epoch, logged_out);
        let mut farewell = Farewell::of(over, true);
        if let Some(tokens) = &tokens {
            farewell.bring(tokens);
        }
        if tokens.is_some() || matches!(farewell.over, Over::AllUntil(_)) {
            self.farewells().due.push(farewell);
        }
        if tokens.is_some() {
            self.tell_logout(LogoutReason::Requested);
        }
        self.logged_out.notify_waiters();
        settled
    }

    /// Logs out in the store and at the server. On the session's thread.
    pub(crate) async fn finish_logout(
        self: &Arc<Self>,
        settled: u64,
        entered: Option<Entered>,
        patience: Patience,
    ) -> Result<Revocation, Error> {
        // First: from here on the login is over for every program, whatever comes next.
        let noted = match self.note_logouts().await {
            Err(error) if self.is_unlocked_after(&error).await => self.note_logouts().await,
            noted => noted,
        };
        let settle = || self.try_to_settle(entered.as_ref(), patience);
        let result = match settle().await {
            Err(error) if self.is_unlocked_after(&error).await => settle().await,
            result => result,
        };
        match result {
            // What is not this session's to clear is still there.
            Ok(_) if noted.as_ref().is_err_and(Error::is_configuration) => {
                noted.map(|()| Revocation::Nothing)
            }
            Ok(Some(Revocation::Pending)) => noted.map(|()| Revocation::Pending),
            // Somebody has settled it in our place.
            Ok(None) if self.farewells().settled != settled => Ok(self.farewells().last),
            result => result.map(Option::unwrap_or_default),
        }
    }

    /// Notes for all programs which logins are over. That waits for nobody but the store, and for
    /// that only where it was not known whose record it holds.
    async fn note_logouts(&self) -> Result<(), Error> {
        let due: Vec<_> = (self.farewells().due.iter())
            .filter(|farewell| farewell.revoke)
            .map(|farewell| farewell.over.clone())
            .collect();
        let mut noted = Ok(());
        for over in due {
            // One that fails leaves the others as they are.
            noted = noted.and(self.note_logout(over).await);
        }
        noted
    }

    async fn note_logout(&self, over: Over) -> Result<(), Error> {
        let login = match &over {
            Over::Login(login, _) => Some(login.clone()),
            Over::AllUntil(_) => self.login_over_by(&over).await?,
            Over::Nobody => None,
        };
        match login {
            Some(login) => self.store.beside(move |kept| kept.note_out(&login)).await,
            None => Ok(()),
        }
    }

    async fn login_over_by(&self, over: &Over) -> Result<Option<LoginId>, Error> {
        let Some(record) = self.read_to_clear().await? else {
            return Ok(None);
        };
        match record.read(&self.pin, self.state.epoch(), Moment::now()) {
            Ok(tokens) => Ok(over.covers(&tokens).then_some(tokens.login)),
            Err(Unreadable::Corrupt) => Ok(None),
            Err(why) => Err(self.unreadable(why)),
        }
    }

    /// Reads the store, unless the person who would have to unlock it is asked or has just said no.
    pub(super) async fn read_to_clear(&self) -> Result<Option<Record>, Error> {
        match self.store.put_off().await {
            Some(error) => Err(error),
            None => self.store.read(Kept::load_to_clear).await,
        }
    }

    async fn try_to_settle(
        self: &Arc<Self>,
        entered: Option<&Entered>,
        patience: Patience,
    ) -> Result<Option<Revocation>, Error> {
        let mut locked = match Locked::wait(self, LOCK_WAIT).await {
            Ok(locked) => locked,
            // The lock can't be used at all: waiting won't help.
            Err(error) if error.is_store() && self.trouble().is_none() => return Err(error),
            Err(_) => {
                self.settle_later();
                return Ok(Some(Revocation::Pending));
            }
        };
        let mut result = self.settle(&mut locked).await;
        if patience == Patience::ForAPerson && locked.is_free(self).is_err() {
            if let Some(entered) = entered {
                // The program's end doesn't wait for that person.
                entered.give_up_soon();
            }
            result = match locked.unlocked(self).await {
                Some(Ok(())) => self.settle(&mut locked).await,
                Some(Err(error)) => Err(error),
                None => result,
            };
        }
        locked.leave(self).await;
        result
    }

    /// Whoever in this process has the locks settles it in our place; another process doesn't.
    fn settle_later(self: &Arc<Self>) {
        let (core, entered) = (Arc::clone(self), self.thread.enter());
        // Where no thread can be had, the session is closing.
        let _ = self.thread.spawn(async move {
            let _entered = entered;
            if let Ok(locked) = Locked::wait_in_line(&core).await {
                locked.leave(&core).await;
            }
        });
    }

    /// `tokens` came after the user had logged out: they are to be revoked, not kept.
    pub(crate) fn came_too_late(&self, tokens: &Tokens) {
        let mut farewells = self.farewells();
        // Not a logout by the user: then these tokens may be somebody else's by now.
        let due = farewells.due.iter_mut().filter(|farewell| farewell.over.covers(tokens));
        due.for_each(|farewell| farewell.bring(tokens));
    }

    /// Whether the user has logged out, in whatever program.
    pub(crate) async fn is_out(&self, login: &LoginId) -> bool {
        let login = login.clone();
        // Where that can't be found out, the login was going on a moment ago.
        self.store.beside(move |kept| kept.is_out(&login)).await.unwrap_or(false)
    }

    /// The user has logged out in another program, and these are that login's newest tokens: to be
    /// revoked with the locks that are held, should that program not have come to it.
    pub(crate) fn logged_out_elsewhere(&self, tokens: &Tokens) {
        let elsewhere = LogoutReason::LoggedOutElsewhere;
        {
            let mut farewells = self.farewells();
            let covers = |farewell: &Farewell| farewell.over.covers(tokens) && farewell.revoke;
            if !farewells.due.iter().any(covers) {
                farewells.due.push(Farewell::of(Over::login(&tokens.login), true));
            }
        }
        self.came_too_late(tokens);
        self.end(tokens.epoch, elsewhere);
        self.refreshing.abandon_before(tokens.epoch + 1, Error::logged_out(Some(elsewhere)));
    }

    /// A login that was over before it began: it leaves the store and, unless its tokens were given
    /// back, the server.
    pub(crate) fn never_began(&self, login: &LoginId, not_given_back: Option<&Tokens>) {
        let mut farewell = Farewell::of(Over::login(login), not_given_back.is_some());
        if let Some(tokens) = not_given_back {
            farewell.bring(tokens);
        }
        self.farewells().due.push(farewell);
    }

    /// A login that could not be stored: it leaves the server, and what the store has is left
    /// alone. A save that goes on is undone before.
    pub(crate) fn revoke_unstored(self: &Arc<Self>, response: TokenResponse) {
        let Some(secret) = response.refresh_token else {
            return;
        };
        let mut farewell = Farewell::of(Over::Nobody, true);
        farewell.token = Some((0, RefreshToken::new(secret, response.server)));
        self.farewells().due.push(farewell);
        self.settle_later();
    }

    /// Ends what logouts and failed logins began: puts the store right or clears it, revokes at the
    /// server. `None` if there was nothing to end.
    ///
    /// # Errors
    /// The store could not be cleared. That stays due for the next one who holds the locks.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        locked: &mut Locked,
    ) -> Result<Option<Revocation>, Error> {
        locked.settled = true;
        if !self.is_settling_due() {
            return Ok(None);
        }
        let mut due = std::mem::take(&mut self.farewells().due);
        let cleared = match self.take_back_failed(locked).await {
            Ok(()) => self.clear_store(locked, &mut due).await,
            failed => {
                if due.iter().any(Farewell::is_by_the_user) {
                    self.note_out_failed().await;
                }
                failed
            }
        };
        for farewell in &mut due {
            if let Some((generation, token)) = farewell.token.take() {
                farewell.revoked = Some(generation);
                farewell.revocation = farewell.revocation.max(self.revoke(locked, token).await);
            }
        }
        let worst = due.iter().map(|farewell| farewell.revocation).max().unwrap_or_default();
        let mut farewells = self.farewells();
        (farewells.settled, farewells.last) = (farewells.settled + 1, worst);
        if cleared.is_err() {
            farewells.due.append(&mut due);
        }
        cleared.map(|()| Some(worst))
    }

    /// Clears the store if what it holds is over.
    async fn clear_store(&self, locked: &mut Locked, due: &mut [Farewell]) -> Result<(), Error> {
        if due.iter().all(|farewell| matches!(farewell.over, Over::Nobody)) {
            return Ok(());
        }
        let record = match self.read_to_clear().await {
            Ok(Some(record)) => record,
            Err(error) if error.is_transient() => return Err(error),
            // Of a login that never began nothing is there; that an entry was lost stays noted.
            Ok(None) if !due.iter().any(Farewell::is_by_the_user) => return Ok(()),
            // Gone already, but for what is noted of it or kept aside. The user asked for it to go.
            Ok(None) => {
                let pin = self.pin.clone();
                let over: Vec<_> = due.iter().map(|farewell| farewell.over.clone()).collect();
                let is_over = move |known: &Known| over.iter().any(|over| over.covers_lost(known));
                let clear = move |kept: &Kept| kept.clear_lost(&pin, is_over);
                return locked.write(self, Undo::Nothing, clear).await;
            }
            // Damaged, so that nobody can use it.
            Err(_) => return locked.write(self, Undo::Nothing, Kept::clear).await,
        };
        match record.read(&self.pin, self.state.epoch(), Moment::now()) {
            // It began after the logout.
            Ok(tokens) if self.state.tokens().is_some_and(|now| now.login == tokens.login) => {
                return Ok(());
            }
            Ok(tokens) => {
                // One that names the login knows best what is to become of it.
                let named = |farewell: &Farewell| matches!(farewell.over, Over::Login(..));
                let mut covering: Vec<_> =
                    due.iter_mut().filter(|farewell| farewell.over.covers(&tokens)).collect();
                covering.sort_by_key(|farewell| !named(farewell));
                let Some(farewell) = covering.first_mut() else {
                    return Ok(());
                };
                farewell.bring(&tokens);
                if let Over::AllUntil(_) = farewell.over {
                    // Now it is known which session there was to end.
                    farewell.over = Over::login(&tokens.login);
                    self.state.name_over(&tokens.login);
                    self.tell_logout(LogoutReason::Requested);
                }
                if let (false, Some(living)) = (farewell.revoke, self.state.tokens()) {
                    // A login that never began: it had taken the place of this one.
                    let record = Record::of(&living, &self.pin);
                    return locked.write(self, Undo::Nothing, move |kept| kept.save(&record)).await;
                }
            }
            Err(Unreadable::Corrupt) => {}
            // Not this session's.
            Err(Unreadable::Newer(_) | Unreadable::OtherIssuer(_)) => return Ok(()),
        }
        locked.write(self, Undo::Nothing, Kept::clear).await
    }

    async fn revoke(self: &Arc<Self>, locked: &mut Locked, token: RefreshToken) -> Revocation {
        let Ok(http) = locked.http(self) else {
            return Revocation::Failed;
        };
        let core = Arc::clone(self);
        // A task of its own, so that a panic in the endpoint's code is a failure, and no more.
        let task =
            tokio::spawn(async move { within(REVOKE, core.endpoint.revoke(&http, &token)).await });
        match task.await {
            Ok(Some(Ok(true))) => Revocation::Revoked,
            Ok(Some(Ok(false))) => Revocation::Nothing,
            Ok(Some(Err(_)) | None) | Err(_) => Revocation::Failed,
        }
    }

    /// Whether a logout or a failed login has left something to end.
    pub(crate) fn is_settling_due(&self) -> bool {
        !self.farewells().due.is_empty() || !self.failed().is_empty()
    }

    fn farewells(&self) -> MutexGuard<'_, Farewells> {
        self.farewells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A person waits for a logout; the refresh that is in the way will settle it.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Best effort: the user is logged out here already.
const REVOKE: Duration = Duration::from_secs(5);
