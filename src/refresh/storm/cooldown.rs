//! The wait after a refresh that failed for now.

use std::time::Duration;

use crate::error::Error;
use crate::token::Moment;

/// The last refresh that failed, while none has succeeded since.
#[derive(Default)]
pub(super) struct Cooldown(Option<Failed>);

struct Failed {
    /// Epoch and generation of the tokens whose refresh it was.
    of: (u64, u64),
    failures: u32,
    /// On both clocks: whichever comes first counts.
    until: Moment,
    error: Error,
}

impl Cooldown {
    /// A refresh of the tokens of that epoch and generation failed for now, after as many of other
    /// programs as are `known`. The error, with the wait until the next try.
    pub(super) fn failed_at(
        &mut self,
        now: Moment,
        of: (u64, u64),
        error: Error,
        known: u32,
    ) -> Error {
        let failures = match &self.0 {
            // It is noted already.
            Some(last) if last.error.is_same(&error) => return error,
            // Of the same login: a refresh may bring a new refresh token, and fail all the same.
            Some(last) if last.of.0 == of.0 => last.failures.saturating_add(1),
            _ => 0,
        };
        let failures = failures.max(known);
        let backoff = jitter((COOLDOWN_MIN * 2u32.saturating_pow(failures)).min(COOLDOWN_MAX));
        let wait = match error.retry_after() {
            // "At once" is said by servers that fail, and by a clock that is fast.
            Some(asked) => asked.max(backoff).max(COOLDOWN_MIN),
            None => backoff,
        };
        let error = error.with_retry_after(Some(wait));
        self.0 = Some(Failed { of, failures, until: now + wait, error: error.clone() });
        error
    }

    /// The failure that a refresh of those tokens is still cooling down from.
    pub(super) fn left_at(&self, now: Moment, of: (u64, u64)) -> Option<Error> {
        let last = self.0.as_ref().filter(|last| last.of == of && now.is_before(last.until))?;
        Some(last.error.clone().with_retry_after(Some(now.until(last.until))))
    }
}

/// Full jitter: many processes that failed together must not come back together.
fn jitter(cap: Duration) -> Duration {
    // Without randomness there is still the cap.
    let random = getrandom::u64().unwrap_or(u64::MAX);
    cap.mul_f64(random as f64 / u64::MAX as f64)
}

/// A blip is over in 200 ms; nobody wants to wait more than a minute for a server that is back.
const COOLDOWN_MIN: Duration = Duration::from_millis(200);
const COOLDOWN_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const OURS: (u64, u64) = (0, 1);
    const NEXT: (u64, u64) = (0, 2);

    #[test]
    fn failures_cool_down_for_200_ms_doubling_to_60_s_at_most_and_as_the_server_asks() {
        let (mut cooldown, now) = (Cooldown::default(), Moment::now());
        let mut cap = 200;
        for _ in 0..12 {
            let error = cooldown.failed_at(now, OURS, Error::timed_out(), 0);
            let wait = error.retry_after().unwrap();
            assert!(wait <= Duration::from_millis(cap), "{wait:?} of {cap} ms");
            cap = (cap * 2).min(60_000);
        }
        let waits = (0..50).map(|_| cooldown.failed_at(now, OURS, Error::timed_out(), 0));
        // That all are short by chance happens once in 60^50 times.
        assert!(waits.filter_map(|error| error.retry_after()).any(|wait| wait > SECOND));
        // What the server asks for is the least of it, "at once" is not believed.
        let told = |asked| {
            let (mut cooldown, error) = (Cooldown::default(), Error::timed_out());
            let error = error.with_retry_after(Some(asked));
            let wait = cooldown.failed_at(now, OURS, error, 0).retry_after();
            (cooldown, wait.unwrap())
        };
        assert_eq!(told(Duration::ZERO).1, Duration::from_millis(200));
        let (cooldown, wait) = told(7 * SECOND);
        assert_eq!(wait, 7 * SECOND);
        let left = |after| cooldown.left_at(now + after, OURS).map(|error| error.retry_after());
        assert_eq!(left(3 * SECOND), Some(Some(4 * SECOND)));
        assert_eq!(left(7 * SECOND), None);
        assert!(cooldown.left_at(now, NEXT).is_none(), "it is the refresh token's own");
        assert!(Cooldown::default().left_at(now, OURS).is_none());
    }

    #[test]
    fn a_cooldown_ends_by_the_clock_that_says_it_is_sooner() {
        let (mut cooldown, now) = (Cooldown::default(), Moment::now());
        let asked = Error::timed_out().with_retry_after(Some(3600 * SECOND));
        let _ = cooldown.failed_at(now, OURS, asked, 0);
        let left = |now| cooldown.left_at(now, OURS).and_then(|error| error.retry_after());
        // While the machine slept, only the wall clock went on.
        let asleep = |time| Moment { wall: now.wall + time, mono: now.mono + SECOND };
        assert_eq!(left(asleep(3599 * SECOND)), Some(SECOND));
        assert_eq!(left(asleep(3600 * SECOND)), None);
        // Set back by four hours: the other clock knows.
        let back = now.wall - 4 * 3600 * SECOND;
        let set_back = |time| Moment { wall: back, mono: now.mono + time };
        assert_eq!(left(set_back(3599 * SECOND)), Some(SECOND));
        assert_eq!(left(set_back(3600 * SECOND)), None);
    }

    #[test]
    fn failures_of_another_login_are_not_in_the_same_row() {
        let (mut cooldown, now) = (Cooldown::default(), Moment::now());
        let mut failures = |of, known| {
            let _ = cooldown.failed_at(now, of, Error::timed_out(), known);
            cooldown.0.as_ref().unwrap().failures
        };
        assert_eq!([failures(OURS, 0), failures(OURS, 0), failures(NEXT, 0)], [0, 1, 2]);
        const ANOTHER: (u64, u64) = (1, 0);
        assert_eq!([failures(ANOTHER, 0), failures(ANOTHER, 0)], [0, 1]);
        // More are known of other programs.
        assert_eq!([failures(ANOTHER, 7), failures(ANOTHER, 0)], [7, 8]);
    }

    #[test]
    fn a_failure_that_is_told_again_cools_down_again_unless_it_is_told_with_its_wait() {
        let (mut cooldown, now) = (Cooldown::default(), Moment::now());
        let trouble = Error::busy();
        for failures in 0..5 {
            let told = cooldown.failed_at(now, OURS, trouble.clone(), 0);
            assert!(told.retry_after().is_some());
            let same = cooldown.failed_at(now, OURS, told.clone(), 0);
            assert_eq!(same.retry_after(), told.retry_after());
            assert_eq!(cooldown.0.as_ref().unwrap().failures, failures);
        }
    }
}
