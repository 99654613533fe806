//! Where the processes of a user meet: a directory of the user's own, for what they share of a
//! session and isn't secret, or is sealed.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::store::{Shared, StoreError, durable};

/// The place of one record: files in a directory, that begin with its name.
///
/// By default the directory is under the home that the user has in the *password database*: not
/// `$HOME`, `$XDG_STATE_HOME` or `$TMPDIR`, which two programs of one user may see differently.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    directory: Directory,
    name: OsString,
}

#[derive(Clone, Debug)]
enum Directory {
    /// Where the record is: who can write there has the record anyway.
    OfRecord(PathBuf),
    Chosen(PathBuf),
    Default,
}

impl Place {
    /// Where those meet who share the record. `None` where nobody does.
    pub(crate) fn of(shared: Shared, chosen: Option<PathBuf>) -> Option<Self> {
        match shared {
            Shared::Nowhere => None,
            Shared::Beside(file) => {
                let directory = Directory::OfRecord(durable::directory_of(&file).to_owned());
                Some(Self { directory, name: file.file_name().unwrap_or_default().to_owned() })
            }
            Shared::Named(record) => {
                let directory = chosen.map_or(Directory::Default, Directory::Chosen);
                Some(Self { directory, name: file_name(&record).into() })
            }
        }
    }

    /// The path of this record's file of that kind. Its directory is there, and the user's own.
    ///
    /// # Errors
    /// The directory can't be made, or others can write to it.
    pub(crate) fn file(&self, kind: &str) -> Result<PathBuf, StoreError> {
        let directory = self.directory()?;
        durable::create_private_directory(&directory).map_err(|error| {
            let message = format!("could not make the directory {}", directory.display());
            self.failed(message).with_source(error)
        })?;
        if !matches!(self.directory, Directory::OfRecord(_)) {
            check(&directory)?;
        }
        self.path(kind)
    }

    /// The same path, whatever is there.
    pub(crate) fn path(&self, kind: &str) -> Result<PathBuf, StoreError> {
        let mut name = self.name.clone();
        name.push(format!(".{kind}"));
        Ok(self.directory()?.join(name))
    }

    /// As [`file`](Self::file), where its directory is there already; `None` where it isn't.
    pub(crate) fn file_if_any(&self, kind: &str) -> Result<Option<PathBuf>, StoreError> {
        let directory = self.directory()?;
        let exists = directory.try_exists().map_err(|error| {
            self.failed(format!("could not look for {}", directory.display())).with_source(error)
        });
        if !exists? {
            return Ok(None);
        }
        if !matches!(self.directory, Directory::OfRecord(_)) {
            check(&directory)?;
        }
        self.path(kind).map(Some)
    }

    /// The paths of this record's files of these kinds, `NAME.….KIND`.
    pub(crate) fn all(&self, kinds: &[&str]) -> Vec<PathBuf> {
        let Ok(entries) = self.directory().and_then(|directory| {
            std::fs::read_dir(&directory).map_err(|error| {
                self.failed(format!("could not read {}", directory.display())).with_source(error)
            })
        }) else {
            return Vec::new();
        };
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            let rest = name.strip_prefix(self.name.as_encoded_bytes());
            rest.and_then(|rest| rest.strip_prefix(b".")).is_some_and(|rest| {
                kinds.iter().any(|kind| {
                    let hash = rest.strip_suffix(kind.as_bytes());
                    hash.is_some_and(|hash| hash.len() > 1 && hash.ends_with(b"."))
                })
            })
        };
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect()
    }

    /// `message`, with what to do next.
    pub(crate) fn failed(&self, message: String) -> StoreError {
        StoreError::unavailable(match self.directory {
            Directory::OfRecord(_) => format!("{message}: put that right, or choose another place"),
            Directory::Chosen(_) | Directory::Default => {
                format!("{message}: put that right, or name another directory with .state_dir(…)")
            }
        })
    }

    fn directory(&self) -> Result<PathBuf, StoreError> {
        match &self.directory {
            Directory::OfRecord(directory) | Directory::Chosen(directory) => Ok(directory.clone()),
            Directory::Default => {
                home().map(|home| home.join("reqwest-reauth")).map_err(StoreError::unavailable)
            }
        }
    }
}

/// A name for files that a person finds, and no two records share.
fn file_name(record: &str) -> String {
    let words = record.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let readable = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let readable = &readable[..readable.len().min(READABLE)];
    format!("{readable}.{}", &digest(&[record])[..KEY])
}

/// The parts, told apart, as a SHA-256 in hexadecimal.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a String can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(unix)]
fn home() -> Result<PathBuf, String> {
    use nix::unistd::{Uid, User};

    let uid = Uid::effective();
    let way_out = "name a directory with .state_dir(…)";
    let user = User::from_uid(uid)
        .map_err(|error| format!("could not ask for the home directory ({error}): {way_out}"))?;
    let user = user.ok_or_else(|| {
        format!("user {uid} is not in the password database, so its home is unknown: {way_out}")
    })?;
    let below =
        if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/state" };
    Ok(user.dir.join(below))
}

#[cfg(windows)]
fn home() -> Result<PathBuf, String> {
    known_folders::get_known_folder_path(known_folders::KnownFolder::LocalAppData).ok_or_else(|| {
        "Windows names no folder for local application data: name a directory with .state_dir(…)"
            .to_owned()
    })
}

/// Somebody who can write there could make this user wait, or believe to be logged out.
#[cfg(unix)]
fn check(directory: &std::path::Path) -> Result<(), StoreError> {
    use std::os::unix::fs::MetadataExt;

    let unsafe_because = |why: String| {
        let shown = directory.display();
        let next = "put that right, or name another directory with .state_dir(…)";
        StoreError::unavailable(format!("the directory {shown} {why}: {next}"))
    };
    let metadata = std::fs::metadata(directory)
        .map_err(|error| unsafe_because("could not be looked at".to_owned()).with_source(error))?;
    let (owner, user) = (metadata.uid(), nix::unistd::Uid::effective().as_raw());
    if owner != user {
        return Err(unsafe_because(format!("belongs to user {owner}, not to user {user}")));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(unsafe_because(format!("can be written to by others (mode {mode:03o})")));
    }
    Ok(())
}

/// Local application data is the user's own on Windows; a chosen directory is as it was chosen.
#[cfg(windows)]
fn check(_directory: &std::path::Path) -> Result<(), StoreError> {
    Ok(())
}

/// What is shown of the record's name, so that a person finds the file.
const READABLE: usize = 48;

/// Hexadecimal digits: 128 bits tell any two sessions apart.
const KEY: usize = 32;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sessions_are_told_apart_and_found_by_a_person() {
        let name = file_name;
        assert!(name(r#"keychain "My CLI" "work""#).starts_with("keychain-my-cli-work."));
        assert_eq!(name("a"), name("a"));
        assert_ne!(name("a"), name("A"));
        assert_ne!(digest(&["a", "bc"]), digest(&["ab", "c"]));
        let odd = name("../../etc/ä\0");
        assert!(odd.starts_with("etc.") && odd.len() == "etc.".len() + KEY, "{odd}");
        assert_eq!(name(&"long".repeat(99)).len(), READABLE + 1 + KEY);
    }

    #[test]
    fn what_is_noted_of_logins_is_found_by_its_kind_and_only_of_the_same_record() {
        let directory = tempfile::tempdir().unwrap();
        let chosen = directory.path().join("state");
        let of = |name: &str| Place::of(Shared::Named(name.to_owned()), Some(chosen.clone()));
        let (ours, theirs) = (of("ours").unwrap(), of("theirs").unwrap());
        assert_eq!(ours.file_if_any("1.out").unwrap(), None, "the directory is not there yet");
        let here = ["1.out", "2.refused", "out", ".out", "about", "1.mark"];
        for path in here.map(|kind| ours.file(kind).unwrap()) {
            fs::write(path, "").unwrap();
        }
        fs::write(theirs.file("3.out").unwrap(), "").unwrap();
        assert_eq!(ours.file_if_any("1.out").unwrap(), Some(ours.path("1.out").unwrap()));
        let mut found = ours.all(&["out", "refused"]);
        found.sort();
        assert_eq!(found, ["1.out", "2.refused"].map(|kind| ours.path(kind).unwrap()));
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        let place = Place::of(Shared::Named("a".to_owned()), Some(inner.clone())).unwrap();
        assert!(place.file("trace").unwrap().starts_with(&inner));
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o720)).unwrap();
        let error = place.file("trace").unwrap_err().to_string();
        assert!(error.contains("can be written to by others (mode 720)"), "{error}");
        assert!(error.contains(&inner.display().to_string()) && error.contains(".state_dir("));
        assert_eq!(place.file_if_any("trace").unwrap_err().to_string(), error);
    }

    #[cfg(unix)]
    #[test]
    fn the_home_is_the_one_of_the_password_database() {
        // As `getent passwd` has it, whatever $HOME says.
        let uid = nix::unistd::Uid::effective().to_string();
        let passwd = std::process::Command::new("getent").args(["passwd", &uid]).output().unwrap();
        let line = String::from_utf8(passwd.stdout).unwrap();
        assert!(home().unwrap().starts_with(line.trim_end().split(':').nth(5).unwrap()), "{line}");
    }
}
