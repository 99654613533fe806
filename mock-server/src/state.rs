//! What the handlers and the controls share.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::code::Codes;
use crate::config::Config;
use crate::counters::Counters;
use crate::device::Devices;
use crate::family::Context;
use crate::grant::{Grants, Refreshed, Refusal};
use crate::issued::Issued;
use crate::lane::Lane;
use crate::route::Route;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) started: Instant,
    addr: SocketAddr,
    /// The message of the first handler that panicked.
    pub(crate) panicked: OnceLock<String>,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) grants: Grants,
    pub(crate) counters: Counters,
    pub(crate) refused_paths: HashSet<String>,
    pub(crate) codes: Codes,
    pub(crate) devices: Devices,
    lanes: [Lane; Route::COUNT],
    /// When the refreshes were that the rate limit still counts.
    recent: VecDeque<Instant>,
}

impl Shared {
    pub(crate) fn new(config: Config, addr: SocketAddr) -> Self {
        let started = Instant::now();
        Self {
            config,
            started,
            addr,
            panicked: OnceLock::new(),
            state: Mutex::new(State {
                grants: Grants::new(started),
                counters: Counters::default(),
                refused_paths: HashSet::new(),
                codes: Codes::default(),
                devices: Devices::default(),
                lanes: Default::default(),
                recent: VecDeque::new(),
            }),
        }
    }

    /// Scheme, host and port, which is also the issuer.
    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Held for the length of a statement or two, and never across an `await`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a handler is reported when the server is dropped; the counters up to then
        // help to explain it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of the bound headers.
    pub(crate) fn context(&self, headers: &HeaderMap) -> Context {
        let values = |name| {
            let all: Vec<_> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
            (!all.is_empty()).then(|| all.join(&b", "[..]))
        };
        self.config.context.iter().map(values).collect()
    }

    pub(crate) fn log_in(&self, user: &str, context: Option<Context>) -> Issued {
        let mut state = self.lock();
        state.counters.logins += 1;
        state.grants.log_in(&self.config, user, context, Instant::now())
    }

    pub(crate) fn refresh(&self, token: &str, context: &Context) -> Refreshed {
        let mut state = self.lock();
        let State { grants, counters, .. } = &mut *state;
        let refreshed = grants.refresh(&self.config, token, context, Instant::now());
        match refreshed {
            Refreshed::Anew(_) => counters.refreshes += 1,
            Refreshed::Replayed(_) => counters.grace_replays += 1,
            Refreshed::Refused(refusal) => {
                counters.invalid_grants += 1;
                counters.reuses += u64::from(refusal == Refusal::Reused);
                counters.context_mismatches += u64::from(refusal == Refusal::OtherContext);
            }
        }
        refreshed
    }

    /// The wait to announce if there is no room for another refresh.
    pub(crate) fn over_rate(&self) -> Option<Duration> {
        let (max, per) = self.config.rate_limit?;
        let now = Instant::now();
        let mut state = self.lock();
        while let Some(oldest) = state.recent.front()
            && now.duration_since(*oldest) >= per
        {
            state.recent.pop_front();
        }
        if state.recent.len() < max as usize {
            state.recent.push_back(now);
            return None;
        }
        state.counters.rate_limited += 1;
        let oldest = state.recent.front().copied().unwrap_or(now);
        Some(per - now.duration_since(oldest))
    }
}

impl State {
    pub(crate) fn lane(&mut self, route: Route) -> &mut Lane {
        &mut self.lanes[route as usize]
    }
}
