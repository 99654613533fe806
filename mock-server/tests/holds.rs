//! Requests parked where a race would happen.

mod support;

use std::time::{Duration, Instant};

use mock_server::{MockServer, Route};
use support::{call, refresh, refresh_request};

#[tokio::test]
async fn a_hold_parks_requests_before_they_are_handled() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let hold = server.hold(Route::Token);
    let request = refresh_request(&server, &session.refresh_token).send();
    let task = tokio::spawn(request);
    hold.arrived(1).await;

    assert_eq!(hold.count(), 1);
    assert!(server.is_current(&session.refresh_token));
    assert_eq!(server.counters().token_requests, 1);
    assert_eq!(server.requests(Route::Token)[0].status, None);
    hold.release();
    assert_eq!(task.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.requests(Route::Token)[0].status, Some(200));
}

#[tokio::test]
async fn held_answers_belong_to_handled_requests() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let hold = server.hold_answers(Route::Token);
    let request = refresh_request(&server, &session.refresh_token).send();
    let task = tokio::spawn(request);
    hold.arrived(1).await;
    assert!(!server.is_current(&session.refresh_token));
    assert_eq!(server.counters().refreshes, 1);
    drop(hold);
    assert_eq!(task.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn after_its_release_a_hold_parks_no_more() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    server.hold(Route::Token).release();
    server.hold_answers(Route::Token).release();
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 200);
}

#[tokio::test]
async fn a_hold_leaves_other_routes_alone() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let hold = server.hold(Route::Api);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 200);
    assert_eq!(hold.count(), 0);
}

#[tokio::test]
async fn a_request_whose_caller_left_is_handled_after_the_release() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let hold = server.hold(Route::Token);
    let request = refresh_request(&server, &session.refresh_token).send();
    let task = tokio::spawn(request);
    hold.arrived(1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(server.counters().refreshes, 0);

    let request = refresh_request(&server, "rt_unknown").send();
    let task = tokio::spawn(request);
    hold.arrived(2).await;
    hold.release();
    assert_eq!(task.await.unwrap().unwrap().status(), 400);
    until(|| server.counters().refreshes == 1).await;
    assert_eq!(server.counters().token_requests, 2);
}

#[tokio::test]
async fn a_barrier_releases_its_requests_together() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    server.barrier(Route::Api, 3);
    let call = || tokio::spawn(call(&server, "/", &token).send());
    let (first, second) = (call(), call());
    until(|| server.counters().api_requests == 2).await;
    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(server.counters().api_ok, 0);
    let third = call();
    for task in [first, second, third] {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
    // The barrier is used up.
    assert_eq!(call().await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn two_barriers_fill_one_after_the_other() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    server.barrier(Route::Api, 2);
    server.barrier(Route::Api, 1);
    let call = || tokio::spawn(call(&server, "/", &token).send());
    for task in [call(), call(), call()] {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_a_barrier_does_not_wedge_it() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    server.barrier(Route::Api, 2);
    let call = || tokio::spawn(call(&server, "/", &token).send());
    let leaving = call();
    until(|| server.counters().api_requests == 1).await;
    leaving.abort();
    assert_eq!(call().await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_hold_does_not_care_about_a_paused_clock() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let hold = server.hold(Route::Token);
    let request = refresh_request(&server, &session.refresh_token).send();
    let task = tokio::spawn(request);
    let before = tokio::time::Instant::now();
    hold.arrived(1).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    hold.release();
    assert_eq!(task.await.unwrap().unwrap().status(), 200);
}

#[test]
fn without_a_runtime_arrivals_are_waited_for_by_blocking() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let hold = server.hold(Route::Token);
    let request = refresh_request(&server, &session.refresh_token);
    let caller = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(request.send()).unwrap().status()
    });
    hold.arrived_blocking(1);
    hold.release();
    assert_eq!(caller.join().unwrap(), 200);
}

#[tokio::test]
async fn a_server_stops_with_requests_parked() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let hold = server.hold(Route::Api);
    let task = tokio::spawn(call(&server, "/", &token).send());
    hold.arrived(1).await;
    let since = Instant::now();
    drop(server);
    assert!(since.elapsed() < Duration::from_secs(5));
    assert!(task.await.unwrap().is_err());
    hold.release();
}

#[tokio::test]
#[should_panic(expected = "the server stopped before 1 requests arrived")]
async fn waiting_for_arrivals_at_a_stopped_server_is_a_mistake() {
    let server = MockServer::start();
    let hold = server.hold(Route::Api);
    drop(server);
    hold.arrived(1).await;
}

/// Lets the tasks of the test run until the server got there.
async fn until(there: impl Fn() -> bool) {
    let since = Instant::now();
    while !there() {
        assert!(since.elapsed() < Duration::from_secs(30));
        tokio::task::yield_now().await;
    }
}
