//! A server whose grace window is known: the lost answer is asked for again while that helps.

mod support;

use std::time::Duration;

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::OAuth2Endpoint;
use support::{Fixture, client, refresh_tokens_sent, soon, tokens};

/// Two seconds of grace, which the program knows of: it waits one for an answer.
async fn with_grace() -> (MockServer, reqwest_reauth::Session) {
    let server = MockServer::builder().grace(Duration::from_secs(60)).start().unwrap();
    told(server, Duration::from_secs(2)).await
}

/// A program that is told of so much grace.
async fn told(server: MockServer, grace: Duration) -> (MockServer, reqwest_reauth::Session) {
    let endpoint = OAuth2Endpoint::new(server.token_url(), "test").reuse_grace(grace);
    let session = reqwest_reauth::Session::builder("test", endpoint)
        .origin(server.origin())
        .store(reqwest_reauth::MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    (server, session)
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_asked_for_again_within_the_grace_window() {
    let (server, session) = with_grace().await;
    server.on_next(Route::Token, 1, Fault::Delay(Duration::from_secs(60)));
    let response = client(&session).get(server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    let counters = server.counters();
    assert_eq!((counters.refreshes, counters.grace_replays, counters.reuses), (1, 1, 0));
    let sent = refresh_tokens_sent(&server);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
}

#[tokio::test]
async fn the_first_answer_is_taken_if_it_comes_during_the_replay() {
    let (server, session) = with_grace().await;
    let both = server.hold(Route::Token);
    server.on_next(Route::Token, 1, Fault::Delay(Duration::ZERO));
    server.on_next(Route::Token, 1, Fault::Delay(Duration::from_secs(60)));
    let request = tokio::spawn(client(&session).get(server.api_url("things")).send());
    soon(both.arrived(2)).await;
    drop(both);
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    assert_eq!(server.counters().reuses, 0);
    assert_eq!(refresh_tokens_sent(&server).len(), 2);
}

#[tokio::test]
async fn a_replay_that_is_refused_does_not_hide_the_first_answer() {
    let (server, session) = with_grace().await;
    let both = server.hold(Route::Token);
    server.on_next(Route::Token, 1, Fault::Delay(Duration::from_secs(2)));
    let refused = serde_json::json!({ "error": "invalid_grant" });
    server.on_next(Route::Token, 1, Fault::status(400).json(&refused));
    let request = tokio::spawn(client(&session).get(server.api_url("things")).send());
    soon(both.arrived(2)).await;
    drop(both);
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    assert_eq!(refresh_tokens_sent(&server).len(), 2);
}

#[tokio::test]
async fn a_refusal_of_the_first_does_not_hide_the_answer_to_the_replay() {
    let (server, session) = with_grace().await;
    // The first one is refused while the second, which was handled, is on its way.
    let refused = serde_json::json!({ "error": "invalid_grant" });
    let first = server.hold(Route::Token);
    server.on_next(Route::Token, 1, Fault::status(400).json(&refused));
    let request = client(&session).get(server.api_url("things")).send();
    let request = tokio::spawn(request);
    soon(first.arrived(2)).await;
    drop(first);
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    assert_eq!((server.counters().refreshes, server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn where_neither_brings_tokens_the_servers_last_word_counts() {
    let (server, session) = with_grace().await;
    let refused = serde_json::json!({ "error": "invalid_grant" });
    let both = server.hold(Route::Token);
    server.on_next(Route::Token, 1, Fault::status(429));
    server.on_next(Route::Token, 1, Fault::status(400).json(&refused));
    let request = tokio::spawn(client(&session).get(server.api_url("things")).send());
    soon(both.arrived(2)).await;
    drop(both);
    let error = soon(request).await.unwrap().unwrap_err();
    let reason = support::found(&error).logout_reason();
    assert_eq!(reason, Some(reqwest_reauth::LogoutReason::RotationLost));
    assert_eq!(refresh_tokens_sent(&server).len(), 2);
}

#[tokio::test]
async fn a_window_of_nothing_sends_no_token_twice() {
    let (server, session) = told(MockServer::start(), Duration::ZERO).await;
    let response = client(&session).get(server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.refreshes, counters.reuses), (1, 1, 0));
}

#[tokio::test]
async fn without_a_known_window_a_slow_answer_is_waited_for() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::Delay(Duration::from_millis(1500)));
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 1);
}
