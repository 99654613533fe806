//! The person in front of a program, who is asked to log in again when the session has ended.

use std::sync::Arc;

use mock_server::MockServer;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_reauth::{MemoryStore, Session, SessionBuilder, TokenResponse};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{builder, client, soon, tokens};

pub type Answer = Result<TokenResponse, Box<dyn std::error::Error + Send + Sync>>;

/// Every question that was put, in order.
pub struct Person(Mutex<mpsc::UnboundedReceiver<oneshot::Sender<Answer>>>);

impl Person {
    /// With what makes a session ask.
    pub fn new() -> (Arc<Self>, impl FnOnce(SessionBuilder) -> SessionBuilder) {
        let (ask, asked) = mpsc::unbounded_channel();
        let hook = move || {
            let (question, answer) = oneshot::channel();
            ask.send(question).unwrap();
            async move { answer.await.unwrap() }
        };
        (Arc::new(Self(Mutex::new(asked))), |builder| builder.login(hook))
    }

    /// Waits for the next question. Its answer may be sent, or [`closed`] waited for.
    ///
    /// [`closed`]: oneshot::Sender::closed
    pub async fn asked(&self) -> oneshot::Sender<Answer> {
        soon(async { self.0.lock().await.recv().await }).await.expect("the session lives")
    }

    /// How many questions there were that no test has waited for.
    pub async fn surplus(&self) -> usize {
        self.0.lock().await.len()
    }
}

/// A program that asks.
pub struct Asking {
    pub server: MockServer,
    pub session: Session,
    pub client: ClientWithMiddleware,
    pub person: Arc<Person>,
}

impl Asking {
    pub fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub fn with(set: impl FnOnce(SessionBuilder) -> SessionBuilder) -> Self {
        let (server, (person, ask)) = (MockServer::start(), Person::new());
        let session = set(ask(builder(&server).store(MemoryStore::new()))).build().unwrap();
        let client = client(&session);
        Self { server, session, client, person }
    }

    /// As alice, whom the server has logged out by now.
    pub async fn ended() -> Self {
        let t = Self::new();
        t.log_in_and_end().await;
        t
    }

    pub async fn log_in_and_end(&self) {
        self.session.log_in(self.tokens_of("alice")).await.unwrap();
        self.server.revoke_user("alice");
    }

    /// Of a new login, with the name as its subject.
    pub fn tokens_of(&self, user: &str) -> TokenResponse {
        tokens(&self.server.log_in(user)).subject(user)
    }

    /// Who the API says is asking.
    pub async fn who(&self) -> Result<String, reqwest_middleware::Error> {
        who(self.client.clone(), self.server.api_url("who")).await
    }

    /// The same, as a task of its own.
    pub fn start_who(&self) -> tokio::task::JoinHandle<Result<String, reqwest_middleware::Error>> {
        tokio::spawn(who(self.client.clone(), self.server.api_url("who")))
    }
}

async fn who(
    client: ClientWithMiddleware,
    url: String,
) -> Result<String, reqwest_middleware::Error> {
    let response = soon(client.get(url).send()).await?;
    assert_eq!(response.status(), 200);
    let answer: serde_json::Value = response.json().await?;
    Ok(answer["user"].as_str().unwrap().to_owned())
}
