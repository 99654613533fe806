//! The beginning of a session.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::error::Error;
use crate::event::LogoutReason;
use crate::lock::digest;
use crate::refresh::{JournalKey, Locked, Undo};
use crate::session::{Core, GivenBack};
use crate::store::{Before, Kept, Record, Unreadable};
use crate::token::{Birth, Identity, LoginId, Moment, TokenResponse, Tokens};

impl Core {
    /// On the session's thread.
    pub(crate) async fn log_in(self: &Arc<Self>, response: TokenResponse) -> Result<(), Error> {
        self.begin_login(response, Login::Anew).await.map(drop)
    }

    /// A login with tokens that are taken once. `false`: they were before.
    pub(crate) async fn import(self: &Arc<Self>, response: TokenResponse) -> Result<bool, Error> {
        let token = response.refresh_token.as_ref().unwrap_or(&response.access_token);
        let once = digest(&["imported token", token.expose()]);
        self.begin_login(response, Login::Once(once)).await
    }

    /// `false` where it was to be made once, and had been.
    pub(super) async fn begin_login(
        self: &Arc<Self>,
        response: TokenResponse,
        login: Login,
    ) -> Result<bool, Error> {
        response.check().map_err(Error::configuration)?;
        // Who has just logged in is there to unlock the store.
        self.store.may_ask_again();
        // As they are now: waiting for a person must not make the tokens younger, or hide a logout.
        let (logouts, received) = (self.logouts.load(Ordering::SeqCst), Moment::now());
        let attempt = Attempt { response, login, logouts, received };
        let result = match self.put_off_patiently().await {
            Some(error) => Err(error),
            None => match self.try_log_in(&attempt).await {
                Err(error) if self.is_unlocked_after(&error).await => {
                    self.try_log_in(&attempt).await
                }
                result => result,
            },
        };
        if let (Err(error), Login::Again(_)) = (&result, attempt.login)
            // Where that was the reason, it is done already.
            && !error.is_logged_out()
        {
            // What a person was asked for, the program does not have.
            self.revoke_unstored(attempt.response);
        }
        result
    }

    async fn try_log_in(self: &Arc<Self>, attempt: &Attempt) -> Result<bool, Error> {
        let login = LoginId::random()
            .map_err(|e| Error::internal("no random numbers to be had", Some(Box::new(e))))?;
        let mut locked = Locked::wait_in_line(self).await?;
        {
            let mut unborn = self.unborn();
            unborn.push_back(login.clone());
            if unborn.len() > UNBORN {
                unborn.pop_front();
            }
        }
        let once = attempt.login.once();
        let result = match self.take(&mut locked, once).await {
            Ok(true) => {
                let result = self.log_in_locked(&mut locked, &login, attempt).await;
                if let (Err(NotMade { may_be_made_again: true, .. }), Some(once)) = (&result, once)
                {
                    let once = once.to_owned();
                    // Left as taken, it is refused where it could have been used, and no more.
                    let forget = locked.holding(move |kept: &Kept| kept.forget_imported(&once));
                    let _ = self.store.beside(forget).await;
                }
                result.map(|()| true).map_err(|not_made| not_made.error)
            }
            result => result,
        };
        if result.is_ok() {
            self.unborn().retain(|unborn| *unborn != login);
        }
        locked.leave(self).await;
        result
    }

    /// Notes that a token is taken, before anybody can send it. `false` where it was before.
    async fn take(&self, locked: &mut Locked, once: Option<&str>) -> Result<bool, Error> {
        let Some(once) = once.map(str::to_owned) else {
            return Ok(true);
        };
        locked.enter(self)?;
        let take = locked.holding(move |kept: &Kept| {
            let is_new = !kept.is_imported(&once)?;
            if is_new {
                kept.note_imported(&once)?;
            }
            Ok(is_new)
        });
        self.store.beside(take).await
    }

    async fn log_in_locked(
        self: &Arc<Self>,
        locked: &mut Locked,
        login: &LoginId,
        attempt: &Attempt,
    ) -> Result<(), NotMade> {
        let Attempt { response, login: kind, logouts, received } = attempt;
        let is_asked_for = || match kind {
            Login::Again(epoch) => self.state.epoch() == *epoch,
            Login::Anew | Login::Once(_) => true,
        };
        let is_over = || self.logouts.load(Ordering::SeqCst) != *logouts || !is_asked_for();
        // From here on the program's end waits, also for what a login that came too late leaves.
        locked.enter(self)?;
        if let Login::Again(_) = kind {
            // Look again: another program may have asked the same person, and been quicker.
            match self.read_store_locked(locked).await {
                // Where it is lost, it was this session's own, and is replaced.
                Err(error) if error.is_login_required() && self.state.tokens().is_some() => {}
                Err(error) if error.is_transient() => return Err(error.into()),
                // What can't be read is replaced, or not, below.
                Ok(_) | Err(_) => {}
            }
        }
        let before = Arc::new(self.replaceable_record(locked).await?);
        let once = kind.once().map(str::to_owned);
        let given_back = GivenBack { login: login.clone(), before, once };
        let key = JournalKey::random()
            .map_err(|e| Error::internal("no random numbers to be had", Some(Box::new(e))))?;
        loop {
            let identity = Identity {
                login: login.clone(),
                epoch: self.state.epoch() + 1,
                generation: 0,
                birth: Birth::Login,
                key: Some(key.clone()),
            };
            let tokens = Arc::new(Tokens::received(response, None, identity, *received));
            if !is_over() {
                let record = Record::of(&tokens, &self.pin);
                let undo = Undo::Restore(given_back.clone());
                let saved = locked.write(self, undo, move |store| store.save(&record)).await;
                let saved = match saved {
                    Err(error) => locked.unlocked(self).await.unwrap_or(Err(error)),
                    saved => saved,
                };
                if let Err(error) = saved {
                    // One that goes on is taken back when it lands.
                    if locked.is_free(self).is_ok() {
                        self.take_back(locked, given_back).await;
                    }
                    return Err(NotMade { error, may_be_made_again: false });
                }
            }
            // Look again: a logout that came meanwhile wins, and is settled with the locks.
            if is_over() {
                // What a person was asked for, the program does not have.
                let not_given_back = matches!(kind, Login::Again(_)).then_some(&*tokens);
                self.never_began(login, not_given_back);
                // It is cleared when the locks are left, if it can be.
                let error = Error::logged_out(Some(LogoutReason::Requested));
                return Err(NotMade { error, may_be_made_again: false });
            }
            // Fails where the store was read meanwhile and brought news: they are old now.
            let epoch = tokens.epoch;
            self.storm.forget();
            let ended = match kind {
                Login::Again(_) => None,
                Login::Anew | Login::Once(_) => Some(LogoutReason::Requested),
            };
            if self.state.log_in(tokens, ended).is_ok() {
                self.begin(epoch, LogoutReason::Requested);
                // The next login tries it again.
                let sweep = |kept: &Kept| {
                    kept.sweep();
                    Ok(())
                };
                let _ = self.store.beside(sweep).await;
                return Ok(());
            }
        }
    }

    pub(crate) fn unborn(&self) -> MutexGuard<'_, VecDeque<LoginId>> {
        self.unborn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a login writes over. Only what a newer version of the program wrote is left alone:
    /// this one can't tell what it would destroy. What can't be read is kept aside.
    async fn replaceable_record(&self, locked: &mut Locked) -> Result<Before, Error> {
        let before = self.store.read(Kept::load_to_replace).await?;
        let is_damaged = match &before {
            Before::Nobody | Before::Lost(_) => false,
            Before::Damaged => true,
            Before::Record(record) => {
                match record.read(&self.pin, self.state.epoch(), Moment::now()) {
                    Err(newer @ Unreadable::Newer(_)) => return Err(self.unreadable(newer)),
                    Err(Unreadable::Corrupt) => true,
                    Ok(_) | Err(Unreadable::OtherIssuer(_)) => false,
                }
            }
        };
        if is_damaged {
            locked.write(self, Undo::Nothing, Kept::set_aside).await?;
        }
        Ok(before)
    }
}

/// How a login came to be.
pub(super) enum Login {
    /// By the program.
    Anew,
    /// By the program, with a token that is taken once: its digest.
    Once(String),
    /// By a person who was asked in this epoch. It counts only while that lasts.
    Again(u64),
}

impl Login {
    /// The digest of a token that is taken once.
    fn once(&self) -> Option<&str> {
        match self {
            Self::Once(token) => Some(token),
            Self::Anew | Self::Again(_) => None,
        }
    }
}

struct Attempt {
    response: TokenResponse,
    login: Login,
    /// How many logouts there were when it began.
    logouts: u64,
    received: Moment,
}

/// Why there is no login.
struct NotMade {
    error: Error,
    /// Nothing of it was saved, and no logout beat it. What is taken back later says so itself.
    may_be_made_again: bool,
}

impl From<Error> for NotMade {
    /// Before anything was saved.
    fn from(error: Error) -> Self {
        Self { error, may_be_made_again: true }
    }
}

/// Logins that failed and might still turn up in the store: one or two on a bad day.
const UNBORN: usize = 16;
