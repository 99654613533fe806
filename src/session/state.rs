//! What a session knows in memory: who is logged in, with which tokens.
//!
//! Readers take a snapshot without a lock. Writers take turns, and each change says which state
//! it was made from: what has become untrue meanwhile changes nothing. Within one login, memory
//! never goes back to an older generation.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::Known;
use crate::store::millis;
use crate::sync::Mutex;
use crate::token::{LoginId, Tokens};

pub(crate) struct State {
    snapshot: ArcSwap<Snapshot>,
    change: Mutex<()>,
    /// Wakes who waits for newer tokens of the same login.
    advanced: Notify,
}

/// One moment of a session.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Goes up with every login and logout, seen or made by this process. A request keeps to the
    /// epoch that it started in.
    pub(crate) epoch: u64,
    pub(crate) phase: Phase,
    /// Why the last session ended, for those who still ask for it.
    ended: Option<LogoutReason>,
    /// Whose session ended.
    last: Whose,
    /// What began in an epoch before this one does not go on in another: the user has ended it,
    /// here or elsewhere.
    pub(crate) over_before: u64,
}

impl Snapshot {
    pub(crate) fn is_logged_out(&self) -> bool {
        matches!(self.phase, Phase::LoggedOut(_))
    }

    /// The tokens, if somebody is known to be logged in.
    pub(crate) fn tokens(&self) -> Option<&Arc<Tokens>> {
        match &self.phase {
            Phase::LoggedIn(tokens) => Some(tokens),
            Phase::Unknown | Phase::LoggedOut(_) => None,
        }
    }

    /// The same epoch, a little later.
    fn with(&self, phase: Phase) -> Self {
        let (ended, last) = (self.ended, self.last.clone());
        Self { epoch: self.epoch, phase, ended, last, over_before: self.over_before }
    }

    /// Whose session this is or, where nobody is logged in, was.
    pub(crate) fn whose(&self) -> Whose {
        match &self.phase {
            Phase::LoggedIn(tokens) => Whose::of(tokens),
            Phase::Unknown | Phase::LoggedOut(_) => self.last.clone(),
        }
    }
}

/// Whose session it is, as far as the server has said.
#[derive(Clone, Debug)]
pub(crate) enum Whose {
    Nobody,
    Unknown,
    Subject(Arc<str>),
}

impl Whose {
    pub(crate) fn of(tokens: &Tokens) -> Self {
        tokens.subject.clone().map_or(Self::Unknown, Self::Subject)
    }

    /// Whether what was begun for it may go on with `tokens`.
    pub(crate) fn may_be(&self, tokens: &Tokens) -> bool {
        match self {
            Self::Nobody => true,
            Self::Unknown => false,
            Self::Subject(subject) => tokens.subject.as_ref() == Some(subject),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// The store has not been read yet.
    Unknown,
    LoggedIn(Arc<Tokens>),
    LoggedOut(Over),
}

/// Whose record counts for nothing, should the store still have it.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    /// There was none.
    Nobody,
    /// The login that ended, up to this generation: where the server refused its refresh token,
    /// newer ones may turn up.
    Login(LoginId, u64),
    /// Whoever it was: nobody could read the record when the user logged out.
    AllUntil(SystemTime),
}

impl Over {
    /// All of it.
    pub(crate) fn login(login: &LoginId) -> Self {
        Self::Login(login.clone(), u64::MAX)
    }

    pub(crate) fn covers(&self, tokens: &Tokens) -> bool {
        match self {
            Self::Nobody => false,
            Self::Login(login, until) => *login == tokens.login && tokens.generation <= *until,
            // A refresh doesn't make a login younger. One of the future: the clock was set back.
            Self::AllUntil(end) => {
                tokens.logged_in_at <= *end || tokens.logged_in_at > SystemTime::now()
            }
        }
    }

    /// The same, of a login whose record is lost. One of the same millisecond is taken for a later
    /// one: nobody has lost it by then.
    pub(crate) fn covers_lost(&self, known: &Known) -> bool {
        match self {
            Self::Nobody => false,
            Self::Login(login, _) => login.hash() == known.login,
            Self::AllUntil(end) => {
                known.since < millis(*end) || known.since > millis(SystemTime::now())
            }
        }
    }
}

/// The state has moved on: the session that a change or a caller belonged to is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended;

impl State {
    pub(crate) fn new() -> Self {
        let (phase, ended, last) = (Phase::Unknown, None, Whose::Nobody);
        let snapshot = Snapshot { epoch: 0, phase, ended, last, over_before: 0 };
        let (snapshot, advanced) = (ArcSwap::from_pointee(snapshot), Notify::new());
        Self { snapshot, change: Mutex::new(()), advanced }
    }

    pub(crate) fn get(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// As [`Self::get`], to be kept over an await.
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.get().epoch
    }

    /// The tokens, if somebody is known to be logged in.
    pub(crate) fn tokens(&self) -> Option<Arc<Tokens>> {
        self.get().tokens().cloned()
    }

    /// The error of a request whose session is over.
    pub(crate) fn logged_out(&self) -> Error {
        Error::logged_out(self.get().ended)
    }

    /// Why nobody is logged in.
    pub(crate) fn logout_reason(&self) -> Option<LogoutReason> {
        let snapshot = self.get();
        if snapshot.is_logged_out() { snapshot.ended } else { None }
    }

    /// A login, made here or found in the store: everything before it is over, and `ended` says
    /// why. `None`: a person was asked to log in again, and what was begun may go on. `tokens` carry
    /// the epoch that they begin, one after the one that it was decided in.
    pub(crate) fn log_in(
        &self,
        tokens: Arc<Tokens>,
        ended: Option<LogoutReason>,
    ) -> Result<(), Ended> {
        self.change(|now| {
            let epoch = tokens.epoch;
            if now.epoch + 1 != epoch {
                return Err(Ended);
            }
            let (ended, over_before) = match ended {
                Some(why) if !now.is_logged_out() && is_final(why) => (Some(why), epoch),
                Some(why) if !now.is_logged_out() => (Some(why), now.over_before),
                _ => (now.ended, now.over_before),
            };
            let (phase, last) = (Phase::LoggedIn(tokens), now.whose());
            Ok((Snapshot { epoch, phase, ended, last, over_before }, ()))
        })
    }

    /// What the first reading of the store brought: tokens, or none, and maybe why. The epoch
    /// stays: nothing has happened.
    pub(crate) fn loaded(
        &self,
        from: u64,
        tokens: Result<Arc<Tokens>, Option<LogoutReason>>,
    ) -> Result<(), Ended> {
        self.change(|now| {
            if now.epoch != from || !matches!(now.phase, Phase::Unknown) {
                return Err(Ended);
            }
            let (phase, ended) = match tokens {
                Ok(tokens) => (Phase::LoggedIn(tokens), None),
                Err(why) => (Phase::LoggedOut(Over::Nobody), why),
            };
            let (last, over_before) = (now.whose(), now.over_before);
            Ok((Snapshot { epoch: from, phase, ended, last, over_before }, ()))
        })
    }

    /// Newer tokens of the login of `epoch`. Older ones change nothing; the ones that are
    /// current afterwards are returned.
    pub(crate) fn advance(&self, epoch: u64, tokens: &Arc<Tokens>) -> Result<Arc<Tokens>, Ended> {
        let newest = self.change(|now| match &now.phase {
            Phase::LoggedIn(current) if now.epoch == epoch => {
                let newest = if tokens.supersede(current) { tokens } else { current };
                let phase = Phase::LoggedIn(Arc::clone(newest));
                Ok((now.with(phase), Arc::clone(newest)))
            }
            _ => Err(Ended),
        })?;
        if Arc::ptr_eq(&newest, tokens) {
            self.advanced.notify_waiters();
        }
        Ok(newest)
    }

    /// Waits for newer tokens of the same login, from this call on.
    pub(crate) fn advanced(&self) -> impl Future<Output = ()> {
        self.advanced.notified()
    }

    /// The end of the session of `epoch`. `Err` if it is over already: then somebody else has
    /// told the user.
    pub(crate) fn end(&self, epoch: u64, reason: LogoutReason) -> Result<(), Ended> {
        self.change(|now| match &now.phase {
            Phase::LoggedIn(tokens) if now.epoch == epoch => {
                let until = if is_final(reason) { u64::MAX } else { tokens.generation };
                let phase = Phase::LoggedOut(Over::Login(tokens.login.clone(), until));
                let over_before = if is_final(reason) { epoch + 2 } else { now.over_before };
                let (ended, last) = (Some(reason), now.whose());
                Ok((Snapshot { epoch: epoch + 1, phase, ended, last, over_before }, ()))
            }
            _ => Err(Ended),
        })
    }

    /// A logout by the user, whatever the state is. What is over by it, and with which tokens.
    pub(crate) fn log_out(&self, at: SystemTime) -> (Over, Option<Arc<Tokens>>) {
        let logout = self.change(|now| {
            let requested = Some(LogoutReason::Requested);
            let (over, tokens, ended) = match &now.phase {
                Phase::LoggedIn(tokens) => {
                    (Over::login(&tokens.login), Some(Arc::clone(tokens)), requested)
                }
                Phase::Unknown => (Over::AllUntil(at), None, requested),
                // By now another program may have logged in.
                Phase::LoggedOut(_) => (Over::AllUntil(at), None, now.ended),
            };
            let phase = Phase::LoggedOut(over.clone());
            let (epoch, last) = (now.epoch + 1, now.whose());
            // Nor does what begins now, until somebody logs in.
            let over_before = epoch + 1;
            let next = Snapshot { epoch, phase, ended, last, over_before };
            Ok((next, (over, tokens)))
        });
        logout.unwrap_or((Over::Nobody, None))
    }

    /// It is known by now which login ended.
    pub(crate) fn name_over(&self, login: &LoginId) {
        let _ = self.change(|now| match &now.phase {
            Phase::LoggedOut(Over::AllUntil(_)) => {
                Ok((now.with(Phase::LoggedOut(Over::login(login))), ()))
            }
            _ => Err(Ended),
        });
    }

    fn change<T>(
        &self,
        next: impl FnOnce(&Snapshot) -> Result<(Snapshot, T), Ended>,
    ) -> Result<T, Ended> {
        // A poisoned lock guards nothing that could be half done.
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, result) = next(&self.get())?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(result)
    }
}

/// Whether the user has ended it, and not the server.
fn is_final(reason: LogoutReason) -> bool {
    match reason {
        LogoutReason::Requested | LogoutReason::LoggedOutElsewhere => true,
        LogoutReason::Revoked | LogoutReason::RotationLost | LogoutReason::RefreshTokenExpired => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Birth, Identity, Moment, TokenResponse};

    fn tokens(login: &str, epoch: u64) -> Arc<Tokens> {
        let login = LoginId(login.to_owned());
        let identity = Identity { login, epoch, generation: 0, birth: Birth::Login, key: None };
        let response = TokenResponse::new("at").refresh_token("rt");
        Arc::new(Tokens::received(&response, None, identity, Moment::now()))
    }

    #[test]
    fn a_logout_covers_a_lost_login_that_it_names_or_that_began_before() {
        let login = LoginId("lost".to_owned());
        let now = SystemTime::now();
        let known = |since| Known { login: login.hash(), client: String::new(), since };
        let at = |hours: i64| millis(now).checked_add_signed(hours * 3_600_000).unwrap();
        let all = |since| Over::AllUntil(now).covers_lost(&known(since));
        assert!(all(0) && all(at(-1)) && all(millis(now) - 1));
        assert!(!all(millis(now)), "it may have begun after that");
        // The clock was set back since.
        assert!(all(at(1)));
        let before = Over::AllUntil(now - std::time::Duration::from_secs(7200));
        assert!(before.covers_lost(&known(at(-3))) && !before.covers_lost(&known(at(-1))));
        assert!(Over::login(&login).covers_lost(&known(at(-1))));
        assert!(!Over::login(&LoginId("another".to_owned())).covers_lost(&known(0)));
        assert!(!Over::Nobody.covers_lost(&known(0)));
    }

    #[test]
    fn a_logout_covers_no_login_that_began_after_it_whatever_the_clock_does_later() {
        let hour = std::time::Duration::from_secs(3600);
        let now = SystemTime::now();
        let mut refreshed = Arc::into_inner(tokens("any", 1)).unwrap();
        // Before the clock was set back.
        refreshed.received = None;
        let over = Over::AllUntil(now - hour * 2);
        let began = [(now - hour * 3, true), (now - hour, false), (now + hour, true)];
        for (logged_in_at, covered) in began {
            refreshed.logged_in_at = logged_in_at;
            assert_eq!(over.covers(&refreshed), covered);
        }
    }

    #[test]
    fn who_still_asks_for_an_earlier_login_is_told_how_that_ended() {
        let state = State::new();
        state.log_in(tokens("first", 1), Some(LogoutReason::Requested)).unwrap();
        state.end(1, LogoutReason::Revoked).unwrap();
        state.log_in(tokens("second", 3), Some(LogoutReason::Requested)).unwrap();
        assert_eq!(state.logged_out().logout_reason(), Some(LogoutReason::Revoked));
        // The server has refused its token, and another program has logged in since.
        state.log_in(tokens("third", 4), Some(LogoutReason::RotationLost)).unwrap();
        assert_eq!(state.logged_out().logout_reason(), Some(LogoutReason::RotationLost));
        assert_eq!(state.logout_reason(), None, "somebody is logged in");
    }

    #[test]
    fn what_belongs_to_an_earlier_login_changes_nothing() {
        let state = State::new();
        state.log_in(tokens("first", 1), Some(LogoutReason::Requested)).unwrap();
        state.log_in(tokens("second", 2), Some(LogoutReason::Requested)).unwrap();
        assert_eq!(state.advance(1, &tokens("first", 1)).map(drop), Err(Ended));
        assert_eq!(state.end(1, LogoutReason::Revoked), Err(Ended));
        assert_eq!(state.tokens().unwrap().login, LoginId("second".to_owned()));
    }

    #[test]
    fn only_what_the_user_has_ended_is_over_for_those_who_wait() {
        let state = State::new();
        state.log_in(tokens("first", 1), Some(LogoutReason::Requested)).unwrap();
        state.end(1, LogoutReason::Revoked).unwrap();
        assert_eq!(state.now().over_before, 1, "they may wait for a person");
        state.log_in(tokens("second", 3), None).unwrap();
        state.end(3, LogoutReason::LoggedOutElsewhere).unwrap();
        assert_eq!(state.now().over_before, 5, "and so are those who come now");
        state.log_in(tokens("third", 5), Some(LogoutReason::LoggedOutElsewhere)).unwrap();
        state.log_in(tokens("fourth", 6), Some(LogoutReason::Requested)).unwrap();
        assert_eq!(state.now().over_before, 6);
    }

    #[test]
    fn a_logout_of_an_unknown_login_covers_that_one_alone_once_it_is_known() {
        let state = State::new();
        let _ = state.log_out(SystemTime::now() + std::time::Duration::from_secs(60));
        let covers = |login| match &state.now().phase {
            Phase::LoggedOut(over) => over.covers(&tokens(login, 1)),
            phase => panic!("{phase:?}"),
        };
        assert!(covers("first") && covers("second"));
        state.name_over(&LoginId("first".to_owned()));
        assert!(covers("first") && !covers("second"));
    }
}
