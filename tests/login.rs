//! How a session begins and ends: by the user, by the server, and by other programs.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mock_server::{Fault, Issued, MockServer, Route, What};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_reauth::{
    AccessToken, Error, Event, Events, LoginRequired, LogoutReason, MemoryStore, OAuth2Endpoint,
    RefreshError, RefreshToken, RefreshWithheld, Revocation, Session, StoreError, TokenEndpoint,
    TokenResponse, TokenStore,
};
use support::{
    AskingStore, Call, Fixture, Logouts, Turnstile, access_tokens_sent, builder, client, endpoint,
    found, join_all, refresh_tokens_sent, soon, tokens, tokens_without_expiry,
};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

// The user logs out.

#[tokio::test]
async fn logging_out_clears_the_store_revokes_at_the_server_and_calls_the_hook_once() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(!t.session.is_logged_in().await.unwrap());
    assert!(t.record().is_none());
    assert_eq!(t.server.counters().revocations, 1);
    assert!(!t.server.family_alive(t.issued.family));
    let revokes = t.server.requests(Route::Revoke);
    assert_eq!(revokes.len(), 1);
    let body = String::from_utf8_lossy(&revokes[0].body);
    assert!(body.contains(&t.issued.refresh_token), "the refresh token is revoked");

    let error = soon(t.get("things")).await.unwrap_err();
    assert!(found(&error).is_logged_out());
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    assert!(!found(&error).is_transient());
    assert_eq!(t.server.counters().api_requests, 0);
    assert_eq!(t.server.counters().token_requests, 0);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
    assert_eq!(names(&mut events), ["logged out"]);
}

#[tokio::test]
async fn logging_out_while_the_server_is_down_logs_out_all_the_same() {
    let (server, store, logouts) = (MockServer::start(), MemoryStore::new(), Logouts::default());
    // Nobody listens there, and nobody else gets the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let revocation = format!("http://{}/revoke", closed.local_addr().unwrap());
    let session = Session::builder("test", endpoint(&server).revocation_url(revocation))
        .origin(server.origin())
        .store(store.clone())
        .on_logout(logouts.hook())
        .build()
        .unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Failed);
    assert!(!session.is_logged_in().await.unwrap());
    assert!(store.load().unwrap().is_none());
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    session.drain().await;
    assert_eq!(logouts.all(), [LogoutReason::Requested]);
    assert_eq!(server.counters().api_requests, 0);
}

#[tokio::test]
async fn a_server_that_refuses_the_revocation_does_not_keep_anybody_logged_in() {
    let t = Fixture::new().await;
    t.server.on_next(Route::Revoke, 1, Fault::status(503));
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Failed);
    assert!(!t.session.is_logged_in().await.unwrap());
    assert!(t.record().is_none());
    assert!(t.server.family_alive(t.issued.family));
}

#[tokio::test]
async fn nothing_is_revoked_without_a_revocation_url() {
    let server = MockServer::start();
    let endpoint = OAuth2Endpoint::new(server.token_url(), "test");
    let store = MemoryStore::new();
    let session = Session::builder("test", endpoint)
        .origin(server.origin())
        .store(store.clone())
        .build()
        .unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens(&issued)).await.unwrap();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Nothing);
    assert!(store.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    assert!(server.family_alive(issued.family));
    assert!(server.requests(Route::Revoke).is_empty());
}

#[tokio::test]
async fn logging_out_where_nobody_is_logged_in_does_nothing_and_calls_no_hook() {
    let t = Fixture::new().await;
    soon(t.session.log_out()).await.unwrap();
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Nothing);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
    assert_eq!(t.server.requests(Route::Revoke).len(), 1);
}

#[tokio::test]
async fn a_session_that_was_never_used_is_logged_out_with_what_the_store_holds() {
    let t = Fixture::new().await;
    let logouts = Logouts::default();
    let fresh = builder(&t.server).store(t.store.clone()).on_logout(logouts.hook());
    let fresh = fresh.build().unwrap();
    assert_eq!(soon(fresh.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(t.record().is_none());
    assert!(!t.server.family_alive(t.issued.family));
    fresh.drain().await;
    assert_eq!(logouts.all(), [LogoutReason::Requested]);
}

#[tokio::test]
async fn two_logouts_at_once_revoke_the_token_once_and_call_the_hook_once() {
    let (server, memory, logouts) = (MockServer::start(), MemoryStore::new(), Logouts::default());
    let (store, turnstile) = parking(&memory, Call::Clear);
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let first = log_out(&session);
    turnstile.arrived().await;
    let open = async {
        first_steps(&session).await;
        turnstile.open();
    };
    let (second, ()) = soon(async { tokio::join!(session.log_out(), open) }).await;
    second.unwrap();
    assert_eq!(soon(first).await.unwrap().unwrap(), Revocation::Revoked);
    session.drain().await;
    assert_eq!(logouts.all(), [LogoutReason::Requested]);
    assert!(memory.load().unwrap().is_none());
    assert_eq!(server.counters().revocations, 1);
    assert_eq!(server.requests(Route::Revoke).len(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_be_cleared_is_told_and_its_record_counts_for_nothing_here() {
    let server = MockServer::start();
    let memory = MemoryStore::new();
    let store = AskingStore {
        memory: memory.clone(),
        ask: |call| match call {
            Call::Clear => Err(StoreError::unavailable("it is read-only today")),
            _ => Ok(()),
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let error = soon(session.log_out()).await.unwrap_err();
    assert!(error.is_store());
    assert!(memory.load().unwrap().is_some());
    assert_eq!(server.counters().revocations, 1);
    assert!(!session.is_logged_in().await.unwrap());
    // The store is read again after a second.
    after_a_second().await;
    assert!(!session.is_logged_in().await.unwrap());
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert!(found(&error).is_logged_out());
    assert_eq!(server.counters().api_requests, 0);
}

// Logged out while something is under way.

#[tokio::test]
async fn without_a_login_a_request_fails_as_logged_out_and_nothing_is_sent() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).build().unwrap();
    assert!(!session.is_logged_in().await.unwrap());
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert!(found(&error).is_logged_out());
    assert_eq!(found(&error).logout_reason(), None);
    let error = soon(session.access_token()).await.unwrap_err();
    assert!(error.is_logged_out());
    assert_eq!(server.counters().api_requests, 0);
    assert_eq!(server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_401_that_comes_after_the_logout_is_logged_out() {
    let t = Fixture::new().await;
    let hold = t.server.hold(Route::Api);
    let request = get(&t);
    hold.arrived(1).await;
    // The revocation makes the token bad.
    soon(t.session.log_out()).await.unwrap();
    hold.release();
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_a_refresh_are_logged_out_at_once_while_it_is_still_under_way() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    t.server.expire_access_tokens();
    t.server.barrier(Route::Api, 5);
    let hold = t.server.hold(Route::Token);
    let requests: Vec<_> = (0..5).map(|_| get(&t)).collect();
    let token = {
        let session = t.session.clone();
        tokio::spawn(async move { session.access_token().await })
    };
    hold.arrived(1).await;
    let logout = log_out(&t.session);
    for request in requests {
        let error = soon(request).await.unwrap().unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    }
    // This one may have come before the refresh.
    if let Err(error) = soon(token).await.unwrap() {
        assert_eq!(error.logout_reason(), Some(LogoutReason::Requested));
    }
    assert!(!t.session.is_logged_in().await.unwrap());
    hold.release();
    assert_eq!(soon(logout).await.unwrap().unwrap(), Revocation::Revoked);
    assert_eq!(t.server.counters().api_requests, 5);
    assert!(t.record().is_none());
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
    assert_eq!(names(&mut events), ["logged out"]);
}

#[tokio::test]
async fn tokens_that_arrive_after_the_logout_are_revoked_and_not_stored() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold_answers(Route::Token);
    let request = get(&t);
    hold.arrived(1).await;
    assert_eq!(t.server.counters().refreshes, 1);
    let late = t.server.current_refresh_token(t.issued.family).unwrap();

    let logout = log_out(&t.session);
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    assert!(!t.session.is_logged_in().await.unwrap());
    hold.release();
    assert_eq!(soon(logout).await.unwrap().unwrap(), Revocation::Revoked);

    assert!(t.record().is_none());
    let revokes = t.server.requests(Route::Revoke);
    assert_eq!(revokes.len(), 1);
    let body = String::from_utf8_lossy(&revokes[0].body);
    assert!(body.contains(&late), "the newest refresh token is the one to revoke");
    let (login, rotated, revoked) = (What::Login, What::Rotated, What::Revoked);
    assert_eq!(history(&t.server, &t.issued), [login, rotated, revoked]);
    assert!(!t.session.is_logged_in().await.unwrap());
    assert!(soon(t.get("things")).await.is_err());
    assert_eq!(t.server.counters().api_requests, 1);
}

#[tokio::test]
async fn a_logout_that_a_refresh_outlasts_is_pending_and_settled_when_that_ends() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold_answers(Route::Token);
    let request = get(&t);
    hold.arrived(1).await;
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Pending);
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
    assert!(!t.session.is_logged_in().await.unwrap());
    hold.release();
    soon(t.session.drain()).await;
    assert!(t.record().is_none());
    assert_eq!(t.server.counters().revocations, 1);
    assert!(!t.session.is_logged_in().await.unwrap());
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
}

#[tokio::test]
async fn a_refresh_that_fails_after_two_logouts_leaves_the_old_token_revoked() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let busy = Fault::status(503).header("retry-after", "60");
    t.server.on_next(Route::Token, 1, busy);
    let hold = t.server.hold(Route::Token);
    let request = get(&t);
    hold.arrived(1).await;
    let release = async {
        first_steps(&t.session).await;
        hold.release();
    };
    let logouts = async { tokio::join!(t.session.log_out(), t.session.log_out(), release) };
    let (one, two, ()) = soon(logouts).await;
    one.unwrap();
    two.unwrap();
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
    assert!(t.record().is_none());
    assert_eq!(t.server.counters().revocations, 1, "the server still takes the refresh token");
}

#[tokio::test]
async fn a_logout_while_the_refreshed_tokens_are_saved_wins() {
    let server = MockServer::start();
    let (memory, turnstile) = (MemoryStore::new(), Turnstile::default());
    let saves = AtomicUsize::new(0);
    let store = AskingStore {
        memory: memory.clone(),
        ask: {
            let turnstile = turnstile.clone();
            move |call| {
                // The login's own is the first.
                if call == Call::Save && saves.fetch_add(1, Ordering::SeqCst) == 1 {
                    turnstile.pass();
                }
                Ok(())
            }
        },
    };
    let session = builder(&server).store(store).build().unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens(&issued)).await.unwrap();
    server.expire_access_tokens();
    let request = tokio::spawn(client(&session).get(server.api_url("things")).send());
    turnstile.arrived().await;
    let logout = log_out(&session);
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    turnstile.open();
    assert_eq!(soon(logout).await.unwrap().unwrap(), Revocation::Revoked);
    assert!(memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    let (login, rotated, revoked) = (What::Login, What::Rotated, What::Revoked);
    assert_eq!(history(&server, &issued), [login, rotated, revoked]);
    assert_eq!(server.counters().api_requests, 1);
}

#[tokio::test]
async fn a_logout_while_a_login_is_saved_wins_and_the_login_gives_its_tokens_back() {
    let server = MockServer::start();
    let memory = MemoryStore::new();
    let (store, turnstile) = parking(&memory, Call::Save);
    let logouts = Logouts::default();
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    assert!(!session.is_logged_in().await.unwrap());
    let issued = server.log_in("alice");
    let login = log_in(&session, tokens(&issued));
    turnstile.arrived().await;
    let open = async {
        first_steps(&session).await;
        turnstile.open();
    };
    let (logout, ()) = soon(async { tokio::join!(session.log_out(), open) }).await;
    logout.unwrap();

    let login = soon(login).await.unwrap().unwrap_err();
    assert_eq!(login.logout_reason(), Some(LogoutReason::Requested));
    assert!(memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert!(found(&error).is_logged_out());

    // Nothing of it is left, and what was given back is as good as before.
    assert!(server.family_alive(issued.family), "the tokens that were given back were revoked");
    session.log_in(login.tokens().unwrap().clone()).await.unwrap();
    assert_eq!(user(&session, &server).await, "alice");
    session.drain().await;
    assert_eq!(logouts.all(), []);
}

#[tokio::test]
async fn a_logout_while_a_second_login_is_saved_revokes_the_first() {
    let server = MockServer::start();
    let (memory, turnstile) = (MemoryStore::new(), Turnstile::default());
    let saves = AtomicUsize::new(0);
    let store = AskingStore {
        memory: memory.clone(),
        ask: {
            let turnstile = turnstile.clone();
            move |call| {
                if call == Call::Save && saves.fetch_add(1, Ordering::SeqCst) == 1 {
                    turnstile.pass();
                }
                Ok(())
            }
        },
    };
    let logouts = Logouts::default();
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    let first = server.log_in("alice");
    session.log_in(tokens(&first)).await.unwrap();
    let second = log_in(&session, tokens(&server.log_in("bob")));
    turnstile.arrived().await;
    let mut events = session.events();
    let logout = log_out(&session);
    assert_eq!(name(&soon(events.next()).await.unwrap()), "logged out");
    turnstile.open();

    assert!(soon(second).await.unwrap().unwrap_err().is_logged_out());
    assert_eq!(soon(logout).await.unwrap().unwrap(), Revocation::Revoked);
    assert!(memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    session.drain().await;
    assert_eq!(logouts.all(), [LogoutReason::Requested]);
    assert!(!server.family_alive(first.family), "the server still takes the first one's token");
}

/// The first reading of the store, under way, must not delay or undo a logout.
#[tokio::test]
async fn the_first_slow_load_never_overwrites_a_logout() {
    let t = Fixture::new().await;
    let (store, turnstile) = parking(&t.store, Call::Load);
    let session = builder(&t.server).store(store).build().unwrap();
    let asking = {
        let session = session.clone();
        tokio::spawn(async move { session.is_logged_in().await })
    };
    turnstile.arrived().await;
    let open = async {
        first_steps(&session).await;
        turnstile.open();
    };
    let (logout, ()) = soon(async { tokio::join!(session.log_out(), open) }).await;
    assert_eq!(logout.unwrap(), Revocation::Revoked);
    // It may have been answered before the logout.
    soon(asking).await.unwrap().unwrap();
    assert!(!session.is_logged_in().await.unwrap());
    assert!(t.record().is_none());
    assert!(!t.server.family_alive(t.issued.family));
}

#[tokio::test]
async fn a_request_that_waits_for_the_first_load_is_not_sent_after_a_logout() {
    let t = Fixture::new().await;
    let turnstiles = [Turnstile::default(), Turnstile::default()];
    let loads = AtomicUsize::new(0);
    let store = AskingStore {
        memory: t.store.clone(),
        ask: {
            let turnstiles = turnstiles.clone();
            move |call| {
                if call == Call::Load
                    && let Some(turnstile) = turnstiles.get(loads.fetch_add(1, Ordering::SeqCst))
                {
                    turnstile.pass();
                }
                Ok(())
            }
        },
    };
    let session = builder(&t.server).store(store).build().unwrap();
    let request = tokio::spawn(client(&session).get(t.server.api_url("things")).send());
    turnstiles[0].arrived().await;
    let meanwhile = async {
        first_steps(&session).await;
        turnstiles[0].open();
        let result = request.await.unwrap();
        // Should the logout read the store too: nobody is to wait for that.
        turnstiles[1].open();
        result
    };
    let (logout, result) = soon(async { tokio::join!(session.log_out(), meanwhile) }).await;
    assert_eq!(logout.unwrap(), Revocation::Revoked);
    assert_eq!(t.server.counters().api_requests, 0, "sent after the logout");
    let error = result.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    assert!(t.record().is_none());
}

#[tokio::test]
async fn the_first_slow_load_never_overwrites_a_login() {
    let t = Fixture::new().await;
    let (store, turnstile) = parking(&t.store, Call::Load);
    let session = builder(&t.server).store(store).build().unwrap();
    let request = tokio::spawn(client(&session).get(t.server.api_url("things")).send());
    turnstile.arrived().await;
    let login = log_in(&session, tokens(&t.server.log_in("bob")));
    turnstile.open();
    soon(login).await.unwrap().unwrap();
    assert_eq!(user(&session, &t.server).await, "bob");
    let stored = String::from_utf8(t.record().unwrap()).unwrap();
    let bobs = session.access_token().await.unwrap();
    assert!(stored.contains(bobs.secret()));

    // The request began before: as alice, or not at all.
    match soon(request).await.unwrap() {
        Ok(response) => assert_eq!(json(response).await["user"], "alice"),
        Err(error) => assert!(found(&error).is_logged_out()),
    }
}

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

// The server ends the session.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_grant_logs_everybody_out_once() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    t.server.revoke_family(t.issued.family);
    t.server.barrier(Route::Api, 20);
    for result in soon(t.get_all(20)).await {
        let error = result.unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
        assert!(!found(&error).is_transient());
    }
    assert!(t.record().is_none());
    assert!(!t.session.is_logged_in().await.unwrap());
    // And so do those that come later, without asking anybody.
    for result in soon(t.get_all(80)).await {
        let error = result.unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    }
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.invalid_grants, 1);
    assert_eq!(counters.api_requests, 20);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked]);
    assert_eq!(names(&mut events), ["logged out"]);
    let status = t.session.status().await.unwrap();
    assert_eq!(status.logout_reason(), Some(LogoutReason::Revoked));
    // The server ended it: there is nothing left to revoke.
    assert!(t.server.requests(Route::Revoke).is_empty());
}

#[tokio::test]
async fn a_refresh_token_past_its_known_life_is_expired_and_not_revoked() {
    let day = Duration::from_secs(24 * 60 * 60);
    for (lifetime, reason) in [
        (Some(Duration::from_millis(1)), LogoutReason::RefreshTokenExpired),
        (Some(day), LogoutReason::Revoked),
        (None, LogoutReason::Revoked),
    ] {
        let t = Fixture::new().await;
        let mut given = tokens(&t.issued);
        if let Some(lifetime) = lifetime {
            given = given.refresh_expires_in(lifetime);
        }
        soon(t.session.log_in(given)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        t.server.expire_access_tokens();
        t.server.expire_refresh_tokens();
        let error = soon(t.get("things")).await.unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(reason));
        assert_eq!(t.server.counters().token_requests, 1);
        t.session.drain().await;
        assert_eq!(t.logouts.all(), [reason]);
        assert!(t.record().is_none());
    }
}

/// A clock that is wrong must not cost a session that the server would go on with.
#[tokio::test]
async fn a_refresh_token_past_its_known_life_is_sent_all_the_same() {
    let t = Fixture::new().await;
    let given = tokens(&t.issued).refresh_expires_in(Duration::from_millis(1));
    soon(t.session.log_in(given)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_session_without_a_refresh_token_gets_its_401_marked_and_nothing_is_cleared() {
    let t = Fixture::new().await;
    let bare = TokenResponse::new(&t.issued.access_token);
    soon(t.session.log_in(bare)).await.unwrap();
    let before = t.record();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let status = t.session.status().await.unwrap().to_string();
    assert!(status.contains("no refresh token"), "{status}");

    t.server.expire_access_tokens();
    let response = soon(t.send("things")).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<LoginRequired>().is_some());
    let token = t.session.access_token().await.unwrap();
    let error = soon(t.session.refused(&token)).await.unwrap_err();
    assert!(error.is_login_required());
    assert!(!error.is_logged_out() && !error.is_transient());

    assert!(t.session.is_logged_in().await.unwrap());
    assert_eq!(t.record(), before);
    assert_eq!(t.server.counters().api_requests, 2);
    assert_eq!(t.server.counters().token_requests, 0);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn a_session_without_a_refresh_token_is_logged_out_with_nothing_to_revoke() {
    let t = Fixture::new().await;
    let bare = TokenResponse::new(&t.issued.access_token);
    soon(t.session.log_in(bare)).await.unwrap();
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Nothing);
    assert!(t.record().is_none());
    assert!(t.server.requests(Route::Revoke).is_empty());
}

// Waiting.

#[tokio::test]
async fn a_request_waits_for_a_refresh_no_longer_than_its_own_timeout() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let patient = get(&t);
    hold.arrived(1).await;
    let started = Instant::now();
    let limit = Duration::from_millis(100);
    let request = t.client.get(t.server.api_url("things"));
    let error = soon(request.timeout(limit).send()).await.unwrap_err();
    assert!(started.elapsed() >= limit);
    assert!(found(&error).is_timeout());
    assert!(found(&error).is_transient() && !found(&error).is_logged_out());
    hold.release();
    assert_eq!(soon(patient).await.unwrap().unwrap().status(), 200);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
    assert_eq!(t.server.counters().reuses, 0);
}

#[tokio::test]
async fn a_request_whose_401_needs_a_refresh_waits_no_longer_than_its_own_timeout() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let hold = t.server.hold(Route::Token);
    let request = t.client.get(t.server.api_url("things"));
    let error = soon(request.timeout(Duration::from_secs(1)).send()).await.unwrap_err();
    assert!(found(&error).is_timeout());
    hold.release();
    // The refresh was not its own: it goes on, and the next one has it.
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.reuses, 0);
    assert_eq!(counters.api_unauthorized, 1);
}

// Calls from within.

#[tokio::test]
async fn an_on_logout_hook_may_use_its_session() {
    let server = MockServer::start();
    let own = Arc::new(Mutex::new(None::<Session>));
    let (tell, mut told) = mpsc::unbounded_channel();
    let next = tokens(&server.log_in("bob"));
    let hook = {
        let own = Arc::clone(&own);
        move |why| {
            let session = own.lock().unwrap().clone().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let logged_in = session.is_logged_in().await.unwrap();
                let token = session.access_token().await.map(|_| ());
                let status = session.status().await.unwrap();
                let login = session.log_in(next.clone()).await;
                session.drain().await;
                tell.send((why, logged_in, token, status.is_logged_in(), login)).unwrap();
            });
        }
    };
    let store = MemoryStore::new();
    let session = builder(&server).store(store.clone()).on_logout(hook).build().unwrap();
    *own.lock().unwrap() = Some(session.clone());
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();

    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    let (why, logged_in, token, status, login) = soon(told.recv()).await.unwrap();
    assert_eq!(why, LogoutReason::Requested);
    assert!(!logged_in && !status);
    assert_eq!(token.unwrap_err().logout_reason(), Some(LogoutReason::Requested));
    login.unwrap();
    soon(session.drain()).await;
    assert_eq!(user(&session, &server).await, "bob");
    assert!(store.load().unwrap().is_some());
    // Or the session would own itself.
    own.lock().unwrap().take();
}

#[tokio::test]
async fn a_hook_that_blocks_delays_no_request_and_no_login() {
    let server = MockServer::start();
    let turnstile = Turnstile::default();
    let hook = {
        let turnstile = turnstile.clone();
        move |_| turnstile.pass()
    };
    let store = MemoryStore::new();
    let session = builder(&server).store(store).on_logout(hook).build().unwrap();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.revoke_user("alice");
    let error = soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert!(found(&error).is_logged_out());
    turnstile.arrived().await;
    soon(session.log_in(tokens(&server.log_in("bob")))).await.unwrap();
    assert_eq!(user(&session, &server).await, "bob");
    turnstile.open();
    soon(session.drain()).await;
}

#[tokio::test]
async fn a_hook_that_panics_harms_nothing() {
    let server = MockServer::start();
    let hook = |_| panic!("the hook's own trouble");
    let store = MemoryStore::new();
    let session = builder(&server).store(store).on_logout(hook).build().unwrap();
    for user_name in ["alice", "bob"] {
        session.log_in(tokens(&server.log_in(user_name))).await.unwrap();
        assert_eq!(user(&session, &server).await, user_name);
        assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
        soon(session.drain()).await;
    }
}

#[tokio::test]
async fn a_loop_over_the_events_may_use_its_session() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    let watching = {
        let (session, next) = (t.session.clone(), tokens(&t.server.log_in("bob")));
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::LoggedOut(_) => {
                        assert!(!session.is_logged_in().await.unwrap());
                        assert!(session.access_token().await.unwrap_err().is_logged_out());
                        session.log_in(next.clone()).await.unwrap();
                    }
                    Event::LoggedIn => return session.access_token().await.unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            panic!("the session has gone");
        })
    };
    soon(t.session.log_out()).await.unwrap();
    let token = soon(watching).await.unwrap();
    assert_eq!(token.secret(), t.session.access_token().await.unwrap().secret());
    assert_eq!(user(&t.session, &t.server).await, "bob");
}

/// Uses its own session, which it must not.
#[derive(Default)]
struct Circular {
    client: Mutex<Option<(ClientWithMiddleware, String)>>,
    session: Mutex<Option<Session>>,
    said: Mutex<Vec<Error>>,
}

struct CircularEndpoint(Arc<Circular>);

#[async_trait]
impl TokenEndpoint for CircularEndpoint {
    fn id(&self) -> String {
        "circular".to_owned()
    }

    async fn refresh(
        &self,
        _: &reqwest::Client,
        _: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        let (client, url) = self.0.client.lock().unwrap().clone().unwrap();
        let session = self.0.session.lock().unwrap().clone().unwrap();
        let mut said = vec![found(&client.get(url).send().await.unwrap_err()).clone()];
        said.push(session.access_token().await.unwrap_err());
        said.push(session.log_in(TokenResponse::new("x")).await.unwrap_err());
        said.push(session.log_out().await.unwrap_err());
        // Waits for nothing, as it would wait for itself.
        session.drain().await;
        *self.0.said.lock().unwrap() = said;
        Err(RefreshError::not_sent("gave up"))
    }
}

#[tokio::test]
async fn a_token_endpoint_that_uses_its_own_session_gets_a_clear_error_and_no_deadlock() {
    for lifetime in [Duration::from_secs(300), Duration::from_millis(1)] {
        let server = MockServer::start();
        let own = Arc::new(Circular::default());
        let session = Session::builder("test", CircularEndpoint(Arc::clone(&own)))
            .origin(server.origin())
            .store(MemoryStore::new())
            .build()
            .unwrap();
        let client = client(&session);
        *own.client.lock().unwrap() = Some((client.clone(), server.api_url("inner")));
        *own.session.lock().unwrap() = Some(session.clone());
        let issued = server.log_in("alice");
        let given = tokens_without_expiry(&issued).expires_in(lifetime);
        session.log_in(given).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Found out by a 401, or by the clock.
        server.expire_access_tokens();
        let error = soon(client.get(server.api_url("outer")).send()).await.unwrap_err();
        assert!(found(&error).is_transient(), "{error:?}");

        let said = std::mem::take(&mut *own.said.lock().unwrap());
        assert_eq!(said.len(), 4);
        for error in said {
            let text = error.to_string();
            assert!(text.contains("its own session"), "{text}");
            assert!(!error.is_transient() && !error.is_logged_out(), "{text}");
        }
        assert!(session.is_logged_in().await.unwrap());
        for sent in server.requests(Route::Api) {
            assert_eq!(sent.path_and_query, "/api/outer");
        }
        own.client.lock().unwrap().take();
        own.session.lock().unwrap().take();
    }
}

// What is known of a session.

#[tokio::test]
async fn the_events_tell_the_story_in_order() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).build().unwrap();
    let mut events = session.events();
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    assert_eq!(user(&session, &server).await, "alice");
    soon(session.log_out()).await.unwrap();
    session.log_in(tokens(&server.log_in("bob"))).await.unwrap();
    server.revoke_user("bob");
    soon(client(&session).get(server.api_url("x")).send()).await.unwrap_err();
    assert_eq!(
        names(&mut events),
        ["logged in", "refreshed", "logged out", "logged in", "logged out"]
    );
    drop(session);
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn the_status_is_a_few_lines_for_a_person() {
    let server = MockServer::start();
    let session = builder(&server).store(MemoryStore::new()).account("work").build().unwrap();
    let status = session.status().await.unwrap();
    assert!(!status.is_logged_in());
    assert_eq!(status.account(), "work");
    assert_eq!(status.logout_reason(), None);
    let common = format!(
        "token endpoint and client: {} test\ntokens are kept in the memory of this process",
        server.token_url()
    );
    assert_eq!(status.to_string(), format!("not logged in as \"work\"\n{common}"));

    let given = tokens_without_expiry(&server.log_in("alice"));
    session.log_in(given).await.unwrap();
    server.expire_access_tokens();
    assert_eq!(user(&session, &server).await, "alice");
    let status = session.status().await.unwrap();
    assert!(status.is_logged_in());
    assert_eq!(status.refreshes(), 1);
    let left = status.expires_at().unwrap().duration_since(status.received_at().unwrap());
    assert_eq!(left.unwrap(), Duration::from_secs(300));
    let text = status.to_string();
    let (head, tail) = text.rsplit_once('\n').unwrap();
    assert_eq!(head, format!("logged in as \"work\"\n{common}\nrefreshes since the login: 1"));
    let seconds = tail.strip_prefix("access token: ").unwrap().strip_suffix(" s left").unwrap();
    assert!(seconds.parse::<u64>().unwrap() < 300, "{tail}");

    soon(session.log_out()).await.unwrap();
    let status = session.status().await.unwrap();
    assert_eq!(status.logout_reason(), Some(LogoutReason::Requested));
    assert_eq!(status.to_string(), format!("logged out as \"work\": as requested\n{common}"));
}

#[tokio::test]
async fn a_token_for_other_protocols_is_refreshed_when_it_is_refused() {
    let t = Fixture::new().await;
    let first = t.session.access_token().await.unwrap();
    assert_eq!(first.secret(), t.issued.access_token);
    assert!(first.expires_at().is_some());
    let second = soon(t.session.refused(&first)).await.unwrap();
    assert_ne!(second.secret(), first.secret());
    assert_eq!(t.session.access_token().await.unwrap().secret(), second.secret());
    assert_eq!(t.server.counters().refreshes, 1);

    // The older one is refused late: what is current will do.
    let current = soon(t.session.refused(&first)).await.unwrap();
    assert_eq!(current.secret(), second.secret());
    assert_eq!(t.server.counters().token_requests, 1);
    // And requests have it too.
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(access_tokens_sent(&t.server), [second.secret()]);
}

#[tokio::test]
async fn a_token_that_is_refused_over_and_over_leads_to_no_refresh_each() {
    let t = Fixture::new().await;
    let first = t.session.access_token().await.unwrap();
    let second = soon(t.session.refused(&first)).await.unwrap();
    for _ in 0..10 {
        let error = soon(t.session.refused(&second)).await.unwrap_err();
        assert!(error.is_transient() && error.retry_after().is_some());
    }
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn a_token_of_a_login_that_ended_is_logged_out_when_refused() {
    let t = Fixture::new().await;
    let alices = t.session.access_token().await.unwrap();
    soon(t.session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
    let error = soon(t.session.refused(&alices)).await.unwrap_err();
    assert!(error.is_logged_out());
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test]
async fn an_expired_token_is_refreshed_before_it_is_handed_out() {
    let t = Fixture::expired(MockServer::start()).await;
    let tokens = soon(join_all((0..10).map(|_| {
        let session = t.session.clone();
        async move { session.access_token().await.unwrap() }
    })))
    .await;
    let secrets: Vec<_> = tokens.iter().map(AccessToken::secret).collect();
    assert_eq!(secrets, vec![secrets[0]; 10]);
    assert_ne!(secrets[0], t.issued.access_token);
    assert_eq!(refresh_tokens_sent(&t.server), [t.issued.refresh_token.as_str()]);
}

// Other programs with the same store.

#[tokio::test]
async fn a_login_made_elsewhere_is_picked_up_within_about_a_second_and_is_no_logout() {
    let (server, store, logouts) = (MockServer::start(), MemoryStore::new(), Logouts::default());
    let running = builder(&server).store(store.clone()).on_logout(logouts.hook()).build().unwrap();
    let mut events = running.events();
    let error = soon(client(&running).get(server.api_url("x")).send()).await.unwrap_err();
    assert!(found(&error).is_logged_out());

    let other = builder(&server).store(store).build().unwrap();
    other.log_in(tokens(&server.log_in("bob"))).await.unwrap();
    after_a_second().await;
    assert_eq!(user(&running, &server).await, "bob");
    assert!(running.is_logged_in().await.unwrap());
    assert_eq!(server.counters().token_requests, 0);
    running.drain().await;
    assert_eq!(logouts.all(), [], "nobody was logged out");
    assert_eq!(names(&mut events), ["logged in"]);
}

#[tokio::test]
async fn a_login_made_elsewhere_after_a_logout_here_is_picked_up() {
    let t = Fixture::new().await;
    soon(t.session.log_out()).await.unwrap();
    let mut events = t.session.events();
    let other = builder(&t.server).store(t.store.clone()).build().unwrap();
    other.log_in(tokens(&t.server.log_in("bob"))).await.unwrap();
    after_a_second().await;
    assert_eq!(user(&t.session, &t.server).await, "bob");
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
    assert_eq!(names(&mut events), ["logged in"]);
}

#[tokio::test]
async fn a_login_made_elsewhere_in_place_of_ours_ends_ours_at_its_401_and_serves_later_requests() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    let other = builder(&t.server).store(t.store.clone()).build().unwrap();
    let bob = t.server.log_in("bob");
    other.log_in(tokens(&bob)).await.unwrap();
    t.server.revoke_family(t.issued.family);
    // It started as alice's.
    let error = soon(t.get("things")).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::LoggedOutElsewhere));
    assert_eq!(user(&t.session, &t.server).await, "bob");
    assert_eq!(
        access_tokens_sent(&t.server),
        [t.issued.access_token.as_str(), bob.access_token.as_str()]
    );
    assert_eq!(t.server.counters().token_requests, 0);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::LoggedOutElsewhere]);
    assert_eq!(names(&mut events), ["logged out", "logged in"]);
}

#[tokio::test]
async fn a_logout_made_elsewhere_is_found_at_the_401() {
    let t = Fixture::new().await;
    let mut events = t.session.events();
    let other = builder(&t.server).store(t.store.clone()).build().unwrap();
    assert!(other.is_logged_in().await.unwrap());
    assert_eq!(soon(other.log_out()).await.unwrap(), Revocation::Revoked);
    let error = soon(t.get("things")).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::LoggedOutElsewhere));
    assert!(!t.session.is_logged_in().await.unwrap());
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.server.counters().token_requests, 0);
    t.session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::LoggedOutElsewhere]);
    assert_eq!(names(&mut events), ["logged out"]);
}

#[tokio::test]
async fn tokens_refreshed_elsewhere_are_adopted_without_a_refresh() {
    let t = Fixture::new().await;
    let other = builder(&t.server).store(t.store.clone()).build().unwrap();
    t.server.expire_access_tokens();
    assert_eq!(user(&other, &t.server).await, "alice");
    assert_eq!(t.server.counters().refreshes, 1);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!(counters.token_requests, 1);
    assert_eq!(counters.reuses, 0);
    let here = t.session.access_token().await.unwrap();
    assert_eq!(here.secret(), other.access_token().await.unwrap().secret());
    assert_eq!(t.session.status().await.unwrap().refreshes(), 1);
}

/// A store whose next call of this kind is parked.
fn parking(
    memory: &MemoryStore,
    call: Call,
) -> (AskingStore<impl Fn(Call) -> Result<(), StoreError> + Send + Sync + 'static>, Turnstile) {
    let turnstile = Turnstile::default();
    let ask = {
        let turnstile = turnstile.clone();
        move |asked| {
            if asked == call {
                turnstile.pass();
            }
            Ok(())
        }
    };
    (AskingStore { memory: memory.clone(), ask }, turnstile)
}

fn get(t: &Fixture) -> JoinHandle<reqwest_middleware::Result<reqwest::Response>> {
    tokio::spawn(t.client.get(t.server.api_url("things")).send())
}

fn log_out(session: &Session) -> JoinHandle<Result<Revocation, Error>> {
    let session = session.clone();
    tokio::spawn(async move { session.log_out().await })
}

fn log_in(session: &Session, tokens: TokenResponse) -> JoinHandle<Result<(), Error>> {
    let session = session.clone();
    tokio::spawn(async move { session.log_in(tokens).await })
}

/// Returns when what was asked of the session before has begun there: its thread takes calls in
/// turn, and this one fails at its first step.
async fn first_steps(session: &Session) {
    let error = session.log_in(TokenResponse::new("")).await.unwrap_err();
    assert!(error.is_configuration());
}

/// The tokens are in the error, as they were given.
async fn given_back(server: &MockServer, error: &Error, issued: &Issued) {
    let session = builder(server).store(MemoryStore::new()).build().unwrap();
    session.log_in(error.tokens().unwrap().clone()).await.unwrap();
    let token = session.access_token().await.unwrap();
    assert_eq!(token.secret(), issued.access_token);
}

/// Who the API says is asking.
async fn user(session: &Session, server: &MockServer) -> String {
    let response = soon(client(session).get(server.api_url("who")).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    json(response).await["user"].as_str().unwrap().to_owned()
}

async fn json(response: reqwest::Response) -> serde_json::Value {
    response.json().await.unwrap()
}

fn history(server: &MockServer, issued: &Issued) -> Vec<What> {
    server.history(issued.family).iter().map(|entry| entry.what).collect()
}

fn names(events: &mut Events) -> Vec<&'static str> {
    std::iter::from_fn(|| events.try_next()).map(|event| name(&event)).collect()
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::LoggedIn => "logged in",
        Event::Refreshed => "refreshed",
        Event::LoggedOut(_) => "logged out",
        other => panic!("{other:?}"),
    }
}

/// The store is read at most once a second.
async fn after_a_second() {
    tokio::time::sleep(Duration::from_millis(1050)).await;
}
