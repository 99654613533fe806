//! A spent refresh token that comes back.

mod support;

use mock_server::{MockServer, Reuse, Route, What};
use support::{call_status, happened, refresh};

#[tokio::test]
async fn reuse_revokes_the_family_and_no_other() {
    let server = MockServer::start();
    let (stolen, other) = (server.log_in("alice"), server.log_in("alice"));
    let (_, next) = refresh(&server, &stolen.refresh_token).await;
    let (status, body) = refresh(&server, &stolen.refresh_token).await;

    assert_eq!(status, 400);
    assert_eq!(body["error"], "invalid_grant");
    assert!(!server.family_alive(stolen.family));
    assert_eq!(server.current_refresh_token(stolen.family), None);
    let next_access = next["access_token"].as_str().unwrap();
    let next_refresh = next["refresh_token"].as_str().unwrap();
    assert_eq!(call_status(&server, "/", next_access).await, 401);
    assert_eq!(refresh(&server, next_refresh).await.0, 400);
    assert_eq!(refresh(&server, &other.refresh_token).await.0, 200);
    let counters = server.counters();
    assert_eq!((counters.reuses, counters.invalid_grants), (1, 2));
    assert_eq!(counters.revocations, 0);
    assert_eq!(
        happened(&server, stolen.family),
        [(What::Login, 0), (What::Rotated, 1), (What::Reuse, 0), (What::Revoked, 1)]
    );
}

#[tokio::test]
async fn reuse_may_revoke_every_family_of_the_user() {
    let server = MockServer::builder().reuse(Reuse::RevokeUser).start().unwrap();
    let (stolen, other) = (server.log_in("alice"), server.log_in("alice"));
    let bob = server.log_in("bob");
    refresh(&server, &stolen.refresh_token).await;
    refresh(&server, &stolen.refresh_token).await;
    assert!(!server.family_alive(stolen.family));
    assert!(!server.family_alive(other.family));
    assert!(server.family_alive(bob.family));
    assert_eq!(call_status(&server, "/", &other.access_token).await, 401);
    assert_eq!(call_status(&server, "/", &bob.access_token).await, 200);
}

#[tokio::test]
async fn reuse_may_be_ignored() {
    let server = MockServer::builder().reuse(Reuse::Ignore).start().unwrap();
    let session = server.log_in("alice");
    let (_, next) = refresh(&server, &session.refresh_token).await;
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 400);
    assert_eq!(server.counters().reuses, 1);
    let next = next["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&server, next).await.0, 200);
}

#[tokio::test]
async fn of_simultaneous_refreshes_one_succeeds_and_each_other_is_reuse() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.barrier(Route::Token, 8);
    let refreshes =
        (0..8).map(|_| support::refresh_request(&server, &session.refresh_token).send());
    let tasks: Vec<_> = refreshes.map(tokio::spawn).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let counters = server.counters();
    assert_eq!((counters.refreshes, counters.reuses), (1, 7));
    assert_eq!(counters.token_requests, 8);
}

#[tokio::test]
async fn an_unknown_refresh_token_is_no_reuse() {
    let server = MockServer::start();
    let (status, body) = refresh(&server, "rt_unknown").await;
    assert_eq!(status, 400);
    assert_eq!(body["error"], "invalid_grant");
    let counters = server.counters();
    assert_eq!((counters.invalid_grants, counters.reuses), (1, 0));
}
