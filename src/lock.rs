//! The lock between the processes that share a session: who holds it may send its refresh token.
//!
//! As yet a session belongs to one process, and the gate within it is the only lock: this one
//! lets everybody through. The transaction takes it where it belongs, after the gate and before
//! the store.

mod place;
pub(crate) use place::{Place, digest};

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct ProcessLock;

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Held;

impl ProcessLock {
    #[expect(clippy::unused_async, reason = "waits for other processes, once it knows of them")]
    pub(crate) async fn acquire(&self) -> Result<Held, Error> {
        Ok(Held)
    }
}
