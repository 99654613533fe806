//! Hooks, event loops and endpoints that use the session they belong to.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mock_server::{MockServer, Route};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_reauth::{
    Error, Event, LogoutReason, MemoryStore, RefreshError, RefreshToken, Revocation, Session,
    TokenEndpoint, TokenResponse, TokenStore,
};
use support::steps::user;
use support::{Fixture, Turnstile, builder, client, found, soon, tokens, tokens_without_expiry};
use tokio::sync::mpsc;

#[tokio::test]
async fn an_on_logout_hook_may_use_its_session() {
    let server = MockServer::start();
    let own = Arc::new(Mutex::new(None::<Session>));
    let (tell, mut told) = mpsc::unbounded_channel();
    let next = tokens(&server.log_in("bob"));
    let hook = {
        let own = Arc::clone(&own);
        move |why| {
            let session = own.lock().unwrap().clone().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let logged_in = session.is_logged_in().await.unwrap();
                let token = session.access_token().await.map(|_| ());
                let status = session.status().await.unwrap();
                let login = session.log_in(next.clone()).await;
                session.drain().await;
                tell.send((why, logged_in, token, status.is_logged_in(), login)).unwrap();
            });
        }
    };
    let store = MemoryStore::new();
    let session = builder(&server).store(store.clone()).on_logout(hook).build().unwrap();
    *own.lock().unwrap() = Some(session.clone());
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();

    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    let (why, logged_in, token, status, login) = soon(told.recv()).await.unwrap();
    assert_eq!(why, LogoutReason::Requested);
    assert!(!logged_in && !status);
    assert_eq!(token.unwrap_err().logout_reason(), Some(LogoutReason::Requested));
    login.unwrap();
    soon(session.drain()).await;
    assert_eq!(user(&session, &server).await, "bob");
    assert!(store.load().unwrap().is_some());
    // Or the session would own itself.
    own.lock().unwrap().take();
}

#[tokio::test]
async fn a_hook_that_blocks_delays_no_request_and_no_login() {
    let server = MockServer::start();
    let turnstile = Turnstile::default();
    let hook = {
        let turnstile = turnstile.clone();
        move |_| turnstile.pass()
    };
    let store = MemoryStore::new();
    let session = builder(&server).store(store).on_logout(hook).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.revoke_user("alice");
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert!(found(&error).is_logged_out());
    turnstile.arrived().await;
    soon(session.log_in(tokens(&server.log_in("bob")))).await.unwrap();
    assert_eq!(user(&session, &server).await, "bob");
    turnstile.open();
    soon(session.drain()).await;
}

#[tokio::test]
async fn a_hook_that_panics_harms_nothing() {
    let server = MockServer::start();
    let hook = |_| panic!("the hook's own trouble");
    let store = MemoryStore::new();
    let session = builder(&server).store(store).on_logout(hook).build().unwrap();
    for user_name in ["alice", "bob"] {
        session.log_in(tokens(&server.log_in(user_name))).await.unwrap();
        assert_eq!(user(&session, &server).await, user_name);
        assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
        soon(session.drain()).await;
    }
}

#[tokio::test]
async fn a_loop_over_the_events_may_use_its_session() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    let watching = {
        let (session, next) = (t.session.clone(), tokens(&t.server.log_in("bob")));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::LoggedOut(_) => {
                        assert!(!session.is_logged_in().await.unwrap());
                        assert!(session.access_token().await.unwrap_err().is_logged_out());
                        session.log_in(next.clone()).await.unwrap();
                    }
                    Event::LoggedIn => return session.access_token().await.unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            panic!("the session has gone");
        })
    };
    soon(t.session.log_out()).await.unwrap();
    let token = soon(watching).await.unwrap();
    assert_eq!(token.secret(), t.session.access_token().await.unwrap().secret());
    assert_eq!(user(&t.session, &t.server).await, "bob");
}

/// Uses its own session, which it must not.
#[derive(Default)]
struct Circular {
    client: Mutex<Option<(ClientWithMiddleware, String)>>,
    session: Mutex<Option<Session>>,
    said: Mutex<Vec<Error>>,
}

struct CircularEndpoint(Arc<Circular>);

#[async_trait]
impl TokenEndpoint for CircularEndpoint {
    fn id(&self) -> String {
        "circular".to_owned()
    }

    async fn refresh(
        &self,
        _: &reqwest::Client,
        _: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let (client, url) = self.0.client.lock().unwrap().clone().unwrap();
        let session = self.0.session.lock().unwrap().clone().unwrap();
        let mut said = vec![found(&client.get(url).send().await.unwrap_err()).clone()];
        said.push(session.access_token().await.unwrap_err());
        said.push(session.log_in(TokenResponse::new("x")).await.unwrap_err());
        said.push(session.log_out().await.unwrap_err());
        // Waits for nothing, as it would wait for itself.
        session.drain().await;
        *self.0.said.lock().unwrap() = said;
        Err(RefreshError::not_sent("gave up"))
    }
}

#[tokio::test]
async fn a_token_endpoint_that_uses_its_own_session_gets_a_clear_error_and_no_deadlock() {
    for lifetime in [Duration::from_secs(300), Duration::from_millis(1)] {
        let server = MockServer::start();
        let own = Arc::new(Circular::default());
        let session = Session::builder("test", CircularEndpoint(Arc::clone(&own)))
            .origin(server.origin())
            .store(MemoryStore::new())
            .build()
            .unwrap();
        let client = client(&session);
        *own.client.lock().unwrap() = Some((client.clone(), server.api_url("inner")));
        *own.session.lock().unwrap() = Some(session.clone());
        let issued = server.log_in("alice");
        let given = tokens_without_expiry(&issued).expires_in(lifetime);
        session.log_in(given).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Found out by a 401, or by the clock.
        server.expire_access_tokens();
        let error = soon(client.get(server.api_url("outer")).send()).await.unwrap_err();
        assert!(found(&error).is_transient(), "{error:?}");

        let said = std::mem::take(&mut *own.said.lock().unwrap());
        assert_eq!(said.len(), 4);
        for error in said {
            let text = error.to_string();
            assert!(text.contains("its own session"), "{text}");
            assert!(!error.is_transient() && !error.is_logged_out(), "{text}");
        }
        assert!(session.is_logged_in().await.unwrap());
        for sent in server.requests(Route::Api) {
            assert_eq!(sent.path_and_query, "/api/outer");
        }
        own.client.lock().unwrap().take();
        own.session.lock().unwrap().take();
    }
}
