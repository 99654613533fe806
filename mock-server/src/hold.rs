//! Requests parked at a point of the test's choosing.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

/// Parks every request on a route until it is released or dropped; see
/// [`MockServer::hold`](crate::MockServer::hold) and
/// [`MockServer::hold_answers`](crate::MockServer::hold_answers).
///
/// A caller that goes away while its request is parked does not take it back: it is handled
/// after the release, as a server does that has received it already.
#[must_use = "a hold ends when it is dropped"]
pub struct Hold {
    gate: Arc<Gate>,
    /// The runtime of the server: its clock runs even where the test's is paused.
    runtime: Handle,
}

impl Hold {
    pub(crate) fn new(gate: Arc<Gate>, runtime: Handle) -> Self {
        Self { gate, runtime }
    }

    /// Waits until `n` requests are parked, or have been since the hold began.
    ///
    /// Works on any runtime, and where tokio's clock is paused.
    ///
    /// # Panics
    ///
    /// If they have not arrived after 60 real seconds, or if the server is dropped.
    pub async fn arrived(&self, n: usize) {
        let wait = self.runtime.spawn(self.gate.clone().arrived(n));
        match wait.await {
            Ok(Ok(())) => {}
            Ok(Err(seen)) => panic!("{seen} of {n} requests arrived within {PATIENCE:?}"),
            Err(_) => panic!("the server stopped before {n} requests arrived"),
        }
    }

    /// [`Hold::arrived`] for tests without a runtime.
    ///
    /// # Panics
    ///
    /// As [`Hold::arrived`].
    pub fn arrived_blocking(&self, n: usize) {
        let (sender, receiver) = mpsc::channel();
        let gate = self.gate.clone();
        self.runtime.spawn(async move {
            // Nobody listens any more if the waiting thread is gone; that is its business.
            let _ = sender.send(gate.arrived(n).await);
        });
        match receiver.recv() {
            Ok(Ok(())) => {}
            Ok(Err(seen)) => panic!("{seen} of {n} requests arrived within {PATIENCE:?}"),
            Err(_) => panic!("the server stopped before {n} requests arrived"),
        }
    }

    /// How many requests are parked, or have been since the hold began.
    pub fn count(&self) -> usize {
        *self.gate.arrivals.borrow()
    }

    /// Lets all parked requests go on; later ones pass. Dropping does the same.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.open();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("arrived", &self.count()).finish_non_exhaustive()
    }
}

/// Counts requests in, and lets them out together.
pub(crate) struct Gate {
    arrivals: watch::Sender<usize>,
    open: watch::Sender<bool>,
    /// Opens by itself when this many have arrived.
    capacity: Option<usize>,
}

impl Gate {
    pub(crate) fn hold() -> Arc<Self> {
        Self::new(None)
    }

    pub(crate) fn barrier(n: usize) -> Arc<Self> {
        Self::new(Some(n))
    }

    fn new(capacity: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            arrivals: watch::Sender::new(0),
            open: watch::Sender::new(false),
            capacity,
        })
    }

    /// Parks the caller.
    ///
    /// # Panics
    ///
    /// If a barrier does not fill: fewer requests came than the test said.
    pub(crate) async fn pass(&self) {
        let mut open = self.open.subscribe();
        self.arrivals.send_modify(|n| *n += 1);
        let Some(capacity) = self.capacity else {
            // The sender cannot go away before `self` does.
            let _ = open.wait_for(|open| *open).await;
            return;
        };
        if *self.arrivals.borrow() >= capacity {
            self.open();
        }
        let filled = tokio::time::timeout(PATIENCE, open.wait_for(|open| *open)).await;
        let seen = *self.arrivals.borrow();
        assert!(
            filled.is_ok(),
            "{seen} of {capacity} requests arrived at a barrier within {PATIENCE:?}"
        );
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// The number seen if it stays below `n` for too long.
    async fn arrived(self: Arc<Self>, n: usize) -> Result<(), usize> {
        let mut arrivals = self.arrivals.subscribe();
        let wait = arrivals.wait_for(|seen| *seen >= n);
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(_) => Ok(()),
            Err(_) => Err(*self.arrivals.borrow()),
        }
    }
}

/// Longer than any request takes on a busy machine, and short enough to learn which test hangs.
const PATIENCE: Duration = Duration::from_secs(60);
