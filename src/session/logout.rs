//! The end of a session by the user's wish: local first and for sure, the server after.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::event::LogoutReason;
use crate::refresh::{Locked, within};
use crate::session::Core;
use crate::session::state::Phase;
use crate::token::RefreshToken;

/// What [`Session::log_out`](crate::Session::log_out) did at the server. On this machine the
/// user is logged out in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// The server has revoked the refresh token (RFC 7009).
    Revoked,
    /// There was nothing to revoke, or the endpoint can't.
    Nothing,
    /// The server could not be reached, or refused: it may think that the session lives on.
    Failed,
    /// A refresh is under way: it ends with the revocation of what it brings, and with the
    /// clearing of the store. [`Session::drain`](crate::Session::drain) waits for it.
    Pending,
}

/// What is to be revoked once nobody can bring a newer token any more.
#[derive(Debug, Default)]
pub(crate) enum Revoking {
    #[default]
    Nothing,
    Due(RefreshToken),
    Done(Revocation),
}

impl Core {
    /// On the session's thread.
    pub(crate) async fn log_out(self: &Arc<Self>) -> Result<Revocation, Error> {
        let entered = self.thread.enter();
        if let Phase::Unknown = self.state.get().phase {
            // Only to know what to revoke.
            let _ = self.read_store().await;
        }
        self.logouts.fetch_add(1, Ordering::SeqCst);
        let ended = self.state.log_out();
        self.refreshing.abandon(Error::logged_out(Some(LogoutReason::Requested)));
        let refresh_token = ended.as_ref().and_then(|tokens| tokens.refresh.clone());
        *self.revoking() = refresh_token.map_or(Revoking::Nothing, Revoking::Due);
        if ended.is_some() {
            self.tell_logout(LogoutReason::Requested);
        }
        // A refresh that holds the locks settles it in our place, with the newest token.
        let Ok(mut locked) = Locked::wait(self, LOCK_WAIT).await else {
            return Ok(Revocation::Pending);
        };
        let cleared = self.store.call(|store| store.clear()).await;
        let revocation = self.revoke(&mut locked).await;
        drop(entered);
        cleared.map(|()| revocation)
    }

    /// Ends what a logout began while somebody else held the locks. `newest` is a refresh token
    /// that came after it.
    pub(crate) async fn settle_logout(&self, locked: &mut Locked, newest: Option<RefreshToken>) {
        let requested = match &self.state.get().phase {
            Phase::LoggedOut { reason, .. } => *reason == Some(LogoutReason::Requested),
            _ => false,
        };
        // Otherwise somebody else lives on with these tokens, or with others in the store.
        if requested {
            if let Some(newest) = newest {
                *self.revoking() = Revoking::Due(newest);
            }
            // If this fails, the record counts for nothing: its login is over.
            let _ = self.store.call(|store| store.clear()).await;
            self.revoke(locked).await;
        }
    }

    async fn revoke(&self, locked: &mut Locked) -> Revocation {
        let due = std::mem::take(&mut *self.revoking());
        let revocation = match due {
            Revoking::Nothing => Revocation::Nothing,
            Revoking::Done(revocation) => revocation,
            Revoking::Due(token) => match locked.http() {
                Ok(http) => match within(REVOKE, self.endpoint.revoke(&http, &token)).await {
                    Some(Ok(true)) => Revocation::Revoked,
                    Some(Ok(false)) => Revocation::Nothing,
                    Some(Err(_)) | None => Revocation::Failed,
                },
                Err(_) => Revocation::Failed,
            },
        };
        *self.revoking() = Revoking::Done(revocation);
        revocation
    }

    fn revoking(&self) -> std::sync::MutexGuard<'_, Revoking> {
        self.revoking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A person waits for a logout; the refresh that is in the way will settle it.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Best effort: the user is logged out here already.
const REVOKE: Duration = Duration::from_secs(5);
