//! A program of the user's, as a process of its own: it does what the test tells it, line by line,
//! and can be stopped in the middle of a refresh. It is this test binary, started once more.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use mock_server::MockServer;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_reauth::{Error, FileStore, OAuth2Endpoint, Session, TokenResponse};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::support::{programs, tokens};

/// What a program is set up with.
#[derive(Clone, Deserialize, Serialize)]
pub struct Program {
    pub origin: String,
    pub token_url: String,
    pub revocation_url: String,
    pub client_id: String,
    pub client_secret: Option<String>,
    pub account: String,
    /// Where its tokens are; `None` for the keychain.
    pub file: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub lock_wait: Option<Duration>,
    pub store_wait: Option<Duration>,
}

impl Program {
    pub fn at(server: &MockServer) -> Self {
        Self {
            origin: server.origin(),
            token_url: server.token_url(),
            revocation_url: server.revocation_url(),
            client_id: "test".to_owned(),
            client_secret: None,
            account: "default".to_owned(),
            file: None,
            state_dir: None,
            lock_wait: None,
            store_wait: None,
        }
    }

    /// The session that it has.
    pub fn session(&self) -> Session {
        let mut endpoint = OAuth2Endpoint::new(&self.token_url, &self.client_id)
            .revocation_url(&self.revocation_url);
        if let Some(secret) = &self.client_secret {
            endpoint = endpoint.client_secret(secret);
        }
        let mut builder =
            Session::builder(SERVICE, endpoint).origin(&self.origin).account(&self.account);
        if let Some(file) = &self.file {
            builder = builder.store(FileStore::new(file));
        }
        if let Some(directory) = &self.state_dir {
            builder = builder.state_dir(directory);
        }
        if let Some(limit) = self.store_wait {
            builder = builder.store_wait(limit);
        }
        if let Some(limit) = self.lock_wait {
            builder = builder.lock_wait(limit);
        }
        builder.build().unwrap()
    }
}

/// A running program. It is killed when the test is through with it.
pub struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Worker {
    pub fn start(program: &Program) -> Self {
        Self::started_by(Command::new("env"), program, None)
    }

    /// One that stops when a transaction has first come to `step`, says `at …`, and goes on when
    /// it is told something.
    pub fn stopping_at(step: &str, program: &Program) -> Self {
        Self::started_by(Command::new("env"), program, Some(step))
    }

    /// `launcher` becomes the command that its last arguments are.
    pub fn started_by(mut launcher: Command, program: &Program, step: Option<&str>) -> Self {
        let mut child = launcher
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(PROGRAM, serde_json::to_string(program).unwrap())
            .env(STEP, step.unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            let ours = lines.filter_map(|line| Some(line.strip_prefix(MARK)?.to_owned()));
            // Nobody listens where the test is through with it.
            ours.for_each(|line| drop(sender.send(line)));
        });
        let orders = child.stdin.take();
        Self { child, orders, said }
    }

    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// The next line that it says.
    pub fn line(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("the worker says something")
    }

    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.line()
    }

    /// Its next lines.
    pub fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// The outcome of one request.
    pub fn get(&mut self) -> String {
        self.ask("get 1")
    }

    pub fn log_in(&mut self, tokens: &str) {
        assert_eq!(self.ask(&format!("log in {tokens}")), "logged in");
    }

    /// Stops it where it is: returns when none of its threads runs.
    pub fn stop(&self) {
        programs::signal(&self.child, "-STOP");
        let is_stopped = |thread: PathBuf| {
            // "pid (name) state …", and the name may be anything.
            let stat = fs::read_to_string(thread.join("stat"));
            // One that has ended is not there.
            stat.map_or(true, |stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
        };
        let threads = format!("/proc/{}/task", self.child.id());
        while !fs::read_dir(&threads).unwrap().all(|thread| is_stopped(thread.unwrap().path())) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn go_on(&self) {
        programs::signal(&self.child, "-CONT");
    }

    /// As `kill -9`: returns when it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it come to its end.
    pub fn end(mut self) {
        drop(self.orders.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Tells it to all of them, and lets nobody go on before the last one has stopped at `step`.
pub fn together(programs: &mut [Worker], order: &str, step: &str) {
    programs.iter_mut().for_each(|program| program.tell(order));
    for program in &mut *programs {
        assert_eq!(program.line(), format!("at {step}"));
    }
    programs.iter_mut().for_each(|program| program.tell("go on"));
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Started as a worker, this is one; else it starts one.
#[test]
fn a_worker_does_as_it_is_told_and_stops_where_it_should() {
    if let Ok(program) = std::env::var(PROGRAM) {
        return work(&serde_json::from_str(&program).unwrap());
    }
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    let file = directory.path().join("session");
    let program = Program { file: Some(file), ..Program::at(&server) };
    let mut worker = Worker::stopping_at("marked", &program);
    assert_eq!(worker.get(), "logged out");
    worker.log_in(&server.log_in("alice").json());
    assert_eq!(worker.get(), "200");
    server.expire_access_tokens();
    assert_eq!(worker.get(), "at marked");
    assert_eq!(server.counters().token_requests, 0);
    assert_eq!(worker.ask("go on"), "200");
    assert_eq!(worker.ask("log out"), "Revoked");
    worker.end();
}

fn work(program: &Program) {
    let step = std::env::var(STEP).unwrap();
    if !step.is_empty() {
        let ours = Targets::new().with_target("reqwest_reauth", LevelFilter::TRACE);
        let stop = StopAt { step, stopped: AtomicBool::new(false) };
        tracing_subscriber::registry().with(ours).with(stop).init();
    }
    // The test harness has begun a line.
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let session = program.session();
    // No connections are kept: the test's process has one end of each, and may have few.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let client = ClientBuilder::new(client).with(session.middleware()).build();
    let url = format!("{}/api/things", program.origin);
    while let Some(order) = heard() {
        runtime.block_on(obey(&order, &session, &client, &url));
    }
}

async fn obey(order: &str, session: &Session, client: &ClientWithMiddleware, url: &str) {
    if let Some(count) = order.strip_prefix("get ") {
        let count = 0..count.parse().unwrap();
        let requests: Vec<_> = count.map(|_| tokio::spawn(client.get(url).send())).collect();
        for request in requests {
            say(&match request.await.unwrap() {
                Ok(response) => response.status().as_u16().to_string(),
                Err(error) => outcome(&error),
            });
        }
    } else if let Some(tokens) = order.strip_prefix("log in ") {
        let tokens = TokenResponse::from_json(tokens.as_bytes()).unwrap();
        say(&session.log_in(tokens).await.map_or_else(|e| outcome(&e), |()| "logged in".into()));
    } else {
        assert_eq!(order, "log out");
        say(&session.log_out().await.map_or_else(|e| outcome(&e), |done| format!("{done:?}")));
    }
}

fn outcome(error: &(dyn std::error::Error + 'static)) -> String {
    match Error::find(error) {
        Some(error) if error.is_logged_out() => match error.logout_reason() {
            Some(reason) => format!("logged out: {reason:?}"),
            None => "logged out".to_owned(),
        },
        Some(error) if error.is_transient() => match error.retry_after() {
            Some(pause) => format!("later, in {} ms: {}", pause.as_millis(), told(error)),
            None => format!("later: {}", told(error)),
        },
        _ => format!("failed: {error:?}"),
    }
}

/// With its causes.
fn told(error: &Error) -> String {
    format!("{:#}", anyhow::Error::new(error.clone()))
}

/// Stops the thread that does the work, once, when it has come to `step`.
struct StopAt {
    step: String,
    stopped: AtomicBool,
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for StopAt {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut is_here = IsAt { step: &self.step, is: false };
        event.record(&mut is_here);
        if is_here.is && !self.stopped.swap(true, Ordering::SeqCst) {
            say(&format!("at {}", self.step));
            heard();
        }
    }
}

struct IsAt<'a> {
    step: &'a str,
    is: bool,
}

impl tracing::field::Visit for IsAt<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.is |= field.name() == "step" && value == self.step;
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    writeln!(output, "{MARK}{line}").unwrap();
    output.flush().unwrap();
}

/// The next line from the test; `None` when it has no more to say.
fn heard() -> Option<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    (!line.is_empty()).then(|| line.trim_end().to_owned())
}

/// Tokens that are over by the clock before any program has them, as of a login long ago.
pub fn ended(issued: &mock_server::Issued) -> TokenResponse {
    tokens(issued).expires_in(Duration::from_millis(1))
}

const NAME: &str = "worker::a_worker_does_as_it_is_told_and_stops_where_it_should";
/// What the keychain knows it by.
pub const SERVICE: &str = "reauth-several";
const PROGRAM: &str = "REAUTH_WORKER";
const STEP: &str = "REAUTH_WORKER_STOPS_AT";
const MARK: &str = "> ";

/// Longer than anything that a worker is asked for takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
