//! When an access token ends, as far as this machine's clocks can tell.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime};

/// Both clocks at one instant: the wall clock is what may be stored, the monotonic one is what
/// nobody can set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) wall: SystemTime,
    pub(crate) mono: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { wall: SystemTime::now(), mono: Instant::now() }
    }

    /// Whether both clocks say that `end` is still to come: the monotonic one may stand still while
    /// the machine sleeps, and the other one can be set back.
    pub(crate) fn is_before(self, end: Self) -> bool {
        self.wall < end.wall && self.mono < end.mono
    }

    /// How long until `end`, by the clock that says it is sooner.
    pub(crate) fn until(self, end: Self) -> Duration {
        let wall = end.wall.duration_since(self.wall).unwrap_or_default();
        wall.min(end.mono.saturating_duration_since(self.mono))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self { wall: self.wall + time, mono: self.mono + time }
    }
}

/// How much longer an access token will do, as far as this machine can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Freshness {
    /// Use it. Also what a token of unknown lifetime is, until a 401 says otherwise.
    Fresh,
    /// Use it, and refresh in the background.
    Leeway,
    /// Refresh first.
    Expired,
}

/// When an access token ends, on both clocks: whichever comes first counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    pub(crate) at: Moment,
    /// From when on it is refreshed ahead.
    ahead: Moment,
}

impl Expiry {
    /// The expiry of a token received just now.
    pub(crate) fn after(lifetime: Duration, received: Moment) -> Self {
        Self::new(received + lifetime, leeway(lifetime), received)
    }

    /// The expiry of a token that was received at `received`, perhaps by another process, and
    /// read from the store now.
    pub(crate) fn restored(at: SystemTime, received: SystemTime, now: Moment) -> Self {
        let lifetime = at.duration_since(received).unwrap_or_default().min(LIFETIME_MAX);
        // A clock that was set back since must not make the token live longer than it does.
        let left = at.duration_since(now.wall).unwrap_or_default().min(lifetime);
        Self::new(Moment { wall: at, mono: now.mono + left }, leeway(lifetime), now)
    }

    fn new(at: Moment, leeway: Duration, now: Moment) -> Self {
        let ahead = Moment {
            // checked: what lies before the clock's own beginning has begun by now
            wall: at.wall.checked_sub(leeway).unwrap_or(now.wall),
            mono: at.mono.checked_sub(leeway).unwrap_or(now.mono),
        };
        Self { at, ahead }
    }

    pub(crate) fn freshness_at(&self, now: Moment) -> Freshness {
        if now.is_before(self.ahead) {
            Freshness::Fresh
        } else if now.is_before(self.at) {
            Freshness::Leeway
        } else {
            Freshness::Expired
        }
    }

    /// How long until the leeway begins, by the clock that says it is sooner.
    pub(crate) fn leeway_in(&self, now: Moment) -> Duration {
        now.until(self.ahead)
    }
}

/// A fifth of the lifetime. A second at least, as some servers count in whole ones and end a token
/// up to one early; but never more than half.
fn leeway(lifetime: Duration) -> Duration {
    (lifetime / 5).max(LEEWAY_MIN.min(lifetime / 2)).min(LEEWAY_MAX)
}

/// Ten years: some servers say "never" with a number that no clock can be added to.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const LEEWAY_MIN: Duration = Duration::from_secs(1);

/// Long enough for a slow refresh to end before the token does.
const LEEWAY_MAX: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leeway_is_a_fifth_of_the_lifetime_within_bounds() {
        let start = Moment::now();
        for (lifetime, leeway) in
            [(1_000, 500), (3_000, 1_000), (60_000, 12_000), (7_200_000, 300_000)]
        {
            let expiry = Expiry::after(Duration::from_millis(lifetime), start);
            let at = |ms: u64| expiry.freshness_at(later(start, ms));
            assert_eq!(at(lifetime - leeway - 1), Freshness::Fresh, "{lifetime}");
            assert_eq!(at(lifetime - leeway), Freshness::Leeway, "{lifetime}");
            assert_eq!(at(lifetime - 1), Freshness::Leeway, "{lifetime}");
            assert_eq!(at(lifetime), Freshness::Expired, "{lifetime}");
        }
    }

    #[test]
    fn the_earlier_of_both_clocks_decides() {
        let start = Moment::now();
        let expiry = Expiry::after(Duration::from_secs(3600), start);
        let asleep = Moment {
            wall: start.wall + Duration::from_secs(4000),
            mono: start.mono + Duration::from_secs(10),
        };
        assert_eq!(expiry.freshness_at(asleep), Freshness::Expired);
        let set_back = Moment {
            wall: start.wall - Duration::from_secs(4 * 3600),
            mono: start.mono + Duration::from_secs(3600),
        };
        assert_eq!(expiry.freshness_at(set_back), Freshness::Expired);
    }

    #[test]
    fn each_clock_ends_it_at_its_moment() {
        let start = Moment::now();
        let expiry = Expiry::after(Duration::from_secs(100), start);
        for (seconds, before, then) in [
            (80, Freshness::Fresh, Freshness::Leeway),
            (100, Freshness::Leeway, Freshness::Expired),
        ] {
            let (just, there) = (later(start, seconds * 1000 - 1), later(start, seconds * 1000));
            assert_eq!(expiry.freshness_at(just), before);
            assert_eq!(expiry.freshness_at(Moment { wall: there.wall, ..just }), then);
            assert_eq!(expiry.freshness_at(Moment { mono: there.mono, ..just }), then);
        }
    }

    #[test]
    fn a_restored_token_never_outlives_its_lifetime_when_the_clock_was_set_back() {
        let now = Moment::now();
        let received = now.wall + Duration::from_secs(4 * 3600);
        let expiry = Expiry::restored(received + Duration::from_secs(60), received, now);
        assert_eq!(expiry.freshness_at(now), Freshness::Fresh);
        assert_eq!(expiry.freshness_at(later(now, 60_000)), Freshness::Expired);
    }

    #[test]
    fn never_is_in_ten_years() {
        assert_eq!(LIFETIME_MAX.as_secs(), 315_360_000);
    }

    fn later(from: Moment, ms: u64) -> Moment {
        from + Duration::from_millis(ms)
    }
}
