//! Where a request went, and which places have accepted a token.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;

/// Where a request went: the number of its origin in the session's list, and a hash of its method
/// and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) origin: usize,
    path: u64,
}

impl Place {
    pub(crate) fn new(origin: usize, method: &Method, path: &str) -> Self {
        // FNV-1a, as what is hashed is short and nobody gains by a collision. The last bytes reach
        // only its low bits, so these are spread over the high ones, which choose the slot.
        let bytes = method.as_str().bytes().chain(path.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { origin, path: (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }
}

/// The latest methods and paths accepted at one origin: a table that needs no lock and never
/// grows. Of two that share a slot the later one stays, and the other counts as never accepted.
pub(super) struct PlaceSet(Box<[AtomicU64]>);

impl PlaceSet {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn contains(&self, place: Place) -> bool {
        self.slot(place).load(Ordering::Relaxed) == place.path
    }

    /// `true` if it wasn't in.
    pub(super) fn insert(&self, place: Place) -> bool {
        let slot = self.slot(place);
        slot.load(Ordering::Relaxed) != place.path && {
            slot.store(place.path, Ordering::Relaxed);
            true
        }
    }

    pub(super) fn remove(&self, place: Place) {
        // It may be another's by now: that one is only refreshed a little less readily.
        self.slot(place).store(0, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    fn slot(&self, place: Place) -> &AtomicU64 {
        &self.0[(place.path >> 48) as usize % SLOTS]
    }
}

/// More paths than a program uses at a time; 8 KiB for each origin.
const SLOTS: usize = 1024;
