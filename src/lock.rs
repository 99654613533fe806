//! The lock between the processes that share a session: who holds it may send its refresh token,
//! and write to its store.
//!
//! A lock of the kernel's on a file that is never removed: it ends with the process that holds
//! it, however that ends, and there is nothing to clean up. It is waited for by asking again and
//! again, as a wait that blocks could not be given up.

mod place;
pub(crate) use place::{Place, digest, hex};

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::refresh::within;
use crate::store::durable;

#[derive(Debug)]
pub(crate) struct ProcessLock {
    /// `None` where no other process can reach the record.
    place: Option<Place>,
    limit: Duration,
    /// Whose it is, for people.
    store: String,
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Held(Option<File>);

impl Drop for Held {
    /// Not left to the end of the file: Windows then frees the lock when it finds the time.
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // The end of the file follows.
            let _ = file.unlock();
        }
    }
}

impl ProcessLock {
    pub(crate) fn new(place: Option<Place>, limit: Duration, store: String) -> Self {
        Self { place, limit, store }
    }

    /// How long it is waited for at most.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Its file, where there is one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.place.as_ref()?.path(KIND).ok()
    }

    /// Waits for the lock, as long as the program allows and `limit` at most.
    ///
    /// # Errors
    /// Another process holds it, its file can't be used, or it locks nothing. All are transient:
    /// nobody goes on without the lock.
    pub(crate) async fn acquire(&self, limit: Duration) -> Result<Held, Error> {
        let Some(place) = &self.place else {
            return Ok(Held(None));
        };
        let failed = |error| Error::store(&self.store, error);
        let unusable = |path: &Path, error: io::Error| {
            let message = format!("could not use the lock {}", path.display());
            failed(place.failed(message).with_source(error))
        };
        let path = place.file(KIND).map_err(failed)?;
        let file = open(&path).map_err(|error| unusable(&path, error))?;
        let limit = limit.min(self.limit);
        match within(limit, lock(&file)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(unusable(&path, error)),
            None => return Err(Error::locked(path.display().to_string(), limit)),
        }
        // Some network file systems say yes to everybody.
        match open(&path).map_err(|error| unusable(&path, error))?.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(Held(Some(file))),
            Ok(()) => Err(failed(place.failed(format!(
                "the lock {} does not work on its file system, so that two programs could spend \
                 one refresh token",
                path.display()
            )))),
            Err(TryLockError::Error(error)) => Err(unusable(&path, error)),
        }
    }
}

async fn lock(file: &File) -> io::Result<()> {
    let mut pause = PAUSE_MIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Blocks for a second at most, on Windows, where somebody reads it.
    durable::undisturbed(|| options.open(path))
}

const KIND: &str = "lock";

/// A refresh takes a hundred times as long; a process that was killed frees the lock in one.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// With many processes in line, each begins soon after the one before. To ask is one system call,
/// and a refresh is rare.
const PAUSE_MAX: Duration = Duration::from_millis(5);
