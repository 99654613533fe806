//! A record in a plain file that only its owner can read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use zeroize::Zeroizing;

use crate::store::{Record, Shared, StoreError, TokenStore, durable};

/// Keeps the record in a file, readable by its owner alone (mode 0600; on Windows as the
/// directory's permissions have it).
///
/// The tokens are in it **in clear**: whoever can read the user's files, a backup of them
/// included, can act as the user. Choose it knowingly, for hosts without a keychain. One file
/// belongs to one session of one account; never copy it to another machine, where both copies
/// would spend the same refresh token.
///
/// A save is whole or not at all: a new file is written beside the old one, flushed to the disk
/// and renamed over it. A process's first refresh saves what is there once more before it sends
/// anything: a file that can't be replaced is found out in time. A symbolic link in its place is an
/// error, as programs that name the file by the link and by itself would not see each other. A
/// damaged record that a login replaces is kept aside, as `NAME.damaged`, until a logout.
/// `NAME.lock` is what the programs that share the file take turns by; it is never removed. What
/// else they note for each other (`NAME.mark`, `.room`, `.trace`, `.imported`, `.….out`,
/// `.….refused`) holds no token.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in the file at `path`. The file, and its directory (mode 0700), are made by the
    /// first save. A relative path is meant as of now: a change of the working directory later
    /// leads to no other file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: durable::absolute(path.into()) }
    }

    /// The file, unless it is somewhere else: a save would replace the link, and the lock beside
    /// it is not the one of who names the file itself.
    fn file(&self) -> Result<&Path, StoreError> {
        let Ok(elsewhere) = fs::read_link(&self.path) else {
            return Ok(&self.path);
        };
        Err(StoreError::unavailable(format!(
            "{} is a symbolic link: name the file that it leads to, {}",
            self.path.display(),
            durable::directory_of(&self.path).join(elsewhere).display()
        )))
    }

    /// Where a damaged record is kept aside.
    fn damaged(&self) -> PathBuf {
        let mut name: OsString = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".damaged");
        self.path.with_file_name(name)
    }

    fn failed(&self, what: &str, error: io::Error) -> StoreError {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => ": check who owns it and its directory",
            io::ErrorKind::StorageFull => ": make room on the disk",
            io::ErrorKind::ReadOnlyFilesystem => ": choose a place that can be written to",
            io::ErrorKind::ResourceBusy => ": mount the directory in place of the file alone",
            _ => "",
        };
        let message = format!("could not {what} {}{hint}", self.path.display());
        StoreError::unavailable(message).with_source(error)
    }
}

impl TokenStore for FileStore {
    fn describe(&self) -> String {
        format!("the file {}", self.path.display())
    }

    fn load(&self) -> Result<Option<Record>, StoreError> {
        match durable::read(self.file()?).map(Zeroizing::new) {
            Ok(bytes) => Ok(Some(Record::from_bytes(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        durable::replace(self.file()?, record.as_bytes())
            .map_err(|error| self.failed("write", error))
    }

    fn clear(&self) -> Result<(), StoreError> {
        durable::remove(self.file()?)
            .and_then(|()| durable::remove(&self.damaged()))
            .map_err(|error| self.failed("remove", error))
    }

    fn shared(&self) -> Shared {
        Shared::Beside(self.path.clone())
    }

    fn set_aside(&self) -> Result<(), StoreError> {
        match durable::read(self.file()?).map(Zeroizing::new) {
            Ok(bytes) => durable::replace(&self.damaged(), &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| self.failed("set aside", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do_about_it() {
        let store = FileStore::new("session");
        for (kind, hint) in [
            (io::ErrorKind::PermissionDenied, ": check who owns it and its directory"),
            (io::ErrorKind::StorageFull, ": make room on the disk"),
            (io::ErrorKind::ReadOnlyFilesystem, ": choose a place that can be written to"),
            (io::ErrorKind::ResourceBusy, ": mount the directory in place of the file alone"),
            (io::ErrorKind::Other, "session"),
        ] {
            let told = store.failed("write", kind.into()).to_string();
            assert!(told.starts_with("could not write ") && told.ends_with(hint), "{told}");
        }
    }
}
