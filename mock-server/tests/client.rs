//! The token endpoint towards clients: authentication, mistakes.

mod support;

use mock_server::{MockServer, Route};
use serde_json::Value;
use support::{FORM, form, header, read};

/// Asks with a spent-proof login, so that only the client decides.
const LOGIN: &str = "grant_type=password&username=alice";

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn confidential() -> MockServer {
    let builder = MockServer::builder().client("my app", "s:e+c%r=t");
    builder.start().unwrap()
}

#[tokio::test]
async fn a_client_may_authenticate_with_basic() {
    let server = confidential();
    let login = || form(server.token_url(), LOGIN);
    // RFC 6749 §2.3.1: form-encoded before it is encoded for Basic.
    let right = login().basic_auth("my+app", Some("s%3Ae%2Bc%25r%3Dt"));
    assert_eq!(status(right).await, 200);
    let wrong = login().basic_auth("my+app", Some("other"));
    let wrong = wrong.send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    let challenge = header(&wrong, "www-authenticate");
    assert_eq!(challenge, Some("Basic realm=\"mock\""));
    assert_eq!(read(wrong).await.1["error"], "invalid_client");
    assert_eq!(server.counters().client_failures, 1);
    assert_eq!(server.counters().logins, 1);
}

#[tokio::test]
async fn a_client_may_authenticate_in_the_form() {
    let server = confidential();
    let with = |client: &str| form(server.token_url(), format!("{LOGIN}&{client}"));
    let secret = "client_secret=s%3Ae%2Bc%25r%3Dt";
    assert_eq!(status(with(&format!("client_id=my+app&{secret}"))).await, 200);
    assert_eq!(status(with(&format!("client_id=other&{secret}"))).await, 401);
    assert_eq!(status(with("client_id=my+app")).await, 401);
    assert_eq!(status(with("")).await, 401);
    let twice = with(&format!("client_id=my+app&{secret}"));
    assert_eq!(status(twice.basic_auth("my+app", Some("x"))).await, 400);
    assert_eq!(server.counters().client_failures, 3);
}

#[tokio::test]
async fn a_public_client_needs_only_its_name() {
    let server = MockServer::builder().client("app", None).start().unwrap();
    let with = |client: &str| form(server.token_url(), format!("{LOGIN}&{client}"));
    assert_eq!(status(with("client_id=app")).await, 200);
    assert_eq!(status(with("client_id=other")).await, 401);
    let basic = with("").basic_auth("app", Some(""));
    assert_eq!(status(basic).await, 200);
}

#[tokio::test]
async fn a_client_that_fails_spends_nothing() {
    let server = confidential();
    let session = server.log_in("alice");
    let (status, _) = support::refresh(&server, &session.refresh_token).await;
    assert_eq!(status, 401);
    assert!(server.is_current(&session.refresh_token));
    let body = format!("token={}", session.refresh_token);
    let revoke = form(server.revocation_url(), body).send().await.unwrap();
    assert_eq!(revoke.status(), 401);
    assert!(server.family_alive(session.family));
}

#[tokio::test]
async fn without_a_client_set_any_will_do() {
    let server = MockServer::start();
    let login = form(server.token_url(), LOGIN).basic_auth("any", Some("secret"));
    assert_eq!(status(login).await, 200);
}

#[tokio::test]
async fn mistakes_get_the_errors_of_rfc_6749() {
    let server = MockServer::start();
    let error = async |body: &str| {
        let answer = form(server.token_url(), body).send().await.unwrap();
        let (status, body) = read(answer).await;
        assert_eq!(status, 400);
        body["error"].clone()
    };
    let invalid = Value::from("invalid_request");
    assert_eq!(error("").await, invalid);
    assert_eq!(error("grant_type=refresh_token").await, invalid);
    assert_eq!(error("grant_type=refresh_token&refresh_token=").await, invalid);
    assert_eq!(error("grant_type=password").await, invalid);
    assert_eq!(error("grant_type=password&grant_type=password").await, invalid);
    let unsupported = Value::from("unsupported_grant_type");
    assert_eq!(error("grant_type=client_credentials").await, unsupported);
    assert_eq!(server.requests(Route::Token).len(), 6);
}

#[tokio::test]
async fn another_content_type_or_method_is_refused() {
    let server = MockServer::start();
    let client = reqwest::Client::new();
    let post = |kind| client.post(server.token_url()).header("content-type", kind);
    assert_eq!(status(post("application/json").body(LOGIN)).await, 400);
    let charset = format!("{FORM}; charset=UTF-8");
    assert_eq!(status(post(&charset).body(LOGIN)).await, 200);
    let get = client.get(server.token_url()).send().await.unwrap();
    assert_eq!(get.status(), 405);
    assert_eq!(header(&get, "allow"), Some("POST"));
}
