//! Files that are whole or not there, whenever the power goes: readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes the file at `path`, over the one before: whole or not at all, and durable on return.
/// Makes its directory where there is none.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    create_private_directory(directory)?;
    let temporary = temporary_beside(path)?;
    let result = write_private(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_directory(directory));
    if result.is_err() {
        // The first error is the one to tell; the temporary file may not even exist.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Makes sure that so many bytes can be written by [`replace_from`], whoever fills the disk.
pub(crate) fn reserve(room: &Path, bytes: usize) -> io::Result<()> {
    let mut file = private().create(true).truncate(true).open(room)?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()
}

/// As [`replace`], in the room that [`reserve`] made beside it. Makes some where there is none.
pub(crate) fn replace_from(room: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // In place: what is overwritten needs no new room.
    let mut file = private().create(true).truncate(false).open(room)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    drop(file);
    fs::rename(room, path).and_then(|()| sync_directory(directory_of(path)))
}

/// Whether the file at `path` could be replaced now.
pub(crate) fn probe(path: &Path) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_private(&temporary, b" ");
    let removed = fs::remove_file(&temporary);
    written.and(removed)
}

/// Removes the file at `path`, and what a [`replace`] of it left behind that was killed. One that
/// isn't there is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => remove_leftovers(path),
    }
}

pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name that no other writer has: two may write at the same time, and the last one wins whole.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", getrandom::u64().map_err(io::Error::other)?));
    Ok(path.with_file_name(name))
}

/// Removes what a write left behind that was killed: there may be tokens in it.
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
            match fs::remove_file(entry.path()) {
                // Its writer was not killed, and has it in its place by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
    }
    sync_directory(directory)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private().create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(crate) fn create_private_directory(directory: &Path) -> io::Result<()> {
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
