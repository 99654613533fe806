//! A server as a child process, killed when the test is through with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::server::{CLIENT_ID, CLIENT_SECRET, Server, State};

pub struct Process {
    program: Program,
    child: Child,
    origin: String,
    client: reqwest::Client,
    /// Holds the server's tokens over a restart.
    directory: tempfile::TempDir,
}

/// How to start a server, and where its endpoints are.
pub struct Program {
    pub command: PathBuf,
    pub args: Vec<String>,
    pub token_path: &'static str,
    pub revocation_path: &'static str,
}

impl Process {
    /// At a port that is free.
    pub fn start(program: Program) -> Self {
        Self::start_at(program, 0)
    }

    pub fn start_at(program: Program, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (child, origin) = run(&program, directory.path(), port);
        Self { program, child, origin, client: reqwest::Client::new(), directory }
    }

    /// Kills it where it stands.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After [`kill`](Self::kill): at the same port, with the tokens that it had.
    pub fn start_again(&mut self) {
        let port = self.origin.rsplit(':').next().unwrap().parse().unwrap();
        let (child, origin) = run(&self.program, self.directory.path(), port);
        assert_eq!(origin, self.origin);
        self.child = child;
    }

    async fn control(&self, action: &str) -> reqwest::Response {
        let url = format!("{}/control/{action}", self.origin);
        self.client.post(url).send().await.unwrap().error_for_status().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server for Process {
    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn token_url(&self) -> String {
        self.origin.clone() + self.program.token_path
    }

    fn revocation_url(&self) -> String {
        self.origin.clone() + self.program.revocation_path
    }

    async fn log_in(&self) -> Value {
        self.control("login").await.json().await.unwrap()
    }

    async fn expire_access_tokens(&self) {
        self.control("expire-access-tokens").await;
    }

    async fn revoke(&self) {
        self.control("revoke").await;
    }

    async fn state(&self) -> State {
        let url = format!("{}/control/state", self.origin);
        self.client.get(url).send().await.unwrap().json().await.unwrap()
    }
}

/// Where `tests/interop/setup` has installed `server`, of the versions that `list` pins.
pub fn installed(server: &str, list: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = fs::read(root.join("tests/interop").join(server).join(list)).unwrap();
    let directory = root.join("target/interop").join(server);
    let found = fs::read(directory.join(format!("{list}.installed"))).unwrap_or_default();
    assert!(
        found == wanted,
        "{server} is not installed, or not as pinned: run tests/interop/setup"
    );
    directory
}

/// The path of a server's program.
pub fn source(path: &str) -> String {
    format!("{}/tests/interop/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A port that is still free when a server comes back to it: below those that the system gives to
/// connections and to port 0, which the other tests use meanwhile.
pub fn lasting_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 10_000) as u16;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn run(program: &Program, directory: &Path, port: u16) -> (Child, String) {
    let mut child = Command::new(&program.command)
        .args(&program.args)
        .args(["--client-id", CLIENT_ID, "--client-secret", CLIENT_SECRET])
        .args(["--port", &port.to_string(), "--store"])
        .arg(directory.join("tokens.json"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{:?}: {e}: run tests/interop/setup", program.command));
    let mut origin = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut origin).unwrap();
    assert!(origin.starts_with("http://"), "{:?} did not start", program.command);
    (child, origin.trim_end().to_owned())
}
