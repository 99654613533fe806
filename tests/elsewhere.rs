//! Other programs with the same store.

mod support;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mock_server::{MockServer, Route};
use reqwest_reauth::{
    Event, FileStore, LogoutReason, MemoryStore, Record, Revocation, Shared, StoreError, TokenStore,
};
use support::steps::{after_a_second, names, user};
use support::vault::User;
use support::{Call, Fixture, Logouts, access_tokens_sent, builder, client, found, soon, tokens};

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
async fn who_comes_while_the_store_is_read_waits_for_what_it_says() {
    let t = User::new();
    let running = t.program();
    assert!(!running.is_logged_in().await.unwrap());
    t.logged_in().await;
    after_a_second().await;
    let load = t.vault.park_next(Call::Load);
    let (mut first, mut second) = (pin!(running.is_logged_in()), pin!(running.is_logged_in()));
    assert!(poll_once(&mut first).is_pending());
    load.arrived().await;
    assert!(poll_once(&mut second).is_pending());
    load.open();
    assert!(soon(first).await.unwrap() && soon(second).await.unwrap());
}

fn poll_once<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
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
async fn a_logout_ends_a_login_made_elsewhere_since_this_program_saw_nobody() {
    let t = User::new();
    let running = t.program();
    assert!(!running.is_logged_in().await.unwrap());
    let (other, issued) = t.logged_in().await;
    assert_eq!(soon(running.log_out()).await.unwrap(), Revocation::Revoked);
    assert_eq!(t.vault.text(), None);
    assert!(!t.server.family_alive(issued.family));
    let error = t.get(&other).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::LoggedOutElsewhere));
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

#[tokio::test]
async fn notes_of_logins_that_ended_long_ago_go_with_the_next_login() {
    let day = Duration::from_secs(24 * 3600);
    for (days, is_there) in [(29, true), (31, false)] {
        let t = User::new();
        let (session, _) = t.logged_in().await;
        soon(session.log_out()).await.unwrap();
        let note = t.file("out").unwrap();
        let file = std::fs::File::options().write(true).open(&note).unwrap();
        file.set_modified(std::time::SystemTime::now() - days * day).unwrap();
        soon(session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap();
        assert_eq!(note.exists(), is_there, "after {days} days");
    }
}

/// A program that does not take turns, such as one with another state directory, is not what this
/// is for; but what it has written is not lost.
#[tokio::test]
async fn a_login_that_somebody_has_stored_without_the_lock_is_not_written_over_or_cleared() {
    for is_refused in [false, true] {
        let t = User::new();
        let (session, issued) = t.logged_in().await;
        if is_refused {
            t.server.revoke_family(issued.family);
        } else {
            t.server.expire_access_tokens();
        }
        let held = t.server.hold_answers(Route::Token);
        let request = tokio::spawn(client(&session).get(t.server.api_url("who")).send());
        soon(held.arrived(1)).await;
        let apart = t.state.path().join("apart");
        let apart = builder(&t.server).store(t.vault.clone()).state_dir(apart).build().unwrap();
        let theirs = t.server.log_in("bob");
        apart.log_in(tokens(&theirs)).await.unwrap();
        held.release();
        assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
        assert_eq!(user(&session, &t.server).await, "bob");
        session.drain().await;
        assert!(t.vault.text().unwrap().contains(&theirs.refresh_token));
        assert!(t.server.family_alive(theirs.family));
        assert_eq!(t.server.family_alive(issued.family), !is_refused, "nobody has revoked it");
    }
}

/// A file on a disk that is full at times.
struct Full(FileStore, Arc<AtomicBool>);

impl TokenStore for Full {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.0.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable("the disk is full")),
            false => self.0.save(record),
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.0.clear()
    }

    fn shared(&self) -> Shared {
        self.0.shared()
    }
}

#[tokio::test]
async fn a_logout_elsewhere_while_tokens_are_unsaved_revokes_them() {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    let file = FileStore::new(directory.path().join("tokens"));
    let (logouts, is_full) = (Logouts::default(), Arc::new(AtomicBool::new(false)));
    let store = Full(file.clone(), Arc::clone(&is_full));
    let session = builder(&server).store(store).on_logout(logouts.hook()).build().unwrap();
    let issued = server.log_in("alice");
    session.log_in(tokens(&issued)).await.unwrap();
    let mut events = session.events();
    server.expire_access_tokens();
    is_full.store(true, Ordering::SeqCst);
    let request = client(&session).get(server.api_url("x")).send();
    assert_eq!(soon(request).await.unwrap().status(), 200);
    while !matches!(soon(events.next()).await, Some(Event::PersistFailed(_))) {}

    let other = builder(&server).store(file.clone()).lock_wait(Duration::from_millis(200));
    let logout = soon(other.build().unwrap().log_out()).await.unwrap();
    // The locks are not to be had, unless the next try to save has seen the note and left them.
    assert!(matches!(logout, Revocation::Pending | Revocation::Nothing), "{logout:?}");
    while !matches!(soon(events.next()).await, Some(Event::LoggedOut(_))) {}
    soon(session.drain()).await;
    assert_eq!(logouts.all(), [LogoutReason::LoggedOutElsewhere]);
    assert!(!server.family_alive(issued.family));
    assert!(file.load().unwrap().is_none());
}
