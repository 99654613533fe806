//! A record in a file.

mod support;

use std::fs;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mock_server::{MockServer, What};
use reqwest_reauth::{FileStore, OAuth2Endpoint, Record, Session, Shared, StoreError, TokenStore};
use support::{
    Logouts, builder, chain, client, found, refresh_tokens_sent, soon, tokens, wait_out,
};
use tempfile::TempDir;

// The file.

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_its_owners_alone_and_so_is_a_directory_that_was_missing() {
    let f = Files::new();
    let session = f.session();
    session.log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    assert_eq!(mode(&f.path), 0o600);
    // Both were missing.
    assert_eq!(mode(f.path.parent().unwrap()), 0o700);
    assert_eq!(mode(f.path.parent().unwrap().parent().unwrap()), 0o700);

    // A file that was there with more rights than that is replaced.
    fs::set_permissions(&f.path, fs::Permissions::from_mode(0o644)).unwrap();
    f.refresh(&session).await;
    assert_eq!(mode(&f.path), 0o600);
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_was_there_keeps_its_rights() {
    let f = Files::new();
    let directory = f.path.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    f.session().log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    assert_eq!(mode(directory), 0o755);
    assert_eq!(mode(&f.path), 0o600);
}

#[tokio::test]
async fn saving_leaves_nothing_but_the_file_and_clearing_not_even_that() {
    let f = Files::new();
    let session = f.session();
    for user in ["alice", "bob"] {
        session.log_in(tokens(&f.server.log_in(user))).await.unwrap();
        f.refresh(&session).await;
        f.refresh(&session).await;
        assert_eq!(f.names(), ["session"]);
    }
    soon(session.log_out()).await.unwrap();
    // That this login is over stays known: somebody may still be about to store its tokens.
    assert_eq!(f.names(), ["session.….out"]);
    // Cleared already.
    soon(session.log_out()).await.unwrap();
}

/// Whoever has the old file open goes on reading the old record: it is never written into. On
/// Windows a save may wait for readers, and this one never pauses.
#[cfg(unix)]
#[tokio::test]
async fn a_reader_sees_one_record_or_the_next_and_never_a_mixture() {
    let f = Files::new();
    f.session().log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    let store = FileStore::new(&f.path);
    let records = [b'a', b'b'].map(|byte| vec![byte; 100_000]);
    store.save(&Record::from_bytes(&records[0])).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=100 {
                store.save(&Record::from_bytes(&records[n % 2])).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let seen = store.load().unwrap().expect("there is always one");
            assert!(records.iter().any(|record| record == seen.as_bytes()), "a torn record");
        }
    });
    assert_eq!(f.names(), ["session"]);
}

#[test]
fn a_relative_path_is_meant_as_of_now() {
    let there = std::env::current_dir().unwrap().join("kept").join("tokens");
    let store = FileStore::new("kept/tokens");
    assert!(store.describe().contains(there.to_str().unwrap()), "{}", store.describe());
    let Shared::Beside(path) = store.shared() else { panic!("{:?}", store.shared()) };
    assert_eq!(path, there);
}

#[tokio::test]
async fn a_path_below_a_file_fails_the_login_which_gives_its_tokens_back() {
    let f = Files::new();
    let blocked = f.directory.path().join("file");
    fs::write(&blocked, "in the way").unwrap();
    let path = blocked.join("session");
    let session = builder(&f.server).store(FileStore::new(&path)).build().unwrap();
    let issued = f.server.log_in("alice");
    let error = soon(session.log_in(tokens(&issued))).await.unwrap_err();
    assert!(error.is_store(), "{error:?}");
    assert!(!error.is_logged_out());
    assert!(chain(&error).contains(path.to_str().unwrap()), "{}", chain(&error));

    let given_back = error.tokens().unwrap().clone();
    let elsewhere = f.session();
    elsewhere.log_in(given_back).await.unwrap();
    let token = elsewhere.access_token().await.unwrap();
    assert_eq!(token.secret(), issued.access_token);
    assert_eq!(fs::read_to_string(&blocked).unwrap(), "in the way");
}

// Restarts.

#[tokio::test]
async fn a_session_survives_restarts_and_its_tokens_rotate_on() {
    let f = Files::new();
    let issued = f.server.log_in("alice");
    f.session().log_in(tokens(&issued)).await.unwrap();
    let mut sent = vec![issued.refresh_token.clone()];
    for _ in 0..5 {
        let session = f.session();
        assert!(session.is_logged_in().await.unwrap());
        assert_eq!(f.get(&session).await.unwrap(), 200);
        f.refresh(&session).await;
        sent.push(f.server.current_refresh_token(issued.family).unwrap());
        drop(session);
    }
    sent.pop();
    assert_eq!(refresh_tokens_sent(&f.server), sent);
    let mut chain = vec![What::Login];
    chain.resize(6, What::Rotated);
    let history: Vec<_> = f.server.history(issued.family).iter().map(|entry| entry.what).collect();
    assert_eq!(history, chain);
    let counters = f.server.counters();
    assert_eq!(counters.logins, 1);
    assert_eq!(counters.reuses, 0);
    assert_eq!(f.session().status().await.unwrap().refreshes(), 5);
}

#[tokio::test]
async fn the_first_request_after_a_restart_needs_no_refresh() {
    let f = Files::new();
    f.session().log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    assert_eq!(f.get(&f.session()).await.unwrap(), 200);
    assert_eq!(f.server.counters().api_requests, 1);
    assert_eq!(f.server.counters().token_requests, 0);
}

#[tokio::test]
async fn a_logout_survives_a_restart() {
    let f = Files::new();
    let session = f.session();
    session.log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    soon(session.log_out()).await.unwrap();
    drop(session);
    let session = f.session();
    assert!(!session.is_logged_in().await.unwrap());
    assert!(found(&f.get(&session).await.unwrap_err()).is_logged_out());
    assert_eq!(f.server.counters().api_requests, 0);
}

// A file that is not as it should be.

#[tokio::test]
async fn a_damaged_file_is_a_lasting_store_error_and_logs_nobody_out() {
    let f = Files::new();
    f.session().log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    let whole = fs::read(&f.path).unwrap();
    let mut flipped = whole.clone();
    flipped[0] ^= 0x80;
    for damaged in [&whole[..whole.len() / 2], &flipped, b"", b"[]", &[0; 500]] {
        fs::write(&f.path, damaged).unwrap();
        let logouts = Logouts::default();
        let session = builder(&f.server).store(FileStore::new(&f.path));
        let session = session.on_logout(logouts.hook()).build().unwrap();
        let asked = soon(session.is_logged_in()).await.unwrap_err();
        let requested = f.get(&session).await.unwrap_err();
        for error in [&asked, found(&requested)] {
            assert!(error.is_store(), "{error:?}");
            assert!(!error.is_transient() && !error.is_logged_out(), "{error:?}");
            assert!(chain(error).contains(f.path.to_str().unwrap()), "{}", chain(error));
            assert!(chain(error).contains("damaged"), "{}", chain(error));
        }
        soon(session.drain()).await;
        assert_eq!(logouts.all(), []);
        assert_eq!(fs::read(&f.path).unwrap(), damaged, "the bytes are kept");
    }
    assert_eq!(f.server.counters().api_requests, 0);
    assert_eq!(f.server.counters().token_requests, 0);

    // A login puts it right, and keeps the damaged one for a person to look at.
    let session = f.session();
    session.log_in(tokens(&f.server.log_in("bob"))).await.unwrap();
    assert_eq!(f.get(&session).await.unwrap(), 200);
    assert_eq!(f.names(), ["session", "session.damaged"]);
    let aside = f.path.with_extension("damaged");
    assert_eq!(fs::read(&aside).unwrap(), [0; 500]);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&aside).unwrap()) & 0o777, 0o600);
    // A logout leaves no copy of a token.
    soon(session.log_out()).await.unwrap();
    assert_eq!(f.names(), ["session.….out"]);
}

#[tokio::test]
async fn what_can_not_be_read_is_an_error_and_no_logout_and_no_login_goes_over_it() {
    let f = Files::new();
    fs::create_dir_all(&f.path).unwrap();
    let error = soon(f.session().is_logged_in()).await.unwrap_err();
    assert!(error.is_store() && error.is_transient() && !error.is_logged_out(), "{error:?}");
    let login = soon(f.session().log_in(tokens(&f.server.log_in("alice")))).await.unwrap_err();
    assert!(login.is_store() && login.tokens().is_some(), "{login:?}");
    let store = FileStore::new(&f.path);
    assert!(!store.set_aside().unwrap_err().is_corrupt());
    fs::remove_dir(&f.path).unwrap();
    store.set_aside().unwrap();
    assert!(!f.path.with_extension("damaged").exists());
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_in_use_logs_nobody_out_and_spends_nothing() {
    let f = Files::new();
    let logouts = Logouts::default();
    let session = builder(&f.server).store(FileStore::new(&f.path)).on_logout(logouts.hook());
    let session = session.build().unwrap();
    session.log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    let whole = fs::read(&f.path).unwrap();
    fs::write(&f.path, "{").unwrap();
    f.server.expire_access_tokens();
    let error = f.get(&session).await.unwrap_err();
    assert!(found(&error).is_store(), "{error:?}");
    assert!(!found(&error).is_logged_out());
    assert_eq!(f.server.counters().token_requests, 0);
    // Put back by hand, perhaps from a backup.
    fs::write(&f.path, whole).unwrap();
    wait_out(found(&error).retry_after()).await;
    assert_eq!(f.get(&session).await.unwrap(), 200);
    assert_eq!(f.server.counters().token_requests, 1);
    soon(session.drain()).await;
    assert_eq!(logouts.all(), []);
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_left_alone_and_told() {
    let f = Files::new();
    let newer = r#"{"version":99,"what":"only the future knows"}"#;
    fs::create_dir_all(f.path.parent().unwrap()).unwrap();
    fs::write(&f.path, newer).unwrap();
    let session = f.session();
    let asked = soon(session.is_logged_in()).await.unwrap_err();
    let requested = f.get(&session).await.unwrap_err();
    for error in [&asked, found(&requested)] {
        assert!(error.is_configuration(), "{error:?}");
        assert!(!error.is_transient() && !error.is_logged_out(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(f.path.to_str().unwrap()) && text.contains("99"), "{text}");
        assert!(text.contains("newer") && text.contains("update"), "{text}");
    }
    // Nor does a login write over it.
    let error = soon(session.log_in(tokens(&f.server.log_in("alice")))).await.unwrap_err();
    assert!(error.is_configuration() && error.tokens().is_some(), "{error:?}");
    assert!(soon(session.log_out()).await.unwrap_err().is_configuration());
    drop(session);
    assert_eq!(fs::read_to_string(&f.path).unwrap(), newer);
    assert_eq!(f.server.counters().token_requests, 0);
}

#[tokio::test]
async fn the_record_of_another_endpoint_or_client_is_told_and_nothing_is_sent() {
    let f = Files::new();
    let elsewhere = MockServer::start();
    f.session().log_in(tokens(&f.server.log_in("alice"))).await.unwrap();
    f.server.expire_access_tokens();
    let before = fs::read(&f.path).unwrap();
    for endpoint in [
        OAuth2Endpoint::new(elsewhere.token_url(), "test"),
        OAuth2Endpoint::new(f.server.token_url(), "another-client"),
    ] {
        let session = Session::builder("test", endpoint)
            .origin(f.server.origin())
            .store(FileStore::new(&f.path))
            .build()
            .unwrap();
        let asked = soon(session.is_logged_in()).await.unwrap_err();
        let requested = f.get(&session).await.unwrap_err();
        for error in [&asked, found(&requested)] {
            assert!(error.is_configuration(), "{error:?}");
            assert!(!error.is_transient() && !error.is_logged_out(), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(f.path.to_str().unwrap()), "{text}");
            // Whose it is.
            assert!(text.contains(&format!("{} test", f.server.token_url())), "{text}");
        }
        // It is not this session's to clear, and who logs out is told that it stays.
        let left = soon(session.log_out()).await.unwrap_err();
        assert_eq!(left.to_string(), asked.to_string());
    }
    assert_eq!(fs::read(&f.path).unwrap(), before);
    for server in [&f.server, &elsewhere] {
        assert_eq!(server.counters().api_requests, 0);
        assert_eq!(server.counters().token_requests, 0);
    }
}

/// A file that can be read and, for now, not replaced, though there can be others beside it: a
/// mount point of its own, or one made immutable.
struct Stuck {
    file: FileStore,
    is_stuck: Arc<AtomicBool>,
}

impl TokenStore for Stuck {
    fn describe(&self) -> String {
        self.file.describe()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.file.load()
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        match self.is_stuck.load(Ordering::SeqCst) {
            true => Err(StoreError::unavailable("it is a mount point")),
            false => self.file.save(record),
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.file.clear()
    }

    fn shared(&self) -> Shared {
        self.file.shared()
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_replaced_is_found_out_before_anything_is_sent() {
    let t = Files::new();
    let issued = t.server.log_in("alice");
    t.session().log_in(tokens(&issued)).await.unwrap();
    let is_stuck = Arc::new(AtomicBool::new(true));
    let store = Stuck { file: FileStore::new(&t.path), is_stuck: Arc::clone(&is_stuck) };
    let session = builder(&t.server).store(store).build().unwrap();
    t.server.expire_access_tokens();
    let error = t.get(&session).await.unwrap_err();
    assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
    assert_eq!(t.server.counters().token_requests, 0);
    is_stuck.store(false, Ordering::SeqCst);
    wait_out(found(&error).retry_after()).await;
    assert_eq!(t.get(&session).await.unwrap(), 200);
    assert_eq!(refresh_tokens_sent(&t.server), [issued.refresh_token]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_place_of_the_file_is_an_error_and_no_logout_wherever_it_leads() {
    let (t, logouts) = (Files::new(), Logouts::default());
    let issued = t.server.log_in("alice");
    t.session().log_in(tokens(&issued)).await.unwrap();
    let session = builder(&t.server).store(FileStore::new(&t.path)).on_logout(logouts.hook());
    let session = session.build().unwrap();
    assert_eq!(t.get(&session).await.unwrap(), 200);
    let moved = t.path.with_file_name("moved");
    fs::rename(&t.path, &moved).unwrap();
    t.server.expire_access_tokens();
    for target in ["moved", "nowhere", "session"] {
        std::os::unix::fs::symlink(target, &t.path).unwrap();
        let error = t.get(&session).await.unwrap_err();
        assert!(found(&error).is_store() && found(&error).is_transient(), "{error:?}");
        let (why, target) = (chain(found(&error)), t.path.with_file_name(target));
        assert!(why.contains(&format!("leads to, {}", target.display())), "{why}");
        // Nor is it to the next start, which writes nothing through it, and removes nothing.
        let next = t.session();
        assert!(next.is_logged_in().await.unwrap_err().is_store());
        assert!(next.log_in(tokens(&issued)).await.unwrap_err().is_store());
        assert!(soon(next.log_out()).await.unwrap_err().is_store());
        wait_out(found(&error).retry_after()).await;
        fs::remove_file(&t.path).unwrap();
    }
    assert_eq!((t.server.counters().token_requests, logouts.all()), (0, vec![]));
    // Who names the file itself has it.
    let direct = builder(&t.server).store(FileStore::new(&moved)).build().unwrap();
    assert_eq!(t.get(&direct).await.unwrap(), 200);
    assert_eq!(refresh_tokens_sent(&t.server), [issued.refresh_token]);
}

/// A place for a file, whose directory is missing, and a server.
struct Files {
    server: MockServer,
    directory: TempDir,
    path: PathBuf,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing").join("too").join("session");
        Self { server: MockServer::start(), directory, path }
    }

    /// What a start of the program makes.
    fn session(&self) -> Session {
        builder(&self.server).store(FileStore::new(&self.path)).build().unwrap()
    }

    async fn get(&self, session: &Session) -> reqwest_middleware::Result<u16> {
        let request = client(session).get(self.server.api_url("things")).send();
        soon(request).await.map(|response| response.status().as_u16())
    }

    async fn refresh(&self, session: &Session) {
        let before = self.server.counters().refreshes;
        self.server.expire_access_tokens();
        assert_eq!(self.get(session).await.unwrap(), 200);
        assert_eq!(self.server.counters().refreshes, before + 1);
    }

    /// What is there beside the lock, which stays.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path.parent().unwrap()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "session.lock");
        for name in &mut names {
            // Named by a hash of the login.
            if let Some((head, hash)) = name.strip_suffix(".out").and_then(|n| n.split_once('.')) {
                assert_eq!(hash.len(), 32);
                *name = format!("{head}.….out");
            }
        }
        names.sort();
        names
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
