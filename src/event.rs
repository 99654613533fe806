//! What happens to a session, for programs that want to watch.

use std::fmt;

use tokio::sync::broadcast;

use crate::error::Error;

/// Something that happened to a session. Never holds a token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A login was stored, by this program or by another one that shares the store.
    LoggedIn,
    /// The access token was refreshed.
    Refreshed,
    /// Another program had refreshed it: its tokens are in use.
    Adopted,
    /// A refresh failed; the session lives on.
    RefreshFailed(Error),
    /// The session ended.
    LoggedOut(LogoutReason),
    /// New tokens could be made durable nowhere, neither in the store nor, where there is one, in
    /// the journal. They are in use from memory, saving goes on being tried,
    /// and no other refresh is made meanwhile: if the program ends before the store works again,
    /// the session may be lost.
    PersistFailed(Error),
    /// New tokens could be made durable after all.
    Persisted,
    /// A server wants a stronger login for one resource (RFC 9470); its response carries
    /// [`StepUpRequired`](crate::StepUpRequired).
    StepUpRequired,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogoutReason {
    /// [`Session::log_out`](crate::Session::log_out) was called, or another login replaced it.
    Requested,
    /// The server revoked the refresh token (`invalid_grant`, RFC 6749 §5.2).
    Revoked,
    /// The server doesn't know the refresh token any more because the answer to an earlier
    /// refresh was lost on its way, or may have been: the last one was sent more than once.
    RotationLost,
    /// The refresh token's lifetime, as told by the server, was over.
    RefreshTokenExpired,
    /// The session is gone from the store: another program logged out, or logged in, and then its
    /// tokens are in use already ([`is_logged_in`](crate::Session::is_logged_in) tells).
    LoggedOutElsewhere,
}

impl fmt::Display for LogoutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requested => "as requested",
            Self::Revoked => "the server revoked the session",
            Self::RotationLost => "the answer to a refresh was lost and the server moved on",
            Self::RefreshTokenExpired => "the refresh token expired",
            Self::LoggedOutElsewhere => "another program logged out or logged in",
        })
    }
}

/// The events of a session from now on, from [`Session::events`](crate::Session::events).
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the session is gone.
    ///
    /// A reader that falls more than 64 events behind misses the oldest ones.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            match self.0.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

pub(crate) fn channel() -> broadcast::Sender<Event> {
    broadcast::Sender::new(CAPACITY)
}

/// A session has a few events an hour; a program that sleeps through 64 has missed a bad day.
const CAPACITY: usize = 64;
