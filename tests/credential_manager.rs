//! The keychain of Windows: what is in it, whole and for this machine alone, and what becomes of
//! it when programs are killed.
#![cfg(all(feature = "keychain", windows))]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyring_core::Entry;
use keyring_core::api::CredentialStoreApi;
use mock_server::{MockServer, Route};
use reqwest_reauth::{KeychainStore, Record, Session, TokenStore};
use support::{client, endpoint, found, soon, tokens};
use windows_native_keyring_store::Store;

// Records.

#[test]
fn records_of_any_size_are_whole_and_replaced_by_shorter_and_longer_ones_without_remains() {
    let _alone = alone();
    let account = "sizes";
    let store = KeychainStore::new(SERVICE, account);
    for before in SIZES {
        for size in SIZES {
            store.save(&record(b'o', before)).unwrap();
            let record = record(b'n', size);
            store.save(&record).unwrap();
            let read = store.load().unwrap().unwrap();
            assert!(read.as_bytes() == record.as_bytes(), "{size} after {before}");
            let parts = if size > LIMIT { size.div_ceil(LIMIT) } else { 0 };
            assert_eq!(entries(account).len(), 1 + parts, "{size} after {before}");
        }
    }
    store.clear().unwrap();
    assert!(store.load().unwrap().is_none());
    assert_eq!(entries(account).len(), 0);
    // Cleared already.
    store.clear().unwrap();
}

#[test]
fn no_entry_roams_to_other_machines() {
    let _alone = alone();
    let account = "roaming";
    let store = KeychainStore::new(SERVICE, account);
    store.save(&record(b'a', 5000)).unwrap();
    let entries = entries(account);
    assert_eq!(entries.len(), 3);
    for entry in &entries {
        assert_eq!(entry.get_attributes().unwrap()["persistence"], "Local");
    }
    store.clear().unwrap();
}

#[test]
fn parts_that_no_record_names_any_more_go_with_the_next_clear() {
    let _alone = alone();
    let account = "leftovers";
    let (store, neighbour) =
        (KeychainStore::new(SERVICE, account), KeychainStore::new(SERVICE, format!("{account}-2")));
    neighbour.save(&record(b'a', 5000)).unwrap();
    store.save(&record(b'a', 5000)).unwrap();
    put(account).set_secret(b"something else").unwrap();
    assert_eq!(entries(account).len(), 6);
    store.clear().unwrap();
    assert_eq!(entries(account).len(), 3, "those of the other account");
    assert_eq!(neighbour.load().unwrap().unwrap().as_bytes(), [b'a'; 5000]);
    neighbour.clear().unwrap();
}

/// The Credential Manager takes names that differ only in case for one.
#[test]
fn accounts_that_look_alike_do_not_meet() {
    let _alone = alone();
    let accounts = ["alike", "Alike", "ALIKE", "alike.", "alike%2e"];
    let stores = accounts.map(|account| KeychainStore::new(SERVICE, account));
    for (store, account) in stores.iter().zip(accounts) {
        store.save(&Record::from_bytes(account.as_bytes())).unwrap();
    }
    for (store, account) in stores.iter().zip(accounts) {
        assert_eq!(store.load().unwrap().unwrap().as_bytes(), account.as_bytes());
        store.clear().unwrap();
    }
}

// Processes.

#[test]
fn a_record_is_there_for_the_next_process() {
    let _alone = alone();
    let store = KeychainStore::new(SERVICE, "next");
    let record = record(b'a', 5000);
    if is_inside() {
        return store.save(&record).unwrap();
    }
    let output = again("a_record_is_there_for_the_next_process").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(store.load().unwrap().unwrap().as_bytes(), record.as_bytes());
    store.clear().unwrap();
}

/// Wherever it is killed: the steps are tested one by one on a store that counts them.
#[test]
fn a_program_that_is_killed_while_it_saves_leaves_one_whole_record() {
    let _alone = alone();
    let account = "killed";
    let store = KeychainStore::new(SERVICE, account);
    let records = [record(b'a', 5000), record(b'b', 16_384)];
    if is_inside() {
        for record in records.iter().cycle() {
            store.save(record).unwrap();
            println!("{SAVED}");
        }
    }
    for saves in 1..=10 {
        let mut program = again("a_program_that_is_killed_while_it_saves_leaves_one_whole_record")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
        let saved = lines.by_ref().filter(|line| line.ends_with(SAVED)).take(saves).count();
        assert_eq!(saved, saves);
        program.kill().unwrap();
        program.wait().unwrap();
        let read = store.load().unwrap().unwrap();
        assert!(records.iter().any(|record| record.as_bytes() == read.as_bytes()), "torn");
    }
    store.clear().unwrap();
    assert_eq!(entries(account).len(), 0);
}

// Sessions.

#[test]
fn a_login_is_in_the_credential_manager_until_the_logout_and_rotates_there() {
    let _alone = alone();
    runtime().block_on(async {
        let (server, account) = (MockServer::start(), "rotates");
        let issued = server.log_in("alice");
        session(&server, account).log_in(tokens(&issued)).await.unwrap();
        assert_eq!(entries(account).len(), 1);

        let again = session(&server, account);
        assert_eq!(get(&server, &again).await.unwrap(), 200);
        server.expire_access_tokens();
        assert_eq!(get(&server, &again).await.unwrap(), 200);
        drop(again);
        let again = session(&server, account);
        assert_eq!(get(&server, &again).await.unwrap(), 200);
        let counters = server.counters();
        assert_eq!((counters.refreshes, counters.token_requests, counters.reuses), (1, 1, 0));

        soon(again.log_out()).await.unwrap();
        assert_eq!(entries(account).len(), 0);
        assert_eq!(server.counters().revocations, 1);
        let error = get(&server, &session(&server, account)).await.unwrap_err();
        assert!(found(&error).is_logged_out(), "{error:?}");
    });
}

#[test]
fn the_token_response_of_another_program_is_taken_over() {
    let _alone = alone();
    runtime().block_on(async {
        let (server, account) = (MockServer::start(), "taken-over");
        let json = server.log_in("alice").json();
        put(account).set_secret(json.as_bytes()).unwrap();
        let session = session(&server, account);
        assert_eq!(get(&server, &session).await.unwrap(), 200);
        soon(session.log_out()).await.unwrap();
    });
}

/// They meet in the local application data that Windows itself knows of.
#[test]
fn programs_with_other_environments_meet_at_one_lock_and_make_one_refresh() {
    let _alone = alone();
    let name = "programs_with_other_environments_meet_at_one_lock_and_make_one_refresh";
    let account = "environment";
    if is_inside() {
        return call(account);
    }
    let server = MockServer::start();
    let session = session(&server, account);
    runtime().block_on(session.log_in(tokens(&server.log_in("alice")))).unwrap();
    server.expire_access_tokens();
    server.barrier(Route::Api, 3);
    let elsewhere = tempfile::tempdir().unwrap();
    let programs = ["a", "b", "c"].map(|home| {
        let home = elsewhere.path().join(home);
        fs::create_dir(&home).unwrap();
        let mut program = again(name);
        program.envs(["LOCALAPPDATA", "APPDATA", "TEMP", "TMP", "HOME"].map(|name| (name, &home)));
        program.env(SERVER, server.origin()).stdout(Stdio::null()).spawn().unwrap()
    });
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    let counters = server.counters();
    assert_eq!((counters.token_requests, counters.refreshes, counters.reuses), (1, 1, 0));
    assert_eq!(counters.api_ok, 3);

    let local = PathBuf::from(std::env::var_os("LOCALAPPDATA").unwrap()).join("reqwest-reauth");
    let names = fs::read_dir(local).unwrap().map(|entry| entry.unwrap().file_name());
    let locks = names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.starts_with("keychain-reauth-test-environment."))
        .filter(|name| name.ends_with(".lock"));
    assert_eq!(locks.count(), 1);
    for home in fs::read_dir(elsewhere.path()).unwrap() {
        assert!(!home.unwrap().path().join("reqwest-reauth").exists());
    }
    runtime().block_on(session.log_out()).unwrap();
}

/// The other program of that test: one call.
fn call(account: &str) {
    let origin = std::env::var(SERVER).unwrap();
    let endpoint = reqwest_reauth::OAuth2Endpoint::new(format!("{origin}/token"), "test");
    let session =
        Session::builder(SERVICE, endpoint).account(account).origin(&origin).build().unwrap();
    let status = runtime().block_on(async {
        let response = soon(client(&session).get(format!("{origin}/api/things")).send()).await;
        response.unwrap().status()
    });
    assert_eq!(status, 200);
}

fn session(server: &MockServer, account: &str) -> Session {
    let builder = Session::builder(SERVICE, endpoint(server)).origin(server.origin());
    builder.account(account).build().unwrap()
}

async fn get(server: &MockServer, session: &Session) -> Result<u16, reqwest_middleware::Error> {
    let response = soon(client(session).get(server.api_url("things")).send()).await?;
    Ok(response.status().as_u16())
}

/// Wine's list of credentials is damaged when others write meanwhile: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has told so itself.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All entries whose account begins like that.
fn entries(account: &str) -> Vec<Entry> {
    let pattern = format!("^{account}.*{SERVICE}$");
    Store::new().unwrap().search(&HashMap::from([("pattern", &*pattern)])).unwrap()
}

/// The entry of that account as another program has it.
fn put(account: &str) -> Entry {
    Store::new().unwrap().build(SERVICE, account, None).unwrap()
}

fn record(byte: u8, size: usize) -> Record {
    Record::from_bytes(&vec![byte; size])
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The test of that name once more, as another program.
fn again(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    command
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

const SERVICE: &str = "reauth-test";
const SIZES: [usize; 7] = [100, 1280, 1281, 2560, 2561, 5000, 16_384];
/// What the Credential Manager takes.
const LIMIT: usize = 2560;
const INSIDE: &str = "REAUTH_TEST_INSIDE";
const SERVER: &str = "REAUTH_TEST_SERVER";
const SAVED: &str = "saved";
