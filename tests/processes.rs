//! Real programs, ended by real signals: the next start goes on where they were.
#![cfg(unix)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use mock_server::{MockServer, Route};
use reqwest_reauth::{FileStore, TokenResponse};
use support::{programs, soon, tokens};

/// The example `ctrl_c` as a running process, with its login in a file.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
}

impl Program {
    fn start(server: &MockServer, file: &Path, calls: &str) -> Self {
        let mut child = Command::new(example())
            .args([server.origin().as_ref(), file.as_os_str(), calls.as_ref()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, output, errors }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn trouble(&mut self) -> String {
        let mut line = String::new();
        self.errors.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, name: &str) {
        programs::signal(&self.child, name);
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

fn example() -> &'static PathBuf {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| programs::build("ctrl_c"))
}

/// A file with alice's login in it, whose access token the server refuses by now.
async fn stale_login(server: &MockServer, directory: &tempfile::TempDir) -> PathBuf {
    let file = directory.path().join("tokens.json");
    log_in(server, &file, tokens(&server.log_in("alice"))).await;
    server.expire_access_tokens();
    file
}

async fn log_in(server: &MockServer, file: &Path, tokens: TokenResponse) {
    // The endpoint and client of the example, which the record is pinned to.
    let endpoint = reqwest_reauth::OAuth2Endpoint::new(server.token_url(), "ctrl-c");
    let session = reqwest_reauth::Session::builder("ctrl-c", endpoint)
        .origin(server.origin())
        .store(FileStore::new(file))
        .build()
        .unwrap();
    session.log_in(tokens).await.unwrap();
}

#[tokio::test]
async fn after_a_sigint_in_the_middle_of_a_refresh_the_next_start_succeeds_with_zero_reuse() {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    let file = stale_login(&server, &directory).await;
    let held = server.hold_answers(Route::Token);
    let mut first = Program::start(&server, &file, "1");
    soon(held.arrived(1)).await;
    first.signal("-INT");
    assert_eq!(first.line(), "stopping");
    held.release();
    assert!(first.end().success());

    let mut second = Program::start(&server, &file, "1");
    assert_eq!(second.line(), "200 OK");
    assert!(second.end().success());
    let counters = server.counters();
    assert_eq!((counters.refreshes, counters.reuses, counters.token_requests), (1, 0, 1));
}

#[tokio::test]
async fn a_program_that_ends_in_the_middle_of_a_refresh_waits_for_its_answer() {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    let file = stale_login(&server, &directory).await;
    let held = server.hold_answers(Route::Token);
    let mut first = Program::start(&server, &file, "1");
    soon(held.arrived(1)).await;
    // After the request's own 5 seconds.
    let last_words = "giving up: the request timed out while it waited for a token";
    let trouble = first.trouble();
    assert!(trouble.starts_with(last_words), "{trouble}");
    assert!(first.child.try_wait().unwrap().is_none(), "it waits for the answer");
    held.release();
    assert_eq!(first.end().code(), Some(1));

    let mut second = Program::start(&server, &file, "1");
    assert_eq!(second.line(), "200 OK");
    assert!(second.end().success());
    let counters = server.counters();
    assert_eq!((counters.refreshes, counters.reuses, counters.token_requests), (1, 0, 1));
}

#[tokio::test]
async fn a_second_start_needs_no_login_and_no_refresh() {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    let file = directory.path().join("new/tokens.json");
    let mut first = Program::start(&server, &file, "1");
    assert_eq!((first.line(), first.line()), ("logged in".to_owned(), "200 OK".to_owned()));
    assert!(first.end().success());
    let mut second = Program::start(&server, &file, "1");
    assert_eq!(second.line(), "200 OK");
    assert!(second.end().success());
    let counters = server.counters();
    assert_eq!((counters.logins, counters.refreshes, counters.api_ok), (1, 0, 2));
}
