//! What the token endpoint answered is durable before the store has it: a store that fails, hangs
//! or writes late loses nothing.

mod support;

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use mock_server::{Fault, Hold, Issued, Route};
use reqwest::Response;
use reqwest_reauth::{Event, Events, LogoutReason, Session, TokenStore};
use support::steps::log_out;
use support::vault::{User, Vault, seen};
use support::{
    Call, client, found, id_token, refresh_tokens_sent, soon, tokens, wait_out, with_id_token,
};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_store_that_takes_no_writes_loses_nothing_for_ten_rotations_by_ten_programs() {
    let t = User::new();
    let (first, issued) = t.logged_in().await;
    let before = t.vault.text();
    let mut events = first.events();
    t.vault.fail(&[Call::Save]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&first).await.unwrap(), 200);
    for _ in 1..10 {
        t.server.expire_access_tokens();
        assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    }
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (10, 10, 0));
    assert_eq!(t.vault.text(), before, "not a word");
    assert!(t.program().status().await.unwrap().is_journal_waiting());
    assert!(!seen(&mut events).iter().any(|event| matches!(event, Event::PersistFailed(_))));

    // The next one stores them.
    t.vault.fail(&[]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let current = t.server.current_refresh_token(issued.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&current));
    assert!(!t.program().status().await.unwrap().is_journal_waiting());
    assert_eq!(t.logouts.all(), []);
}

#[tokio::test]
async fn the_journal_is_stored_by_the_next_transaction_even_where_that_sends_nothing() {
    let t = User::new();
    let (first, _) = t.logged_in().await;
    let second = t.program();
    assert!(second.is_logged_in().await.unwrap());
    t.vault.fail(&[Call::Save]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&first).await.unwrap(), 200);
    t.vault.fail(&[]);
    // It has the old token, and adopts the new one.
    assert_eq!(t.get(&second).await.unwrap(), 200);
    assert_eq!(t.server.counters().token_requests, 1);
    assert!(!t.program().status().await.unwrap().is_journal_waiting());
}

#[tokio::test]
async fn a_write_that_lands_two_rotations_later_heals_itself() {
    let t = User::new();
    let (first, issued) = t.logged_in().await;
    // Of a program that was killed: the daemon does it some time.
    t.server.expire_access_tokens();
    assert_eq!(t.get(&first).await.unwrap(), 200);
    let late = t.vault.memory.load().unwrap().unwrap();
    for _ in 0..2 {
        t.server.expire_access_tokens();
        assert_eq!(t.get(&first).await.unwrap(), 200);
    }
    t.vault.memory.save(&late).unwrap();

    let next = t.program();
    t.server.expire_access_tokens();
    assert_eq!(t.get(&next).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (4, 4, 0));
    let current = t.server.current_refresh_token(issued.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&current));
}

#[tokio::test]
async fn a_save_that_hangs_is_no_loss_and_what_it_writes_at_last_is_in_time() {
    let t = User::new();
    let (first, issued) = t.logged_in().await;
    let turnstile = t.vault.park_next(Call::Save);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&first).await.unwrap(), 200);
    // Another program reads it in the journal.
    let second = t.program();
    assert_eq!(second.status().await.unwrap().refreshes(), 1);
    turnstile.open();
    t.server.expire_access_tokens();
    assert_eq!(t.get(&second).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
    let current = t.server.current_refresh_token(issued.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&current));
}

#[tokio::test]
async fn a_rotated_refresh_token_is_kept_although_the_access_token_with_it_cannot_be_used() {
    let unusable = [
        Fault::rewrite(|body| body["access_token"] = "no\nheader".into()),
        Fault::rewrite(|body| body["access_token"] = 7.into()),
        Fault::rewrite(|body| body["token_type"] = "mac".into()),
        Fault::rewrite(|body| body["token_type"] = serde_json::json!(["Bearer"])),
        Fault::rewrite(|body| {
            body.as_object_mut().unwrap().remove("access_token");
        }),
    ];
    for fault in unusable {
        let t = User::new();
        let (session, issued) = t.logged_in().await;
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 1, fault);
        let error = t.get(&session).await.unwrap_err();
        assert!(found(&error).is_transient() && !found(&error).is_logged_out(), "{error:?}");
        let rotated = t.server.current_refresh_token(issued.family).unwrap();
        assert!(t.vault.text().unwrap().contains(&rotated));

        tokio::time::sleep(found(&error).retry_after().unwrap()).await;
        assert_eq!(t.get(&session).await.unwrap(), 200);
        assert_eq!(refresh_tokens_sent(&t.server), [issued.refresh_token, rotated]);
        assert_eq!(t.server.counters().reuses, 0);
        assert_eq!(t.logouts.all(), []);
    }
}

#[tokio::test]
async fn an_access_token_of_another_user_is_not_sent_and_the_refresh_token_with_it_is_kept() {
    let t = User::new();
    let (session, issued) = (t.program(), t.server.log_in("alice"));
    session.log_in(with_id_token(&issued, "alice")).await.unwrap();
    t.server.expire_access_tokens();
    t.server.on_next(
        Route::Token,
        1,
        Fault::rewrite(|body| body["id_token"] = id_token("bob").into()),
    );
    let error = t.get(&session).await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.contains("another user"), "{text}");
    assert!(found(&error).is_transient() && !found(&error).is_logged_out(), "{error:?}");
    assert_eq!(t.server.counters().api_requests, 1, "it was not sent");
    let rotated = t.server.current_refresh_token(issued.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&rotated));

    // What bob's refresh token brings is his, also where nothing is said, and in another program.
    wait_out(found(&error).retry_after()).await;
    let second = t.program();
    let error = t.get(&second).await.unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.contains("another user"), "{text}");
    assert!(found(&error).is_login_required() && !found(&error).is_logged_out(), "{error:?}");
    assert_eq!(t.server.counters().api_requests, 1, "it was not sent either");
    let again = t.server.current_refresh_token(issued.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&again));

    // Unless the server says that it isn't.
    wait_out(found(&error).retry_after()).await;
    t.server.on_next(
        Route::Token,
        1,
        Fault::rewrite(|body| body["id_token"] = id_token("alice").into()),
    );
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    assert_eq!(refresh_tokens_sent(&t.server), [issued.refresh_token, rotated, again]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200, "it is over");
    assert_eq!((t.server.counters().reuses, t.logouts.all()), (0, vec![]));
}

/// A request whose refresh is answered as soon as it is let go.
async fn held(
    t: &User,
    session: &Session,
) -> (JoinHandle<reqwest_middleware::Result<Response>>, Hold) {
    let held = t.server.hold_answers(Route::Token);
    let request = tokio::spawn(client(session).get(t.server.api_url("things")).send());
    soon(held.arrived(1)).await;
    (request, held)
}

#[tokio::test]
async fn an_answer_of_no_use_that_could_not_be_saved_is_a_failure_and_no_refresh() {
    let t = User::new();
    let (session, issued) = t.logged_in().await;
    let mut events = session.events();
    t.server.expire_access_tokens();
    let useless = Fault::rewrite(|body| body["access_token"] = "no\nheader".into());
    t.server.on_next(Route::Token, 1, useless);
    let (request, held) = held(&t, &session).await;
    let rotated = t.server.current_refresh_token(issued.family).unwrap();
    t.vault.fail(&[Call::Save]);
    let journal = t.place("journal");
    fs::create_dir(&journal).unwrap();
    held.release();
    let error = soon(request).await.unwrap().unwrap_err();
    assert!(found(&error).is_transient() && !found(&error).is_store(), "{error:?}");
    assert!(found(&error).retry_after().is_some());
    let metrics = session.metrics();
    assert_eq!((metrics.refreshes, metrics.refresh_failures), (0, 1));

    // The refresh token that came with it is kept all the same, as soon as it can be.
    fs::remove_dir(&journal).unwrap();
    let mut told = Vec::new();
    loop {
        match soon(events.next()).await.unwrap() {
            Event::Persisted => break,
            event => told.push(event),
        }
    }
    assert!(!told.iter().any(|event| matches!(event, Event::Refreshed)), "{told:?}");
    t.vault.fail(&[]);
    soon(session.drain()).await;
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.token_requests, counters.reuses), (2, 0));
    assert_eq!(refresh_tokens_sent(&t.server), [issued.refresh_token, rotated]);
}

#[tokio::test]
async fn an_answer_that_brings_nothing_of_use_changes_nothing() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    let before = t.vault.text();
    t.server.expire_access_tokens();
    let fault = Fault::rewrite(|body| {
        body["access_token"] = "no\nheader".into();
        body.as_object_mut().unwrap().remove("refresh_token");
    });
    t.server.on_next(Route::Token, 1, fault);
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_transient() && !found(&error).is_store(), "{error:?}");
    assert_eq!(t.vault.text(), before);
    assert_eq!(session.status().await.unwrap().refreshes(), 0);
}

#[tokio::test]
async fn a_store_that_begins_to_hang_during_the_exchange_keeps_the_answer_from_no_journal() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.server.expire_access_tokens();
    let (request, held) = held(&t, &session).await;
    let hanging = t.vault.park_all();
    // Somebody looks: the store's thread hangs, and nobody knows yet.
    let looking = tokio::spawn({
        let session = session.clone();
        async move { session.status().await }
    });
    soon(hanging.arrived()).await;
    held.release();
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    // The program ends without having stored it.
    looking.abort();
    let _ = looking.await;
    tokio::task::spawn_blocking(|| drop(session)).await.unwrap();
    assert!(t.file("journal").is_some());
    hanging.open();
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
}

/// A program that has refreshed, with tokens that neither its store nor its journal takes.
struct Unsaved {
    session: Session,
    /// What it was logged in with.
    issued: Issued,
    /// From then on.
    events: Events,
    /// What is in the journal's place.
    path: PathBuf,
}

impl Unsaved {
    /// Whose store is as it is made by `breaks` before it would save.
    async fn of(t: &User, breaks: impl FnOnce(&Vault)) -> Self {
        let (session, issued) = t.logged_in().await;
        let mut events = session.events();
        t.server.expire_access_tokens();
        let (request, held) = held(t, &session).await;
        breaks(&t.vault);
        let path = t.place("journal");
        fs::create_dir(&path).unwrap();
        held.release();
        assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
        while !matches!(soon(events.next()).await.unwrap(), Event::PersistFailed(_)) {}
        Self { session, issued, events, path }
    }
}

#[tokio::test]
async fn a_journal_that_failed_takes_the_answer_later_though_the_store_does_not() {
    let t = User::new();
    let Unsaved { session: _session, issued, mut events, path } =
        Unsaved::of(&t, |vault| vault.fail(&[Call::Save])).await;
    assert!(t.place("room").is_file(), "the journal's room is left to it");
    fs::remove_dir(&path).unwrap();
    while !matches!(soon(events.next()).await.unwrap(), Event::Persisted) {}
    assert!(path.is_file());

    t.server.expire_access_tokens();
    t.vault.fail(&[]);
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
    let current = t.server.current_refresh_token(issued.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&current));
}

#[tokio::test]
async fn a_journal_that_failed_takes_the_answer_later_though_the_store_hangs() {
    let (t, mut hanging) = (User::new(), None);
    let park = |vault: &Vault| hanging = Some(vault.park_next(Call::Save));
    let Unsaved { session, mut events, path, .. } = Unsaved::of(&t, park).await;
    fs::remove_dir(&path).unwrap();
    while !matches!(soon(events.next()).await.unwrap(), Event::Persisted) {}
    assert!(path.is_file());
    assert_eq!(hanging.as_ref().unwrap().count(), 1, "it hangs");

    // Others have it, though the locks are held.
    let second = t.program();
    assert_eq!(second.status().await.unwrap().refreshes(), 1);
    hanging.unwrap().open();
    soon(session.drain()).await;
    t.server.expire_access_tokens();
    assert_eq!(t.get(&second).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
}

/// The journal is written into its room first; who opens a pipe to write waits for one who reads.
#[cfg(unix)]
fn hang_journal(t: &User) -> PathBuf {
    let room = t.place("room");
    fs::remove_file(&room).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&room).status().unwrap().success());
    room
}

#[cfg(unix)]
#[tokio::test]
async fn a_journal_that_hangs_keeps_the_locks_until_it_is_over_and_no_request() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.server.expire_access_tokens();
    let (request, held) = held(&t, &session).await;
    let room = hang_journal(&t);
    // The save takes the other name away.
    let pipe = t.state.path().join("pipe");
    fs::hard_link(&room, &pipe).unwrap();
    held.release();
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);

    // The store has its tokens, but nobody else may write there yet.
    t.server.expire_access_tokens();
    let second = t.program();
    let mut waiting = tokio::spawn(client(&second).get(t.server.api_url("things")).send());
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
    assert_eq!(t.server.counters().token_requests, 1);
    fs::File::open(&pipe).unwrap();
    soon(session.drain()).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap().status(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
}

/// And no second one is begun beside it.
#[cfg(unix)]
#[tokio::test]
async fn a_journal_that_hangs_and_then_fails_takes_the_answer_later_if_the_store_does_not() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    let mut events = session.events();
    t.server.expire_access_tokens();
    let (request, held) = held(&t, &session).await;
    t.vault.fail(&[Call::Save]);
    let room = hang_journal(&t);
    held.release();
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    while !matches!(soon(events.next()).await.unwrap(), Event::PersistFailed(_)) {}
    let pipe = t.state.path().join("pipe");
    fs::rename(&room, &pipe).unwrap();
    let mut persisted =
        pin!(async { while !matches!(events.next().await.unwrap(), Event::Persisted) {} });
    let early = tokio::time::timeout(Duration::from_secs(1), &mut persisted).await;
    assert!(early.is_err(), "the first one still hangs");

    // A pipe has no length to be set.
    let read = tokio::task::spawn_blocking(move || fs::read(pipe).unwrap());
    assert!(!soon(read).await.unwrap().is_empty());
    soon(persisted).await;
    assert!(t.place("journal").is_file());
    t.vault.fail(&[]);
    soon(session.drain()).await;
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
}

#[tokio::test]
async fn a_logout_in_another_program_ends_tokens_that_only_the_journal_could_take() {
    let t = User::new();
    let Unsaved { session, path, .. } = Unsaved::of(&t, |vault| vault.fail(&[Call::Save])).await;
    let logout = log_out(&t.program());
    soon(async {
        while t.file("out").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    fs::remove_dir(&path).unwrap();
    soon(logout).await.unwrap().unwrap();
    soon(session.drain()).await;
    assert!(!session.is_logged_in().await.unwrap());
    assert_eq!((t.vault.text(), path.exists()), (None, false));
    assert_eq!(t.server.counters().revocations, 1);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_or_written_stops_a_refresh_before_anything_is_sent() {
    // What is beside the lock, in turn: the journal, the mark, the room for both.
    for kind in ["journal", "mark", "room"] {
        let t = User::new();
        let (session, _) = t.logged_in().await;
        let path = t.place(kind);
        fs::create_dir(&path).unwrap();
        t.server.expire_access_tokens();
        let error = t.get(&session).await.unwrap_err();
        let error = found(&error);
        assert!(error.is_store() && error.is_transient(), "{kind}: {error:?}");
        let text = format!("{:#}", anyhow::Error::new(error.clone()));
        assert!(text.contains(path.to_str().unwrap()) && text.contains(".state_dir("), "{text}");
        assert_eq!(t.server.counters().token_requests, 0, "{kind}");

        fs::remove_dir(&path).unwrap();
        tokio::time::sleep(error.retry_after().unwrap()).await;
        assert_eq!(t.get(&session).await.unwrap(), 200, "{kind}");
        assert_eq!(t.server.counters().reuses, 0);
    }
}

#[tokio::test]
async fn a_journal_that_was_tampered_with_or_is_of_another_login_counts_for_nothing() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.vault.fail(&[Call::Save]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    let of_alice = fs::read(t.file("journal").unwrap()).unwrap();

    t.vault.fail(&[]);
    let bob = t.server.log_in("bob");
    session.log_in(tokens(&bob)).await.unwrap();
    for bytes in [of_alice.clone(), of_alice[..40].to_vec(), b"{}\n".to_vec(), Vec::new()] {
        fs::write(t.place("journal"), bytes).unwrap();
        let program = t.program();
        assert_eq!(program.status().await.unwrap().refreshes(), t.server.counters().refreshes - 1);
        t.server.expire_access_tokens();
        assert_eq!(t.get(&program).await.unwrap(), 200);
    }
    assert_eq!(t.server.counters().reuses, 0);
    let current = t.server.current_refresh_token(bob.family).unwrap();
    assert!(t.vault.text().unwrap().contains(&current));
}

#[tokio::test]
async fn tokens_of_another_program_get_a_journal_before_they_are_sent() {
    let t = User::new();
    let issued = t.server.log_in("alice");
    let foreign = issued.json();
    t.vault.memory.save(&reqwest_reauth::Record::from_bytes(foreign.as_bytes())).unwrap();
    let session = t.program();
    t.server.expire_access_tokens();
    let held = t.server.hold(Route::Token);
    let request = tokio::spawn(client(&session).get(t.server.api_url("things")).send());
    soon(held.arrived(1)).await;
    assert!(t.vault.text().unwrap().starts_with(r#"{"version":1,"#));
    // The store fails from here on.
    t.vault.fail(&[Call::Save]);
    held.release();
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    t.vault.fail(&[]);
    let next = t.program();
    t.server.expire_access_tokens();
    assert_eq!(t.get(&next).await.unwrap(), 200);
    assert_eq!(t.server.counters().reuses, 0);
}

#[tokio::test]
async fn the_journal_holds_no_token_in_clear_and_goes_with_the_logout() {
    let t = User::new();
    let (session, issued) = t.logged_in().await;
    t.server.expire_access_tokens();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    let current = t.server.current_refresh_token(issued.family).unwrap();
    let journal = fs::read(t.file("journal").unwrap()).unwrap();
    let holds = |token: &str| journal.windows(token.len()).any(|part| part == token.as_bytes());
    assert!(!holds(&current) && !holds(&issued.refresh_token));
    soon(session.log_out()).await.unwrap();
    assert_eq!(t.file("journal"), None);
    session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Requested]);
}

#[tokio::test]
async fn while_the_store_has_not_taken_what_was_kept_no_token_is_sent() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.vault.fail(&[Call::Save]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    session.drain().await;
    // It answers again, and hangs over the tokens in the journal.
    t.vault.fail(&[]);
    let save = t.vault.park_next(Call::Save);
    t.server.expire_access_tokens();
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_store() && found(&error).is_transient());
    assert_eq!(t.server.counters().token_requests, 1);
    save.open();
    soon(session.drain()).await;
    soon(async {
        while t.get(&session).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let counters = t.server.counters();
    assert_eq!((counters.token_requests, counters.reuses), (2, 0));
}
