//! Files on Windows: who has one open may keep others from reading, replacing or removing it, and
//! a lock keeps others from the file itself.
#![cfg(windows)]

mod support;

use std::error::Error as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock_server::{MockServer, Route};
use reqwest_reauth::{Event, FileStore, Record, Session, TokenStore};
use support::{builder, client, found, soon, tokens};

// A file that somebody else has open, as scanners and backups do.

#[test]
fn a_save_waits_for_who_reads_the_file_and_replaces_it_then() {
    let files = Files::new();
    let store = files.store();
    store.save(&Record::from_bytes(b"old")).unwrap();
    let opened = open(&files.path(), READ);
    std::thread::scope(|scope| {
        let saved = scope.spawn(|| store.save(&Record::from_bytes(b"new")));
        // It is written, and waits to be put in place.
        let end = Instant::now() + Duration::from_secs(20);
        while files.names().len() == 1 {
            assert!(Instant::now() < end, "nothing is written");
            std::thread::yield_now();
        }
        drop(opened);
        saved.join().unwrap().unwrap();
    });
    assert_eq!(store.load().unwrap().unwrap().as_bytes(), b"new");
    assert_eq!(files.names(), ["session"]);
}

#[test]
fn a_file_that_is_never_let_go_is_an_error_in_time_and_stays_as_it_was() {
    let files = Files::new();
    let store = files.store();
    store.save(&Record::from_bytes(b"old")).unwrap();
    let opened = open(&files.path(), NOTHING);
    let begin = Instant::now();
    let errors = [
        store.load().unwrap_err(),
        store.save(&Record::from_bytes(b"new")).unwrap_err(),
        store.clear().unwrap_err(),
    ];
    // Each within the 3 seconds of a store's call; none at the first try.
    let taken = begin.elapsed() / 3;
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&taken), "{taken:?}");
    for error in errors {
        assert!(error.to_string().contains(files.path().to_str().unwrap()), "{error}");
        let cause = error.source().unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert!(matches!(cause.raw_os_error(), Some(5 | 32)), "{cause:?}");
    }
    drop(opened);
    assert_eq!(store.load().unwrap().unwrap().as_bytes(), b"old");
    assert_eq!(files.names(), ["session"]);
}

#[tokio::test]
async fn nothing_is_sent_while_the_file_cannot_be_read() {
    let files = Files::new();
    let (server, session) = files.logged_in().await;
    server.expire_access_tokens();
    let opened = open(&files.path(), NOTHING);
    let error = get(&server, &session).await.unwrap_err();
    assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
    assert_eq!(server.counters().token_requests, 0);
    drop(opened);
    tokio::time::sleep(found(&error).retry_after().unwrap_or_default()).await;
    assert_eq!(get(&server, &session).await.unwrap(), 200);
    assert_eq!((server.counters().token_requests, server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn new_tokens_are_in_use_and_saved_when_the_file_is_let_go() {
    let files = Files::new();
    let (server, session) = files.logged_in().await;
    server.expire_access_tokens();
    let mut events = session.events();
    let opened = open(&files.path(), READ);
    assert_eq!(get(&server, &session).await.unwrap(), 200);
    let failed = soon(events.next()).await.unwrap();
    assert!(matches!(failed, Event::PersistFailed(_)), "{failed:?}");
    drop(opened);
    while !matches!(soon(events.next()).await.unwrap(), Event::Persisted) {}
    drop(session);
    assert_eq!(get(&server, &files.session(&server)).await.unwrap(), 200);
    assert_eq!((server.counters().token_requests, server.counters().reuses), (1, 0));
}

#[tokio::test]
async fn a_refresh_waits_for_who_reads_what_is_beside_the_file() {
    let files = Files::new();
    let (server, session) = files.logged_in().await;
    for beside in ["session.lock", "session.room"] {
        let path = files.directory.path().join(beside);
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
        server.expire_access_tokens();
        let opened = open(&path, READ);
        // It is let go while the refresh is at it, or before: both are as well.
        let read = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(opened);
        });
        assert_eq!(get(&server, &session).await.unwrap(), 200, "{beside}");
        read.join().unwrap();
    }
    assert_eq!((server.counters().token_requests, server.counters().reuses), (2, 0));
}

// The lock.

#[tokio::test]
async fn who_holds_the_lock_makes_others_wait_for_their_time_and_its_kill_lets_them_go_on() {
    let name = "who_holds_the_lock_makes_others_wait_for_their_time_and_its_kill_lets_them_go_on";
    if let Some(path) = std::env::var_os(LOCK) {
        return hold(Path::new(&path));
    }
    let files = Files::new();
    let (server, session) = files.logged_in().await;
    let mut holder = holder(name, &files.directory.path().join("session.lock"));
    // A token that is accepted needs no lock.
    assert_eq!(get(&server, &session).await.unwrap(), 200);
    server.expire_access_tokens();
    let begin = Instant::now();
    let error = get(&server, &session).await.unwrap_err();
    assert!(begin.elapsed() >= LOCK_WAIT);
    assert!(found(&error).is_transient() && !found(&error).is_logged_out(), "{error:?}");
    assert!(found(&error).to_string().contains("another program"), "{error}");
    assert_eq!(server.counters().token_requests, 0);

    let patient = builder(&server).store(files.store()).build().unwrap();
    let refused = server.hold_answers(Route::Api);
    let request = client(&patient).get(server.api_url("things")).send();
    let request = tokio::spawn(request);
    soon(refused.arrived(1)).await;
    refused.release();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let begin = Instant::now();
    assert_eq!(soon(request).await.unwrap().unwrap().status(), 200);
    // It would have waited for 65 seconds.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!((server.counters().token_requests, server.counters().reuses), (1, 0));
}

/// Starts this test once more, as the program that has the lock.
fn holder(test: &str, path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(LOCK, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with(LOCKED)), "no lock");
    child
}

fn hold(path: &Path) {
    let file = File::open(path).unwrap();
    file.lock().unwrap();
    println!("{LOCKED}");
    // Until it is killed.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Where a session keeps its file.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("session")
    }

    fn store(&self) -> FileStore {
        FileStore::new(self.path())
    }

    /// As another program would have it. It waits a moment for its turn.
    fn session(&self, server: &MockServer) -> Session {
        builder(server).store(self.store()).lock_wait(LOCK_WAIT).build().unwrap()
    }

    async fn logged_in(&self) -> (MockServer, Session) {
        let server = MockServer::start();
        let session = self.session(&server);
        session.log_in(tokens(&server.log_in("alice"))).await.unwrap();
        (server, session)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

async fn get(server: &MockServer, session: &Session) -> Result<u16, reqwest_middleware::Error> {
    let response = soon(client(session).get(server.api_url("things")).send()).await?;
    Ok(response.status().as_u16())
}

/// Opens the file as a program does that lets others do so much with it meanwhile.
fn open(path: &Path, share: u32) -> File {
    OpenOptions::new().read(true).share_mode(share).open(path).unwrap()
}

const NOTHING: u32 = 0;
/// `FILE_SHARE_READ`: neither write, nor rename or remove.
const READ: u32 = 1;

const LOCK_WAIT: Duration = Duration::from_millis(200);
const LOCK: &str = "REAUTH_TEST_LOCK";
const LOCKED: &str = "locked";
