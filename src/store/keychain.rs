//! The keychain of the operating system: the default store.
//!
//! What keychains have in common is `keyring-core`'s; what they differ in is a `Backend`, one for
//! each `platform`. A record that is too long for an entry is kept in several: see `parts`.

mod backend;
mod parts;
mod platform;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyring_core::{CredentialStore, Entry, Error as Refusal};
use zeroize::Zeroizing;

use crate::store::keychain::backend::Backend;
use crate::store::keychain::parts::Parts;
use crate::store::{Record, Shared, StoreError, TokenStore};

/// Keeps the record in the operating system's keychain: the Keychain on macOS, the Credential
/// Manager on Windows, the Secret Service (GNOME Keyring, KWallet, KeePassXC) elsewhere.
///
/// This is where a session keeps its tokens unless it is given another store, with the session's
/// service and account for the entry's name. Nothing process-wide is touched, and nothing falls
/// back: where there is no keychain, the error says so, and what to do.
///
/// One entry belongs to one session of one account. Never copy it to another machine, where both
/// copies would spend the same refresh token; on Windows it doesn't roam. Records longer than an
/// entry may be (2,560 bytes on Windows) are split, in such an order that a save which is
/// interrupted leaves the old record or the new one.
///
/// What another program stored there, a token response (RFC 6749 §5.1) as JSON, is taken over as
/// it is; on Windows, only where service and account are simple names (`a`-`z`, `0`-`9`, `-`,
/// `_`, `@`). From another entry, take it over by hand:
///
/// ```no_run
/// use reqwest_reauth::{KeychainStore, TokenResponse, TokenStore};
///
/// # async fn import(session: reqwest_reauth::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let old = KeychainStore::new("old-cli", "alice");
/// // The calls block: not on a runtime's thread.
/// let (record, old) = tokio::task::spawn_blocking(move || (old.load(), old)).await?;
/// if let Some(record) = record? {
///     session.log_in(TokenResponse::from_json(record.as_bytes())?).await?;
///     tokio::task::spawn_blocking(move || old.clear()).await??; // two programs would spend one token
/// }
/// # Ok(())
/// # }
/// ```
pub struct KeychainStore {
    service: String,
    account: String,
    backend: Backend,
    /// The connection to the keychain, while nobody uses it. A call takes it out and puts it back
    /// when it has ended well: one that hangs or fails is never used again.
    idle: Mutex<Option<Arc<CredentialStore>>>,
}

impl KeychainStore {
    /// The entry of `account` under `service` in the keychain of this machine's user.
    pub fn new(service: impl Into<String>, account: impl Into<String>) -> Self {
        Self::at(platform::native(), service, account)
    }

    /// As [`new`](Self::new), in another store of the keyring family, called `name` where people
    /// read of it: `open` connects to it, at the first use and again when a connection has failed.
    pub fn with_backend(
        name: impl Into<String>,
        service: impl Into<String>,
        account: impl Into<String>,
        open: impl Fn() -> keyring_core::Result<Arc<CredentialStore>> + Send + Sync + 'static,
    ) -> Self {
        Self::at(Backend::other(name.into(), Box::new(open)), service, account)
    }

    fn at(backend: Backend, service: impl Into<String>, account: impl Into<String>) -> Self {
        Self { service: service.into(), account: account.into(), backend, idle: Mutex::new(None) }
    }

    /// Runs `call` on the keychain, and once more on a new connection if that failed: a keychain's
    /// daemon that was restarted knows nothing of the connections before, and an entry that is
    /// removed while it is looked at is a failure, too.
    fn call<T>(&self, call: impl Fn(&Entries<'_>) -> Result<T, Trouble>) -> Result<T, StoreError> {
        let Self { backend, service, account, .. } = self;
        let is_failed =
            |result: &_| matches!(result, Err(Trouble::Refused(Refusal::PlatformFailure(_))));
        let attempt = |store: Arc<CredentialStore>| {
            let result = call(&Entries { backend, store: &*store, service, account });
            if !is_failed(&result) {
                *self.idle() = Some(store);
            }
            result
        };
        let open = || (backend.open)().map_err(Trouble::NotOpened);
        let idle = self.idle().take();
        let first = idle.map_or_else(open, Ok).and_then(attempt);
        let result = match is_failed(&first) && backend.reconnects {
            true => open().and_then(attempt),
            false => first,
        };
        result.map_err(|trouble| trouble.tell(backend))
    }

    fn idle(&self) -> MutexGuard<'_, Option<Arc<CredentialStore>>> {
        // It is replaced in one step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for KeychainStore {
    fn describe(&self) -> String {
        format!("{} (entry {:?}, account {:?})", self.backend.name, self.service, self.account)
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        self.call(|entries| {
            let bytes = parts::load(&entries.main()?, entries)?;
            Ok(bytes.map(|bytes| Record::from_bytes(&bytes)))
        })
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.call(|entries| parts::save(&entries.main()?, entries, record.as_bytes()))
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.call(|entries| {
            parts::remove(&entries.main()?, entries)?;
            parts::remove(&entries.damaged()?, entries)?;
            entries.remove_leftovers()
        })
    }

    fn shared(&self) -> Shared {
        Shared::Named(format!("{} {:?} {:?}", self.backend.id, self.service, self.account))
    }

    fn set_aside(&self) -> Result<(), StoreError> {
        self.call(|entries| {
            let (main, damaged) = (entries.main()?, entries.damaged()?);
            let Some(bytes) = parts::load_what_is_there(&main, entries)? else {
                return Ok(());
            };
            parts::save(&damaged, entries, &bytes)
        })
    }

    fn may_lose(&self) -> bool {
        true
    }

    fn asks_a_person(&self) -> bool {
        (self.backend.asks_a_person)(&self.service, &self.account)
    }
}

impl fmt::Debug for KeychainStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeychainStore")
            .field("service", &self.service)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// The entries that belong to one record.
struct Entries<'a> {
    backend: &'a Backend,
    store: &'a CredentialStore,
    service: &'a str,
    account: &'a str,
}

impl Entries<'_> {
    fn main(&self) -> Result<Entry, Trouble> {
        self.entry(self.account)
    }

    /// Where a record is kept aside that can't be read.
    fn damaged(&self) -> Result<Entry, Trouble> {
        self.entry(&format!("{}{DAMAGED}", self.account))
    }

    fn part(&self, parts: &Parts, n: usize) -> Result<Entry, Trouble> {
        self.entry(&format!("{}{PART}{}.{n}", self.account, parts.id))
    }

    fn entry(&self, account: &str) -> Result<Entry, Trouble> {
        self.backend.entry(self.store, self.service, account).map_err(Trouble::Refused)
    }

    /// Removes the parts that belong to no record, because a save was interrupted: there are
    /// pieces of tokens in them.
    fn remove_leftovers(&self) -> Result<(), Trouble> {
        if !self.backend.splits {
            return Ok(());
        }
        let prefix = format!("{}{PART}", self.account);
        let found = self.backend.entries(self.store, self.service, &prefix);
        found.map_err(Trouble::Refused)?.iter().try_for_each(delete)
    }
}

/// What an entry holds.
fn read(entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
    match entry.get_secret() {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(Refusal::NoEntry) => Ok(None),
        Err(refusal) => Err(Trouble::Refused(refusal)),
    }
}

fn delete(entry: &Entry) -> Result<(), Trouble> {
    match entry.delete_credential() {
        Ok(()) | Err(Refusal::NoEntry) => Ok(()),
        // All of them are this record's: the user asked for it to go.
        Err(Refusal::Ambiguous(entries)) => entries.iter().try_for_each(delete),
        Err(refusal) => Err(Trouble::Refused(refusal)),
    }
}

/// Why a call came to nothing.
enum Trouble {
    NotOpened(Refusal),
    Refused(Refusal),
    /// What is stored isn't what was saved.
    Damaged(&'static str),
}

impl Trouble {
    /// Whether it lies in what is stored, and not in how it is reached.
    fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged(_)
                | Self::Refused(
                    Refusal::Ambiguous(_)
                        | Refusal::BadEncoding(_)
                        | Refusal::BadDataFormat(..)
                        | Refusal::BadStoreFormat(_)
                )
        )
    }

    /// For a person. The keyring family's own errors may hold what is stored, so that only those
    /// of the platform are passed on.
    fn tell(self, backend: &Backend) -> StoreError {
        match self {
            Self::NotOpened(Refusal::PlatformFailure(e) | Refusal::NoStorageAccess(e)) => {
                (backend.not_opened)(e)
            }
            Self::Refused(Refusal::PlatformFailure(e) | Refusal::NoStorageAccess(e)) => {
                (backend.refused)(e)
            }
            Self::Refused(Refusal::Ambiguous(entries)) => StoreError::corrupt(format!(
                "there are {} entries of that name: remove those of other programs, or log in \
                 again, which replaces them all",
                entries.len()
            )),
            Self::Refused(
                Refusal::BadEncoding(_) | Refusal::BadDataFormat(..) | Refusal::BadStoreFormat(_),
            ) => StoreError::corrupt("the keychain finds its own entry damaged: log in again"),
            Self::Refused(Refusal::Invalid(what, why)) => {
                StoreError::unavailable(format!("it refuses the {what}, which {why}"))
            }
            Self::NotOpened(refusal) | Self::Refused(refusal) => {
                StoreError::unavailable(format!("it refused: {refusal}"))
            }
            Self::Damaged(what) => StoreError::corrupt(what),
        }
    }
}

/// Behind an account's name. No program names its accounts like that.
const DAMAGED: &str = " (damaged)";
const PART: &str = " (part) ";
