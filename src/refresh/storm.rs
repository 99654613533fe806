//! When a refresh is held back, so that a bad day is not made worse.
//!
//! Four rules, all counted per session and forgotten at a login:
//!
//! 1. **Refusals.** An origin that refused the token of a refresh made for it is remembered, for
//!    10 s, doubling to 5 min: 401s on paths that were never accepted there lead to no refresh.
//! 2. **Interval.** A 401 on a token just born of a refresh is not cured by the next one: at an
//!    origin that never accepted it, or where the refresh was itself a trial, made for a 401 on a
//!    path that was never accepted.
//! 3. **Budget.** 5 refreshes in 30 s, of those that no expiry explains.
//! 4. **Cooldown.** After a refresh that failed for now: what the server asked for, else 200 ms,
//!    doubling to 60 s, with full jitter.
//!
//! A path that was accepted is exempt from the first two: some tokens live two seconds and don't
//! say so. It is exempt from the first alone where it has refused a token just born as well: there,
//! some requests get a 401 whatever they carry. A token whose known lifetime is over is exempt from
//! the first three. Under the first rule, one 401 for each token that is not just born is believed
//! at other paths of an origin that had accepted it: the paths of an API with ids in them are never
//! the same.

mod cooldown;
use cooldown::Cooldown;
mod place;
pub(crate) use place::Place;
use place::PlaceSet;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::token::{Birth, Moment, Tokens};

pub(crate) struct Storm {
    min_refresh_interval: Duration,
    accepted: Box<[PlaceSet]>,
    /// Whether there is anything that a success could mend.
    has_doubts: AtomicBool,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    refusals: Vec<Refusal>,
    /// The tokens (by epoch and generation) that a refresh was to bring for the sake of places that
    /// were never accepted, and those of these places that have not been since.
    trial: (u64, u64),
    on_trial: HashSet<Place>,
    /// The tokens that were refreshed although a refusal was remembered.
    probed: Option<(u64, u64)>,
    /// Where a replay was refused since the login, [`SUSPECTS`] at most.
    suspects: HashSet<Place>,
    counted: VecDeque<Instant>,
    cooldown: Cooldown,
}

impl Memory {
    /// How much longer 401s at `origin` lead to no refresh, where a new token was refused.
    fn refusal_at(&self, now: Moment, origin: usize) -> Option<Duration> {
        let refusal = self.refusals.iter().find(|refusal| refusal.place.origin == origin)?;
        now.is_before(refusal.until).then(|| now.until(refusal.until))
    }

    /// Whether a 401 may tell of the token's end all the same: the origin has accepted it, and
    /// the place has refused no new one. Once for each token.
    fn may_probe(&self, tokens: &Tokens, place: Place) -> bool {
        tokens.accepted_by(place.origin)
            && self.probed != Some(tokens.version())
            && !self.suspects.contains(&place)
    }

    /// Whether a refresh because of a 401 on `tokens` counts: no expiry explains it.
    fn counts_at(&self, now: Instant, tokens: &Tokens, place: Option<Place>) -> bool {
        match (&tokens.expiry, place) {
            (Some(expiry), _) => now < expiry.at.mono,
            (None, Some(place)) => {
                !tokens.accepted_by(place.origin) || self.suspects.contains(&place)
            }
            (None, None) => true,
        }
    }
}

struct Refusal {
    place: Place,
    times: u32,
    /// On both clocks: whichever comes first counts.
    until: Moment,
}

impl Storm {
    pub(crate) fn new(origins: usize, min_refresh_interval: Duration) -> Self {
        Self {
            min_refresh_interval,
            accepted: (0..origins).map(|_| PlaceSet::new()).collect(),
            has_doubts: AtomicBool::new(false),
            memory: Mutex::default(),
        }
    }

    /// How long a refresh is held back that a 401 on `tokens` at `place` asks for. A place is
    /// unknown where the 401 was not over HTTP.
    pub(crate) fn withheld_at(
        &self,
        now: Moment,
        tokens: &Tokens,
        place: Option<Place>,
    ) -> Option<Duration> {
        let mut memory = self.memory();
        let age = tokens.received.map(|received| now.mono.saturating_duration_since(received));
        // How much longer the token is just born of a refresh.
        let young = age
            .and_then(|age| self.min_refresh_interval.checked_sub(age))
            .filter(|left| !left.is_zero() && tokens.birth == Birth::Refresh);
        let place_accepted = place.is_some_and(|place| self.path_accepted(place));
        let is_suspect = || place.is_some_and(|place| memory.suspects.contains(&place));
        if !place_accepted {
            if let Some(place) = place
                && let Some(left) = memory.refusal_at(now, place.origin)
                && (young.is_some() || !memory.may_probe(tokens, place))
            {
                return Some(left);
            }
            let accepted = place.is_some_and(|place| {
                let on_trial = memory.trial == tokens.version()
                    && memory.on_trial.iter().any(|of| of.origin == place.origin);
                tokens.accepted_by(place.origin) && !on_trial
            });
            if let Some(young) = young
                && !accepted
            {
                return Some(young);
            }
        } else if let Some(young) = young
            && is_suspect()
        {
            return Some(young);
        }
        if !memory.counts_at(now.mono, tokens, place) {
            return None;
        }
        let left = |made: &Instant| {
            BUDGET_WINDOW.saturating_sub(now.mono.saturating_duration_since(*made))
        };
        while memory.counted.front().is_some_and(|made| left(made).is_zero()) {
            memory.counted.pop_front();
        }
        memory.counted.front().filter(|_| memory.counted.len() >= BUDGET).map(left)
    }

    /// A refresh of `refused` is about to be made because of a 401 at `place`.
    pub(crate) fn tries(&self, refused: &Tokens, place: Place) {
        if self.path_accepted(place) {
            return;
        }
        self.try_out((refused.epoch, refused.generation + 1), place);
    }

    /// `tokens` came in place of some that were refused at `place`, and no replay will tell whether
    /// they are accepted there: the next request does.
    pub(crate) fn untold(&self, now: Moment, tokens: &Tokens, place: Place) {
        if !is_young(now, now, tokens) {
            return;
        }
        if let Some(places) = self.accepted.get(place.origin) {
            places.remove(place);
        }
        self.try_out(tokens.version(), place);
    }

    /// Waits for what `place` says to the tokens of that epoch and generation.
    fn try_out(&self, trial: (u64, u64), place: Place) {
        let mut memory = self.memory();
        if trial < memory.trial {
            // These tokens are not the newest any more.
            return;
        }
        if memory.trial != trial {
            memory.trial = trial;
            memory.on_trial.clear();
        }
        if memory.on_trial.len() < SUSPECTS {
            memory.on_trial.insert(place);
        }
        if self.doubts(place) {
            memory.on_trial.remove(&place);
        }
    }

    /// A refresh of `refused` begins, because of a 401 at `place`.
    pub(crate) fn refreshes_at(&self, now: Moment, refused: &Tokens, place: Option<Place>) {
        let mut memory = self.memory();
        if let Some(place) = place
            && memory.refusal_at(now, place.origin).is_some()
        {
            memory.probed = Some(refused.version());
        }
    }

    /// A refresh was made because of a 401 on `tokens` at `place`.
    pub(crate) fn refreshed_at(&self, now: Moment, tokens: &Tokens, place: Option<Place>) {
        let mut memory = self.memory();
        if memory.counts_at(now.mono, tokens, place) {
            memory.counted.push_back(now.mono);
        }
    }

    /// A response that only an accepted token gets. The usual case is an atomic load each.
    pub(crate) fn accepted(&self, tokens: &Tokens, place: Place) {
        tokens.set_accepted_by(place.origin);
        let Some(places) = self.accepted.get(place.origin) else {
            return;
        };
        if !places.insert(place) {
            return;
        }
        fence(Ordering::SeqCst);
        if self.has_doubts.load(Ordering::Relaxed) {
            let mut memory = self.memory();
            memory.refusals.retain(|refusal| refusal.place != place);
            memory.on_trial.remove(&place);
            let doubts = !memory.refusals.is_empty() || !memory.on_trial.is_empty();
            self.has_doubts.store(doubts, Ordering::Relaxed);
        }
    }

    /// A replay at `place` got an answer that is no refusal, whatever it says: that the place refuses
    /// each token can no longer be.
    pub(crate) fn tried(&self, place: Place) {
        if self.has_doubts.load(Ordering::Relaxed) {
            self.memory().on_trial.remove(&place);
        }
    }

    /// The replay with `tokens`, which a refresh had just brought when it was `sent`, has been
    /// refused at `place`.
    pub(crate) fn refused_at(&self, now: Moment, sent: Moment, tokens: &Tokens, place: Place) {
        if !is_young(now, sent, tokens) {
            // It may have ended by itself.
            return;
        }
        if let Some(places) = self.accepted.get(place.origin) {
            places.remove(place);
        }
        let mut memory = self.memory();
        if memory.suspects.len() < SUSPECTS {
            memory.suspects.insert(place);
        }
        // The trial is over for this place.
        memory.on_trial.remove(&place);
        let old = memory.refusals.iter().position(|r| r.place.origin == place.origin);
        let times = match old.map(|at| memory.refusals.swap_remove(at)) {
            // One of many that were sent at the same time.
            Some(refusal) if now.is_before(refusal.until) => return memory.refusals.push(refusal),
            // A bad day is over at some time.
            Some(refusal) if now.is_before(refusal.until + REFUSAL_MAX) => refusal.times + 1,
            Some(_) | None => 0,
        };
        let wait = (REFUSAL_MIN * 2u32.saturating_pow(times)).min(REFUSAL_MAX);
        let until = now + wait;
        if !self.doubts(place) {
            memory.refusals.push(Refusal { place, times, until });
        }
    }

    /// A refresh of `tokens` failed for now, after as many of other programs as are `known`. The
    /// error, with the wait until the next try.
    pub(crate) fn failed_at(
        &self,
        now: Moment,
        tokens: &Tokens,
        error: Error,
        known: u32,
    ) -> Error {
        let mut memory = self.memory();
        let of = tokens.version();
        // It has put nothing to the test.
        memory.probed.take_if(|probed| *probed == of);
        memory.cooldown.failed_at(now, of, error, known)
    }

    /// How far apart refreshes are that nobody's request asks for.
    pub(crate) fn interval(&self) -> Duration {
        self.min_refresh_interval
    }

    /// The failure that a refresh of `tokens` is still cooling down from.
    pub(crate) fn cooling_at(&self, now: Moment, tokens: &Tokens) -> Option<Error> {
        self.memory().cooldown.left_at(now, tokens.version())
    }

    /// A refresh succeeded: the trouble is over.
    pub(crate) fn calm(&self) {
        self.memory().cooldown = Cooldown::default();
    }

    /// A new login starts with a clean slate.
    pub(crate) fn forget(&self) {
        *self.memory() = Memory::default();
        self.has_doubts.store(false, Ordering::Relaxed);
        self.accepted.iter().for_each(PlaceSet::clear);
    }

    /// From here on a success at `place` looks for what it can mend. Whether there was one just now,
    /// when it could not know: it and this each write before they read what the other one writes.
    fn doubts(&self, place: Place) -> bool {
        self.has_doubts.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.path_accepted(place)
    }

    fn path_accepted(&self, place: Place) -> bool {
        self.accepted.get(place.origin).is_some_and(|places| places.contains(place))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `tokens` were too new to have ended by themselves when they were `sent`. How long the
/// answer took doesn't count: a server that always refuses may be slow to do so.
fn is_young(now: Moment, sent: Moment, tokens: &Tokens) -> bool {
    let age = tokens.received.map(|received| sent.mono.saturating_duration_since(received));
    let ended = tokens.expiry.is_some_and(|expiry| expiry.at.mono <= now.mono);
    !ended && age.is_some_and(|age| age < YOUNG)
}

/// Long enough that an endpoint that always refuses costs next to nothing, short enough that a
/// server's own cache of keys and revocations has caught up.
const REFUSAL_MIN: Duration = Duration::from_secs(10);
const REFUSAL_MAX: Duration = Duration::from_secs(5 * 60);

/// A token that is refused within this time was never good there; a server that lets tokens end
/// sooner is not believed to.
const YOUNG: Duration = Duration::from_secs(10);

/// More places than a program meets on a bad day; one too many costs a refresh in an interval.
const SUSPECTS: usize = 4096;

/// What a busy program with honest short tokens stays below, and a loop doesn't.
const BUDGET: usize = 5;
const BUDGET_WINDOW: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::token::{Identity, LoginId, TokenResponse};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_refused_replay_holds_refreshes_back_for_10_s_doubling_to_5_min() {
        let (storm, start) = (storm(), Moment::now());
        let mut now = start;
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            let wait = seconds * SECOND;
            storm.refused_at(now, now, &born(now), place("/a"));
            let asked = old(now);
            let withheld = |after| storm.withheld_at(now + after, &asked, Some(place("/b")));
            assert_eq!(withheld(Duration::ZERO), Some(wait));
            assert_eq!(withheld(wait - SECOND), Some(SECOND));
            assert_eq!(withheld(wait), None);
            now = now + wait;
        }
    }

    #[test]
    fn a_refusal_is_forgotten_by_the_clock_that_says_so_first() {
        let (storm, now) = (storm(), Moment::now());
        storm.refused_at(now, now, &born(now), place("/a"));
        let withheld = |now| storm.withheld_at(now, &old(now), Some(place("/b")));
        // While the machine slept, only the wall clock went on.
        let asleep = |time| Moment { wall: now.wall + time, mono: now.mono + SECOND };
        assert_eq!(withheld(asleep(9 * SECOND)), Some(SECOND));
        assert_eq!(withheld(asleep(10 * SECOND)), None);
        // Set back by an hour: the other clock knows.
        let set_back = |time| Moment { wall: now.wall - 3600 * SECOND, mono: now.mono + time };
        assert_eq!(withheld(set_back(9 * SECOND)), Some(SECOND));
        assert_eq!(withheld(set_back(10 * SECOND)), None);
        // One that comes after so long a sleep begins anew.
        let again = asleep(10 * SECOND + REFUSAL_MAX);
        storm.refused_at(again, again, &born(again), place("/a"));
        assert_eq!(withheld(again), Some(10 * SECOND));
    }

    #[test]
    fn refusals_of_the_same_moment_count_once_and_other_origins_are_untouched() {
        let (storm, now) = (storm(), Moment::now());
        for path in ["/a", "/b", "/c"] {
            storm.refused_at(now, now, &born(now), place(path));
        }
        let asked = old(now);
        assert_eq!(storm.withheld_at(now, &asked, Some(place("/d"))), Some(10 * SECOND));
        let elsewhere = Some(Place::new(1, &Method::GET, "/a"));
        assert_eq!(storm.withheld_at(now, &asked, elsewhere), None);
    }

    #[test]
    fn a_path_that_was_accepted_is_exempt_until_a_new_token_is_refused_there() {
        let (storm, now) = (storm(), Moment::now());
        let tokens = born(now);
        storm.accepted(&tokens, place("/good"));
        storm.refused_at(now, now, &tokens, place("/bad"));
        let asked = old(now);
        assert_eq!(storm.withheld_at(now, &asked, Some(place("/good"))), None);
        assert_eq!(storm.withheld_at(now, &asked, Some(place("/bad"))), Some(10 * SECOND));
        storm.refused_at(now, now, &tokens, place("/good"));
        assert_eq!(storm.withheld_at(now, &asked, Some(place("/good"))), Some(10 * SECOND));
    }

    #[test]
    fn a_success_on_the_refused_path_forgets_the_refusal() {
        let (storm, now) = (storm(), Moment::now());
        storm.refused_at(now, now, &born(now), place("/a"));
        storm.accepted(&born(now), place("/b"));
        assert!(storm.withheld_at(now, &old(now), Some(place("/c"))).is_some());
        storm.accepted(&born(now), place("/a"));
        assert_eq!(storm.withheld_at(now, &old(now), Some(place("/c"))), None);
    }

    #[test]
    fn a_refusal_is_put_to_the_test_once_for_each_token_that_the_origin_has_accepted() {
        let (storm, now) = (storm(), Moment::now());
        storm.refused_at(now, now, &born(now), place("/a"));
        let accepted = old(now);
        let withheld = |tokens: &Tokens| storm.withheld_at(now, tokens, Some(place("/b")));
        assert_eq!(withheld(&accepted), Some(10 * SECOND));
        accepted.set_accepted_by(0);
        assert_eq!(withheld(&accepted), None);
        storm.refreshes_at(now, &accepted, Some(place("/b")));
        assert_eq!(withheld(&accepted), Some(10 * SECOND));
        let next = Tokens { generation: 2, ..old(now) };
        next.set_accepted_by(0);
        assert_eq!(withheld(&next), None);
    }

    #[test]
    fn a_refresh_that_failed_has_put_nothing_to_the_test() {
        let (storm, now) = (storm(), Moment::now());
        storm.refused_at(now, now, &born(now), place("/a"));
        let accepted = old(now);
        accepted.set_accepted_by(0);
        storm.refreshes_at(now, &accepted, Some(place("/b")));
        let withheld = || storm.withheld_at(now, &accepted, Some(place("/b")));
        let other = Tokens { generation: 2, ..old(now) };
        let _ = storm.failed_at(now, &other, Error::timed_out(), 0);
        assert_eq!(withheld(), Some(10 * SECOND));
        let _ = storm.failed_at(now, &accepted, Error::timed_out(), 0);
        assert_eq!(withheld(), None);
    }

    #[test]
    fn a_refused_replay_of_an_old_token_is_not_remembered() {
        let (storm, now) = (storm(), Moment::now());
        storm.refused_at(now + 10 * SECOND, now + 10 * SECOND, &born(now), place("/a"));
        assert_eq!(storm.withheld_at(now, &old(now), Some(place("/a"))), None);
    }

    #[test]
    fn a_refusal_counts_from_its_answer_however_long_that_took() {
        let (storm, sent) = (storm(), Moment::now());
        let answered = sent + 60 * SECOND;
        storm.refused_at(answered, sent, &born(sent), place("/a"));
        let withheld = || storm.withheld_at(answered, &old(answered), Some(place("/b")));
        assert_eq!(withheld(), Some(10 * SECOND));
        // Not so if the token has ended on its way.
        storm.forget();
        let short = tokens(sent, Birth::Refresh, Some(30 * SECOND));
        storm.refused_at(answered, sent, &short, place("/a"));
        assert_eq!(withheld(), None);
    }

    #[test]
    fn a_401_on_a_token_just_born_of_a_refresh_waits_for_the_interval() {
        let (storm, now) = (storm(), Moment::now());
        let withheld =
            |after, tokens: &Tokens| storm.withheld_at(now + after, tokens, Some(place("/a")));
        assert_eq!(withheld(Duration::ZERO, &born(now)), Some(10 * SECOND));
        assert_eq!(withheld(9 * SECOND, &born(now)), Some(SECOND));
        assert_eq!(withheld(10 * SECOND, &born(now)), None);
        for exempt in [Birth::Login, Birth::ReplayedRefresh] {
            assert_eq!(withheld(Duration::ZERO, &tokens(now, exempt, None)), None);
        }
        let accepted = born(now);
        accepted.set_accepted_by(0);
        assert_eq!(withheld(Duration::ZERO, &accepted), None);
        // The clock jumped: received in the future.
        let negative = Tokens { received: None, ..born(now) };
        assert_eq!(withheld(Duration::ZERO, &negative), None);
    }

    #[test]
    fn a_refresh_made_for_a_path_never_accepted_is_not_repeated_because_others_are() {
        let (storm, now) = (storm(), Moment::now());
        storm.tries(&Tokens { generation: 0, ..born(now) }, place("/bad"));
        let new = born(now);
        storm.accepted(&new, place("/good"));
        let withheld = |path| storm.withheld_at(now, &new, Some(place(path)));
        assert_eq!(withheld("/bad"), Some(10 * SECOND));
        assert_eq!(withheld("/worse"), Some(10 * SECOND));
        assert_eq!(withheld("/good"), None);
        // Another one on the same trial, which succeeds, says nothing of the first.
        storm.tries(&Tokens { generation: 0, ..born(now) }, place("/new"));
        storm.accepted(&new, place("/new"));
        assert_eq!(withheld("/bad"), Some(10 * SECOND));
        storm.accepted(&new, place("/bad"));
        assert_eq!(withheld("/worse"), None);
        let next = Tokens { generation: 2, ..born(now) };
        storm.accepted(&next, place("/good"));
        assert_eq!(storm.withheld_at(now, &next, Some(place("/worse"))), None);
    }

    #[test]
    fn a_trial_ends_with_any_answer_that_is_no_refusal() {
        let (storm, now) = (storm(), Moment::now());
        storm.tries(&Tokens { generation: 0, ..born(now) }, place("/gone"));
        let new = born(now);
        storm.accepted(&new, place("/good"));
        let withheld = |path| storm.withheld_at(now, &new, Some(place(path)));
        assert_eq!(withheld("/other"), Some(10 * SECOND));
        storm.tried(place("/gone"));
        assert_eq!(withheld("/other"), None);
        assert!(!storm.path_accepted(place("/gone")));
    }

    #[test]
    fn a_path_is_no_longer_exempt_once_a_refresh_for_it_brought_tokens_it_never_saw() {
        let (storm, now) = (storm(), Moment::now());
        let (new, upload) = (born(now), place("/upload"));
        storm.accepted(&old(now), upload);
        let withheld = || storm.withheld_at(now, &new, Some(upload));
        assert_eq!(withheld(), None);
        storm.untold(now, &new, upload);
        storm.accepted(&new, place("/good"));
        assert_eq!(withheld(), Some(10 * SECOND));
        storm.accepted(&new, upload);
        assert_eq!(withheld(), None);
        assert_eq!(storm.withheld_at(now, &new, Some(place("/other"))), None);
    }

    #[test]
    fn where_only_some_requests_are_accepted_a_young_token_waits_for_the_interval() {
        let (storm, now) = (storm(), Moment::now());
        let new = born(now);
        storm.refused_at(now, now, &new, place("/graphql"));
        for path in ["/graphql", "/good"] {
            storm.accepted(&new, place(path));
        }
        let withheld = |after, path| storm.withheld_at(now + after, &new, Some(place(path)));
        assert_eq!(withheld(SECOND, "/graphql"), Some(9 * SECOND));
        assert_eq!(withheld(10 * SECOND, "/graphql"), None);
        assert_eq!(withheld(SECOND, "/good"), None);
    }

    #[test]
    fn the_sixth_counted_refresh_within_30_s_is_held_back() {
        let (storm, now) = (storm(), Moment::now());
        let alive = tokens(now, Birth::Login, Some(3600 * SECOND));
        let at = |seconds: u32| now + seconds * SECOND;
        let asked = |seconds| storm.withheld_at(at(seconds), &alive, Some(place("/a")));
        for second in 0..5 {
            assert_eq!(asked(second), None);
            storm.refreshed_at(at(second), &alive, Some(place("/a")));
        }
        assert_eq!(asked(5), Some(25 * SECOND));
        assert_eq!(asked(29), Some(SECOND));
        assert_eq!(asked(30), None);
        // An expired token is refreshed however often that was done.
        let expired = tokens(now, Birth::Login, Some(SECOND));
        assert_eq!(storm.withheld_at(at(5), &expired, Some(place("/a"))), None);
    }

    #[test]
    fn without_a_lifetime_a_refresh_counts_where_the_token_was_never_accepted() {
        let (storm, now) = (storm(), Moment::now());
        let silent = tokens(now, Birth::Login, None);
        for _ in 0..5 {
            storm.refreshed_at(now, &silent, Some(place("/a")));
        }
        let wait = storm.withheld_at(now, &silent, Some(place("/a")));
        assert_eq!(wait, Some(30 * SECOND));
        silent.set_accepted_by(0);
        assert_eq!(storm.withheld_at(now, &silent, Some(place("/a"))), None);
    }

    #[test]
    fn a_refusal_long_after_the_last_one_begins_anew() {
        let (storm, now) = (storm(), Moment::now());
        let mut at = now;
        // The second, while the first is remembered, and one at the moment when that is over.
        for (pause, seconds) in [(10 * SECOND, 10), (320 * SECOND, 20), (SECOND, 10)] {
            storm.refused_at(at, at, &born(at), place("/a"));
            let withheld = storm.withheld_at(at, &old(at), Some(place("/b")));
            assert_eq!(withheld, Some(seconds * SECOND));
            at = at + pause;
        }
    }

    #[test]
    fn no_more_places_are_remembered_than_a_bad_day_has() {
        let (storm, now) = (storm(), Moment::now());
        for number in 0..SUSPECTS + 2 {
            let place = place(&format!("/{number}"));
            storm.tries(&born(now), place);
            assert_eq!(storm.memory().on_trial.len(), (number + 1).min(SUSPECTS));
        }
        for number in 0..SUSPECTS + 2 {
            storm.refused_at(now, now, &born(now), place(&format!("/{number}")));
        }
        assert_eq!(storm.memory().suspects.len(), SUSPECTS);
    }

    #[test]
    fn a_token_at_its_end_is_refreshed_however_often_that_was_done() {
        let (storm, now) = (storm(), Moment::now());
        let ending = tokens(now, Birth::Login, Some(SECOND));
        let end = now + SECOND;
        for _ in 0..6 {
            assert_eq!(storm.withheld_at(end, &ending, Some(place("/a"))), None);
            storm.refreshed_at(end, &ending, Some(place("/a")));
        }
    }

    #[test]
    fn what_was_accepted_says_nothing_of_other_paths_and_methods() {
        let storm = storm();
        for number in 0..100 {
            storm.accepted(&born(Moment::now()), place(&format!("/items/{number}")));
        }
        let others = (100..1100).map(|number| place(&format!("/items/{number}")));
        assert_eq!(others.filter(|place| storm.path_accepted(*place)).count(), 0);
        let accepted = (0..100).filter(|n| storm.path_accepted(place(&format!("/items/{n}"))));
        assert_eq!(accepted.count(), 100);
        assert!(!storm.path_accepted(Place::new(0, &Method::POST, "/items/99")));
    }

    #[test]
    fn without_a_lifetime_a_refresh_counts_where_a_new_token_was_refused_before() {
        let (storm, now) = (storm(), Moment::now());
        let silent = tokens(now, Birth::Login, None);
        storm.refused_at(now, now, &silent, place("/graphql"));
        storm.accepted(&silent, place("/graphql"));
        for _ in 0..5 {
            assert_eq!(storm.withheld_at(now, &silent, Some(place("/graphql"))), None);
            storm.refreshed_at(now, &silent, Some(place("/graphql")));
        }
        let withheld = storm.withheld_at(now, &silent, Some(place("/graphql")));
        assert_eq!(withheld, Some(30 * SECOND));
    }

    #[test]
    fn a_refresh_that_succeeds_ends_the_cooldown() {
        let (storm, now) = (storm(), Moment::now());
        let asked = Error::timed_out().with_retry_after(Some(SECOND));
        storm.failed_at(now, &born(now), asked, 0);
        assert!(storm.cooling_at(now, &born(now)).is_some());
        storm.calm();
        assert!(storm.cooling_at(now, &born(now)).is_none());
    }

    #[test]
    fn a_login_forgets_everything() {
        let (storm, now) = (storm(), Moment::now());
        let alive = tokens(now, Birth::Login, Some(3600 * SECOND));
        storm.accepted(&alive, place("/good"));
        storm.refused_at(now, now, &born(now), place("/a"));
        storm.failed_at(now, &alive, Error::timed_out().with_retry_after(Some(SECOND)), 0);
        (0..5).for_each(|_| storm.refreshed_at(now, &alive, Some(place("/a"))));
        storm.forget();
        assert_eq!(storm.withheld_at(now, &alive, Some(place("/a"))), None);
        assert!(storm.cooling_at(now, &alive).is_none());
        assert!(!storm.path_accepted(place("/good")));
    }

    fn storm() -> Storm {
        Storm::new(2, 10 * SECOND)
    }

    fn place(path: &str) -> Place {
        Place::new(0, &Method::GET, path)
    }

    /// Born of a refresh just now.
    fn born(now: Moment) -> Tokens {
        tokens(now, Birth::Refresh, None)
    }

    /// Held back by no rule of its own.
    fn old(now: Moment) -> Tokens {
        let old = tokens(now, Birth::Login, Some(SECOND / 1000));
        Tokens { expiry: old.expiry, ..old }
    }

    fn tokens(now: Moment, birth: Birth, lifetime: Option<Duration>) -> Tokens {
        let mut response = TokenResponse::new("a");
        response.expires_in = lifetime;
        let login = LoginId("l".into());
        let identity = Identity { login, epoch: 0, generation: 1, birth, key: None };
        Tokens::received(&response, None, identity, now)
    }
}
