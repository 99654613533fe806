//! The store with what it may forget: where it says "no record", the trace is asked.

use std::sync::Arc;

use crate::refresh::Trace;
use crate::store::{Record, StoreError, TokenStore};

/// A session's store, and the trace of the logins in it.
///
/// For a store that never forgets, the trace is left alone: what the store says is certain.
pub(crate) struct Kept {
    store: Arc<dyn TokenStore>,
    trace: Option<Trace>,
}

impl Kept {
    /// `trace` for a store that may lose its record.
    pub(crate) fn new(store: Arc<dyn TokenStore>, trace: Option<Trace>) -> Self {
        Self { store, trace }
    }

    pub(crate) fn describe(&self) -> String {
        self.store.describe()
    }

    pub(crate) fn asks_a_person(&self) -> bool {
        self.store.asks_a_person()
    }

    /// The record. `None` only when nobody is logged in.
    pub(crate) fn load(&self) -> Result<Option<Record>, StoreError> {
        let record = self.store.load()?;
        let Some(trace) = self.trace.as_ref().filter(|_| record.is_none()) else {
            return Ok(record);
        };
        if !trace.says_logged_in()? {
            return Ok(None);
        }
        // Look again: another program may have logged in between the two.
        match self.store.load()? {
            None => Err(StoreError::unavailable(
                "it has no entry any more, though nobody has logged out: unlock or restore it, \
                 or log in again",
            )),
            record => Ok(record),
        }
    }

    /// What a login is going to replace.
    ///
    /// # Errors
    /// Only where nothing may be written over it now: the store can't be asked, or what is noted
    /// beside it could not be.
    pub(crate) fn load_to_replace(&self) -> Result<Before, StoreError> {
        let was_logged_in = match &self.trace {
            Some(trace) => {
                trace.check()?;
                trace.says_logged_in()?
            }
            None => false,
        };
        match self.store.load() {
            Ok(Some(record)) => Ok(Before::Record(record)),
            Ok(None) if was_logged_in => Ok(Before::Lost),
            Ok(None) => Ok(Before::Nobody),
            Err(error) if error.is_corrupt() => Ok(Before::Damaged),
            Err(error) => Err(error),
        }
    }

    /// What a logout is going to clear, whatever is noted beside it.
    pub(crate) fn load_to_clear(&self) -> Result<Option<Record>, StoreError> {
        self.store.load()
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.store.save(record)?;
        if let Some(trace) = &self.trace {
            // The tokens are safe, which is what was asked; the next save tries it again.
            let _ = trace.note_login();
        }
        Ok(())
    }

    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        // First: a record that is gone while the trace remains looks lost.
        let noted = self.trace.as_ref().map_or(Ok(()), Trace::note_logout);
        self.store.clear()?;
        noted
    }

    /// Puts back what a login wrote over.
    pub(crate) fn restore(&self, before: &Before) -> Result<(), StoreError> {
        match before {
            Before::Nobody => self.clear(),
            Before::Record(record) => self.store.save(record),
            // As unreadable as it was. Cleared, it would look like a logout, and the copy that
            // was kept aside would go.
            Before::Damaged => self.store.save(&Record::from_bytes(b"damaged")),
            // The trace says that it was there.
            Before::Lost => self.store.clear(),
        }
    }

    pub(crate) fn set_aside(&self) -> Result<(), StoreError> {
        self.store.set_aside()
    }
}

/// What a store held before a login.
#[derive(Debug)]
pub(crate) enum Before {
    Nobody,
    Record(Record),
    Damaged,
    /// Nothing, though nobody had logged out.
    Lost,
}
