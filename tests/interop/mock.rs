//! The suite at the mock server. Its tokens are in memory only: the restart is left to the others.

use std::time::Duration;

use mock_server::{ExpiresIn, MockServer};

use crate::behaviour::{self, Refusals};
use crate::server::{CLIENT_ID, CLIENT_SECRET};

/// With tokens of that lifetime, and that `expires_in`, in seconds.
pub fn start(lifetime: u64, said: u64) -> MockServer {
    MockServer::builder()
        .client(CLIENT_ID, CLIENT_SECRET)
        .access_ttl(Duration::from_secs(lifetime))
        .expires_in(ExpiresIn::Value(said.into()))
        .start()
        .unwrap()
}

/// One whose tokens don't end by themselves.
fn fresh() -> MockServer {
    start(300, 300)
}

#[tokio::test]
async fn a_refused_token_costs_one_refresh_and_the_request_succeeds() {
    behaviour::a_refused_token_costs_one_refresh_and_the_request_succeeds(fresh(), true).await;
}

#[tokio::test]
async fn a_token_that_has_ended_is_refreshed_before_anything_is_sent() {
    behaviour::a_token_that_has_ended_is_refreshed_before_anything_is_sent(fresh()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_requests_that_get_a_401_make_one_refresh() {
    behaviour::a_hundred_requests_that_get_a_401_make_one_refresh(fresh()).await;
}

#[tokio::test]
async fn eight_processes_at_expiry_make_one_refresh() {
    behaviour::eight_processes_at_expiry_make_one_refresh(fresh()).await;
}

#[tokio::test]
async fn a_revoked_grant_ends_the_session_with_one_post() {
    behaviour::a_revoked_grant_ends_the_session_with_one_post(fresh()).await;
}

#[tokio::test]
async fn a_logout_revokes_the_newest_refresh_token_at_the_server() {
    behaviour::a_logout_revokes_the_newest_refresh_token_at_the_server(fresh()).await;
}

#[tokio::test]
async fn a_wrong_client_secret_is_told_and_logs_nobody_out() {
    behaviour::a_wrong_client_secret_is_told_and_logs_nobody_out(fresh()).await;
}

#[tokio::test]
async fn refusals_are_word_for_word() {
    let expected = Refusals {
        spent_token: Some((
            400,
            r#"{"error":"invalid_grant","error_description":"the token was used before"}"#,
        )),
        unknown_token: (
            400,
            r#"{"error":"invalid_grant","error_description":"the token is unknown"}"#,
        ),
        wrong_secret: (
            401,
            r#"{"error":"invalid_client","error_description":"the client is not known by that name and secret"}"#,
        ),
        unknown_client: (
            401,
            r#"{"error":"invalid_client","error_description":"the client is not known by that name and secret"}"#,
        ),
    };
    behaviour::refusals_are_word_for_word(fresh(), expected).await;
}
