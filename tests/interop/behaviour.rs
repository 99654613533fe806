//! What has to hold at every server.

use std::time::Duration;

use reqwest_middleware::ClientBuilder;
use reqwest_reauth::{Error, LogoutReason, Revocation};
use tokio::sync::Barrier;

use crate::process::Process;
use crate::server::{CLIENT_ID, CLIENT_SECRET, Server, State};
use crate::support::{found, join_all, soon, statuses};
use crate::user::{Together, User, refresh, tokens};
use crate::worker::{Program, Worker, together};

pub async fn a_refused_token_costs_one_refresh_and_the_request_succeeds(
    server: impl Server,
    rotates: bool,
) {
    let t = User::log_in(server).await;
    assert_eq!(soon(t.get()).await.unwrap(), 200);
    for n in 1..=3 {
        let before = t.refresh_token();
        t.server.expire_access_tokens().await;
        assert_eq!(soon(t.get()).await.unwrap(), 200);
        assert_eq!(t.refresh_token() != before, rotates);
        let state = State {
            token_requests: n,
            refreshes: n,
            reuses: 0,
            api_ok: n + 1,
            api_unauthorized: n,
            grants: 1,
        };
        assert_eq!(t.server.state().await, state);
    }
}

pub async fn a_token_that_has_ended_is_refreshed_before_anything_is_sent(server: impl Server) {
    let t = User::log_in(server).await;
    t.let_expire().await;
    assert_eq!(soon(t.get()).await.unwrap(), 200);
    let state = State { token_requests: 1, refreshes: 1, api_ok: 1, grants: 1, ..State::default() };
    assert_eq!(t.server.state().await, state);
}

pub async fn a_hundred_requests_that_get_a_401_make_one_refresh(server: impl Server) {
    let t = User::log_in(server).await;
    t.server.expire_access_tokens().await;
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(t.session.middleware())
        .with(Together(Barrier::new(100)))
        .build();
    let requests = (0..100).map(|n| client.get(t.server.api_url(&format!("things/{n}"))));
    let results = join_all(requests.map(|request| async move {
        request.send().await.map(|response| response.status().as_u16())
    }));
    assert_eq!(statuses(soon(results).await), [200; 100]);
    let state = State {
        token_requests: 1,
        refreshes: 1,
        reuses: 0,
        api_ok: 100,
        api_unauthorized: 100,
        grants: 1,
    };
    assert_eq!(t.server.state().await, state);
}

/// All have found the token over before one of them has the lock.
pub async fn eight_processes_at_expiry_make_one_refresh(server: impl Server) {
    let directory = tempfile::tempdir().unwrap();
    let program = Program {
        origin: server.origin(),
        token_url: server.token_url(),
        revocation_url: server.revocation_url(),
        client_id: CLIENT_ID.to_owned(),
        client_secret: Some(CLIENT_SECRET.to_owned()),
        account: "default".to_owned(),
        file: Some(directory.path().join("session")),
        state_dir: None,
        lock_wait: None,
        store_wait: None,
    };
    let issued = tokens(&server.log_in().await);
    let ended = issued.expires_in(Duration::from_millis(1));
    program.session().log_in(ended).await.unwrap();

    let mut programs: Vec<_> = (0..8).map(|_| Worker::stopping_at("waiting", &program)).collect();
    together(&mut programs, "get 5", "waiting");
    for program in &programs {
        assert_eq!(program.lines(5), ["200"; 5]);
    }
    let state =
        State { token_requests: 1, refreshes: 1, api_ok: 40, grants: 1, ..State::default() };
    assert_eq!(server.state().await, state);
}

pub async fn a_revoked_grant_ends_the_session_with_one_post(server: impl Server) {
    let t = User::log_in(server).await;
    t.server.revoke().await;
    for _ in 0..5 {
        let error = soon(t.get()).await.unwrap_err();
        assert!(found(&error).is_logged_out());
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    }
    let state = State { token_requests: 1, api_unauthorized: 1, ..State::default() };
    assert_eq!(t.server.state().await, state);
    soon(t.session.drain()).await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked]);
    assert!(!t.session.is_logged_in().await.unwrap());
}

pub async fn a_logout_revokes_the_newest_refresh_token_at_the_server(server: impl Server) {
    let t = User::log_in(server).await;
    t.server.expire_access_tokens().await;
    assert_eq!(soon(t.get()).await.unwrap(), 200);
    let token = t.refresh_token();
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Revoked);

    let (status, body) = refresh(&t.server, CLIENT_ID, CLIENT_SECRET, &token).await;
    assert_eq!((status, code(&body).as_str()), (400, "invalid_grant"));
    let state = State {
        token_requests: 2,
        refreshes: 1,
        api_ok: 1,
        api_unauthorized: 1,
        ..State::default()
    };
    assert_eq!(t.server.state().await, state);
}

pub async fn a_wrong_client_secret_is_told_and_logs_nobody_out(server: impl Server) {
    let t = User::with_secret(server, "wrong").await;
    t.let_expire().await;
    let error = soon(t.get()).await.unwrap_err();
    assert!(found(&error).is_configuration(), "{error:?}");
    assert!(t.session.is_logged_in().await.unwrap());
    let state = State { token_requests: 1, grants: 1, ..State::default() };
    assert_eq!(t.server.state().await, state);
}

pub async fn a_restart_of_the_server_costs_nobody_the_session(server: Process) {
    let mut t = User::log_in(server).await;
    // A refresh token that the server has issued by a rotation, not at the login.
    t.let_expire().await;
    assert_eq!(soon(t.get()).await.unwrap(), 200);
    let token = t.session.access_token().await.unwrap();

    t.server.kill();
    let error = soon(t.get()).await.unwrap_err();
    assert!(Error::find(&error).is_none(), "the API's own failure: {error:?}");
    let error = soon(t.session.refused(&token)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(t.session.is_logged_in().await.unwrap());
    let retry_after = error.retry_after().unwrap();

    t.server.start_again();
    t.server.expire_access_tokens().await;
    tokio::time::sleep(retry_after).await;
    assert_eq!(soon(t.get()).await.unwrap(), 200);
    let state = State {
        token_requests: 1,
        refreshes: 1,
        reuses: 0,
        api_ok: 1,
        api_unauthorized: 1,
        grants: 1,
    };
    assert_eq!(t.server.state().await, state);
    assert_eq!(t.logouts.all(), []);
}

/// What a server says to refreshes that it refuses: status and body, word for word. These are rows
/// of the table in `src/endpoint/answer.rs`, too.
pub struct Refusals {
    /// `None` where refresh tokens are not spent.
    pub spent_token: Option<(u16, &'static str)>,
    pub unknown_token: (u16, &'static str),
    pub wrong_secret: (u16, &'static str),
    pub unknown_client: (u16, &'static str),
}

pub async fn refusals_are_word_for_word(server: impl Server, expected: Refusals) {
    let answer = |(status, body): &(u16, &str)| (*status, (*body).to_owned());
    let ask = async |id, secret, token: &str| refresh(&server, id, secret, token).await;
    assert_eq!(ask(CLIENT_ID, CLIENT_SECRET, "unknown").await, answer(&expected.unknown_token));

    let issued = server.log_in().await;
    let token = issued["refresh_token"].as_str().unwrap();
    assert_eq!(ask(CLIENT_ID, "wrong", token).await, answer(&expected.wrong_secret));
    assert_eq!(ask("nobody", CLIENT_SECRET, token).await, answer(&expected.unknown_client));
    assert_eq!(ask(CLIENT_ID, CLIENT_SECRET, token).await.0, 200);
    let again = ask(CLIENT_ID, CLIENT_SECRET, token).await;
    let state = server.state().await;
    match &expected.spent_token {
        Some(refusal) => {
            assert_eq!(again, answer(refusal));
            assert_eq!((state.refreshes, state.reuses, state.grants), (1, 1, 0));
        }
        None => {
            assert_eq!(again.0, 200);
            assert_eq!((state.refreshes, state.reuses, state.grants), (2, 0, 1));
        }
    }
    assert_eq!(state.token_requests, 5);
}

/// The error code of an error response (RFC 6749 §5.2).
fn code(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}
