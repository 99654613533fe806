//! Stores, servers and endpoints that fail at the wrong moment: nothing is lost, nothing is asked
//! twice, and nobody is logged in or out by accident.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mock_server::{Fault, MockServer, Route};
use reqwest::Client;
use reqwest_reauth::{
    Event, LogoutReason, MemoryStore, OAuth2Endpoint, RefreshError, RefreshToken, Revocation,
    Session, StoreError, TokenEndpoint, TokenResponse, TokenStore,
};
use support::{
    AskingStore, Call, Fixture, Logouts, Turnstile, builder, client, found, join_all, soon, tokens,
};
use tokio::sync::Notify;

/// A session on a store that fails while the test says so.
struct Fickle {
    server: MockServer,
    session: Session,
    memory: MemoryStore,
    fails: Arc<Mutex<Vec<Call>>>,
    logouts: Logouts,
}

impl Fickle {
    async fn new() -> Self {
        let (server, memory) = (MockServer::start(), MemoryStore::new());
        let fails: Arc<Mutex<Vec<Call>>> = Arc::default();
        let asked = Arc::clone(&fails);
        let ask = move |call| match asked.lock().unwrap().contains(&call) {
            true => Err(StoreError::locked("the test has locked it")),
            false => Ok(()),
        };
        let logouts = Logouts::default();
        let store = AskingStore { memory: memory.clone(), ask };
        let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
        session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
        Self { server, session, memory, fails, logouts }
    }

    fn fail(&self, calls: &[Call]) {
        *self.fails.lock().unwrap() = calls.to_vec();
    }

    async fn get(&self) -> Result<u16, reqwest_middleware::Error> {
        let request = client(&self.session).get(self.server.api_url("things"));
        soon(request.send()).await.map(|response| response.status().as_u16())
    }
}

#[tokio::test]
async fn a_refresh_token_that_was_refused_is_not_sent_again_while_the_store_cannot_be_read() {
    let t = Fickle::new().await;
    t.server.revoke_user("alice");
    let held = t.server.hold_answers(Route::Token);
    let refused = tokio::spawn({
        let request = client(&t.session).get(t.server.api_url("things"));
        async move { request.send().await }
    });
    soon(held.arrived(1)).await;
    // The store can't say whether somebody else has newer tokens.
    t.fail(&[Call::Load]);
    held.release();
    let error = soon(refused).await.unwrap().unwrap_err();
    assert!(found(&error).is_store() && found(&error).is_transient());
    for _ in 0..5 {
        let error = t.get().await.unwrap_err();
        assert!(found(&error).is_transient());
        tokio::time::sleep(found(&error).retry_after().unwrap_or_default()).await;
    }
    assert_eq!(t.server.counters().token_requests, 1);
    t.fail(&[]);
    let error = loop {
        let error = t.get().await.unwrap_err();
        if !found(&error).is_transient() {
            break error;
        }
        tokio::time::sleep(found(&error).retry_after().unwrap_or_default()).await;
    };
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(t.server.counters().token_requests, 1);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked]);
}

/// Refuses the first refresh when it is told to, and grants the others at once; with tokens that
/// have as good as ended, if the flag is set.
#[derive(Clone, Default)]
struct Late(Arc<(AtomicU64, Notify, Notify, bool)>);

#[async_trait]
impl TokenEndpoint for Late {
    fn id(&self) -> String {
        "late".to_owned()
    }

    async fn refresh(&self, _: &Client, _: &RefreshToken) -> Result<TokenResponse, RefreshError> {
        let (count, arrived, go_on, is_short) = &*self.0;
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            let theirs = TokenResponse::new("theirs").refresh_token("r1");
            let ended = Duration::from_millis(1);
            return Ok(if *is_short { theirs.expires_in(ended) } else { theirs });
        }
        arrived.notify_one();
        go_on.notified().await;
        Err(RefreshError::rejected("the other program was first"))
    }
}

#[tokio::test]
async fn tokens_stored_by_another_program_during_a_refused_refresh_are_adopted() {
    let (endpoint, memory) = (Late::default(), MemoryStore::new());
    let build = || {
        let builder = Session::builder("test", endpoint.clone()).origin("https://api.example.com");
        builder.store(memory.clone()).build().unwrap()
    };
    let (ours, theirs) = (build(), build());
    ours.log_in(TokenResponse::new("first").refresh_token("r0")).await.unwrap();
    let mut events = ours.events();
    let first = ours.access_token().await.unwrap();
    let waiting = tokio::spawn({
        let (ours, first) = (ours.clone(), first.clone());
        async move { ours.refused(&first).await.map(|token| token.secret().to_owned()) }
    });
    soon(endpoint.0.1.notified()).await;
    let same = theirs.access_token().await.unwrap();
    assert_eq!(soon(theirs.refused(&same)).await.unwrap().secret(), "theirs");
    endpoint.0.2.notify_one();
    assert_eq!(soon(waiting).await.unwrap().unwrap(), "theirs");
    assert!(matches!(events.next().await, Some(Event::Adopted)));
    assert_eq!(endpoint.0.0.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn where_what_another_program_has_stored_has_ended_too_the_next_request_refreshes_that() {
    let endpoint = Late(Arc::new((AtomicU64::new(0), Notify::new(), Notify::new(), true)));
    let memory = MemoryStore::new();
    let build = || {
        let builder = Session::builder("test", endpoint.clone()).origin("https://api.example.com");
        builder.store(memory.clone()).build().unwrap()
    };
    let (ours, theirs) = (build(), build());
    ours.log_in(TokenResponse::new("first").refresh_token("r0")).await.unwrap();
    let first = ours.access_token().await.unwrap();
    let waiting = tokio::spawn({
        let (ours, first) = (ours.clone(), first.clone());
        async move { ours.refused(&first).await.map(drop) }
    });
    soon(endpoint.0.1.notified()).await;
    let same = theirs.access_token().await.unwrap();
    soon(theirs.refused(&same)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    endpoint.0.2.notify_one();
    let error = soon(waiting).await.unwrap().unwrap_err();
    assert!(error.is_transient() && !error.is_logged_out(), "{error:?}");
    assert!(ours.is_logged_in().await.unwrap());
    tokio::time::sleep(error.retry_after().unwrap()).await;
    soon(ours.access_token()).await.unwrap();
    assert_eq!(endpoint.0.0.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_request_elsewhere_is_not_failed_by_a_refresh_that_fails() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/bad");
    let held = t.server.hold(Route::Token);
    t.server.on_next(Route::Token, 1, Fault::status(418));
    let bad = tokio::spawn({
        let request = t.client.get(t.server.api_url("bad"));
        async move { request.send().await }
    });
    soon(held.arrived(1)).await;
    let good = tokio::spawn({
        let request = t.client.get(t.server.api_url("good"));
        async move { request.send().await.map(|response| response.status().as_u16()) }
    });
    support::settle().await;
    held.release();
    assert!(found(&soon(bad).await.unwrap().unwrap_err()).is_transient());
    assert_eq!(soon(good).await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn a_retry_after_of_zero_or_in_the_past_does_not_make_a_storm() {
    for retry_after in ["0", "Fri, 31 Dec 1999 23:59:59 GMT"] {
        let t = Fixture::expired(MockServer::start()).await;
        let busy = Fault::status(429).header("retry-after", retry_after);
        t.server.on_next(Route::Token, 1000, busy);
        let hold = t.server.hold(Route::Token);
        let release = async {
            hold.arrived(1).await;
            support::settle().await;
            hold.release();
        };
        let (results, ()) = soon(async { tokio::join!(t.get_all(50), release) }).await;
        for result in results {
            let error = result.unwrap_err();
            assert!(found(&error).is_transient());
            assert_eq!(found(&error).retry_after(), Some(Duration::from_millis(200)));
        }
        assert_eq!(t.server.counters().token_requests, 1);
    }
}

#[tokio::test]
async fn a_cooldown_does_not_hide_tokens_that_another_program_has_stored() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "3600"));
    let error = soon(t.get("first")).await.unwrap_err();
    assert_eq!(found(&error).retry_after(), Some(Duration::from_secs(3600)));

    let other = builder(&t.server).store(t.store.clone()).build().unwrap();
    let theirs = client(&other).get(t.server.api_url("theirs"));
    assert_eq!(soon(theirs.send()).await.unwrap().status(), 200);
    // The store is looked at once a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut events = t.session.events();
    assert_eq!(soon(t.get("ours")).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 2);
    assert!(events.try_next().is_none(), "nothing was refreshed here");
}

/// What the program's own endpoint does with the answer.
struct Careless {
    url: String,
    with: Carelessness,
}

#[derive(Clone, Copy)]
enum Carelessness {
    ErrorForStatus,
    Json,
}

#[async_trait]
impl TokenEndpoint for Careless {
    fn id(&self) -> String {
        "careless".to_owned()
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.secret())];
        let response = http.post(&self.url).form(&form).send().await?;
        match self.with {
            Carelessness::ErrorForStatus => {
                let body = response.error_for_status()?.bytes().await?;
                TokenResponse::from_json(&body).map_err(|_| RefreshError::unexpected("no tokens"))
            }
            Carelessness::Json => {
                #[derive(serde::Deserialize)]
                struct Tokens {
                    access_token: u64,
                }
                let tokens: Tokens = response.json().await?;
                Ok(TokenResponse::new(tokens.access_token.to_string()))
            }
        }
    }
}

async fn careless(server: &MockServer, with: Carelessness) -> Session {
    let session = Session::builder("test", Careless { url: server.token_url(), with })
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    session
}

#[tokio::test]
async fn an_endpoint_that_passes_on_an_error_status_sends_the_token_once() {
    for (status, transient) in [(400, true), (429, true), (404, false)] {
        let server = MockServer::start();
        let session = careless(&server, Carelessness::ErrorForStatus).await;
        server.on_next(Route::Token, 2, Fault::status(status));
        let request = client(&session).get(server.api_url("things"));
        let error = soon(request.send()).await.unwrap_err();
        assert_eq!(found(&error).is_transient(), transient, "{status}");
        assert_eq!(server.counters().token_requests, 1, "{status}");
        assert!(session.is_logged_in().await.unwrap());
    }
}

#[tokio::test]
async fn an_answer_of_another_form_is_whole_and_neither_asked_for_again_nor_shown() {
    let server = MockServer::start();
    let session = careless(&server, Carelessness::Json).await;
    let request = client(&session).get(server.api_url("things"));
    let error = soon(request.send()).await.unwrap_err();
    assert!(found(&error).is_transient());
    let text = format!("{error:?} {:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.contains("not of the expected form") && !text.contains("at_"), "{text}");
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.reuses), (1, 0));
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() {
    let problem = |endpoint: OAuth2Endpoint, origin: &str| {
        let builder = Session::builder("test", endpoint).origin(origin).store(MemoryStore::new());
        let error = builder.build().unwrap_err();
        assert!(error.is_configuration());
        let text = format!("{error} {error:?}");
        assert!(!text.contains("canary"), "{text}");
        text
    };
    let api = "https://api.example.com";
    let endpoint = |url: &str| OAuth2Endpoint::new(url, "cli");
    let text = problem(endpoint("https://cli:canary@id.example.com/token"), api);
    assert!(text.contains("user name or password"), "{text}");
    let text = problem(endpoint("htps//cli:canary@id.example.com/token"), api);
    assert!(text.contains("no URL"), "{text}");
    let text = problem(endpoint("https://id.example.com/token#x"), api);
    assert!(text.contains("fragment"), "{text}");
    problem(endpoint("https://id.example.com/token"), "https://me:canary@api.example.com");
}

#[tokio::test]
async fn a_logout_while_the_store_cannot_be_read_is_not_undone_when_it_can() {
    let t = Fickle::new().await;
    let record = t.memory.load().unwrap().unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&fails);
    let ask = move |_| match asked.load(Ordering::SeqCst) {
        true => Err(StoreError::locked("the test has locked it")),
        false => Ok(()),
    };
    // A program that starts, finds the keychain locked, and is told to log out.
    let memory = MemoryStore::new();
    memory.save(&record).unwrap();
    let store = AskingStore { memory: memory.clone(), ask };
    let logouts = Logouts::default();
    let session = builder(&t.server).store(store).on_logout(logouts.hook()).build().unwrap();
    assert!(session.is_logged_in().await.unwrap_err().is_transient());
    assert!(soon(session.log_out()).await.unwrap_err().is_store());
    assert!(!session.is_logged_in().await.unwrap());

    fails.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(!session.is_logged_in().await.unwrap());
    let request = client(&session).get(t.server.api_url("things"));
    assert!(found(&soon(request.send()).await.unwrap_err()).is_logged_out());
    // Reading it again has cleared it, and revoked what was in it.
    assert!(memory.load().unwrap().is_none());
    assert_eq!(t.server.counters().revocations, 1);
}

#[tokio::test]
async fn a_logout_during_a_refresh_that_fails_clears_the_store_and_revokes() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(418));
    let held = t.server.hold(Route::Token);
    let request = tokio::spawn({
        let request = t.client.get(t.server.api_url("things"));
        async move { request.send().await }
    });
    soon(held.arrived(1)).await;
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Pending);
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
    held.release();
    soon(t.session.drain()).await;
    assert!(t.record().is_none());
    assert_eq!(t.server.counters().revocations, 1);
    assert!(!t.server.family_alive(t.issued.family));
}

#[tokio::test]
async fn who_waits_as_long_as_the_error_says_is_not_held_up_by_a_note_that_came_late() {
    let (server, memory) = (MockServer::start(), MemoryStore::new());
    let (turnstiles, parks) = (<[Turnstile; 2]>::default(), Arc::new(AtomicBool::new(false)));
    let (mut parked, asked) = (turnstiles.clone().into_iter(), Arc::clone(&parks));
    let parked = Mutex::new(move || parked.next());
    let ask = move |call| {
        if call == Call::Load && asked.load(Ordering::SeqCst) {
            let next = parked.lock().unwrap()();
            next.iter().for_each(Turnstile::pass);
        }
        Ok(())
    };
    let session = builder(&server).store(AskingStore { memory, ask }).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "3"));
    let held = server.hold(Route::Token);
    let get = || client(&session).get(server.api_url("things")).send();
    let first = tokio::spawn(get());
    soon(held.arrived(1)).await;
    // The mark of the refresh has to wait for one call, and the note behind it for another.
    parks.store(true, Ordering::SeqCst);
    let status = || {
        let session = session.clone();
        tokio::spawn(async move { session.status().await })
    };
    let before = status();
    soon(turnstiles[0].arrived()).await;
    held.release();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let behind = status();
    support::settle().await;
    turnstiles[0].open();
    soon(turnstiles[1].arrived()).await;
    // So late it comes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    turnstiles[1].open();
    for status in [before, behind] {
        soon(status).await.unwrap().unwrap();
    }
    let error = soon(first).await.unwrap().unwrap_err();
    assert_eq!(found(&error).retry_after(), Some(Duration::from_secs(3)));

    let left = found(&soon(get()).await.unwrap_err()).retry_after().unwrap();
    tokio::time::sleep(left).await;
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert_eq!(server.counters().token_requests, 2);
}

/// A store whose next save takes until the test lets it go, and the number of its saves.
fn slow_to_save(memory: &MemoryStore) -> (impl TokenStore + use<>, Turnstile, Slow) {
    let (turnstile, slow) = (Turnstile::default(), Slow::default());
    let (parked, asked) = (turnstile.clone(), slow.clone());
    let ask = move |call| {
        if call == Call::Save && asked.next.swap(false, Ordering::SeqCst) {
            parked.pass();
        }
        asked.saves.fetch_add(u64::from(call == Call::Save), Ordering::SeqCst);
        Ok(())
    };
    (AskingStore { memory: memory.clone(), ask }, turnstile, slow)
}

#[derive(Clone, Default)]
struct Slow {
    next: Arc<AtomicBool>,
    saves: Arc<AtomicU64>,
}

#[tokio::test]
async fn a_login_that_was_given_back_is_undone_when_its_save_lands_late() {
    let (server, memory) = (MockServer::start(), MemoryStore::new());
    let (store, turnstile, slow) = slow_to_save(&memory);
    let session = builder(&server).store(store).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let alice = memory.load().unwrap().unwrap();

    slow.next.store(true, Ordering::SeqCst);
    let error = soon(session.log_in(tokens(&server.log_in("bob")))).await.unwrap_err();
    assert!(error.is_store() && error.is_transient(), "{error}");
    assert!(error.tokens().is_some());
    assert_eq!(slow.saves.load(Ordering::SeqCst), 1);
    turnstile.open();
    // Bob's record lands, and alice's is put back.
    let is_alices = || memory.load().unwrap().unwrap().as_bytes() == alice.as_bytes();
    soon(eventually(|| slow.saves.load(Ordering::SeqCst) == 3 && is_alices())).await;
    let request = client(&session).get(server.api_url("things"));
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    session.log_in(tokens(&server.log_in("carol"))).await.unwrap();
    assert!(!is_alices());
}

#[tokio::test]
async fn a_save_that_lands_after_the_logout_is_cleared() {
    let (server, memory) = (MockServer::start(), MemoryStore::new());
    let (store, turnstile, slow) = slow_to_save(&memory);
    let session = builder(&server).store(store).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    slow.next.store(true, Ordering::SeqCst);
    let request = client(&session).get(server.api_url("things"));
    // The save is given up after 3 seconds; the tokens are in use from memory.
    assert_eq!(soon(request.send()).await.unwrap().status(), 200);
    let logout = soon(session.log_out()).await;
    assert!(matches!(logout, Ok(Revocation::Pending) | Err(_)), "{logout:?}");
    turnstile.open();
    soon(eventually(|| memory.load().unwrap().is_none())).await;
    soon(eventually(|| server.counters().revocations == 1)).await;
    assert!(!session.is_logged_in().await.unwrap());
}

/// Waits for what other threads do; the caller bounds it.
async fn eventually(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn while_tokens_are_unsaved_a_refresh_fails_soon_and_names_the_store() {
    let t = Fickle::new().await;
    t.server.expire_access_tokens();
    t.fail(&[Call::Save]);
    let mut events = t.session.events();
    assert_eq!(t.get().await.unwrap(), 200);
    assert!(matches!(events.next().await, Some(Event::PersistFailed(_))));
    t.server.expire_access_tokens();
    let start = Instant::now();
    let error = t.get().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(found(&error).is_store() && found(&error).is_transient());
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_session_known_to_be_over_is_logged_out_though_the_store_is_locked() {
    let t = Fickle::new().await;
    t.server.revoke_user("alice");
    assert!(found(&t.get().await.unwrap_err()).is_logged_out());
    t.fail(&[Call::Load]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..20 {
        let error = t.get().await.unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    }
    assert!(!t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_panic_in_the_endpoint_is_an_error_for_all_and_the_session_lives() {
    struct Panics(AtomicU64);
    #[async_trait]
    impl TokenEndpoint for Panics {
        fn id(&self) -> String {
            "panics".to_owned()
        }

        async fn refresh(
            &self,
            _: &Client,
            _: &RefreshToken,
        ) -> Result<TokenResponse, RefreshError> {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the first one panics");
            Ok(TokenResponse::new("second"))
        }
    }
    let server = MockServer::start();
    let session = Session::builder("test", Panics(AtomicU64::new(0)))
        .origin(server.origin())
        .store(MemoryStore::new())
        .build()
        .unwrap();
    session.log_in(TokenResponse::new("first").refresh_token("r")).await.unwrap();
    let first = session.access_token().await.unwrap();
    let all = soon(join_all((0..20).map(|_| {
        let (session, first) = (session.clone(), first.clone());
        async move { session.refused(&first).await.map(|token| token.secret().to_owned()) }
    })))
    .await;
    let errors: Vec<_> = all.into_iter().map(Result::unwrap_err).collect();
    for error in &errors {
        assert!(error.to_string().contains("panicked"));
    }
    tokio::time::sleep(errors[0].retry_after().unwrap()).await;
    assert_eq!(soon(session.refused(&first)).await.unwrap().secret(), "second");
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_killed_save_left_behind_goes_with_the_logout() {
    let directory = tempfile::tempdir().unwrap();
    let store = reqwest_reauth::FileStore::new(directory.path().join("tokens.json"));
    for name in ["tokens.json", "tokens.json.0123456789abcdef.tmp", "other.0123456789abcdef.tmp"] {
        std::fs::write(directory.path().join(name), "secret").unwrap();
    }
    store.clear().unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].as_ref().unwrap().file_name(), "other.0123456789abcdef.tmp");
}

#[tokio::test]
async fn the_status_says_what_is_wrong_with_the_store_for_as_long_as_it_is() {
    let t = Fickle::new().await;
    let mut events = t.session.events();
    t.server.expire_access_tokens();
    t.fail(&[Call::Save]);
    assert_eq!(t.get().await.unwrap(), 200);
    let status = soon(t.session.status()).await.unwrap();
    assert!(status.trouble().unwrap().is_store());
    let text = status.to_string();
    assert!(text.ends_with("the store of the test: the test has locked it"), "{text}");
    t.fail(&[]);
    while !matches!(soon(events.next()).await, Some(Event::Persisted)) {}
    soon(t.session.drain()).await;
    let status = soon(t.session.status()).await.unwrap();
    assert!(status.trouble().is_none());
    assert!(!status.to_string().contains("locked it"));
}

#[tokio::test]
async fn a_store_that_takes_no_tokens_is_tried_more_and_more_rarely() {
    let (server, memory) = (MockServer::start(), MemoryStore::new());
    let fails = Arc::new(AtomicBool::new(false));
    let (tried, mut tries) = tokio::sync::mpsc::unbounded_channel();
    let ask = {
        let fails = Arc::clone(&fails);
        move |call| match call {
            Call::Save if fails.load(Ordering::SeqCst) => {
                let _ = tried.send(Instant::now());
                Err(StoreError::unavailable("it is full"))
            }
            _ => Ok(()),
        }
    };
    let session = builder(&server).store(AskingStore { memory, ask }).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    fails.store(true, Ordering::SeqCst);
    let request = client(&session).get(server.api_url("things")).send();
    assert_eq!(soon(request).await.unwrap().status(), 200);
    let mut last = soon(tries.recv()).await.unwrap();
    for pause in [200, 400, 800].map(Duration::from_millis) {
        let next = soon(tries.recv()).await.unwrap();
        assert!(next - last >= pause, "{:?} after the last one", next - last);
        last = next;
    }
}

#[tokio::test]
async fn the_end_of_a_program_waits_a_few_seconds_for_a_store_that_takes_no_tokens() {
    let t = Fickle::new().await;
    t.server.expire_access_tokens();
    t.fail(&[Call::Save]);
    let begun = Instant::now();
    assert_eq!(t.get().await.unwrap(), 200);
    // Three, and not the sixty of a refresh that is under way.
    soon(t.session.drain()).await;
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

/// An endpoint of the program's own that brings what no header can carry, and nothing else.
struct Useless;

#[async_trait]
impl TokenEndpoint for Useless {
    fn id(&self) -> String {
        "useless".to_owned()
    }

    async fn refresh(&self, _: &Client, _: &RefreshToken) -> Result<TokenResponse, RefreshError> {
        Ok(TokenResponse::new("no\nheader"))
    }
}

#[tokio::test]
async fn an_endpoint_that_brings_nothing_of_use_changes_nothing() {
    let memory = MemoryStore::new();
    let builder = Session::builder("test", Useless).origin("https://api.example.com");
    let session = builder.store(memory.clone()).build().unwrap();
    session.log_in(TokenResponse::new("at").refresh_token("rt")).await.unwrap();
    let before = memory.load().unwrap().unwrap();
    let token = session.access_token().await.unwrap();
    let error = soon(session.refused(&token)).await.unwrap_err();
    assert!(error.is_transient() && !error.is_store(), "{error:?}");
    assert_eq!(memory.load().unwrap().unwrap().as_bytes(), before.as_bytes());
    assert_eq!(session.status().await.unwrap().refreshes(), 0);
}
