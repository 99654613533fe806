//! What is known of a session without its secrets, also where the store is of no help: whether
//! somebody is logged in.
//!
//! A keychain whose file was lost or is not mounted says "no such entry", just as after a logout.
//! The trace tells the two apart.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lock::Place;
use crate::store::{StoreError, durable};

/// The trace of one session; its file lies in the session's [`Place`].
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    place: Place,
}

#[derive(Deserialize, Serialize)]
struct Content {
    version: u32,
    logged_in: bool,
}

impl Trace {
    pub(crate) fn new(place: Place) -> Self {
        Self { place }
    }

    /// Whether somebody is logged in, as far as the trace knows. One that can't be read knows of
    /// nobody: that there was a login can't be told, and that there was none neither.
    pub(crate) fn says_logged_in(&self) -> Result<bool, StoreError> {
        let path = self.place.file(KIND)?;
        match fs::read(&path) {
            Ok(bytes) => {
                Ok(serde_json::from_slice(&bytes).is_ok_and(|trace: Content| trace.logged_in))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("read", &path, error)),
        }
    }

    /// Whether a login could be noted.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let path = self.place.file(KIND)?;
        durable::probe(&path).map_err(|error| self.failed("write", &path, error))
    }

    /// Notes that somebody is logged in. Durable on return.
    pub(crate) fn note_login(&self) -> Result<(), StoreError> {
        if self.says_logged_in().is_ok_and(|noted| noted) {
            return Ok(());
        }
        let path = self.place.file(KIND)?;
        let content = Content { version: VERSION, logged_in: true };
        serde_json::to_vec(&content)
            .map_err(io::Error::other)
            .and_then(|bytes| durable::replace(&path, &bytes))
            .map_err(|error| self.failed("write", &path, error))
    }

    /// Notes that nobody is. Needs no room on the disk, and no trust in the directory. Durable on
    /// return.
    pub(crate) fn note_logout(&self) -> Result<(), StoreError> {
        let path = self.place.path(KIND)?;
        durable::remove(&path).map_err(|error| self.failed("remove", &path, error))
    }

    fn failed(&self, what: &str, path: &Path, error: io::Error) -> StoreError {
        self.place.failed(format!("could not {what} {}", path.display())).with_source(error)
    }
}

const KIND: &str = "trace";
const VERSION: u32 = 1;
