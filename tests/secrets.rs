//! No secret shows: not in logs at the lowest level, not in errors, not in `Debug`, not in panics.
//!
//! The mock server's tokens can be told by their form; whatever else must not show has the word
//! `canary` in it. The log of this whole program is looked at, whichever test wrote it.

#[cfg(all(feature = "keychain", target_os = "linux"))]
#[path = "support/keychain.rs"]
mod keychain;
mod support;

use std::error::Error as StdError;
use std::fmt::Debug;
use std::io;
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{
    BrowserLogin, ClientSecret, DeviceLogin, Event, Events, FileStore, MemoryStore, OAuth2Endpoint,
    Record, RefreshError, RefreshToken, ReplayBody, Revocation, Session, StoreError, TokenEndpoint,
    TokenResponse, TokenStore,
};
use serde_json::json;
use support::{AskingStore, Call, Fixture, Logouts, builder, client, found, soon, spied, tokens};

#[tokio::test]
async fn the_attached_token_and_headers_are_marked_sensitive_at_both_sends() {
    watch();
    let set = |builder: reqwest_reauth::SessionBuilder| builder.header("x-device", "canary");
    let t = Fixture::with(MockServer::start(), set).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let client = spied(&t.session, {
        let seen = Arc::clone(&seen);
        move |request, _| {
            let headers = request.headers();
            let sensitive =
                headers[AUTHORIZATION].is_sensitive() && headers["x-device"].is_sensitive();
            seen.lock().unwrap().push(sensitive);
            clean("a request's Debug", &shown(request));
        }
    });
    t.server.expire_access_tokens();
    let response = soon(client.get(t.server.api_url("things")).send()).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(*seen.lock().unwrap(), [true, true]);
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_when_all_goes_well() {
    watch();
    let t = Fixture::new().await;
    let mut events = t.session.events();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    let response = soon(t.send("things")).await.unwrap();
    clean("a response", &shown(&response));
    let token = t.session.access_token().await.unwrap();
    clean("an access token", &shown(&token));
    soon(t.session.refused(&token)).await.unwrap_err();
    let status = t.session.status().await.unwrap();
    clean("the status", &format!("{status}\n{}", shown(&status)));
    soon(t.session.log_out()).await.unwrap();
    let status = t.session.status().await.unwrap();
    clean("the status", &format!("{status}\n{}", shown(&status)));
    all_clean(&mut events);
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_in_the_debug_of_what_holds_secrets() {
    watch();
    let response = TokenResponse::new("canary-access")
        .refresh_token("canary-refresh")
        .expires_in(Duration::from_secs(60));
    clean("a token response", &shown(&response));

    clean("a client secret", &shown(&ClientSecret::from("canary-secret")));
    let endpoint = OAuth2Endpoint::new("https://id.example.com/token", "client")
        .param("assertion", "canary-param")
        .header("x-device", "canary-header");
    for endpoint in [
        endpoint.clone().client_secret("canary-secret"),
        endpoint.clone().client_secret_in_body("canary-secret"),
    ] {
        clean("an endpoint", &shown(&endpoint));
        let login = BrowserLogin::new(&endpoint).param("login_hint", "canary-hint");
        clean("a login in a browser", &shown(&login));
        let login = DeviceLogin::new(&endpoint).param("login_hint", "canary-hint");
        clean("a login on another device", &shown(&login));
        let builder = Session::builder("test", endpoint)
            .origin("https://api.example.com")
            .header("x-device", "canary-header")
            .store(MemoryStore::new());
        clean("a session builder", &shown(&builder));
        let session = builder.build().unwrap();
        session.log_in(response.clone()).await.unwrap();
        clean("a session", &shown(&session));
        clean("a middleware", &shown(&session.middleware()));
        clean("a client", &shown(&client(&session)));
        clean("what keeps it alive", &shown(&session.keep_alive().unwrap()));
        clean("the events", &shown(&session.events()));
        let token = session.access_token().await.unwrap();
        assert_eq!(token.secret(), "canary-access");
        clean("an access token", &shown(&token));
    }

    let canary = "canary-body".to_owned();
    let replay = ReplayBody::new(move |request| *request.body_mut() = Some(canary.clone().into()));
    clean("a body for the replay", &shown(&replay));

    let memory = MemoryStore::new();
    memory.save(&Record::from_bytes(b"canary-record")).unwrap();
    clean("a memory store", &shown(&memory));
    clean("a record", &shown(&memory.load().unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let file = FileStore::new(directory.path().join("session"));
    file.save(&Record::from_bytes(b"canary-record")).unwrap();
    clean("a file store", &shown(&file));
    clean("what a file store holds", &shown(&file.load().unwrap()));
    let secret = String::from("canary");
    clean("a replay body", &shown(&ReplayBody::new(move |_| drop(secret.clone()))));
}

#[tokio::test]
async fn nothing_shows_when_the_server_answers_nonsense_with_a_token_in_it() {
    watch();
    let answers = [
        Fault::status(200).body(r#"{"access_token":"canary"#),
        Fault::status(200).body(r#"{"access_token":"canary","refresh_token":"canary",}"#),
        Fault::status(200).body(r#"{"access_token":["canary"],"refresh_token":"canary"}"#),
        Fault::status(200).body(r#"{"accessToken":"canary","refreshToken":"canary"}"#),
        Fault::status(200).body(r#"{"access_token":"can ary\ncanary"}"#),
        Fault::status(200).body(r#"{"access_token":"canary","token_type":"canary"}"#),
        Fault::status(200).body(r#"{"access_token":"canary","token_type":{"canary":1}}"#),
        Fault::status(200).body(r#"["canary"]"#),
        Fault::status(200).body("access_token=canary&refresh_token=canary"),
        Fault::status(200).body("<html>canary</html>"),
        Fault::status(200).body("\"canary\""),
        Fault::status(307).header("location", "http://127.0.0.1:1/?token=canary"),
        Fault::status(400).json(&json!({"error": "canary", "error_description": "canary"})),
        Fault::status(400).json(&json!({"error": "invalid_request", "error_uri": "canary"})),
        Fault::status(401).json(&json!({"error": "invalid_client", "hint": "canary"})),
        Fault::status(401).header("www-authenticate", "Bearer canary"),
        Fault::status(403).body("canary"),
        Fault::status(429).header("retry-after", "canary").body("canary"),
        Fault::status(500).body("canary"),
    ];
    for answer in answers {
        let t = Fixture::new().await;
        let mut events = t.session.events();
        t.server.expire_access_tokens();
        // The second one for those that are sent twice.
        t.server.on_next(Route::Token, 2, answer);
        let error = soon(t.get("things")).await.unwrap_err();
        clean("an error", &chain(&error));
        clean("our error", &chain(found(&error)));
        assert!(!found(&error).is_logged_out(), "{error:?}");
        all_clean(&mut events);
        let status = t.session.status().await.unwrap();
        clean("the status", &format!("{status}\n{}", shown(&status)));
    }
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_when_answers_are_lost_and_the_session_with_them() {
    watch();
    for fault in [Fault::DropBefore, Fault::DropAfter, Fault::DropHalf] {
        let t = Fixture::new().await;
        let mut events = t.session.events();
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 2, fault);
        let error = soon(t.get("things")).await.unwrap_err();
        clean("an error", &chain(&error));
        // Of the API, too.
        t.server.on_next(Route::Api, 1, Fault::DropHalf);
        if let Err(error) = soon(t.get("things")).await {
            clean("an error", &chain(&error));
        }
        all_clean(&mut events);
    }
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_when_the_server_ends_the_session() {
    watch();
    let t = Fixture::new().await;
    let mut events = t.session.events();
    t.server.expire_access_tokens();
    let fault = json!({"error": "invalid_grant", "error_description": "canary is revoked"});
    t.server.on_next(Route::Token, 1, Fault::status(400).json(&fault));
    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_logged_out());
    clean("an error", &chain(&error));
    clean("an error of anyhow", &format!("{:?}", anyhow::Error::new(error).context("at start")));
    all_clean(&mut events);
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_when_a_session_has_nothing_to_refresh_with_or_waits_in_vain() {
    watch();
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let request = t.client.get(t.server.api_url("things"));
    let error = soon(request.timeout(Duration::from_millis(100)).send()).await.unwrap_err();
    clean("a time-out", &chain(&error));
    hold.release();
    t.session.log_in(TokenResponse::new(&t.issued.access_token)).await.unwrap();
    let token = t.session.access_token().await.unwrap();
    let error = soon(t.session.refused(&token)).await.unwrap_err();
    assert!(error.is_login_required());
    clean("login required", &chain(&error));
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_of_a_login_that_fails() {
    watch();
    let server = MockServer::start();
    let store = AskingStore {
        memory: MemoryStore::new(),
        ask: |call| match call {
            Call::Save => Err(StoreError::unavailable("full")),
            _ => Ok(()),
        },
    };
    let logouts = Logouts::default();
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    for bad in ["canary", "canary with spaces", "canary\n", "canäry"] {
        let given = TokenResponse::new(bad).refresh_token("canary");
        let error = soon(session.log_in(given)).await.unwrap_err();
        clean("an error", &chain(&error));
        clean("the tokens in an error", &shown(&error.tokens()));
    }
    for body in ["canary", r#"{"access_token":"canary"#, r#"{"access_token":{"canary":1}}"#] {
        let error = TokenResponse::from_json(body.as_bytes()).unwrap_err();
        clean("an error", &chain(&error));
    }
    the_log_is_clean();
}

#[tokio::test]
async fn nothing_shows_of_a_record_that_cannot_be_read() {
    watch();
    let server = MockServer::start();
    for record in [
        r#"canary"#,
        r#"{"canary":"canary"}"#,
        r#"{"version":1,"login":"canary","access_token":"canary","refresh_token":"canary"}"#,
        r#"{"version":"canary"}"#,
        r#"{"version":99,"access_token":"canary"}"#,
    ] {
        let store = MemoryStore::new();
        store.save(&Record::from_bytes(record.as_bytes())).unwrap();
        let session = builder(&server).store(store).build().unwrap();
        let error = soon(session.is_logged_in()).await.unwrap_err();
        clean("an error", &chain(&error));
        let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
        clean("an error", &chain(&error));
    }
    the_log_is_clean();
}

/// Shows all it gets, as far as it can.
struct Chatty;

#[async_trait]
impl TokenEndpoint for Chatty {
    fn id(&self) -> String {
        "chatty".to_owned()
    }

    async fn refresh(
        &self,
        http: &reqwest::Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let answer = TokenResponse::new("canary").refresh_token(token.secret());
        panic!("it broke: {http:?} {token:?} {answer:?}");
    }

    async fn revoke(
        &self,
        _: &reqwest::Client,
        token: &RefreshToken,
    ) -> Result<bool, RefreshError> {
        panic!("it broke again: {token:?}");
    }
}

#[tokio::test]
async fn nothing_shows_when_an_endpoint_or_a_store_panics() {
    watch();
    let server = MockServer::start();
    let memory = MemoryStore::new();
    let session = Session::builder("test", Chatty)
        .origin(server.origin())
        .store(memory.clone())
        .build()
        .unwrap();
    let mut events = session.events();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    clean("an error", &chain(&error));
    assert!(found(&error).to_string().contains("panicked"), "{error}");
    assert!(session.is_logged_in().await.unwrap());
    assert!(memory.load().unwrap().is_some());
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Failed);
    all_clean(&mut events);

    let store = AskingStore {
        memory: MemoryStore::new(),
        ask: {
            let memory = memory.clone();
            move |call| panic!("{call:?} broke: {:?} {:?}", memory, memory.load())
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    let error = soon(session.log_in(tokens(&server.log_in("alice")))).await.unwrap_err();
    clean("an error", &chain(&error));
    assert!(log().contains("it broke: "), "the panic was seen");
    assert!(log().contains(" broke: MemoryStore"), "the panic was seen");
    the_log_is_clean();
}

#[cfg(all(feature = "keychain", target_os = "linux"))]
#[test]
fn nothing_shows_of_what_goes_through_the_keychain() {
    let name = "nothing_shows_of_what_goes_through_the_keychain";
    keychain::in_a_session(name, async |mut keychain| {
        watch();
        let (server, state) = (MockServer::start(), tempfile::tempdir().unwrap());
        let start = || {
            let builder = Session::builder("test", support::endpoint(&server));
            builder.origin(server.origin()).state_dir(state.path()).build().unwrap()
        };
        let session = start();
        session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
        server.expire_access_tokens();
        let response = soon(client(&session).get(server.api_url("things")).send()).await;
        assert_eq!(response.unwrap().status(), 200);
        clean("a status", &shown(&start().status().await.unwrap()));
        let store = reqwest_reauth::KeychainStore::new("test", "default");
        clean("a store", &shown(&store));
        clean("a record", &shown(&store.load().unwrap().unwrap()));

        keychain.lock();
        clean("a locked keychain", &chain(&start().is_logged_in().await.unwrap_err()));
        keychain.unlock();
        keychain.put("test", "default", br#"{"version":1,"access_token":"canary"#);
        clean("a damaged entry", &chain(&start().is_logged_in().await.unwrap_err()));
        session.log_in(TokenResponse::new("canary").refresh_token("canary")).await.unwrap();
        keychain.kill();
        clean("a dead keychain", &chain(&start().is_logged_in().await.unwrap_err()));
        keychain.start();
        session.log_out().await.unwrap();

        let files = std::fs::read_dir(state.path()).unwrap();
        for file in files.map(|file| file.unwrap().path()) {
            clean("a file's name", &file.display().to_string());
            clean("a file", &std::fs::read_to_string(file).unwrap());
        }
        let log = log();
        assert!(log.contains("zbus"), "what the keychain's client says is looked at too");
        the_log_is_clean();
    });
}

/// What the checks above rest on: they see what is there.
#[tokio::test]
async fn the_log_has_the_lowest_level_and_a_secret_in_it_would_be_found() {
    watch();
    let t = Fixture::new().await;
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    log::trace!("said with the log crate");
    let log = log();
    assert!(log.contains("said with the log crate"), "{log}");
    let lowest = log.lines().filter(|line| line.contains("TRACE"));
    assert!(lowest.clone().any(|line| line.contains("hyper_util")), "{log}");
    for secret in [&t.issued.access_token, &t.issued.refresh_token] {
        assert!(leak(&format!("so: \"{secret}\".")).is_some());
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(leak(&bytes).is_some(), "{bytes}");
    }
    assert!(leak("a Canary!").is_some());
    assert!(leak("at_0123456789abcdef0123456789abcde").is_none());
}

/// Both logs of this program, at the lowest level, and the messages of its panics.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            LOG.lock().unwrap().extend(format!("{info}\n").bytes());
            print(info);
        }));
    });
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

fn the_log_is_clean() {
    let log = log();
    clean("the log", &log);
}

#[track_caller]
fn clean(what: &str, text: &str) {
    if let Some(line) = leak(text) {
        panic!("{what} shows a secret: {}", line.to_uppercase());
    }
}

/// The line that shows a secret: as text, or as a list of bytes.
fn leak(text: &str) -> Option<&str> {
    text.lines().find(|line| {
        let lower = line.to_lowercase();
        let hex =
            |text: &str| text.len() >= 32 && text[..32].bytes().all(|b| b.is_ascii_hexdigit());
        let token = |prefix| {
            lower.match_indices(prefix).any(|(at, _)| lower.get(at + 3..at + 35).is_some_and(hex))
        };
        lower.contains("canary")
            || token("at_")
            || token("rt_")
            || lower.contains("97, 116, 95, ")
            || lower.contains("114, 116, 95, ")
            || lower.contains("99, 97, 110, 97, 114, 121")
    })
}

fn shown(value: &impl Debug) -> String {
    let (short, long) = (format!("{value:?}"), format!("{value:#?}"));
    assert!(!short.is_empty(), "it says what it is");
    format!("{short}\n{long}")
}

/// All that an error can be made to say.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut link = Some(error);
    while let Some(error) = link {
        text += &format!("{error}\n{error:?}\n{error:#?}\n");
        link = error.source();
    }
    text
}

fn all_clean(events: &mut Events) {
    let mut count = 0;
    while let Some(event) = events.try_next() {
        count += 1;
        clean("an event", &shown(&event));
        if let Event::RefreshFailed(error) | Event::PersistFailed(error) = event {
            clean("an event's error", &chain(&error));
        }
    }
    assert!(count > 0);
}
