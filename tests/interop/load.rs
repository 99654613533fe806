//! Steady load over many expiries, at all servers at once: one test, as it takes 40 seconds, and
//! a machine with two processors would run four tests one pair after the other.
//!
//! Tokens live 2 seconds. oidc-provider cuts the time of issue down to whole seconds, so that its
//! tokens live between 1 and 2: some are over just as their leeway begins, and a request that
//! comes in between is refused there, refreshed and replayed. The caller sees none of it.

use std::time::{Duration, Instant};

use tokio::time::interval;

use crate::server::Server;
use crate::user::User;
use crate::{authlib, authlib_without_rotation, mock, oidc_provider};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_thousand_requests_over_twenty_expiries_see_no_401() {
    tokio::join!(
        under_load("mock", mock::start(LIFETIME, SAID)),
        under_load("oidc-provider", oidc_provider::start(LIFETIME, SAID)),
        under_load("Authlib", authlib::start(LIFETIME, SAID)),
        under_load("Authlib without rotation", authlib_without_rotation::start(LIFETIME, SAID)),
    );
}

async fn under_load(name: &str, server: impl Server) {
    let begun = Instant::now();
    let t = User::log_in(server).await;
    let mut tick = interval(Duration::from_millis(20));
    let mut requests = Vec::with_capacity(2000);
    for _ in 0..2000 {
        tick.tick().await;
        let request = t.client.get(t.server.api_url("things"));
        requests.push(tokio::spawn(request.send()));
    }
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status(), 200, "{name}");
    }
    t.session.drain().await;
    let took = begun.elapsed();

    let state = t.server.state().await;
    assert_eq!(state.api_ok, 2000, "{name}");
    assert_eq!(state.token_requests, state.refreshes, "{name}");
    assert_eq!((state.reuses, state.grants), (0, 1), "{name}");
    // A token is replaced when the first of its 2 s is over: not before, and by the end of them
    // at the latest, as a request comes every 20 ms. The last token need not be.
    let most = took.as_millis() as u64 / 1000;
    let least = took.as_millis() as u64 / 2000 - 1;
    let refreshes = state.refreshes;
    assert!((least..=most).contains(&refreshes), "{name}: {refreshes} refreshes in {took:?}");
    assert_eq!(t.logouts.all(), [], "{name}");
}

/// In seconds.
const LIFETIME: u64 = 2;
const SAID: u64 = 2;
