//! A store that may lose its record, as keychains do, and what is noted beside it.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mock_server::MockServer;
use reqwest_reauth::{
    MemoryStore, OAuth2Endpoint, Record, Revocation, Session, Shared, StoreError, TokenStore,
};
use support::steps::after_a_second;
use support::vault::User;
use support::{Call, Turnstile, client, endpoint, found, soon, tokens};

#[derive(Clone)]
struct Lossy {
    memory: MemoryStore,
    name: &'static str,
    /// Whether the next save waits, and where.
    slow: Arc<AtomicBool>,
    turnstile: Turnstile,
}

impl Lossy {
    fn new(name: &'static str) -> Self {
        let (memory, slow) = (MemoryStore::new(), Arc::default());
        Self { memory, name, slow, turnstile: Turnstile::default() }
    }
}

impl TokenStore for Lossy {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        if self.slow.swap(false, Ordering::SeqCst) {
            self.turnstile.pass();
        }
        self.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.memory.clear()
    }

    fn may_lose(&self) -> bool {
        true
    }
}

struct Home {
    server: MockServer,
    state: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { server: MockServer::start(), state: tempfile::tempdir().unwrap() }
    }

    fn session(&self, service: &str, store: &Lossy) -> Session {
        self.session_at(service, store, endpoint(&self.server))
    }

    fn session_at(&self, service: &str, store: &Lossy, endpoint: OAuth2Endpoint) -> Session {
        Session::builder(service, endpoint)
            .origin(self.server.origin())
            .store(store.clone())
            .state_dir(self.state.path().join("state"))
            .build()
            .unwrap()
    }

    async fn log_in(&self, session: &Session) -> Result<(), reqwest_reauth::Error> {
        soon(session.log_in(tokens(&self.server.log_in("alice")))).await
    }
}

/// A login counts as earlier than a logout from the next millisecond on.
async fn a_millisecond_later() {
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
}

#[tokio::test]
async fn a_logout_in_one_program_is_one_in_another_that_shares_the_record() {
    let (home, store) = (Home::new(), Lossy::new("shared"));
    let (one, other) = (home.session("one", &store), home.session("other", &store));
    home.log_in(&one).await.unwrap();
    home.server.expire_access_tokens();
    let response = client(&other).get(home.server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    one.log_out().await.unwrap();
    assert!(!home.session("other", &store).is_logged_in().await.unwrap());
}

#[tokio::test]
async fn another_store_under_the_same_names_has_lost_nothing() {
    let home = Home::new();
    home.log_in(&home.session("cli", &Lossy::new("first"))).await.unwrap();
    assert!(!home.session("cli", &Lossy::new("second")).is_logged_in().await.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_is_not_safe_fails_a_login_and_a_logout_is_made_up_for() {
    use std::os::unix::fs::PermissionsExt;

    let (home, store) = (Home::new(), Lossy::new("keychain"));
    let session = home.session("cli", &store);
    home.log_in(&session).await.unwrap();
    let directory = home.state.path().join("state");
    let allow = |mode| {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(0o770);
    let error = home.log_in(&session).await.unwrap_err();
    assert!(error.is_store() && error.tokens().is_some(), "{error:?}");
    let error = soon(session.log_out()).await.unwrap_err();
    assert!(error.is_store(), "{error:?}");
    assert!(!session.is_logged_in().await.unwrap(), "here it holds at once");
    allow(0o700);
    soon(session.log_out()).await.unwrap();
    assert!(store.memory.load().unwrap().is_none());
    assert!(!home.session("cli", &store).is_logged_in().await.unwrap());
}

/// A store beside whose record there is room for a lock, and for no note.
struct Narrow(Lossy, std::path::PathBuf);

impl TokenStore for Narrow {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.0.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.0.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.0.clear()
    }

    fn shared(&self) -> Shared {
        Shared::Beside(self.1.clone())
    }

    fn may_lose(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_login_that_could_not_be_noted_is_not_stored() {
    let (server, directory, lossy) =
        (MockServer::start(), tempfile::tempdir().unwrap(), Lossy::new("narrow"));
    // With the lock's ending it is short enough for a name; with that of a new trace, too long.
    let path = directory.path().join("n".repeat(240));
    let session = support::builder(&server).store(Narrow(lossy.clone(), path)).build().unwrap();
    let error = session.log_in(tokens(&server.log_in("alice"))).await.unwrap_err();
    assert!(error.is_store() && error.tokens().is_some(), "{error:?}");
    assert!(lossy.memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_logout_beside_a_lost_record_ends_its_login_for_when_it_turns_up_again() {
    let (home, store) = (Home::new(), Lossy::new("keychain"));
    home.log_in(&home.session("cli", &store)).await.unwrap();
    a_millisecond_later().await;
    let record = store.memory.load().unwrap().unwrap();
    store.memory.clear().unwrap();
    let session = home.session("cli", &store);
    assert!(session.is_logged_in().await.unwrap_err().is_store());
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Nothing);
    drop(session);

    store.memory.save(&record).unwrap();
    let session = home.session("cli", &store);
    assert!(!session.is_logged_in().await.unwrap());
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(store.memory.load().unwrap().is_none());
    assert_eq!(home.server.counters().token_requests, 0);
}

/// What was lost is another client's, that has the same name: the logout is none of its.
#[tokio::test]
async fn a_logout_beside_a_lost_record_of_another_client_ends_its_own_session_alone() {
    let (home, store) = (Home::new(), Lossy::new("keychain"));
    home.log_in(&home.session("cli", &store)).await.unwrap();
    let record = store.memory.load().unwrap().unwrap();
    store.memory.clear().unwrap();
    let other = OAuth2Endpoint::new(home.server.token_url(), "another-client");
    let other = home.session_at("cli", &store, other);
    assert_eq!(soon(other.log_out()).await.unwrap(), Revocation::Nothing);
    assert!(!other.is_logged_in().await.unwrap());
    let lost = home.session("cli", &store).is_logged_in().await.unwrap_err();
    assert!(lost.is_store() && lost.is_transient(), "{lost:?}");
    store.memory.save(&record).unwrap();
    assert!(home.session("cli", &store).is_logged_in().await.unwrap());
}

/// A logout that could not be settled when it was made, since the store failed: whoever has logged
/// in since then is not logged out by it, should the record be lost.
#[tokio::test]
async fn a_logout_from_before_the_login_leaves_a_lost_record_lost() {
    let t = User::new();
    let early = t.program();
    t.vault.fail(&[Call::Load]);
    assert!(soon(early.log_out()).await.unwrap_err().is_store());
    t.vault.fail(&[]);
    t.logged_in().await;
    let record = t.vault.memory.load().unwrap().unwrap();
    t.vault.memory.clear().unwrap();
    // It settles what was due.
    after_a_second().await;
    let _ = early.is_logged_in().await;
    soon(early.drain()).await;
    assert!(t.program().is_logged_in().await.unwrap_err().is_store());
    t.vault.memory.save(&record).unwrap();
    assert!(t.program().is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_logout_beside_a_lost_record_that_cannot_be_noted_says_so_and_can_be_made_again() {
    let t = User::new();
    t.logged_in().await;
    a_millisecond_later().await;
    let record = t.vault.memory.load().unwrap().unwrap();
    t.vault.memory.clear().unwrap();
    let trace = std::fs::read(t.file("trace").unwrap()).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
    // Something is where the note would go.
    let note = t.place(&format!("{}.out", &trace["login"].as_str().unwrap()[..32]));
    std::fs::create_dir(&note).unwrap();
    let session = t.program();
    assert!(soon(session.log_out()).await.unwrap_err().is_store());
    std::fs::remove_dir(&note).unwrap();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Nothing);
    t.vault.memory.save(&record).unwrap();
    assert!(!t.program().is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_login_that_was_given_back_over_a_lost_record_leaves_it_lost() {
    let (home, store) = (Home::new(), Lossy::new("keychain"));
    home.log_in(&home.session("cli", &store)).await.unwrap();
    let record = store.memory.load().unwrap().unwrap();
    store.memory.clear().unwrap();
    let session = home.session("cli", &store);
    let lost = session.is_logged_in().await.unwrap_err();
    assert!(lost.is_store() && !lost.is_logged_out(), "{lost:?}");
    store.slow.store(true, Ordering::SeqCst);
    let error = home.log_in(&session).await.unwrap_err();
    assert!(error.tokens().is_some());
    store.turnstile.open();
    soon(session.drain()).await;
    assert!(store.memory.load().unwrap().is_none(), "undone");
    let again = home.session("cli", &store);
    let still = again.is_logged_in().await.unwrap_err();
    assert!(still.is_store() && !still.is_logged_out(), "{still:?}");
    // Of the login that was there before, as a logout knows.
    assert_eq!(soon(again.log_out()).await.unwrap(), Revocation::Nothing);
    store.memory.save(&record).unwrap();
    assert!(!home.session("cli", &store).is_logged_in().await.unwrap());
}

/// Says by an error that its content is damaged, and keeps it aside.
#[derive(Clone)]
struct Damaged {
    lossy: Lossy,
    is_damaged: Arc<AtomicBool>,
    has_copy: Arc<AtomicBool>,
}

impl TokenStore for Damaged {
    fn describe(&self) -> String {
        self.lossy.describe()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        match self.is_damaged.load(Ordering::SeqCst) {
            true => Err(StoreError::corrupt("parts are missing")),
            false => self.lossy.load(),
        }
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.lossy.save(record)?;
        self.is_damaged.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.has_copy.store(false, Ordering::SeqCst);
        self.is_damaged.store(false, Ordering::SeqCst);
        self.lossy.clear()
    }

    fn set_aside(&self) -> Result<(), StoreError> {
        self.has_copy.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn a_login_that_failed_beside_a_lost_record_leaves_that_lost_and_ends_nobodys_session() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    let record = t.vault.memory.load().unwrap().unwrap();
    t.vault.memory.clear().unwrap();
    // The save fails, and so does the look whether it was done all the same.
    let turnstile = t.vault.park_next(Call::Save);
    let login = {
        let (session, bob) = (session.clone(), tokens(&t.server.log_in("bob")));
        tokio::spawn(async move { session.log_in(bob).await })
    };
    turnstile.arrived().await;
    t.vault.fail(&[Call::Load, Call::Save]);
    turnstile.open();
    assert!(soon(login).await.unwrap().unwrap_err().is_store());
    t.vault.fail(&[]);

    t.server.expire_access_tokens();
    for _ in 0..2 {
        let error = t.get(&session).await.unwrap_err();
        assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
        tokio::time::sleep(found(&error).retry_after().unwrap_or_default()).await;
    }
    t.vault.memory.save(&record).unwrap();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn a_login_that_was_given_back_over_a_damaged_record_leaves_it_damaged_and_aside() {
    let (server, state) = (MockServer::start(), tempfile::tempdir().unwrap());
    let (is_damaged, has_copy) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let store = Damaged { lossy: Lossy::new("keychain"), is_damaged, has_copy };
    let builder = support::builder(&server).store(store.clone());
    let session = builder.state_dir(state.path().join("state")).build().unwrap();
    store.lossy.slow.store(true, Ordering::SeqCst);
    let error = soon(session.log_in(tokens(&server.log_in("alice")))).await.unwrap_err();
    assert!(error.tokens().is_some());
    store.lossy.turnstile.open();
    soon(session.drain()).await;
    let says = session.is_logged_in().await.unwrap_err();
    assert!(says.is_store() && !says.is_transient() && !says.is_logged_out(), "{says:?}");
    assert!(store.has_copy.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_login_writes_nothing_over_what_cannot_be_read_now() {
    let t = User::new();
    let (_session, issued) = t.logged_in().await;
    let before = t.vault.text();
    t.vault.fail(&[Call::Load]);
    let error = t.program().log_in(tokens(&t.server.log_in("bob"))).await.unwrap_err();
    assert!(error.is_store() && error.is_transient() && error.tokens().is_some(), "{error:?}");
    t.vault.fail(&[]);
    assert_eq!(t.vault.text(), before);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    assert!(t.server.family_alive(issued.family));
}
