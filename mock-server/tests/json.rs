//! Login and refresh in the JSON style.

mod support;

use mock_server::{MockServer, Route};
use serde_json::{Value, json};
use support::{call_status, read, refresh};

async fn post(url: String, body: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(url).body(body.to_string());
    let request = request.header("content-type", "application/json; charset=utf-8");
    read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn json_logins_and_refreshes_speak_camel_case() {
    let server = MockServer::start();
    let login = json!({"username": "alice", "password": "any"});
    let (status, body) = post(server.login_json_url(), &login).await;
    assert_eq!(status, 200);
    assert_eq!(body["expiresIn"], 300);
    let access = body["accessToken"].as_str().unwrap();
    assert_eq!(call_status(&server, "/", access).await, 200);

    let spent = json!({"refreshToken": body["refreshToken"]});
    let (status, next) = post(server.refresh_json_url(), &spent).await;
    assert_eq!(status, 200);
    assert_ne!(next["refreshToken"], body["refreshToken"]);
    let counters = server.counters();
    assert_eq!((counters.logins, counters.refreshes), (1, 1));
    assert_eq!(counters.token_requests, 1);

    let (status, refused) = post(server.refresh_json_url(), &spent).await;
    assert_eq!(status, 401);
    assert_eq!(refused, json!({"error": "refresh_token_invalid"}));
    assert_eq!(server.counters().reuses, 1);
    assert!(!server.family_alive(server.families()[0]));
}

#[tokio::test]
async fn both_refresh_routes_know_the_same_families() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let (_, body) = refresh(&server, &session.refresh_token).await;
    let next = json!({"refreshToken": body["refresh_token"]});
    let (status, body) = post(server.refresh_json_url(), &next).await;
    assert_eq!(status, 200);
    let token = body["refreshToken"].as_str().unwrap();
    assert_eq!(server.family_of(token), Some(session.family));
    assert_eq!(server.generation_of(token), Some(2));
    assert_eq!(server.generation_of(&session.access_token), Some(0));
    assert_eq!(server.generation_of("rt_unknown"), None);
    assert_eq!(server.requests(Route::RefreshJson).len(), 1);
}

#[tokio::test]
async fn without_the_member_it_is_an_invalid_request() {
    let server = MockServer::start();
    let (status, body) = post(server.refresh_json_url(), &json!({"refresh": 1})).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"], "invalid_request");
    let (status, _) = post(server.login_json_url(), &json!("alice")).await;
    assert_eq!(status, 400);
}
