//! Records that are longer than a keychain's entry may be: on a real Secret Service, wrapped to
//! refuse what Windows' Credential Manager refuses.
#![cfg(all(feature = "keychain", target_os = "linux"))]

#[path = "support/keychain.rs"]
mod keychain;

use std::any::Any;
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyring_core::api::{Credential, CredentialApi, CredentialStoreApi};
use keyring_core::{CredentialStore, Entry, Error, Result};
use reqwest_reauth::{KeychainStore, OAuth2Endpoint, Record, Session, TokenResponse, TokenStore};

use crate::keychain::{in_a_session, said};

/// The Secret Service, with entries of at most [`LIMIT`] bytes.
#[derive(Debug)]
struct Small {
    inner: Arc<CredentialStore>,
}

fn small() -> Result<Arc<CredentialStore>> {
    Ok(Arc::new(Small { inner: zbus_secret_service_keyring_store::Store::new()? }))
}

fn store() -> KeychainStore {
    KeychainStore::with_backend("the small keychain", SERVICE, "work", small)
}

impl CredentialStoreApi for Small {
    fn vendor(&self) -> String {
        "test".to_owned()
    }

    fn id(&self) -> String {
        "small".to_owned()
    }

    fn build(&self, of: &str, user: &str, with: Option<&HashMap<&str, &str>>) -> Result<Entry> {
        let inner = self.inner.build(of, user, with)?;
        Ok(Entry::new_with_credential(Arc::new(SmallEntry { inner })))
    }

    fn search(&self, spec: &HashMap<&str, &str>) -> Result<Vec<Entry>> {
        self.inner.search(spec)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug)]
struct SmallEntry {
    inner: Entry,
}

impl CredentialApi for SmallEntry {
    fn set_secret(&self, secret: &[u8]) -> Result<()> {
        if secret.len() > LIMIT {
            return Err(Error::TooLong("secret".to_owned(), 2560));
        }
        die_at_this_write();
        self.inner.set_secret(secret)
    }

    fn get_secret(&self) -> Result<Vec<u8>> {
        self.inner.get_secret()
    }

    fn delete_credential(&self) -> Result<()> {
        die_at_this_write();
        self.inner.delete_credential()
    }

    fn get_credential(&self) -> Result<Option<Arc<Credential>>> {
        Ok(None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        self.inner.get_specifiers()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn records_of_any_size_come_back_as_they_were() {
    in_a_session("records_of_any_size_come_back_as_they_were", async |keychain| {
        // Each over the one before, longer and shorter; with the entries that each takes.
        let sizes = [(1280, 1), (16384, 8), (1281, 1), (2561, 3), (2560, 1), (5121, 4), (1, 1)];
        for (size, entries) in sizes {
            let record = record(b'x', size);
            store().save(&record).unwrap();
            let read = store().load().unwrap().unwrap();
            assert!(read.as_bytes() == record.as_bytes(), "{size} bytes");
            assert_eq!(keychain.entries(SERVICE).len(), entries, "for {size} bytes");
        }
        store().clear().unwrap();
        assert_eq!(keychain.entries(SERVICE), []);
        assert!(store().load().unwrap().is_none());
    });
}

#[test]
fn a_record_that_looks_like_the_names_of_parts_comes_back_as_it_was() {
    in_a_session(
        "a_record_that_looks_like_the_names_of_parts_comes_back_as_it_was",
        async |_keychain| {
            let odd = Record::from_bytes(br#"{"parts":2,"id":"0000000000000000","length":9}"#);
            store().save(&odd).unwrap();
            assert_eq!(store().load().unwrap().unwrap().as_bytes(), odd.as_bytes());
        },
    );
}

#[test]
fn a_session_with_long_tokens_is_kept() {
    in_a_session("a_session_with_long_tokens_is_kept", async |keychain| {
        let state = tempfile::tempdir().unwrap();
        let session = || {
            let endpoint = OAuth2Endpoint::new("https://id.example.com/token", "test");
            let builder = Session::builder(SERVICE, endpoint).origin("https://api.example.com");
            builder.store(store()).state_dir(state.path()).build().unwrap()
        };
        let (access, refresh) = ("a".repeat(4875), "r".repeat(1200));
        session().log_in(TokenResponse::new(&access).refresh_token(&refresh)).await.unwrap();
        assert_eq!(keychain.entries(SERVICE).len(), 4);
        assert_eq!(session().access_token().await.unwrap().secret(), access);
        session().log_out().await.unwrap();
        assert_eq!(keychain.entries(SERVICE), []);
    });
}

#[test]
fn a_record_with_a_part_missing_is_damaged_and_its_rest_is_kept_aside() {
    let name = "a_record_with_a_part_missing_is_damaged_and_its_rest_is_kept_aside";
    in_a_session(name, async |keychain| {
        store().save(&record(b'x', 6000)).unwrap();
        let part = keychain.entries(SERVICE).into_iter().nth(2).unwrap().0;
        assert!(part.starts_with("work (part) ") && part.ends_with(".1"), "{part}");
        keychain.take(SERVICE, &part);
        let error = store().load().unwrap_err();
        assert!(error.is_corrupt() && !error.is_locked(), "{error:?}");
        assert!(error.to_string().contains("parts of its entry are missing"), "{error}");
        store().set_aside().unwrap();
        store().save(&record(b'y', 10)).unwrap();
        let entries = keychain.entries(SERVICE);
        let aside = entries.iter().find(|(user, _)| user == "work (damaged)").unwrap();
        // All that came before the gap.
        assert!(aside.1 == record(b'x', 2560).as_bytes());
        store().clear().unwrap();
        assert_eq!(keychain.entries(SERVICE), []);
    });
}

/// A save of a long record over a long one, killed before each of its writes in turn.
#[test]
fn a_save_that_is_killed_leaves_the_old_record_or_the_new_one() {
    let name = "a_save_that_is_killed_leaves_the_old_record_or_the_new_one";
    in_a_session(name, async |keychain| {
        let (old, new) = (record(b'o', 6000), record(b'n', 7000));
        if killed() {
            return store().save(&new).unwrap();
        }
        let mut left = Vec::new();
        // 3 parts, the main entry, 3 old parts.
        for write in 1..=7 {
            store().clear().unwrap();
            store().save(&old).unwrap();
            run_killed(name, write);
            let read = store().load().unwrap().expect("the old one or the new one");
            let is_new = read.as_bytes() == new.as_bytes();
            assert!(is_new || read.as_bytes() == old.as_bytes(), "killed at write {write}");
            left.push(is_new);
        }
        assert_eq!(left, [false, false, false, false, true, true, true]);
        store().clear().unwrap();
        store().save(&old).unwrap();
        run_to_the_end(name, 8);
        assert_eq!(keychain.entries(SERVICE).len(), 4);
        // What a killed one leaves behind goes with the logout.
        run_killed(name, 3);
        assert_eq!(keychain.entries(SERVICE).len(), 6, "two parts that nobody names");
        store().clear().unwrap();
        assert_eq!(keychain.entries(SERVICE), []);
    });
}

#[test]
fn a_logout_that_is_killed_leaves_the_record_or_none() {
    let name = "a_logout_that_is_killed_leaves_the_record_or_none";
    in_a_session(name, async |keychain| {
        let whole = record(b'o', 6000);
        if killed() {
            return store().clear().unwrap();
        }
        for write in 1..=4 {
            store().save(&whole).unwrap();
            run_killed(name, write);
            match store().load().unwrap() {
                Some(read) => assert!(write == 1 && read.as_bytes() == whole.as_bytes()),
                None => assert_ne!(write, 1),
            }
        }
        store().clear().unwrap();
        assert_eq!(keychain.entries(SERVICE), []);
    });
}

/// Runs this test as a process that kills itself before its `write`th write.
fn run_killed(name: &str, write: usize) {
    let output = again(name, write);
    assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
}

fn run_to_the_end(name: &str, write: usize) {
    let output = again(name, write);
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}

fn again(name: &str, write: usize) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(DIE, write.to_string())
        .output()
        .unwrap()
}

/// Whether this is the process that is going to be killed.
fn killed() -> bool {
    std::env::var_os(DIE).is_some()
}

fn die_at_this_write() {
    static WRITES: AtomicUsize = AtomicUsize::new(0);
    let write = WRITES.fetch_add(1, Ordering::SeqCst) + 1;
    if std::env::var(DIE).is_ok_and(|at| at == write.to_string()) {
        let pid = std::process::id().to_string();
        let status = Command::new("kill").args(["-9", &pid]).status();
        unreachable!("killed: {status:?}");
    }
}

fn record(byte: u8, size: usize) -> Record {
    Record::from_bytes(&vec![byte; size])
}

const SERVICE: &str = "reauth-test";
const LIMIT: usize = 2560;
const DIE: &str = "REAUTH_TEST_DIE_AT_WRITE";
