//! Where a session's record is kept.
//!
//! [`TokenStore`] is the seam; [`MemoryStore`] is for tests and demos, [`FileStore`] an explicit
//! choice for hosts without a keychain. A store keeps one record, as it got it: what is in a
//! record, and which of two is newer, is the session's business.

mod file;
pub use file::FileStore;
mod memory;
pub use memory::MemoryStore;
mod record;
pub use record::Record;
pub(crate) use record::{Pin, Unreadable};
mod thread;
pub(crate) use thread::{LateWrite, StoreThread};

use std::error::Error as StdError;
use std::fmt;

/// Keeps the record of one session.
///
/// The methods may block: they run one at a time, on a thread that the session keeps for its
/// store. A call that takes longer than 3 seconds is given up by the session, which goes on with
/// a transient error; the call itself runs to its end before the next one starts.
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
    Locked,
    Unavailable,
    Corrupt,
}

impl StoreError {
    /// The store is there, and a person has to unlock it. `message` says what happened and what
    /// to do next, in one clause.
    pub fn locked(message: impl Into<String>) -> Self {
        Self::new(Kind::Locked, message)
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
        self.kind == Kind::Locked
    }

    /// The content is unreadable: trying again won't help.
    pub fn is_corrupt(&self) -> bool {
        self.kind == Kind::Corrupt
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
