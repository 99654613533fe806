//! Revocation, over HTTP and by the controls.

mod support;

use mock_server::{MockServer, What};
use support::{call_status, form, happened, refresh};

async fn revoke(server: &MockServer, body: &str) -> u16 {
    let answer = form(server.revocation_url(), body).send().await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn revoking_a_refresh_token_ends_the_family() {
    let server = MockServer::start();
    let (session, other) = (server.log_in("alice"), server.log_in("alice"));
    let body = format!("token={}&token_type_hint=refresh_token", session.refresh_token);
    assert_eq!(revoke(&server, &body).await, 200);
    assert_eq!(revoke(&server, &body).await, 200);
    assert!(!server.family_alive(session.family));
    assert!(server.family_alive(other.family));
    assert_eq!(call_status(&server, "/", &session.access_token).await, 401);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 400);
    let counters = server.counters();
    assert_eq!((counters.revocations, counters.reuses), (1, 0));
    assert_eq!(happened(&server, session.family)[1..], [(What::Revoked, 0)]);
}

#[tokio::test]
async fn revoking_an_access_token_ends_the_family_too() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let body = format!("token={}", session.access_token);
    assert_eq!(revoke(&server, &body).await, 200);
    assert!(!server.family_alive(session.family));
}

#[tokio::test]
async fn an_unknown_token_is_revoked_already() {
    let server = MockServer::start();
    assert_eq!(revoke(&server, "token=unknown").await, 200);
    assert_eq!(revoke(&server, "").await, 400);
    assert_eq!(server.counters().revocations, 0);
}

#[tokio::test]
async fn controls_revoke_a_user_or_a_family() {
    let server = MockServer::start();
    let (one, two) = (server.log_in("alice"), server.log_in("alice"));
    let bob = server.log_in("bob");
    server.revoke_family(one.family);
    assert!(server.family_alive(two.family));
    server.revoke_user("alice");
    assert!(!server.family_alive(two.family));
    assert!(server.family_alive(bob.family));
    assert_eq!(server.counters().revocations, 2);
}
