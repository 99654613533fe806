//! Start, end, and what must not go unnoticed in between.

mod support;

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mock_server::{Fault, MockServer, Route};
use support::{call, call_status};

#[test]
fn a_server_starts_in_a_moment() {
    let since = Instant::now();
    drop(MockServer::start());
    // It takes two milliseconds; a machine that is busy takes longer.
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn dropping_the_server_frees_its_port() {
    let server = MockServer::start();
    let addr = server.addr();
    drop(server);
    drop(TcpListener::bind(addr).unwrap());
    let again = MockServer::builder().addr(addr).start().unwrap();
    assert_eq!(again.addr(), addr);
}

#[test]
fn a_port_in_use_is_an_error() {
    let server = MockServer::start();
    let error = MockServer::builder().addr(server.addr()).start();
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn dropping_the_server_closes_idle_connections_at_once() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let client = reqwest::Client::new();
    let url = server.api_url("/");
    let answer = client.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let since = Instant::now();
    drop(server);
    assert!(since.elapsed() < Duration::from_secs(5));
    assert!(client.get(&url).send().await.is_err());
}

#[tokio::test]
async fn a_panic_in_a_handler_surfaces_when_the_server_is_dropped() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let fault = Fault::rewrite(|_| panic!("this test broke the mock"));
    server.on_next(Route::Api, 1, fault);
    assert!(call(&server, "/", &token).send().await.is_err());
    // The others are still served.
    assert_eq!(call_status(&server, "/", &token).await, 200);
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(server)));
    let message = dropped.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("this test broke the mock"), "{message}");
}

#[tokio::test]
async fn a_test_that_panics_already_is_not_aborted() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    server.on_next(Route::Api, 1, Fault::rewrite(|_| panic!("inner")));
    assert!(call(&server, "/", &token).send().await.is_err());
    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _server = server;
        panic!("outer");
    }));
    let message = caught.unwrap_err();
    assert_eq!(message.downcast_ref::<&str>(), Some(&"outer"));
}

#[test]
fn servers_are_independent() {
    let (one, two) = (MockServer::start(), MockServer::start());
    assert_ne!(one.origin(), two.origin());
    one.log_in("alice");
    assert_eq!((one.counters().logins, two.counters().logins), (1, 0));
}

#[test]
fn a_server_may_be_shared_between_threads() {
    fn shareable<T: Send + Sync>() {}
    shareable::<MockServer>();
    shareable::<mock_server::Hold>();
    shareable::<mock_server::Builder>();
}
