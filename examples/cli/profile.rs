//! What is remembered of a login, in a file that holds no secret.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::args::Global;
use crate::tokens::Tokens;
use crate::trouble::Trouble;

/// The settings of a session.
#[derive(Clone, Debug, Deserialize, Serialize)]
// A setting of a later version must not be lost unseen.
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Or else the token endpoint.
    pub issuer: Option<String>,
    pub token_endpoint: Option<String>,
    pub authorization_endpoint: Option<String>,
    pub device_authorization_endpoint: Option<String>,
    pub revocation_endpoint: Option<String>,
    pub client_id: String,
    /// The name of the variable that holds the secret.
    pub client_secret_env: Option<String>,
    pub scope: Option<String>,
    /// What else the server is told at a login, as NAME=VALUE.
    #[serde(default)]
    pub params: Vec<String>,
    pub redirect_uri: Option<String>,
    /// How the last login was made, to be made again.
    #[serde(default)]
    pub way: Way,
    pub origins: Vec<String>,
    pub store: Tokens,
    pub state_dir: Option<PathBuf>,
}

/// Where the tokens of a login come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Browser,
    Device,
    /// From somewhere else.
    #[default]
    Tokens,
}

impl Profile {
    /// The profile of that name, if there is one.
    ///
    /// # Errors
    /// It can't be read, or isn't one.
    pub fn load(global: &Global) -> Result<Option<Self>, Trouble> {
        let path = file(global)?;
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Trouble::unusable(
                    &format!("could not read {}", path.display()),
                    error,
                ));
            }
        };
        let profile = serde_json::from_slice(&bytes).map_err(|error| {
            Trouble::unusable(&format!("{} is no profile", path.display()), error)
                .with_advice("put it right, or remove it and log in again")
        })?;
        Ok(Some(profile))
    }

    /// Writes the profile beside its place, so that whatever fails does so before the login.
    ///
    /// # Errors
    /// It can't be written.
    pub fn draft(&self, global: &Global) -> Result<Draft, Trouble> {
        let path = file(global)?;
        let write = || {
            // There is one: `file` has joined a name to it.
            let directory = path.parent().unwrap_or_else(|| Path::new("."));
            private(&mut DirBuilder::new()).recursive(true).create(directory)?;
            // Readable by its owner alone, as tempfile makes them.
            let mut file = NamedTempFile::new_in(directory)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        match write() {
            Ok(file) => Ok(Draft { file, path }),
            Err(error) => Err(not_written(&path, error)),
        }
    }
}

/// A profile that is written, but not in its place yet.
#[must_use]
pub struct Draft {
    file: NamedTempFile,
    path: PathBuf,
}

impl Draft {
    /// Puts it into its place, over the one before.
    ///
    /// # Errors
    /// It isn't there; the one before still is.
    pub fn keep(self) -> Result<(), Trouble> {
        match self.file.persist(&self.path) {
            Ok(_file) => Ok(()),
            Err(error) => Err(not_written(&self.path, error.error)),
        }
    }
}

/// A name that is the same on every file system, and safe in a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Default for Name {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
        if text.is_empty() || !text.bytes().all(plain) {
            return Err("a name has letters, digits and any of . _ @ - in it");
        }
        if text.starts_with('.') {
            return Err("a name can't begin with a dot");
        }
        // Beside the profile `a`, with `--store file:` and the directory of the profiles.
        if text.ends_with(".tokens") {
            return Err("a name can't end with .tokens: files with tokens do");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the profile is kept.
///
/// # Errors
/// There is no directory for settings on this machine.
pub fn file(global: &Global) -> Result<PathBuf, Trouble> {
    Ok(directory(global)?.join(format!("{}.json", global.profile)))
}

/// The names of all profiles, in order.
///
/// # Errors
/// Their directory can't be read.
pub fn names(global: &Global) -> Result<Vec<Name>, Trouble> {
    let directory = directory(global)?;
    let failed =
        |error| Trouble::unusable(&format!("could not read {}", directory.display()), error);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
        names.extend(name.and_then(|name| name.parse::<Name>().ok()));
    }
    names.sort();
    Ok(names)
}

/// Which profile commands are about where none is given.
///
/// # Errors
/// What was chosen can't be read.
pub fn chosen(global: &Global) -> Result<Name, Trouble> {
    let path = directory(global)?.join(CHOSEN);
    match fs::read_to_string(&path) {
        Ok(name) => name.trim().parse().map_err(|why: &str| {
            Trouble::usage(format!("{} holds no profile's name: {why}", path.display()))
                .with_advice("cli accounts use NAME chooses one")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Name::default()),
        Err(error) => Err(Trouble::unusable(&format!("could not read {}", path.display()), error)),
    }
}

/// # Errors
/// It can't be written.
pub fn choose(global: &Global, name: &Name) -> Result<(), Trouble> {
    let directory = directory(global)?;
    let write = || {
        let mut file = NamedTempFile::new_in(&directory)?;
        writeln!(file, "{name}")?;
        file.as_file().sync_all()?;
        file.persist(directory.join(CHOSEN))?;
        Ok(())
    };
    write().map_err(|error| not_written(&directory.join(CHOSEN), error))
}

fn directory(global: &Global) -> Result<PathBuf, Trouble> {
    use etcetera::BaseStrategy;

    Ok(match &global.config_dir {
        Some(directory) => directory.clone(),
        None => etcetera::choose_base_strategy()
            .map_err(|error| {
                Trouble::unusable("there is no directory for settings", error)
                    .with_advice("name one with --config-dir DIR")
            })?
            .config_dir()
            .join(SERVICE),
    })
}

/// No profile's name begins with a dot.
const CHOSEN: &str = ".chosen";

/// What the program is called in the keychain and among the settings.
pub const SERVICE: &str = "reqwest-reauth-cli";

fn not_written(path: &Path, error: io::Error) -> Trouble {
    Trouble::unusable(&format!("could not write {}", path.display()), error)
}

#[cfg(unix)]
fn private(builder: &mut DirBuilder) -> &mut DirBuilder {
    use std::os::unix::fs::DirBuilderExt;

    builder.mode(0o700)
}

/// The user's own settings are in a directory that others can't read.
#[cfg(not(unix))]
fn private(builder: &mut DirBuilder) -> &mut DirBuilder {
    builder
}
