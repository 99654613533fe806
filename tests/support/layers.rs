//! A request with a fresh token, through one middleware or another: to a terminal that answers from
//! memory, so that what is left is the middleware's own cost, or to a server.
#![allow(dead_code, reason = "the test uses its own part of it")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Extensions, StatusCode};
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};
use reqwest_reauth::{MemoryStore, OAuth2Endpoint, Session, TokenResponse};
use tokio::sync::Mutex;

/// What is around the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    None,
    Nothing,
    Header,
    HeaderWithClone,
    /// As it is written by hand.
    Mutex,
    Reauth,
}

pub const LAYERS: [(Layer, &str); 6] = [
    (Layer::None, "no middleware"),
    (Layer::Nothing, "does nothing"),
    (Layer::Header, "a constant header"),
    (Layer::HeaderWithClone, "a constant header, with try_clone"),
    (Layer::Mutex, "a tokio::sync::Mutex, by hand"),
    (Layer::Reauth, "this crate"),
];

/// A client with that layer, ready to send: what is done once has been done.
pub struct Subject {
    client: ClientWithMiddleware,
    url: Url,
    /// Held, as a program does.
    _session: Option<Session>,
}

impl Subject {
    /// To the terminal.
    pub async fn new(layer: Layer) -> Self {
        let url = "https://api.example.com/things".parse().expect("a URL");
        Self::to(url, layer, |client| client.with(Terminal)).await
    }

    /// To a server there, which takes any token.
    pub async fn at(url: Url, layer: Layer) -> Self {
        Self::to(url, layer, |client| client).await
    }

    async fn to(url: Url, layer: Layer, end: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let mut held = None;
        let bare = ClientBuilder::new(reqwest::Client::new());
        let client = match layer {
            Layer::None => bare,
            Layer::Nothing => bare.with(Nothing),
            Layer::Header => bare.with(Header(header())),
            Layer::HeaderWithClone => bare.with(HeaderWithClone(header())),
            Layer::Mutex => bare.with(MutexByHand::new()),
            Layer::Reauth => {
                let session = session(&url).await;
                bare.with(held.insert(session).middleware())
            }
        };
        let client = end(client).build();
        let subject = Self { client, url, _session: held };
        // The first one may make ready what all others find.
        subject.send(1).await;
        subject
    }

    pub async fn send(&self, count: usize) {
        for _ in 0..count {
            let answer = self.client.get(self.url.clone()).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
        }
    }
}

async fn session(url: &Url) -> Session {
    let endpoint = OAuth2Endpoint::new("https://id.example.com/token", "client");
    let builder = Session::builder("overhead", endpoint).store(MemoryStore::new());
    let origin = url.origin().ascii_serialization();
    let session = builder.origin(origin).build().expect("a session");
    let tokens = TokenResponse::new(TOKEN).refresh_token("refresh").expires_in(LIFETIME);
    session.log_in(tokens).await.expect("logged in");
    session
}

fn header() -> HeaderValue {
    let mut header = HeaderValue::from_str(&format!("Bearer {TOKEN}")).expect("a header");
    header.set_sensitive(true);
    header
}

struct Terminal;

#[async_trait::async_trait]
impl Middleware for Terminal {
    async fn handle(
        &self,
        request: Request,
        _extensions: &mut Extensions,
        _next: Next<'_>,
    ) -> Result<Response> {
        let answer = http::Response::builder().url(request.url().clone()).body("");
        Ok(answer.expect("a response").into())
    }
}

struct Nothing;

#[async_trait::async_trait]
impl Middleware for Nothing {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        next.run(request, extensions).await
    }
}

struct Header(HeaderValue);

#[async_trait::async_trait]
impl Middleware for Header {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        next.run(request, extensions).await
    }
}

/// Could send it again after a 401, with the same header.
struct HeaderWithClone(HeaderValue);

#[async_trait::async_trait]
impl Middleware for HeaderWithClone {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let spare = request.try_clone();
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        let response = next.clone().run(request, extensions).await?;
        match spare {
            Some(mut again) if response.status() == StatusCode::UNAUTHORIZED => {
                again.headers_mut().insert(AUTHORIZATION, self.0.clone());
                next.run(again, extensions).await
            }
            _ => Ok(response),
        }
    }
}

/// A token behind a lock, formatted for each request, and looked at by the clock.
struct MutexByHand(Arc<Mutex<(String, Instant)>>);

impl MutexByHand {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((TOKEN.to_owned(), Instant::now() + LIFETIME))))
    }

    async fn token(&self) -> String {
        let mut state = self.0.lock().await;
        if state.1 <= Instant::now() {
            // Here it would refresh, with everybody waiting for the lock.
            state.1 = Instant::now() + LIFETIME;
        }
        state.0.clone()
    }
}

#[async_trait::async_trait]
impl Middleware for MutexByHand {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let spare = request.try_clone();
        let header =
            |token: String| HeaderValue::from_str(&format!("Bearer {token}")).expect("a header");
        request.headers_mut().insert(AUTHORIZATION, header(self.token().await));
        let response = next.clone().run(request, extensions).await?;
        match spare {
            Some(mut again) if response.status() == StatusCode::UNAUTHORIZED => {
                again.headers_mut().insert(AUTHORIZATION, header(self.token().await));
                next.run(again, extensions).await
            }
            _ => Ok(response),
        }
    }
}

/// As long as opaque tokens are.
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Longer than any measurement.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
