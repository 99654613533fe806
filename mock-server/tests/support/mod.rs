//! A client that is as plain as possible.

#![allow(dead_code, reason = "each test file is a crate, and none uses all of it")]

use std::sync::{Arc, Mutex};

use mock_server::{MockServer, What};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;

pub const FORM: &str = "application/x-www-form-urlencoded";

/// A server, and all that it has logged.
pub fn logged() -> (MockServer, Arc<Mutex<String>>) {
    let lines = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&lines);
    let builder = MockServer::builder().log(move |line| *log.lock().unwrap() += line);
    (builder.start().unwrap(), lines)
}

pub fn form(url: String, body: impl Into<String>) -> RequestBuilder {
    let request = Client::new().post(url).header("content-type", FORM);
    request.body(body.into())
}

pub fn refresh_request(server: &MockServer, token: &str) -> RequestBuilder {
    let body = format!("grant_type=refresh_token&refresh_token={token}");
    form(server.token_url(), body)
}

pub async fn refresh(server: &MockServer, token: &str) -> (u16, Value) {
    read(refresh_request(server, token).send().await.unwrap()).await
}

pub fn call(server: &MockServer, path: &str, token: &str) -> RequestBuilder {
    Client::new().get(server.api_url(path)).bearer_auth(token)
}

pub async fn call_status(server: &MockServer, path: &str, token: &str) -> u16 {
    let answer = call(server, path, token).send().await.unwrap();
    answer.status().as_u16()
}

/// The status and the JSON, or null.
pub async fn read(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name).map(|it| it.to_str().unwrap())
}

pub fn happened(server: &MockServer, family: mock_server::FamilyId) -> Vec<(What, u64)> {
    let history = server.history(family);
    history.iter().map(|it| (it.what, it.generation)).collect()
}
