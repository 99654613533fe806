//! What becomes of a session whose store fails, hangs or panics.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{
    Event, LogoutReason, MemoryStore, Record, Revocation, Session, Shared, StoreError, TokenStore,
};
use support::person::Person;
use support::steps::{after_a_second, first_steps, log_in};
use support::{
    AskingStore, Call, Logouts, Turnstile, builder, chain, client, found, refresh_tokens_sent,
    soon, text, tokens, wait_out,
};
use tokio::sync::{Notify, watch};

// A store that fails after the exchange.

#[tokio::test]
async fn tokens_that_cannot_be_saved_are_in_use_and_saved_when_the_store_recovers() {
    let server = MockServer::start();
    let memory = MemoryStore::new();
    let saves = Arc::new(AtomicUsize::new(0));
    let store = AskingStore {
        memory: memory.clone(),
        ask: {
            let saves = Arc::clone(&saves);
            // The login's own, then two that fail.
            move |call| match call {
                Call::Save if [1, 2].contains(&saves.fetch_add(1, Ordering::SeqCst)) => {
                    Err(StoreError::unavailable("the disk is full"))
                }
                _ => Ok(()),
            }
        },
    };
    let logouts = Logouts::default();
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens(&issued)).await.unwrap();
    let before = memory.load().unwrap().unwrap();
    let mut events = session.events();
    server.expire_access_tokens();
    let client = client(&session);
    let get = || async { soon(client.get(server.api_url("x")).send()).await.unwrap().status() };
    assert_eq!(get().await, 200);
    let Some(Event::PersistFailed(error)) = soon(events.next()).await else {
        panic!("the program was not told");
    };
    assert!(error.is_store() && error.is_transient());
    assert!(chain(&error).contains("the disk is full"));

    // The old record is still there, and the new tokens are in use all the same.
    assert_eq!(memory.load().unwrap().unwrap().as_bytes(), before.as_bytes());
    assert_eq!(get().await, 200);
    assert_eq!(server.counters().refreshes, 1);
    assert!(matches!(soon(events.next()).await, Some(Event::Refreshed)));
    assert!(matches!(soon(events.next()).await, Some(Event::Persisted)));
    assert_eq!(saves.load(Ordering::SeqCst), 4);
    let current = server.current_refresh_token(issued.family).unwrap();
    assert!(text(&memory).unwrap().contains(&current));

    // The next refresh goes on from there.
    server.expire_access_tokens();
    assert_eq!(get().await, 200);
    assert_eq!(refresh_tokens_sent(&server), [issued.refresh_token, current]);
    assert_eq!(server.counters().reuses, 0);
    soon(session.drain()).await;
    assert_eq!(logouts.all(), []);
}

#[tokio::test]
async fn new_tokens_go_over_what_was_damaged_meanwhile_and_over_nothing_that_is_only_not_readable()
{
    type Failure = fn(&str) -> StoreError;
    let damaged: Failure = |why| StoreError::corrupt(why);
    let locked: Failure = |why| StoreError::locked(why);
    for (failure, is_written) in [(damaged, true), (locked, false)] {
        let (server, memory) = (MockServer::start(), MemoryStore::new());
        let fails = Arc::new(AtomicBool::new(false));
        let ask = {
            let fails = Arc::clone(&fails);
            move |call| match call {
                Call::Load if fails.load(Ordering::SeqCst) => Err(failure("the test says so")),
                _ => Ok(()),
            }
        };
        let session = builder(&server).store(AskingStore { memory: memory.clone(), ask });
        let session = session.build().unwrap();
        let issued = server.log_in("alice");
        session.log_in(tokens(&issued)).await.unwrap();
        server.expire_access_tokens();
        let hold = server.hold(Route::Token);
        let meanwhile = async {
            hold.arrived(1).await;
            fails.store(true, Ordering::SeqCst);
            hold.release();
        };
        let request = client(&session).get(server.api_url("x")).send();
        let (response, ()) = soon(async { tokio::join!(request, meanwhile) }).await;
        assert_eq!(response.unwrap().status(), 200);
        let current = server.current_refresh_token(issued.family).unwrap();
        let is_stored = || text(&memory).unwrap().contains(&current);
        assert_eq!(is_stored(), is_written);
        fails.store(false, Ordering::SeqCst);
        soon(session.drain()).await;
        assert!(is_stored());
    }
}

#[tokio::test]
async fn new_tokens_go_over_no_newer_ones() {
    let (server, memory) = (MockServer::start(), MemoryStore::new());
    let session = builder(&server).store(memory.clone()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    let hold = server.hold(Route::Token);
    // By a program that does not see our lock.
    let meanwhile = async {
        hold.arrived(1).await;
        let record = text(&memory).unwrap();
        let newer = record.replace(r#""generation":0"#, r#""generation":9"#);
        assert_ne!(newer, record);
        memory.save(&Record::from_bytes(newer.as_bytes())).unwrap();
        hold.release();
        newer
    };
    let request = client(&session).get(server.api_url("x")).send();
    let (_, newer) = soon(async { tokio::join!(request, meanwhile) }).await;
    soon(session.drain()).await;
    assert_eq!(text(&memory), Some(newer));
}

#[tokio::test]
async fn a_refresh_that_is_wanted_while_tokens_are_unsaved_waits_and_never_sends_the_spent_one() {
    let server = MockServer::start();
    let (memory, broken) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let (failed, mut failures) = watch::channel(0);
    let store = AskingStore {
        memory: memory.clone(),
        ask: {
            let broken = Arc::clone(&broken);
            move |call| match call {
                Call::Save if broken.load(Ordering::SeqCst) => {
                    failed.send_modify(|count| *count += 1);
                    Err(StoreError::locked("the store is locked"))
                }
                _ => Ok(()),
            }
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens(&issued)).await.unwrap();
    let mut events = session.events();
    broken.store(true, Ordering::SeqCst);
    server.expire_access_tokens();
    let client = client(&session);
    let get = || client.get(server.api_url("x")).send();
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert!(matches!(soon(events.next()).await, Some(Event::PersistFailed(_))));
    let unsaved = server.current_refresh_token(issued.family).unwrap();

    // Not while the store is broken.
    server.expire_access_tokens();
    let hold = server.hold_answers(Route::Api);
    let waiting = tokio::spawn(get());
    hold.arrived(1).await;
    hold.release();
    let before = *failures.borrow();
    soon(failures.wait_for(|count| *count >= before + 2)).await.unwrap();
    assert!(!waiting.is_finished());
    assert_eq!(server.counters().token_requests, 1);

    broken.store(false, Ordering::SeqCst);
    assert_eq!(soon(waiting).await.unwrap().unwrap().status(), 200);
    assert_eq!(refresh_tokens_sent(&server), [issued.refresh_token, unsaved]);
    assert_eq!(server.counters().reuses, 0);
    assert!(server.family_alive(issued.family));
}

#[tokio::test]
async fn a_logout_while_tokens_are_unsaved_ends_the_saving() {
    let server = MockServer::start();
    let (memory, broken) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let store = AskingStore {
        memory: memory.clone(),
        ask: {
            let broken = Arc::clone(&broken);
            move |call| match call {
                Call::Save if broken.load(Ordering::SeqCst) => {
                    Err(StoreError::unavailable("the disk is full"))
                }
                _ => Ok(()),
            }
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens(&issued)).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    server.expire_access_tokens();
    let request = client(&session).get(server.api_url("x")).send();
    assert_eq!(soon(request).await.unwrap().status(), 200);
    soon(session.log_out()).await.unwrap();
    assert!(memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    assert!(!server.family_alive(issued.family));
    // The store is free for the next login.
    broken.store(false, Ordering::SeqCst);
    soon(session.log_in(tokens(&server.log_in("bob")))).await.unwrap();
    assert!(memory.load().unwrap().is_some());
}

// A store that can't be read.

#[tokio::test]
async fn a_store_that_cannot_be_read_for_now_logs_nobody_out_and_sends_nothing() {
    let server = MockServer::start();
    let (memory, broken) = (MemoryStore::new(), Arc::new(AtomicBool::new(false)));
    let store = AskingStore {
        memory,
        ask: {
            let broken = Arc::clone(&broken);
            move |call| match call {
                Call::Load if broken.load(Ordering::SeqCst) => {
                    Err(StoreError::locked("unlock it first"))
                }
                _ => Ok(()),
            }
        },
    };
    let logouts = Logouts::default();
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    server.expire_access_tokens();
    let client = client(&session);
    let get = || client.get(server.api_url("x")).send();
    let error = soon(get()).await.unwrap_err();
    let error = found(&error);
    assert!(error.is_store() && error.is_transient() && !error.is_logged_out(), "{error:?}");
    assert!(chain(error).contains("unlock it first"));
    assert_eq!(server.counters().token_requests, 0);

    broken.store(false, Ordering::SeqCst);
    wait_out(error.retry_after()).await;
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert_eq!(server.counters().token_requests, 1);
    soon(session.drain()).await;
    assert_eq!(logouts.all(), []);
}

/// A session that gives up a read after 50 ms, its store, and what lets the person answer, who takes
/// longer.
fn hesitant(server: &MockServer) -> (Session, Declined, Turnstile) {
    let answer = Turnstile::default();
    let store = Declined { answer: Some(answer.clone()), ..Declined::default() };
    let builder = builder(server).store(store.clone()).store_wait(STORE_WAIT);
    (builder.build().unwrap(), store, answer)
}

const STORE_WAIT: Duration = Duration::from_millis(50);

/// Locked, until somebody unlocks it elsewhere; each read asks a person, who says no.
#[derive(Clone, Default)]
struct Declined {
    memory: MemoryStore,
    is_locked: Arc<AtomicBool>,
    prompts: Arc<AtomicUsize>,
    /// Whenever it says whether a person is asked.
    asked: Arc<Notify>,
    /// Where the person takes time: until this is opened.
    answer: Option<Turnstile>,
    /// As macOS, which can't be asked whether it is locked.
    always_asks: bool,
}

impl TokenStore for Declined {
    fn describe(&self) -> String {
        "a store whose prompt is declined".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        if self.is_locked.load(Ordering::SeqCst) {
            self.prompts.fetch_add(1, Ordering::SeqCst);
            self.answer.iter().for_each(Turnstile::pass);
            return Err(StoreError::locked("nobody unlocked it"));
        }
        self.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.memory.clear()
    }

    fn asks_a_person(&self) -> bool {
        self.asked.notify_one();
        self.always_asks || self.is_locked.load(Ordering::SeqCst)
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}

#[tokio::test]
async fn a_person_who_says_no_to_the_prompt_is_not_asked_again_by_each_request() {
    let server = MockServer::start();
    let store = Declined::default();
    let session = |store: &Declined| builder(&server).store(store.clone()).build().unwrap();
    session(&store).log_in(tokens(&server.log_in("alice"))).await.unwrap();
    store.is_locked.store(true, Ordering::SeqCst);
    let session = session(&store);
    let client = client(&session);
    let get = || client.get(server.api_url("x")).send();
    for _ in 0..20 {
        let error = soon(get()).await.unwrap_err();
        let error = found(&error);
        assert!(error.is_store() && error.is_transient() && !error.is_logged_out(), "{error:?}");
        assert!(!error.is_login_required(), "it is there, though locked");
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(15), "{wait:?}");
    }
    assert_eq!(store.prompts.load(Ordering::SeqCst), 1);
    // Who asks the session itself is a person's doing.
    assert!(soon(session.is_logged_in()).await.unwrap_err().is_store());
    assert_eq!(store.prompts.load(Ordering::SeqCst), 2);
    soon(get()).await.unwrap_err();
    assert_eq!(store.prompts.load(Ordering::SeqCst), 2);

    store.is_locked.store(false, Ordering::SeqCst);
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert_eq!(server.counters().token_requests, 0);

    // Nor by each refresh.
    store.is_locked.store(true, Ordering::SeqCst);
    server.expire_access_tokens();
    for _ in 0..4 {
        let error = soon(get()).await.unwrap_err();
        assert!(found(&error).is_store(), "{error:?}");
        wait_out(found(&error).retry_after()).await;
    }
    assert_eq!(store.prompts.load(Ordering::SeqCst), 3);
    store.is_locked.store(false, Ordering::SeqCst);
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    assert_eq!(server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_logout_that_is_due_brings_up_no_prompt_at_each_look() {
    let server = MockServer::start();
    let store = Declined::default();
    let session = builder(&server).store(store.clone()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    store.is_locked.store(true, Ordering::SeqCst);
    assert!(soon(session.log_out()).await.unwrap_err().is_store());
    let asked = store.prompts.load(Ordering::SeqCst);
    let client = client(&session);
    for _ in 0..3 {
        after_a_second().await;
        let error = soon(client.get(server.api_url("x")).send()).await.unwrap_err();
        assert!(found(&error).is_logged_out(), "{error:?}");
    }
    assert_eq!(store.prompts.load(Ordering::SeqCst), asked);
    store.is_locked.store(false, Ordering::SeqCst);
    after_a_second().await;
    soon(client.get(server.api_url("x")).send()).await.unwrap_err();
    soon(session.drain()).await;
    assert!(store.memory.load().unwrap().is_none());
    assert_eq!(server.counters().revocations, 1);
}

#[tokio::test]
async fn a_login_beside_a_first_look_that_is_declined_brings_up_no_second_prompt() {
    let server = MockServer::start();
    let (session, store, answer) = hesitant(&server);
    store.is_locked.store(true, Ordering::SeqCst);
    let look = tokio::spawn({
        let session = session.clone();
        async move { session.is_logged_in().await }
    });
    // From here on the person is waited for.
    soon(store.asked.notified()).await;
    let login = log_in(&session, tokens(&server.log_in("alice")));
    first_steps(&session).await;
    answer.open();
    assert!(soon(look).await.unwrap().unwrap_err().is_store());
    let error = soon(login).await.unwrap().unwrap_err();
    assert!(error.is_store() && error.retry_after().is_some(), "{error:?}");
    assert_eq!(store.prompts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_login_is_kept_though_a_look_at_the_store_was_declined_while_the_person_was_asked() {
    let server = MockServer::start();
    let answer = Turnstile::default();
    let store = Declined { answer: Some(answer.clone()), always_asks: true, ..Declined::default() };
    let (person, ask) = Person::new();
    let session = ask(builder(&server).store(store.clone())).build().unwrap();
    session.log_in(tokens(&server.log_in("alice")).subject("alice")).await.unwrap();
    server.revoke_user("alice");
    let revoked = server.counters().revocations;
    let client = client(&session);
    let request = tokio::spawn(client.get(server.api_url("x")).send());
    let question = person.asked().await;
    store.is_locked.store(true, Ordering::SeqCst);
    soon(answer.arrived()).await;
    answer.open();
    store.is_locked.store(false, Ordering::SeqCst);
    question.send(Ok(tokens(&server.log_in("alice")).subject("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    assert!(session.is_logged_in().await.unwrap());
    assert_eq!(server.counters().revocations, revoked, "no more");
    // Its refreshes are not put off either, nor those of a login that nobody was asked for.
    let get = || client.get(server.api_url("x")).send();
    server.expire_access_tokens();
    assert_eq!(soon(get()).await.unwrap().status(), 200);
    server.expire_access_tokens();
    store.is_locked.store(true, Ordering::SeqCst);
    assert!(found(&soon(get()).await.unwrap_err()).is_store());
    store.is_locked.store(false, Ordering::SeqCst);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    assert_eq!(soon(get()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_person_who_says_no_after_a_while_is_asked_once_too() {
    let server = MockServer::start();
    let (session, store, answer) = hesitant(&server);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    store.is_locked.store(true, Ordering::SeqCst);
    let client = client(&session);
    let get = || client.get(server.api_url("x")).send();
    let request = tokio::spawn(get());
    // From here on the person is waited for.
    soon(store.asked.notified()).await;
    answer.open();
    let mut error = soon(request).await.unwrap().unwrap_err();
    for _ in 0..3 {
        assert!(found(&error).is_store(), "{error:?}");
        wait_out(found(&error).retry_after()).await;
        error = soon(get()).await.unwrap_err();
        assert!(chain(found(&error)).contains("nobody unlocked it"), "{error:?}");
    }
    assert_eq!(store.prompts.load(Ordering::SeqCst), 1);
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn no_look_brings_up_a_second_prompt_where_one_stands_or_was_declined_after_a_while() {
    let server = MockServer::start();
    let (session, store, answer) = hesitant(&server);
    assert!(!session.is_logged_in().await.unwrap());
    store.is_locked.store(true, Ordering::SeqCst);
    let client = client(&session);
    let mut login = None;
    for look in 0..4 {
        match look {
            1 => login = Some(log_in(&session, tokens(&server.log_in("alice")))),
            2 => answer.open(),
            _ => {}
        }
        after_a_second().await;
        let error = soon(client.get(server.api_url("x")).send()).await.unwrap_err();
        assert!(found(&error).is_logged_out(), "{error:?}");
        assert_eq!(store.prompts.load(Ordering::SeqCst), 1);
    }
    assert!(soon(login.unwrap()).await.unwrap().unwrap_err().is_store());
    assert_eq!(store.prompts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_logs_out_is_asked_to_unlock_the_store_once_whatever_they_said_before() {
    let server = MockServer::start();
    let store = Declined::default();
    let session = || builder(&server).store(store.clone()).build().unwrap();
    session().log_in(tokens(&server.log_in("alice"))).await.unwrap();
    store.is_locked.store(true, Ordering::SeqCst);
    let session = session();
    for prompts in 1..=2 {
        assert!(soon(session.log_out()).await.unwrap_err().is_store());
        assert_eq!(store.prompts.load(Ordering::SeqCst), prompts);
    }
    store.is_locked.store(false, Ordering::SeqCst);
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(store.memory.load().unwrap().is_none());
}

#[tokio::test]
async fn a_store_that_hangs_is_a_transient_error_within_three_seconds_and_blocks_no_exit() {
    let server = MockServer::start();
    let (store, turnstile) = AskingStore::hanging(&MemoryStore::new(), |_| true);
    let session = builder(&server).store(store).build().unwrap();
    let started = Instant::now();
    let asked = async { session.is_logged_in().await.unwrap_err() };
    let requested = async { client(&session).get(server.api_url("x")).send().await.unwrap_err() };
    let (asked, requested) = soon(async { tokio::join!(asked, requested) }).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    for error in [&asked, found(&requested)] {
        assert!(error.is_store() && error.is_transient(), "{error:?}");
        assert!(!error.is_logged_out(), "{error:?}");
        assert!(chain(error).contains("the store of the test"), "{}", chain(error));
    }
    // One call is under way, and no second one was begun behind it.
    let started = Instant::now();
    soon(session.drain()).await;
    drop(session);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(1), "the end of the program waits for {took:?}");
    turnstile.open();
    assert_eq!(server.counters().api_requests, 0);
}

#[tokio::test]
async fn a_login_into_a_store_that_hangs_gives_its_tokens_back() {
    let server = MockServer::start();
    let memory = MemoryStore::new();
    let (store, turnstile) = AskingStore::hanging(&memory, |_| true);
    let session = builder(&server).store(store).build().unwrap();
    let error = soon(session.log_in(tokens(&server.log_in("alice")))).await.unwrap_err();
    assert!(error.is_store() && error.is_transient() && error.tokens().is_some(), "{error:?}");
    // It answers again: a second try works.
    turnstile.open();
    let tokens = error.tokens().unwrap().clone();
    soon(session.log_in(tokens)).await.unwrap();
    let request = client(&session).get(server.api_url("x")).send();
    assert_eq!(soon(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_store_that_panics_is_a_transient_error_and_works_when_it_stops() {
    let server = MockServer::start();
    let broken = Arc::new(AtomicBool::new(true));
    let store = AskingStore {
        memory: MemoryStore::new(),
        ask: {
            let broken = Arc::clone(&broken);
            move |_| {
                assert!(!broken.load(Ordering::SeqCst), "the store's own trouble");
                Ok(())
            }
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    let login = soon(session.log_in(tokens(&server.log_in("alice")))).await.unwrap_err();
    assert!(login.tokens().is_some());
    let request = client(&session).get(server.api_url("x")).send();
    let requested = soon(request).await.unwrap_err();
    let asked = soon(session.is_logged_in()).await.unwrap_err();
    for error in [&login, found(&requested), &asked] {
        assert!(error.is_store() && error.is_transient(), "{error:?}");
        assert!(chain(error).contains("panicked"), "{}", chain(error));
    }
    broken.store(false, Ordering::SeqCst);
    soon(session.log_in(login.tokens().unwrap().clone())).await.unwrap();
    let request = client(&session).get(server.api_url("x")).send();
    assert_eq!(soon(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn invalid_grant_ends_the_session_even_if_the_store_cannot_be_cleared() {
    let server = MockServer::start();
    let memory = MemoryStore::new();
    let store = AskingStore::never_cleared(&memory);
    let logouts = Logouts::default();
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let fault = Fault::status(400).json(&serde_json::json!({"error": "invalid_grant"}));
    server.on_next(Route::Token, 1, fault);
    server.expire_access_tokens();
    let client = client(&session);
    for _ in 0..2 {
        let error = soon(client.get(server.api_url("x")).send()).await.unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    }
    // Its record is still there, and is read again after a second.
    assert!(memory.load().unwrap().is_some());
    after_a_second().await;
    let error = soon(client.get(server.api_url("x")).send()).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(server.counters().token_requests, 1);
    soon(session.drain()).await;
    assert_eq!(logouts.all(), [LogoutReason::Revoked]);
}
