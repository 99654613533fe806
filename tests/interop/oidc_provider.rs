//! The suite at oidc-provider: rotation, and a spent refresh token that comes back ends the grant.

use crate::behaviour::{self, Refusals};
use crate::process::{Process, Program, installed, lasting_port, source};
use crate::server::NATIVE_ID;

/// With tokens of that lifetime, and that `expires_in`, in seconds.
pub fn start(lifetime: u64, said: u64) -> Process {
    Process::start(program(lifetime, said))
}

/// One with pages where a person logs in.
pub fn with_pages() -> Process {
    let mut program = program(300, 300);
    program.args.extend(["--native-id".to_owned(), NATIVE_ID.to_owned()]);
    Process::start(program)
}

fn program(lifetime: u64, said: u64) -> Program {
    let modules = installed("oidc-provider", "package-lock.json").join("node_modules");
    let args = [
        source("oidc-provider/server.mjs"),
        format!("--modules={}", modules.display()),
        format!("--ttl={lifetime}"),
        format!("--says={said}"),
    ];
    Program {
        command: "node".into(),
        args: args.into(),
        token_path: "/token",
        revocation_path: "/token/revocation",
    }
}

/// One whose tokens don't end by themselves.
fn fresh() -> Process {
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
async fn a_restart_of_the_server_costs_nobody_the_session() {
    let server = Process::start_at(program(300, 300), lasting_port());
    behaviour::a_restart_of_the_server_costs_nobody_the_session(server).await;
}

#[tokio::test]
async fn refusals_are_word_for_word() {
    let expected = Refusals {
        spent_token: Some((
            400,
            r#"{"error":"invalid_grant","error_description":"grant request is invalid"}"#,
        )),
        unknown_token: (
            400,
            r#"{"error":"invalid_grant","error_description":"grant request is invalid"}"#,
        ),
        wrong_secret: (
            401,
            r#"{"error":"invalid_client","error_description":"client authentication failed"}"#,
        ),
        unknown_client: (
            401,
            r#"{"error":"invalid_client","error_description":"client authentication failed"}"#,
        ),
    };
    behaviour::refusals_are_word_for_word(fresh(), expected).await;
}
