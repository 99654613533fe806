//! A caller that goes away, a runtime that is shut down and a program that ends change nothing
//! for the refresh they started.

mod support;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mock_server::{Counters, Fault, MockServer, Route};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_reauth::{MemoryStore, Record, Session, Shared, StoreError, TokenStore};
use support::{Fixture, builder, client, found, soon, tokens};
use tokio::task::JoinHandle;

/// Starts a request as a task of its own, to be dropped in the middle.
fn request(t: &Fixture) -> JoinHandle<u16> {
    start(&t.client, &t.server)
}

fn start(client: &ClientWithMiddleware, server: &MockServer) -> JoinHandle<u16> {
    let request = client.get(server.api_url("dropped"));
    tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
}

async fn drop_caller(caller: JoinHandle<u16>) {
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
}

fn assert_one_refresh(counters: Counters) {
    assert_eq!(counters.refreshes, 1);
    assert_eq!(counters.reuses, 0);
}

#[tokio::test]
async fn dropped_while_its_first_send_is_under_way_it_starts_nothing() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let held = t.server.hold(Route::Api);
    let caller = request(&t);
    held.arrived(1).await;
    drop_caller(caller).await;
    held.release();
    assert_eq!(soon(t.get("next")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
}

#[tokio::test]
async fn dropped_before_the_server_has_handled_its_refresh_the_refresh_goes_on() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let held = t.server.hold(Route::Token);
    let caller = request(&t);
    held.arrived(1).await;
    drop_caller(caller).await;
    held.release();
    assert_eq!(soon(t.get("next")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
}

#[tokio::test]
async fn dropped_after_the_rotation_the_answer_is_kept() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let held = t.server.hold_answers(Route::Token);
    let caller = request(&t);
    held.arrived(1).await;
    drop_caller(caller).await;
    held.release();
    assert_eq!(soon(t.get("next")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn dropped_while_a_lost_answer_is_asked_for_again_the_session_lives() {
    let server = MockServer::builder().grace(Duration::from_secs(10)).start().unwrap();
    let t = Fixture::at(server).await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::DropAfter);
    let held = t.server.hold(Route::Token);
    let caller = request(&t);
    held.arrived(1).await;
    drop_caller(caller).await;
    held.release();
    assert_eq!(soon(t.get("next")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
    assert_eq!(t.server.counters().grace_replays, 1);
}

#[tokio::test]
async fn dropped_while_its_replay_is_under_way_the_new_token_stays() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let first = t.server.hold_answers(Route::Api);
    let caller = request(&t);
    first.arrived(1).await;
    let replay = t.server.hold(Route::Api);
    first.release();
    replay.arrived(1).await;
    drop_caller(caller).await;
    replay.release();
    assert_eq!(soon(t.get("next")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
}

/// A store whose next call of one kind tells that it began, and waits to be let go.
struct Slow {
    inner: MemoryStore,
    slow: Call,
    began: mpsc::SyncSender<()>,
    go_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

#[derive(PartialEq)]
enum Call {
    Load,
    Save,
}

impl Slow {
    fn new(inner: MemoryStore, slow: Call) -> (Self, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
        let ((began, begins), (go, go_on)) = (mpsc::sync_channel(9), mpsc::sync_channel(9));
        (Self { inner, slow, began, go_on: go_on.into() }, begins, go)
    }

    fn wait(&self, call: Call) {
        if self.slow == call {
            let _ = self.began.send(());
            let _ = self.go_on.lock().unwrap().recv_timeout(Duration::from_secs(20));
        }
    }
}

impl TokenStore for Slow {
    fn describe(&self) -> String {
        "a slow store".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.wait(Call::Load);
        self.inner.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.wait(Call::Save);
        self.inner.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.inner.clear()
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}

/// Another program on the same store, which is slow for it.
async fn second_session(
    t: &Fixture,
    slow: Call,
) -> (Session, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let (store, begins, go) = Slow::new(t.store.clone(), slow);
    (builder(&t.server).store(store).build().unwrap(), begins, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_while_the_store_is_read_the_next_caller_gets_the_tokens() {
    let t = Fixture::new().await;
    let (session, begins, go) = second_session(&t, Call::Load).await;
    let client = client(&session);
    let caller = start(&client, &t.server);
    begins.recv().unwrap();
    drop_caller(caller).await;
    let next = start(&client, &t.server);
    go.send(()).unwrap();
    assert_eq!(soon(next).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_while_the_new_tokens_are_saved_they_are_saved() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let (session, begins, go) = second_session(&t, Call::Save).await;
    let client = client(&session);
    let caller = start(&client, &t.server);
    begins.recv().unwrap();
    drop_caller(caller).await;
    let next = start(&client, &t.server);
    go.send(()).unwrap();
    assert_eq!(soon(next).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
    // The first program finds them in the store.
    assert_eq!(soon(t.get("first")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
}

#[tokio::test]
async fn a_caller_with_a_shorter_time_out_fails_alone() {
    let t = Fixture::new().await;
    t.server.expire_access_tokens();
    let held = t.server.hold_answers(Route::Token);
    let patient = request(&t);
    held.arrived(1).await;
    let hasty = t.client.get(t.server.api_url("hasty")).timeout(Duration::from_millis(50));
    let error = soon(hasty.send()).await.unwrap_err();
    assert!(found(&error).is_timeout());
    assert!(found(&error).is_transient());
    held.release();
    assert_eq!(soon(patient).await.unwrap(), 200);
    assert_eq!(soon(t.get("next")).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
}

#[test]
fn a_runtime_that_is_shut_down_in_the_middle_of_a_refresh_loses_nothing() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let t = first.block_on(Fixture::new());
    t.server.expire_access_tokens();
    let held = t.server.hold_answers(Route::Token);
    first.block_on(async {
        request(&t);
        held.arrived(1).await;
    });
    drop(first);
    held.release();
    assert_eq!(runtime().block_on(soon(t.get("next"))).unwrap(), 200);
    assert_one_refresh(t.server.counters());
    assert_eq!(t.server.counters().token_requests, 1);
}

#[tokio::test]
async fn drain_waits_for_a_refresh_that_was_sent_and_for_nothing_else() {
    let t = Fixture::new().await;
    soon(t.session.drain()).await;
    t.server.expire_access_tokens();
    let held = t.server.hold_answers(Route::Token);
    let caller = request(&t);
    held.arrived(1).await;
    drop_caller(caller).await;
    let session = t.session.clone();
    let drain = tokio::spawn(async move { session.drain().await });
    // A round trip through the session's thread: the drain has begun by then, and is not over.
    assert!(t.session.is_logged_in().await.unwrap());
    tokio::task::yield_now().await;
    assert!(!drain.is_finished());
    held.release();
    soon(drain).await.unwrap();
    // Drained means stored: another program needs no refresh of its own.
    let other = builder(&t.server).store(t.store.clone()).build().unwrap();
    assert_eq!(soon(start(&client(&other), &t.server)).await.unwrap(), 200);
    assert_one_refresh(t.server.counters());
}

#[test]
fn dropping_the_last_handle_waits_for_a_refresh_that_was_sent() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let t = runtime.block_on(Fixture::new());
    t.server.expire_access_tokens();
    let held = t.server.hold_answers(Route::Token);
    runtime.block_on(async {
        let caller = request(&t);
        held.arrived(1).await;
        drop_caller(caller).await;
    });
    let Fixture { server, session, client, store, .. } = t;
    drop(client);
    let (dropped, drops) = mpsc::sync_channel(0);
    let dropping = thread::spawn(move || {
        drop(session);
        dropped.send(()).unwrap();
    });
    assert_eq!(
        drops.recv_timeout(Duration::from_millis(100)),
        Err(mpsc::RecvTimeoutError::Timeout)
    );
    held.release();
    drops.recv_timeout(Duration::from_secs(20)).unwrap();
    dropping.join().unwrap();
    let other = builder(&server).store(store).build().unwrap();
    runtime.block_on(async {
        assert_eq!(soon(start(&self::client(&other), &server)).await.unwrap(), 200);
    });
    assert_one_refresh(server.counters());
}

#[test]
fn dropping_the_last_handle_does_not_wait_for_a_refresh_that_was_not_sent() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let t = runtime.block_on(Fixture::new());
    t.server.expire_access_tokens();
    let (session, begins, go) = runtime.block_on(second_session(&t, Call::Load));
    let client = client(&session);
    runtime.block_on(async {
        let caller = start(&client, &t.server);
        // The store is slow, and nothing has been sent.
        begins.recv().unwrap();
        drop_caller(caller).await;
    });
    drop(client);
    let start = Instant::now();
    drop(session);
    // The store is still slow; its own time limit is 3 seconds.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    go.send(()).unwrap();
    assert_eq!(t.server.counters().token_requests, 0);
}

#[test]
fn the_last_handle_may_be_dropped_by_the_logout_hook() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = MockServer::start();
    let slot: Arc<std::sync::Mutex<Option<Session>>> = Arc::default();
    let (dropped, drops) = mpsc::sync_channel(1);
    let taken = Arc::clone(&slot);
    let session = builder(&server)
        .store(MemoryStore::new())
        .on_logout(move |_| {
            drop(taken.lock().unwrap().take());
            dropped.send(()).unwrap();
        })
        .build()
        .unwrap();
    runtime.block_on(session.log_in(tokens(&server.log_in("alice")))).unwrap();
    *slot.lock().unwrap() = Some(session.clone());
    runtime.block_on(async move { session.log_out().await.unwrap() });
    drops.recv_timeout(Duration::from_secs(20)).unwrap();
}
