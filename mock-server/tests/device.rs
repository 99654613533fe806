//! Logins on another device.

mod support;

use std::time::Duration;

use mock_server::MockServer;
use reqwest::Client;
use serde_json::{Value, json};
use support::{form, logged, read};

async fn begin(server: &MockServer) -> Value {
    let begin = form(server.device_authorization_url(), "client_id=app");
    let (status, body) = read(begin.send().await.unwrap()).await;
    assert_eq!(status, 200);
    body
}

async fn poll(server: &MockServer, device: &Value) -> (u16, Value) {
    let code = device["device_code"].as_str().unwrap();
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    let body = format!("grant_type={grant}&client_id=app&device_code={code}");
    read(form(server.token_url(), body).send().await.unwrap()).await
}

/// A server that may be asked at once again.
fn patient() -> MockServer {
    MockServer::builder().device_interval(Some(Duration::ZERO)).start().unwrap()
}

fn user_code(device: &Value) -> &str {
    device["user_code"].as_str().unwrap()
}

async fn error(server: &MockServer, device: &Value) -> Value {
    let (status, body) = poll(server, device).await;
    assert_eq!(status, 400);
    body["error"].clone()
}

#[tokio::test]
async fn a_code_says_where_and_how_long_it_can_be_entered() {
    let server = MockServer::start();
    let device = begin(&server).await;
    let (uri, code) = (format!("{}/device", server.origin()), user_code(&device));
    assert_eq!(device["verification_uri"], json!(uri));
    assert_eq!(device["verification_uri_complete"], json!(format!("{uri}?user_code={code}")));
    assert_eq!((&device["expires_in"], &device["interval"]), (&json!(600), &json!(1)));
    let letters = |part: &str| part.len() == 4 && part.chars().all(|c| c.is_ascii_uppercase());
    assert!(code.split('-').all(letters) && code.len() == 9, "{code}");
    assert_eq!(server.device_user_codes(), [code]);
    let silent = MockServer::builder().device_interval(None).start().unwrap();
    assert_eq!(begin(&silent).await.get("interval"), None);
}

#[tokio::test]
async fn tokens_are_there_once_after_the_person_has_allowed_it() {
    let server = patient();
    let device = begin(&server).await;
    assert_eq!(error(&server, &device).await, "authorization_pending");
    // However it is typed.
    let typed = user_code(&device).replace('-', " ").to_lowercase();
    assert!(server.approve_device(&typed, "alice"));
    assert!(!server.deny_device(&typed), "it is decided");
    let (status, tokens) = poll(&server, &device).await;
    assert_eq!(status, 200);
    assert!(server.is_current(tokens["refresh_token"].as_str().unwrap()));
    assert_eq!(error(&server, &device).await, "invalid_grant");
    assert_eq!((server.counters().device_polls, server.counters().logins), (3, 1));
}

#[tokio::test]
async fn a_person_may_say_no_and_a_code_ends() {
    let server = patient();
    let device = begin(&server).await;
    assert!(server.deny_device(user_code(&device)));
    assert_eq!(error(&server, &device).await, "access_denied");

    let brief = MockServer::builder().device_ttl(Duration::ZERO).start().unwrap();
    let device = begin(&brief).await;
    assert!(!brief.approve_device(user_code(&device), "alice"));
    assert_eq!(error(&brief, &device).await, "expired_token");
}

#[tokio::test]
async fn who_asks_too_soon_is_told_and_has_to_wait_longer() {
    let server = MockServer::builder().device_interval(Some(Duration::from_secs(60)));
    let server = server.start().unwrap();
    let device = begin(&server).await;
    assert_eq!(error(&server, &device).await, "authorization_pending");
    assert!(server.approve_device(user_code(&device), "alice"));
    assert_eq!(error(&server, &device).await, "slow_down");
}

#[tokio::test]
async fn the_page_takes_the_code_and_the_decision() {
    let server = patient();
    let device = begin(&server).await;
    let uri = device["verification_uri_complete"].as_str().unwrap();
    let page = reqwest::get(uri).await.unwrap().text().await.unwrap();
    assert!(page.contains(&format!("value=\"{}\"", user_code(&device))), "{page}");
    let say = async |code: &str, decision| {
        let body = format!("user_code={code}&username=bob&decision={decision}");
        form(format!("{}/device", server.origin()), body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(say("XXXX-XXXX", "allow").await, 400);
    assert_eq!(say(user_code(&device), "allow").await, 200);
    assert_eq!(poll(&server, &device).await.0, 200);
}

#[tokio::test]
async fn the_controls_decide_over_http_too() {
    let server = patient();
    for (control, error) in [("approve-device", None), ("deny-device", Some("access_denied"))] {
        let device = begin(&server).await;
        let code = user_code(&device);
        let url = format!("{}/control/{control}?user_code={code}", server.origin());
        let decide = async || Client::new().post(&url).send().await.unwrap().status().as_u16();
        assert_eq!((decide().await, decide().await), (200, 400));
        let (_, answer) = poll(&server, &device).await;
        assert_eq!(answer.get("error").and_then(Value::as_str), error);
    }
}

#[tokio::test]
async fn a_device_login_is_for_the_client_that_began_it() {
    let server = patient();
    let nobody = form(server.device_authorization_url(), "").send().await.unwrap();
    assert_eq!(read(nobody).await.1["error"], "invalid_request");
    let device = begin(&server).await;
    assert!(server.approve_device(user_code(&device), "alice"));
    let code = device["device_code"].as_str().unwrap();
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    let other = format!("grant_type={grant}&client_id=other&device_code={code}");
    let (status, body) = read(form(server.token_url(), other).send().await.unwrap()).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    assert_eq!(poll(&server, &device).await.0, 200);
}

#[tokio::test]
async fn the_page_escapes_the_code_and_says_no_too() {
    let server = patient();
    let device = begin(&server).await;
    let url = format!("{}/device", server.origin());
    let page = reqwest::get(format!("{url}?user_code=%22%3E%3Cb%3E")).await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("value=\"&quot;&gt;&lt;b&gt;\""), "{page}");
    let say = async |said: &str| {
        let body = format!("user_code={}&{said}", user_code(&device));
        form(url.clone(), body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(say("decision=allow").await, 400, "who?");
    assert_eq!(say("decision=deny").await, 200);
    assert_eq!(error(&server, &device).await, "access_denied");
}

#[tokio::test]
async fn the_log_holds_no_device_code() {
    let (server, lines) = logged();
    let device = begin(&server).await;
    assert!(server.approve_device(user_code(&device), "alice"));
    assert_eq!(poll(&server, &device).await.0, 200);
    let (lines, code) = (lines.lock().unwrap(), device["device_code"].as_str().unwrap());
    assert!(lines.contains("/device_authorization") && !lines.contains(code), "{lines}");
}
