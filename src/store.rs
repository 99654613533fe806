//! Where a session's record is kept.
//!
//! [`TokenStore`] is the seam; [`KeychainStore`] is the default, [`MemoryStore`] for tests and
//! demos, [`FileStore`] an explicit choice for hosts without a keychain. A store keeps one record,
//! as it got it: what is in a record, and which of two is newer, is the session's business.

mod asking;
pub(crate) mod durable;
mod file;
pub use file::FileStore;
mod kept;
pub(crate) use kept::{Before, Commit, Kept, Loaded, Marked, Odd};
#[cfg(feature = "keychain")]
mod keychain;
#[cfg(feature = "keychain")]
pub use keychain::KeychainStore;
mod memory;
pub use memory::MemoryStore;
mod notes;
pub(crate) use notes::Notes;
mod record;
pub use record::Record;
pub(crate) use record::{Brief, Pin, Unreadable, from_millis, millis};
mod thread;
mod unlocking;
pub(crate) use thread::{LateWrite, Patience, StoreThread};

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Keeps the record of one session.
///
/// The methods may block: they run on a thread that the session keeps for its store. A call that
/// takes longer than [3 seconds](crate::SessionBuilder::store_wait) is given up by the session,
/// which goes on with a transient error. The call itself goes on; while it is a write, no other
/// call starts, and beside a `load` that hangs, later calls run on another thread.
pub trait TokenStore: Send + Sync + 'static {
    /// Names the store for people, for instance `the file /home/me/.config/tokens.json`.
    fn describe(&self) -> String;

    /// Reads the record. `None` only when there certainly is none: it logs the user out. A store
    /// that cannot be asked right now answers with an error.
    ///
    /// # Errors
    /// The store can't be read, is locked, or holds something that isn't a record.
    fn load(&self) -> Result<Option<Record>, StoreError>;

    /// Writes the record, over the one before: whole or not at all, and durable on return.
    ///
    /// # Errors
    /// The record wasn't written; the one before is still there.
    fn save(&self, record: &Record) -> Result<(), StoreError>;

    /// Removes the record. One that isn't there is removed already.
    ///
    /// # Errors
    /// The record may still be there.
    fn clear(&self) -> Result<(), StoreError>;

    /// Where the programs that share the record meet: there they take turns (a lock that is never
    /// taken by two), and note what the others have to know. It stays the same over versions of a
    /// program. Default: named as described.
    fn shared(&self) -> Shared {
        Shared::Named(self.describe())
    }

    /// Keeps a copy of what is stored and can't be read, where a person can look at it: a login
    /// is about to replace it. A later [`clear`](Self::clear) removes the copy too. Default:
    /// nothing is kept.
    ///
    /// # Errors
    /// The copy wasn't made: then the login fails, and nothing is replaced.
    fn set_aside(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether [`load`](Self::load) also gives `None` where the record was lost, as keychains do
    /// whose file is damaged or not there. The session then notes elsewhere that somebody is
    /// logged in, and takes `None` for a logout only if it doesn't say so. Default: no.
    fn may_lose(&self) -> bool {
        false
    }

    /// Whether a call waits for a person who is asked to unlock the store, or would if it were made
    /// now. Asked on another thread while a call takes long; then the session waits for up to
    /// 2 minutes [more](crate::SessionBuilder::store_wait), where it is not in the middle of a
    /// refresh. Asked too before a read that follows one that failed as
    /// [locked](StoreError::locked) or still goes on: where a person is asked, it is put off.
    /// Default: no.
    fn asks_a_person(&self) -> bool {
        false
    }
}

/// Who can reach a store's record, and where they meet; from [`TokenStore::shared`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shared {
    /// No other process.
    Nowhere,
    /// Whoever can reach this file: they meet in files beside it, with its name. A save is as
    /// durable as those are.
    Beside(PathBuf),
    /// The user's other programs, by this name: they meet in the
    /// [state directory](crate::SessionBuilder::state_dir). Stores of the same name hold the same
    /// record. New tokens are durable in a sealed journal there before they are saved, so that a
    /// save may fail, hang or come late.
    Named(String),
}

/// Why a [`TokenStore`] failed.
#[derive(Debug)]
pub struct StoreError {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Locked {
        /// A person was asked to unlock it.
        asked: bool,
    },
    Unavailable,
    /// In time.
    NoAnswer,
    /// Of a record that nobody has removed.
    Lost,
    Corrupt,
}

impl StoreError {
    /// The store is there, and a person has to unlock it. `message` says what happened and what
    /// to do next, in one clause.
    pub fn locked(message: impl Into<String>) -> Self {
        Self::new(Kind::Locked { asked: true }, message)
    }

    /// The store doesn't answer, isn't there, or refuses to. `message` as for [`Self::locked`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// What the store holds is no record. `message` as for [`Self::locked`], without a word of
    /// the content.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// Adds the cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A person has to unlock the store.
    pub fn is_locked(&self) -> bool {
        matches!(self.kind, Kind::Locked { .. })
    }

    /// The content is unreadable: trying again won't help.
    pub fn is_corrupt(&self) -> bool {
        self.kind == Kind::Corrupt
    }

    /// As [`locked`](Self::locked), where the store brings up no prompt.
    #[cfg(any(test, all(feature = "keychain", target_os = "macos")))]
    pub(crate) fn unasked(message: impl Into<String>) -> Self {
        Self::new(Kind::Locked { asked: false }, message)
    }

    /// A person was asked to unlock the store, and did not.
    pub(crate) fn is_declined(&self) -> bool {
        self.kind == Kind::Locked { asked: true }
    }

    pub(crate) fn no_answer(limit: Duration) -> Self {
        let message = format!(
            "no answer within {} seconds: is it hung, or waiting for somebody?",
            limit.as_secs_f64()
        );
        Self::new(Kind::NoAnswer, message)
    }

    pub(crate) fn lost() -> Self {
        Self::new(
            Kind::Lost,
            "it has no entry any more, though nobody has logged out: unlock or restore it, or log \
             in again",
        )
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.kind == Kind::Lost
    }

    pub(crate) fn is_no_answer(&self) -> bool {
        self.kind == Kind::NoAnswer
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
