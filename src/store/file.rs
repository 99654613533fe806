//! A record in a plain file that only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::store::{Record, StoreError, TokenStore};

/// Keeps the record in a file, readable by its owner alone (mode 0600; on Windows as the
/// directory's permissions have it).
///
/// The tokens are in it **in clear**: whoever can read the user's files, a backup of them
/// included, can act as the user. Choose it knowingly, for hosts without a keychain. One file
/// belongs to one session of one account; never copy it to another machine, where both copies
/// would spend the same refresh token.
///
/// A save is whole or not at all: a new file is written beside the old one, flushed to the disk
/// and renamed over it. Where `path` is a symbolic link, it is replaced by a file.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in the file at `path`. The file, and its directory (mode 0700), are made by the
    /// first save.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let directory = directory_of(&self.path);
        create_private_directory(directory)?;
        let temporary = temporary_beside(&self.path)?;
        let result = write_private(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .and_then(|()| sync_directory(directory));
        if result.is_err() {
            // The first error is the one to tell; the temporary file may not even exist.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn failed(&self, what: &str, error: io::Error) -> StoreError {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => ": check who owns it and its directory",
            io::ErrorKind::StorageFull => ": make room on the disk",
            io::ErrorKind::ReadOnlyFilesystem => ": choose a place that can be written to",
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
        match fs::read(&self.path).map(Zeroizing::new) {
            Ok(bytes) => Ok(Some(Record::from_bytes(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn save(&self, record: &Record) -> Result<(), StoreError> {
        self.write(record.as_bytes()).map_err(|error| self.failed("write", error))
    }

    fn clear(&self) -> Result<(), StoreError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => remove_leftovers(&self.path),
        }
        .map_err(|error| self.failed("remove", error))
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name that no other writer has: two may save at the same time, and the last one wins whole.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", getrandom::u64().map_err(io::Error::other)?));
    Ok(path.with_file_name(name))
}

/// Removes what a save left behind that was killed: there are tokens in it.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    let (directory, name) = (directory_of(path), path.file_name().unwrap_or_default());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (file, name) = (entry.file_name(), name.as_encoded_bytes());
        let middle = (file.as_encoded_bytes().strip_prefix(name))
            .and_then(|rest| rest.strip_prefix(b"."))
            .and_then(|rest| rest.strip_suffix(b".tmp"));
        if middle.is_some_and(|random| random.len() == 16) {
            fs::remove_file(entry.path())?;
        }
    }
    sync_directory(directory)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn create_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Makes a rename or a removal durable. Windows has no such call, and does so by itself.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(directory)?.sync_all() {
        // Some network file systems have no such call for directories either.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}
