//! Files that are whole or not there, whenever the power goes: readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Writes the file at `path`, over the one before: whole or not at all, and durable on return.
/// Makes its directory where there is none.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    create_private_directory(directory)?;
    let temporary = temporary_beside(path)?;
    let result = write_private(&temporary, bytes)
        .and_then(|()| undisturbed(|| fs::rename(&temporary, path)))
        .and_then(|()| sync_directory(directory));
    if result.is_err() {
        // The first error is the one to tell; the temporary file may not even exist.
        let _ = undisturbed(|| fs::remove_file(&temporary));
    }
    result
}

/// Makes sure that so many bytes can be written by [`replace_from`], whoever fills the disk.
pub(crate) fn reserve(room: &Path, bytes: usize) -> io::Result<()> {
    // Never what a link leads to, that somebody has put there.
    match undisturbed(|| fs::remove_file(room)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = undisturbed(|| private().create_new(true).open(room))?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()
}

/// As [`replace`], in the room that [`reserve`] made beside it. Makes some where there is none.
pub(crate) fn replace_from(room: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // In place: what is overwritten needs no new room.
    let mut file = undisturbed(|| private().create(true).truncate(false).open(room))?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    drop(file);
    undisturbed(|| fs::rename(room, path)).and_then(|()| sync_directory(directory_of(path)))
}

/// What the file at `path` holds.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    undisturbed(|| fs::read(path))
}

/// Whether the file at `path` could be replaced now.
pub(crate) fn probe(path: &Path) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_private(&temporary, b" ");
    let removed = undisturbed(|| fs::remove_file(&temporary));
    written.and(removed)
}

/// Removes the file at `path`, and what a [`replace`] of it left behind that was killed. One that
/// isn't there is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match undisturbed(|| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => remove_leftovers(path),
    }
}

/// The path as it is meant now, wherever the program goes later; as it is, where it is empty or the
/// program is nowhere.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
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
            match undisturbed(|| fs::remove_file(entry.path())) {
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

/// Tries again, for a second at most, what fails because somebody else has the file open. That
/// happens on Windows alone, where scanners, indexers and backups open what was just written.
pub(crate) fn undisturbed<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut pause = PAUSE_MIN;
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) && pause <= PAUSE_MAX => thread::sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
}

fn is_in_use(error: &io::Error) -> bool {
    cfg!(windows) && matches!(error.raw_os_error(), Some(ACCESS_DENIED | SHARING_VIOLATION))
}

// Windows' numbers. The first also means what it says: then it is told a second later.
const ACCESS_DENIED: i32 = 5;
const SHARING_VIOLATION: i32 = 32;

const PAUSE_MIN: Duration = Duration::from_millis(1);

/// With all the shorter ones before it a second: a store's call has three.
const PAUSE_MAX: Duration = Duration::from_millis(512);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often it is tried, and what comes of it, where the first `failures` attempts fail.
    fn tried(failures: usize, code: i32) -> (usize, bool) {
        let attempts = Cell::new(0);
        let result = undisturbed(|| {
            attempts.set(attempts.get() + 1);
            if attempts.get() > failures { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
        });
        (attempts.get(), result.is_ok())
    }

    #[cfg(unix)]
    #[test]
    fn room_is_made_in_place_of_a_link_and_not_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let [room, theirs] = ["tokens.room", "theirs"].map(|name| directory.path().join(name));
        fs::write(&theirs, "precious").unwrap();
        std::os::unix::fs::symlink(&theirs, &room).unwrap();
        for bytes in [300, 200] {
            reserve(&room, bytes).unwrap();
            assert_eq!(fs::read_to_string(&theirs).unwrap(), "precious");
            let metadata = fs::symlink_metadata(&room).unwrap();
            assert_eq!((metadata.is_file(), metadata.len()), (true, bytes as u64));
        }
    }

    #[test]
    fn a_file_in_use_is_tried_again_eleven_times_at_most_on_windows_and_nowhere_else() {
        for code in [ACCESS_DENIED, SHARING_VIOLATION] {
            assert_eq!(tried(3, code), if cfg!(windows) { (4, true) } else { (1, false) });
        }
        let for_good = tried(usize::MAX, SHARING_VIOLATION);
        assert_eq!(for_good, (if cfg!(windows) { 11 } else { 1 }, false));
        // Not found; the disk is full.
        assert_eq!((tried(1, 2), tried(1, 112)), ((1, false), (1, false)));
        assert_eq!(tried(0, 0), (1, true));
    }
}
