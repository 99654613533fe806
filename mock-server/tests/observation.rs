//! Counters, histories and recordings; the controls over HTTP.

mod support;

use std::sync::{Arc, Mutex};

use mock_server::{Counters, MockServer, Route, What};
use support::{call, call_status, read, refresh};

#[tokio::test]
async fn counters_count_each_thing_once_and_can_be_reset() {
    let server = MockServer::start();
    assert_eq!(server.counters(), Counters::default());
    let session = server.log_in("alice");
    call_status(&server, "/", &session.access_token).await;
    call_status(&server, "/", "at_unknown").await;
    refresh(&server, &session.refresh_token).await;
    let expected = Counters {
        token_requests: 1,
        refreshes: 1,
        logins: 1,
        api_requests: 2,
        api_ok: 1,
        api_unauthorized: 1,
        ..Counters::default()
    };
    assert_eq!(server.counters(), expected);
    server.reset_counters();
    assert_eq!(server.counters(), Counters::default());
    assert_eq!(server.requests(Route::Api).len(), 2);
}

#[tokio::test]
async fn a_history_is_in_order_and_readable() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    refresh(&server, &session.refresh_token).await;
    server.revoke_family(session.family);
    let history = server.history(session.family);
    assert!(history.is_sorted_by_key(|entry| entry.at));
    let what: Vec<_> = history.iter().map(|entry| entry.what).collect();
    assert_eq!(what, [What::Login, What::Rotated, What::Revoked]);
    let line = history[1].to_string();
    assert!(line.ends_with("s  generation 1: issued, the one before is spent"), "{line}");
}

#[tokio::test]
async fn requests_are_recorded_whole() {
    let server = MockServer::start();
    let token = server.log_in("alice").access_token;
    let request = call(&server, "/things?x=1", &token).header("x-a", "1");
    request.body("abc").send().await.unwrap();
    let seen = server.requests(Route::Api);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].method, "GET");
    assert_eq!(seen[0].path_and_query, "/api/things?x=1");
    assert_eq!(seen[0].header("x-a"), Some("1"));
    assert_eq!(seen[0].header("authorization").unwrap(), format!("Bearer {token}"));
    assert_eq!(&seen[0].body[..], b"abc");
    assert_eq!(seen[0].status, Some(200));
    assert!(!format!("{seen:?}").contains(&token));
}

#[tokio::test]
async fn the_log_names_families_and_never_a_token() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = lines.clone();
    let builder = MockServer::builder().log(move |line| log.lock().unwrap().push(line.to_owned()));
    let server = builder.start().unwrap();
    let session = server.log_in("alice");
    let path = format!("/things?token={}", session.refresh_token);
    call_status(&server, &path, &session.access_token).await;
    let (_, next) = refresh(&server, &session.refresh_token).await;
    refresh(&server, &session.refresh_token).await;
    drop(server);

    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].ends_with("POST /token 200 refreshed family 1, generation 1"));
    let next = next["refresh_token"].as_str().unwrap();
    let tokens = [&session.access_token, &session.refresh_token, next];
    for (line, token) in lines.iter().flat_map(|line| tokens.map(|token| (line, token))) {
        assert!(!line.contains(&token[3..]), "{line}");
    }
}

#[tokio::test]
async fn controls_work_over_http() {
    let server = MockServer::start();
    let session = server.log_in("alice");
    let client = reqwest::Client::new();
    let post = async |control: &str| {
        let url = format!("{}/control/{control}", server.origin());
        client.post(url).send().await.unwrap().status().as_u16()
    };
    let get = async |control: &str| {
        let url = format!("{}/control/{control}", server.origin());
        client.get(url).send().await.unwrap()
    };

    assert_eq!(post("fail?route=token&count=2&status=503&retry_after=1").await, 200);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 503);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 503);
    assert_eq!(post("drop?route=api&count=1&when=before").await, 200);
    assert!(call(&server, "/", &session.access_token).send().await.is_err());
    assert_eq!(post("delay?route=api&count=1&ms=1").await, 200);
    assert_eq!(call_status(&server, "/", &session.access_token).await, 200);
    assert_eq!(post("expire-access").await, 200);
    assert_eq!(call_status(&server, "/", &session.access_token).await, 401);
    assert_eq!(post("expire-refresh").await, 200);
    assert_eq!(refresh(&server, &session.refresh_token).await.0, 400);
    assert_eq!(post("revoke?user=alice").await, 200);
    assert!(!server.family_alive(session.family));

    let (_, counters) = read(get("counters").await).await;
    assert_eq!(counters["faults"], 4);
    assert_eq!(counters["revocations"], 1);
    let (_, history) = read(get("history").await).await;
    assert_eq!(history["family"], 1);
    assert_eq!(history["user"], "alice");
    assert_eq!(history["alive"], false);
    assert_eq!(history["history"][2]["what"], "revoked");
    for wrong in ["fail?status=99", "fail?route=x", "drop?when=x", "delay", "revoke"] {
        assert_eq!(post(wrong).await, 400, "{wrong}");
    }
    assert_eq!(post("counters").await, 405);
    assert_eq!(post("other").await, 404);
}

#[test]
fn routes_are_found_by_the_names_they_show() {
    for name in ["token", "refresh-token", "revoke", "login", "api"] {
        assert_eq!(name.parse::<Route>().unwrap().to_string(), name);
    }
    assert!("other".parse::<Route>().is_err());
}
