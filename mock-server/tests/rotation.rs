//! Rotation, and the grace that forgives a lost answer.

mod support;

use std::time::Duration;

use mock_server::{ExpiresIn, MockServer, What};
use serde_json::{Value, json};
use support::{call_status, happened, header, refresh, refresh_request};

#[tokio::test]
async fn a_refresh_replaces_both_tokens() {
    let server = MockServer::start();
    let first = server.log_in("alice");
    let (status, body) = refresh(&server, &first.refresh_token).await;

    assert_eq!(status, 200);
    assert_ne!(body["access_token"], json!(first.access_token));
    assert_ne!(body["refresh_token"], json!(first.refresh_token));
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 300);
    assert_eq!(body.get("refresh_expires_in"), None);
    let (access, token) = (&body["access_token"], &body["refresh_token"]);
    assert_eq!(call_status(&server, "/", access.as_str().unwrap()).await, 200);
    assert!(server.is_current(token.as_str().unwrap()));
    assert!(!server.is_current(&first.refresh_token));
    assert_eq!(server.current_refresh_token(first.family).as_deref(), token.as_str());
    assert_eq!(server.counters().refreshes, 1);
    assert_eq!(happened(&server, first.family), [(What::Login, 0), (What::Rotated, 1)]);
}

#[tokio::test]
async fn the_old_access_token_lives_on_after_a_refresh() {
    let server = MockServer::start();
    let first = server.log_in("alice");
    refresh(&server, &first.refresh_token).await;
    assert_eq!(call_status(&server, "/", &first.access_token).await, 200);
}

#[tokio::test]
async fn token_responses_are_not_to_be_cached() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let answer = refresh_request(&server, &session.refresh_token).send().await;
    let answer = answer.unwrap();
    assert_eq!(header(&answer, "cache-control"), Some("no-store"));
    assert_eq!(header(&answer, "content-type"), Some("application/json"));
}

#[tokio::test]
async fn without_rotation_the_refresh_token_stays_and_is_not_repeated() {
    let server = MockServer::builder().rotation(false).start().unwrap();
    let session = server.log_in("alice");
    assert!(session.json().contains("refresh_token"));
    for generation in 1..=3 {
        let (status, body) = refresh(&server, &session.refresh_token).await;
        assert_eq!(status, 200);
        assert_eq!(body.get("refresh_token"), None);
        assert_eq!(server.counters().refreshes, generation);
        let access = body["access_token"].as_str().unwrap();
        assert_eq!(call_status(&server, "/", access).await, 200);
    }
    assert!(server.is_current(&session.refresh_token));
    assert_eq!(server.counters().reuses, 0);
    assert_eq!(
        happened(&server, session.family)[1..],
        [(What::Refreshed, 1), (What::Refreshed, 2), (What::Refreshed, 3)]
    );
}

#[tokio::test]
async fn within_the_grace_window_a_spent_token_gets_the_same_successors() {
    let grace = Duration::from_secs(60);
    let server = MockServer::builder().grace(grace).start().unwrap();
    let session = server.log_in("alice");
    let (_, first) = refresh(&server, &session.refresh_token).await;
    let (status, again) = refresh(&server, &session.refresh_token).await;

    assert_eq!(status, 200);
    assert_eq!(again["access_token"], first["access_token"]);
    assert_eq!(again["refresh_token"], first["refresh_token"]);
    let counters = server.counters();
    assert_eq!((counters.refreshes, counters.grace_replays), (1, 1));
    assert_eq!((counters.reuses, counters.invalid_grants), (0, 0));
    assert!(server.family_alive(session.family));
    assert_eq!(
        happened(&server, session.family)[1..],
        [(What::Rotated, 1), (What::GraceReplay, 1)]
    );
}

#[tokio::test]
async fn after_the_grace_window_a_spent_token_is_reuse() {
    let grace = Duration::from_millis(30);
    let server = MockServer::builder().grace(grace).start().unwrap();
    let session = server.log_in("alice");
    refresh(&server, &session.refresh_token).await;
    tokio::time::sleep(2 * grace).await;
    let (status, body) = refresh(&server, &session.refresh_token).await;
    assert_eq!((status, &body["error"]), (400, &Value::from("invalid_grant")));
    assert_eq!(server.counters().reuses, 1);
    assert!(!server.family_alive(session.family));
}

#[tokio::test]
async fn a_revoked_family_gets_no_grace() {
    let grace = Duration::from_secs(60);
    let server = MockServer::builder().grace(grace).start().unwrap();
    let session = server.log_in("alice");
    refresh(&server, &session.refresh_token).await;
    server.revoke_family(session.family);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 400);
    assert_eq!(server.counters().reuses, 0);
}

#[test]
fn expires_in_says_what_it_is_told() {
    let said = |expires_in, ttl| {
        let server = MockServer::builder()
            .expires_in(expires_in)
            .access_ttl(Duration::from_millis(ttl))
            .refresh_expires_in(true)
            .start()
            .unwrap();
        let issued = server.log_in("alice");
        let body: Value = serde_json::from_str(&issued.json()).unwrap();
        assert_eq!(body["refresh_expires_in"], 86_400);
        (body.get("expires_in").cloned(), issued.expires_in)
    };
    assert_eq!(said(ExpiresIn::Truthful, 2_000), (Some(json!(2)), Some(2)));
    assert_eq!(said(ExpiresIn::Truthful, 2_001), (Some(json!(3)), Some(3)));
    assert_eq!(said(ExpiresIn::Truthful, 200), (Some(json!(1)), Some(1)));
    assert_eq!(said(ExpiresIn::Absent, 2_000), (None, None));
    let text = ExpiresIn::Value(json!("3600"));
    assert_eq!(said(text, 2_000), (Some(json!("3600")), None));
}

#[test]
fn the_debug_of_issued_tokens_does_not_show_them() {
    let server = MockServer::start();
    let issued = server.log_in("alice");
    let shown = format!("{issued:?} {server:?}");
    assert!(!shown.contains(&issued.access_token), "{shown}");
    assert!(!shown.contains(&issued.refresh_token), "{shown}");
}

#[test]
fn a_lifetime_may_be_as_long_as_there_are_numbers() {
    let forever = MockServer::builder()
        .access_ttl(Duration::MAX)
        .refresh_ttl(Duration::MAX)
        .grace(Duration::MAX);
    let server = forever.start().unwrap();
    assert!(server.is_current(&server.log_in("alice").refresh_token));
}
