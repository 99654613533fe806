//! The login page, and the code that it brings.

mod support;

use std::collections::HashMap;

use mock_server::{MockServer, ResponseIss, What};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::Value;
use support::{form, happened, logged, read};

/// A verifier and its S256 challenge, those of RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const BACK: &str = "http://127.0.0.1:9/back";

fn request() -> HashMap<&'static str, &'static str> {
    HashMap::from([
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", BACK),
        ("state", "a b&c"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ])
}

fn encode(pairs: &HashMap<&str, &str>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn browser() -> Client {
    Client::builder().redirect(Policy::none()).build().unwrap()
}

async fn show(server: &MockServer, request: &HashMap<&str, &str>) -> Response {
    let url = format!("{}?{}", server.authorization_url(), encode(request));
    browser().get(url).send().await.unwrap()
}

async fn decide(server: &MockServer, mut said: HashMap<&str, &str>, decision: &str) -> Response {
    said.extend([("username", "alice"), ("decision", decision)]);
    let post = browser().post(server.authorization_url());
    post.body(encode(&said)).send().await.unwrap()
}

/// What the browser is sent back with.
fn brought(answer: &Response) -> HashMap<String, String> {
    assert_eq!(answer.status(), 303);
    let location = answer.headers()["location"].to_str().unwrap();
    let query = location.strip_prefix(BACK).unwrap().strip_prefix('?').unwrap();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

async fn exchange(server: &MockServer, code: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let mut fields = HashMap::from([
        ("grant_type", "authorization_code"),
        ("code", code),
        ("client_id", "app"),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ]);
    fields.extend(more.iter().copied());
    read(form(server.token_url(), encode(&fields)).send().await.unwrap()).await
}

async fn code(server: &MockServer) -> String {
    brought(&decide(server, request(), "allow").await)["code"].clone()
}

#[tokio::test]
async fn a_person_who_allows_it_sends_back_a_code_that_brings_tokens() {
    let server = MockServer::start();
    let page = show(&server, &request()).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("name=\"username\"") && page.contains("value=\"allow\""), "{page}");
    let brought = brought(&decide(&server, request(), "allow").await);
    assert_eq!(brought["state"], "a b&c");
    assert_eq!(brought["iss"], server.issuer());
    let (status, tokens) = exchange(&server, &brought["code"], &[]).await;
    assert_eq!(status, 200);
    assert!(server.is_current(tokens["refresh_token"].as_str().unwrap()));
    assert_eq!((server.counters().codes, server.counters().logins), (1, 1));
}

#[tokio::test]
async fn a_person_who_denies_it_sends_back_an_error() {
    let server = MockServer::start();
    let brought = brought(&decide(&server, request(), "deny").await);
    assert_eq!(brought["error"], "access_denied");
    assert_eq!(brought["state"], "a b&c");
    assert_eq!((brought.get("code"), server.counters().codes), (None, 0));
}

#[tokio::test]
async fn nobody_is_sent_to_another_place_than_this_machine() {
    let server = MockServer::start();
    for uri in [
        "https://127.0.0.1/back",
        "http://localhost:9/back",
        "http://192.168.0.1:9/back",
        "http://evil.example.com/",
        "http://127.0.0.1.evil.example.com/",
        "javascript:alert(1)",
        "",
    ] {
        let request = HashMap::from([("redirect_uri", uri)]);
        let request: HashMap<_, _> = self::request().into_iter().chain(request).collect();
        let answer = decide(&server, request, "allow").await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("location")), (400, None));
    }
    let v6 = HashMap::from([("redirect_uri", "http://[::1]:9/")]);
    let v6 = request().into_iter().chain(v6).collect();
    assert_eq!(show(&server, &v6).await.status(), 200);
}

#[tokio::test]
async fn another_client_is_told_on_the_page() {
    let server = MockServer::builder().client("other", None).start().unwrap();
    let answer = show(&server, &request()).await;
    assert_eq!((answer.status().as_u16(), answer.headers().get("location")), (400, None));
}

#[tokio::test]
async fn what_else_is_wrong_goes_back() {
    let server = MockServer::start();
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
    ] {
        let mut request = request();
        request.insert(name, value);
        assert_eq!(brought(&show(&server, &request).await)["error"], error);
    }
}

#[tokio::test]
async fn a_code_is_for_one_verifier_client_and_redirect_uri() {
    let server = MockServer::start();
    let code = code(&server).await;
    for wrong in [
        ("code_verifier", "another"),
        ("code_verifier", ""),
        ("client_id", "other"),
        ("redirect_uri", "http://127.0.0.1:9/"),
        ("code", "unknown"),
    ] {
        let (status, body) = exchange(&server, &code, &[wrong]).await;
        assert_eq!((status, &body["error"]), (400, &"invalid_grant".into()), "{wrong:?}");
    }
    assert_eq!(exchange(&server, &code, &[]).await.0, 200);
}

#[tokio::test]
async fn a_code_that_comes_twice_ends_what_it_has_begun() {
    let server = MockServer::start();
    let code = code(&server).await;
    let (_, tokens) = exchange(&server, &code, &[]).await;
    let family = server.family_of(tokens["refresh_token"].as_str().unwrap()).unwrap();
    let (status, body) = exchange(&server, &code, &[]).await;
    assert_eq!((status, &body["error"]), (400, &"invalid_grant".into()));
    assert!(!server.family_alive(family));
    assert_eq!(happened(&server, family), [(What::Login, 0), (What::Revoked, 0)]);
}

#[tokio::test]
async fn the_issuer_in_the_answer_is_a_switch() {
    for (iss, said) in [
        (ResponseIss::Absent, None),
        (ResponseIss::Missing, None),
        (ResponseIss::Value("https://other".to_owned()), Some("https://other")),
    ] {
        let server = MockServer::builder().response_iss(iss).start().unwrap();
        let brought = brought(&decide(&server, request(), "allow").await);
        assert_eq!(brought.get("iss").map(String::as_str), said);
    }
}

#[tokio::test]
async fn what_the_page_repeats_is_escaped() {
    let server = MockServer::start();
    let mut request = request();
    request.insert("state", "\"><script>alert(1)</script>");
    request.insert("client_id", "<b>app</b>");
    let page = show(&server, &request).await.text().await.unwrap();
    assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
    assert!(page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
}

#[tokio::test]
async fn the_log_holds_no_code() {
    let (server, lines) = logged();
    let code = code(&server).await;
    exchange(&server, &code, &[]).await;
    let lines = lines.lock().unwrap();
    assert!(lines.contains("/authorize") && !lines.contains(&code), "{lines}");
}

#[tokio::test]
async fn a_redirect_uri_has_no_fragment_and_no_user() {
    let server = MockServer::start();
    for uri in ["http://127.0.0.1:9/#a", "http://me@127.0.0.1:9/", "http://::1/", "http://127.1/"] {
        let mut request = request();
        request.insert("redirect_uri", uri);
        assert_eq!(show(&server, &request).await.status(), 400, "{uri}");
    }
}

#[tokio::test]
async fn a_missing_response_type_and_a_challenge_that_is_no_hash_are_invalid() {
    let server = MockServer::start();
    for (name, value) in [("response_type", ""), ("code_challenge", "too-short")] {
        let mut request = request();
        request.insert(name, value);
        let brought = brought(&show(&server, &request).await);
        assert_eq!(brought["error"], "invalid_request", "{name}");
        assert_eq!((brought["state"].as_str(), &brought["iss"]), ("a b&c", &server.issuer()));
    }
}

#[tokio::test]
async fn only_resource_may_be_repeated() {
    let server = MockServer::start();
    let get = async |more: &str| {
        let url = format!("{}?{}&{more}", server.authorization_url(), encode(&request()));
        browser().get(url).send().await.unwrap()
    };
    let page = get("resource=urn:a&resource=urn:b&scope=x").await.text().await.unwrap();
    assert!(page.contains("value=\"urn:a\"") && page.contains("value=\"urn:b\""), "{page}");
    assert_eq!(brought(&get("scope=x&scope=y").await)["error"], "invalid_request");
}

#[tokio::test]
async fn a_form_without_a_name_or_a_decision_decides_nothing() {
    let server = MockServer::start();
    for wrong in ["username=&decision=allow", "username=alice", "username=alice&decision=maybe"] {
        let body = format!("{}&{wrong}", encode(&request()));
        let answer = form(server.authorization_url(), body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{wrong}");
    }
    assert_eq!(server.counters().codes, 0);
}

#[tokio::test]
async fn a_session_from_a_code_is_bound_to_the_context_of_its_token_request() {
    let server = MockServer::builder().bind_context(["x-device-id"]).start().unwrap();
    let code = code(&server).await;
    let (_, tokens) = exchange(&server, &code, &[]).await;
    let token = tokens["refresh_token"].as_str().unwrap();
    let elsewhere = support::refresh_request(&server, token).header("x-device-id", "d1");
    assert_eq!(read(elsewhere.send().await.unwrap()).await.0, 400);
    assert_eq!(support::refresh(&server, token).await.0, 200);
}
