//! Tokens and rates that run out.

mod support;

use std::time::Duration;

use mock_server::{MockServer, What};
use support::{call, call_status, happened, header, refresh, refresh_request};

#[tokio::test]
async fn an_access_token_expires_after_its_time() {
    let ttl = Duration::from_secs(1);
    let server = MockServer::builder().access_ttl(ttl).start().unwrap();
    let session = server.log_in("alice");
    assert_eq!(call_status(&server, "/", &session.access_token).await, 200);
    tokio::time::sleep(ttl).await;
    assert_eq!(call_status(&server, "/", &session.access_token).await, 401);
    let counters = server.counters();
    assert_eq!((counters.api_ok, counters.api_unauthorized), (1, 1));
}

#[tokio::test]
async fn access_tokens_expire_on_demand_and_a_refresh_cures_it() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.expire_access_tokens();
    let answer = call(&server, "/", &session.access_token).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        header(&answer, "www-authenticate"),
        Some(
            "Bearer realm=\"mock\", error=\"invalid_token\", error_description=\"the token is expired\""
        )
    );
    let (_, next) = refresh(&server, &session.refresh_token).await;
    let access = next["access_token"].as_str().unwrap();
    assert_eq!(call_status(&server, "/", access).await, 200);
}

#[tokio::test]
async fn a_refresh_token_expires_after_its_time() {
    let ttl = Duration::from_millis(50);
    let server = MockServer::builder().refresh_ttl(ttl).start().unwrap();
    let session = server.log_in("alice");
    tokio::time::sleep(ttl).await;
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 400);
    assert_eq!(server.counters().invalid_grants, 1);
}

#[tokio::test]
async fn refresh_tokens_expire_on_demand() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.expire_refresh_tokens();
    let (status, body) = refresh(&server, &session.refresh_token).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(happened(&server, session.family)[1..], [(What::Expired, 0)]);
    assert_eq!(call_status(&server, "/", &session.access_token).await, 200);
    let later = server.log_in("alice");
    assert_eq!(refresh(&server, &later.refresh_token).await.0, 200);
}

#[tokio::test]
async fn over_the_rate_limit_a_refresh_is_429_and_spends_nothing() {
    let per = Duration::from_secs(60);
    let server = MockServer::builder().rate_limit(1, per).start().unwrap();
    let (one, two) = (server.log_in("alice"), server.log_in("bob"));
    assert_eq!(refresh(&server, &one.refresh_token).await.0, 200);
    let limited = refresh_request(&server, &two.refresh_token).send().await;
    let limited = limited.unwrap();
    assert_eq!(limited.status(), 429);
    let wait: u64 = header(&limited, "retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{wait}");
    assert!(server.is_current(&two.refresh_token));
    let counters = server.counters();
    assert_eq!((counters.rate_limited, counters.refreshes), (1, 1));
    assert_eq!(counters.token_requests, 2);
}

#[tokio::test]
async fn the_rate_limit_lets_requests_through_again_after_its_time() {
    let per = Duration::from_millis(100);
    let server = MockServer::builder().rate_limit(1, per).start().unwrap();
    let (one, two) = (server.log_in("alice"), server.log_in("bob"));
    assert_eq!(refresh(&server, &one.refresh_token).await.0, 200);
    tokio::time::sleep(per).await;
    assert_eq!(refresh(&server, &two.refresh_token).await.0, 200);
    assert_eq!(server.counters().rate_limited, 0);
}
