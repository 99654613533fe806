//! What is noted before a refresh token is sent: the next program, whichever it is, knows whether
//! an answer was lost, and what the server has refused is not sent again by anybody.

mod support;

use mock_server::{Fault, MockServer, Route};
use reqwest_reauth::{LogoutReason, Session};
use support::steps::after_a_second;
use support::vault::User;
use support::{Call, found, soon, tokens};

/// The answer to a refresh and the one to its repetition are lost.
async fn lose_an_answer(t: &User) -> Session {
    let (session, _) = t.logged_in().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 2, Fault::DropAfter);
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_transient(), "{error:?}");
    session
}

fn without_reuse_detection() -> MockServer {
    MockServer::builder().reuse(mock_server::Reuse::Ignore).start().unwrap()
}

#[tokio::test]
async fn a_rotation_whose_answer_was_lost_is_told_from_a_revocation_by_another_program() {
    for lost in [true, false] {
        let t = User::of(without_reuse_detection());
        if lost {
            drop(lose_an_answer(&t).await);
            assert!(t.program().status().await.unwrap().unanswered_since().is_some());
            // The cooldown is over, for whoever comes next.
            std::fs::remove_file(t.file("trace").unwrap()).unwrap();
        } else {
            drop(t.logged_in().await);
            t.server.revoke_user("alice");
        }
        let next = t.program();
        let error = t.get(&next).await.unwrap_err();
        let reason = if lost { LogoutReason::RotationLost } else { LogoutReason::Revoked };
        assert_eq!(found(&error).logout_reason(), Some(reason));
        next.drain().await;
        assert_eq!(t.logouts.all(), [reason]);
    }
}

#[tokio::test]
async fn within_the_servers_window_another_program_gets_the_answer_that_was_lost() {
    let t =
        User::of(MockServer::builder().grace(std::time::Duration::from_secs(60)).start().unwrap());
    drop(lose_an_answer(&t).await);
    std::fs::remove_file(t.file("trace").unwrap()).unwrap();
    assert_eq!(t.get(&t.program()).await.unwrap(), 200);
    let counters = t.server.counters();
    assert_eq!((counters.refreshes, counters.grace_replays, counters.reuses), (1, 2, 0));
    assert!(t.program().status().await.unwrap().unanswered_since().is_none());
    assert_eq!(t.logouts.all(), []);
}

/// A program was killed with its request on the way; another one repeats it, and is answered first.
#[tokio::test]
async fn a_request_that_arrives_after_its_repetition_was_answered_is_told_from_a_revocation() {
    for arrives in [true, false] {
        let t = User::new();
        let (session, issued) = t.logged_in().await;
        t.server.expire_access_tokens();
        t.server.on_next(Route::Token, 2, Fault::DropBefore);
        assert!(found(&t.get(&session).await.unwrap_err()).is_transient());
        drop(session);
        std::fs::remove_file(t.file("trace").unwrap()).unwrap();
        assert_eq!(t.get(&t.program()).await.unwrap(), 200);
        assert_eq!(t.file("mark"), None);
        if arrives {
            let spent = [("grant_type", "refresh_token"), ("refresh_token", &issued.refresh_token)];
            let late = reqwest::Client::new().post(t.server.token_url()).form(&spent).send();
            assert_eq!(soon(late).await.unwrap().status(), 400);
        } else {
            // The next tokens are of an exchange that nobody has doubts about.
            t.server.expire_access_tokens();
            assert_eq!(t.get(&t.program()).await.unwrap(), 200);
            t.server.revoke_user("alice");
        }
        let next = t.program();
        let error = t.get(&next).await.unwrap_err();
        let reason = if arrives { LogoutReason::RotationLost } else { LogoutReason::Revoked };
        assert_eq!(found(&error).logout_reason(), Some(reason));
        assert_eq!(t.server.counters().reuses, u64::from(arrives));
    }
}

#[tokio::test]
async fn a_token_that_was_not_sent_or_not_looked_at_leaves_no_mark() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "0"));
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_transient());
    assert_eq!(t.file("mark"), None);
    tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    assert_eq!(t.get(&session).await.unwrap(), 200);
    assert_eq!(t.file("mark"), None, "nor does one that was answered");
}

#[tokio::test]
async fn an_older_question_stays_open_where_a_later_refresh_is_not_looked_at() {
    let t = User::of(without_reuse_detection());
    drop(lose_an_answer(&t).await);
    for fault in [Some(Fault::status(429)), None] {
        std::fs::remove_file(t.file("trace").unwrap()).unwrap();
        if let Some(fault) = fault {
            t.server.on_next(Route::Token, 1, fault);
        }
        let error = t.get(&t.program()).await.unwrap_err();
        let reason = found(&error).logout_reason();
        let over = t.server.counters().token_requests == 4;
        assert_eq!(reason, over.then_some(LogoutReason::RotationLost));
    }
}

#[tokio::test]
async fn an_older_question_stays_open_where_its_tokens_reach_the_store_only_then() {
    let t = User::of(without_reuse_detection());
    let (session, _) = t.logged_in().await;
    // The journal alone has these, and the answer to their refresh is lost.
    t.vault.fail(&[Call::Save]);
    t.server.expire_access_tokens();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    drop(session);
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 2, Fault::DropAfter);
    let error = t.get(&t.program()).await.unwrap_err();
    assert!(found(&error).is_transient(), "{error:?}");
    // The next one brings them into the store first.
    t.vault.fail(&[]);
    std::fs::remove_file(t.file("trace").unwrap()).unwrap();
    let next = t.program();
    let error = t.get(&next).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::RotationLost));
    next.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::RotationLost]);
}

#[tokio::test]
async fn what_the_server_has_refused_no_program_sends_again_though_it_could_not_be_cleared() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.server.revoke_user("alice");
    t.vault.fail(&[Call::Save, Call::Clear]);
    let error = t.get(&session).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert!(t.vault.text().is_some());
    for _ in 0..3 {
        let program = t.program();
        let error = t.get(&program).await.unwrap_err();
        assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
        let status = program.status().await.unwrap();
        assert!(!status.is_logged_in());
        assert_eq!(status.logout_reason(), Some(LogoutReason::Revoked));
    }
    assert_eq!(t.server.counters().token_requests, 1);
    session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked], "told once");

    // A new login inherits none of it.
    t.vault.fail(&[]);
    let (session, _) = t.logged_in().await;
    t.server.expire_access_tokens();
    assert_eq!(t.get(&session).await.unwrap(), 200);
}

#[tokio::test]
async fn the_servers_word_is_the_reason_though_another_login_came_before_it_could_be_acted_on() {
    let t = User::new();
    let (session, _) = t.logged_in().await;
    t.server.revoke_user("alice");
    let held = t.server.hold_answers(Route::Token);
    let refused = async {
        soon(held.arrived(1)).await;
        t.vault.fail(&[Call::Load]);
        held.release();
    };
    let (result, ()) = tokio::join!(t.get(&session), refused);
    let error = result.unwrap_err();
    assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
    t.vault.fail(&[]);
    t.program().log_in(tokens(&t.server.log_in("bob"))).await.unwrap();
    after_a_second().await;
    let error = t.get(&session).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(t.server.counters().token_requests, 1);
    session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked]);
}

#[tokio::test]
async fn programs_that_wait_for_a_refresh_that_fails_fail_with_it_and_wait_as_long() {
    let t = User::new();
    let (first, _) = t.logged_in().await;
    let second = t.program();
    assert!(second.is_logged_in().await.unwrap());
    t.server.expire_access_tokens();
    let held = t.server.hold(Route::Token);
    t.server.on_next(Route::Token, 1, Fault::status(429).header("retry-after", "40"));
    t.server.barrier(Route::Api, 2);
    let both = async { tokio::join!(t.get(&first), t.get(&second)) };
    let release = async {
        soon(held.arrived(1)).await;
        held.release();
    };
    let ((one, other), ()) = tokio::join!(both, release);
    for error in [one.unwrap_err(), other.unwrap_err()] {
        let wait = found(&error).retry_after().unwrap().as_secs_f64();
        assert!((30.0..=41.0).contains(&wait), "{wait}");
    }
    assert_eq!(t.server.counters().token_requests, 1);
    // Nor does one that comes later ask; and a person can see why.
    let third = t.program();
    assert!(found(&t.get(&third).await.unwrap_err()).is_transient());
    assert_eq!(t.server.counters().token_requests, 1);
    let status = third.status().await.unwrap();
    assert!(status.cooldown().is_some() && status.failed_at().is_some());
    assert!(status.to_string().contains("refreshes that failed in a row: 1, "), "{status}");
}

/// A request whose refresh token the server refuses, while the directory of notes reads as an empty
/// one and takes nothing, and these calls to the store fail.
#[cfg(unix)]
async fn refused_unnoted(t: &User, fails: &[Call]) -> (Session, reqwest_middleware::Error) {
    let (session, issued) = t.logged_in().await;
    t.server.revoke_family(issued.family);
    let held = t.server.hold_answers(Route::Token);
    let request = tokio::spawn(support::client(&session).get(t.server.api_url("things")).send());
    soon(held.arrived(1)).await;
    let state = t.state.path().join("state");
    std::fs::rename(&state, t.state.path().join("away")).unwrap();
    std::os::unix::fs::symlink("nowhere", &state).unwrap();
    t.vault.fail(fails);
    held.release();
    let error = soon(request).await.unwrap().unwrap_err();
    (session, error)
}

#[cfg(unix)]
#[tokio::test]
async fn what_the_server_has_refused_is_over_though_that_can_be_noted_nowhere() {
    let t = User::new();
    let (session, error) = refused_unnoted(&t, &[Call::Clear]).await;
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert!(t.vault.text().is_some());
    // The store is read again after a second.
    after_a_second().await;
    assert!(!session.is_logged_in().await.unwrap());
    let error = t.get(&session).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(t.server.counters().token_requests, 1);
    session.drain().await;
    assert_eq!(t.logouts.all(), [LogoutReason::Revoked]);
}

#[cfg(unix)]
#[tokio::test]
async fn what_the_server_has_refused_is_not_sent_again_though_nothing_could_be_noted_or_read() {
    let t = User::new();
    let (session, error) = refused_unnoted(&t, &[Call::Load]).await;
    assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
    // All is as it was, but for what this program knows.
    let state = t.state.path().join("state");
    std::fs::remove_file(&state).unwrap();
    std::fs::rename(t.state.path().join("away"), &state).unwrap();
    t.vault.fail(&[]);
    tokio::time::sleep(found(&error).retry_after().unwrap_or_default()).await;
    let error = t.get(&session).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(t.server.counters().token_requests, 1);
    assert_eq!(t.vault.text(), None);
}
