//! A session ends by the user's wish, whatever is under way, or by the server's word.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mock_server::{Fault, MockServer, Route, What};
use reqwest::Client;
use reqwest_reauth::{
    LoginRequired, LogoutReason, MemoryStore, OAuth2Endpoint, Record, RefreshError, RefreshToken,
    Revocation, Session, StoreError, TokenEndpoint, TokenResponse, TokenStore,
};
use support::steps::{
    after_a_second, first_steps, get, history, json, log_in, log_out, name, names, parking, user,
};
use support::vault::User;
use support::{
    AskingStore, Call, Fixture, Logouts, Turnstile, builder, client, endpoint, found, soon, tokens,
};
use tokio::net::TcpSocket;

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
async fn a_logout_by_a_new_program_wins_over_a_refresh_that_ends_before_it_has_read_the_store() {
    let t = User::new();
    let (session, issued) = t.logged_in().await;
    let fresh = t.program();
    let turnstile = t.vault.park_next(Call::Load);
    let leaving = fresh.clone();
    let logout = tokio::spawn(async move { leaving.log_out().await });
    turnstile.arrived().await;
    t.server.expire_access_tokens();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    assert_eq!(t.server.counters().refreshes, 1);
    turnstile.open();
    assert_eq!(soon(logout).await.unwrap().unwrap(), Revocation::Revoked);
    assert_eq!(t.vault.text(), None);
    assert!(!t.server.family_alive(issued.family));
    assert!(!fresh.is_logged_in().await.unwrap());
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
    let store = AskingStore::never_cleared(&memory);
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

#[tokio::test]
async fn a_session_whose_tokens_were_received_in_the_future_is_logged_out_before_it_is_read() {
    let t = Fixture::new().await;
    let mut record: serde_json::Value = serde_json::from_slice(&t.record().unwrap()).unwrap();
    for time in ["received_at", "expires_at"] {
        // The clock was set back by an hour since.
        record[time] = (record[time].as_u64().unwrap() + 3_600_000).into();
    }
    let store = MemoryStore::new();
    store.save(&Record::from_bytes(record.to_string().as_bytes())).unwrap();
    let session = builder(&t.server).store(store.clone()).build().unwrap();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(store.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_logout_whose_clear_fails_is_told_and_revoked_once_however_often_it_is_tried() {
    let t = Fixture::new().await;
    let logouts = Logouts::default();
    let clears = Arc::new(AtomicUsize::new(0));
    let tried = Arc::clone(&clears);
    let ask = move |call| match call {
        Call::Clear => {
            tried.fetch_add(1, Ordering::SeqCst);
            Err(StoreError::unavailable("the test does not let it"))
        }
        _ => Ok(()),
    };
    let store = AskingStore { memory: t.store.clone(), ask };
    let session = builder(&t.server).store(store).on_logout(logouts.hook()).build().unwrap();
    for tries in 1..=2 {
        assert!(soon(session.log_out()).await.unwrap_err().is_store());
        assert_eq!(clears.load(Ordering::SeqCst), tries);
    }
    session.drain().await;
    assert_eq!(logouts.all(), [LogoutReason::Requested]);
    assert_eq!(t.server.requests(Route::Revoke).len(), 1);
    assert!(!session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_read_for_now_is_cleared_later_and_what_is_damaged_at_once() {
    type Broken = fn() -> StoreError;
    let locked: Broken = || StoreError::locked("the test has locked it");
    let damaged: Broken = || StoreError::corrupt("the test has damaged it");
    for (broken, is_for_now) in [(Some(locked), true), (Some(damaged), false), (None, false)] {
        let (server, memory) = (MockServer::start(), MemoryStore::new());
        let fails = Arc::new(AtomicBool::new(false));
        let ask = {
            let fails = Arc::clone(&fails);
            move |call| match call {
                Call::Load if fails.load(Ordering::SeqCst) => broken.map_or(Ok(()), |e| Err(e())),
                _ => Ok(()),
            }
        };
        let store = AskingStore { memory: memory.clone(), ask };
        let session = builder(&server).store(store).build().unwrap();
        session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
        fails.store(true, Ordering::SeqCst);
        if broken.is_none() {
            // It can be read, and is no record.
            memory.save(&Record::from_bytes(b"{")).unwrap();
        }
        let logout = soon(session.log_out()).await;
        if is_for_now {
            assert!(logout.unwrap_err().is_store());
            // Who knows whose it is by now.
            assert!(memory.load().unwrap().is_some());
            fails.store(false, Ordering::SeqCst);
            soon(session.log_out()).await.unwrap();
        } else {
            assert_eq!(logout.unwrap(), Revocation::Revoked);
        }
        assert!(memory.load().unwrap().is_none());
        assert_eq!(server.requests(Route::Revoke).len(), 1);
    }
}

/// Its refreshes are its own business, and it revokes nothing.
struct Custom;

#[async_trait::async_trait]
impl TokenEndpoint for Custom {
    fn id(&self) -> String {
        "custom".to_owned()
    }

    async fn refresh(&self, _: &Client, _: &RefreshToken) -> Result<TokenResponse, RefreshError> {
        Ok(TokenResponse::new("new").refresh_token("next"))
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_say_how_revokes_nothing() {
    let builder = || Session::builder("test", Custom).origin("https://api.example.com");
    let session = builder().store(MemoryStore::new()).build().unwrap();
    session.log_in(TokenResponse::new("at").refresh_token("rt")).await.unwrap();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Nothing);
}

#[tokio::test]
async fn without_a_client_to_send_it_with_a_refresh_fails_and_a_logout_is_local() {
    let t = Fixture::with(MockServer::start(), |builder| {
        builder.token_client(|client| client.user_agent("no\nheader"))
    });
    let t = t.await;
    t.server.expire_access_tokens();
    let error = soon(t.get("things")).await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.contains("the refresh request could not be made"), "{text}");
    assert!(t.session.is_logged_in().await.unwrap());
    assert_eq!(soon(t.session.log_out()).await.unwrap(), Revocation::Failed);
    assert!(t.record().is_none());
    assert_eq!(t.server.counters().token_requests, 0);
}

/// Times in the store are in milliseconds, and the end of a logout is not.
#[tokio::test]
async fn a_login_right_after_a_logout_stays_though_both_have_the_same_time() {
    let server = MockServer::start();
    for _ in 0..50 {
        let store = MemoryStore::new();
        let session = builder(&server).store(store.clone()).build().unwrap();
        let issued = tokens(&server.log_in("alice"));
        let (logout, login) =
            soon(async { tokio::join!(session.log_out(), session.log_in(issued)) }).await;
        logout.unwrap();
        session.drain().await;
        assert_eq!(store.load().unwrap().is_some(), login.is_ok(), "{login:?}");
        assert_eq!(session.is_logged_in().await.unwrap(), login.is_ok());
    }
}
