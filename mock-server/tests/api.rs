//! The protected API.

mod support;

use mock_server::MockServer;
use reqwest::redirect::Policy;
use support::{call, call_status, header, read};

#[tokio::test]
async fn with_a_good_token_the_api_says_what_arrived() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let request = reqwest::Client::new().put(server.api_url("/things?x=1&y=%20"));
    let request = request.bearer_auth(&token).header("x-a", "1");
    let (status, body) = read(request.body("abc").send().await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(body["user"], "alice");
    assert_eq!(body["method"], "PUT");
    assert_eq!(body["path"], "/api/things");
    assert_eq!(body["query"], "x=1&y=%20");
    assert_eq!(body["body"], "abc");
    assert_eq!(body["body_len"], 3);
    assert_eq!(body["body_hash"], "e71fa2190541574b");
    assert_eq!(body["headers"]["x-a"], "1");
    assert_eq!(body["headers"].get("authorization"), None);
}

#[tokio::test]
async fn a_large_body_is_told_by_its_hash() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let request = reqwest::Client::new().post(server.api_url("/upload"));
    let request = request.bearer_auth(&token).body(vec![7; 1 << 20]);
    let (_, body) = read(request.send().await.unwrap()).await;
    assert_eq!(body["body_len"], 1 << 20);
    assert!(body["body"].is_null());
    assert_eq!(body["body_hash"].as_str().unwrap().len(), 16);
}

#[tokio::test]
async fn without_a_token_the_challenge_has_no_error() {
    let server = MockServer::start();
    let answer = reqwest::get(server.api_url("/")).await.unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = header(&answer, "www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"mock\""));
    assert_eq!(server.counters().api_unauthorized, 1);
}

#[tokio::test]
async fn a_bad_token_is_invalid() {
    let server = MockServer::start();
    let answer = call(&server, "/", "at_unknown").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        header(&answer, "www-authenticate"),
        Some(
            "Bearer realm=\"mock\", error=\"invalid_token\", error_description=\"the token is unknown\""
        )
    );
    let refresh = server.log_in("alice").refresh_token;
    assert_eq!(call_status(&server, "/", &refresh).await, 401);
}

#[tokio::test]
async fn a_path_can_refuse_every_token() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    server.refuse_path("/api/forbidden");
    let answer = call(&server, "/forbidden?x=1", &token).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = header(&answer, "www-authenticate").unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    assert_eq!(call_status(&server, "/allowed", &token).await, 200);
    server.accept_path("/api/forbidden");
    assert_eq!(call_status(&server, "/forbidden", &token).await, 200);
}

#[tokio::test]
async fn special_paths_answer_as_they_say() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let get = async |path: &str| call(&server, path, &token).send().await.unwrap();

    assert_eq!(get("/status/418").await.status(), 418);
    assert_eq!(get("/status/99").await.status(), 404);
    assert_eq!(get("/slow?ms=1").await.status(), 200);
    let scope = get("/insufficient-scope").await;
    assert_eq!(scope.status(), 403);
    let challenge = header(&scope, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_scope\""));
    let step_up = get("/step-up").await;
    assert_eq!(step_up.status(), 401);
    let challenge = header(&step_up, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_user_authentication\""));
    assert!(challenge.contains("acr_values=\"high\""));
    let own = get("/challenge?value=DPoP%20error%3D%22use_dpop_nonce%22&value=Basic").await;
    assert_eq!(own.status(), 401);
    let values: Vec<_> = own.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(values, ["DPoP error=\"use_dpop_nonce\"", "Basic"]);
    let bare = get("/no-challenge").await;
    assert_eq!(bare.status(), 401);
    assert_eq!(header(&bare, "www-authenticate"), None);
}

#[tokio::test]
async fn a_redirect_needs_no_token() {
    let server = MockServer::start();
    let client = reqwest::Client::builder().redirect(Policy::none());
    let client = client.build().unwrap();
    let url = server.api_url("/redirect?to=http%3A%2F%2Fother.test%2Fx");
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 307);
    assert_eq!(header(&answer, "location"), Some("http://other.test/x"));
}

#[tokio::test]
async fn two_authorization_headers_are_an_invalid_request() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let twice = call(&server, "/", &token).header("authorization", "Basic eDp5");
    assert_eq!(twice.send().await.unwrap().status(), 400);
}
