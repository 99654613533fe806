//! Steps that several tests take.

use std::time::Duration;

use super::{Ask, AskingStore, Call, Fixture, Turnstile, builder, client, soon};
use mock_server::{Issued, MockServer, What};
use reqwest_reauth::{Error, Event, Events, MemoryStore, Revocation, Session, TokenResponse};
use tokio::task::JoinHandle;

/// A store whose calls of this kind are parked.
pub fn parking(memory: &MemoryStore, call: Call) -> (AskingStore<Ask>, Turnstile) {
    AskingStore::hanging(memory, move |asked| asked == call)
}

pub fn get(t: &Fixture) -> JoinHandle<reqwest_middleware::Result<reqwest::Response>> {
    tokio::spawn(t.client.get(t.server.api_url("things")).send())
}

pub fn log_out(session: &Session) -> JoinHandle<Result<Revocation, Error>> {
    let session = session.clone();
    tokio::spawn(async move { session.log_out().await })
}

pub fn log_in(session: &Session, tokens: TokenResponse) -> JoinHandle<Result<(), Error>> {
    let session = session.clone();
    tokio::spawn(async move { session.log_in(tokens).await })
}

/// Returns when what was asked of the session before has begun there: its thread takes calls in
/// turn, and this one fails at its first step.
pub async fn first_steps(session: &Session) {
    // Tasks of the test's own thread that were spawned before have asked by then.
    tokio::task::yield_now().await;
    let error = session.log_in(TokenResponse::new("")).await.unwrap_err();
    assert!(error.is_configuration());
}

/// The tokens are in the error, as they were given.
pub async fn given_back(server: &MockServer, error: &Error, issued: &Issued) {
    let session = builder(server).store(MemoryStore::new()).build().unwrap();
    session.log_in(error.tokens().unwrap().clone()).await.unwrap();
    let token = session.access_token().await.unwrap();
    assert_eq!(token.secret(), issued.access_token);
}

/// Who the API says is asking.
pub async fn user(session: &Session, server: &MockServer) -> String {
    let response = soon(client(session).get(server.api_url("who")).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    json(response).await["user"].as_str().unwrap().to_owned()
}

pub async fn json(response: reqwest::Response) -> serde_json::Value {
    response.json().await.unwrap()
}

pub fn history(server: &MockServer, issued: &Issued) -> Vec<What> {
    server.history(issued.family).iter().map(|entry| entry.what).collect()
}

pub fn names(events: &mut Events) -> Vec<&'static str> {
    std::iter::from_fn(|| events.try_next()).map(|event| name(&event)).collect()
}

pub fn name(event: &Event) -> &'static str {
    match event {
        Event::LoggedIn => "logged in",
        Event::Refreshed => "refreshed",
        Event::LoggedOut(_) => "logged out",
        Event::PersistFailed(_) => "not persisted",
        Event::Persisted => "persisted",
        other => panic!("{other:?}"),
    }
}

/// The store is read at most once a second.
pub async fn after_a_second() {
    tokio::time::sleep(Duration::from_millis(1050)).await;
}
