//! When a refresh is held back, so that a bad day is not made worse.
//!
//! Four rules, all counted per session and forgotten at a login:
//!
//! 1. **Refusals.** An origin that refused the token of a refresh made for it is remembered, for
//!    10 s, doubling to 5 min: 401s on paths that were never accepted there lead to no refresh.
//! 2. **Interval.** A 401 on a token just born of a refresh, at an origin that never accepted it,
//!    is not cured by the next one.
//! 3. **Budget.** 5 refreshes in 30 s, of those that no expiry explains.
//! 4. **Cooldown.** After a refresh that failed for now: what the server asked for, else 200 ms,
//!    doubling to 60 s, with full jitter.
//!
//! A path that was accepted is exempt from the first two: some tokens live two seconds and don't
//! say so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::token::{Birth, Tokens};

pub(crate) struct Storm {
    min_refresh_interval: Duration,
    accepted: Box<[PathSet]>,
    memory: Mutex<Memory>,
}

/// Where a request went: the number of its origin in the session's list, and its path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) origin: usize,
    pub(crate) path: u64,
}

impl Place {
    pub(crate) fn new(origin: usize, path: &str) -> Self {
        // FNV-1a: a path is short, and nobody gains by a collision.
        let path = path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { origin, path }
    }
}

#[derive(Default)]
struct Memory {
    refusals: Vec<Refusal>,
    counted: VecDeque<Instant>,
    cooldown: Option<Cooldown>,
}

struct Refusal {
    place: Place,
    times: u32,
    until: Instant,
}

struct Cooldown {
    /// Epoch and generation of the tokens whose refresh failed.
    of: (u64, u64),
    failures: u32,
    until: Instant,
    error: Error,
}

impl Storm {
    pub(crate) fn new(origins: usize, min_refresh_interval: Duration) -> Self {
        Self {
            min_refresh_interval,
            accepted: (0..origins).map(|_| PathSet::new()).collect(),
            memory: Mutex::default(),
        }
    }

    /// How long a refresh is held back that a 401 on `tokens` at `place` asks for. A place is
    /// unknown where the 401 was not over HTTP.
    pub(crate) fn withheld_at(
        &self,
        now: Instant,
        tokens: &Tokens,
        place: Option<Place>,
    ) -> Option<Duration> {
        let mut memory = self.memory();
        let place_accepted = place.is_some_and(|place| self.path_accepted(place));
        if !place_accepted {
            if let Some(place) = place
                && let Some(refusal) =
                    memory.refusals.iter().find(|r| r.place.origin == place.origin)
                && now < refusal.until
            {
                return Some(refusal.until - now);
            }
            let accepted = place.is_some_and(|place| tokens.accepted_by(place.origin));
            let age = tokens.received.map(|received| now.saturating_duration_since(received));
            if tokens.birth == Birth::Refresh
                && !accepted
                && let Some(age) = age
                && age < self.min_refresh_interval
            {
                return Some(self.min_refresh_interval - age);
            }
        }
        if !counts_at(now, tokens, place) {
            return None;
        }
        while memory.counted.front().is_some_and(|&made| now - made >= BUDGET_WINDOW) {
            memory.counted.pop_front();
        }
        let oldest = memory.counted.front().filter(|_| memory.counted.len() >= BUDGET)?;
        Some(BUDGET_WINDOW - (now - *oldest))
    }

    /// A refresh was made because of a 401 on `tokens` at `place`.
    pub(crate) fn refreshed_at(&self, now: Instant, tokens: &Tokens, place: Option<Place>) {
        if counts_at(now, tokens, place) {
            self.memory().counted.push_back(now);
        }
    }

    /// A response that only an accepted token gets. The usual case is an atomic load each.
    pub(crate) fn accepted(&self, tokens: &Tokens, place: Place) {
        tokens.set_accepted_by(place.origin);
        let Some(paths) = self.accepted.get(place.origin) else {
            return;
        };
        if paths.insert(place.path) {
            let mut memory = self.memory();
            memory
                .refusals
                .retain(|r| r.place.origin != place.origin || r.place.path != place.path);
        }
    }

    /// The replay with `tokens`, which a refresh had just brought, was refused at `place`.
    pub(crate) fn refused_at(&self, now: Instant, tokens: &Tokens, place: Place) {
        let age = tokens.received.map(|received| now.saturating_duration_since(received));
        if age.is_none_or(|age| age >= self.min_refresh_interval) {
            // It may have ended by itself.
            return;
        }
        if let Some(paths) = self.accepted.get(place.origin) {
            paths.remove(place.path);
        }
        let mut memory = self.memory();
        let old = memory.refusals.iter().position(|r| r.place.origin == place.origin);
        let times = match old.map(|at| memory.refusals.swap_remove(at)) {
            // One of many that were sent at the same time.
            Some(refusal) if now < refusal.until => return memory.refusals.push(refusal),
            Some(refusal) => refusal.times + 1,
            None => 0,
        };
        let wait = (REFUSAL_MIN * 2u32.saturating_pow(times)).min(REFUSAL_MAX);
        let until = now + wait;
        memory.refusals.push(Refusal { place, times, until });
    }

    /// A refresh of `tokens` failed for now. The error, with the wait until the next try.
    pub(crate) fn failed_at(&self, now: Instant, tokens: &Tokens, error: Error) -> Error {
        let mut memory = self.memory();
        let of = (tokens.epoch, tokens.generation);
        let failures = match &memory.cooldown {
            Some(cooldown) if cooldown.of == of => cooldown.failures.saturating_add(1),
            _ => 0,
        };
        let wait = error.retry_after().unwrap_or_else(|| {
            jitter((COOLDOWN_MIN * 2u32.saturating_pow(failures)).min(COOLDOWN_MAX))
        });
        let error = error.with_retry_after(Some(wait));
        memory.cooldown = Some(Cooldown { of, failures, until: now + wait, error: error.clone() });
        error
    }

    /// The failure that a refresh of `tokens` is still cooling down from.
    pub(crate) fn cooling_at(&self, now: Instant, tokens: &Tokens) -> Option<Error> {
        let memory = self.memory();
        let cooldown = memory.cooldown.as_ref()?;
        if cooldown.of != (tokens.epoch, tokens.generation) || now >= cooldown.until {
            return None;
        }
        Some(cooldown.error.clone().with_retry_after(Some(cooldown.until - now)))
    }

    /// A refresh succeeded: the trouble is over.
    pub(crate) fn calm(&self) {
        self.memory().cooldown = None;
    }

    /// A new login starts with a clean slate.
    pub(crate) fn forget(&self) {
        *self.memory() = Memory::default();
        self.accepted.iter().for_each(PathSet::clear);
    }

    fn path_accepted(&self, place: Place) -> bool {
        self.accepted.get(place.origin).is_some_and(|paths| paths.contains(place.path))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether no expiry explains a 401 on `tokens`.
fn counts_at(now: Instant, tokens: &Tokens, place: Option<Place>) -> bool {
    match &tokens.expiry {
        Some(expiry) => now < expiry.at.mono,
        None => !place.is_some_and(|place| tokens.accepted_by(place.origin)),
    }
}

/// Full jitter: many processes that failed together must not come back together.
fn jitter(cap: Duration) -> Duration {
    // Without randomness there is still the cap.
    let random = getrandom::u64().unwrap_or(u64::MAX);
    cap.mul_f64(random as f64 / u64::MAX as f64)
}

/// The paths accepted at one origin, a bit each in a table that needs no lock and never grows.
/// Two paths may share a bit: that costs a refresh at most, which the budget bounds.
struct PathSet([AtomicU64; WORDS]);

const WORDS: usize = 64;

impl PathSet {
    fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn contains(&self, path: u64) -> bool {
        let (word, bit) = self.place(path);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// `true` if it wasn't in.
    fn insert(&self, path: u64) -> bool {
        let (word, bit) = self.place(path);
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn remove(&self, path: u64) {
        let (word, bit) = self.place(path);
        word.fetch_and(!bit, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn place(&self, path: u64) -> (&AtomicU64, u64) {
        // The high bits of FNV mix better than the low ones.
        let index = (path >> 52) as usize;
        (&self.0[index / 64 % WORDS], 1 << (index % 64))
    }
}

/// Long enough that an endpoint that always refuses costs next to nothing, short enough that a
/// server's own cache of keys and revocations has caught up.
const REFUSAL_MIN: Duration = Duration::from_secs(10);
const REFUSAL_MAX: Duration = Duration::from_secs(5 * 60);

/// What a busy program with honest short tokens stays below, and a loop doesn't.
const BUDGET: usize = 5;
const BUDGET_WINDOW: Duration = Duration::from_secs(30);

/// A blip is over in 200 ms; nobody wants to wait more than a minute for a server that is back.
const COOLDOWN_MIN: Duration = Duration::from_millis(200);
const COOLDOWN_MAX: Duration = Duration::from_secs(60);
