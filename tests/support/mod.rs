//! What the tests share: a session at a mock server, and requests through it.
#![allow(dead_code, reason = "each test file uses its own part of it")]

pub mod person;
pub mod programs;
pub mod steps;
pub mod vault;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use http::Extensions;
use mock_server::{Issued, MockServer, Recorded};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_reauth::{
    Error, LogoutReason, MemoryStore, OAuth2Endpoint, Record, Session, SessionBuilder, Shared,
    StoreError, TokenResponse, TokenStore,
};

/// A user who is logged in at a mock server, in one program.
pub struct Fixture {
    pub server: MockServer,
    pub session: Session,
    pub client: ClientWithMiddleware,
    pub store: MemoryStore,
    pub issued: Issued,
    pub logouts: Logouts,
}

/// The reasons that the `on_logout` hook was called with.
#[derive(Clone, Default)]
pub struct Logouts(Arc<Mutex<Vec<LogoutReason>>>);

impl Logouts {
    pub fn all(&self) -> Vec<LogoutReason> {
        self.0.lock().unwrap().clone()
    }

    pub fn hook(&self) -> impl Fn(LogoutReason) + Send + Sync + use<> {
        let reasons = Arc::clone(&self.0);
        move |why| reasons.lock().unwrap().push(why)
    }
}

/// Tokens that say whose they are.
pub fn with_id_token(issued: &Issued, user: &str) -> TokenResponse {
    let mut json: serde_json::Value = serde_json::from_str(&issued.json()).unwrap();
    json["id_token"] = id_token(user).into();
    TokenResponse::from_json(json.to_string().as_bytes()).unwrap()
}

pub fn id_token(user: &str) -> String {
    let claims = format!(r#"{{"iss":"https://id.example.com","sub":"{user}"}}"#);
    let claims = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims);
    format!("e30.{claims}.c2ln")
}

impl Fixture {
    pub async fn new() -> Self {
        Self::at(MockServer::start()).await
    }

    pub async fn at(server: MockServer) -> Self {
        Self::with(server, |builder| builder).await
    }

    /// With settings of the session that `set` makes.
    pub async fn with(
        server: MockServer,
        set: impl FnOnce(SessionBuilder) -> SessionBuilder,
    ) -> Self {
        let (store, logouts) = (MemoryStore::new(), Logouts::default());
        let builder = builder(&server).store(store.clone()).on_logout(logouts.hook());
        let session = set(builder).build().unwrap();
        let issued = server.log_in("alice");
        session.log_in(tokens(&issued)).await.unwrap();
        let client = client(&session);
        Self { server, session, client, store, issued, logouts }
    }

    /// The status of a GET of an API path, such as `things`.
    pub async fn get(&self, path: &str) -> Result<u16, reqwest_middleware::Error> {
        self.send(path).await.map(|response| response.status().as_u16())
    }

    pub async fn send(&self, path: &str) -> Result<Response, reqwest_middleware::Error> {
        self.client.get(self.server.api_url(path)).send().await
    }

    /// `count` GETs at the same time.
    pub async fn get_all(&self, count: usize) -> Vec<Result<u16, reqwest_middleware::Error>> {
        join_all((0..count).map(|n| {
            let request = self.client.get(self.server.api_url(&format!("things/{n}")));
            async move { request.send().await.map(|response| response.status().as_u16()) }
        }))
        .await
    }
}

pub fn builder(server: &MockServer) -> SessionBuilder {
    Session::builder("test", endpoint(server)).origin(server.origin())
}

pub fn endpoint(server: &MockServer) -> OAuth2Endpoint {
    OAuth2Endpoint::new(server.token_url(), "test").revocation_url(server.revocation_url())
}

pub fn client(session: &Session) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(session.middleware()).build()
}

pub fn tokens(issued: &Issued) -> TokenResponse {
    TokenResponse::from_json(issued.json().as_bytes()).unwrap()
}

/// Tokens whose lifetime is known to no one: only a 401 leads to a refresh.
pub fn tokens_without_expiry(issued: &Issued) -> TokenResponse {
    TokenResponse::new(&issued.access_token).refresh_token(&issued.refresh_token)
}

/// Runs all at the same time, each as a task of its own.
pub async fn join_all<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

pub fn found(error: &reqwest_middleware::Error) -> &Error {
    Error::find(error).unwrap_or_else(|| panic!("not one of ours: {error:?}"))
}

/// Fails loudly instead of hanging the test run. Not a way to wait.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("ends within 20 s")
}

impl Fixture {
    /// With tokens that have ended by the clock, though the server would still take them.
    pub async fn expired(server: MockServer) -> Self {
        let t = Self::at(server).await;
        let ended = tokens_without_expiry(&t.issued).expires_in(Duration::from_millis(1));
        t.session.log_in(ended).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        t
    }

    /// The bytes in the store.
    pub fn record(&self) -> Option<Vec<u8>> {
        let record = TokenStore::load(&self.store).unwrap();
        record.map(|record| record.as_bytes().to_vec())
    }
}

/// What the store holds.
pub fn text(memory: &MemoryStore) -> Option<String> {
    let record = memory.load().unwrap();
    record.map(|record| String::from_utf8(record.as_bytes().to_vec()).unwrap())
}

/// The access tokens that came with API requests, in order of arrival.
pub fn access_tokens_sent(server: &MockServer) -> Vec<String> {
    let sent = server.requests(mock_server::Route::Api);
    let tokens = sent.iter().map(|request| request.header("authorization").unwrap_or_default());
    tokens.map(|value| value.trim_start_matches("Bearer ").to_owned()).collect()
}

/// The refresh tokens that came to the token endpoint, in order of arrival.
pub fn refresh_tokens_sent(server: &MockServer) -> Vec<String> {
    let sent = server.requests(mock_server::Route::Token);
    let token = |body: &[u8]| {
        let mut fields = form_urlencoded::parse(body);
        let token = fields.find(|(name, _)| name == "refresh_token");
        token.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    sent.iter().map(|request| token(&request.body)).collect()
}

pub fn statuses(results: Vec<Result<u16, reqwest_middleware::Error>>) -> Vec<u16> {
    results.into_iter().map(Result::unwrap).collect()
}

/// Lets every task of a current-thread runtime go on until it waits for somebody else.
pub async fn settle() {
    // One turn of the scheduler polls 61 tasks.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A store in memory that asks the test before each call, which may park it or make it fail.
pub struct AskingStore<F> {
    pub memory: MemoryStore,
    pub ask: F,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Load,
    Save,
    Clear,
}

pub type Ask = Box<dyn Fn(Call) -> Result<(), StoreError> + Send + Sync>;

impl AskingStore<Ask> {
    /// One whose calls hang, where it is one that `hangs`, until the turnstile is opened.
    pub fn hanging(
        memory: &MemoryStore,
        hangs: impl Fn(Call) -> bool + Send + Sync + 'static,
    ) -> (Self, Turnstile) {
        let turnstile = Turnstile::default();
        let passed = turnstile.clone();
        let ask = move |call| {
            if hangs(call) {
                passed.pass();
            }
            Ok(())
        };
        (Self { memory: memory.clone(), ask: Box::new(ask) }, turnstile)
    }

    pub fn never_cleared(memory: &MemoryStore) -> Self {
        let ask = |call| match call {
            Call::Clear => Err(StoreError::unavailable("it is read-only today")),
            Call::Load | Call::Save => Ok(()),
        };
        Self { memory: memory.clone(), ask: Box::new(ask) }
    }
}

impl<F> TokenStore for AskingStore<F>
where
    F: Fn(Call) -> Result<(), StoreError> + Send + Sync + 'static,
{
    fn describe(&self) -> String {
        "the store of the test".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        // Read first: what was parked comes back late, and old.
        let record = self.memory.load();
        (self.ask)(Call::Load)?;
        record
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        (self.ask)(Call::Save)?;
        self.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        (self.ask)(Call::Clear)?;
        self.memory.clear()
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}

/// What an error says, with its causes.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(cause) = link {
        text += &format!(": {cause}");
        link = cause.source();
    }
    text
}

/// The form of the only request, without the refresh token's value.
pub fn form(requests: &[Recorded]) -> Vec<(String, String)> {
    assert_eq!(requests.len(), 1);
    let fields = form_urlencoded::parse(&requests[0].body).into_owned();
    let shown = |(name, value): (String, String)| match name.as_str() {
        "refresh_token" => (name, value[..3].to_owned()),
        _ => (name, value),
    };
    fields.map(shown).collect()
}

pub fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Until the session may try again.
pub async fn wait_out(cooldown: Option<Duration>) {
    tokio::time::sleep(cooldown.unwrap_or_default()).await;
}

/// Parks threads where a store's code calls it, until the test lets them go.
#[derive(Clone, Default)]
pub struct Turnstile(Arc<Parked>);

#[derive(Default)]
struct Parked {
    /// How many have arrived, and whether it is open.
    state: Mutex<(usize, bool)>,
    opened: Condvar,
    arrived: tokio::sync::Notify,
}

impl Turnstile {
    pub fn pass(&self) {
        let mut state = self.0.state.lock().unwrap();
        state.0 += 1;
        self.0.arrived.notify_waiters();
        while !state.1 {
            state = self.0.opened.wait(state).unwrap();
        }
    }

    pub async fn arrived(&self) {
        loop {
            let next = self.0.arrived.notified();
            if self.0.state.lock().unwrap().0 > 0 {
                return;
            }
            next.await;
        }
    }

    /// How many have come so far.
    pub fn count(&self) -> usize {
        self.0.state.lock().unwrap().0
    }

    pub fn open(&self) {
        self.0.state.lock().unwrap().1 = true;
        self.0.opened.notify_all();
    }
}

/// A client that shows each request, as it is sent, to `look`.
pub fn spied(
    session: &Session,
    look: impl Fn(&Request, &Extensions) + Send + Sync + 'static,
) -> ClientWithMiddleware {
    struct Spy<F>(F);

    #[async_trait::async_trait]
    impl<F: Fn(&Request, &Extensions) + Send + Sync + 'static> Middleware for Spy<F> {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<Response> {
            (self.0)(&request, extensions);
            next.run(request, extensions).await
        }
    }

    ClientBuilder::new(reqwest::Client::new()).with(session.middleware()).with(Spy(look)).build()
}
