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
        // Eight bytes at a time, both halves of each product folded into one, so that every bit
        // reaches those that choose the slot. Nobody gains by a collision.
        let mix = |hash: u64, next: u64| {
            let product = u128::from(hash ^ next) * 0x9e37_79b9_7f4a_7c15;
            product as u64 ^ (product >> 64) as u64
        };
        let method = method.as_str().bytes().map(u64::from);
        let (words, rest) = path.as_bytes().as_chunks();
        let words = words.iter().map(|word| u64::from_le_bytes(*word));
        let rest = rest.iter().map(|byte| u64::from(*byte));
        Self { origin, path: method.chain(words).chain(rest).fold(0xcbf2_9ce4_8422_2325, mix) }
    }
}

/// The latest methods and paths accepted at one origin: a table that needs no lock and never
/// grows. Where a row is full, one of its places makes way, and counts as never accepted.
pub(super) struct PlaceSet(Box<[Row]>);

/// A line of the processor's cache. 0 stands for nothing.
#[repr(align(64))]
#[derive(Default)]
struct Row([AtomicU64; PLACES]);

impl PlaceSet {
    pub(super) fn new() -> Self {
        Self((0..ROWS).map(|_| Row::default()).collect())
    }

    pub(super) fn contains(&self, place: Place) -> bool {
        self.row(place).iter().any(|slot| slot.load(Ordering::Relaxed) == place.path)
    }

    /// `true` if it wasn't in.
    pub(super) fn insert(&self, place: Place) -> bool {
        if self.contains(place) {
            return false;
        }
        let row = self.row(place);
        let is_put = |slot: &AtomicU64| {
            slot.compare_exchange(0, place.path, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if !row.iter().any(is_put) {
            row[place.path as usize % PLACES].store(place.path, Ordering::Relaxed);
        }
        true
    }

    pub(super) fn remove(&self, place: Place) {
        for slot in self.row(place) {
            // Another's by now stays.
            let _ = slot.compare_exchange(place.path, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        let slots = self.0.iter().flat_map(|row| &row.0);
        slots.for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    fn row(&self, place: Place) -> &[AtomicU64; PLACES] {
        &self.0[(place.path >> 48) as usize % ROWS].0
    }
}

const PLACES: usize = 8;

/// More paths than a program uses at a time; 8 KiB for each origin.
const ROWS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, count: usize) -> Vec<Place> {
        (0..count).map(|n| Place::new(0, &Method::GET, &format!("{path}{n}"))).collect()
    }

    #[test]
    fn the_paths_of_a_busy_program_are_all_remembered() {
        for path in ["/api/items/", "/v1/users/me/repositories/", "/"] {
            let (set, places) = (PlaceSet::new(), places(path, 200));
            assert!(places.iter().all(|place| set.insert(*place)));
            assert!(places.iter().all(|place| set.contains(*place) && !set.insert(*place)));
        }
    }

    #[test]
    fn a_place_is_its_method_and_all_of_its_path() {
        let path = "/v1/users/4f9d8a60/repositories";
        let place = |method: &str, path: &str| Place::new(0, &method.parse().unwrap(), path);
        let this = place("GET", path);
        assert_eq!(this, place("GET", path));
        assert_ne!(this, place("PUT", path));
        for n in 0..path.len() {
            let mut other = path.as_bytes().to_vec();
            other[n] ^= 1;
            assert_ne!(this, place("GET", std::str::from_utf8(&other).unwrap()), "byte {n}");
            assert_ne!(this, place("GET", &path[..n]), "{n} bytes");
        }
    }

    #[test]
    fn of_too_many_the_latest_is_remembered() {
        let set = PlaceSet::new();
        for place in places("/", 20 * ROWS * PLACES) {
            assert!(set.insert(place));
            assert!(set.contains(place));
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_nothing_else() {
        let (set, places) = (PlaceSet::new(), places("/", 200));
        assert!(places.iter().all(|place| set.insert(*place)));
        let (gone, stay) = places.split_at(100);
        gone.iter().for_each(|place| set.remove(*place));
        assert!(!gone.iter().any(|place| set.contains(*place)));
        assert!(stay.iter().all(|place| set.contains(*place)));
        // Into the gaps, and once.
        assert!(gone.iter().all(|place| set.insert(*place)));
        set.clear();
        assert!(!places.iter().any(|place| set.contains(*place)));
    }
}
