//! Refreshing ahead of the expiry: nobody waits for it, and nobody is harmed if it fails.

mod support;

use std::time::Duration;

use mock_server::{ExpiresIn, Fault, MockServer, Route, What};
use reqwest_reauth::{Event, Events, Record, TokenStore};
use serde_json::{Value, json};
use support::{
    Fixture, access_tokens_sent, builder, client, settle, soon, statuses, tokens_without_expiry,
};

#[tokio::test]
async fn in_the_leeway_requests_go_on_with_the_old_token_until_the_refresh_is_done() {
    let t = loaded(1000, 900).await;
    let mut events = t.session.events();
    let hold = t.server.hold(Route::Token);
    assert_eq!(soon(t.get("first")).await.unwrap(), 200);
    hold.arrived(1).await;
    assert_eq!(soon(t.get("second")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 0);

    hold.release();
    assert!(refreshed(&mut events).await);
    assert_eq!(soon(t.get("third")).await.unwrap(), 200);
    let sent = access_tokens_sent(&t.server);
    assert_eq!(sent[..2], [t.issued.access_token.as_str(); 2]);
    assert_ne!(sent[2], t.issued.access_token);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.api_unauthorized, 0);
}

/// A command that makes one request per start would never refresh ahead otherwise.
#[tokio::test]
async fn a_program_that_starts_in_the_leeway_refreshes_ahead_with_its_first_request() {
    let t = aged(1000, 900).await;
    let mut events = t.session.events();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(access_tokens_sent(&t.server), [t.issued.access_token.as_str()]);
    let refreshed = tokio::time::timeout(Duration::from_secs(5), refreshed(&mut events)).await;
    assert_eq!(refreshed, Ok(true));
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_in_the_leeway_start_one_refresh_and_none_waits_for_it() {
    let t = loaded(1000, 900).await;
    let mut events = t.session.events();
    let hold = t.server.hold(Route::Token);
    assert_eq!(statuses(soon(t.get_all(100)).await), [200; 100]);
    hold.arrived(1).await;
    let old = vec![t.issued.access_token.clone(); 100];
    assert_eq!(access_tokens_sent(&t.server), old);

    hold.release();
    assert!(refreshed(&mut events).await);
    assert_eq!(statuses(soon(t.get_all(100)).await), [200; 100]);
    assert!(!access_tokens_sent(&t.server)[100..].contains(&t.issued.access_token));
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.api_requests, 200);
}

/// The same by the clock itself: the one test here that waits for a leeway to begin.
#[tokio::test]
async fn the_leeway_begins_when_four_fifths_of_the_lifetime_are_over() {
    let t = Fixture::new().await;
    let lifetime = Duration::from_secs(10);
    t.session.log_in(tokens_without_expiry(&t.issued).expires_in(lifetime)).await.unwrap();
    let mut events = t.session.events();
    let hold = t.server.hold(Route::Token);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(soon(t.get("before")).await.unwrap(), 200);
    assert_eq!(hold.count(), 0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(soon(t.get("in it")).await.unwrap(), 200);
    hold.arrived(1).await;
    assert_eq!(access_tokens_sent(&t.server), [t.issued.access_token.as_str(); 2]);
    hold.release();
    assert!(refreshed(&mut events).await);
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn the_leeway_is_a_fifth_of_the_lifetime_and_five_minutes_at_most() {
    for (lifetime, age, refreshes) in
        [(1000, 790, 0), (1000, 810, 1), (10_000, 9690, 0), (10_000, 9710, 1)]
    {
        let t = loaded(lifetime, age).await;
        let mut events = t.session.events();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
        if refreshes > 0 {
            assert!(refreshed(&mut events).await, "{lifetime} {age}");
        }
        // Comes after any refresh, as it takes the same gate.
        soon(t.session.log_out()).await.unwrap();
        assert_eq!(t.server.counters().token_requests, refreshes, "{lifetime} {age}");
    }
}

#[tokio::test]
async fn a_stored_token_that_has_expired_is_refreshed_before_anything_is_sent() {
    let t = aged(1000, 1001).await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_requests, 1);
    assert_ne!(access_tokens_sent(&t.server), [t.issued.access_token.as_str()]);
}

#[tokio::test]
async fn a_refresh_ahead_that_fails_keeps_the_valid_token_in_use() {
    let t = loaded(1000, 900).await;
    let mut events = t.session.events();
    let busy = Fault::status(429).header("retry-after", "3600");
    t.server.on_next(Route::Token, 1, busy);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let Some(Event::RefreshFailed(error)) = soon(events.next()).await else {
        panic!("the refresh fails");
    };
    assert!(error.is_transient());
    // Nothing more is sent in the cooldown.
    assert_eq!(statuses(soon(t.get_all(50)).await), [200; 50]);
    assert_eq!(access_tokens_sent(&t.server), vec![t.issued.access_token.clone(); 51]);
    soon(t.session.drain()).await;
    assert_eq!(t.server.counters().token_requests, 1);
    assert!(events.try_next().is_none());
    assert_eq!(t.logouts.all(), []);
    assert!(t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_refresh_ahead_that_failed_is_tried_again_after_the_cooldown() {
    let t = loaded(1000, 900).await;
    let mut events = t.session.events();
    t.server.on_next(Route::Token, 1, Fault::status(403));
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let Some(Event::RefreshFailed(error)) = soon(events.next()).await else {
        panic!("the refresh fails");
    };
    tokio::time::sleep(error.retry_after().unwrap()).await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert!(refreshed(&mut events).await);
    assert_eq!(access_tokens_sent(&t.server), [t.issued.access_token.as_str(); 2]);
    assert_eq!(t.server.counters().token_requests, 2);
}

/// A refused token that is in its leeway, too, is the business of the 401's refresh.
#[tokio::test]
async fn a_401_in_the_leeway_joins_the_refresh_that_runs_already() {
    let t = loaded(1000, 900).await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let release = async {
        hold.arrived(1).await;
        settle().await;
        hold.release();
    };
    let (results, ()) = soon(async { tokio::join!(t.get_all(10), release) }).await;
    assert_eq!(statuses(results), [200; 10]);
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().refreshes, 1);
}

/// The server's tokens live twice as long as it says, so that a busy machine fails no test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn steady_traffic_over_five_expiries_makes_one_refresh_each_and_sees_no_401() {
    let server = MockServer::builder()
        .access_ttl(Duration::from_secs(2))
        .expires_in(ExpiresIn::Value(json!(1)))
        .start()
        .unwrap();
    let t = Fixture::at(server).await;
    while t.server.counters().refreshes < 5 {
        assert_eq!(statuses(soon(t.get_all(3)).await), [200; 3]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    soon(t.session.drain()).await;
    let counters = t.server.counters();
    assert_eq!(counters.api_unauthorized, 0);
    assert_eq!(counters.api_ok, counters.api_requests);
    assert_eq!(counters.token_requests, 5);
    assert_eq!(counters.reuses, 0);
    let history = t.server.history(t.issued.family);
    for pair in history.windows(2) {
        assert_eq!(pair[1].what, What::Rotated);
        let lived = pair[1].at - pair[0].at;
        // Half of the second that they are said to live.
        assert!(lived >= Duration::from_millis(490), "refreshed after {lived:?}");
    }
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn without_expires_in_only_a_401_leads_to_a_refresh() {
    let server = MockServer::builder().expires_in(ExpiresIn::Absent).start().unwrap();
    let t = Fixture::at(server).await;
    assert_eq!(statuses(soon(t.get_all(50)).await), [200; 50]);
    soon(t.session.drain()).await;
    assert_eq!(t.server.counters().token_requests, 0);
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_unauthorized, 1);
}

#[tokio::test]
async fn a_token_just_received_is_tried_once_however_short_it_is_said_to_live() {
    let said = ExpiresIn::Value(json!(0.001));
    let server = MockServer::builder().expires_in(said).start().unwrap();
    let t = Fixture::expired(server).await;
    let hold = t.server.hold(Route::Token);
    let release = async {
        hold.arrived(1).await;
        settle().await;
        hold.release();
    };
    let (results, ()) = soon(async { tokio::join!(t.get_all(6), release) }).await;
    assert_eq!(statuses(results), [200; 6]);
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.server.counters().api_requests, 6);

    // Each of the next ones finds it expired, and gets one of its own.
    for n in 2..=4 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
        assert_eq!(t.server.counters().token_requests, n);
    }
    assert_eq!(t.server.counters().api_unauthorized, 0);
}

#[tokio::test]
async fn a_401_on_a_token_said_to_have_lived_a_millisecond_is_replayed_with_the_new_one() {
    let said = ExpiresIn::Value(json!(0.001));
    let server = MockServer::builder().expires_in(said).start().unwrap();
    let t = Fixture::at(server).await;
    t.session.log_in(tokens_without_expiry(&t.issued)).await.unwrap();
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_requests, 2);
}

/// A program that starts `age` seconds after its user's token was received. The server, which
/// goes by its own clock, takes the token all the same.
async fn aged(lifetime: u64, age: u64) -> Fixture {
    let t = Fixture::new().await;
    let tokens = tokens_without_expiry(&t.issued).expires_in(Duration::from_secs(lifetime));
    t.session.log_in(tokens).await.unwrap();

    let mut record: Value = serde_json::from_slice(&t.record().unwrap()).unwrap();
    for time in ["received_at", "expires_at"] {
        record[time] = json!(record[time].as_u64().unwrap() - age * 1000);
    }
    t.store.save(&Record::from_bytes(record.to_string().as_bytes())).unwrap();
    let session =
        builder(&t.server).store(t.store.clone()).on_logout(t.logouts.hook()).build().unwrap();
    Fixture { client: client(&session), session, ..t }
}

/// [`aged`], with the store read.
async fn loaded(lifetime: u64, age: u64) -> Fixture {
    let t = aged(lifetime, age).await;
    assert!(soon(t.session.is_logged_in()).await.unwrap());
    t
}

async fn refreshed(events: &mut Events) -> bool {
    matches!(soon(events.next()).await, Some(Event::Refreshed))
}
