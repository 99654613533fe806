//! What the programs that share a record note for each other, in small files beside its lock.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::lock::Place;
use crate::store::{StoreError, durable};

/// Files by their kind, such as `mark`. Where nobody else can reach the record, they are kept in
/// memory.
#[derive(Debug)]
pub(crate) enum Notes {
    Files(Place),
    Memory(Mutex<HashMap<String, Vec<u8>>>),
}

impl Notes {
    pub(crate) fn new(place: Option<Place>) -> Self {
        place.map_or_else(|| Self::Memory(Mutex::default()), Self::Files)
    }

    pub(crate) fn read(&self, kind: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let place = match self {
            Self::Files(place) => place,
            Self::Memory(files) => return Ok(lock(files).get(kind).cloned()),
        };
        let Some(path) = place.file_if_any(kind)? else {
            return Ok(None);
        };
        match durable::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(place, "read", &path, error)),
        }
    }

    /// Writes it over the one before: whole or not at all, and durable on return.
    pub(crate) fn write(&self, kind: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let place = match self {
            Self::Files(place) => place,
            Self::Memory(files) => {
                lock(files).insert(kind.to_owned(), bytes.to_vec());
                return Ok(());
            }
        };
        let path = place.file(kind)?;
        durable::replace(&path, bytes).map_err(|error| failed(place, "write", &path, error))
    }

    /// As [`write`](Self::write); one that is there stays as it is.
    pub(crate) fn write_once(&self, kind: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self.read(kind)? {
            Some(_) => Ok(()),
            None => self.write(kind, bytes),
        }
    }

    /// Makes sure that there is room on the disk for so many bytes, until
    /// [`write_in_room`](Self::write_in_room) or [`leave_room`](Self::leave_room). Only for who
    /// holds the lock.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), StoreError> {
        let Self::Files(place) = self else {
            return Ok(());
        };
        let path = place.file(ROOM)?;
        durable::reserve(&path, bytes).map_err(|error| failed(place, "write", &path, error))
    }

    /// As [`write`](Self::write), in the room that was reserved.
    pub(crate) fn write_in_room(&self, kind: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let Self::Files(place) = self else {
            return self.write(kind, bytes);
        };
        let (room, path) = (place.path(ROOM)?, place.file(kind)?);
        durable::replace_from(&room, &path, bytes)
            .map_err(|error| failed(place, "write", &path, error))
    }

    /// Gives the room back that was reserved.
    pub(crate) fn leave_room(&self) {
        self.discard(ROOM);
    }

    /// Removes what means nothing any more, as far as that goes.
    pub(crate) fn discard(&self, kind: &str) {
        match self {
            Self::Files(place) => {
                if let Ok(path) = place.path(kind) {
                    let _ = fs::remove_file(path);
                }
            }
            Self::Memory(files) => {
                lock(files).remove(kind);
            }
        }
    }

    /// Whether one of that kind could be written now.
    pub(crate) fn probe(&self, kind: &str) -> Result<(), StoreError> {
        let Self::Files(place) = self else {
            return Ok(());
        };
        let path = place.file(kind)?;
        durable::probe(&path).map_err(|error| failed(place, "write", &path, error))
    }

    /// Removes it. Needs no room on the disk, and no trust in the directory. Durable on return.
    pub(crate) fn remove(&self, kind: &str) -> Result<(), StoreError> {
        let place = match self {
            Self::Files(place) => place,
            Self::Memory(files) => {
                lock(files).remove(kind);
                return Ok(());
            }
        };
        let path = place.path(kind)?;
        durable::remove(&path).map_err(|error| failed(place, "remove", &path, error))
    }

    /// Removes the files of these kinds that are older than `age`, as far as that goes.
    pub(crate) fn sweep(&self, kinds: &[&str], age: Duration) {
        let Self::Files(place) = self else {
            return;
        };
        let is_old = |path: &Path| {
            let written = fs::metadata(path).and_then(|metadata| metadata.modified());
            let age_of = |at| SystemTime::now().duration_since(at).unwrap_or_default();
            written.is_ok_and(|at| age_of(at) > age)
        };
        for path in place.all(kinds).into_iter().filter(|path| is_old(path)) {
            // The next login tries it again.
            let _ = fs::remove_file(path);
        }
    }
}

fn failed(place: &Place, what: &str, path: &Path, error: io::Error) -> StoreError {
    place.failed(format!("could not {what} {}", path.display())).with_source(error)
}

fn lock<T>(files: &Mutex<T>) -> MutexGuard<'_, T> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

const ROOM: &str = "room";
