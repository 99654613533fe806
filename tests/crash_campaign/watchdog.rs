//! Ends a campaign that hangs, and says where.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone)]
pub struct Watchdog(Arc<Mutex<(String, Instant)>>);

impl Watchdog {
    /// Nothing may take longer than `limit`.
    pub fn start(limit: Duration) -> Self {
        let watchdog = Self(Arc::new(Mutex::new(("begins".to_owned(), Instant::now()))));
        let watched = watchdog.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let (doing, since) = watched.now();
                if since.elapsed() > limit {
                    eprintln!("stuck for {limit:?}: {doing}");
                    // Lanes end when nobody listens, workers when nobody orders.
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
