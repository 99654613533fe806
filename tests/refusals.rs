//! A token endpoint that refuses without a reason, or for one that nobody knows.

mod support;

use std::sync::Arc;

use mock_server::{Fault, Route};
use reqwest::Client;
use reqwest_reauth::{
    Error, LoginRequired, OAuth2Endpoint, RefreshError, RefreshToken, Session, TokenEndpoint,
    TokenResponse,
};
use serde_json::json;
use support::vault::User;
use support::{Fixture, endpoint, found, refresh_tokens_sent, soon, tokens};
use tokio::sync::Barrier;

const HTML: &str = "<html><body>no</body></html>";

/// The next refresh meets this; the error, after its cooldown is over.
async fn refused(t: &Fixture, fault: Fault) -> Error {
    t.server.on_next(Route::Token, 1, fault);
    let error = soon(t.session.refused(&t.session.access_token().await.unwrap())).await;
    let error = error.unwrap_err();
    tokio::time::sleep(error.retry_after().unwrap()).await;
    error
}

#[tokio::test]
async fn the_third_unreadable_refusal_in_a_row_asks_for_a_login_and_clears_nothing() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    for body in ["", HTML] {
        let error = refused(&t, Fault::status(400).body(body)).await;
        assert!(error.is_transient() && !error.is_login_required(), "{error:?}");
    }
    t.server.on_next(Route::Token, 1, Fault::status(401).body(HTML));
    let response = soon(t.send("things")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<LoginRequired>().is_some());
    assert!(t.session.is_logged_in().await.unwrap());
    assert!(t.record().is_some() && t.logouts.all().is_empty());
    assert_eq!(t.server.counters().token_requests, 3);
    // A login is the way out, and the count starts anew.
    t.session.log_in(tokens(&t.server.log_in("alice"))).await.unwrap();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    let error = refused(&t, Fault::status(400)).await;
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_reason_that_nobody_knows_is_none_and_one_that_means_later_asks_for_no_login() {
    let unknown = [
        json!({ "error": "interaction_required" }),
        json!({ "error": "refresh_token_reused" }),
        json!({ "error": "invalid_token" }),
        json!({ "error": { "code": 400, "message": "TOKEN_EXPIRED" } }),
        json!({ "message": "Unauthorized" }),
    ];
    for body in unknown {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        for _ in 0..2 {
            let error = refused(&t, Fault::status(400).json(&body)).await;
            assert!(error.is_transient() && !error.is_login_required(), "{body}: {error:?}");
        }
        t.server.on_next(Route::Token, 1, Fault::status(400).json(&body));
        let response = soon(t.send("things")).await.unwrap();
        assert_eq!(response.status(), 401, "{body}");
        assert!(response.extensions().get::<LoginRequired>().is_some(), "{body}");
        assert!(t.session.is_logged_in().await.unwrap(), "{body}");
        assert!(t.record().is_some() && t.logouts.all().is_empty(), "{body}");
        assert_eq!(t.server.counters().token_requests, 3, "{body}");
    }
    for code in ["slow_down", "temporarily_unavailable", "server_error", "authorization_pending"] {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        for _ in 0..3 {
            let error = refused(&t, Fault::status(400).json(&json!({ "error": code }))).await;
            assert!(error.is_transient() && !error.is_login_required(), "{code}: {error:?}");
        }
        assert_eq!(soon(t.get("things")).await.unwrap(), 200, "{code}");
    }
}

/// A program that runs for one call makes one refresh at most.
#[tokio::test]
async fn the_third_in_a_row_asks_for_a_login_whichever_programs_made_the_others() {
    let t = User::new();
    let (_, issued) = t.logged_in().await;
    t.server.expire_access_tokens();
    for n in 1..=4 {
        t.server.on_next(Route::Token, 1, Fault::status(400).body(HTML));
        let program = t.program();
        let error = soon(program.refused(&program.access_token().await.unwrap())).await;
        let error = error.unwrap_err();
        assert_eq!(error.is_login_required(), n > 2, "{n}: {error:?}");
        assert_eq!(error.is_transient(), n <= 2, "{n}: {error:?}");
        assert!(program.is_logged_in().await.unwrap());
        assert_eq!(t.server.counters().token_requests, n);
        tokio::time::sleep(error.retry_after().unwrap()).await;
    }
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    assert_eq!(refresh_tokens_sent(&t.server), [(); 5].map(|()| issued.refresh_token.clone()));
}

/// All of the refreshes have begun before one gets the lock.
struct AllAtOnce(OAuth2Endpoint, Arc<Barrier>);

#[async_trait::async_trait]
impl TokenEndpoint for AllAtOnce {
    fn id(&self) -> String {
        self.0.id()
    }

    async fn prepare(&self) -> Result<(), RefreshError> {
        self.1.wait().await;
        Ok(())
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        self.0.refresh(http, token).await
    }
}

#[tokio::test]
async fn programs_that_wait_in_line_for_the_third_are_told_with_it() {
    let t = User::new();
    t.logged_in().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 3, Fault::status(400).body(HTML));
    for _ in 0..2 {
        let program = t.program();
        let error = soon(program.refused(&program.access_token().await.unwrap())).await;
        tokio::time::sleep(error.unwrap_err().retry_after().unwrap()).await;
    }
    let begun = Arc::new(Barrier::new(5));
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let endpoint = AllAtOnce(endpoint(&t.server), Arc::clone(&begun));
        let builder = Session::builder("test", endpoint).origin(t.server.origin());
        let builder = builder.store(t.vault.clone()).state_dir(t.state.path().join("state"));
        let program = builder.build().unwrap();
        let token = program.access_token().await.unwrap();
        waiting.push(tokio::spawn(async move { program.refused(&token).await }));
    }
    for waiting in waiting {
        let error = soon(waiting).await.unwrap().unwrap_err();
        assert!(error.is_login_required() && !error.is_logged_out(), "{error:?}");
    }
    assert_eq!(t.server.counters().token_requests, 3);
}

#[tokio::test]
async fn a_server_that_comes_to_its_senses_is_used_again() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    for _ in 0..3 {
        refused(&t, Fault::status(400)).await;
    }
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn an_answer_of_another_kind_between_them_starts_the_count_anew() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let busy = || Fault::status(429).header("retry-after", "0");
    for fault in [Fault::status(400), Fault::status(400), busy(), Fault::status(400)] {
        let error = refused(&t, fault).await;
        assert!(error.is_transient() && !error.is_login_required(), "{error:?}");
    }
    // What isn't HTTP is told with an error, as there is no 401 to mark.
    refused(&t, Fault::status(403)).await;
    let error = refused(&t, Fault::status(403)).await;
    assert!(error.is_login_required() && !error.is_logged_out(), "{error:?}");
    let error = reqwest_middleware::Error::from(error);
    assert!(found(&error).to_string().contains("for no known reason"), "{error}");
}
