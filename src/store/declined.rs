//! What a person did not unlock when asked to: they are not asked again at once.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::store::StoreError;

/// Prompts that came to nothing, since the store was last read.
#[derive(Debug, Default)]
pub(crate) struct Declined {
    last: Option<(Error, Instant)>,
    wait: Duration,
}

impl Declined {
    /// What a call failed with, now.
    pub(super) fn note(&mut self, now: Instant, error: Error) -> Error {
        if !error.store_error().is_some_and(StoreError::is_declined) {
            return error;
        }
        self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.last = Some((error.clone(), now + self.wait));
        error.with_retry_after(Some(self.wait))
    }

    /// The error of the last prompt, where the next one should wait.
    pub(super) fn error_at(&self, now: Instant) -> Option<Error> {
        let (error, until) = self.last.as_ref()?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then(|| error.clone().with_retry_after(Some(left)))
    }

    /// The person wants to be asked.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// Who has said no by mistake does not wait long; who means it is hardly ever asked.
const WAIT_MIN: Duration = Duration::from_secs(15);
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_no_doubles_the_wait_up_to_five_minutes() {
        let (mut declined, now) = (Declined::default(), Instant::now());
        let locked = || Error::store("test", StoreError::locked("it is locked"));
        let seconds = Duration::from_secs;
        for wait in [15, 30, 60, 120, 240, 300, 300].map(seconds) {
            assert_eq!(declined.note(now, locked()).retry_after(), Some(wait));
            let left = |at| declined.error_at(at).and_then(|error| error.retry_after());
            assert_eq!(left(now + seconds(5)), Some(wait - seconds(5)));
            assert_eq!(left(now + wait), None);
        }
        declined.forget();
        assert!(declined.error_at(now).is_none());
        assert_eq!(declined.note(now, locked()).retry_after(), Some(WAIT_MAX));
        declined = Declined::default();
        assert!(declined.error_at(now).is_none());
        assert_eq!(declined.note(now, locked()).retry_after(), Some(WAIT_MIN));
        // One that hangs says nothing of the person, and one that asks nobody neither.
        let others = [StoreError::unavailable("it is hung"), StoreError::unasked("it is locked")];
        for other in others {
            assert_eq!(declined.note(now, Error::store("test", other)).retry_after(), None);
        }
        assert_eq!(declined.error_at(now).unwrap().retry_after(), Some(WAIT_MIN));
    }
}
