//! Each thing that can go wrong on purpose.

mod support;

use std::time::{Duration, Instant};

use mock_server::{Fault, MockServer, Route};
use serde_json::json;
use support::{call_status, header, refresh, refresh_request};

#[tokio::test]
async fn respond_answers_without_handling() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let fault = Fault::status(503)
        .header("retry-after", "7")
        .header("x-a", "1")
        .header("x-a", "2")
        .body("later");
    server.on_next(Route::Token, 1, fault);
    let answer = refresh_request(&server, &session.refresh_token).send().await;
    let answer = answer.unwrap();

    assert_eq!(answer.status(), 503);
    assert_eq!(header(&answer, "retry-after"), Some("7"));
    assert_eq!(answer.headers().get_all("x-a").iter().count(), 2);
    assert_eq!(answer.text().await.unwrap(), "later");
    let counters = server.counters();
    assert_eq!((counters.faults, counters.refreshes), (1, 0));
    assert_eq!(counters.token_requests, 1);
    assert_eq!(server.requests(Route::Token)[0].status, Some(503));
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 200);
}

#[tokio::test]
async fn respond_may_take_its_time() {
    let server = MockServer::start();
    let delay = Duration::from_millis(100);
    server.on_next(Route::Token, 1, Fault::status(503).after(delay));
    let begin = Instant::now();
    assert_eq!(refresh_request(&server, "any").send().await.unwrap().status(), 503);
    assert!(begin.elapsed() >= delay);
}

#[tokio::test]
async fn respond_may_have_json() {
    let server = MockServer::start();
    let error = json!({"error": "server_error"});
    server.on_next(Route::Token, 1, Fault::status(400).json(&error));
    assert_eq!(refresh(&server, "any").await, (400, error));
    assert_eq!(server.counters().invalid_grants, 0);
}

#[tokio::test]
async fn drop_before_handles_nothing() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.on_next(Route::Token, 1, Fault::DropBefore);
    let request = refresh_request(&server, &session.refresh_token);
    assert!(request.send().await.is_err());
    assert!(server.is_current(&session.refresh_token));
    assert_eq!(server.counters().refreshes, 0);
    assert_eq!(server.requests(Route::Token)[0].status, None);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 200);
}

#[tokio::test]
async fn drop_after_has_rotated_already() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.on_next(Route::Token, 1, Fault::DropAfter);
    let request = refresh_request(&server, &session.refresh_token);
    assert!(request.send().await.is_err());
    assert!(!server.is_current(&session.refresh_token));
    assert_eq!(server.counters().refreshes, 1);
    assert_eq!(server.requests(Route::Token)[0].status, None);
}

#[tokio::test]
async fn drop_half_sends_the_head_and_half_of_the_body() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.on_next(Route::Token, 1, Fault::DropHalf);
    let answer = refresh_request(&server, &session.refresh_token).send().await;
    let mut answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    let whole = answer.content_length().unwrap() as usize;
    let half = answer.chunk().await.unwrap().unwrap();
    assert_eq!(half.len(), whole / 2);
    assert!(answer.chunk().await.is_err());
    assert_eq!(server.counters().refreshes, 1);
    assert_eq!(server.requests(Route::Token)[0].status, Some(200));
}

#[tokio::test]
async fn delay_handles_at_once_and_answers_later() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let delay = Duration::from_millis(100);
    server.on_next(Route::Token, 1, Fault::Delay(delay));
    let since = Instant::now();
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 200);
    assert!(since.elapsed() >= delay);
}

#[tokio::test]
async fn a_caller_that_gives_up_during_a_delay_has_rotated() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.on_next(Route::Token, 1, Fault::Delay(Duration::from_secs(3600)));
    let handled = server.hold_answers(Route::Token);
    let request = refresh_request(&server, &session.refresh_token).send();
    let task = tokio::spawn(request);
    handled.arrived(1).await;
    handled.release();
    task.abort();
    assert!(!server.is_current(&session.refresh_token));
}

#[tokio::test]
async fn rewrite_alters_the_answer() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let fault = Fault::rewrite(|body| {
        body["token_type"] = "bearer".into();
        body["expires_in"] = "300".into();
    });
    server.on_next(Route::Token, 1, fault);
    let (status, body) = refresh(&server, &session.refresh_token).await;
    assert_eq!(status, 200);
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(body["expires_in"], "300");
    assert!(server.is_current(body["refresh_token"].as_str().unwrap()));
}

#[tokio::test]
async fn faults_queue_up_per_route() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    server.on_next(Route::Api, 2, Fault::status(502));
    server.on_next(Route::Api, 1, Fault::status(503));
    server.on_next(Route::Api, 0, Fault::status(504));
    server.on_next(Route::Revoke, 1, Fault::status(500));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(call_status(&server, "/", &token).await);
    }
    assert_eq!(seen, [502, 502, 503, 200]);
    let counters = server.counters();
    assert_eq!((counters.faults, counters.api_ok), (3, 1));
    assert_eq!(counters.api_requests, 4);
}

#[test]
#[should_panic(expected = "only Fault::Respond has headers")]
fn a_header_on_another_fault_is_a_mistake() {
    let _ = Fault::DropAfter.header("a", "b");
}
