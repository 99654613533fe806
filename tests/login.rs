//! A session begins: nothing of what was before it is left.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mock_server::{Fault, MockServer, Route, What};
use reqwest_reauth::{
    LogoutReason, MemoryStore, Record, RefreshWithheld, Shared, StoreError, TokenResponse,
    TokenStore,
};
use support::steps::{get, given_back, history, json, log_in, log_out, name, names, user};
use support::{AskingStore, Call, Fixture, access_tokens_sent, builder, found, soon, text, tokens};

// A new login.

#[tokio::test]
async fn a_waiting_request_of_one_user_is_never_sent_as_the_next_one() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let request = get(&t);
    hold.arrived(1).await;
    let logout = log_out(&t.session);
    assert_eq!(name(&soon(events.next()).await.unwrap()), "logged out");
    let bob = t.server.log_in("bob");
    let login = log_in(&t.session, tokens(&bob));
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    hold.release();
    soon(logout).await.unwrap().unwrap();
    soon(login).await.unwrap().unwrap();

    assert_eq!(access_tokens_sent(&t.server), [t.issued.access_token.as_str()]);
    assert_eq!(user(&t.session, &t.server).await, "bob");
    assert_eq!(
        access_tokens_sent(&t.server),
        [t.issued.access_token.as_str(), bob.access_token.as_str()]
    );
    assert!(t.server.family_alive(bob.family));
    assert!(!t.server.family_alive(t.issued.family));
    let stored = String::from_utf8(t.record().unwrap()).unwrap();
    assert!(stored.contains(&bob.refresh_token));
}

#[tokio::test]
async fn a_request_in_flight_is_not_replayed_with_the_token_of_another_login() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Api);
    let request = get(&t);
    hold.arrived(1).await;
    soon(t.session.log_out()).await.unwrap();
    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    hold.release();
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_login_over_an_existing_one_ends_its_requests_and_takes_its_place() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let (api, token) = (t.server.hold(Route::Api), t.server.hold(Route::Token));
    let in_flight = get(&t);
    api.arrived(1).await;
    let bob = t.server.log_in("bob");
    // While nothing holds the gate.
    soon(t.session.log_in(tokens(&bob))).await.unwrap();
    api.release();
    let error = soon(in_flight).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    assert_eq!(token.count(), 0);
    token.release();
    assert_eq!(user(&t.session, &t.server).await, "bob");
    let stored = String::from_utf8(t.record().unwrap()).unwrap();
    assert!(stored.contains(&bob.refresh_token));
    assert!(!stored.contains(&t.issued.refresh_token));
    assert_eq!(t.session.status().await.unwrap().refreshes(), 0);
}

#[tokio::test]
async fn a_login_over_one_that_is_refreshing_waits_for_it_and_then_wins() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold_answers(Route::Token);
    let request = get(&t);
    hold.arrived(1).await;
    let bob = t.server.log_in("bob");
    let login = log_in(&t.session, tokens(&bob));
    hold.release();
    soon(login).await.unwrap().unwrap();
    // It began as alice: with her new token, or not at all.
    match soon(request).await.unwrap() {
        Ok(response) => assert_eq!(json(response).await["user"], "alice"),
        Err(error) => assert!(found(&error).is_logged_out()),
    }
    assert_eq!(user(&t.session, &t.server).await, "bob");
    let stored = String::from_utf8(t.record().unwrap()).unwrap();
    assert!(stored.contains(&bob.refresh_token));
    // And bob's session goes on.
    t.server.expire_access_tokens();
    assert_eq!(user(&t.session, &t.server).await, "bob");
    assert_eq!(history(&t.server, &bob), [What::Login, What::Rotated]);
}

#[tokio::test]
async fn two_logins_at_once_leave_one_of_them_whole() {
    let t = Fixture::new().await;
    let users = ["bob", "carol"].map(|user| t.server.log_in(user));
    let logins = users.each_ref().map(|issued| t.session.log_in(tokens(issued)));
    let [one, two] = logins;
    let (one, two) = soon(async { tokio::join!(one, two) }).await;
    one.unwrap();
    two.unwrap();
    let current = t.session.access_token().await.unwrap();
    let stored = String::from_utf8(t.record().unwrap()).unwrap();
    let of = users.iter().find(|issued| issued.access_token == current.secret()).unwrap();
    assert!(stored.contains(&of.access_token) && stored.contains(&of.refresh_token));
}

#[tokio::test]
async fn a_login_that_cannot_be_stored_gives_its_tokens_back_and_changes_nothing() {
    let server = MockServer::start();
    let saves = AtomicUsize::new(0);
    let store = AskingStore {
        memory: MemoryStore::new(),
        ask: move |call| match call {
            Call::Save if saves.fetch_add(1, Ordering::SeqCst) == 1 => {
                Err(StoreError::unavailable("the disk is full"))
            }
            _ => Ok(()),
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let mut events = session.events();
    let bob = server.log_in("bob");
    let error = soon(session.log_in(tokens(&bob))).await.unwrap_err();
    assert!(error.is_store() && error.is_transient());
    assert_eq!(user(&session, &server).await, "alice");
    assert_eq!(names(&mut events), Vec::<&str>::new());
    given_back(&server, &error, &bob).await;
    // Once more, with what was given back.
    let tokens = error.tokens().unwrap().clone();
    soon(session.log_in(tokens)).await.unwrap();
    assert_eq!(user(&session, &server).await, "bob");
}

type Failure = fn(&str) -> StoreError;

/// A store whose second save is told as failed, though it was done.
#[derive(Default)]
struct Unsure {
    memory: MemoryStore,
    writes: AtomicUsize,
    /// How many writes fail after that one.
    fails: usize,
    /// How often it can't be read after that one, or until the next save, and how that is told.
    unreadable: Option<(usize, Failure)>,
    reads: AtomicUsize,
}

impl TokenStore for Unsure {
    fn describe(&self) -> String {
        "a store whose answers get lost".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        if let Some((times, error)) = self.unreadable
            && self.writes.load(Ordering::SeqCst) == 2
            && self.reads.fetch_add(1, Ordering::SeqCst) < times
        {
            return Err(error("not now"));
        }
        self.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        let write = self.writes.fetch_add(1, Ordering::SeqCst);
        if (2..2 + self.fails).contains(&write) {
            return Err(StoreError::unavailable("it takes nothing"));
        }
        self.memory.save(record)?;
        match write {
            1 => Err(StoreError::unavailable("the answer was lost")),
            _ => Ok(()),
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        panic!("nobody has logged out")
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}

/// Bob's login fails where alice is logged in, and leaves her so: her record is back at once, or
/// with her next refresh.
async fn leaves_alice_logged_in(store: Unsure, is_back_at_once: bool) {
    let (server, memory) = (MockServer::start(), store.memory.clone());
    let session = builder(&server).store(store).build().unwrap();
    let alice = server.log_in("alice");
    session.log_in(tokens(&alice)).await.unwrap();
    let error = soon(session.log_in(tokens(&server.log_in("bob")))).await.unwrap_err();
    assert!(error.is_store() && error.is_transient(), "{error:?}");
    let holds = |token: &str| text(&memory).unwrap().contains(token);
    assert_eq!(holds(&alice.refresh_token), is_back_at_once);

    server.expire_access_tokens();
    assert_eq!(user(&session, &server).await, "alice");
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.refreshes, counters.reuses), (1, 1, 0));
    assert!(holds(&server.current_refresh_token(alice.family).unwrap()));
}

#[tokio::test]
async fn a_login_that_was_stored_though_its_save_failed_leaves_the_one_before_as_it_was() {
    // It can be taken back at once; when the locks are left; or only by the next refresh.
    for fails in 0..3 {
        leaves_alice_logged_in(Unsure { fails, ..Unsure::default() }, fails < 2).await;
    }
}

#[tokio::test]
async fn a_login_whose_failed_save_left_the_store_unreadable_leaves_the_one_before_as_it_was() {
    let locked: Failure = |why| StoreError::locked(why);
    let damaged: Failure = |why| StoreError::corrupt(why);
    for unreadable in [(1, locked), (usize::MAX, damaged)] {
        let unreadable = Some(unreadable);
        leaves_alice_logged_in(Unsure { unreadable, ..Unsure::default() }, true).await;
    }
}

#[tokio::test]
async fn new_tokens_that_were_stored_though_their_save_failed_are_told_as_saved() {
    let server = MockServer::start();
    let session = builder(&server).store(Unsure::default()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let mut events = session.events();
    server.expire_access_tokens();
    assert_eq!(user(&session, &server).await, "alice");
    soon(session.drain()).await;
    assert_eq!(names(&mut events), ["not persisted", "refreshed", "persisted"]);
}

#[tokio::test]
async fn tokens_that_no_header_can_carry_are_refused_and_given_back() {
    let t = Fixture::new().await;
    let before = t.record();
    for bad in ["", "with space", "line\nbreak", "smörgås"] {
        let given = TokenResponse::new(bad).refresh_token("r");
        let error = soon(t.session.log_in(given)).await.unwrap_err();
        assert!(error.is_configuration(), "{bad:?}");
        assert!(error.tokens().is_some(), "{bad:?}");
    }
    assert_eq!(t.record(), before);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
}

// What a new login wipes out.

#[tokio::test]
async fn a_login_clears_the_logout_and_works_without_a_restart() {
    let t = Fixture::new().await;
    t.server.revoke_family(t.issued.family);
    assert!(found(&soon(t.get("things")).await.unwrap_err()).is_logged_out());
    assert!(found(&soon(t.get("things")).await.unwrap_err()).is_logged_out());
    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    assert_eq!(user(&t.session, &t.server).await, "bob");
    t.server.expire_access_tokens();
    assert_eq!(user(&t.session, &t.server).await, "bob");
    assert_eq!(t.server.counters().token_requests, 2);
}

#[tokio::test]
async fn a_login_clears_the_cooldown() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "600"));
    for _ in 0..2 {
        let error = soon(t.get("things")).await.unwrap_err();
        assert!(found(&error).retry_after().unwrap() > Duration::from_secs(590));
    }
    assert!(t.session.status().await.unwrap().cooldown().is_some());
    assert_eq!(t.server.counters().token_requests, 1);
    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    assert_eq!(t.session.status().await.unwrap().cooldown(), None);
    t.server.expire_access_tokens();
    assert_eq!(user(&t.session, &t.server).await, "bob");
    assert_eq!(t.server.counters().token_requests, 2);
}

#[tokio::test]
async fn a_login_clears_what_was_refused_here() {
    let t = Fixture::new().await;
    t.server.refuse_path("/api/locked");
    for _ in 0..3 {
        assert_eq!(soon(t.get("locked")).await.unwrap(), 401);
    }
    let response = soon(t.send("locked")).await.unwrap();
    assert!(response.extensions().get::<RefreshWithheld>().is_some());
    assert_eq!(t.server.counters().token_requests, 1);

    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    let response = soon(t.send("locked")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<RefreshWithheld>().is_none());
    assert_eq!(t.server.counters().token_requests, 2);
}

#[tokio::test]
async fn a_login_clears_the_budget() {
    let t = Fixture::new().await;
    for _ in 0..5 {
        t.server.expire_access_tokens();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    }
    t.server.expire_access_tokens();
    let response = soon(t.send("things")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<RefreshWithheld>().is_some());
    assert_eq!(t.server.counters().refreshes, 5);

    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    for _ in 0..5 {
        t.server.expire_access_tokens();
        assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    }
    assert_eq!(t.server.counters().refreshes, 10);
}
