//! What a session tells the world: its events, its traces, the `on_logout` hook.

use std::error::Error as StdError;
use std::time::Duration;

use crate::error::Error;
use crate::event::{Event, LogoutReason};
use crate::session::{Core, Recovery};

impl Core {
    pub(crate) fn tell_logout(&self, reason: LogoutReason) {
        self.counters.logouts.count();
        self.emit(Event::LoggedOut(reason));
        if let Some(on_logout) = self.on_logout.clone() {
            self.thread.hook(move || on_logout(reason));
        }
    }

    pub(crate) fn note_withheld(&self, recovery: &Recovery) {
        if let Recovery::Withheld(wait) = recovery {
            self.counters.withheld.count();
            let (service, account) = (&self.service, &self.account);
            tracing::debug!(
                target: TARGET, service, account, retry_after_ms = millis(*wait),
                "refresh withheld"
            );
        }
    }

    pub(crate) fn tell_asked(&self) {
        let (service, account) = (&self.service, &self.account);
        tracing::info!(target: TARGET, service, account, "asking for a login");
    }

    pub(crate) fn tell_not_logged_in(&self, error: &Error) {
        let (service, account) = (&self.service, &self.account);
        let error = error as &dyn StdError;
        tracing::warn!(target: TARGET, service, account, error, "nobody has logged in");
    }

    /// New tokens are safe in the journal, and not in the store: the next refresh stores them.
    pub(crate) fn tell_kept(&self, error: &Error) {
        let (service, account) = (&self.service, &self.account);
        let error = error as &dyn StdError;
        tracing::warn!(
            target: TARGET, service, account, error, "new tokens are in the journal, not in the store"
        );
    }

    pub(crate) fn emit(&self, event: Event) {
        let (service, account) = (&self.service, &self.account);
        match &event {
            Event::LoggedIn => tracing::info!(target: TARGET, service, account, "logged in"),
            Event::LoggedOut(reason) => {
                tracing::info!(target: TARGET, service, account, %reason, "logged out");
            }
            Event::PersistFailed(error) => tracing::warn!(
                target: TARGET, service, account, error = error as &dyn StdError,
                "new tokens could not be stored"
            ),
            Event::Persisted => {
                tracing::info!(target: TARGET, service, account, "new tokens stored after all");
            }
            // Told with the refresh, or the caller's own.
            Event::Refreshed | Event::Adopted | Event::RefreshFailed(_) | Event::StepUpRequired => {
            }
        }
        // An error: nobody listens.
        let _ = self.events.send(event);
    }
}

/// How a refresh went, for the trace. Within its span.
pub(crate) struct Told {
    pub(crate) took: Duration,
    pub(crate) waiters: usize,
}

impl Told {
    pub(crate) fn refreshed(&self) {
        let (duration_ms, waiters) = (millis(self.took), self.waiters);
        tracing::debug!(target: TARGET, duration_ms, waiters, "refreshed");
    }

    pub(crate) fn adopted(&self) {
        let (duration_ms, waiters) = (millis(self.took), self.waiters);
        tracing::debug!(target: TARGET, duration_ms, waiters, "adopted");
    }

    pub(crate) fn failed(&self, error: &Error) {
        let (duration_ms, waiters) = (millis(self.took), self.waiters);
        let retry_after_ms = error.retry_after().map(millis);
        let error = error as &dyn StdError;
        tracing::warn!(
            target: TARGET, duration_ms, waiters, retry_after_ms, error, "refresh failed"
        );
    }
}

/// Tells how far a transaction has come, at TRACE level: `waiting` for the locks, `locked`, `read`,
/// `marked` (the token is sent next), `answered`, `journaled`, `saved`, `published`, `unlocked`.
/// Whoever stops the program in between stops it just there.
pub(crate) fn step(step: &'static str) {
    tracing::trace!(target: TARGET, step);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Under which name all that is traced is found.
pub(crate) const TARGET: &str = "reqwest_reauth";
