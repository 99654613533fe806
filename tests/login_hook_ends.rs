//! A person is asked to log in again, and something else comes first.

mod support;

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mock_server::{Fault, MockServer, Route, What};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_reauth::{
    Error, LoginRequired, LogoutReason, MemoryStore, Record, TokenResponse, TokenStore,
};
use support::person::{Asking, Person};
use support::steps::{after_a_second, history, log_in, log_out, user};
use support::vault::User;
use support::{Call, builder, client, found, soon, tokens, wait_out};

#[tokio::test]
async fn a_logout_ends_the_question_and_nobody_is_asked_after_it() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let mut question = t.person.asked().await;
    soon(t.session.log_out()).await.unwrap();
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
    soon(question.closed()).await;
    assert!(found(&t.who().await.unwrap_err()).is_logged_out());
    assert_eq!(t.person.surplus().await, 0);
    assert!(!t.session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn an_answer_that_comes_with_a_logout_is_no_login() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let question = t.person.asked().await;
    let logout = log_out(&t.session);
    // Too late or just before it: in either case the logout is the last word.
    let _ = question.send(Ok(t.tokens_of("alice")));
    soon(logout).await.unwrap().unwrap();
    let _ = soon(request).await.unwrap();
    assert!(!t.session.is_logged_in().await.unwrap());
    assert!(found(&t.who().await.unwrap_err()).is_logged_out());
    assert_eq!(t.person.surplus().await, 0);
}

#[tokio::test]
async fn what_began_before_a_logout_does_not_go_on_after_the_next_login() {
    let t = Asking::new();
    t.session.log_in(t.tokens_of("alice")).await.unwrap();
    let hold = t.server.hold(Route::Api);
    let request = t.start_who();
    hold.arrived(1).await;
    soon(t.session.log_out()).await.unwrap();
    t.session.log_in(t.tokens_of("alice")).await.unwrap();
    t.server.revoke_user("alice");
    hold.release();
    let error = soon(request).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::Requested));
    // The second one ends by itself; what began in the first has no part in it.
    let request = t.start_who();
    t.person.asked().await.send(Ok(t.tokens_of("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap().unwrap(), "alice");
    assert_eq!(t.person.surplus().await, 0);
}

#[tokio::test]
async fn a_login_by_the_program_itself_ends_the_question() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let mut question = t.person.asked().await;
    t.session.log_in(t.tokens_of("alice")).await.unwrap();
    soon(question.closed()).await;
    assert_eq!(soon(request).await.unwrap().unwrap(), "alice");
    assert_eq!(t.person.surplus().await, 0);
}

#[tokio::test]
async fn a_request_waits_no_longer_than_its_own_time_out_and_the_question_stands() {
    let t = Asking::ended().await;
    let url = t.server.api_url("who");
    let request = t.client.get(&url).timeout(Duration::from_millis(500)).send();
    let request = tokio::spawn(request);
    let question = t.person.asked().await;
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_timeout());
    let next = t.start_who();
    support::settle().await;
    question.send(Ok(t.tokens_of("alice"))).unwrap();
    assert_eq!(soon(next).await.unwrap().unwrap(), "alice");
    assert_eq!(t.person.surplus().await, 0);
}

#[tokio::test]
async fn a_person_who_does_not_come_is_waited_for_so_long_and_not_asked_again() {
    let t = Asking::with(|builder| builder.login_wait(Duration::from_millis(100)));
    t.log_in_and_end().await;
    let request = t.start_who();
    let mut question = t.person.asked().await;
    let error = soon(request).await.unwrap().unwrap_err();
    assert!(found(&error).is_logged_out() && found(&error).is_timeout());
    soon(question.closed()).await;
    assert!(found(&t.who().await.unwrap_err()).is_logged_out());
    assert_eq!(t.person.surplus().await, 0);
}

#[tokio::test]
async fn the_end_of_the_program_does_not_wait_for_a_person() {
    let t = Asking::ended().await;
    let request = t.start_who();
    let mut question = t.person.asked().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    let Asking { session, client, .. } = t;
    drop((session, client));
    soon(question.closed()).await;
}

#[tokio::test]
async fn a_hook_that_panics_is_told_and_not_called_again() {
    let server = MockServer::start();
    let calls = Arc::new(Mutex::new(0));
    let hook = {
        let calls = Arc::clone(&calls);
        move || {
            *calls.lock().unwrap() += 1;
            async { panic!("the hook's own") as Result<TokenResponse, Error> }
        }
    };
    let session = builder(&server).store(MemoryStore::new()).login(hook).build().unwrap();
    for _ in 0..2 {
        let error = soon(session.access_token()).await.unwrap_err();
        assert!(error.is_logged_out());
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "the login hook panicked: see its message");
    }
    assert_eq!(*calls.lock().unwrap(), 1);
    session.log_in(tokens(&server.log_in("bob"))).await.unwrap();
    assert_eq!(user(&session, &server).await, "bob");
}

#[tokio::test]
async fn a_hook_may_use_the_session_and_its_own_requests_do_not_wait_for_it() {
    let server = MockServer::start();
    let own = Arc::new(Mutex::new(None::<ClientWithMiddleware>));
    let (url, next) = (server.api_url("who"), tokens(&server.log_in("alice")));
    let hook = {
        let own = Arc::clone(&own);
        move || {
            let client = own.lock().unwrap().clone().unwrap();
            let (url, next) = (url.clone(), next.clone());
            async move {
                let error = client.get(url).send().await.unwrap_err();
                assert!(Error::find(&error).is_some_and(Error::is_logged_out));
                Ok::<_, Error>(next)
            }
        }
    };
    let session = builder(&server).store(MemoryStore::new()).login(hook).build().unwrap();
    *own.lock().unwrap() = Some(client(&session));
    assert_eq!(user(&session, &server).await, "alice");
    assert_eq!(server.counters().api_requests, 1);
    // Or the session would own itself.
    own.lock().unwrap().take();
}

// Other programs.

#[tokio::test]
async fn a_login_in_another_program_ends_the_question_and_its_tokens_are_used() {
    let t = User::new();
    let (session, person) = asking(&t).await;
    let request = who(&t, &session);
    let mut question = person.asked().await;
    let other = t.program();
    other.log_in(tokens(&t.server.log_in("alice")).subject("alice")).await.unwrap();
    soon(question.closed()).await;
    assert_eq!(soon(request).await.unwrap(), "alice");
    assert_eq!(person.surplus().await, 0);
}

#[tokio::test]
async fn of_two_programs_that_ask_the_first_answer_counts_for_both() {
    let t = User::new();
    let (session, person) = asking(&t).await;
    let request = who(&t, &session);
    let question = person.asked().await;
    let other = t.program();
    let [first, second] = [t.server.log_in("alice"), t.server.log_in("alice")];
    // It has the lock, and is about to save.
    let save = t.vault.park_next(Call::Save);
    let login = log_in(&other, tokens(&first).subject("alice"));
    save.arrived().await;
    question.send(Ok(tokens(&second).subject("alice"))).unwrap();
    save.open();
    soon(login).await.unwrap().unwrap();
    assert_eq!(soon(request).await.unwrap(), "alice");
    // Nobody has the second one's tokens.
    soon(session.drain()).await;
    assert!(t.server.family_alive(first.family) && !t.server.family_alive(second.family));
    assert!(t.vault.text().unwrap().contains(&first.refresh_token));
    assert_eq!(session.access_token().await.unwrap().secret(), first.access_token);
    assert_eq!(other.access_token().await.unwrap().secret(), first.access_token);
}

#[tokio::test]
async fn an_entry_that_is_lost_while_a_person_is_asked_is_replaced() {
    let t = User::new();
    let (person, ask) = Person::new();
    let session = ask(vault_builder(&t)).build().unwrap();
    let issued = t.server.log_in("alice");
    session.log_in(TokenResponse::new(&issued.access_token).subject("alice")).await.unwrap();
    t.server.expire_access_tokens();
    let request = who(&t, &session);
    let question = person.asked().await;
    t.vault.memory.clear().unwrap();
    let next = t.server.log_in("alice");
    question.send(Ok(tokens(&next).subject("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap(), "alice");
    assert!(t.vault.text().unwrap().contains(&next.refresh_token));
    assert_eq!(t.server.counters().revocations, 0);
}

#[tokio::test]
async fn a_refresh_in_another_program_is_as_good_as_an_answer() {
    let t = User::new();
    let (session, person) = asking_of(&t).await;
    t.server.expire_access_tokens();
    t.server.on_next(Route::Token, 3, Fault::status(403));
    for _ in 0..2 {
        let error = t.get(&session).await.unwrap_err();
        tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    }
    let request = who(&t, &session);
    let _question = person.asked().await;
    let other = t.program();
    wait_out(other.status().await.unwrap().cooldown()).await;
    assert_eq!(t.get(&other).await.unwrap(), 200);
    assert_eq!(soon(request).await.unwrap(), "alice");
    assert_eq!(person.surplus().await, 0);
    assert_eq!(t.server.counters().refreshes, 1);
}

#[tokio::test]
async fn after_a_logout_in_another_program_nobody_is_asked() {
    let t = User::new();
    let (session, person) = asking_of(&t).await;
    let other = t.program();
    other.log_out().await.unwrap();
    let error = t.get(&session).await.unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::LoggedOutElsewhere));
    assert!(found(&t.get(&session).await.unwrap_err()).is_logged_out());
    assert_eq!(person.surplus().await, 0);
    // A new start is another matter: there is nothing that anybody has ended in it.
    let (next, ask) = Person::new();
    let next_session = ask(vault_builder(&t)).build().unwrap();
    let request = who(&t, &next_session);
    next.asked().await.send(Ok(tokens(&t.server.log_in("bob")))).unwrap();
    assert_eq!(soon(request).await.unwrap(), "bob");
}

#[tokio::test]
async fn a_logout_in_another_program_ends_a_question_that_is_open() {
    let t = User::new();
    let (person, ask) = Person::new();
    let session = ask(vault_builder(&t)).build().unwrap();
    // Nothing to refresh with: there is a login, and still somebody is asked.
    let bare = TokenResponse::new(t.server.log_in("alice").access_token).subject("alice");
    session.log_in(bare).await.unwrap();
    t.server.expire_access_tokens();
    let get = || tokio::spawn(client(&session).get(t.server.api_url("who")).send());
    let first = get();
    let mut question = person.asked().await;
    t.program().log_out().await.unwrap();
    // The store is read again after a second: by the next 401, if the question is not quicker.
    after_a_second().await;
    let second = get();
    soon(question.closed()).await;
    let response = soon(first).await.unwrap().unwrap();
    assert!(response.extensions().get::<LoginRequired>().is_some());
    let error = soon(second).await.unwrap().unwrap_err();
    assert_eq!(found(&error).logout_reason(), Some(LogoutReason::LoggedOutElsewhere));
    assert_eq!(person.surplus().await, 0);
}

#[tokio::test]
async fn a_login_that_the_store_does_not_take_is_told_and_asked_for_again() {
    let t = User::new();
    let (session, person) = asking(&t).await;
    let request = tokio::spawn(client(&session).get(t.server.api_url("who")).send());
    let question = person.asked().await;
    t.vault.fail(&[Call::Save]);
    let unstored = t.server.log_in("alice");
    question.send(Ok(tokens(&unstored).subject("alice"))).unwrap();
    let error = soon(request).await.unwrap().unwrap_err();
    assert!(found(&error).is_logged_out());
    let chain = format!("{:#}", anyhow::Error::new(error));
    assert!(chain.ends_with("the test has locked it"), "{chain}");
    // Nobody has its tokens: they are no good any more.
    soon(session.drain()).await;
    assert_eq!(history(&t.server, &unstored), [What::Login, What::Revoked]);
    t.vault.fail(&[]);
    let request = who(&t, &session);
    let answer = tokens(&t.server.log_in("alice")).subject("alice");
    person.asked().await.send(Ok(answer)).unwrap();
    assert_eq!(soon(request).await.unwrap(), "alice");
}

#[tokio::test]
async fn a_login_whose_save_hangs_is_revoked_once_that_has_landed_and_is_undone() {
    let t = User::new();
    let (session, person) = asking(&t).await;
    let request = tokio::spawn(client(&session).get(t.server.api_url("who")).send());
    let question = person.asked().await;
    let save = t.vault.park_next(Call::Save);
    let unstored = t.server.log_in("alice");
    question.send(Ok(tokens(&unstored).subject("alice"))).unwrap();
    assert!(found(&soon(request).await.unwrap().unwrap_err()).is_logged_out());
    // While it may still be stored, another start may use it.
    assert_eq!(history(&t.server, &unstored), [What::Login]);
    save.open();
    soon(session.drain()).await;
    assert_eq!(history(&t.server, &unstored), [What::Login, What::Revoked]);
    assert!(!t.vault.text().is_some_and(|text| text.contains(&unstored.refresh_token)));
}

#[tokio::test]
async fn a_login_that_could_not_be_stored_does_not_make_a_lost_entry_a_logout() {
    let t = User::new();
    let (session, person) = asking_of(&t).await;
    let place = t.place("trace");
    let logged_in = std::fs::read(&place).unwrap();
    t.server.revoke_user("alice");
    let request = tokio::spawn(client(&session).get(t.server.api_url("who")).send());
    let question = person.asked().await;
    assert_eq!(t.vault.text(), None);
    // As if another program had logged in, and the entry were gone already.
    std::fs::write(&place, logged_in).unwrap();
    let unstored = t.server.log_in("alice");
    question.send(Ok(tokens(&unstored).subject("alice"))).unwrap();
    let error = soon(request).await.unwrap().unwrap_err();
    let chain = format!("{:#}", anyhow::Error::new(error));
    assert!(chain.contains("though nobody has logged out"), "{chain}");
    soon(session.drain()).await;
    assert_eq!(history(&t.server, &unstored), [What::Login, What::Revoked]);
    assert!(t.program().is_logged_in().await.unwrap_err().is_store());
}

#[tokio::test]
async fn where_the_store_cannot_be_read_just_then_an_answer_replaces_no_other_login() {
    let t = User::new();
    let (session, person) = asking(&t).await;
    let request = tokio::spawn(client(&session).get(t.server.api_url("who")).send());
    let question = person.asked().await;
    let other = t.program();
    let [first, second] = [t.server.log_in("alice"), t.server.log_in("alice")];
    // It has the lock, and is about to save.
    let save = t.vault.park_next(Call::Save);
    let login = log_in(&other, tokens(&first).subject("alice"));
    save.arrived().await;
    question.send(Ok(tokens(&second).subject("alice"))).unwrap();
    t.vault.fail_next(Call::Load);
    save.open();
    soon(login).await.unwrap().unwrap();
    // The look before its tokens are stored has failed; they are asked for again.
    let error = soon(request).await.unwrap().unwrap_err();
    let chain = format!("{:#}", anyhow::Error::new(error));
    assert!(chain.ends_with("the test has locked it"), "{chain}");
    soon(session.drain()).await;
    assert!(t.vault.text().unwrap().contains(&first.refresh_token));
    assert_eq!(soon(who(&t, &session)).await.unwrap(), "alice");
    assert_eq!(session.access_token().await.unwrap().secret(), first.access_token);
}

#[tokio::test]
async fn an_answer_replaces_what_cannot_be_read_for_good() {
    let t = User::new();
    let (session, person) = asking(&t).await;
    let request = who(&t, &session);
    let question = person.asked().await;
    t.vault.memory.save(&Record::from_bytes(b"{")).unwrap();
    let answer = t.server.log_in("alice");
    question.send(Ok(tokens(&answer).subject("alice"))).unwrap();
    assert_eq!(soon(request).await.unwrap(), "alice");
    assert!(t.vault.text().unwrap().contains(&answer.refresh_token));
}

fn vault_builder(t: &User) -> reqwest_reauth::SessionBuilder {
    builder(&t.server).store(t.vault.clone()).state_dir(t.state.path().join("state"))
}

/// A program of alice, who is logged in.
async fn asking_of(t: &User) -> (reqwest_reauth::Session, Arc<Person>) {
    let (person, ask) = Person::new();
    let session = ask(vault_builder(t)).build().unwrap();
    session.log_in(tokens(&t.server.log_in("alice")).subject("alice")).await.unwrap();
    (session, person)
}

/// A program of alice, whom the server has logged out by now.
async fn asking(t: &User) -> (reqwest_reauth::Session, Arc<Person>) {
    let asking = asking_of(t).await;
    t.server.revoke_user("alice");
    asking
}

fn who(t: &User, session: &reqwest_reauth::Session) -> tokio::task::JoinHandle<String> {
    let request = client(session).get(t.server.api_url("who")).send();
    tokio::spawn(async move {
        let answer: serde_json::Value = request.await.unwrap().json().await.unwrap();
        answer["user"].as_str().unwrap().to_owned()
    })
}
