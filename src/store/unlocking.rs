//! What is known of the person who is asked to unlock the store: whether a prompt stands, and when
//! there may be another one.

use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::error::Error;
use crate::store::StoreError;

/// Of one session's store.
#[derive(Default)]
pub(super) struct Unlocking {
    hanging: Option<Hanging>,
    /// The last read that was given up has ended, and no call was given up since.
    is_over: bool,
    declined: Declined,
}

/// A read that was given up and goes on.
pub(super) struct Hanging {
    pub(super) end: oneshot::Receiver<Unlock>,
    /// How long it may be that a person is still looking at its prompt.
    stands_until: Instant,
}

/// What became of a read that was given up.
pub(super) enum Unlock {
    /// Whatever it came to, another one may be made.
    Over,
    /// The person did not unlock the store, at that time.
    Declined(Instant, Error),
}

impl Unlocking {
    /// A call was given up.
    pub(super) fn given_up(&mut self) {
        self.is_over = false;
    }

    /// A read was given up, and goes on.
    pub(super) fn hangs(&mut self, now: Instant, end: oneshot::Receiver<Unlock>) {
        self.hanging = Some(Hanging { end, stands_until: now + PERSON });
    }

    /// The store was read.
    pub(super) fn read(&mut self) {
        self.declined = Declined::default();
    }

    /// A call has failed. An error that a no is the reason of says when there may be another prompt.
    pub(super) fn failed(&mut self, now: Instant, error: Error) -> Error {
        self.declined.note(now, error)
    }

    /// How the read has ended that was given up.
    pub(super) fn ended(&mut self, end: Unlock) {
        match end {
            Unlock::Over => self.is_over = true,
            Unlock::Declined(at, error) => drop(self.declined.note(at, error)),
        }
    }

    /// The read that hangs, for who waits for its end.
    pub(super) fn take(&mut self) -> Option<Hanging> {
        self.hanging.take()
    }

    pub(super) fn put_back(&mut self, hanging: Hanging) {
        self.hanging = Some(hanging);
    }

    /// Whether a read hangs, as far as it is known.
    pub(super) fn is_hanging(&mut self) -> bool {
        if let Some(end) = self.hanging.as_mut().and_then(Hanging::ended) {
            self.hanging = None;
            self.ended(end);
        }
        self.hanging.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether a prompt may still stand.
    pub(super) fn stands(&mut self, now: Instant) -> bool {
        self.is_hanging() && self.hanging.as_ref().is_some_and(|read| now < read.stands_until)
    }

    /// The error of the last prompt, where the next one should wait.
    pub(super) fn declined(&self, now: Instant) -> Option<Error> {
        self.declined.error_at(now)
    }

    /// The person wants to be asked.
    pub(super) fn may_ask_again(&mut self) {
        // What was said until now is of the past.
        self.is_hanging();
        self.declined.forget();
    }
}

impl Hanging {
    /// How it has ended, where it has. Not to be asked again after that.
    pub(super) fn ended(&mut self) -> Option<Unlock> {
        match self.end.try_recv() {
            Ok(end) => Some(end),
            Err(TryRecvError::Closed) => Some(Unlock::Over),
            Err(TryRecvError::Empty) => None,
        }
    }
}

/// A person has to find the window, and the password.
pub(super) const PERSON: Duration = Duration::from_secs(120);

/// Prompts that came to nothing, since the store was last read.
#[derive(Debug, Default)]
struct Declined {
    last: Option<(Error, Instant)>,
    wait: Duration,
}

impl Declined {
    /// What a call failed with, now.
    fn note(&mut self, now: Instant, error: Error) -> Error {
        if !error.store_error().is_some_and(StoreError::is_declined) {
            return error;
        }
        self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.last = Some((error.clone(), now + self.wait));
        error.with_retry_after(Some(self.wait))
    }

    /// The error of the last prompt, where the next one should wait.
    fn error_at(&self, now: Instant) -> Option<Error> {
        let (error, until) = self.last.as_ref()?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then(|| error.clone().with_retry_after(Some(left)))
    }

    fn forget(&mut self) {
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
    fn a_prompt_stands_until_its_read_has_ended_and_for_two_minutes_at_most() {
        let (mut unlocking, now) = (Unlocking::default(), Instant::now());
        let (_ends, end) = oneshot::channel();
        unlocking.hangs(now, end);
        assert!(unlocking.stands(now) && !unlocking.stands(now + PERSON));
        assert!(unlocking.is_hanging());
        let (ends, end) = oneshot::channel();
        unlocking.hangs(now, end);
        assert!(unlocking.stands(now) && !unlocking.is_over());
        assert!(ends.send(Unlock::Over).is_ok());
        assert!(!unlocking.stands(now) && unlocking.is_over());
        unlocking.given_up();
        assert!(!unlocking.is_over());
    }

    #[test]
    fn a_no_counts_from_when_it_was_said() {
        let (mut unlocking, said) = (Unlocking::default(), Instant::now());
        let (ends, end) = oneshot::channel();
        unlocking.hangs(said, end);
        let locked = Error::store("test", StoreError::locked("it is locked"));
        assert!(ends.send(Unlock::Declined(said, locked)).is_ok());
        assert!(!unlocking.is_hanging() && !unlocking.is_over());
        let wait = |now| unlocking.declined(now).and_then(|error| error.retry_after());
        let passed = Duration::from_secs(5);
        assert_eq!(wait(said + passed), Some(WAIT_MIN - passed));
        assert_eq!(wait(said + WAIT_MIN), None);
    }

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
