//! A login that was told as failed, its tokens given back, though it may be in the store: it is undone.

use std::sync::{Arc, MutexGuard, PoisonError};

use crate::error::Error;
use crate::refresh::{Locked, Undo};
use crate::session::Core;
use crate::store::{Before, Kept, StoreError};
use crate::token::LoginId;

/// A login that could not be stored, with what there was before it.
#[derive(Clone, Debug)]
pub(crate) struct GivenBack {
    pub(super) login: LoginId,
    pub(super) before: Arc<Before>,
    /// Of a token that is taken once: its digest.
    pub(super) once: Option<String>,
}

impl GivenBack {
    /// Takes it out of the store, whether it got there or not.
    fn take_back(&self, kept: &Kept) -> Result<(), StoreError> {
        kept.take_back(&self.login, &self.before)
    }
}

impl Core {
    /// A save that failed may have been done all the same: what was there before shall be there.
    pub(crate) async fn take_back(&self, locked: &mut Locked, login: GivenBack) {
        let failed = login.clone();
        let take_back = move |kept: &Kept| {
            failed.take_back(kept)?;
            // The locks were held since: its token was sent nowhere, and may be taken again.
            failed.once.as_deref().map_or(Ok(()), |once| kept.forget_imported(once))
        };
        if self.put_right(locked, take_back).await.is_err() {
            self.not_taken_back(login);
        }
    }

    /// A login that failed, and may be in the store: what was there before takes its place.
    pub(crate) fn not_taken_back(&self, login: GivenBack) {
        self.failed().push(login);
    }

    /// Takes out of the store what logins that failed may have left there. What they replaced is
    /// not refreshed before.
    pub(crate) async fn take_back_failed(&self, locked: &mut Locked) -> Result<(), Error> {
        let failed = self.failed().clone();
        if failed.is_empty() {
            return Ok(());
        }
        let logins = failed.clone();
        // The last one first: each may have taken the place of the one before.
        let take_back =
            move |kept: &Kept| logins.iter().rev().try_for_each(|login| login.take_back(kept));
        self.put_right(locked, take_back).await?;
        self.failed().drain(..failed.len());
        // One that is still there is another program's, by now.
        self.unborn().retain(|unborn| failed.iter().all(|failed| failed.login != *unborn));
        Ok(())
    }

    /// Writes where the store can be read: a person is asked by a read, which goes on by itself
    /// where it takes long, and not by a write, for which everybody would wait.
    async fn put_right(
        &self,
        locked: &mut Locked,
        call: impl FnOnce(&Kept) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), Error> {
        match self.read_to_clear().await {
            Err(error) if error.is_transient() => Err(error),
            // One that is damaged is what is to be put right.
            Ok(_) | Err(_) => locked.write(self, Undo::Nothing, call).await,
        }
    }

    /// What a login that failed has left must not be found at the next start by a user who has
    /// logged out.
    pub(super) async fn note_out_failed(&self) {
        let failed = self.failed().clone();
        let note_out =
            move |kept: &Kept| failed.iter().try_for_each(|failed| kept.note_out(&failed.login));
        // Where it can't be noted, the logout says that the store could not be cleared.
        let _ = self.store.beside(note_out).await;
    }

    pub(super) fn failed(&self) -> MutexGuard<'_, Vec<GivenBack>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
