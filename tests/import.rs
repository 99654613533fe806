//! Tokens of another program: taken over once, by whichever program of the user's.

mod support;

use reqwest_reauth::TokenStore;
use support::steps::log_out;
use support::vault::User;
use support::{Call, soon, tokens};

#[tokio::test]
async fn a_refresh_token_is_imported_once_though_it_is_given_at_every_start() {
    let t = User::new();
    let issued = t.server.log_in("alice");
    for start in 0..4 {
        let session = t.program();
        assert_eq!(session.import(tokens(&issued)).await.unwrap(), start == 0);
        t.server.expire_access_tokens();
        assert_eq!(t.get(&session).await.unwrap(), 200);
    }
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (4, 4, 0));

    // Others are another login.
    let session = t.program();
    assert!(session.import(tokens(&t.server.log_in("bob"))).await.unwrap());
    assert!(!session.import(tokens(&issued)).await.unwrap());
    assert_eq!(t.get(&session).await.unwrap(), 200);
}

#[tokio::test]
async fn what_was_logged_out_is_not_imported_again() {
    let t = User::new();
    let (session, issued) = (t.program(), t.server.log_in("alice"));
    assert!(session.import(tokens(&issued)).await.unwrap());
    soon(session.log_out()).await.unwrap();
    let next = t.program();
    assert!(!next.import(tokens(&issued)).await.unwrap());
    assert!(!next.is_logged_in().await.unwrap());
    // Who logs in with them means it.
    next.log_in(tokens(&issued)).await.unwrap();
    assert!(next.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn of_two_programs_that_import_at_once_one_does() {
    let t = User::new();
    let issued = t.server.log_in("alice");
    let (one, other) = (t.program(), t.program());
    let both = tokio::join!(one.import(tokens(&issued)), other.import(tokens(&issued)));
    assert_ne!(both.0.unwrap(), both.1.unwrap());
    for session in [one, other] {
        assert_eq!(t.get(&session).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn an_import_that_failed_can_be_made_again() {
    for fails in [Call::Load, Call::Save] {
        let t = User::new();
        let (session, issued) = (t.program(), t.server.log_in("alice"));
        t.vault.fail(&[fails]);
        let error = session.import(tokens(&issued)).await.unwrap_err();
        assert!(error.is_store() && error.tokens().is_some(), "{error:?}");
        t.vault.fail(&[]);
        assert!(session.import(tokens(&issued)).await.unwrap(), "{fails:?}");
        assert_eq!(t.get(&session).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn an_import_whose_save_hangs_is_not_made_again_beside_the_one_that_lands() {
    let t = User::new();
    let (session, issued) = (t.program(), t.server.log_in("alice"));
    let save = t.vault.park_next(Call::Save);
    assert!(session.import(tokens(&issued)).await.unwrap_err().is_store());
    // The program ends, then it lands; another one goes on with it.
    tokio::task::spawn_blocking(|| drop(session)).await.unwrap();
    save.open();
    let next = t.program();
    soon(async {
        // Until it has landed.
        while t.vault.text().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(next.is_logged_in().await.unwrap());
    t.server.expire_access_tokens();
    assert_eq!(t.get(&next).await.unwrap(), 200);

    assert!(!t.program().import(tokens(&issued)).await.unwrap());
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (2, 2, 0));
}

#[tokio::test]
async fn an_import_whose_save_was_undone_when_it_landed_can_be_made_again() {
    let t = User::new();
    let (session, issued) = (t.program(), t.server.log_in("alice"));
    let save = t.vault.park_next(Call::Save);
    assert!(session.import(tokens(&issued)).await.unwrap_err().is_store());
    save.open();
    soon(session.drain()).await;
    assert_eq!(t.vault.text(), None);
    assert!(t.program().import(tokens(&issued)).await.unwrap());
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
}

#[tokio::test]
async fn an_import_that_could_not_be_undone_at_once_is_not_made_again_as_it_may_be_spent() {
    let t = User::new();
    let (session, issued) = (t.program(), t.server.log_in("alice"));
    t.vault.die_at_next_save(|memory, record| memory.save(record).unwrap());
    assert!(session.import(tokens(&issued)).await.unwrap_err().is_store());
    t.vault.fail(&[]);
    // Another program finds it there, and goes on with it.
    t.server.expire_access_tokens();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let refreshed = t.vault.text();
    assert!(soon(session.is_logged_in()).await.unwrap());
    assert_eq!(t.vault.text(), refreshed);
    assert!(!t.program().import(tokens(&issued)).await.unwrap());
    assert_eq!(t.get(&session).await.unwrap(), 200);
    assert_eq!((t.server.counters().refreshes, t.server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn an_import_that_a_logout_beat_is_not_made_again() {
    let t = User::new();
    let (session, issued) = (t.program(), t.server.log_in("alice"));
    let save = t.vault.park_next(Call::Save);
    let import = tokio::spawn({
        let (session, tokens) = (session.clone(), tokens(&issued));
        async move { session.import(tokens).await }
    });
    soon(save.arrived()).await;
    let logout = log_out(&session);
    support::settle().await;
    save.open();
    assert!(soon(import).await.unwrap().unwrap_err().is_logged_out());
    soon(logout).await.unwrap().unwrap();
    assert!(!t.program().import(tokens(&issued)).await.unwrap());
}

#[tokio::test]
async fn the_note_of_it_holds_no_token() {
    let t = User::new();
    let issued = t.server.log_in("alice");
    t.program().import(tokens(&issued)).await.unwrap();
    let note = std::fs::read_to_string(t.file("imported").unwrap()).unwrap();
    assert!(!note.contains(&issued.refresh_token) && !note.contains(&issued.access_token));
}
