//! A program that is open all day and sends nothing.

mod support;

use std::time::Duration;

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{Event, Events};
use support::{Fixture, soon, tokens_without_expiry};

async fn short_lived() -> Fixture {
    let server = MockServer::builder().access_ttl(Duration::from_secs(2)).start().unwrap();
    Fixture::with(server, |builder| builder.min_refresh_interval(Duration::from_millis(100))).await
}

async fn refreshed(events: &mut Events) {
    while !matches!(soon(events.next()).await.unwrap(), Event::Refreshed) {}
}

#[tokio::test]
async fn it_refreshes_before_each_expiry_without_traffic_until_it_is_dropped() {
    let t = short_lived().await;
    let mut events = t.session.events();
    let keep_alive = t.session.keep_alive().unwrap();
    for _ in 0..2 {
        refreshed(&mut events).await;
    }
    drop(keep_alive);
    let after = t.server.counters();
    assert_eq!((after.refreshes, after.reuses), (2, 0));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn a_login_from_an_earlier_start_is_kept_alive_with_nothing_else_asked() {
    let t = short_lived().await;
    let builder = support::builder(&t.server).store(t.store.clone());
    let next = builder.min_refresh_interval(Duration::from_millis(100)).build().unwrap();
    drop((t.session, t.client));
    let mut events = next.events();
    let _keep_alive = next.keep_alive().unwrap();
    refreshed(&mut events).await;
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn it_refreshes_no_more_often_than_the_interval() {
    let server = MockServer::builder().access_ttl(Duration::from_millis(100)).start().unwrap();
    let t = Fixture::at(server).await;
    let mut events = t.session.events();
    let _keep_alive = t.session.keep_alive().unwrap();
    refreshed(&mut events).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(t.server.counters().refreshes, 1, "the default is ten seconds");
}

#[tokio::test]
async fn it_goes_on_over_a_failure_and_a_new_login() {
    let t = short_lived().await;
    let mut events = t.session.events();
    let _keep_alive = t.session.keep_alive().unwrap();
    t.server.on_next(Route::Token, 1, Fault::status(429));
    refreshed(&mut events).await;
    t.session.log_in(support::tokens(&t.server.log_in("bob"))).await.unwrap();
    refreshed(&mut events).await;
    assert_eq!(t.server.counters().reuses, 0);
}

#[tokio::test]
async fn a_refresh_token_that_lives_hardly_longer_than_the_access_token_is_kept_alive() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    // Nothing known of the access token; the refresh token lives for two seconds.
    let short = tokens_without_expiry(&t.issued).refresh_expires_in(Duration::from_secs(2));
    t.session.log_in(short).await.unwrap();
    let _keep_alive = t.session.keep_alive().unwrap();
    refreshed(&mut events).await;
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn it_keeps_the_session_open_and_ends_with_it() {
    let t = short_lived().await;
    let mut events = t.session.events();
    let keep_alive = t.session.keep_alive().unwrap();
    drop((t.session, t.client));
    refreshed(&mut events).await;
    drop(keep_alive);
    // The end of the session is the end of its events.
    while soon(events.next()).await.is_some() {}
    assert_eq!(t.server.counters().refreshes, 1);
}
