//! A store that waits for a person, or for ever.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mock_server::MockServer;
use reqwest_reauth::{MemoryStore, Record, Session, StoreError, TokenStore};
use support::{Turnstile, builder, client, soon, tokens};

/// A store that somebody locked: its calls wait until a person unlocks it, which that person does
/// as soon as the session asks whether it is waited for.
#[derive(Clone)]
struct Locked {
    memory: MemoryStore,
    is_locked: Arc<AtomicBool>,
    person: Turnstile,
    asked: Arc<AtomicUsize>,
}

impl Locked {
    fn new() -> Self {
        Self {
            memory: MemoryStore::new(),
            is_locked: Arc::default(),
            person: Turnstile::default(),
            asked: Arc::default(),
        }
    }

    fn lock(&self) {
        self.is_locked.store(true, Ordering::SeqCst);
    }

    fn pass(&self) {
        if self.is_locked.load(Ordering::SeqCst) {
            self.person.pass();
        }
    }

    fn session(&self, server: &MockServer) -> Session {
        builder(server).store(self.clone()).build().unwrap()
    }
}

impl TokenStore for Locked {
    fn describe(&self) -> String {
        "a locked store".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.pass();
        self.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.pass();
        self.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.pass();
        self.memory.clear()
    }

    fn asks_a_person(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.person.open();
        true
    }
}

#[tokio::test]
async fn a_person_who_unlocks_the_store_at_the_start_is_waited_for() {
    let (server, store) = (MockServer::start(), Locked::new());
    let session = store.session(&server);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    drop(session);
    store.lock();
    let response = client(&store.session(&server)).get(server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    assert_eq!(store.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_person_who_unlocks_the_store_for_a_refresh_is_waited_for_and_it_is_sent_once() {
    let (server, store) = (MockServer::start(), Locked::new());
    let session = store.session(&server);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    store.lock();
    let response = client(&session).get(server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    assert_eq!(store.asked.load(Ordering::SeqCst), 1);
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.refreshes), (1, 1));
}

#[tokio::test]
async fn a_person_who_unlocks_the_store_for_a_login_or_a_logout_is_waited_for() {
    let (server, store) = (MockServer::start(), Locked::new());
    store.lock();
    let session = store.session(&server);
    soon(session.log_in(tokens(&server.log_in("alice")))).await.unwrap();
    assert!(store.memory.load().unwrap().is_some());

    let again = Locked { person: Turnstile::default(), ..store.clone() };
    let session = again.session(&server);
    soon(session.log_out()).await.unwrap();
    assert!(store.memory.load().unwrap().is_none());
    assert_eq!(store.asked.load(Ordering::SeqCst), 2);
}

/// Its first read never comes back.
struct Hung {
    locked: Locked,
    reads: AtomicUsize,
}

impl TokenStore for Hung {
    fn describe(&self) -> String {
        self.locked.describe()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        if self.reads.fetch_add(1, Ordering::SeqCst) == 0 {
            self.locked.pass();
        }
        self.locked.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.locked.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.locked.memory.clear()
    }
}

#[tokio::test]
async fn after_a_read_that_hangs_for_ever_the_next_one_is_answered() {
    let (server, locked) = (MockServer::start(), Locked::new());
    locked.session(&server).log_in(tokens(&server.log_in("alice"))).await.unwrap();
    locked.lock();
    let store = Hung { locked, reads: AtomicUsize::new(0) };
    let session = builder(&server).store(store).build().unwrap();
    let error = soon(session.is_logged_in()).await.unwrap_err();
    assert!(error.is_store() && error.is_transient() && !error.is_logged_out(), "{error:?}");
    assert!(soon(session.is_logged_in()).await.unwrap());
    let response = client(&session).get(server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_store_is_read_while_the_program_sets_up_its_client() {
    let (server, store) = (MockServer::start(), Locked::new());
    store.session(&server).log_in(tokens(&server.log_in("alice"))).await.unwrap();
    store.lock();
    let session = store.session(&server);
    assert_eq!(store.person.count(), 0, "build does no I/O");
    let middleware = session.middleware();
    soon(store.person.arrived()).await;
    store.person.open();
    drop(middleware);
    assert!(soon(session.is_logged_in()).await.unwrap());
    assert_eq!(store.person.count(), 1, "read once");
}
