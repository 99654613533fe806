//! What a session has done in this process, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of what a session did since it was built, in this process alone; from
/// [`Session::metrics`](crate::Session::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Refreshes that brought new tokens.
    pub refreshes: u64,
    /// Refreshes that found newer tokens in the store, where another program had put them.
    pub adoptions: u64,
    /// Refreshes that failed, the session's end included. One for all who waited.
    pub refresh_failures: u64,
    /// Requests whose token was refused (401), second refusals included.
    pub refusals: u64,
    /// Requests that were sent a second time, with a new token.
    pub replays: u64,
    /// Refusals left to the caller because another refresh would not have helped.
    pub withheld: u64,
    /// Sessions that ended, logouts by the user included.
    pub logouts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refreshes: Counter,
    pub(crate) adoptions: Counter,
    pub(crate) refresh_failures: Counter,
    pub(crate) refusals: Counter,
    pub(crate) replays: Counter,
    pub(crate) withheld: Counter,
    pub(crate) logouts: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            refreshes: self.refreshes.get(),
            adoptions: self.adoptions.get(),
            refresh_failures: self.refresh_failures.get(),
            refusals: self.refusals.get(),
            replays: self.replays.get(),
            withheld: self.withheld.get(),
            logouts: self.logouts.get(),
        }
    }
}
