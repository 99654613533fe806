//! What the transaction adds to a bare refresh, and where it goes: the median of 200 each, with
//! the tokens in a file and in the keychain (a real Secret Service of its own). Run it with
//! `cargo bench --bench transaction`; it takes about ten seconds.

#[cfg(target_os = "linux")]
#[path = "../tests/support/keychain.rs"]
mod keychain;
mod sheet;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mock_server::MockServer;
use reqwest::Client;
use reqwest_reauth::{
    FileStore, OAuth2Endpoint, RefreshError, RefreshToken, Session, SessionBuilder, TokenEndpoint,
    TokenResponse,
};
use sheet::Sheet;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

fn main() {
    let steps = Steps::default();
    let subscriber = tracing_subscriber::registry().with(steps.clone());
    tracing::subscriber::set_global_default(subscriber).expect("set once");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    if std::env::args().any(|arg| arg == IN_A_BUS) {
        return runtime.block_on(keychain_rows(&steps));
    }
    runtime.block_on(file_rows(&steps));
    start_keychain();
}

async fn file_rows(steps: &Steps) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = FileStore::new(directory.path().join("tokens"));
    row("a file", steps, directory.path(), |builder| builder.store(store)).await;
}

#[cfg(target_os = "linux")]
fn start_keychain() {
    let directory = tempfile::tempdir().expect("a directory");
    let status = keychain::in_a_bus(directory.path()).arg(IN_A_BUS).status();
    assert!(status.expect("dbus-run-session").success());
}

#[cfg(target_os = "linux")]
async fn keychain_rows(steps: &Steps) {
    let mut daemon = keychain::Keychain::down();
    daemon.start();
    let directory = tempfile::tempdir().expect("a directory");
    row("the keychain", steps, directory.path(), |builder| builder).await;
}

#[cfg(not(target_os = "linux"))]
fn start_keychain() {
    println!("the keychain is not measured here: it would be the user's own");
}

#[cfg(not(target_os = "linux"))]
async fn keychain_rows(_: &Steps) {}

/// Measures with one store, and prints it.
async fn row(
    name: &str,
    steps: &Steps,
    state: &Path,
    store: impl FnOnce(SessionBuilder) -> SessionBuilder,
) {
    let server = MockServer::start();
    let endpoint = ShortLived(OAuth2Endpoint::new(server.token_url(), "bench"));
    let builder = Session::builder("bench", endpoint).origin(server.origin()).state_dir(state);
    let session = store(builder).build().expect("a session");
    let tokens = TokenResponse::from_json(server.log_in("alice").json().as_bytes());
    let tokens = tokens.expect("tokens").expires_in(ONE_MS);
    session.log_in(tokens).await.expect("a login");

    let mut bare = Vec::new();
    let mut whole = Vec::new();
    let mut parts = Parts::default();
    let mut token = server.log_in("bob").refresh_token;
    let client = Client::builder().pool_max_idle_per_host(0).build().expect("a client");
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        token = refresh(&client, &server, &token).await;
        bare.push(begin.elapsed());

        // The access token ends.
        tokio::time::sleep(2 * ONE_MS).await;
        steps.clear();
        let begin = Instant::now();
        session.access_token().await.expect("a refresh");
        whole.push(begin.elapsed());
        session.drain().await;
        parts.add(&steps.take());
    }
    assert_eq!(server.counters().refreshes, 2 * ROUNDS as u64);
    let (bare, whole) = (median(bare), median(whole));
    let figures = [bare, whole, whole - bare].into_iter().chain(parts.medians());
    let title = format!("a refresh, its tokens in {name}: milliseconds, the median of {ROUNDS}");
    let mut sheet = Sheet::new(title, COLUMNS);
    let figures = figures.map(|ms| format!("{ms:.2}"));
    sheet.row(["beside the same request by reqwest alone".to_owned()].into_iter().chain(figures));
    sheet.print();
}

/// As a program without this crate does it: a request on a connection of its own.
async fn refresh(client: &Client, server: &MockServer, token: &str) -> String {
    let form = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "bench")];
    let response = client.post(server.token_url()).form(&form).send().await.expect("an answer");
    let body: serde_json::Value = response.json().await.expect("JSON");
    body["refresh_token"].as_str().expect("a refresh token").to_owned()
}

/// Whose access tokens have ended at once, so that each use of them needs a refresh.
struct ShortLived(OAuth2Endpoint);

#[async_trait]
impl TokenEndpoint for ShortLived {
    fn id(&self) -> String {
        self.0.id()
    }

    async fn refresh(
        &self,
        http: &Client,
        token: &RefreshToken,
    ) -> Result<TokenResponse, RefreshError> {
        Ok(self.0.refresh(http, token).await?.expires_in(ONE_MS))
    }
}

/// When each step of the transaction was reached.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<(String, Instant)>>>);

impl Steps {
    fn clear(&self) {
        self.take();
    }

    fn take(&self) -> Vec<(String, Instant)> {
        std::mem::take(&mut *self.0.lock().expect("no panic before"))
    }
}

impl<S: Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut step = Step(None);
        event.record(&mut step);
        if let Some(step) = step.0 {
            self.0.lock().expect("no panic before").push((step, Instant::now()));
        }
    }
}

struct Step(Option<String>);

impl Visit for Step {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// How long each part took, in each round.
#[derive(Default)]
struct Parts([Vec<Duration>; PARTS.len()]);

impl Parts {
    fn add(&mut self, steps: &[(String, Instant)]) {
        let at = |name: &str| steps.iter().find(|(step, _)| step == name).map(|(_, at)| *at);
        for (times, (from, to)) in self.0.iter_mut().zip(PARTS) {
            let Some(to) = at(to) else {
                // A file needs no journal.
                continue;
            };
            // The last of the steps before it that there was.
            let from = from.iter().filter_map(|step| at(step)).max().expect("it was begun");
            times.push(to - from);
        }
    }

    fn medians(self) -> impl Iterator<Item = f64> {
        self.0.into_iter().map(|times| if times.is_empty() { 0.0 } else { median(times) })
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

const COLUMNS: [&str; 11] = [
    "", "bare", "whole", "added", "lock", "re-read", "mark", "exchange", "journal", "commit",
    "unlock",
];

/// From which step to which a part goes.
const PARTS: [(&[&str], &str); 7] = [
    (&["waiting"], "locked"),
    (&["locked"], "read"),
    (&["read"], "marked"),
    (&["marked"], "answered"),
    (&["answered"], "journaled"),
    (&["answered", "journaled"], "saved"),
    (&["published"], "unlocked"),
];

const ROUNDS: usize = 200;
const ONE_MS: Duration = Duration::from_millis(1);
const IN_A_BUS: &str = "in-a-bus";
