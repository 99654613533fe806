//! Writes to the store that land after they were given up, and what others do meanwhile.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{
    LogoutReason, MemoryStore, OAuth2Endpoint, Record, Revocation, Session, Shared, StoreError,
    TokenResponse, TokenStore,
};
use support::steps::{after_a_second, log_in, log_out, user};
use support::vault::{Leaves, TORN, User};
use support::{AskingStore, Call, Logouts, Turnstile, client, found, soon, tokens, wait_out};

/// A session on a store whose save number `parked` waits for the test.
struct Late {
    server: MockServer,
    session: Session,
    memory: MemoryStore,
    turnstile: Turnstile,
    logouts: Logouts,
}

impl Late {
    fn new(parked: usize) -> Self {
        let (server, memory) = (MockServer::start(), MemoryStore::new());
        let (turnstile, logouts) = (Turnstile::default(), Logouts::default());
        let (gate, saves) = (turnstile.clone(), Arc::new(AtomicUsize::new(0)));
        let ask = move |call| {
            if call == Call::Save && saves.fetch_add(1, Ordering::SeqCst) + 1 == parked {
                gate.pass();
            }
            Ok(())
        };
        let store = AskingStore { memory: memory.clone(), ask };
        let session = session(&server, store, &logouts);
        Self { server, session, memory, turnstile, logouts }
    }

    async fn get(&self) -> Result<u16, reqwest_middleware::Error> {
        let request = client(&self.session).get(self.server.api_url("things"));
        soon(request.send()).await.map(|response| response.status().as_u16())
    }

    /// Waits until what landed late is settled: then the locks are to be had again.
    async fn settled(&self) {
        loop {
            after_a_second().await;
            if soon(self.session.log_out()).await.is_ok_and(|r| r != Revocation::Pending) {
                return;
            }
        }
    }
}

/// Without revocation: what is left in the store would be good for another start.
fn session(server: &MockServer, store: impl TokenStore, logouts: &Logouts) -> Session {
    Session::builder("test", OAuth2Endpoint::new(server.token_url(), "test"))
        .origin(server.origin())
        .store(store)
        .on_logout(logouts.hook())
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_login_that_a_logout_beat_is_not_taken_for_somebody_elses_when_it_is_read() {
    let t = Late::new(1);
    assert!(!t.session.is_logged_in().await.unwrap());
    after_a_second().await;
    let login = log_in(&t.session, tokens(&t.server.log_in("bob")));
    t.turnstile.arrived().await;
    let logout = log_out(&t.session);
    support::settle().await;
    // This reading waits for the store behind the save.
    let reading = tokio::spawn({
        let session = t.session.clone();
        async move { session.is_logged_in().await }
    });
    support::settle().await;
    t.turnstile.open();
    assert!(soon(login).await.unwrap().unwrap_err().is_logged_out());
    soon(logout).await.unwrap().unwrap();
    assert!(!soon(reading).await.unwrap().unwrap());
    assert!(!t.session.is_logged_in().await.unwrap());
    assert!(found(&t.get().await.unwrap_err()).is_logged_out());
    assert!(t.memory.load().unwrap().is_none());
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn a_login_that_was_given_back_is_not_taken_for_somebody_elses_when_it_lands() {
    let t = Late::new(1);
    assert!(!t.session.is_logged_in().await.unwrap());
    let login = log_in(&t.session, tokens(&t.server.log_in("bob")));
    assert!(soon(login).await.unwrap().unwrap_err().tokens().is_some());
    let reading = tokio::spawn({
        let session = t.session.clone();
        async move { session.is_logged_in().await }
    });
    support::settle().await;
    t.turnstile.open();
    assert!(!soon(reading).await.unwrap().unwrap());
    assert!(found(&t.get().await.unwrap_err()).is_logged_out());
    t.settled().await;
    assert!(t.memory.load().unwrap().is_none());
    assert!(!t.session.is_logged_in().await.unwrap());
    assert_eq!(t.logouts.all(), []);
}

/// A store whose second save waits for the test, is done, and ends in an error: its service has
/// died before it could say so.
struct Dying {
    memory: MemoryStore,
    saves: AtomicUsize,
    turnstile: Turnstile,
}

impl TokenStore for Dying {
    fn describe(&self) -> String {
        "the dying".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        let is_second = self.saves.fetch_add(1, Ordering::SeqCst) == 1;
        if is_second {
            self.turnstile.pass();
        }
        self.memory.save(record)?;
        match is_second {
            true => Err(StoreError::unavailable("it has died")),
            false => Ok(()),
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.memory.clear()
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}

#[tokio::test]
async fn a_login_that_was_given_back_is_undone_though_its_save_is_told_as_failed_in_the_end() {
    let (server, memory, turnstile) =
        (MockServer::start(), MemoryStore::new(), Turnstile::default());
    let (gate, saves) = (turnstile.clone(), AtomicUsize::new(0));
    let store = Dying { memory: memory.clone(), saves, turnstile: gate };
    let session = session(&server, store, &Logouts::default());
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    let alice = memory.load().unwrap().unwrap();
    let login = log_in(&session, tokens(&server.log_in("bob")));
    assert!(soon(login).await.unwrap().unwrap_err().tokens().is_some());
    turnstile.open();
    soon(session.drain()).await;
    assert_eq!(memory.load().unwrap().unwrap().as_bytes(), alice.as_bytes());
    assert!(session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_living_session_is_not_ended_by_a_login_that_was_given_back() {
    let t = Late::new(2);
    // Without a refresh token: a refusal leads to a look at the store, and to nothing else.
    let issued = t.server.log_in("alice");
    t.session.log_in(TokenResponse::new(issued.access_token)).await.unwrap();
    let alice = t.memory.load().unwrap().unwrap();
    let token = t.session.access_token().await.unwrap();
    let login = log_in(&t.session, tokens(&t.server.log_in("bob")));
    assert!(soon(login).await.unwrap().is_err());
    // This reading waits for the store behind the save, and finds bob's record.
    let reading = tokio::spawn({
        let session = t.session.clone();
        async move { session.refused(&token).await }
    });
    support::settle().await;
    t.turnstile.open();
    assert!(soon(reading).await.unwrap().unwrap_err().is_login_required());
    // Bob's record has landed by now, and is undone.
    while t.memory.load().unwrap().unwrap().as_bytes() != alice.as_bytes() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(t.get().await.unwrap(), 200);
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn a_session_that_was_logged_out_is_not_brought_back_by_the_undoing_of_a_login() {
    let t = Late::new(2);
    t.session.log_in(tokens(&t.server.log_in("alice"))).await.unwrap();
    let login = log_in(&t.session, tokens(&t.server.log_in("bob")));
    t.turnstile.arrived().await;
    let logout = log_out(&t.session);
    // It lands a second after it was given up: while whoever settles too early reads the store.
    let (turnstile, lands) = (t.turnstile.clone(), tokio::time::sleep(Duration::from_secs(4)));
    tokio::spawn(async move {
        lands.await;
        turnstile.open();
    });
    assert!(soon(login).await.unwrap().is_err());
    soon(logout).await.unwrap().unwrap();
    t.settled().await;
    assert!(t.memory.load().unwrap().is_none());
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
    let next_start = session(&t.server, t.memory.clone(), &Logouts::default());
    assert!(!next_start.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_save_that_lands_after_a_logout_elsewhere_is_cleared_and_its_tokens_revoked() {
    let t = User::new();
    let (session, issued) = t.logged_in().await;
    t.server.expire_access_tokens();
    let save = t.vault.park_next(Call::Save);
    assert_eq!(t.get(&session).await.unwrap(), 200);
    // It is given up, and holds the locks as long as it goes on.
    let other = support::builder(&t.server).store(t.vault.clone());
    let other = other.state_dir(t.state.path().join("state")).lock_wait(Duration::from_millis(200));
    let other = other.build().unwrap();
    assert_eq!(soon(other.log_out()).await.unwrap(), Revocation::Pending);
    soon(other.drain()).await;
    assert!(t.server.family_alive(issued.family));
    save.open();
    soon(session.drain()).await;
    assert!(!t.server.family_alive(issued.family));
    assert_eq!(t.vault.text(), None);
    assert_eq!(t.logouts.all(), [LogoutReason::LoggedOutElsewhere]);
}

#[tokio::test]
async fn a_session_that_is_dropped_while_it_saves_keeps_the_others_out_until_that_has_landed() {
    let t = User::new();
    drop(t.logged_in().await);
    let program = || {
        let builder = support::builder(&t.server).store(t.vault.clone());
        let builder = builder.state_dir(t.state.path().join("state"));
        let builder = builder.lock_wait(Duration::from_millis(200));
        builder.store_wait(Duration::from_secs(1)).build().unwrap()
    };
    let dropped = program();
    t.server.expire_access_tokens();
    let save = t.vault.park_next(Call::Save);
    assert_eq!(t.get(&dropped).await.unwrap(), 200);
    tokio::task::spawn_blocking(move || drop(dropped)).await.unwrap();
    // The others have the new tokens from the journal, and write nothing beside that save.
    let other = program();
    assert_eq!(user(&other, &t.server).await, "alice");
    let bob = tokens(&t.server.log_in("bob"));
    let error = soon(other.log_in(bob.clone())).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    save.open();
    let logged_in = async {
        while other.log_in(bob.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(logged_in).await;
    let next_start = program();
    assert_eq!(user(&next_start, &t.server).await, "bob");
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_first_login_that_lands_after_it_was_given_back_leaves_nobody_logged_in_and_nothing_lost()
{
    let t = User::new();
    let session = t.program();
    let save = t.vault.park_next(Call::Save);
    let error = soon(session.log_in(tokens(&t.server.log_in("alice")))).await.unwrap_err();
    assert!(error.is_store() && error.tokens().is_some(), "{error:?}");
    save.open();
    soon(session.drain()).await;
    assert_eq!(t.vault.text(), None);
    // An entry that is gone though nobody has logged out would be an error.
    assert!(!t.program().is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_login_that_failed_takes_the_place_of_no_other_one_that_the_program_has_not_read() {
    let saved: Leaves = |memory, bob| memory.save(bob).unwrap();
    let damaged: Leaves = |memory, _| memory.save(&Record::from_bytes(b"{")).unwrap();
    for leaves in [saved, damaged] {
        let t = User::new();
        drop(t.logged_in().await);
        let alice = t.vault.text();
        let session = t.program();
        t.vault.die_at_next_save(leaves);
        let error = soon(session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap_err();
        assert!(error.is_store() && error.tokens().is_some(), "{error:?}");
        assert_ne!(t.vault.text(), alice);
        t.vault.fail(&[]);
        assert!(soon(session.is_logged_in()).await.unwrap());
        assert_eq!(t.vault.text(), alice);
        assert_eq!(user(&session, &t.server).await, "alice");
        assert_eq!(t.logouts.all(), []);
    }
}

/// Logs in as bob: the save is done and told as failed, and so is what would undo it at once.
async fn fail_to_log_in(t: &User, session: &Session) {
    t.vault.die_at_next_save(|memory, bob| memory.save(bob).unwrap());
    soon(session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap_err();
    t.vault.fail(&[]);
}

#[tokio::test]
async fn what_a_first_login_that_failed_has_damaged_is_cleared() {
    let damaged: Leaves = |memory, _| memory.save(&Record::from_bytes(b"{")).unwrap();
    let torn: Leaves = |memory, _| memory.save(&Record::from_bytes(TORN)).unwrap();
    for (leaves, what) in [(damaged, "damaged"), (torn, "torn")] {
        let t = User::new();
        let session = t.program();
        t.vault.die_at_next_save(leaves);
        soon(session.log_in(tokens(&t.server.log_in("bob")))).await.unwrap_err();
        t.vault.fail(&[]);
        assert!(!soon(session.is_logged_in()).await.unwrap(), "{what}");
        assert_eq!(t.vault.text(), None, "{what}");
    }
}

#[tokio::test]
async fn what_a_login_that_failed_had_replaced_stays_though_another_ones_logout_is_due() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.vault.fail(&[Call::Clear]);
    assert!(soon(session.log_out()).await.unwrap_err().is_store());
    t.vault.fail(&[]);
    let other = t.program();
    other.log_in(tokens(&t.server.log_in("carol"))).await.unwrap();
    let carol = t.vault.text();
    fail_to_log_in(&t, &session).await;
    assert!(soon(session.is_logged_in()).await.unwrap());
    assert_eq!(t.vault.text(), carol);
    assert_eq!(user(&session, &t.server).await, "carol");
}

/// Another program that has sent the refresh token and does not know the answer, and how long it
/// waits.
async fn half_refreshed(t: &User) -> (Session, Option<Duration>) {
    let other = t.program();
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 2, Fault::DropAfter);
    let error = t.get(&other).await.unwrap_err();
    (other, found(&error).retry_after())
}

#[tokio::test]
async fn a_login_that_failed_stays_where_another_program_is_in_the_middle_of_its_refresh() {
    let t = User::of(MockServer::builder().grace(Duration::from_secs(60)).start().unwrap());
    drop(t.logged_in().await);
    let session = t.program();
    fail_to_log_in(&t, &session).await;
    let (other, wait) = half_refreshed(&t).await;
    let bob = t.vault.text();
    assert!(soon(session.is_logged_in()).await.unwrap());
    assert_eq!(t.vault.text(), bob);
    wait_out(wait).await;
    assert_eq!(t.get(&other).await.unwrap(), 200);
    assert_eq!(user(&session, &t.server).await, "bob");
    assert_eq!((t.server.counters().refreshes, t.server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn a_login_that_failed_is_undone_before_the_one_that_it_replaced_is_refreshed() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    fail_to_log_in(&t, &session).await;
    t.vault.fail(&[Call::Save]);
    t.server.expire_access_tokens();
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_store(), "{error:?}");
    assert_eq!(t.server.counters().refreshes, 0);
    wait_out(found(&error).retry_after()).await;
    t.vault.fail(&[]);
    assert_eq!(t.get(&session).await.unwrap(), 200);
    assert_eq!(user(&t.program(), &t.server).await, "alice");
    assert_eq!((t.server.counters().refreshes, t.server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn a_store_that_hangs_while_a_failed_login_is_to_be_undone_holds_up_no_other_program() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    fail_to_log_in(&t, &session).await;
    t.server.expire_access_tokens();
    let load = t.vault.park_next(Call::Load);
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_store(), "{error:?}");
    assert_eq!(user(&t.program(), &t.server).await, "alice");
    load.open();
    assert_eq!((t.server.counters().refreshes, t.server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn a_login_that_failed_and_can_not_be_undone_is_not_found_after_a_logout() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    fail_to_log_in(&t, &session).await;
    t.vault.fail(&[Call::Save]);
    assert!(soon(session.log_out()).await.unwrap_err().is_store());
    drop(session);
    t.vault.fail(&[]);
    assert!(!soon(t.program().is_logged_in()).await.unwrap());
}

#[tokio::test]
async fn one_who_is_logged_in_finds_the_failed_login_that_another_program_goes_on_with() {
    let t = User::of(MockServer::builder().grace(Duration::from_secs(60)).start().unwrap());
    let (session, _) = t.logged_in().await;
    fail_to_log_in(&t, &session).await;
    let (other, wait) = half_refreshed(&t).await;
    let bob = t.vault.text();
    assert!(found(&t.get(&session).await.unwrap_err()).is_logged_out());
    assert_eq!(t.vault.text(), bob);
    wait_out(wait).await;
    assert_eq!(user(&session, &t.server).await, "bob");
    assert_eq!(t.get(&other).await.unwrap(), 200);
    assert_eq!((t.server.counters().refreshes, t.server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn a_login_that_failed_stays_where_another_program_has_refreshed_it() {
    let t = User::new();
    drop(t.logged_in().await);
    let session = t.program();
    fail_to_log_in(&t, &session).await;
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let bob = t.vault.text();
    assert!(soon(session.is_logged_in()).await.unwrap());
    assert_eq!(t.vault.text(), bob);
    assert_eq!(user(&session, &t.server).await, "bob");
}

#[tokio::test]
async fn what_a_login_that_failed_had_replaced_does_not_come_back_after_a_logout() {
    let t = User::new();
    drop(t.logged_in().await);
    let session = t.program();
    fail_to_log_in(&t, &session).await;
    soon(session.log_out()).await.unwrap();
    assert_eq!(t.vault.text(), None);
    assert!(!t.program().is_logged_in().await.unwrap());
}

#[tokio::test]
async fn of_logins_that_failed_the_first_one_is_undone_last() {
    let t = User::new();
    drop(t.logged_in().await);
    let alice = t.vault.text();
    let session = t.program();
    for user in ["bob", "carol"] {
        // A store that can be read again, but not written to.
        t.vault.fail(&[]);
        t.vault.die_at_next_save(|memory, record| memory.save(record).unwrap());
        soon(session.log_in(tokens(&t.server.log_in(user)))).await.unwrap_err();
    }
    t.vault.fail(&[]);
    assert!(soon(session.is_logged_in()).await.unwrap());
    assert_eq!(t.vault.text(), alice);
}
