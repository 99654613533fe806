//! A store that several programs reach, such as a keychain: each session on it is a program.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mock_server::{Issued, MockServer};
use reqwest_reauth::{Event, Events, MemoryStore, Record, Session, Shared, StoreError, TokenStore};

use super::{Call, Logouts, Turnstile, builder, client, soon, tokens};

/// A user whose tokens are in the vault, and the directory where programs meet.
pub struct User {
    pub server: MockServer,
    pub vault: Vault,
    pub state: tempfile::TempDir,
    pub logouts: Logouts,
}

#[derive(Clone, Default)]
pub struct Vault {
    pub memory: MemoryStore,
    fails: Arc<Mutex<Vec<Call>>>,
    fails_once: Arc<Mutex<Option<Call>>>,
    dies: Arc<Mutex<Option<Leaves>>>,
    parks: Arc<Mutex<Option<(Call, Turnstile)>>>,
    parks_all: Arc<Mutex<Option<Turnstile>>>,
}

/// What the vault itself finds to be no whole record.
pub const TORN: &[u8] = b"torn";

/// What a save does that is told as failed.
pub type Leaves = fn(&MemoryStore, &Record);

impl Vault {
    /// Lets the next save fail, whatever it has done, and all calls after it.
    pub fn die_at_next_save(&self, leaves: Leaves) {
        *self.dies.lock().unwrap() = Some(leaves);
    }

    /// Lets these calls fail from now on, and no others.
    pub fn fail(&self, calls: &[Call]) {
        *self.fails.lock().unwrap() = calls.to_vec();
    }

    /// Lets the next such call fail.
    pub fn fail_next(&self, call: Call) {
        *self.fails_once.lock().unwrap() = Some(call);
    }

    /// Parks the next such call until the turnstile is opened.
    pub fn park_next(&self, call: Call) -> Turnstile {
        let turnstile = Turnstile::default();
        *self.parks.lock().unwrap() = Some((call, turnstile.clone()));
        turnstile
    }

    /// Parks every call from now on until the turnstile is opened.
    pub fn park_all(&self) -> Turnstile {
        self.parks_all.lock().unwrap().insert(Turnstile::default()).clone()
    }

    /// What it holds.
    pub fn text(&self) -> Option<String> {
        super::text(&self.memory)
    }

    fn ask(&self, call: Call) -> Result<(), StoreError> {
        let parked = self.parks.lock().unwrap().take_if(|(parks, _)| *parks == call);
        if let Some((_, turnstile)) = parked {
            turnstile.pass();
        }
        let all = self.parks_all.lock().unwrap().clone();
        if let Some(turnstile) = all {
            turnstile.pass();
        }
        let fails_once = self.fails_once.lock().unwrap().take_if(|fails| *fails == call).is_some();
        match fails_once || self.fails.lock().unwrap().contains(&call) {
            true => Err(StoreError::locked("the test has locked it")),
            false => Ok(()),
        }
    }
}

impl TokenStore for Vault {
    fn describe(&self) -> String {
        "the vault".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.ask(Call::Load)?;
        match self.memory.load()? {
            Some(record) if record.as_bytes() == TORN => Err(StoreError::corrupt("it is torn")),
            record => Ok(record),
        }
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.ask(Call::Save)?;
        if let Some(leaves) = self.dies.lock().unwrap().take() {
            leaves(&self.memory, record);
            self.fail(&[Call::Load, Call::Save, Call::Clear]);
            return Err(StoreError::unavailable("it has died"));
        }
        self.memory.save(record)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.ask(Call::Clear)?;
        self.memory.clear()
    }

    fn shared(&self) -> Shared {
        Shared::Named("vault".to_owned())
    }

    fn may_lose(&self) -> bool {
        true
    }
}

impl User {
    pub fn of(server: MockServer) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self { server, vault: Vault::default(), state, logouts: Logouts::default() }
    }

    pub fn new() -> Self {
        Self::of(MockServer::start())
    }

    /// A session, as another program would have it.
    pub fn program(&self) -> Session {
        let builder = builder(&self.server).store(self.vault.clone());
        let builder = builder.state_dir(self.state.path().join("state"));
        builder.on_logout(self.logouts.hook()).lock_wait(Duration::from_secs(10)).build().unwrap()
    }

    pub async fn logged_in(&self) -> (Session, Issued) {
        let (session, issued) = (self.program(), self.server.log_in("alice"));
        session.log_in(tokens(&issued)).await.unwrap();
        (session, issued)
    }

    pub async fn get(&self, session: &Session) -> Result<u16, reqwest_middleware::Error> {
        let response = soon(client(session).get(self.server.api_url("things")).send()).await?;
        Ok(response.status().as_u16())
    }

    /// The file of that kind beside the lock, such as `mark`.
    pub fn file(&self, kind: &str) -> Option<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.state.path().join("state")).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|extension| extension == kind))
    }

    /// Where the file of that kind would be.
    pub fn place(&self, kind: &str) -> std::path::PathBuf {
        self.file("lock").unwrap().with_extension(kind)
    }
}

/// What has happened so far.
pub fn seen(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.try_next()).collect()
}
