//! Ends a campaign that hangs, and says where.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<(String, Instant)>>);

impl Watchdog {
    pub fn start() -> Self {
        let watchdog = Self(Arc::new(Mutex::new(("begins".to_owned(), Instant::now()))));
        let watched = watchdog.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let (doing, since) = watched.now();
                if since.elapsed() > LIMIT {
                    eprintln!("stuck for {LIMIT:?}: {doing}");
                    // The workers end with their orders.
                    std::process::exit(3);
                }
            }
        });
        watchdog
    }

    /// From now on.
    pub fn doing(&self, what: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (what, Instant::now());
    }

    fn now(&self) -> (String, Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// More than the waits of one deed together.
const LIMIT: Duration = Duration::from_secs(120);
