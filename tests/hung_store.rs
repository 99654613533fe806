//! A store that waits for a person, or for ever.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use std::time::Duration;

use mock_server::{Issued, MockServer, What};
use reqwest_reauth::{MemoryStore, Record, Revocation, Session, Shared, StoreError, TokenStore};
use support::steps::{after_a_second, given_back, history, log_in, log_out, user};
use support::{Turnstile, builder, client, settle, soon, text, tokens};

/// A store that somebody locked: its calls wait until a person unlocks it, each with a prompt of
/// its own. Unless that is held up, the person does so as soon as the session asks whether it is
/// waited for.
#[derive(Clone)]
struct Locked {
    memory: MemoryStore,
    is_locked: Arc<AtomicBool>,
    person: Turnstile,
    asked: Arc<AtomicUsize>,
    is_away: Arc<AtomicBool>,
    /// Reads find nothing, or what is there, without a prompt.
    reads_pass: bool,
    /// A write waits, and nobody is asked.
    asks_nobody: bool,
    /// Whoever is asked closes the prompt.
    refuses: Arc<AtomicBool>,
    /// How many writes were begun.
    writes: Arc<AtomicUsize>,
}

impl Locked {
    fn new() -> Self {
        Self {
            memory: MemoryStore::new(),
            is_locked: Arc::default(),
            person: Turnstile::default(),
            asked: Arc::default(),
            is_away: Arc::default(),
            reads_pass: false,
            asks_nobody: false,
            refuses: Arc::default(),
            writes: Arc::default(),
        }
    }

    /// As a keyring that was locked before anybody had logged in: only a write brings up the
    /// prompt.
    fn without_an_entry() -> Self {
        let store = Self { reads_pass: true, ..Self::new() };
        store.lock();
        store
    }

    fn lock(&self) {
        self.is_locked.store(true, Ordering::SeqCst);
    }

    fn unlock(&self) {
        self.is_locked.store(false, Ordering::SeqCst);
        self.person.open();
    }

    fn pass(&self) {
        if self.is_locked.load(Ordering::SeqCst) {
            self.person.pass();
        }
    }

    fn pass_to_write(&self) -> Result<(), StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.pass();
        match self.refuses.load(Ordering::SeqCst) {
            true => Err(StoreError::locked("the prompt was closed")),
            false => Ok(()),
        }
    }

    /// How often it was asked whether a person is asked, the prompts there were, and the writes.
    fn counts(&self) -> (usize, usize, usize) {
        let [asked, writes] = [&self.asked, &self.writes].map(|count| count.load(Ordering::SeqCst));
        (asked, self.person.count(), writes)
    }

    /// Whether it holds these tokens.
    fn holds(&self, issued: &Issued) -> bool {
        text(&self.memory).is_some_and(|record| record.contains(&issued.refresh_token))
    }

    /// Returns when the session has asked whether a person is asked, and waits.
    async fn person_is_waited_for(&self) {
        let waited_for = async {
            while self.asked.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(waited_for).await;
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
        if !self.reads_pass {
            self.pass();
        }
        self.memory.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.pass_to_write()?;
        self.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.pass_to_write()?;
        self.memory.clear()
    }

    fn asks_a_person(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.asks_nobody {
            return false;
        }
        if !self.is_away.load(Ordering::SeqCst) {
            self.unlock();
        }
        true
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
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
    assert_eq!(store.person.count(), 1, "prompts");
}

#[tokio::test]
async fn a_person_who_unlocks_the_store_for_a_login_or_a_logout_is_waited_for() {
    let (server, store) = (MockServer::start(), Locked::new());
    store.lock();
    let session = store.session(&server);
    soon(session.log_in(tokens(&server.log_in("alice")))).await.unwrap();
    assert!(store.memory.load().unwrap().is_some());
    assert_eq!((store.asked.load(Ordering::SeqCst), store.person.count()), (1, 1));

    let again = Locked { person: Turnstile::default(), ..store.clone() };
    let session = again.session(&server);
    again.lock();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(store.memory.load().unwrap().is_none());
    assert_eq!((store.asked.load(Ordering::SeqCst), again.person.count()), (2, 1));
}

#[tokio::test]
async fn a_logout_of_a_login_that_is_known_waits_for_a_person_to_clear_it() {
    let (server, store) = (MockServer::start(), Locked::new());
    let session = store.session(&server);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    store.lock();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(store.memory.load().unwrap().is_none());
    assert_eq!((store.asked.load(Ordering::SeqCst), store.person.count()), (1, 1));
}

#[tokio::test]
async fn a_logout_while_a_login_waits_for_a_person_wins() {
    let (server, store) = (MockServer::start(), Locked::new());
    store.lock();
    store.is_away.store(true, Ordering::SeqCst);
    let session = store.session(&server);
    let login = log_in(&session, tokens(&server.log_in("alice")));
    store.person_is_waited_for().await;
    let logout = log_out(&session);
    settle().await;
    store.unlock();
    let error = soon(login).await.unwrap().unwrap_err();
    assert!(error.is_logged_out() && error.tokens().is_some(), "{error:?}");
    soon(logout).await.unwrap().unwrap();
    assert!(store.memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn while_a_person_is_asked_nobody_else_brings_up_another_prompt() {
    let (server, store) = (MockServer::start(), Locked::new());
    let session = store.session(&server);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    server.expire_access_tokens();
    store.lock();
    store.is_away.store(true, Ordering::SeqCst);
    let get = || {
        let request = client(&session).get(server.api_url("things"));
        request.timeout(Duration::from_secs(20)).send()
    };
    let first = tokio::spawn(get());
    store.person_is_waited_for().await;
    // Whoever comes now waits for the same person.
    let others: Vec<_> = (0..5).map(|_| tokio::spawn(get())).collect();
    let status = session.status().await.unwrap();
    assert!(status.is_logged_in());
    assert_eq!(store.person.count(), 1);
    store.unlock();
    assert_eq!(soon(first).await.unwrap().unwrap().status(), 200);
    for other in others {
        assert_eq!(soon(other).await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(server.counters().refreshes, 1);
}

#[tokio::test]
async fn a_login_beside_a_read_that_waits_for_a_person_waits_for_the_same_one() {
    let (server, store) = (MockServer::start(), Locked::new());
    store.lock();
    store.is_away.store(true, Ordering::SeqCst);
    let session = store.session(&server);
    let middleware = session.middleware();
    store.person_is_waited_for().await;
    let login = log_in(&session, tokens(&server.log_in("alice")));
    // Long enough for the login's own read to be given up.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(store.person.count(), 1);
    store.unlock();
    soon(login).await.unwrap().unwrap();
    assert!(session.is_logged_in().await.unwrap());
    drop(middleware);
}

#[tokio::test]
async fn who_is_known_to_be_logged_out_waits_for_no_person() {
    let (server, store) = (MockServer::start(), Locked::new());
    let session = store.session(&server);
    assert!(!session.is_logged_in().await.unwrap());
    after_a_second().await;
    store.lock();
    store.is_away.store(true, Ordering::SeqCst);
    let error = soon(client(&session).get(server.api_url("things")).send()).await.unwrap_err();
    assert!(support::found(&error).is_logged_out(), "{error:?}");
    assert_eq!(store.asked.load(Ordering::SeqCst), 0);
    store.person.open();
}

// Where only a write is held up.

#[tokio::test]
async fn a_first_login_waits_for_the_person_who_unlocks_the_store_for_its_save() {
    let (server, store) = (MockServer::start(), Locked::without_an_entry());
    let (session, issued) = (store.session(&server), server.log_in("alice"));
    soon(session.log_in(tokens(&issued))).await.unwrap();
    assert!(store.holds(&issued));
    assert_eq!(store.counts(), (1, 1, 1));
    let response = client(&session).get(server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    drop(session);
    // It was not undone.
    assert!(soon(store.session(&server).is_logged_in()).await.unwrap());
    assert_eq!(store.counts(), (1, 1, 1));
}

#[tokio::test]
async fn a_first_login_whose_save_hangs_while_nobody_is_asked_is_given_back_and_undone() {
    let store = Locked { asks_nobody: true, ..Locked::without_an_entry() };
    let server = MockServer::start();
    let (session, issued) = (store.session(&server), server.log_in("alice"));
    let error = soon(session.log_in(tokens(&issued))).await.unwrap_err();
    given_back(&server, &error, &issued).await;
    assert_eq!(store.counts(), (1, 1, 1));
    let told = format!("{:#}", anyhow::Error::new(error));
    assert!(told.contains("no answer within 3 seconds"), "{told}");
    store.unlock();
    soon(session.drain()).await;
    assert!(store.memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    assert_eq!(store.counts(), (1, 1, 2));
}

#[tokio::test]
async fn a_person_who_closes_the_prompt_of_a_first_login_is_not_asked_again() {
    let (server, store) = (MockServer::start(), Locked::without_an_entry());
    let (session, issued) = (store.session(&server), server.log_in("alice"));
    store.refuses.store(true, Ordering::SeqCst);
    let error = soon(session.log_in(tokens(&issued))).await.unwrap_err();
    given_back(&server, &error, &issued).await;
    let told = format!("{:#}", anyhow::Error::new(error));
    assert!(told.ends_with("the prompt was closed"), "{told}");
    assert_eq!(store.counts(), (1, 1, 1));
    assert!(store.memory.load().unwrap().is_none());
    // By another try the person has thought better of it.
    store.refuses.store(false, Ordering::SeqCst);
    soon(session.log_in(tokens(&issued))).await.unwrap();
    assert!(store.holds(&issued));
}

#[tokio::test]
async fn a_logout_while_the_save_of_a_first_login_waits_for_a_person_wins() {
    let (server, store) = (MockServer::start(), Locked::without_an_entry());
    store.is_away.store(true, Ordering::SeqCst);
    let (session, issued) = (store.session(&server), server.log_in("alice"));
    let login = log_in(&session, tokens(&issued));
    store.person_is_waited_for().await;
    let logout = log_out(&session);
    settle().await;
    store.unlock();
    let error = soon(login).await.unwrap().unwrap_err();
    assert!(error.is_logged_out(), "{error:?}");
    given_back(&server, &error, &issued).await;
    soon(logout).await.unwrap().unwrap();
    soon(session.drain()).await;
    assert!(store.memory.load().unwrap().is_none());
    assert!(!session.is_logged_in().await.unwrap());
    assert_eq!((store.asked.load(Ordering::SeqCst), store.person.count()), (1, 1));
}

#[tokio::test]
async fn of_two_first_logins_while_a_person_is_asked_the_second_waits_for_the_same_one() {
    let (server, store) = (MockServer::start(), Locked::without_an_entry());
    store.is_away.store(true, Ordering::SeqCst);
    let session = store.session(&server);
    let [first, second] = [server.log_in("alice"), server.log_in("bob")];
    let one = log_in(&session, tokens(&first));
    store.person_is_waited_for().await;
    let other = log_in(&session, tokens(&second));
    // Long enough for the second one's wait for its turn to be given up.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(store.counts(), (1, 1, 1));
    store.unlock();
    soon(one).await.unwrap().unwrap();
    soon(other).await.unwrap().unwrap();
    assert!(store.holds(&second));
    assert_eq!(user(&session, &server).await, "bob");
    assert_eq!(store.counts(), (1, 1, 2));
}

#[tokio::test]
async fn the_end_of_a_program_does_not_wait_for_the_person_whom_a_first_login_waits_for() {
    let (server, store) = (MockServer::start(), Locked::without_an_entry());
    store.is_away.store(true, Ordering::SeqCst);
    let session = store.session(&server);
    let login = log_in(&session, tokens(&server.log_in("alice")));
    store.person_is_waited_for().await;
    login.abort();
    assert!(login.await.unwrap_err().is_cancelled());
    // One more call to the store is waited for.
    let ends = tokio::task::spawn_blocking(move || drop(session));
    tokio::time::timeout(Duration::from_secs(8), ends).await.unwrap().unwrap();
    assert!(store.memory.load().unwrap().is_none());
    store.unlock();
}

#[tokio::test]
async fn a_logout_waits_for_the_person_who_is_asked_whether_to_clear_the_store() {
    let (server, store) = (MockServer::start(), Locked { reads_pass: true, ..Locked::new() });
    let (session, issued) = (store.session(&server), server.log_in("alice"));
    session.log_in(tokens(&issued)).await.unwrap();
    store.lock();
    assert_eq!(soon(session.log_out()).await.unwrap(), Revocation::Revoked);
    assert!(store.memory.load().unwrap().is_none());
    // What is cleared already is cleared once more, without a prompt.
    assert_eq!(store.counts(), (1, 1, 3));
    assert_eq!(history(&server, &issued), [What::Login, What::Revoked]);
}

#[tokio::test]
async fn a_logout_whose_clearing_hangs_while_nobody_is_asked_fails_and_is_settled_when_it_lands() {
    let store = Locked { reads_pass: true, asks_nobody: true, ..Locked::new() };
    let server = MockServer::start();
    let session = store.session(&server);
    session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
    store.lock();
    let error = soon(session.log_out()).await.unwrap_err();
    let told = format!("{:#}", anyhow::Error::new(error));
    assert!(told.contains("no answer within 3 seconds"), "{told}");
    assert_eq!(store.counts(), (1, 1, 2));
    store.unlock();
    soon(session.drain()).await;
    assert!(store.memory.load().unwrap().is_none());
    assert_eq!(store.counts(), (1, 1, 3));
}

#[tokio::test]
async fn a_person_who_does_not_let_the_store_be_cleared_is_asked_once_and_logged_out() {
    let (server, store) = (MockServer::start(), Locked { reads_pass: true, ..Locked::new() });
    let (session, issued) = (store.session(&server), server.log_in("alice"));
    session.log_in(tokens(&issued)).await.unwrap();
    store.lock();
    store.refuses.store(true, Ordering::SeqCst);
    let error = soon(session.log_out()).await.unwrap_err();
    let told = format!("{:#}", anyhow::Error::new(error));
    assert!(told.ends_with("the prompt was closed"), "{told}");
    assert_eq!(store.counts(), (1, 1, 2));
    assert!(store.holds(&issued) && !server.family_alive(issued.family));
    store.refuses.store(false, Ordering::SeqCst);
    assert!(!session.is_logged_in().await.unwrap());
    assert!(store.memory.load().unwrap().is_none());
}

/// Hangs, and so does the question whether a person is asked.
struct Frozen(Arc<AtomicUsize>, Turnstile);

impl TokenStore for Frozen {
    fn describe(&self) -> String {
        "a frozen store".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.1.pass();
        Ok(None)
    }

    fn save(&self, _: &Record) -> Result<(), StoreError> {
        unreachable!()
    }

    fn clear(&self) -> Result<(), StoreError> {
        unreachable!()
    }

    fn asks_a_person(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.pass();
        false
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}

#[tokio::test]
async fn a_question_that_hangs_is_asked_once() {
    let (server, asked, never) = (MockServer::start(), Arc::default(), Turnstile::default());
    let session =
        builder(&server).store(Frozen(Arc::clone(&asked), never.clone())).build().unwrap();
    for _ in 0..3 {
        let error = soon(session.is_logged_in()).await.unwrap_err();
        assert!(error.is_store() && error.is_transient(), "{error:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    never.open();
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

    fn shared(&self) -> Shared {
        Shared::Nowhere
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
async fn a_store_has_no_more_time_than_the_program_gives_it() {
    let (server, locked) = (MockServer::start(), Locked::new());
    locked.session(&server).log_in(tokens(&server.log_in("alice"))).await.unwrap();
    locked.lock();
    let hung = Hung { locked, reads: AtomicUsize::new(0) };
    let impatient = builder(&server).store(hung).store_wait(Duration::from_millis(50));
    let error = soon(impatient.build().unwrap().is_logged_in()).await.unwrap_err();
    let told = format!("{:#}", anyhow::Error::new(error));
    assert!(told.contains("no answer within 0.05 seconds"), "{told}");
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
