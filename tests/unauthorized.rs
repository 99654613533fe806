//! An API that says in its own way that a token has expired.

mod support;

use mock_server::{Fault, MockServer, Route};
use support::{Fixture, soon};

async fn told_by(is: fn(&reqwest::Response) -> bool) -> Fixture {
    Fixture::with(MockServer::start(), |builder| builder.unauthorized_if(is)).await
}

#[tokio::test]
async fn a_status_of_the_apis_own_leads_to_one_refresh_and_one_replay() {
    let t = told_by(|response| response.status().as_u16() == 419).await;
    t.server.on_next(Route::Api, 1, Fault::status(419));
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.api_requests), (1, 2));
    // A plain 401 still does as well.
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 2);
}

#[tokio::test]
async fn a_header_on_an_answer_that_looks_good_can_say_it_too() {
    let t = told_by(|response| response.headers().contains_key("x-token-expired")).await;
    t.server.on_next(Route::Api, 1, Fault::status(200).header("x-token-expired", "1"));
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_second_one_is_returned_without_a_third_send() {
    let t = told_by(|response| response.status() == 403).await;
    t.server.on_next(Route::Api, 2, Fault::status(403));
    assert_eq!(soon(t.get("things")).await.unwrap(), 403);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.api_requests), (1, 2));
}

#[tokio::test]
async fn a_challenge_that_says_otherwise_still_counts() {
    let t = told_by(|response| response.status() == 403).await;
    let challenge = r#"Bearer error="insufficient_scope""#;
    t.server.on_next(Route::Api, 1, Fault::status(403).header("www-authenticate", challenge));
    assert_eq!(soon(t.get("things")).await.unwrap(), 403);
    let counters = t.server.counters();
    assert_eq!((counters.token_requests, counters.api_requests), (0, 1));
}

#[tokio::test]
async fn a_403_is_the_callers_unless_the_program_says_otherwise() {
    let t = Fixture::new().await;
    t.server.on_next(Route::Api, 1, Fault::status(403));
    assert_eq!(soon(t.get("things")).await.unwrap(), 403);
    assert_eq!(t.server.counters().token_requests, 0);
}
