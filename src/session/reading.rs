//! What the store says: read once at the start, and again where there may be news.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::Joined;
use crate::session::Core;
use crate::session::state::Phase;
use crate::store::{Record, StoreError, Unreadable};
use crate::token::Moment;

impl Core {
    /// Makes sure that it is known whether somebody is logged in.
    pub(crate) async fn know(self: &Arc<Self>) -> Result<(), Error> {
        let snapshot = self.state.get();
        match &snapshot.phase {
            Phase::LoggedIn(_) => Ok(()),
            Phase::Unknown => self.look().await,
            // Another program may have logged in.
            Phase::LoggedOut { .. } => self.look_again().await,
        }
    }

    /// Reads the store, unless that was done within the last second.
    pub(crate) async fn look_again(self: &Arc<Self>) -> Result<(), Error> {
        let last = *self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        match last {
            Some(last) if last.elapsed() < LOOK_INTERVAL => Ok(()),
            _ => self.look().await,
        }
    }

    /// Reads the store on the session's thread, once for everybody who wants it.
    async fn look(self: &Arc<Self>) -> Result<(), Error> {
        self.thread.guard()?;
        let joined = self.reading.join(
            || None::<()>,
            |landing| {
                let core = Arc::clone(self);
                // Where the thread can't start, the landing tells.
                let _ = self.thread.spawn(async move { landing.land(core.read_store().await) });
            },
        );
        match joined {
            Joined::Already(()) => Ok(()),
            Joined::Waiting(reading) => reading.wait().await,
        }
    }

    /// Reads the store and takes in what is newer. On the session's thread.
    pub(crate) async fn read_store(self: &Arc<Self>) -> Result<(), Error> {
        let from = self.state.epoch();
        let record = self.store.call(|store| store.load()).await?;
        *self.last_look.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.take_in(from, record)
    }

    fn take_in(&self, from: u64, record: Option<Record>) -> Result<(), Error> {
        let snapshot = self.state.get();
        if snapshot.epoch != from {
            // A login or a logout came meanwhile: what was read is older than that.
            return Ok(());
        }
        let Some(record) = record else {
            if let Phase::LoggedIn(_) = snapshot.phase {
                self.end(from, LogoutReason::LoggedOutElsewhere);
            }
            let _ = self.state.loaded(from, None);
            return Ok(());
        };
        let now = Moment::now();
        let mut tokens = (record.read(&self.pin, from, now)).map_err(|why| self.unreadable(why))?;
        match &snapshot.phase {
            Phase::Unknown => {
                let _ = self.state.loaded(from, Some(Arc::new(tokens)));
            }
            Phase::LoggedIn(current) if current.login == tokens.login => {
                let _ = self.state.advance(from, &Arc::new(tokens));
            }
            // The login that ended: its record is only not cleared yet.
            Phase::LoggedOut { login, .. } if login.as_ref() == Some(&tokens.login) => {}
            Phase::LoggedIn(_) | Phase::LoggedOut { .. } => {
                tokens.epoch = from + 1;
                if self.state.log_in(Arc::new(tokens)).is_ok() {
                    self.begin(
                        snapshot.is_logged_out().then_some(LogoutReason::LoggedOutElsewhere),
                    );
                }
            }
        }
        Ok(())
    }

    pub(crate) fn unreadable(&self, why: Unreadable) -> Error {
        let store = self.store.describe();
        match why {
            Unreadable::Corrupt => {
                let what = "its content is damaged: log in again, which replaces it";
                Error::store(&store, StoreError::corrupt(what))
            }
            Unreadable::Newer(version) => Error::configuration(format!(
                "{store} was written by a newer version of this program (format {version}): \
                 update this one, or give it another store"
            )),
            Unreadable::OtherIssuer(other) => Error::configuration(format!(
                "{store} belongs to another token endpoint or client ({other}): \
                 give this session another store, or log in again"
            )),
        }
    }
}

/// Often enough to see another program's login at once; seldom enough to cost nothing in a loop.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
