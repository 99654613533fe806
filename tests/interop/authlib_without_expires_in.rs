//! The suite at Authlib with token responses that don't say how long a token lives, which RFC 6749
//! §5.1 allows: only a 401 leads to a refresh.

use crate::authlib;
use crate::behaviour;
use crate::process::{Process, Program, lasting_port};

fn fresh() -> Process {
    Process::start(program(300, 0))
}

fn program(lifetime: u64, said: u64) -> Program {
    authlib::program(lifetime, said)
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
async fn a_restart_of_the_server_costs_nobody_the_session() {
    let server = Process::start_at(program(300, 0), lasting_port());
    behaviour::a_restart_of_the_server_costs_nobody_the_session(server).await;
}
