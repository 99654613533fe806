//! Programs that share a session take turns: one refresh, whoever wants it.

#[cfg(all(feature = "keychain", target_os = "linux"))]
#[path = "support/keychain.rs"]
mod keychain;
mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mock_server::{MockServer, Route};
use reqwest_reauth::{FileStore, Session};
use support::{builder, client, found, programs, soon, tokens};

/// A user with a file of tokens that several programs share.
struct Home {
    server: MockServer,
    directory: tempfile::TempDir,
}

impl Home {
    fn new(server: MockServer) -> Self {
        Self { server, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("session")
    }

    fn lock(&self) -> PathBuf {
        self.directory.path().join("session.lock")
    }

    /// As another program would have it. It waits a moment for its turn.
    fn session(&self) -> Session {
        let builder = builder(&self.server).store(FileStore::new(self.file()));
        builder.lock_wait(Duration::from_millis(200)).build().unwrap()
    }

    /// One that waits for as long as a refresh takes on a busy machine.
    fn patient(&self) -> Session {
        builder(&self.server).store(FileStore::new(self.file())).build().unwrap()
    }

    async fn logged_in(&self) -> Session {
        let session = self.session();
        session.log_in(tokens(&self.server.log_in("alice"))).await.unwrap();
        session
    }

    async fn get(&self, session: &Session) -> Result<u16, reqwest_middleware::Error> {
        let response = soon(client(session).get(self.server.api_url("things")).send()).await?;
        Ok(response.status().as_u16())
    }
}

#[tokio::test]
async fn two_sessions_of_one_file_make_one_refresh_between_them() {
    let home = Home::new(MockServer::start());
    home.logged_in().await;
    let (one, other) = (home.patient(), home.patient());
    assert!(one.is_logged_in().await.unwrap());
    assert!(other.is_logged_in().await.unwrap());
    home.server.expire_access_tokens();
    home.server.barrier(Route::Api, 2);
    let (first, second) = tokio::join!(home.get(&one), home.get(&other));
    assert_eq!((first.unwrap(), second.unwrap()), (200, 200));
    let counters = home.server.counters();
    assert_eq!((counters.token_requests, counters.reuses), (1, 0));
    assert_eq!(one.metrics().refreshes + other.metrics().refreshes, 1);
    assert_eq!(one.metrics().adoptions + other.metrics().adoptions, 1);
}

#[tokio::test]
async fn while_the_lock_is_held_a_valid_token_is_served_and_no_other_is_fetched() {
    let home = Home::new(MockServer::start());
    let session = home.logged_in().await;
    let held = File::open(home.lock()).unwrap();
    held.lock().unwrap();
    assert_eq!(home.get(&session).await.unwrap(), 200);
    home.server.expire_access_tokens();
    let start = Instant::now();
    let error = home.get(&session).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(found(&error).is_transient() && !found(&error).is_logged_out(), "{error:?}");
    let text = found(&error).to_string();
    assert!(text.contains("another program") && text.contains("session.lock"), "{text}");
    let login = session.log_in(tokens(&home.server.log_in("bob"))).await.unwrap_err();
    assert!(login.is_transient() && login.tokens().is_some(), "{login:?}");
    assert_eq!(home.server.counters().token_requests, 0);

    drop(held);
    tokio::time::sleep(found(&error).retry_after().unwrap()).await;
    assert_eq!(home.get(&session).await.unwrap(), 200);
    assert_eq!(home.server.counters().refreshes, 1);
}

#[tokio::test]
async fn to_read_the_store_no_lock_is_needed() {
    let home = Home::new(MockServer::start());
    drop(home.logged_in().await);
    let held = File::open(home.lock()).unwrap();
    held.lock().unwrap();
    let begun = Instant::now();
    assert!(home.patient().is_logged_in().await.unwrap());
    assert!(begun.elapsed() < Duration::from_secs(5), "a logout would wait that long");
}

#[tokio::test]
async fn a_lock_that_cannot_be_used_is_told_before_anything_is_sent() {
    let home = Home::new(MockServer::start());
    let session = home.logged_in().await;
    fs::remove_file(home.lock()).unwrap();
    fs::create_dir(home.lock()).unwrap();
    home.server.expire_access_tokens();
    let error = home.get(&session).await.unwrap_err();
    assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
    let text = format!("{:#}", anyhow::Error::new(found(&error).clone()));
    assert!(text.contains("could not use the lock") && text.contains("session.lock"), "{text}");
    assert_eq!(home.server.counters().token_requests, 0);
    // Nor would waiting help a logout.
    let error = soon(session.log_out()).await.unwrap_err();
    assert!(error.is_store(), "{error:?}");
    assert!(!session.is_logged_in().await.unwrap());
}

#[tokio::test]
async fn a_logout_that_waits_for_its_turn_follows_when_the_lock_is_free() {
    let home = Home::new(MockServer::start());
    let session = home.logged_in().await;
    let held = File::open(home.lock()).unwrap();
    held.lock().unwrap();
    let logout = soon(session.log_out()).await.unwrap();
    assert_eq!(logout, reqwest_reauth::Revocation::Pending);
    assert!(home.file().exists());
    drop(held);
    soon(session.log_out()).await.unwrap();
    assert!(!home.file().exists());
    assert_eq!(home.server.counters().revocations, 1);
}

/// A process of the example `cli` that calls once.
fn call(server: &MockServer, directory: &tempfile::TempDir) -> Child {
    cli(directory).args(["call", &server.api_url("things")]).spawn().unwrap()
}

fn log_in(server: &MockServer, directory: &tempfile::TempDir, store: &str) {
    let login = ["login", "--tokens-stdin", "--client-id", "test", "--store", store];
    let mut login = cli(directory)
        .args(login)
        .args(["--token-endpoint", &server.token_url(), "--origin", &server.origin()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let body = server.log_in("alice").json();
    std::io::Write::write_all(&mut login.stdin.take().unwrap(), body.as_bytes()).unwrap();
    assert!(login.wait().unwrap().success());
}

fn cli(directory: &tempfile::TempDir) -> Command {
    static CLI: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(CLI.get_or_init(|| programs::build("cli")));
    command.args(["--config-dir".as_ref(), directory.path().join("config").as_os_str()]);
    command.args(["--state-dir".as_ref(), directory.path().join("state").as_os_str()]);
    command.env_remove("REAUTH_TOKEN").stdout(Stdio::null());
    command
}

/// All have seen their 401 before one of them refreshes.
fn eight_processes_refresh_once(store: impl Fn(&tempfile::TempDir) -> String) {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    log_in(&server, &directory, &store(&directory));
    server.expire_access_tokens();
    server.barrier(Route::Api, 8);
    let calls: Vec<_> = (0..8).map(|_| call(&server, &directory)).collect();
    for mut call in calls {
        assert!(call.wait().unwrap().success());
    }
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.refreshes, counters.reuses), (1, 1, 0));
    assert_eq!(counters.api_ok, 8);
}

#[test]
fn eight_processes_on_a_stale_token_make_one_refresh_with_a_file() {
    eight_processes_refresh_once(|directory| {
        format!("file:{}", directory.path().join("tokens").display())
    });
}

#[cfg(all(feature = "keychain", target_os = "linux"))]
#[test]
fn eight_processes_on_a_stale_token_make_one_refresh_with_the_keychain() {
    let name = "eight_processes_on_a_stale_token_make_one_refresh_with_the_keychain";
    keychain::in_a_session(name, async |_keychain| {
        eight_processes_refresh_once(|_| "keychain".to_owned());
    });
}

/// In the Credential Manager.
#[cfg(all(feature = "keychain", windows))]
#[test]
fn eight_processes_on_a_stale_token_make_one_refresh_with_the_keychain() {
    use reqwest_reauth::{KeychainStore, TokenStore};

    eight_processes_refresh_once(|_| "keychain".to_owned());
    KeychainStore::new("reqwest-reauth-cli", "default").clear().unwrap();
}

#[test]
fn after_a_kill_in_the_middle_of_a_refresh_the_next_process_goes_on_at_once() {
    let server = MockServer::builder().grace(Duration::from_secs(60)).start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    log_in(&server, &directory, &format!("file:{}", directory.path().join("tokens").display()));
    server.expire_access_tokens();
    let held = server.hold_answers(Route::Token);
    let mut first = call(&server, &directory);
    held.arrived_blocking(1);
    let api = server.hold_answers(Route::Api);
    let mut second = call(&server, &directory);
    api.arrived_blocking(1);
    drop(api);
    first.kill().unwrap();
    first.wait().unwrap();
    drop(held);
    assert!(second.wait().unwrap().success());
    let counters = server.counters();
    // The server lets a spent token be repeated for a while; what it saw decides.
    assert_eq!((counters.refreshes, counters.grace_replays, counters.reuses), (1, 1, 0));
}

/// As with some network file systems: everybody is given the lock.
#[cfg(target_os = "linux")]
#[test]
fn a_lock_that_locks_nothing_is_told_before_anything_is_sent() {
    let (server, directory) = (MockServer::start(), tempfile::tempdir().unwrap());
    log_in(&server, &directory, &format!("file:{}", directory.path().join("tokens").display()));
    let (source, library) = (directory.path().join("flock.c"), directory.path().join("flock.so"));
    fs::write(&source, "int flock(int file, int how) { return 0; }\n").unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success());
    server.expire_access_tokens();
    let mut program = cli(&directory);
    program.args(["call", &server.api_url("things")]).env("LD_PRELOAD", &library);
    let output = program.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("default.tokens.json.lock does not work"),
        "{said}"
    );
    assert_eq!(server.counters().token_requests, 0);
    assert!(call(&server, &directory).wait().unwrap().success());
    assert_eq!(server.counters().refreshes, 1);
}
