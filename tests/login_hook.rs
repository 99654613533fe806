//! A session that ends in the middle of a program's work: a person is asked, once, and what may go
//! on does.

mod support;

use std::time::Duration;

use mock_server::{Fault, Route};
use reqwest_reauth::{
    BrowserLogin, Event, LoginRequired, LogoutReason, MemoryStore, OAuth2Endpoint, Record,
    TokenStore,
};
use support::person::Asking;
use support::{found, join_all, soon, tokens, wait_out};

#[tokio::test]
async fn fifty_requests_of_an_ended_session_wait_for_one_login_and_all_go_on() {
    let t = Asking::new();
    t.session.log_in(t.tokens_of("alice")).await.unwrap();
    let hold = t.server.hold(Route::Api);
    let requests = (0..50).map(|_| t.start_who()).collect::<Vec<_>>();
    hold.arrived(50).await;
    t.server.revoke_user("alice");
    hold.release();
    let question = t.person.asked().await;
    assert!(!t.session.is_logged_in().await.unwrap());
    question.send(Ok(t.tokens_of("alice"))).unwrap();
    for user in join_all(requests).await {
        assert_eq!(user.unwrap().unwrap(), "alice");
    }
    assert_eq!(t.person.surplus().await, 0);
    let counters = t.server.counters();
    assert_eq!((counters.api_requests, counters.token_requests), (100, 1));
}

#[tokio::test]
async fn a_record_that_is_damaged_while_a_person_is_asked_is_replaced() {
    let memory = MemoryStore::new();
    let t = Asking::with(|builder| builder.store(memory.clone()));
    t.log_in_and_end().await;
    let request = t.start_who();
    let question = t.person.asked().await;
    memory.save(&Record::from_bytes(b"damaged")).unwrap();
    question.send(Ok(t.tokens_of("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap().unwrap(), "alice");
}

#[tokio::test]
async fn where_nobody_is_logged_in_requests_wait_for_whoever_logs_in() {
    let t = Asking::new();
    let requests = [t.start_who(), t.start_who()];
    let question = t.person.asked().await;
    question.send(Ok(tokens(&t.server.log_in("bob")))).unwrap();
    for user in join_all(requests).await {
        assert_eq!(user.unwrap().unwrap(), "bob");
    }
    assert_eq!(t.person.surplus().await, 0);
    assert_eq!(t.server.counters().api_requests, 2);
}

#[tokio::test]
async fn a_token_that_has_expired_waits_for_a_person_before_anything_is_sent() {
    let t = Asking::new();
    let expired = t.tokens_of("alice").expires_in(Duration::from_millis(1));
    t.session.log_in(expired).await.unwrap();
    t.server.revoke_user("alice");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let token = tokio::spawn({
        let session = t.session.clone();
        async move { session.access_token().await }
    });
    let question = t.person.asked().await;
    let issued = t.server.log_in("alice");
    question.send(Ok(tokens(&issued).subject("alice"))).unwrap();
    assert_eq!(soon(token).await.unwrap().unwrap().secret(), issued.access_token);
}

#[tokio::test]
async fn requests_of_one_account_never_go_on_as_another() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let question = t.person.asked().await;
    // Made while nobody was logged in, by a program that works for alice.
    let late = t.start_who();
    support::settle().await;
    question.send(Ok(t.tokens_of("bob"))).unwrap();
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert!(found(&soon(late).await.unwrap().unwrap_err()).is_logged_out());
    assert_eq!(t.server.counters().api_requests, 1);
    assert_eq!(t.who().await.unwrap(), "bob");
    assert_eq!(t.person.surplus().await, 0);
}

#[tokio::test]
async fn a_login_of_nobody_knows_whom_serves_later_requests_only() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let question = t.person.asked().await;
    question.send(Ok(tokens(&t.server.log_in("alice")))).unwrap();
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Revoked));
    assert_eq!(t.who().await.unwrap(), "alice");
    // Nor does what began with it go on with another.
    t.server.revoke_user("alice");
    let request = t.start_who();
    t.person.asked().await.send(Ok(t.tokens_of("alice"))).unwrap();
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
    assert_eq!(t.who().await.unwrap(), "alice");
}

#[tokio::test]
async fn the_id_token_of_a_login_says_whose_it_is_and_refreshes_keep_it() {
    let t = Asking::new();
    let with_id_token = |user| support::with_id_token(&t.server.log_in(user), user);
    t.session.log_in(with_id_token("alice")).await.unwrap();
    t.server.expire_access_tokens();
    assert_eq!(t.who().await.unwrap(), "alice");
    assert_eq!(t.session.metrics().refreshes, 1);
    t.server.revoke_user("alice");
    let request = t.start_who();
    t.person.asked().await.send(Ok(with_id_token("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap().unwrap(), "alice");
    t.server.revoke_user("alice");
    let request = t.start_who();
    t.person.asked().await.send(Ok(with_id_token("bob"))).unwrap();
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
}

#[tokio::test]
async fn without_a_refresh_token_a_401_is_a_question_too() {
    let t = Asking::new();
    let bare = |user: &str| {
        let issued = t.server.log_in(user);
        reqwest_reauth::TokenResponse::new(issued.access_token).subject(user)
    };
    t.session.log_in(bare("alice")).await.unwrap();
    t.server.expire_access_tokens();
    let requests = [t.start_who(), t.start_who()];
    t.person.asked().await.send(Ok(bare("alice"))).unwrap();
    for user in join_all(requests).await {
        assert_eq!(user.unwrap().unwrap(), "alice");
    }
    assert_eq!(t.person.surplus().await, 0);
    // Somebody else's login, or none, leaves the 401 to the caller, as it was.
    for answer in [Ok(bare("bob")), Err("not now".into())] {
        t.server.expire_access_tokens();
        let request = tokio::spawn(t.client.get(t.server.api_url("who")).send());
        t.person.asked().await.send(answer).unwrap();
        let response = soon(request).await.unwrap().unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.extensions().get::<LoginRequired>().is_some());
    }
}

#[tokio::test]
async fn where_the_server_comes_to_its_senses_nobody_waits_for_the_person_any_more() {
    let t = Asking::new();
    let mut events = t.session.events();
    t.session.log_in(t.tokens_of("alice")).await.unwrap();
    let waiting = refused_without_a_reason(&t).await;
    let question = t.person.asked().await;
    wait_out(t.session.status().await.unwrap().cooldown()).await;
    assert_eq!(t.who().await.unwrap(), "alice");
    assert_eq!(soon(waiting).await.unwrap().unwrap(), "alice");
    assert_eq!(t.person.surplus().await, 0);
    let counters = t.server.counters();
    assert_eq!((counters.token_requests, counters.refreshes), (4, 1));
    // Who answers all the same has logged in.
    let answer = t.server.log_in("bob");
    question.send(Ok(tokens(&answer).subject("bob"))).unwrap();
    for _ in 0..2 {
        while !matches!(soon(events.next()).await, Some(Event::LoggedIn)) {}
    }
    assert_eq!(t.session.access_token().await.unwrap().secret(), answer.access_token);
}

#[tokio::test]
async fn a_question_that_a_refresh_has_made_idle_keeps_nobody_from_being_asked_again() {
    let t = Asking::new();
    t.session.log_in(t.tokens_of("alice")).await.unwrap();
    let waiting = refused_without_a_reason(&t).await;
    let question = t.person.asked().await;
    wait_out(t.session.status().await.unwrap().cooldown()).await;
    assert_eq!(soon(t.start_who()).await.unwrap().unwrap(), "alice");
    assert_eq!(soon(waiting).await.unwrap().unwrap(), "alice");
    question.send(Err("never mind".into())).unwrap();

    // One that comes before this is heard waits for the same person; the next one does not.
    let mut waiting = refused_without_a_reason(&t).await;
    let question = tokio::select! {
        question = t.person.asked() => question,
        error = &mut waiting => {
            assert!(found(&error.unwrap().unwrap_err()).is_login_required());
            waiting = refused_without_a_reason(&t).await;
            t.person.asked().await
        }
    };
    question.send(Ok(t.tokens_of("alice"))).unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap(), "alice");
}

/// Two requests that were refused a refresh without a reason, and one that waits after the third.
async fn refused_without_a_reason(
    t: &Asking,
) -> tokio::task::JoinHandle<Result<String, reqwest_middleware::Error>> {
    t.server.expire_access_tokens();
    wait_out(t.session.status().await.unwrap().cooldown()).await;
    t.server.on_next(Route::Token, 3, Fault::status(403).body("<html>no</html>"));
    for _ in 0..2 {
        let error = t.who().await.unwrap_err();
        wait_out(found(&error).retry_after()).await;
    }
    t.start_who()
}

#[tokio::test]
async fn one_who_says_no_is_not_asked_again_until_somebody_has_logged_in() {
    let t = Asking::ended().await;
    let requests = [t.start_who(), t.start_who()];
    t.person.asked().await.send(Err("not now".into())).unwrap();
    for error in join_all(requests).await {
        let error = error.unwrap().unwrap_err();
        let error = found(&error);
        assert_eq!(error.logout_reason(), Some(LogoutReason::Revoked));
        let chain = format!("{:#}", anyhow::Error::new(error.clone()));
        assert_eq!(
            chain,
            "logged out: the server revoked the session: the login failed: the program's own way \
             to log in again brought no tokens: not now"
        );
    }
    let error = t.who().await.unwrap_err();
    assert!(format!("{:#}", anyhow::Error::new(error)).ends_with("not now"));
    assert_eq!(t.person.surplus().await, 0);

    t.log_in_and_end().await;
    let request = t.start_who();
    t.person.asked().await.send(Ok(t.tokens_of("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap().unwrap(), "alice");
}

#[tokio::test]
async fn a_login_that_failed_for_now_is_tried_again_by_the_next_request() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let question = t.person.asked().await;
    let nowhere = OAuth2Endpoint::at_issuer("http://127.0.0.1:1", "test");
    let error = BrowserLogin::new(&nowhere).without_browser().run(|_| {}).await.unwrap_err();
    assert!(error.is_transient());
    question.send(Err(anyhow::Error::new(error).context("opening the login").into())).unwrap();
    let error = soon(request).await.unwrap().unwrap_err();
    assert!(found(&error).is_logged_out());
    assert!(!found(&error).is_transient(), "nothing comes of it without the person");
    let chain = format!("{:#}", anyhow::Error::new(error));
    assert!(chain.contains("session: the authorization server could not be asked"), "{chain}");

    let request = t.start_who();
    t.person.asked().await.send(Ok(t.tokens_of("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap().unwrap(), "alice");
}

#[tokio::test]
async fn tokens_of_no_use_are_no_login() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let bad = reqwest_reauth::TokenResponse::new("two words");
    t.person.asked().await.send(Ok(bad)).unwrap();
    let error = soon(request).await.unwrap().unwrap_err();
    assert!(found(&error).is_logged_out());
    let chain = format!("{:#}", anyhow::Error::new(error));
    assert!(chain.ends_with("the access token has characters that no header can carry"), "{chain}");
    assert!(!t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn only_requests_ask() {
    let t = Asking::new();
    let mut events = t.session.events();
    // A refresh in the background finds out that it is over.
    let nearly = t.tokens_of("alice").expires_in(Duration::from_secs(1));
    t.session.log_in(nearly).await.unwrap();
    t.server.revoke_user("alice");
    let _awake = t.session.keep_alive().unwrap();
    while !matches!(soon(events.next()).await, Some(Event::LoggedOut(LogoutReason::Revoked))) {}
    assert!(!t.session.is_logged_in().await.unwrap());
    assert!(!t.session.status().await.unwrap().is_logged_in());
    t.session.drain().await;
    assert_eq!(t.person.surplus().await, 0);
}
