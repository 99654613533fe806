//! What the store says: read once at the start, and again where there may be news.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::{Joined, JournalKey, Locked};
use crate::session::Core;
use crate::session::state::Phase;
use crate::store::{Kept, Loaded, Patience, Record, StoreError, Unreadable};
use crate::token::{Birth, Freshness, Moment, Tokens};

impl Core {
    /// Makes sure that it is known whether somebody is logged in.
    pub(crate) async fn know(self: &Arc<Self>) -> Result<(), Error> {
        let snapshot = self.state.now();
        match &snapshot.phase {
            Phase::LoggedIn(_) => Ok(()),
            Phase::Unknown => self.look().await,
            // Another program may have logged in. No news is as good as an answer: it is known
            // that nobody is.
            Phase::LoggedOut(_) => {
                let _ = self.look_again().await;
                Ok(())
            }
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

    /// Reads the store before anybody waits for it. One that fails is read again when somebody
    /// does.
    pub(crate) fn look_ahead(self: &Arc<Self>) {
        if matches!(self.state.now().phase, Phase::Unknown) {
            drop(self.start_to_look());
        }
    }

    /// Reads the store if nobody is known to be logged in. For the session's own thread, where the
    /// others would take it for an endpoint's code.
    pub(crate) async fn look_for_a_login(self: &Arc<Self>) {
        if !matches!(self.state.now().phase, Phase::LoggedIn(_)) {
            self.look_for_news().await;
        }
    }

    /// Reads the store. For the session's own thread, as well.
    pub(super) async fn look_for_news(self: &Arc<Self>) {
        if let Joined::Waiting(reading) = self.start_to_look() {
            // The store may fail for now: it is read again the next time.
            let _ = reading.wait().await;
        }
    }

    async fn look(self: &Arc<Self>) -> Result<(), Error> {
        self.thread.guard()?;
        match self.start_to_look() {
            Joined::Already(()) => Ok(()),
            Joined::Waiting(reading) => reading.wait().await,
        }
    }

    /// Reads the store on the session's thread, once for everybody who wants it.
    fn start_to_look(self: &Arc<Self>) -> Joined<(), ()> {
        self.reading.join(
            (0, 0),
            || None::<()>,
            |landing| {
                let core = Arc::clone(self);
                if let Err(error) = self.thread.start() {
                    return landing.land(Err(error));
                }
                let _ = self.thread.spawn(async move {
                    // The store failed at the time; it may work by now. What needs no store waits
                    // with it.
                    if core.is_settling_due() && core.store.put_off().await.is_none() {
                        let _ = core.finish_logout(0, core.thread.enter(), Patience::None).await;
                    }
                    landing.land(core.read_unless_declined().await);
                });
            },
        )
    }

    /// Reads the store and takes in what is newer. On the session's thread, under the locks: a
    /// logout that somebody left half done is settled with them.
    pub(crate) async fn read_store_locked(
        self: &Arc<Self>,
        locked: &mut Locked,
    ) -> Result<Stored, Error> {
        let loaded = self.load(self.store.read(Kept::load)).await;
        // When to try again is the transaction's affair.
        let (asked, loaded) = loaded.map_err(|error| error.with_retry_after(None))?;
        if let Loaded::Out(_) | Loaded::Refused(_) = &loaded {
            // What is left of it goes; but once it is told that nobody is logged in, the program
            // may end.
            locked.enter(self)?;
        }
        let (stored, out) = self.learn(&asked, loaded)?;
        if let Some(tokens) = out {
            self.logged_out_elsewhere(&tokens);
        }
        Ok(stored)
    }

    /// Reads the store, unless a person is asked to unlock it, or has just not done so, and would
    /// be asked once more.
    async fn read_unless_declined(&self) -> Result<(), Error> {
        // Only who knows nothing yet waits for a person.
        let waits = matches!(self.state.now().phase, Phase::Unknown);
        let put_off = match waits {
            true => self.put_off_patiently().await,
            false => self.store.put_off().await,
        };
        if let Some(error) = put_off {
            self.looked(Instant::now());
            return Err(error);
        }
        match waits {
            true => self.read_store(self.store.read_patiently(Kept::load)).await,
            false => self.read_store(self.store.read(Kept::load)).await,
        }
    }

    async fn read_store(
        &self,
        loaded: impl Future<Output = Result<Loaded, Error>>,
    ) -> Result<(), Error> {
        let (asked, loaded) = self.load(loaded).await?;
        let _ = self.learn(&asked, loaded)?;
        let snapshot = self.state.now();
        if snapshot.is_logged_out() {
            // A refresh under way would find it out, some time.
            self.refreshing.abandon_before(snapshot.epoch, self.state.logged_out());
        }
        Ok(())
    }

    /// What the store says, and when it was asked.
    async fn load(
        &self,
        loaded: impl Future<Output = Result<Loaded, Error>>,
    ) -> Result<(Asked, Loaded), Error> {
        let asked = Asked { from: self.state.epoch(), at: Instant::now() };
        // One that hangs is not asked again at once.
        let loaded = loaded.await.inspect_err(|_| self.looked(Instant::now()))?;
        Ok((asked, loaded))
    }

    /// Takes in what the store said. The tokens, if any, are of a login that is over, and still
    /// in it.
    fn learn(&self, asked: &Asked, loaded: Loaded) -> Result<(Stored, Option<Tokens>), Error> {
        let learned = self.learn_of(asked.from, loaded);
        // Not before: until then, who asks has to wait for it.
        self.looked(asked.at);
        learned
    }

    fn looked(&self, at: Instant) {
        *self.last_look.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    fn learn_of(&self, from: u64, loaded: Loaded) -> Result<(Stored, Option<Tokens>), Error> {
        if self.state.epoch() != from {
            // A login or a logout came meanwhile: what was read is older than that.
            return Ok((Stored::default(), None));
        }
        match loaded {
            Loaded::Login { record, ahead } => {
                let tokens = self.read_record(&record, from)?;
                let key = tokens.key.clone();
                self.take_in(from, tokens);
                Ok((Stored { ahead, key, refused: None }, None))
            }
            Loaded::Nobody => {
                self.nobody(from, None);
                Ok((Stored::default(), None))
            }
            Loaded::Out(record) => {
                self.nobody(from, None);
                // One that can't be read has nothing to revoke.
                Ok((Stored::default(), self.read_record(&record, from).ok()))
            }
            Loaded::Refused(reason) => {
                self.nobody(from, Some(reason));
                Ok((Stored { refused: Some(reason), ..Stored::default() }, None))
            }
        }
    }

    fn read_record(&self, record: &Record, epoch: u64) -> Result<Tokens, Error> {
        record.read(&self.pin, epoch, Moment::now()).map_err(|why| self.unreadable(why))
    }

    /// Whether what failed with `error` is worth another try, since a person has unlocked the
    /// store meanwhile. Not for who holds the locks: nobody else should wait for that person.
    pub(crate) async fn is_unlocked_after(&self, error: &Error) -> bool {
        error.store_error().is_some_and(StoreError::is_no_answer) && self.store.is_unlocked().await
    }

    /// Why the store is not read for now, once the person who is asked has answered, or has not done
    /// so for a while. Not for who holds the locks.
    pub(crate) async fn put_off_patiently(&self) -> Option<Error> {
        let error = self.store.put_off().await?;
        self.is_unlocked_after(&error).await;
        self.store.put_off().await
    }

    /// Nobody is logged in any more, by the store; because of `why`, where that is noted.
    fn nobody(&self, from: u64, why: Option<LogoutReason>) {
        if let Some(tokens) = self.state.tokens() {
            self.end(from, why.unwrap_or_else(|| ended_by(&tokens)));
        }
        let _ = self.state.loaded(from, Err(why));
    }

    fn take_in(&self, from: u64, mut tokens: Tokens) {
        let snapshot = self.state.now();
        if tokens.generation == 0 && self.unborn().contains(&tokens.login) {
            // Our own, which says itself when it begins; unless another program goes on with it.
            return;
        }
        match &snapshot.phase {
            Phase::Unknown => {
                if tokens.birth == Birth::Refresh {
                    tokens.birth = Birth::Loaded;
                }
                let _ = self.state.loaded(from, Ok(Arc::new(tokens)));
            }
            Phase::LoggedIn(current) if current.login == tokens.login => {
                let tokens = Arc::new(tokens);
                let newest = self.state.advance(from, &tokens);
                if newest.is_ok_and(|newest| Arc::ptr_eq(&newest, &tokens))
                    && tokens.freshness_at(Moment::now()) != Freshness::Expired
                {
                    // Another program's refresh has succeeded.
                    self.storm.calm();
                }
            }
            // It is only not cleared yet.
            Phase::LoggedOut(over) if over.covers(&tokens) => {}
            Phase::LoggedIn(_) | Phase::LoggedOut(_) => {
                tokens.epoch = from + 1;
                self.storm.forget();
                let reason = match &snapshot.phase {
                    Phase::LoggedIn(before) => ended_by(before),
                    _ => LogoutReason::LoggedOutElsewhere,
                };
                if self.state.log_in(Arc::new(tokens), Some(reason)).is_ok() {
                    if !snapshot.is_logged_out() {
                        self.tell_logout(reason);
                    }
                    self.begin(from + 1, reason);
                }
            }
        }
    }

    pub(crate) fn unreadable(&self, why: Unreadable) -> Error {
        let store = self.store.describe();
        match why {
            Unreadable::Corrupt => {
                let what =
                    "its content is damaged: log in again, which keeps the damaged one aside";
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

/// Why the session of these tokens is over, where the store has no more of it: the server may have
/// ended it before.
fn ended_by(tokens: &Tokens) -> LogoutReason {
    tokens.rejected.get().copied().unwrap_or(LogoutReason::LoggedOutElsewhere)
}

/// When the store was asked: in which epoch, and at what time.
struct Asked {
    from: u64,
    at: Instant,
}

/// What a transaction has to know of what the store said.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Stored {
    /// The journal is newer than the store.
    pub(crate) ahead: bool,
    /// The record's key for the journal.
    pub(crate) key: Option<JournalKey>,
    /// The record is there, and the server has refused its refresh token for good.
    pub(crate) refused: Option<LogoutReason>,
}

/// Often enough to see another program's login at once; seldom enough to cost nothing in a loop.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::core::tests::with_next;

    const HOUR: Duration = Duration::from_secs(3600);

    /// How long is waited after a failure that follows many, and then a look at a store with newer
    /// tokens.
    async fn wait_after(generation: u64, lifetime: Duration) -> Duration {
        let (session, before, read) = with_next(generation, Some(lifetime)).await;
        let core = session.core();
        let failed = |known| core.storm.failed_at(Moment::now(), &before, Error::busy(), known);
        let _ = failed(20);
        core.take_in(before.epoch, read);
        failed(0).retry_after().unwrap()
    }

    #[tokio::test]
    async fn another_programs_refresh_that_succeeded_ends_the_row_of_failures() {
        let mut at_most = [Duration::ZERO; 3];
        // With full jitter up to a minute, all of five are short by chance once in 300^5 times.
        for _ in 0..5 {
            let read = [(1, HOUR), (0, HOUR), (1, Duration::ZERO)];
            for (at_most, (generation, lifetime)) in at_most.iter_mut().zip(read) {
                *at_most = wait_after(generation, lifetime).await.max(*at_most);
            }
        }
        let [newer, not_newer, ended] = at_most.map(|wait| wait > Duration::from_millis(200));
        assert_eq!((newer, not_newer, ended), (false, true, true));
    }
}
