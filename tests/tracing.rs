//! What a session tells of itself: traces by name, and numbers.

mod support;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::Duration;

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{Event, MemoryStore, StoreError};
use support::{AskingStore, Call, Fixture, soon, steps, tokens};

/// A user whose account's name finds the lines of one test in the log of all.
async fn named(account: &'static str) -> Fixture {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .with_ansi(false)
            .without_time()
            .with_writer(|| Log)
            .init();
    });
    Fixture::with(MockServer::start(), |builder| builder.account(account)).await
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Our lines about an account, numbers that differ from run to run replaced.
fn lines(account: &str) -> Vec<String> {
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let ours = |line: &&str| line.contains("reqwest_reauth") && line.contains(account);
    let steady = |line: &str| {
        let words = line.split_whitespace().map(|word| match word.split_once("_ms=") {
            Some((name, _)) => format!("{name}_ms=…"),
            None => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    log.lines().filter(ours).map(steady).collect()
}

#[tokio::test]
async fn a_refresh_is_traced_with_its_reason_outcome_and_waiters() {
    let t = named("traced").await;
    t.server.expire_access_tokens();
    t.server.barrier(Route::Api, 3);
    let held = t.server.hold(Route::Token);
    let requests: Vec<_> = (0..3).map(|_| steps::get(&t)).collect();
    soon(held.arrived(1)).await;
    // All three have seen their 401 when the session has counted it.
    while t.session.metrics().refusals < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    support::settle().await;
    held.release();
    for request in requests {
        assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    }
    soon(t.session.log_out()).await.unwrap();
    let span = r#"refresh{service="test" account="traced" reason="refused"}"#;
    assert_eq!(
        lines("traced"),
        [
            r#"INFO reqwest_reauth: logged in service="test" account="traced""#.to_owned(),
            format!("DEBUG {span}: reqwest_reauth: refreshed duration_ms=… waiters=3"),
            r#"INFO reqwest_reauth: logged out service="test" account="traced" reason=as requested"#
                .to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_refresh_in_the_background_is_traced_as_one() {
    let t = named("ahead").await;
    let mut events = t.session.events();
    let short = tokens(&t.issued).expires_in(Duration::from_secs(2));
    t.session.log_in(short).await.unwrap();
    let token = t.session.access_token().await.unwrap();
    let _keep_alive = t.session.keep_alive().unwrap();
    while !matches!(soon(events.next()).await, Some(Event::Refreshed)) {}
    soon(t.session.drain()).await;
    assert_ne!(t.session.access_token().await.unwrap().secret(), token.secret());
    let lines = lines("ahead");
    let ahead = lines.iter().filter(|line| line.contains(r#"reason="ahead""#));
    assert_eq!(ahead.count(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_failed_refresh_is_traced_with_its_cause_and_the_wait() {
    let t = named("failing").await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "7"));
    soon(t.get("things")).await.unwrap_err();
    let line = &lines("failing")[1];
    let span = r#"refresh{service="test" account="failing" reason="refused"}"#;
    assert!(line.starts_with(&format!("WARN {span}: reqwest_reauth: refresh failed")), "{line}");
    for part in ["duration_ms=…", "waiters=1", "retry_after_ms=…", "answered 429"] {
        assert!(line.contains(part), "{line}");
    }
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("failing") && line.contains("retry_after"));
    let wait = line.unwrap().split("retry_after_ms=").nth(1).unwrap();
    let wait: u64 = wait.split_whitespace().next().unwrap().parse().unwrap();
    assert!((6000..=7000).contains(&wait), "{wait}");
}

#[tokio::test]
async fn what_another_program_has_refreshed_is_traced_as_adopted() {
    let t = named("adopting").await;
    let other = support::builder(&t.server).account("adopting").store(t.store.clone());
    let other = other.build().unwrap();
    t.server.expire_access_tokens();
    let response = support::client(&other).get(t.server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let span = r#"refresh{service="test" account="adopting" reason="refused"}"#;
    let line = format!("DEBUG {span}: reqwest_reauth: adopted duration_ms=… waiters=1");
    assert_eq!(lines("adopting").iter().filter(|it| **it == line).count(), 1, "{line}");
}

#[tokio::test]
async fn a_question_to_the_person_is_traced_with_what_it_came_to() {
    let t = Fixture::with(MockServer::start(), |builder| {
        let builder = builder.account("asked");
        builder.login(|| async { reqwest_reauth::TokenResponse::from_json(b"{}") })
    });
    // The subscriber of all.
    drop(named("nobody in particular").await);
    let t = t.await;
    t.server.revoke_user("alice");
    soon(t.get("things")).await.unwrap_err();
    let whose = r#"service="test" account="asked""#;
    let lines = lines("asked");
    let asking = format!("INFO reqwest_reauth: asking for a login {whose}");
    assert!(lines.contains(&asking), "{lines:?}");
    let nobody = format!("WARN reqwest_reauth: nobody has logged in {whose} error=");
    assert_eq!(lines.iter().filter(|line| line.starts_with(&nobody)).count(), 1, "{lines:?}");
}

#[tokio::test]
async fn tokens_that_could_be_stored_only_later_are_traced_both_times() {
    let saves = AtomicUsize::new(0);
    let ask = move |call| match call {
        // The login's is the first.
        Call::Save if saves.fetch_add(1, Ordering::SeqCst) == 1 => {
            Err(StoreError::unavailable("it is full"))
        }
        _ => Ok(()),
    };
    drop(named("nobody in particular").await);
    let store = AskingStore { memory: MemoryStore::new(), ask };
    let t =
        Fixture::with(MockServer::start(), |builder| builder.account("late").store(store)).await;
    let mut events = t.session.events();
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    while !matches!(soon(events.next()).await, Some(Event::Persisted)) {}
    let whose = r#"service="test" account="late""#;
    let lines = lines("late");
    let failed = format!("WARN reqwest_reauth: new tokens could not be stored {whose} error=");
    let starts = |start: &str| lines.iter().filter(|line| line.contains(start)).count();
    assert_eq!(starts(failed.trim_start_matches("WARN ")), 1, "{lines:?}");
    assert_eq!(starts(&format!("new tokens stored after all {whose}")), 1, "{lines:?}");
}

#[tokio::test]
async fn tokens_that_are_safe_in_the_journal_alone_are_traced() {
    // From here on there is a log.
    drop(named("nobody in particular").await);
    let (user, vault) = (support::vault::User::new(), support::vault::Vault::default());
    let t = Fixture::with(MockServer::start(), |builder| {
        builder.account("journaled").store(vault.clone()).state_dir(user.state.path().join("own"))
    });
    let t = t.await;
    t.server.expire_access_tokens();
    vault.fail(&[Call::Save]);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    let told = r#"new tokens are in the journal, not in the store service="test" account="journaled" error="#;
    let lines = lines("journaled");
    assert_eq!(lines.iter().filter(|line| line.contains(told)).count(), 1, "{lines:?}");
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let t = Fixture::new().await;
    let numbers = || {
        let m = t.session.metrics();
        [m.refreshes, m.refresh_failures, m.refusals, m.replays, m.withheld, m.logouts]
    };
    assert_eq!(numbers(), [0, 0, 0, 0, 0, 0]);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    t.server.expire_access_tokens();
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!(numbers(), [1, 0, 1, 1, 0, 0]);
    // Refused twice, and the next time not tried again.
    t.server.refuse_path("/api/forbidden");
    assert_eq!(soon(t.get("forbidden")).await.unwrap(), 401);
    assert_eq!(soon(t.get("forbidden")).await.unwrap(), 401);
    assert_eq!(numbers(), [2, 0, 4, 2, 1, 0]);
    // Another program's refresh is an adoption.
    let other = support::builder(&t.server).store(t.store.clone()).build().unwrap();
    t.server.expire_access_tokens();
    let response = support::client(&other).get(t.server.api_url("things")).send();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    assert_eq!(soon(t.get("things")).await.unwrap(), 200);
    assert_eq!((other.metrics().refreshes, t.session.metrics().adoptions), (1, 1));
    t.server.revoke_family(t.issued.family);
    soon(t.get("things")).await.unwrap_err();
    assert_eq!(numbers(), [2, 1, 6, 3, 1, 1]);
    t.session.log_in(tokens(&t.server.log_in("alice"))).await.unwrap();
    assert_eq!(t.session.metrics().logouts, 1);
}
