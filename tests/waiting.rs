//! A request waits for a refresh no longer than it would wait for an answer.

mod support;

use std::time::{Duration, Instant};

use mock_server::Route;
use support::steps::get;
use support::{Fixture, found, soon};

#[tokio::test]
async fn a_request_waits_for_a_refresh_no_longer_than_its_own_timeout() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let patient = get(&t);
    hold.arrived(1).await;
    let started = Instant::now();
    let limit = Duration::from_millis(100);
    let request = t.client.get(t.server.api_url("things"));
    let error = soon(request.timeout(limit).send()).await.unwrap_err();
    assert!(started.elapsed() >= limit);
    assert!(found(&error).is_timeout());
    assert!(found(&error).is_transient() && !found(&error).is_logged_out());
    hold.release();
    assert_eq!(soon(patient).await.unwrap().unwrap().status(), 200);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
    assert_eq!(t.server.counters().reuses, 0);
}

#[tokio::test]
async fn a_request_whose_401_needs_a_refresh_waits_no_longer_than_its_own_timeout() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let request = t.client.get(t.server.api_url("things"));
    let error = soon(request.timeout(Duration::from_secs(1)).send()).await.unwrap_err();
    assert!(found(&error).is_timeout());
    hold.release();
    // The refresh was not its own: it goes on, and the next one has it.
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.reuses, 0);
    assert_eq!(counters.api_unauthorized, 1);
}
