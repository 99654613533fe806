//! A program of the user's, as a process of its own: it is at work, has its connections, sends its
//! requests when it is told to, and says what became of them.

use std::env;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_reauth::{FileStore, OAuth2Endpoint, Session};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;

use crate::by_hand::{MutexByHand, Tokens};
use crate::steady::{self, Latencies};

/// What is around its client.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Peer {
    /// Nothing: whoever waits for the new token is told of it from outside, and sends again.
    Bare,
    Mutex,
    Reauth,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Deed {
    /// So many requests at the same time.
    AtOnce(usize),
    /// One after the other, to what refuses every token.
    Refused(usize),
    /// One that is dropped while it waits for the refresh, and so many that go on.
    DropFirst(usize),
    /// Requests at a steady rate, to one server whose tokens end and one whose tokens don't.
    Steady,
}

impl Deed {
    /// How many connections the program has before it begins: one for each request, whatever the
    /// peer. One that never sends two requests at once would have opened fewer.
    pub fn connections(self) -> usize {
        match self {
            Self::AtOnce(count) => count,
            Self::DropFirst(count) => count + 1,
            Self::Refused(_) | Self::Steady => 0,
        }
    }
}

/// What it is set up with.
#[derive(Clone, Deserialize, Serialize)]
pub struct Program {
    pub peer: Peer,
    pub deed: Deed,
    pub login: Login,
    /// That of the server whose tokens don't end.
    pub lasting: Option<Login>,
}

/// A login at a server, and where its tokens are kept.
#[derive(Clone, Deserialize, Serialize)]
pub struct Login {
    pub origin: String,
    pub token_url: String,
    pub tokens: Tokens,
    pub file: PathBuf,
}

/// What became of its requests.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    pub ok: usize,
    pub failed: usize,
    /// How long the dropped one was held.
    pub freed: Option<Duration>,
    /// Where tokens end, and where they don't.
    pub latencies: Option<[Latencies; 2]>,
}

/// Runs it, if this process is one.
pub fn run() -> bool {
    let Ok(program) = env::var(PROGRAM) else {
        return false;
    };
    let program: Program = serde_json::from_str(&program).expect("as it was written");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(program.work());
    true
}

impl Program {
    async fn work(&self) {
        let (client, session) = self.client(&self.login).await;
        let steady = match &self.lasting {
            Some(login) => Some(self.client(login).await),
            None => None,
        };
        let get = |path: &str| client.get(format!("{}/api/{path}", self.login.origin));
        self.warm_up(&client).await;
        say(&READY);
        heard();
        let outcome = match (self.deed, steady) {
            (Deed::AtOnce(count), _) if self.peer == Peer::Bare => {
                self.in_two_waves(&client, count).await
            }
            (Deed::AtOnce(count), _) => tally((0..count).map(|_| spawn(get("things")))).await,
            (Deed::Refused(count), _) => {
                let mut outcome = Outcome::default();
                for _ in 0..count {
                    outcome.count(is_ok(get("refused").send().await));
                }
                outcome
            }
            (Deed::DropFirst(count), _) => {
                let first = spawn(get("things"));
                // When its refresh is under way.
                heard();
                let others: Vec<_> = (0..count).map(|_| spawn(get("things"))).collect();
                tokio::time::sleep(Duration::from_millis(10)).await;
                let begun = Instant::now();
                first.abort();
                // It was cancelled, as it should.
                let _ = first.await;
                let freed = Some(begun.elapsed());
                Outcome { freed, ..tally(others).await }
            }
            (Deed::Steady, Some((lasting, _session))) => {
                let urls = [&self.login, self.lasting.as_ref().unwrap_or(&self.login)]
                    .map(|login| format!("{}/api/things", login.origin));
                let (outcome, latencies) = steady::load([client, lasting], urls).await;
                Outcome { latencies: Some(latencies), ..outcome }
            }
            (Deed::Steady, None) => unreachable!("it is given both"),
        };
        say(&outcome);
        if let Some(session) = session {
            session.drain().await;
        }
    }

    async fn client(&self, login: &Login) -> (ClientWithMiddleware, Option<Session>) {
        let client = ClientBuilder::new(reqwest::Client::new());
        match self.peer {
            Peer::Bare => (client.build(), None),
            Peer::Mutex => {
                let layer = MutexByHand::new(
                    login.token_url.clone(),
                    login.file.with_extension("by-hand"),
                    login.tokens.clone(),
                );
                (client.with(layer).build(), None)
            }
            Peer::Reauth => {
                let session = login.session();
                assert!(session.is_logged_in().await.expect("a file"), "the file has its login");
                (client.with(session.middleware()).build(), Some(session))
            }
        }
    }

    /// A program at work: it has its connections, one for each request, since the server lets all
    /// of these wait for the last.
    async fn warm_up(&self, client: &ClientWithMiddleware) {
        let count = self.deed.connections();
        let url = format!("{}/api/things", self.login.origin);
        let get = || match self.peer {
            Peer::Bare => client.get(&url).bearer_auth(&self.login.tokens.access),
            _ => client.get(&url),
        };
        let outcome = tally((0..count).map(|_| spawn(get()))).await;
        assert_eq!(outcome.failed, 0);
    }

    /// Everybody is refused, the token is refreshed elsewhere, everybody sends again.
    async fn in_two_waves(&self, client: &ClientWithMiddleware, count: usize) -> Outcome {
        let url = format!("{}/api/things", self.login.origin);
        let wave = |token: String| {
            let get = client.get(&url).bearer_auth(token);
            (0..count).map(move |_| spawn(get.try_clone().expect("no body")))
        };
        let refused = tally(wave(self.login.tokens.access.clone())).await;
        say(&refused);
        tally(wave(heard())).await
    }
}

impl Login {
    pub fn session(&self) -> Session {
        let endpoint = OAuth2Endpoint::new(&self.token_url, "storm");
        Session::builder("storm", endpoint)
            .origin(&self.origin)
            .store(FileStore::new(&self.file))
            .build()
            .expect("a session")
    }
}

impl Outcome {
    pub fn count(&mut self, is_ok: bool) {
        *if is_ok { &mut self.ok } else { &mut self.failed } += 1;
    }
}

type Answer = reqwest_middleware::Result<reqwest::Response>;

fn spawn(request: reqwest_middleware::RequestBuilder) -> JoinHandle<Answer> {
    tokio::spawn(request.send())
}

async fn tally(requests: impl IntoIterator<Item = JoinHandle<Answer>>) -> Outcome {
    let requests: Vec<_> = requests.into_iter().collect();
    let mut outcome = Outcome::default();
    for request in requests {
        outcome.count(is_ok(request.await.expect("no panic")));
    }
    outcome
}

fn is_ok(answer: Answer) -> bool {
    answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

fn say(what: &impl Serialize) {
    let mut output = io::stdout().lock();
    let line = serde_json::to_string(what).expect("JSON");
    writeln!(output, "{line}").and_then(|()| output.flush()).expect("the other end listens");
}

fn heard() -> String {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).expect("the other end speaks");
    line.trim_end().to_owned()
}

/// The variable that makes a process one.
pub const PROGRAM: &str = "REAUTH_STORM";
pub const READY: &str = "ready";
