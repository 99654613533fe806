//! What `OAuth2Endpoint` sends, and what it makes of answers that no server should give.

mod support;

use std::fs::File;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use mock_server::{Fault, MockServer, Recorded, Route};
use reqwest::Client;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_reauth::{
    BrowserLogin, ClientSecret, DeviceLogin, Error, FileStore, LogoutReason, MemoryStore,
    OAuth2Endpoint, RefreshError, RefreshToken, Session, TokenEndpoint, TokenResponse,
};
use serde_json::json;
use support::{
    Fixture, Turnstile, client, form, found, pairs, soon, tokens, tokens_without_expiry, wait_out,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

/// Logs in with `endpoint` as it is set up by the test, and refreshes once.
async fn refresh_with(server: &MockServer, endpoint: OAuth2Endpoint) -> Vec<Recorded> {
    let session = Session::builder("test", endpoint)
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    let response = client(&session).get(server.api_url("things")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    server.requests(Route::Token)
}

#[tokio::test]
async fn a_public_client_sends_its_id_and_no_credentials() {
    let server = MockServer::start();
    let requests = refresh_with(&server, OAuth2Endpoint::new(server.token_url(), "my-cli")).await;
    let expected =
        [("grant_type", "refresh_token"), ("refresh_token", "rt_"), ("client_id", "my-cli")];
    assert_eq!(form(&requests), pairs(&expected));
    assert_eq!(requests[0].method, "POST");
    assert_eq!(requests[0].path_and_query, "/token");
    assert_eq!(requests[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(requests[0].header("accept"), Some("application/json"));
    assert_eq!(requests[0].header("authorization"), None);
}

#[tokio::test]
async fn a_client_secret_goes_form_encoded_into_http_basic() {
    let (id, secret) = ("my cli:1", "p&ss: wörd%");
    let server = MockServer::builder().client(id, secret).start().unwrap();
    let endpoint = OAuth2Endpoint::new(server.token_url(), id).client_secret(secret);
    let requests = refresh_with(&server, endpoint).await;
    assert_eq!(
        form(&requests),
        pairs(&[("grant_type", "refresh_token"), ("refresh_token", "rt_")])
    );
    // base64("my+cli%3A1:p%26ss%3A+w%C3%B6rd%25")
    let basic = "Basic bXkrY2xpJTNBMTpwJTI2c3MlM0ErdyVDMyVCNnJkJTI1";
    assert_eq!(requests[0].header("authorization"), Some(basic));
}

#[tokio::test]
async fn a_client_secret_goes_as_it_is_to_servers_that_want_that() {
    let server = MockServer::start();
    let endpoint =
        OAuth2Endpoint::new(server.token_url(), "my cli").client_secret_unencoded("p&ss: wörd%");
    let requests = refresh_with(&server, endpoint).await;
    // base64("my cli:p&ss: wörd%")
    let basic = "Basic bXkgY2xpOnAmc3M6IHfDtnJkJQ==";
    assert_eq!(requests[0].header("authorization"), Some(basic));
}

#[tokio::test]
async fn a_client_secret_is_asked_for_at_each_refresh_and_nobody_is_kept_out_meanwhile() {
    let server = MockServer::builder().client("my-cli", "s&cret").start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let asked = Arc::new(AtomicUsize::new(0));
    let secret = {
        let (asked, lock) = (Arc::clone(&asked), path.with_extension("lock"));
        ClientSecret::ask(move || {
            // A person may be asked.
            File::open(&lock).unwrap().try_lock().unwrap();
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Err("the keychain is locked".to_owned()),
                _ => Ok("s&cret".to_owned()),
            }
        })
    };
    let endpoint = OAuth2Endpoint::new(server.token_url(), "my-cli").client_secret(secret);
    let session = Session::builder("test", endpoint).origin(server.origin());
    let session = session.store(FileStore::new(path)).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    let get = || soon(client(&session).get(server.api_url("things")).send());
    let error = get().await.unwrap_err();
    assert!(found(&error).is_transient(), "{error:?}");
    let text = format!("{:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.ends_with("secret could not be had: the keychain is locked"), "{text}");
    assert_eq!(server.counters().token_requests, 0);
    tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    assert_eq!(get().await.unwrap().status(), 200);
    assert_eq!((server.counters().refreshes, asked.load(Ordering::SeqCst)), (1, 2));
    server.expire_access_tokens();
    assert_eq!(get().await.unwrap().status(), 200);
    assert_eq!((server.counters().refreshes, asked.load(Ordering::SeqCst)), (2, 3));
}

/// An endpoint that tells when it is being made ready, and waits.
struct Watched {
    endpoint: OAuth2Endpoint,
    waiting: UnboundedSender<()>,
}

#[async_trait]
impl TokenEndpoint for Watched {
    fn id(&self) -> String {
        self.endpoint.id()
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        self.endpoint.refresh(http, token).await
    }

    async fn prepare(&self) -> Result<(), RefreshError> {
        let mut ready = self.endpoint.prepare();
        let begun = poll_fn(|context| Poll::Ready(ready.as_mut().poll(context))).await;
        let _ = self.waiting.send(());
        match begun {
            Poll::Ready(result) => result,
            Poll::Pending => ready.await,
        }
    }
}

#[tokio::test]
async fn who_needs_a_client_secret_that_is_being_asked_for_waits_for_the_same_answer() {
    let server = MockServer::builder().client("my-cli", "s&cret").start().unwrap();
    let (waiting, mut waits) = unbounded_channel();
    let asked = Turnstile::default();
    let secret = {
        let asked = asked.clone();
        ClientSecret::ask(move || {
            asked.pass();
            Ok("s&cret".to_owned())
        })
    };
    let endpoint = OAuth2Endpoint::new(server.token_url(), "my-cli").client_secret(secret);
    let mut clients = Vec::new();
    for user in ["alice", "bob"] {
        let endpoint = Watched { endpoint: endpoint.clone(), waiting: waiting.clone() };
        let session = Session::builder("test", endpoint).origin(server.origin());
        let session = session.store(MemoryStore::new()).build().unwrap();
        session.log_in(tokens(&server.log_in(user))).await.unwrap();
        clients.push(client(&session));
    }
    server.expire_access_tokens();
    let get = |client: &ClientWithMiddleware| {
        let request = client.get(server.api_url("things"));
        async move { request.send().await.map(|response| response.status().as_u16()) }
    };
    let answered = async {
        for _ in &clients {
            waits.recv().await.unwrap();
        }
        asked.open();
    };
    let requests = support::join_all(clients.iter().map(get));
    let (results, ()) = soon(async { tokio::join!(requests, answered) }).await;
    assert_eq!(support::statuses(results), [200, 200]);
    assert_eq!((server.counters().refreshes, asked.count()), (2, 1));
    // The next one is asked anew.
    server.expire_access_tokens();
    assert_eq!(soon(get(&clients[0])).await.unwrap(), 200);
    assert_eq!((server.counters().refreshes, asked.count()), (3, 2));
}

/// The error of a login whose client secret is not given before it has ended.
async fn error_without_secret<L>(log_in: impl FnOnce(OAuth2Endpoint) -> L) -> Error
where
    L: Future<Output = Result<TokenResponse, Error>>,
{
    let parked = Arc::new(Barrier::new(2));
    let secret = {
        let parked = Arc::clone(&parked);
        ClientSecret::ask(move || {
            parked.wait();
            Ok("s&cret".to_owned())
        })
    };
    let endpoint = OAuth2Endpoint::new("http://127.0.0.1:9/token", "my-cli").client_secret(secret);
    let begun = Instant::now();
    let result = timeout(Duration::from_secs(3600), log_in(endpoint)).await;
    let waited = begun.elapsed();
    parked.wait();
    let error = result.expect("it ends").unwrap_err();
    assert_eq!(waited, Duration::from_secs(120));
    error
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_two_minutes_for_its_client_secret_and_no_longer() {
    for error in [
        error_without_secret(|at| BrowserLogin::new(&at).run(|_| panic!("shown"))).await,
        error_without_secret(|at| DeviceLogin::new(&at).run(|_| panic!("told"))).await,
    ] {
        assert!(error.is_transient(), "{error:?}");
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(text.ends_with("was not ready in time"), "{text}");
    }
}

#[tokio::test]
async fn a_login_on_another_device_begins_with_the_client_id_once_whatever_the_secret() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::new(server.token_url(), "my-cli")
        .device_authorization_url(format!("{}/device_authorization", server.origin()));
    let (basic, id, secret) =
        (Some("Basic bXktY2xpOnM="), ("client_id", "my-cli"), ("client_secret", "s"));
    for (endpoint, header, expected) in [
        (endpoint.clone(), None, &[id][..]),
        (endpoint.clone().client_secret("s"), basic, &[id]),
        (endpoint.clone().client_secret_unencoded("s"), basic, &[id]),
        (endpoint.client_secret_in_body("s"), None, &[id, secret]),
    ] {
        let refused = json!({ "error": "invalid_scope" });
        server.on_next(Route::DeviceAuthorization, 2, Fault::status(400).json(&refused));
        for login in [
            DeviceLogin::new(&endpoint),
            // As a program did that knew of such a server.
            DeviceLogin::new(&endpoint).param("client_id", "my-cli"),
        ] {
            let error = soon(login.run(|_| panic!("told"))).await.unwrap_err();
            assert!(error.is_configuration(), "{error:?}");
            let asked = server.requests(Route::DeviceAuthorization).pop().unwrap();
            assert_eq!(asked.header("authorization"), header);
            assert_eq!(form(&[asked]), pairs(expected));
        }
    }
    assert_eq!(server.requests(Route::DeviceAuthorization).len(), 8);
}

#[tokio::test]
async fn an_error_code_of_the_servers_own_ends_the_session_where_it_is_an_alias() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::new(server.token_url(), "my-cli")
        .invalid_grant_alias("refresh_token_reused");
    let session = Session::builder("test", endpoint).origin(server.origin());
    let session = session.store(MemoryStore::new()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    let said = json!({ "error": "refresh_token_reused" });
    server.on_next(Route::Token, 1, Fault::status(401).json(&said));
    let error = soon(client(&session).get(server.api_url("things")).send()).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_client_secret_in_the_body_is_in_no_header() {
    let server = MockServer::builder().client("my-cli", "s&cret").start().unwrap();
    let endpoint =
        OAuth2Endpoint::new(server.token_url(), "my-cli").client_secret_in_body("s&cret");
    let requests = refresh_with(&server, endpoint).await;
    let expected = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "rt_"),
        ("client_id", "my-cli"),
        ("client_secret", "s&cret"),
    ];
    assert_eq!(form(&requests), pairs(&expected));
    assert_eq!(requests[0].header("authorization"), None);
}

#[tokio::test]
async fn parameters_and_headers_are_sent_with_every_refresh() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::new(server.token_url(), "my-cli")
        .param("scope", "read write")
        .param("resource", "https://api.example.com")
        .header("x-device-id", "d1")
        .header("user-agent", "my-cli/1.0");
    let requests = refresh_with(&server, endpoint).await;
    let expected = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "rt_"),
        ("scope", "read write"),
        ("resource", "https://api.example.com"),
        ("client_id", "my-cli"),
    ];
    assert_eq!(form(&requests), pairs(&expected));
    assert_eq!(requests[0].header("x-device-id"), Some("d1"));
    assert_eq!(requests[0].header("user-agent"), Some("my-cli/1.0"));
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    let (t, elsewhere) = (Fixture::new().await, MockServer::start());
    t.server.expire_access_tokens();
    let redirect = Fault::status(307).header("location", elsewhere.token_url());
    t.server.on_next(Route::Token, 1, redirect);
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_configuration());
    assert!(!found(&error).is_transient());
    assert_eq!(elsewhere.counters().token_requests, 0);
    assert!(t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn an_answer_of_a_mebibyte_is_read_and_a_longer_one_is_not() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(200).body(" ".repeat(1024 * 1024 + 1)));
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_transient());
    let wait = found(&error).retry_after();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(text.ends_with("the authorization server's answer is over 1 MiB"), "{text}");
    assert!(t.session.is_logged_in().await.unwrap());

    wait_out(wait).await;
    let answer = r#"{"error":"invalid_grant"}"#;
    let most = answer.to_owned() + &" ".repeat(1024 * 1024 - answer.len());
    t.server.on_next(Route::Token, 1, Fault::status(400).body(most));
    assert!(found(&soon(t.get("things")).await.unwrap_err()).is_logged_out());
    assert_eq!(t.server.counters().token_requests, 2);
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_refused_without_being_shown() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(
        Route::Token,
        1,
        Fault::rewrite(|json| json["access_token"] = "q7x\nz9k".into()),
    );
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_transient());
    assert!(!format!("{error:?} {error}").contains("z9k"));
}

#[tokio::test]
async fn the_error_says_what_the_server_answered() {
    for (status, body, expected) in [
        (
            400,
            r#"{"error":"invalid_scope"}"#,
            "the token endpoint refuses this program's request: the token endpoint answered 400 invalid_scope",
        ),
        (
            404,
            "",
            "the token endpoint refuses this program's request: the token endpoint answered 404: check its URL",
        ),
        (
            403,
            "<html>",
            "the access token could not be refreshed for now: the token endpoint answered 403",
        ),
    ] {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 1, Fault::status(status).body(body));
        let error = soon(t.get("things")).await.unwrap_err();
        assert_eq!(format!("{:#}", anyhow::Error::new(error)), expected);
        assert!(t.session.is_logged_in().await.unwrap());
    }
}

#[tokio::test]
async fn nobody_listening_is_transient_and_nothing_was_sent() {
    let server = MockServer::start();
    let issued = server.log_in("alice");
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = OAuth2Endpoint::new(format!("http://{unused}/token"), "test");
    let session = Session::builder("test", endpoint)
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens_without_expiry(&issued)).await.unwrap();
    server.expire_access_tokens();
    let error = client(&session).get(server.api_url("things")).send().await.unwrap_err();
    assert!(found(&error).is_transient());
    let text = format!("{:#}", anyhow::Error::new(error));
    let start = "the access token could not be refreshed for now: could not connect to the token endpoint: ";
    assert!(text.starts_with(start), "{text}");
    assert!(session.is_logged_in().await.unwrap());
}
