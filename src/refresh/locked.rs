//! The locks of a transaction, held: the gate within the process, then the process lock.
//!
//! Everything that sends a refresh token or writes to the store needs them, and whoever leaves
//! settles what came up meanwhile: the logouts that had to wait, and a write to the store that
//! was given up and goes on. Until that is over, nobody else gets in.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::endpoint::RefreshError;
use crate::error::Error;
use crate::lock::Held;
use crate::refresh::{LOCK_WAIT, client, within};
use crate::session::{Core, Entered, GivenBack, step};
use crate::store::{Kept, LateWrite, StoreError};
use crate::token::Tokens;

/// What only one transaction at a time may touch: a refresh, a login or a logout.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    http: Option<reqwest::Client>,
}

pub(crate) struct Locked {
    pub(crate) gate: OwnedMutexGuard<Gate>,
    /// Shared with the write that is going on.
    process: Arc<Held>,
    /// While this is set, the end of the program waits.
    entered: Option<Entered>,
    late: Option<(LateWrite, Undo)>,
    /// The journal's, which goes on likewise.
    late_note: Option<LateWrite>,
    /// The new tokens that are being stored.
    tokens: Option<Arc<Tokens>>,
    /// What logouts had left to do was tried under these locks.
    pub(crate) settled: bool,
}

/// What to do about a write that lands after it was given up.
#[derive(Debug)]
pub(crate) enum Undo {
    Nothing,
    /// It is a login that was given back: put back what was there before.
    Restore(GivenBack),
}

impl Locked {
    /// Waits for the turn of a refresh or a login, as long as the program allows.
    pub(crate) async fn wait_in_line(core: &Core) -> Result<Self, Error> {
        // Whoever in this program has the gate may be as long.
        Self::wait(core, core.lock.limit().max(LOCK_WAIT)).await
    }

    pub(crate) async fn wait(core: &Core, limit: Duration) -> Result<Self, Error> {
        // Where the store holds everything up, that is the news, and long waits are pointless.
        let limit = if core.trouble().is_some() { limit.min(TROUBLE_WAIT) } else { limit };
        let gate = within(limit, Arc::clone(&core.gate).lock_owned()).await;
        let gate = gate.ok_or_else(|| core.trouble().unwrap_or_else(Error::busy))?;
        let process = core.lock.acquire(limit).await?;
        Ok(Self {
            gate,
            process: Arc::new(process),
            entered: None,
            late: None,
            late_note: None,
            tokens: None,
            settled: false,
        })
    }

    /// From here on until the locks are left, the end of the program waits.
    pub(crate) fn enter(&mut self, core: &Core) -> Result<(), Error> {
        let closing = || Error::internal("the session is closing", None);
        self.entered = Some(core.thread.enter().ok_or_else(closing)?);
        Ok(())
    }

    /// What is left to do may take for ever: the end of the program waits only a little longer.
    pub(crate) fn give_up_soon(&self) {
        if let Some(entered) = &self.entered {
            entered.give_up_soon();
        }
    }

    /// The client for token requests, made at the first one.
    pub(crate) fn http(&mut self, core: &Core) -> Result<reqwest::Client, RefreshError> {
        if let Some(http) = &self.gate.http {
            return Ok(http.clone());
        }
        let builder = reqwest::Client::builder();
        let builder = match &core.token_client {
            Some(configure) => configure(builder),
            None => builder,
        };
        let http = client(builder).build()?;
        Ok(self.gate.http.insert(http).clone())
    }

    /// Writes to the store. The locks stay held until the call returns, however late that is: the
    /// one between processes even where the session is dropped before.
    pub(crate) async fn write<T: Send + 'static>(
        &mut self,
        core: &Core,
        undo: Undo,
        call: impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        let call = self.holding(call);
        core.store.write(call).await.map_err(|(error, late)| {
            if let Some(late) = late {
                core.set_trouble(Some(error.clone()));
                self.late = Some((late, undo));
            }
            error
        })
    }

    /// As [`write`](Self::write), for the journal beside the store: it does not wait for the store,
    /// which may hang. `false` also where it failed, or one that was given up goes on.
    pub(crate) async fn note(
        &mut self,
        core: &Core,
        call: impl FnOnce(&Kept) -> Result<bool, StoreError> + Send + 'static,
    ) -> bool {
        if let Some(late) = &mut self.late_note {
            if !late.is_over().await {
                return false;
            }
            self.late_note = None;
        }
        match core.store.write_beside(self.holding(call)).await {
            Ok(done) => done,
            Err((error, late)) => {
                if late.is_some() {
                    core.set_trouble(Some(error));
                    self.late_note = late;
                }
                false
            }
        }
    }

    /// What became of the write that was given up, once a person has unlocked the store for it.
    /// `None` where there is none, or it goes on: nobody is asked, or nobody comes. Whoever else
    /// waits for the locks could not have them before it is over in any case.
    pub(crate) async fn unlocked(&mut self, core: &Core) -> Option<Result<(), Error>> {
        self.late.as_ref()?;
        self.give_up_soon();
        let (late, _) = self.late.as_mut()?;
        let result = core.store.unlocked_for(late).await?;
        self.late = None;
        core.set_trouble(None);
        Some(result)
    }

    /// `call`, which keeps the process lock until it returns, whoever still waits for it.
    pub(crate) fn holding<T, F>(
        &self,
        call: F,
    ) -> impl FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Kept) -> Result<T, StoreError> + Send + 'static,
    {
        let process = Arc::clone(&self.process);
        move |kept| {
            let _held = process;
            call(kept)
        }
    }

    /// # Errors
    /// A write to the store goes on that was given up: another one would have to wait for it.
    pub(crate) fn is_free(&self, core: &Core) -> Result<(), Error> {
        match &self.late {
            Some(_) => Err(core.trouble().unwrap_or_else(Error::busy)),
            None => Ok(()),
        }
    }

    /// The new tokens that are about to be stored.
    pub(crate) fn brings(&mut self, tokens: &Arc<Tokens>) {
        self.tokens = Some(Arc::clone(tokens));
    }

    /// Settles what came up meanwhile, and unlocks.
    pub(crate) fn leave(mut self, core: &Arc<Core>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let core = Arc::clone(core);
        Box::pin(async move {
            let late_note = || self.late_note.take().map(|late| (late, Undo::Nothing));
            let Some((late, undo)) = self.late.take().or_else(late_note) else {
                if !self.settled {
                    // What fails here stays due for the next one who gets the locks.
                    let _ = core.settle(&mut self).await;
                }
                if self.late.is_some() {
                    return self.leave(&core).await;
                }
                core.set_trouble(None);
                drop(self);
                step("unlocked");
                return;
            };
            // Nothing is settled before that is over: it may bring back what would be cleared.
            self.settled = false;
            if self.entered.is_none() {
                self.entered = core.thread.enter();
            }
            self.give_up_soon();
            let goes_on = Arc::clone(&core);
            // Where no thread can be had, the session is closing.
            let _ = core.thread.spawn(async move {
                late.over().await;
                // Look again: much may have happened since it was begun.
                if let Some(tokens) = self.tokens.clone()
                    && goes_on.is_out(&tokens.login).await
                {
                    goes_on.logged_out_elsewhere(&tokens);
                }
                // Whatever it has come to: a save that failed may have been done all the same.
                if let Undo::Restore(login) = undo {
                    goes_on.take_back(&mut self, login).await;
                }
                self.leave(&goes_on).await;
            });
        })
    }
}

/// A store that answers again does so at once; nobody should stand before a hung one.
const TROUBLE_WAIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::OAuth2Endpoint;
    use crate::session::Session;
    use crate::store::FileStore;

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_as_long_as_the_program_was_told_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let session = |lock_wait| {
            let endpoint = OAuth2Endpoint::new("https://id.example/token", "test");
            let builder = Session::builder("test", endpoint).origin("https://api.example");
            let builder = builder.store(FileStore::new(directory.path().join("tokens")));
            builder.lock_wait(lock_wait).build().unwrap()
        };
        let other = session(LOCK_WAIT);
        let _held = other.core().lock.acquire(LOCK_WAIT).await.unwrap();
        for lock_wait in [1, 300].map(Duration::from_secs) {
            let begun = tokio::time::Instant::now();
            let error = Locked::wait_in_line(session(lock_wait).core()).await.err().unwrap();
            assert!(error.is_transient(), "{error:?}");
            assert_eq!(begun.elapsed().as_secs(), lock_wait.as_secs());
        }
    }
}
