//! Requests at a steady rate, each at its own moment whether or not those before it are answered:
//! to a server whose tokens end again and again, and to one whose tokens don't, in pairs, so that
//! what the machine does besides falls on both alike.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest_middleware::ClientWithMiddleware;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::program::Outcome;

/// How long the callers waited.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Latencies {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Latencies {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

pub async fn load(
    clients: [ClientWithMiddleware; 2],
    urls: [String; 2],
) -> (Outcome, [Latencies; 2]) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut requests = [Vec::new(), Vec::new()];
    for n in 0..PAIRS + WARM_UP {
        let due = ticks.tick().await;
        // Each is first as often as second.
        for which in if n % 2 == 0 { [0, 1] } else { [1, 0] } {
            let request = clients[which].get(&urls[which]).send();
            let request = tokio::spawn(async move {
                let is_ok = request.await.is_ok_and(|answer| answer.status() == StatusCode::OK);
                (is_ok, Instant::now() - due)
            });
            // The first ones open the connections.
            if n >= WARM_UP {
                requests[which].push(request);
            }
        }
    }
    let mut outcome = Outcome::default();
    let mut latencies = [Vec::new(), Vec::new()];
    for (which, requests) in requests.into_iter().enumerate() {
        for request in requests {
            let (is_ok, time) = request.await.expect("no panic");
            outcome.count(is_ok);
            latencies[which].push(time);
        }
    }
    (outcome, latencies.map(Latencies::of))
}

/// How long a token lives where they end. The second half of that is for refreshing it, so that
/// twenty of them come to ten seconds, and the refreshes themselves.
pub const TTL: Duration = Duration::from_secs(1);

/// Twelve seconds.
const PERIOD: Duration = Duration::from_millis(2);
const PAIRS: usize = 6000;
const WARM_UP: usize = 100;
