//! What a session knows in memory: who is logged in, with which tokens.
//!
//! Readers take a snapshot without a lock. Writers take turns, and each change says which state
//! it was made from: what has become untrue meanwhile changes nothing. Within one login, memory
//! never goes back to an older generation.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::error::Error;
use crate::event::LogoutReason;
use crate::token::{LoginId, Tokens};

pub(crate) struct State {
    snapshot: ArcSwap<Snapshot>,
    change: Mutex<()>,
}

/// One moment of a session.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Goes up with every login and logout, seen or made by this process. A request keeps to the
    /// epoch that it started in.
    pub(crate) epoch: u64,
    pub(crate) phase: Phase,
}

impl Snapshot {
    pub(crate) fn is_logged_out(&self) -> bool {
        matches!(self.phase, Phase::LoggedOut { .. })
    }
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// The store has not been read yet.
    Unknown,
    LoggedIn(Arc<Tokens>),
    LoggedOut {
        reason: Option<LogoutReason>,
        /// The login that ended. Its record counts for nothing, should the store still have it.
        login: Option<LoginId>,
    },
}

/// The state has moved on: the session that a change or a caller belonged to is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended;

impl State {
    pub(crate) fn new() -> Self {
        let phase = Phase::Unknown;
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot { epoch: 0, phase }),
            change: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.get().epoch
    }

    /// The tokens, if somebody is known to be logged in.
    pub(crate) fn tokens(&self) -> Option<Arc<Tokens>> {
        match &self.get().phase {
            Phase::LoggedIn(tokens) => Some(Arc::clone(tokens)),
            _ => None,
        }
    }

    /// The error of a request whose session is over.
    pub(crate) fn logged_out(&self) -> Error {
        Error::logged_out(match &self.get().phase {
            Phase::LoggedOut { reason, .. } => *reason,
            // Another login took its place.
            Phase::LoggedIn(_) => Some(LogoutReason::Requested),
            Phase::Unknown => None,
        })
    }

    /// A login, made here or found in the store: everything before it is over. `tokens` carry
    /// the epoch that they begin, one after the epoch that it was decided in.
    pub(crate) fn log_in(&self, tokens: Arc<Tokens>) -> Result<(), Ended> {
        self.change(|now| {
            if now.epoch + 1 != tokens.epoch {
                return Err(Ended);
            }
            Ok((tokens.epoch, Phase::LoggedIn(tokens), ()))
        })
    }

    /// What the first reading of the store brought. The epoch stays: nothing has happened.
    pub(crate) fn loaded(&self, from: u64, tokens: Option<Arc<Tokens>>) -> Result<(), Ended> {
        self.change(|now| {
            if now.epoch != from || !matches!(now.phase, Phase::Unknown) {
                return Err(Ended);
            }
            let phase =
                tokens.map_or(Phase::LoggedOut { reason: None, login: None }, Phase::LoggedIn);
            Ok((now.epoch, phase, ()))
        })
    }

    /// Newer tokens of the login of `epoch`. Older ones change nothing; the ones that are
    /// current afterwards are returned.
    pub(crate) fn advance(&self, epoch: u64, tokens: &Arc<Tokens>) -> Result<Arc<Tokens>, Ended> {
        self.change(|now| match &now.phase {
            Phase::LoggedIn(current) if now.epoch == epoch => {
                let newest = if tokens.supersede(current) { tokens } else { current };
                let newest = Arc::clone(newest);
                Ok((epoch, Phase::LoggedIn(Arc::clone(&newest)), newest))
            }
            _ => Err(Ended),
        })
    }

    /// The end of the session of `epoch`. `Err` if it is over already: then somebody else has
    /// told the user.
    pub(crate) fn end(&self, epoch: u64, reason: LogoutReason) -> Result<Arc<Tokens>, Ended> {
        self.change(|now| match &now.phase {
            Phase::LoggedIn(tokens) if now.epoch == epoch => {
                let phase =
                    Phase::LoggedOut { reason: Some(reason), login: Some(tokens.login.clone()) };
                Ok((epoch + 1, phase, Arc::clone(tokens)))
            }
            _ => Err(Ended),
        })
    }

    /// A logout by the user, whatever the state is. The tokens that were in use, if any.
    pub(crate) fn log_out(&self) -> Option<Arc<Tokens>> {
        let ended = self.change(|now| {
            let tokens = match &now.phase {
                Phase::LoggedIn(tokens) => Some(Arc::clone(tokens)),
                _ => None,
            };
            let login = match &now.phase {
                Phase::LoggedOut { login, .. } => login.clone(),
                _ => tokens.as_ref().map(|tokens| tokens.login.clone()),
            };
            let phase = Phase::LoggedOut { reason: Some(LogoutReason::Requested), login };
            Ok((now.epoch + 1, phase, tokens))
        });
        ended.unwrap_or(None)
    }

    fn change<T>(
        &self,
        next: impl FnOnce(&Snapshot) -> Result<(u64, Phase, T), Ended>,
    ) -> Result<T, Ended> {
        // A poisoned lock guards nothing that could be half done.
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, phase, result) = next(&self.get())?;
        self.snapshot.store(Arc::new(Snapshot { epoch, phase }));
        Ok(result)
    }
}
