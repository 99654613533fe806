//! The second send of a request is the first one again, with the new token; and what is not ours
//! to touch is left alone.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use mock_server::{Fault, Issued, MockServer, Recorded, Route, What};
use reqwest::multipart::{Form, Part};
use reqwest::{Body, Request, Response};
use reqwest_middleware::RequestBuilder;
use reqwest_reauth::{
    LoginRequired, LogoutReason, MemoryStore, NoAuth, NotReplayed, ReplayBody, Session,
};
use support::{Fixture, builder, client, endpoint, found, soon, spied, tokens};

// What passes untouched.

#[tokio::test]
async fn an_error_other_than_401_passes_through_untouched_with_its_body() {
    let t = Fixture::new().await;
    let statuses = [400, 402, 403, 404, 409, 418, 422, 429, 500, 502, 503, 504];
    for status in statuses {
        let fault = Fault::status(status)
            .header("x-why", "because")
            .header("retry-after", "7")
            .body(format!("{{\"status\":{status}}}"));
        t.server.on_next(Route::Api, 1, fault);
        let response = soon(t.send("things")).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["x-why"], "because");
        assert_eq!(response.headers()["retry-after"], "7");
        let body = response.text().await.unwrap();
        assert_eq!(body, format!("{{\"status\":{status}}}"));
    }
    let counters = t.server.counters();
    assert_eq!(counters.api_requests, statuses.len() as u64);
    assert_eq!(counters.token_requests, 0);
    assert!(t.logouts.all().is_empty());
}

#[tokio::test]
async fn a_connection_that_breaks_is_the_callers_error_and_is_not_sent_again() {
    let t = Fixture::new().await;
    t.server.on_next(Route::Api, 1, Fault::DropBefore);
    let error = soon(t.client.post(t.server.api_url("things")).send()).await.unwrap_err();
    assert!(matches!(error, reqwest_middleware::Error::Reqwest(_)));
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_request_with_no_auth_never_carries_the_token_and_never_refreshes() {
    let t = Fixture::new().await;
    let send = || {
        let request = t.client.get(t.server.api_url("public"));
        soon(request.with_extension(NoAuth).send())
    };
    // While the token is good, while it is not, and when nobody is logged in.
    let mut responses = vec![send().await.unwrap()];
    t.server.expire_access_tokens();
    responses.push(send().await.unwrap());
    t.session.log_out().await.unwrap();
    responses.push(send().await.unwrap());
    for response in responses {
        assert_eq!(response.status(), 401);
        assert!(response.extensions().get::<NotReplayed>().is_none());
        assert!(response.extensions().get::<LoginRequired>().is_none());
    }
    let requests = t.server.requests(Route::Api);
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.header("authorization"), None);
    }
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_request_with_no_auth_does_not_wait_for_a_refresh() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let waiting = tokio::spawn(t.client.get(t.server.api_url("things")).send());
    hold.arrived(1).await;
    let request = t.client.get(t.server.api_url("public"));
    let response = soon(request.with_extension(NoAuth).send()).await.unwrap();
    assert_eq!(response.status(), 401);
    hold.release();
    assert_eq!(soon(waiting).await.unwrap().unwrap().status(), 200);
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn the_callers_authorization_wins_and_its_401_leads_to_no_refresh() {
    let t = Fixture::new().await;
    let other = t.server.log_in("bob");
    let request = t.client.get(t.server.api_url("things"));
    let response = soon(request.bearer_auth(&other.access_token).send()).await;
    let echo = json(response.unwrap()).await;
    assert_eq!(echo["user"], "bob");
    let request = t.client.get(t.server.api_url("things"));
    let response = soon(request.header(AUTHORIZATION, "Custom mine").send()).await;
    assert_eq!(response.unwrap().status(), 401);

    let requests = t.server.requests(Route::Api);
    let sent: Vec<_> = requests.iter().map(|r| r.header("authorization")).collect();
    let bobs = format!("Bearer {}", other.access_token);
    assert_eq!(sent, [Some(bobs.as_str()), Some("Custom mine")]);
    assert_eq!(t.server.counters().token_requests, 0);
}

// Bodies.

#[tokio::test]
async fn each_method_is_replayed_with_its_body_byte_for_byte() {
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let t = Fixture::new().await;
        t.server.expire_access_tokens();
        let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let request = t
            .client
            .request(method.clone(), t.server.api_url("things?a=1&b=%20"))
            .body(body.clone());
        let response = soon(request.send()).await.unwrap();
        assert_eq!(response.status(), 200, "{method}");
        assert!(response.extensions().get::<NotReplayed>().is_none());

        let [first, second] = both_sends(&t.server);
        for sent in [&first, &second] {
            assert_eq!(sent.method, method);
            assert_eq!(sent.path_and_query, "/api/things?a=1&b=%20");
            assert!(sent.body == body, "{method}: another body");
        }
        assert_eq!(t.server.counters().refreshes, 1, "{method}");
    }
}

#[tokio::test]
async fn eight_mebibytes_are_replayed_byte_for_byte() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let body: Vec<u8> =
        (0..8 * 1024 * 1024u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let request = t.client.post(t.server.api_url("upload")).body(body.clone());
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    let [first, second] = both_sends(&t.server);
    assert!(first.body == body, "the first send has another body");
    assert!(second.body == body, "the replay has another body");
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_request_without_a_body_is_replayed_without_one() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let request = t.client.request(Method::OPTIONS, t.server.api_url("things"));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    let [first, second] = both_sends(&t.server);
    assert!(first.body.is_empty() && second.body.is_empty());
    assert_eq!(without_token(first.headers), without_token(second.headers));
}

#[tokio::test]
async fn a_stream_without_a_factory_refreshes_the_token_and_returns_the_401_as_not_replayed() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let request = t.client.post(t.server.api_url("upload")).body(stream());
    let response = soon(request.send()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<NotReplayed>().is_some());
    assert!(response.headers().contains_key("www-authenticate"));
    assert_eq!(t.server.counters().refreshes, 1);
    assert_eq!(t.server.counters().api_requests, 1);

    // The next call works at once.
    let request = t.client.post(t.server.api_url("upload")).body(stream());
    let response = soon(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.extensions().get::<NotReplayed>().is_none());
    assert_eq!(t.server.counters().refreshes, 1);
    assert_eq!(t.server.counters().api_requests, 2);
    let bodies: Vec<_> =
        (t.server.requests(Route::Api).into_iter()).map(|sent| sent.body).collect();
    assert_eq!(bodies, [STREAMED, STREAMED]);
}

#[tokio::test]
async fn a_stream_with_a_factory_is_replayed_byte_for_byte() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let filled = Arc::new(Mutex::new(Vec::new()));
    let fill = {
        let filled = Arc::clone(&filled);
        move |request: &mut Request| {
            // As it was before the first send.
            assert!(request.body().is_none());
            assert_eq!(request.headers()["x-mine"], "1");
            assert!(!request.headers().contains_key(AUTHORIZATION));
            filled.lock().unwrap().push(request.url().path().to_owned());
            *request.body_mut() = Some(stream());
        }
    };
    let request = t
        .client
        .put(t.server.api_url("upload"))
        .header("x-mine", "1")
        .body(stream())
        .with_extension(ReplayBody::new(fill));
    let response = soon(request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.extensions().get::<NotReplayed>().is_none());
    assert_eq!(*filled.lock().unwrap(), ["/api/upload"]);
    let [first, second] = both_sends(&t.server);
    assert_eq!(first.body, STREAMED);
    assert_eq!(second.body, STREAMED);
    assert_eq!(without_token(first.headers), without_token(second.headers));
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_factory_is_not_asked_where_nothing_is_replayed() {
    let t = Fixture::new().await;
    let fill = |_: &mut Request| panic!("nothing was to be filled");
    let request = t
        .client
        .post(t.server.api_url("upload"))
        .body(stream())
        .with_extension(ReplayBody::new(fill));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_multipart_form_with_a_factory_is_replayed_with_the_same_parts() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let url = t.server.api_url("upload");
    let fill = {
        let url = url.clone();
        move |request: &mut Request| {
            let mut again = multipart(&url);
            let kind = again.headers_mut().remove(CONTENT_TYPE).unwrap();
            request.headers_mut().insert(CONTENT_TYPE, kind);
            *request.body_mut() = again.body_mut().take();
        }
    };
    let request = RequestBuilder::from_parts(t.client.clone(), multipart(&url))
        .with_extension(ReplayBody::new(fill));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    let [first, second] = both_sends(&t.server).map(|sent| parts(&sent));
    assert_eq!(first.len(), 2);
    assert!(first[0].ends_with("\r\n\r\nhello"), "{first:?}");
    assert!(first[1].contains("filename=\"a.bin\""), "{first:?}");
    assert_eq!(first, second);

    // Without one it can't be.
    t.server.expire_access_tokens();
    let request = RequestBuilder::from_parts(t.client.clone(), multipart(&url));
    let response = soon(request.send()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<NotReplayed>().is_some());
    assert_eq!(t.server.counters().refreshes, 2);
    assert_eq!(t.server.counters().api_requests, 3);
}

// Everything else of a request.

#[tokio::test]
async fn the_replay_has_the_same_headers_and_only_the_token_is_new() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let request = t
        .client
        .post(t.server.api_url("things"))
        .header("accept", "text/plain")
        .header("x-many", "one")
        .header("x-many", "two")
        .header("content-type", "application/x-mine")
        .header("idempotency-key", "42")
        .body("text");
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);

    let [first, second] = both_sends(&t.server);
    let new = t.session.access_token().await.unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    let old = bearer(&t.issued.access_token);
    assert_eq!(first.header("authorization"), Some(old.as_str()));
    let new = bearer(new.secret());
    assert_eq!(second.header("authorization"), Some(new.as_str()));
    for sent in [&first, &second] {
        assert_eq!(sent.headers.get_all(AUTHORIZATION).iter().count(), 1);
        let many: Vec<_> = sent.headers.get_all("x-many").iter().collect();
        assert_eq!(many, ["one", "two"]);
    }
    assert_eq!(without_token(first.headers), without_token(second.headers));
}

#[tokio::test]
async fn the_callers_extensions_are_there_at_both_sends() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mine(u32);

    let t = Fixture::new().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = spied(&t.session, {
        let seen = Arc::clone(&seen);
        move |_, extensions| seen.lock().unwrap().push(extensions.get::<Mine>().cloned())
    });
    t.server.expire_access_tokens();
    let request = client.get(t.server.api_url("things"));
    let response = soon(request.with_extension(Mine(7)).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*seen.lock().unwrap(), [Some(Mine(7)), Some(Mine(7))]);
}

#[tokio::test]
async fn the_callers_timeout_is_kept_at_both_sends_and_never_grows() {
    let t = Fixture::new().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = spied(&t.session, {
        let seen = Arc::clone(&seen);
        move |request, _| seen.lock().unwrap().push(request.timeout().copied())
    });
    t.server.expire_access_tokens();
    let whole = Duration::from_secs(60);
    let request = client.get(t.server.api_url("things"));
    let response = soon(request.timeout(whole).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    {
        let mut seen = seen.lock().unwrap();
        let [Some(first), Some(second)] = seen[..] else {
            panic!("a send without a time-out: {seen:?}");
        };
        // One time-out over both, not one each.
        assert!(second < first && first <= whole, "{first:?}, {second:?}");
        seen.clear();
    }

    // And where there is none, none is made up.
    t.server.expire_access_tokens();
    let response = soon(client.get(t.server.api_url("things")).send()).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), [None, None]);
}

#[tokio::test]
async fn the_401_that_led_to_the_replay_is_not_seen_by_the_caller() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let request = t.client.post(t.server.api_url("things")).body("text");
    let echo = json(soon(request.send()).await.unwrap()).await;
    assert_eq!(echo["user"], "alice");
    assert_eq!(echo["body"], "text");
    let statuses: Vec<_> = (t.server.requests(Route::Api).iter()).map(|sent| sent.status).collect();
    assert_eq!(statuses, [Some(401), Some(200)]);
}

// Headers of the session and of the endpoint.

#[tokio::test]
async fn a_header_of_the_session_goes_where_the_token_goes_and_nowhere_else() {
    let foreign = MockServer::start();
    let t = Fixture::with(MockServer::start(), |builder| {
        builder.header("x-device", "d1").header("x-other", "o1")
    })
    .await;
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    for sent in both_sends(&t.server) {
        assert_eq!(sent.header("x-device"), Some("d1"));
        assert_eq!(sent.header("x-other"), Some("o1"));
    }

    // Neither to others, nor where the token stays out.
    soon(t.client.get(foreign.api_url("things")).send()).await.unwrap();
    let request = t.client.get(t.server.api_url("public"));
    soon(request.with_extension(NoAuth).send()).await.unwrap();
    let without =
        [foreign.requests(Route::Api).pop().unwrap(), t.server.requests(Route::Api).pop().unwrap()];
    for sent in without {
        assert_eq!(sent.header("x-device"), None);
        assert_eq!(sent.header("x-other"), None);
        assert_eq!(sent.header("authorization"), None);
    }
}

#[tokio::test]
async fn the_callers_own_value_of_a_session_header_wins_at_both_sends() {
    let set = |builder: reqwest_reauth::SessionBuilder| builder.header("x-device", "d1");
    let t = Fixture::with(MockServer::start(), set).await;
    t.server.expire_access_tokens();
    let request = t.client.get(t.server.api_url("things"));
    let response = soon(request.header("x-device", "mine").send()).await;
    assert_eq!(response.unwrap().status(), 200);
    for sent in both_sends(&t.server) {
        let values: Vec<_> = sent.headers.get_all("x-device").iter().collect();
        assert_eq!(values, ["mine"]);
    }
}

#[tokio::test]
async fn a_header_of_the_endpoint_goes_with_refreshes_and_revocations_only() {
    let server = MockServer::start();
    let session = Session::builder("test", endpoint(&server).header("x-device", "d1"))
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    let response = soon(client(&session).get(server.api_url("things")).send()).await;
    assert_eq!(response.unwrap().status(), 200);
    soon(session.log_out()).await.unwrap();

    for route in [Route::Token, Route::Revoke] {
        let requests = server.requests(route);
        assert_eq!(requests.len(), 1, "{route}");
        assert_eq!(requests[0].header("x-device"), Some("d1"), "{route}");
    }
    for sent in both_sends(&server) {
        assert_eq!(sent.header("x-device"), None);
    }
}

#[tokio::test]
async fn a_server_that_binds_sessions_to_a_device_is_served_with_both_headers() {
    let (server, issued, session) = device_session(true, true).await;
    server.expire_access_tokens();
    let response = soon(client(&session).get(server.api_url("things")).send()).await;
    assert_eq!(response.unwrap().status(), 200);
    let counters = server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.context_mismatches, 0);
    let history: Vec<_> = (server.history(issued.family).iter()).map(|entry| entry.what).collect();
    assert_eq!(history, [What::Login, What::Rotated]);
}

#[tokio::test]
async fn a_device_bound_server_refuses_requests_without_the_sessions_header() {
    let (server, issued, session) = device_session(false, true).await;
    let response = soon(client(&session).get(server.api_url("things")).send()).await;
    assert_eq!(response.unwrap().status(), 401);
    // A new token did not help, and nobody was logged out for it.
    let counters = server.counters();
    assert_eq!(counters.api_requests, 2);
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.context_mismatches, 2);
    assert!(server.family_alive(issued.family));
    assert!(session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_device_bound_server_refuses_refreshes_without_the_endpoints_header() {
    let (server, _, session) = device_session(true, false).await;
    server.expire_access_tokens();
    let error = soon(client(&session).get(server.api_url("things")).send()).await.unwrap_err();
    let error = found(&error);
    assert_eq!(error.logout_reason(), Some(LogoutReason::Revoked));
    let counters = server.counters();
    assert_eq!(counters.refreshes, 0);
    assert_eq!(counters.context_mismatches, 1);
    assert_eq!(counters.api_requests, 1);
}

/// A login from the device `d1` at a server that looks at it.
async fn device_session(api: bool, refreshes: bool) -> (MockServer, Issued, Session) {
    let server = MockServer::builder().bind_context(["x-device"]).start().unwrap();
    let issued = server.log_in_from("alice", &[("x-device", "d1")]);
    let mut endpoint = endpoint(&server);
    if refreshes {
        endpoint = endpoint.header("x-device", "d1");
    }
    let mut builder =
        Session::builder("test", endpoint).origin(server.origin()).store(MemoryStore::new());
    if api {
        builder = builder.header("x-device", "d1");
    }
    let session = builder.build().unwrap();
    session.log_in(tokens(&issued)).await.unwrap();
    (server, issued, session)
}

#[tokio::test]
async fn a_header_that_is_none_is_told_at_build() {
    let server = MockServer::start();
    for (name, value, says) in
        [("no header", "x", "\"no header\""), ("x-device", "a\nb", "\"x-device\"")]
    {
        let here = builder(&server).store(MemoryStore::new());
        let there = Session::builder("test", endpoint(&server).header(name, value))
            .origin(server.origin())
            .store(MemoryStore::new());
        for builder in [here.header(name, value), there] {
            let error = builder.build().unwrap_err();
            assert!(error.is_configuration());
            assert!(error.to_string().contains(says), "{error}");
            // The value may be a secret.
            assert!(!error.to_string().contains("a\nb"), "{error}");
        }
    }
}

/// The two sends of the only request.
fn both_sends(server: &MockServer) -> [Recorded; 2] {
    let requests = server.requests(Route::Api);
    requests.try_into().expect("one send and one replay")
}

fn without_token(mut headers: HeaderMap) -> HeaderMap<HeaderValue> {
    headers.remove(AUTHORIZATION);
    headers
}

/// A body that can't be cloned.
fn stream() -> Body {
    Body::from(Response::from(http::Response::new(STREAMED)))
}

const STREAMED: &str = "one byte after the other";

fn multipart(url: &str) -> Request {
    let form = Form::new()
        .text("greeting", "hello")
        .part("file", Part::bytes(vec![0, 1, 2, 254, 255]).file_name("a.bin"));
    reqwest::Client::new().post(url).multipart(form).build().unwrap()
}

/// The parts of a multipart body, without what holds them together.
fn parts(sent: &Recorded) -> Vec<String> {
    let kind = sent.header("content-type").unwrap();
    let (_, boundary) = kind.split_once("boundary=").unwrap();
    let delimiter = format!("--{boundary}");
    // Latin-1: each byte is a character of its own.
    let body: String = sent.body.iter().map(|&byte| char::from(byte)).collect();
    let mut parts: Vec<_> =
        (body.split(&delimiter)).map(|part| part.trim_matches(['\r', '\n']).to_owned()).collect();
    assert_eq!(parts.remove(0), "");
    assert_eq!(parts.pop().as_deref(), Some("--"));
    parts
}

async fn json(response: Response) -> serde_json::Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}
