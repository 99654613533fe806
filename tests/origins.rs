//! The token goes to the origins that the program named, and to nobody else.
//!
//! What counts is what the other servers recorded.

mod support;

use std::net::{Ipv6Addr, SocketAddr};
use std::thread;

use http::Method;
use http::header::AUTHORIZATION;
use mock_server::{Fault, MockServer, Recorded, Route};
use reqwest::{Request, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_reauth::{
    LoginRequired, MemoryStore, NotReplayed, OAuth2Endpoint, RefreshWithheld, Session,
    SessionBuilder, redirect_policy,
};
use support::{Fixture, access_tokens_sent, builder, client, endpoint, soon, tokens};

// Several sessions, clients and runtimes.

#[tokio::test]
async fn two_sessions_in_one_client_each_serve_their_own_origin() {
    let (one, other) = (Fixture::new().await, Fixture::new().await);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(one.session.middleware())
        .with(other.session.middleware())
        .build();
    for t in [&one, &other] {
        t.server.expire_access_tokens();
        let response = soon(client.get(t.server.api_url("things")).send()).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    for t in [&one, &other] {
        assert_eq!(t.server.counters().refreshes, 1);
        assert_eq!(t.server.counters().token_requests, 1);
        let new = t.session.access_token().await.unwrap();
        assert_eq!(access_tokens_sent(&t.server), [t.issued.access_token.as_str(), new.secret()]);
    }
}

#[tokio::test]
async fn one_session_serves_several_origins() {
    // The second one knows nothing of the tokens: only what arrives there counts.
    let elsewhere = MockServer::start();
    let t = Fixture::with(MockServer::start(), |builder| builder.origin(elsewhere.origin())).await;
    soon(t.client.get(elsewhere.api_url("things")).send()).await.unwrap();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    // It refused the token, and the one that the refresh brought.
    let new = t.session.access_token().await.unwrap();
    assert_eq!(access_tokens_sent(&elsewhere), [t.issued.access_token.as_str(), new.secret()]);
    assert_eq!(access_tokens_sent(&t.server), [new.secret()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_in_two_clients_refreshes_once() {
    let t = Fixture::new().await;
    let second = client(&t.session);
    t.server.expire_access_tokens();
    t.server.barrier(Route::Api, 2);
    let url = t.server.api_url("things");
    let (one, two) =
        soon(async { tokio::join!(t.client.get(&url).send(), second.get(&url).send()) }).await;
    assert_eq!(one.unwrap().status(), 200);
    assert_eq!(two.unwrap().status(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.api_requests, 4);
}

#[test]
fn a_runtime_that_is_shut_down_in_a_refresh_that_it_began_takes_nothing_from_another() {
    let (first, second) = (runtime(), runtime());
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).build().unwrap();
    first.block_on(session.log_in(tokens(&server.log_in("alice")))).unwrap();
    server.expire_access_tokens();

    let refresh = server.hold(Route::Token);
    let get = || client(&session).get(server.api_url("things")).send();
    let lost = first.spawn(get());
    refresh.arrived_blocking(1);
    let waiting = second.spawn(get());
    drop(first);
    assert!(second.block_on(lost).unwrap_err().is_cancelled());
    refresh.release();

    let response = second.block_on(soon(waiting)).unwrap().unwrap();
    assert_eq!(response.status(), 200);
    // And from here on as ever.
    assert_eq!(second.block_on(soon(get())).unwrap().status(), 200);
    let counters = server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.reuses, 0);
    assert_eq!(counters.api_ok, 2);
}

#[test]
fn two_runtimes_that_run_at_the_same_time_share_one_refresh() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).build().unwrap();
    runtime().block_on(session.log_in(tokens(&server.log_in("alice")))).unwrap();
    server.expire_access_tokens();
    server.barrier(Route::Api, 2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let get = client(&session).get(server.api_url("things")).send();
                assert_eq!(runtime().block_on(soon(get)).unwrap().status(), 200);
            });
        }
    });
    assert_eq!(server.counters().refreshes, 1);
    assert_eq!(server.counters().token_requests, 1);
}

// No token to anybody else.

#[tokio::test]
async fn no_token_goes_to_another_port() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    soon(t.client.get(other.api_url("things")).send()).await.unwrap();
    assert_eq!(only_request(&other).header("authorization"), None);
}

/// `localhost` is the same machine, and even the same server: another host all the same.
#[tokio::test]
async fn no_token_goes_to_another_name_of_the_host() {
    let t = Fixture::new().await;
    let url = t.server.api_url("things").replace("127.0.0.1", "localhost");
    let response = soon(t.client.get(url).send()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(only_request(&t.server).header("authorization"), None);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn no_token_goes_to_the_address_of_a_listed_name() {
    let server = MockServer::start();
    let name = server.origin().replace("127.0.0.1", "localhost");
    let session = Session::builder("test", endpoint(&server))
        .origin(&name)
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let client = client(&session);
    soon(client.get(server.api_url("things")).send()).await.unwrap();
    assert_eq!(only_request(&server).header("authorization"), None);
    // The name itself gets it, in any case of letters.
    let url = format!("{}/api/things", name.replace("localhost", "LocalHost"));
    assert_eq!(soon(client.get(url).send()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn no_token_goes_to_another_address_on_the_same_port() {
    let mut attempts = 0;
    let (t, other) = loop {
        let t = Fixture::new().await;
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, t.server.addr().port()));
        match MockServer::builder().addr(address).start() {
            Ok(other) => break (t, other),
            // Somebody else may have that port there.
            Err(error) => assert!(attempts < 10, "this machine has no [::1]: {error}"),
        }
        attempts += 1;
    };
    soon(t.client.get(other.api_url("things")).send()).await.unwrap();
    assert_eq!(only_request(&other).header("authorization"), None);
    assert_eq!(t.server.counters().api_requests, 0);
}

#[tokio::test]
async fn no_token_goes_over_plain_http_where_https_was_listed() {
    let server = MockServer::start();
    let session = Session::builder("test", endpoint(&server))
        .origin(server.origin().replace("http://", "https://"))
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    soon(client(&session).get(server.api_url("things")).send()).await.unwrap();
    assert_eq!(only_request(&server).header("authorization"), None);
}

#[tokio::test]
async fn no_token_goes_to_a_host_that_poses_as_ours_in_its_user_name() {
    let (t, evil) = (Fixture::new().await, MockServer::start());
    let ours = t.server.addr();
    for posing in [
        format!("http://{ours}@{}/api/things", evil.addr()),
        format!("http://127.0.0.1%3A{}@{}/api/things", ours.port(), evil.addr()),
    ] {
        // reqwest makes Basic credentials of a user name; not of ours, and nothing else.
        soon(t.client.get(&posing).send()).await.unwrap();
        let sent = evil.requests(Route::Api).pop().unwrap();
        assert!(sent.header("authorization").unwrap().starts_with("Basic "));
        // A request that is not built does not even have those.
        let request = Request::new(Method::GET, posing.parse().unwrap());
        soon(t.client.execute(request)).await.unwrap();
        let sent = evil.requests(Route::Api).pop().unwrap();
        assert_eq!(sent.header("authorization"), None);
    }
    assert_eq!(evil.counters().api_requests, 4);
    assert_eq!(t.server.counters().api_requests, 0);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn no_token_goes_where_a_double_slash_or_backslash_leads_from_our_url() {
    let (t, evil) = (Fixture::new().await, MockServer::start());
    let base = Url::parse(&t.server.api_url("things")).unwrap();
    for path in ["//HOST/api/x", "\\\\HOST/api/x", "/\\HOST/api/x"] {
        let url = base.join(&path.replace("HOST", &evil.addr().to_string())).unwrap();
        assert_eq!(url.port(), Some(evil.addr().port()), "{path}");
        soon(t.client.get(url).send()).await.unwrap();
    }
    let requests = evil.requests(Route::Api);
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_fragment_or_query_that_names_our_origin_gets_no_token() {
    let (t, evil) = (Fixture::new().await, MockServer::start());
    for tail in ["?@ORIGIN", "#@ORIGIN", "?u=ORIGIN/api"] {
        let url = evil.api_url("x") + &tail.replace("ORIGIN", &t.server.origin());
        soon(t.client.get(url).send()).await.unwrap();
    }
    let requests = evil.requests(Route::Api);
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(request.header("authorization"), None);
    }
}

// Redirects.

#[tokio::test]
async fn no_token_follows_a_redirect_to_another_port() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    let to = other.api_url("things");
    soon(t.get(&format!("redirect?to={to}"))).await.unwrap();
    assert_eq!(only_request(&other).header("authorization"), None);
    // Ours had it.
    assert_eq!(access_tokens_sent(&t.server), [t.issued.access_token.as_str()]);
}

#[tokio::test]
async fn no_token_follows_a_redirect_to_another_host_on_the_same_port() {
    let t = Fixture::new().await;
    let to = t.server.api_url("things").replace("127.0.0.1", "localhost");
    let response = soon(t.send(&format!("redirect?to={to}"))).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(carried(&t.server), [true, false]);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_401_of_a_host_that_a_redirect_led_to_is_returned_as_it_is_without_a_refresh() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    let to = other.api_url("things");
    let response = soon(t.send(&format!("redirect?to={to}"))).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.url().as_str(), to);
    assert!(response.extensions().get::<NotReplayed>().is_none());
    assert!(response.extensions().get::<LoginRequired>().is_none());
    assert!(response.extensions().get::<RefreshWithheld>().is_none());
    assert_eq!(t.server.counters().token_requests, 0);
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(other.counters().api_requests, 1);
    assert!(t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_the_token() {
    let t = Fixture::new().await;
    let to = t.server.api_url("things");
    assert_eq!(soon(t.get(&format!("redirect?to={to}"))).await.unwrap(), 200);
    let token = t.issued.access_token.as_str();
    assert_eq!(access_tokens_sent(&t.server), [token, token]);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_401_after_a_redirect_within_the_origin_is_refreshed_and_the_first_url_replayed() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let to = t.server.api_url("things");
    assert_eq!(soon(t.get(&format!("redirect?to={to}"))).await.unwrap(), 200);
    let paths: Vec<_> = (t.server.requests(Route::Api).iter())
        .map(|request| request.path_and_query.split('?').next().unwrap().to_owned())
        .collect();
    let (redirect, things) = ("/api/redirect", "/api/things");
    assert_eq!(paths, [redirect, things, redirect, things]);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_redirect_from_elsewhere_into_our_origin_brings_no_token() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    let to = t.server.api_url("things");
    let url = other.api_url(&format!("redirect?to={to}"));
    let response = soon(t.client.get(url).send()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(only_request(&t.server).header("authorization"), None);
    assert_eq!(t.server.counters().token_requests, 0);
}

/// What reqwest 0.13 does. Should this fail one day, `redirect_policy` has had its time.
#[tokio::test]
async fn reqwest_by_itself_sends_the_token_on_a_second_redirect_within_another_origin() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    let url = redirect(&t.server, &redirect(&other, &other.api_url("things")));
    soon(t.client.get(url).send()).await.unwrap();
    assert_eq!(access_tokens_sent(&other), ["", t.issued.access_token.as_str()]);
    assert_eq!(t.server.counters().api_requests, 1);
}

#[tokio::test]
async fn with_the_policy_no_token_follows_a_second_redirect_within_another_origin() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    let client = careful(&t.session);
    let there = redirect(&other, &other.api_url("things"));
    let error = soon(client.get(redirect(&t.server, &there)).send()).await.unwrap_err();
    assert_eq!(carried(&t.server), [true]);
    assert_eq!(carried(&other), [false]);
    assert_eq!(t.server.counters().token_requests, 0);

    assert!(error.is_redirect(), "{error:?}");
    let text = format!("{error:?}");
    for origin in [&t.server, &other].map(MockServer::origin) {
        assert!(text.contains(&format!(" {origin}")), "{text}");
    }
    // Its advice is good.
    let url = error.url().unwrap().clone();
    assert_eq!(url.as_str(), there);
    let response = soon(client.get(url).send()).await.unwrap();
    assert_eq!(response.url().as_str(), other.api_url("things"));
    assert_eq!(carried(&other), [false; 3]);
}

#[tokio::test]
async fn with_the_policy_no_token_follows_a_redirect_within_a_third_origin() {
    let (t, other, third) = (Fixture::new().await, MockServer::start(), MockServer::start());
    let url = redirect(&third, &third.api_url("things"));
    let url = redirect(&t.server, &redirect(&other, &url));
    let error = soon(careful(&t.session).get(url).send()).await.unwrap_err();
    assert!(error.is_redirect(), "{error:?}");
    assert_eq!(carried(&t.server), [true]);
    assert_eq!(carried(&other), [false]);
    assert_eq!(carried(&third), [false]);
}

#[tokio::test]
async fn with_the_policy_redirects_within_the_origin_and_away_from_it_are_followed() {
    let (t, other) = (Fixture::new().await, MockServer::start());
    let client = careful(&t.session);
    let url = redirect(&t.server, &redirect(&t.server, &t.server.api_url("things")));
    assert_eq!(soon(client.get(url).send()).await.unwrap().status(), 200);
    assert_eq!(carried(&t.server), [true; 3]);

    // Away, and back to who may see the token.
    let url = redirect(&t.server, &t.server.api_url("things"));
    let url = redirect(&t.server, &redirect(&other, &url));
    assert_eq!(soon(client.get(url).send()).await.unwrap().status(), 200);
    assert_eq!(carried(&other), [false]);
    assert_eq!(carried(&t.server)[3..], [true, false, true]);
}

#[tokio::test]
async fn with_the_policy_ten_redirects_are_followed_and_an_eleventh_is_not() {
    let t = Fixture::new().await;
    let again = || Fault::status(307).header("location", t.server.api_url("things"));
    t.server.on_next(Route::Api, 10, again());
    let client = careful(&t.session);
    let get = || client.get(t.server.api_url("things")).send();
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert_eq!(t.server.counters().api_requests, 11);

    t.server.on_next(Route::Api, 11, again());
    assert!(soon(get()).await.unwrap_err().is_redirect());
    assert_eq!(t.server.counters().api_requests, 22);
}

#[tokio::test]
async fn a_407_is_the_proxys_and_passes_through() {
    let t = Fixture::new().await;
    let fault = Fault::status(407)
        .header("proxy-authenticate", "Bearer realm=\"proxy\"")
        .body("who are you?");
    t.server.on_next(Route::Api, 1, fault);
    let response = soon(t.send("things")).await.unwrap();
    assert_eq!(response.status(), 407);
    assert_eq!(response.headers()["proxy-authenticate"], "Bearer realm=\"proxy\"");
    assert_eq!(response.text().await.unwrap(), "who are you?");
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.server.counters().token_requests, 0);
}

// What build() says.

#[test]
fn a_session_without_an_origin_is_not_built() {
    let text = refused(Session::builder("test", good_endpoint()).store(MemoryStore::new()));
    assert!(text.contains("origin") && text.contains(".origin("), "{text}");
}

#[cfg(not(feature = "keychain"))]
#[test]
fn without_the_keychain_a_session_without_a_store_is_not_built() {
    let text = refused(Session::builder("test", good_endpoint()).origin("https://api.example.com"));
    assert!(text.contains(".store(") && text.contains("`keychain`"), "{text}");
}

#[test]
fn an_origin_that_is_insecure_or_none_is_told_with_what_to_do() {
    for (origin, says) in [
        ("http://api.example.com", "https"),
        ("http://localhost.example.com", "https"),
        ("http://192.168.0.1:8080", "https"),
        ("ftp://api.example.com", "https"),
        ("api.example.com", "https://api.example.com"),
        ("", "https://api.example.com"),
        ("https://api.example.com/v1", "leave out"),
        ("https://api.example.com?a=b", "leave out"),
        ("https://api.example.com#a", "leave out"),
        ("https://me:secret@api.example.com", "leave"),
    ] {
        let text = refused(with_origin(origin));
        assert!(text.contains(says), "{origin:?}: {text}");
        if origin.contains("secret") {
            assert!(!text.contains("secret"), "{text}");
        } else {
            assert!(text.contains(origin), "{origin:?}: {text}");
        }
    }
    // One bad one among good ones, too.
    let text = refused(with_origin("https://api.example.com").origin("http://api.example.com"));
    assert!(text.contains("\"http://api.example.com\""), "{text}");
}

#[test]
fn an_origin_that_is_secure_is_taken() {
    for origin in [
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com:8443",
        "https://[2001:db8::1]",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost:8080",
    ] {
        assert!(with_origin(origin).build().is_ok(), "{origin}");
    }
}

#[test]
fn a_bad_url_of_the_endpoint_is_told_with_what_to_do() {
    for (url, says) in [
        ("id.example.com/token", "URL"),
        ("/token", "URL"),
        ("http://id.example.com/token", "https"),
        ("ftp://id.example.com/token", "https"),
    ] {
        let good = "https://id.example.com/token";
        for (endpoint, which) in [
            (OAuth2Endpoint::new(url, "client"), "token URL"),
            (OAuth2Endpoint::new(good, "client").revocation_url(url), "revocation URL"),
        ] {
            let builder = Session::builder("test", endpoint)
                .origin("https://api.example.com")
                .store(MemoryStore::new());
            let text = refused(builder);
            assert!(text.contains(&format!("{url:?}")), "{text}");
            assert!(text.contains(which) && text.contains(says), "{text}");
        }
    }
}

#[test]
fn an_empty_name_is_told() {
    let build = |service: &str, client: &str, account: &str| {
        Session::builder(service, OAuth2Endpoint::new("https://id.example.com/token", client))
            .origin("https://api.example.com")
            .store(MemoryStore::new())
            .account(account)
    };
    assert!(build("s", "c", "a").build().is_ok());
    assert!(refused(build("", "c", "a")).contains("service"));
    assert!(refused(build("s", "", "a")).contains("client id"));
    assert!(refused(build("s", "c", "")).contains("account"));
}

/// The message of a builder that must not build.
fn refused(builder: SessionBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert!(error.is_configuration(), "{error:?}");
    assert!(!error.is_transient() && !error.is_logged_out(), "{error:?}");
    error.to_string()
}

fn with_origin(origin: &str) -> SessionBuilder {
    Session::builder("test", good_endpoint()).origin(origin).store(MemoryStore::new())
}

fn good_endpoint() -> OAuth2Endpoint {
    OAuth2Endpoint::new("https://id.example.com/token", "client")
}

/// A client whose redirects take the token nowhere.
fn careful(session: &Session) -> ClientWithMiddleware {
    let client = reqwest::Client::builder().redirect(redirect_policy()).build().unwrap();
    ClientBuilder::new(client).with(session.middleware()).build()
}

/// A URL of the server's that redirects to `to`.
fn redirect(server: &MockServer, to: &str) -> String {
    Url::parse_with_params(&server.api_url("redirect"), [("to", to)]).unwrap().into()
}

/// Which of the requests came with a token, or what else there is.
fn carried(server: &MockServer) -> Vec<bool> {
    let requests = server.requests(Route::Api);
    requests.iter().map(|request| request.headers.contains_key(AUTHORIZATION)).collect()
}

fn only_request(server: &MockServer) -> Recorded {
    let [request] = server.requests(Route::Api).try_into().expect("one request");
    request
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
