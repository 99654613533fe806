//! Sessions bound to the headers of their login.

mod support;

use mock_server::{MockServer, Route, What};
use reqwest::StatusCode;
use support::{call, form, happened, read, refresh_request};

fn bound() -> MockServer {
    let builder = MockServer::builder().bind_context(["x-device-id", "user-agent"]);
    builder.start().unwrap()
}

#[tokio::test]
async fn a_refresh_from_another_context_is_refused_and_spends_nothing() {
    let server = bound();
    let session = server.log_in_from("alice", &[("x-device-id", "d1")]);
    let refresh = |device| {
        let request = refresh_request(&server, &session.refresh_token);
        request.header("x-device-id", device).send()
    };
    let (status, body) = read(refresh("d2").await.unwrap()).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"], "invalid_grant");
    assert!(server.is_current(&session.refresh_token));
    assert_eq!(refresh("d1").await.unwrap().status(), StatusCode::OK);

    let counters = server.counters();
    assert_eq!((counters.context_mismatches, counters.reuses), (1, 0));
    assert_eq!((counters.refreshes, counters.invalid_grants), (1, 1));
    assert_eq!(
        happened(&server, session.family)[1..],
        [(What::ContextRefused, 0), (What::Rotated, 1)]
    );
}

#[tokio::test]
async fn an_api_request_from_another_context_is_refused() {
    let server = bound();
    let session = server.log_in_from("alice", &[("X-Device-Id", "d1")]);
    let call = || call(&server, "/", &session.access_token);
    let answer = call().header("x-device-id", "d1").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = call().send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = support::header(&answer, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert_eq!(server.counters().context_mismatches, 1);
}

#[tokio::test]
async fn a_header_absent_at_login_must_stay_absent() {
    let server = bound();
    let session = server.log_in_from("alice", &[("x-device-id", "d1")]);
    let call = call(&server, "/", &session.access_token).header("x-device-id", "d1");
    let answer = call.header("user-agent", "other").send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn a_login_over_http_is_bound_to_its_headers() {
    let server = bound();
    let login = form(server.token_url(), "grant_type=password&username=alice");
    let login = login.header("x-device-id", "d1").send().await.unwrap();
    let (_, body) = read(login).await;
    let token = body["refresh_token"].as_str().unwrap();
    let refused = refresh_request(&server, token).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let request = refresh_request(&server, token).header("x-device-id", "d1");
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(server.requests(Route::Token).len(), 3);
}

#[tokio::test]
async fn a_login_without_context_is_not_bound() {
    let server = bound();
    let session = server.log_in("alice");
    let request = refresh_request(&server, &session.refresh_token);
    let answer = request.header("x-device-id", "any").send().await.unwrap();
    assert_eq!(answer.status(), 200);
}
