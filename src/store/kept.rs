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
    pub(crate) fn new(store: Arc<dyn TokenStore>, trace: Trace) -> Self {
        let trace = store.may_lose().then_some(trace);
        Self { store, trace }
    }

    pub(crate) fn describe(&self) -> String {
        self.store.describe()
    }

    pub(crate) fn may_lose(&self) -> bool {
        self.trace.is_some()
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

    /// The record that a login or a logout finds: for them, one that was lost is none.
    ///
    /// # Errors
    /// Also where the trace can't be kept: better now than when the tokens are stored already.
    pub(crate) fn load_to_replace(&self) -> Result<Option<Record>, StoreError> {
        if let Some(trace) = &self.trace {
            trace.says_logged_in()?;
        }
        self.store.load()
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.store.save(record)?;
        if let Some(trace) = &self.trace {
            // The tokens are safe, which is what was asked; the next save tries it again.
            let _ = trace.note(true);
        }
        Ok(())
    }

    pub(crate) fn clear(&self) -> Result<(), StoreError> {
        // First: a record that is gone while the trace remains looks lost.
        let noted = self.trace.as_ref().map_or(Ok(()), |trace| trace.note(false));
        self.store.clear()?;
        noted
    }

    pub(crate) fn set_aside(&self) -> Result<(), StoreError> {
        self.store.set_aside()
    }
}
