//! What opening a session and the first request cost a command-line program: each start is a
//! process of its own, that makes one request and ends. Beside the same program with a token from
//! a file. The keychain is a real Secret Service of its own, unlocked, as it is for a user at work.
//!
//! `cargo bench --bench startup` takes about ten seconds.

#[cfg(target_os = "linux")]
#[path = "../tests/support/keychain.rs"]
mod keychain;
mod sheet;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mock_server::MockServer;
use reqwest::StatusCode;
use reqwest_middleware::ClientBuilder;
use reqwest_reauth::{FileStore, OAuth2Endpoint, Session, TokenResponse};
use serde::{Deserialize, Serialize};
use sheet::{Claim, Sheet};

fn main() {
    if let Ok(program) = env::var(PROGRAM) {
        let program: Program = serde_json::from_str(&program).expect("as it was written");
        return runtime().block_on(program.run());
    }
    if !cfg!(target_os = "linux") {
        println!("the keychain is not measured here: it would be the user's own");
        return measure(&[Tokens::Plain, Tokens::File]);
    }
    #[cfg(target_os = "linux")]
    in_a_bus();
}

#[cfg(target_os = "linux")]
fn in_a_bus() {
    if env::args().all(|arg| arg != IN_A_BUS) {
        let directory = tempfile::tempdir().expect("a directory");
        let status = keychain::in_a_bus(directory.path()).arg(IN_A_BUS).status();
        assert!(status.expect("dbus-run-session: tests/run-all installs it").success());
        return;
    }
    let mut daemon = keychain::Keychain::down();
    daemon.start();
    measure(&[Tokens::Plain, Tokens::File, Tokens::Keychain]);
}

/// Where the program has its tokens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum Tokens {
    /// An access token alone, and no session.
    Plain,
    File,
    Keychain,
}

fn measure(all: &[Tokens]) {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().expect("a directory"));
    let programs: Vec<_> =
        all.iter().map(|tokens| Program::new(*tokens, &server, directory.path())).collect();
    let mut times = vec![Vec::new(); all.len()];
    // Once more, and first, to have the program itself in memory.
    for round in 0..=ROUNDS {
        for (program, times) in programs.iter().zip(&mut times) {
            let time = program.start();
            if round > 0 {
                times.push(time);
            }
        }
    }
    let counters = server.counters();
    assert_eq!(counters.api_ok as usize, all.len() * (ROUNDS + 1));
    assert_eq!((counters.api_unauthorized, counters.token_requests), (0, 0));

    let title = format!("a program that makes one request: milliseconds, the median of {ROUNDS}");
    let mut sheet = Sheet::new(title, ["", "start to end", "more"]);
    let times: Vec<_> = times.into_iter().map(median).collect();
    for (tokens, time) in all.iter().zip(&times) {
        sheet.row([name(*tokens), format!("{time:.1}"), format!("{:+.1}", time - times[0])]);
    }
    if let Some(warm) = times.get(2) {
        sheet.claims.push(Claim {
            what: "one request of a program, its tokens in the keychain".to_owned(),
            figure: format!("{:+.1} ms", warm - times[0]),
            goal: "≤ 15 ms more than with a token from a file".to_owned(),
            is_met: warm - times[0] <= 15.0,
            peer: format!("a FileStore: {:+.1} ms", times[1] - times[0]),
        });
    }
    sheet.print();
}

#[derive(Deserialize, Serialize)]
struct Program {
    tokens: Tokens,
    origin: String,
    token_url: String,
    url: String,
    file: PathBuf,
    state_dir: PathBuf,
}

impl Program {
    /// With a login of its own.
    fn new(tokens: Tokens, server: &MockServer, directory: &Path) -> Self {
        let program = Self {
            tokens,
            origin: server.origin(),
            token_url: server.token_url(),
            url: server.api_url("things"),
            file: directory.join(format!("{tokens:?}")),
            state_dir: directory.join("state"),
        };
        let issued = server.log_in("alice");
        if tokens == Tokens::Plain {
            fs::write(&program.file, &issued.access_token).expect("a file");
        } else {
            let response = TokenResponse::from_json(issued.json().as_bytes()).expect("tokens");
            runtime().block_on(program.session().log_in(response)).expect("a login");
        }
        program
    }

    fn start(&self) -> Duration {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.env(PROGRAM, serde_json::to_string(self).expect("JSON"));
        let begun = Instant::now();
        let status = command.status().expect("this program once more");
        let time = begun.elapsed();
        assert!(status.success());
        time
    }

    async fn run(&self) {
        let client = ClientBuilder::new(reqwest::Client::new());
        let answer = if self.tokens == Tokens::Plain {
            let token = fs::read_to_string(&self.file).expect("a file");
            client.build().get(&self.url).bearer_auth(token).send().await
        } else {
            let session = self.session();
            let client = client.with(session.middleware()).build();
            client.get(&self.url).send().await
        };
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }

    fn session(&self) -> Session {
        let endpoint = OAuth2Endpoint::new(&self.token_url, "startup");
        let builder =
            Session::builder("startup", endpoint).origin(&self.origin).state_dir(&self.state_dir);
        let builder = match self.tokens {
            Tokens::Keychain => builder,
            _ => builder.store(FileStore::new(&self.file)),
        };
        builder.build().expect("a session")
    }
}

fn name(tokens: Tokens) -> String {
    let name = match tokens {
        Tokens::Plain => "a token from a file, no middleware",
        Tokens::File => "this crate, a FileStore",
        Tokens::Keychain => "this crate, the keychain",
    };
    name.to_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

const PROGRAM: &str = "REAUTH_STARTUP";
#[cfg(target_os = "linux")]
const IN_A_BUS: &str = "in-a-bus";
const ROUNDS: usize = 100;
