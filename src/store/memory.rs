//! A store that forgets: for tests and demos.

use std::sync::{Arc, Mutex, PoisonError};

use crate::store::{Record, Shared, StoreError, TokenStore};

/// Keeps the record in memory, until the last clone is dropped. Clones share it.
///
/// For tests and demos: a program that ends logs its user out, and clones have no lock in common.
/// Give them to one session after the other, not to two at once.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Option<Record>>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Option<Record>> {
        // A poisoned lock still guards a whole record: it is replaced in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for MemoryStore {
    fn describe(&self) -> String {
        "the memory of this process".to_owned()
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        Ok(self.record().clone())
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        *self.record() = Some(record.clone());
        Ok(())
    }

    fn clear(&self) -> Result<(), StoreError> {
        *self.record() = None;
        Ok(())
    }

    fn shared(&self) -> Shared {
        Shared::Nowhere
    }
}
